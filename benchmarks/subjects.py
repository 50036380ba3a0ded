"""What `benchmarks.attacks` attacks and trains: digits at 32 pixels, small networks."""

import jax
import numpy as np
from ml_collections import ConfigDict

from ddjax import data, loop, squeeze, training
from launch import inputs

SIDE = 32  # pixels; the digits' eight, each four times
BATCH = 128  # of training
NETWORKS = {
    "convnet, width 32": {"name": "convnet", "width": 32, "depth": 3},
    "resnet18, width 16": {"name": "resnet18", "width": 16},
}


def digits(split: str):
    """The embedded digits at 32 pixels and in three channels."""
    found = data.load("digits", split)
    times = SIDE // found.info.shape[0]
    images = np.repeat(found.images.repeat(times, 1).repeat(times, 2), 3, 3)
    mean, std = found.info.mean * 3, found.info.std * 3  # tuples of one
    info = found.info._replace(shape=images.shape[1:], mean=mean, std=std)
    return found._replace(images=images, info=info)


def trained(epochs: int):
    """A ConvNet, what it has learned in a moment, and the digits it was not shown."""
    train, test = digits("train"), digits("test")
    network = build("convnet, width 32", train.info)
    recipe = squeeze.Recipe(
        batch_size=BATCH, epochs=epochs, crop_scale=(1.0, 1.0), flip=False
    )
    count = len(train.labels)
    state = squeeze.init(jax.random.key(0), network, recipe, count)
    step = squeeze.make_step(network, recipe, count)
    shared, steps = (train.images, train.labels), squeeze.num_steps(recipe, count)
    state = loop.run(step, state, shared, jax.random.key(1), range(steps))
    return network, jax.device_get(training.variables(state)), test


def attacked(network, variables, test, count: int):
    """(images, labels): `count` of those the network knows, or all; both sides' work."""
    logits = logits_of(network, variables, test.images / np.float32(255))
    known = np.flatnonzero(logits.argmax(1) == test.labels)
    rows = known[np.linspace(0, len(known) - 1, min(count, len(known))).astype(int)]
    return test.images[rows] / np.float32(255), test.labels[rows]


def build(name: str, info):
    """One of `NETWORKS`, as `launch` would build it for such images here."""
    return inputs.build_network(ConfigDict(NETWORKS[name]), info)


def logits_of(network, variables, images) -> np.ndarray:
    """[N, C], at the precision that attacks are run with."""
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(network.apply)(variables, images)[0])

"""A network of torch's with what torchattacks found on it, and a loop over one round."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import models
from ddjax.models import weights
from ddjax.types import DataInfo

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
# As make_gradient_fixtures.py has them.
INFO = DataInfo("noise", tuple("abcde"), (8, 8, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


class Oracle(NamedTuple):
    model: Callable
    images: jax.Array  # [16, 8, 8, 3] float64
    labels: jax.Array  # [16]
    found: dict  # name to what torchattacks found


class Dense(NamedTuple):
    model: Callable
    images: jax.Array  # [6, 3, 4, 2] float64
    labels: jax.Array  # [6]


@pytest.fixture
def x64():
    """Tiny gradients change their signs in float32, between machines and batches."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def oracle(x64):
    with np.load(FIXTURES / "gradient.npz") as file:
        found = dict(file)
    tensors = {
        name.removeprefix("weights/"): found[name]
        for name in found
        if name.startswith("weights/")
    }
    network = models.create("convnet", INFO, width=6, depth=2)
    like = jax.eval_shape(network.init, jax.random.key(0))
    variables = weights.from_torch(tensors, like)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

    def model(images):
        return network.apply(variables, images)[0]

    images = jnp.asarray(found["images"] / 255)
    return Oracle(model, images, jnp.asarray(found["labels"], jnp.int32), found)


@pytest.fixture
def dense(x64):
    """Two layers that compile at once; some pixels are 0 or 1, some labels wrong."""
    key_images, *keys = jax.random.split(jax.random.key(4), 3)
    images = jax.random.uniform(key_images, (6, 3, 4, 2), minval=-0.1, maxval=1.1)
    images = jnp.clip(images, 0.0, 1.0)
    shapes = ((24, 8), (8, 4))
    first, second = (jax.random.normal(*pair) for pair in zip(keys, shapes))

    def model(pixels):
        return jnp.tanh((pixels - 0.5).reshape(len(pixels), -1) @ first / 3) @ second

    labels = model(images).argmax(1).at[0].set(0)
    return Dense(model, images, labels)


@pytest.fixture
def drive():
    """One round of an attack, its states from first to last."""

    def states(attack, model, images, labels, *, keys=None, round=0, start=None):
        if keys is None:
            keys = jax.random.split(jax.random.key(3), len(images))
        step = jax.jit(functools.partial(attack.step, model))
        state = attack.init(model, images, labels, keys, round)
        passed = [state if start is None else state._replace(images=start)]
        for index in range(attack.num_steps):
            passed.append(step(passed[-1], index, images, labels, keys))
        return passed

    return states

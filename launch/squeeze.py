"""Trains the teacher.

    python -m launch.squeeze --config=configs/default.py

Makes <workdir>/squeeze/teacher-<hash>/: the variables, with the train and test accuracy
and the names of the classes.
"""

import time
from typing import Any, NamedTuple

import jax
from absl import logging

from ddjax import checkpoint, data, loop, metrics, models, parallel, squeeze, training
from ddjax.models import layers
from ddjax.types import Dataset
from launch import program, progress


class Teacher(NamedTuple):
    """A trained network and what it was trained on."""

    network: models.Network
    variables: Any
    train: Dataset
    test: Dataset  # the test split, or what was held out of the training split
    hash: str
    record: dict


def run(config, workdir) -> Teacher:
    """The teacher of a config: loaded if it is there, trained if not."""
    train, test = load_data(config)
    network = build_network(config.squeeze.model, train.info)
    if config.squeeze.restore:
        return _restore(config.squeeze.restore, network, train, test)
    made_from = {
        "version": 1,
        "config": config.squeeze.to_dict(),
        "seed": config.seed,
        "data": data.fingerprint(train),
    }
    stage = checkpoint.Stage(workdir, "squeeze", "teacher", made_from)
    if not stage.complete:
        _train(config, stage, network, train, test)
    record = stage.record()
    _check_classes(record, train, stage.folder)
    variables = checkpoint.unflatten(stage.load(), _shapes(network))
    return Teacher(network, variables, train, test, stage.hash, record)


def load_data(config) -> tuple[Dataset, Dataset]:
    """Training images, and the images that scores are counted on."""
    train = data.load(config.data.name, "train")
    if config.data.holdout:
        return data.hold_out(train, config.data.holdout)
    return train, data.load(config.data.name, "test")


def build_network(model, info) -> models.Network:
    """The network of a config's `model` section, the same object for equal ones."""
    options = model.to_dict()
    return _network(options.pop("name"), info, tuple(sorted(options.items())))


_NETWORKS = {}  # so that a network's functions are compiled once in a program


def _network(name, info, options):
    key = (name, info, options)
    if key not in _NETWORKS:
        # For small images on a CPU a matrix product beats XLA's convolution.
        small = parallel.is_cpu() and info.shape[0] * info.shape[1] <= 256
        conv = layers.patches_conv if small else None
        _NETWORKS[key] = models.create(name, info, conv=conv, **dict(options))
    return _NETWORKS[key]


def _train(config, stage, network, train, test):
    options = config.squeeze.to_dict()
    recipe = squeeze.Recipe(**{k: options[k] for k in squeeze.Recipe._fields})
    key_init, key_train = jax.random.split(program.key(config, "squeeze"))
    count = len(train.labels)
    step = squeeze.make_step(network, recipe, count)
    state, done = squeeze.init(key_init, network, recipe, count), 0
    if (found := stage.restore(state)) is not None:
        done, state = found
        logging.info("squeeze goes on from step %d.", done)
    total = squeeze.num_steps(recipe, count)
    began = time.monotonic()
    with progress.bar("squeeze", total, done) as bar:
        monitor = progress.Monitor(stage, bar, total, done, config.save_every_s)
        state = loop.run(
            step,
            state,
            (train.images, train.labels),
            key_train,
            range(done, total),
            observe=monitor,
        )
        monitor.finish(training.variables(state))
    variables = training.variables(state)
    scores = {
        name: metrics.accuracy(network.apply, variables, split.images, split.labels)
        for name, split in (("train", train), ("test", test))
    }
    record = {
        "accuracy": scores,
        "classes": list(train.info.classes),
        "data": train.info.name,
        "seconds": time.monotonic() - began,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
    }
    stage.finish(checkpoint.flatten(variables), record)
    logging.info(
        "teacher: %.1f %% of the training images, %.1f %% of the test images.",
        100 * scores["train"],
        100 * scores["test"],
    )


def _restore(folder, network, train, test) -> Teacher:
    """A teacher that was trained elsewhere, refused if its classes are others."""
    record = checkpoint.record(folder)
    _check_classes(record, train, folder)
    variables = checkpoint.unflatten(checkpoint.load(folder), _shapes(network))
    identity = checkpoint.fingerprint(record["made_from"], data.fingerprint(train))
    return Teacher(network, variables, train, test, identity, record)


def _check_classes(record, train, folder):
    ours, theirs = list(train.info.classes), record.get("classes")
    if theirs is None:
        raise ValueError(f"{folder} holds no teacher: it names no classes.")
    if ours == theirs:
        return
    where = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
        min(len(ours), len(theirs)),
    )
    order = (
        "the same classes in another order"
        if set(ours) == set(theirs)
        else (f"{len(theirs)} other classes")
    )
    raise ValueError(
        f"the teacher in {folder} was trained on {order}: label {where} is "
        f"{theirs[where : where + 1]} there and {ours[where : where + 1]} in "
        f"{train.info.name}. Train one on this data (leave squeeze.restore empty)."
    )


def _shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))


if __name__ == "__main__":
    program.main(run)

"""Trains the surrogates: networks whose gradients guide what a generator samples.

    python -m launch.surrogates --config=configs/default.py

Makes <workdir>/surrogates/<model>-<hash>/: the variables of one network at the epochs
where the mean gradients of the classes have turned, stacked. The variables after every
epoch are kept until these are chosen.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import checkpoint, data, loop, models, parallel, squeeze, training
from ddjax.diffusion.guidance import influence
from launch import inputs, meter, program, progress, teachers
from launch import squeeze as squeeze_stage


class Surrogates(NamedTuple):
    """One network at several ages."""

    network: models.Network
    variables: Any  # [E, ...] each, on the host
    epochs: tuple[int, ...]  # after how many epochs; 0 before the training
    hash: str


def run(config, workdir) -> Surrogates:
    """The surrogates of a config: loaded if they are there, trained if not.

    Raises:
      ValueError: see `check`.
    """
    check(config)
    train, test = inputs.load_data(config)
    network = build(config, train.info)
    stage = stage_of(config, workdir, train)
    if not stage.complete:
        with meter.watch("surrogates") as cost:
            last = _train(config, stage, network, train)
            found = parallel.is_primary()
            arrays, record = (
                _choose(config, stage, network, train) if found else ({}, {})
            )
            if found:
                record |= teachers.describe(network, last, train, test)
        stage.finish(arrays, {**record, **cost.record()})
        logging.info("surrogates: epochs %s.", _numbers(stage.record()["epochs"]))
    epochs = tuple(stage.record()["epochs"])
    shapes = jax.eval_shape(
        jax.vmap(network.init), jax.random.split(jax.random.key(0), len(epochs))
    )
    variables = checkpoint.unflatten(stage.load(), shapes)
    return Surrogates(network, variables, epochs, stage.hash)


def build(config, info) -> models.Network:
    """The network of a config's surrogates."""
    return inputs.build_network(config.surrogates.model, info)


def hashes(config, workdir) -> str:
    """Tells surrogates from others, trained or not."""
    train, _ = inputs.load_data(config)
    return stage_of(config, workdir, train).hash


def check(config) -> None:
    """Refuses surrogates that cannot be trained or chosen.

    Raises:
      ValueError: no epochs or images, nothing to keep, or a threshold outside (0, 1].
    """
    section = config.surrogates
    least = min(section.epochs, section.images, section.most)
    if least < 1 or not 0 < section.threshold <= 1:
        raise ValueError(
            f"surrogates has {section.epochs} epochs, {section.images} images, most "
            f"{section.most} and threshold {section.threshold}; it needs 1 or more of "
            "each, and a cosine above 0, at most 1."
        )


def recipe_of(config) -> squeeze.Recipe:
    """How the config trains its surrogates: at a constant rate."""
    options = config.surrogates.to_dict()
    known = {k: options[k] for k in squeeze.Recipe._fields if k in options}
    return squeeze.Recipe(**known, schedule="constant")


def stage_of(config, workdir, train) -> checkpoint.Stage:
    """Where the surrogates of a config are kept; its hash is known before they are."""
    made_from = {
        "version": 1,
        "config": config.surrogates.to_dict(),
        "seed": config.seed,
        "data": data.fingerprint(train),
        "pixels": (train.info.mean, train.info.std),
    }
    return checkpoint.Stage(
        workdir, "surrogates", config.surrogates.model.name, made_from
    )


def _train(config, stage, network, train):
    """Keeps the variables of every epoch as a part; those of the last epoch."""
    recipe, key = recipe_of(config), program.key(config, "surrogates")
    key_init, key_train = jax.random.split(key)
    count = len(train.labels)
    total = squeeze.num_steps(recipe, count)
    per_epoch = total // recipe.epochs
    state, done = squeeze.init(key_init, network, recipe, count), 0
    if (found := stage.restore(state)) is not None:
        done, state = found
        logging.info("surrogates go on from step %d.", done)
    step, shared, read = squeeze_stage.source(
        config.seed, config, network, recipe, train, done, total
    )
    with (
        progress.bar("surrogates", total, done) as bar,
        progress.Monitor(stage, bar, total, done, config.save_every_s) as monitor,
        read as batches,
    ):
        if done % per_epoch == 0:  # a state may have been saved before its part
            _keep(stage, done // per_epoch, state)
        for epoch in range(done // per_epoch, recipe.epochs):
            state = loop.run(
                step,
                state,
                shared,
                key_train,
                range(max(done, epoch * per_epoch), (epoch + 1) * per_epoch),
                spread=parallel.sharded(min(recipe.batch_size, count)),
                feed=None if batches is None else lambda index: next(batches),
                observe=monitor,
            )
            _keep(stage, epoch + 1, state)
        last = jax.device_get(training.variables(state))
        monitor.finish(last)
    return last


def _keep(stage, epoch, state) -> None:
    """Writes the variables of an epoch."""
    variables = jax.device_get(training.variables(state))
    if parallel.is_primary():
        stage.save_part(f"epoch{epoch}", checkpoint.flatten(variables))


def _choose(config, stage, network, train) -> tuple[dict, dict]:
    """The arrays of the stacked variables that are kept, and the record."""
    ages = [_part(stage, network, e) for e in range(config.surrogates.epochs + 1)]
    examples = class_images(train, config.surrogates.images)
    cosines = turning(network, ages, examples)
    section = config.surrogates
    epochs, threshold = influence.chosen(cosines, section.threshold, section.most)
    kept = [ages[epoch] for epoch in epochs]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kept)
    return checkpoint.flatten(stacked), {"epochs": epochs, "threshold": threshold}


def _part(stage, network, epoch):
    """The variables of an epoch.

    Raises:
      ValueError: they are not there.
    """
    arrays = stage.load_part(f"epoch{epoch}")
    if arrays is None:
        raise ValueError(
            f"the variables of epoch {epoch} in {stage.folder} are lost; remove the "
            "folder to have the surrogates trained again."
        )
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return checkpoint.unflatten(arrays, shapes)


def class_images(train, count: int) -> np.ndarray:
    """The first images of each class, as many of each: at most `count`.

    Returns:
      [C, n, H, W, ch] uint8; n is the size of the smallest class, where that is less.
    """
    places = data.class_slices(train)
    count = min(count, *(place.stop - place.start for place in places))
    return np.stack([train.images[p.start : p.start + count] for p in places])


def turning(network, ages, examples) -> np.ndarray:
    """The cosines [T, T] between the mean gradients at two ages, averaged over classes.

    A class at a time: its gradients at all ages take the memory of as many networks.

    Args:
      network: of the ages.
      ages: T variables.
      examples: [C, n, H, W, ch] uint8.
    """
    gradient = _gradient(network.apply)
    total = np.zeros((len(ages), len(ages)))
    for label, images in enumerate(examples):
        found = [gradient(variables, images, label) for variables in ages]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(found))
        total += np.asarray(_similarities(stacked))
    return total / len(examples)


_similarities = jax.jit(influence.similarities)


@functools.lru_cache(maxsize=8)
def _gradient(apply_fn):
    """`(variables, images uint8, label) -> gradient`, compiled."""

    def gradient(variables, images, label):
        pixels = images / np.float32(255)
        return influence.parameter_gradient(apply_fn, variables, pixels, label)

    return jax.jit(gradient)


def _numbers(values) -> str:
    return ", ".join(map(str, values))


if __name__ == "__main__":
    program.main(run)

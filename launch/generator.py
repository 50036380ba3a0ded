"""Trains the generator that methods sample distilled images from.

    python -m launch.generator --config=configs/default.py

Makes <workdir>/generator/denoiser-<hash>/: the averaged variables, with the losses and
a picture of samples beside real images; and in the space of an autoencoder, before that,
<workdir>/generator/autoencoder-<hash>/. Published weights may stand for either.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from ddjax import autoencode, checkpoint, data, diffusion, generate, loop, parallel
from ddjax import report as reports
from ddjax.diffusion import Generator
from ddjax.models import generator_weights
from launch import inputs, meter, pictures, program, progress, teachers

_SPACES = ("pixels", "latents")
_SHOWN = 8  # samples of each class, in the picture
_CLASSES = 20  # in the picture, at most


class Made(NamedTuple):
    """A trained generator."""

    generator: Generator
    variables: Any  # of it, on the host
    hash: str
    record: dict


class Training(NamedTuple):
    """One loop of this stage."""

    title: str
    start: Callable  # key -> state
    step: Callable
    result: Callable  # state -> what is kept
    num_steps: int
    batch_size: int


def run(config, workdir) -> Made:
    """The generator of a config: loaded if it is there, trained if not.

    Raises:
      ValueError: see `check`; or published weights do not fit.
    """
    check(config)
    train, _ = inputs.load_data(config)
    generator, identity = build(config, train.info), hashes(config, workdir)
    space = _autoencoder(config, workdir, train)
    if config.generator.restore:
        denoiser = _published(config, train.info, generator)
        found = {"denoiser": denoiser, "autoencoder": space}
        return Made(generator, found, identity, {})
    stage = _stage(config, workdir, train)
    if not stage.complete:
        _denoiser(config, stage, train, generator, space)
    shapes = jax.eval_shape(generator.init, jax.random.key(0))["denoiser"]
    denoiser = checkpoint.unflatten(stage.load(), shapes)
    found = {"denoiser": denoiser, "autoencoder": space}
    return Made(generator, found, identity, stage.record())


def hashes(config, workdir) -> str:
    """Tells a generator from others, trained or not."""
    section, (train, _) = config.generator, inputs.load_data(config)
    if not section.restore:
        return _stage(config, workdir, train).hash
    return checkpoint.fingerprint(
        teachers.digest(section.restore, "generator.restore"),
        *_labels(config, train.info),
        identity(config),
        _origin(config, workdir, train),
    )


def check(config) -> None:
    """Refuses what cannot be trained, before anything is.

    Raises:
      ValueError: another space, an autoencoder without widths, or numbers that a recipe
        refuses.
    """
    section = config.generator
    if section.space not in _SPACES:
        known = ", ".join(_SPACES)
        raise ValueError(f"unknown generator.space {section.space!r}; known: {known}.")
    diffusion.schedule.named(section.schedule, section.timesteps)
    recipe_of(config).check()
    if section.space == "latents":
        autoencoder_recipe_of(config).check()


def build(config, info) -> Generator:
    """The functions of the config's generator, the same object for equal ones."""
    section = config.generator
    latents = section.space == "latents"
    autoencoder = section.autoencoder.to_dict() if latents else None
    return diffusion.create(
        info,
        model=section.model.to_dict(),
        autoencoder=autoencoder,
        noise=(section.schedule, section.timesteps),
    )


def recipe_of(config) -> generate.Recipe:
    """How the config trains its denoiser."""
    options = config.generator.to_dict()
    return generate.Recipe(**{k: options[k] for k in generate.Recipe._fields})


def autoencoder_recipe_of(config) -> autoencode.Recipe:
    """How the config trains its autoencoder."""
    return autoencode.Recipe(**config.generator.autoencoder_training.to_dict())


def identity(config) -> dict:
    """The part of the config that a denoiser depends on, but for its autoencoder."""
    section = config.generator
    noise = (section.schedule, section.timesteps)
    return {"model": section.model.to_dict(), "noise": noise} | (
        recipe_of(config)._asdict()
    )


def _stage(config, workdir, train) -> checkpoint.Stage:
    """Where the denoiser of a config is kept."""
    made_from = {
        "version": 1,
        "config": identity(config),
        "seed": config.seed,
        "data": data.fingerprint(train),
        "autoencoder": _origin(config, workdir, train),
    }
    return checkpoint.Stage(workdir, "generator", "denoiser", made_from)


def _space_stage(config, workdir, train) -> checkpoint.Stage:
    """Where the autoencoder of a config is kept."""
    options = config.generator.autoencoder.to_dict()
    made_from = {
        "version": 1,
        "config": {"model": options, **autoencoder_recipe_of(config)._asdict()},
        "seed": config.seed,
        "data": data.fingerprint(train),
    }
    return checkpoint.Stage(workdir, "generator", "autoencoder", made_from)


def _origin(config, workdir, train) -> str:
    """Tells the autoencoder from others; "" where there is none."""
    section = config.generator
    if section.space == "pixels":
        return ""
    if path := section.restore_autoencoder:
        digest = teachers.digest(path, "generator.restore_autoencoder")
        return checkpoint.fingerprint(digest, section.autoencoder.to_dict())
    return _space_stage(config, workdir, train).hash


def _denoiser(config, stage, train, generator, space) -> None:
    """Trains it, from its newest state."""
    recipe, count = recipe_of(config), len(train.labels)
    training = Training(
        "generator",
        lambda key: generate.init(key, generator, recipe),
        generate.make_step(generator, recipe, count),
        lambda state: generate.variables(state)["denoiser"],
        recipe.num_steps,
        min(recipe.batch_size, count),
    )
    images = _in_memory(train)
    with meter.watch("generator") as cost:
        key = program.key(config, "generator")
        shared = (images, train.labels, space)
        denoiser, history = _trained(config, stage, training, shared, key)
        record = _record(train, denoiser, history)
        if parallel.is_primary():
            variables = {"denoiser": denoiser, "autoencoder": space}
            _draw(config, stage, train, generator, variables, history)
    stage.finish(checkpoint.flatten(denoiser), {**record, **cost.record()})
    logging.info("generator: a loss of %.4f at the end.", record["loss"])


def _trained(config, stage, training: Training, shared, key):
    """What a loop leaves, from its newest state on; and the losses."""
    key_init, key_train = jax.random.split(key)
    state, done = training.start(key_init), 0
    if (found := stage.restore(state)) is not None:
        done, state = found
        logging.info("%s goes on from step %d.", training.title, done)
    total = training.num_steps
    with (
        progress.bar(training.title, total, done) as bar,
        progress.Monitor(stage, bar, total, done, config.save_every_s) as monitor,
    ):
        state = loop.run(
            training.step,
            state,
            shared,
            key_train,
            range(done, total),
            spread=parallel.sharded(training.batch_size),
            observe=monitor,
        )
        last = jax.device_get(training.result(state))
        monitor.finish(last)
    return last, monitor.history


def _autoencoder(config, workdir, train) -> Mapping:
    """Variables of the autoencoder; {} where there is none."""
    section = config.generator
    if section.space == "pixels":
        return {}
    options = section.autoencoder.to_dict()
    module = diffusion.build_autoencoder(train.info, options)
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, *train.info.shape))
    )
    if path := section.restore_autoencoder:
        return generator_weights.load_autoencoder(path, shapes)
    recipe, stage = (
        autoencoder_recipe_of(config),
        _space_stage(config, workdir, train),
    )
    if not stage.complete:
        images, count = _in_memory(train), len(train.labels)
        training = Training(
            "autoencoder",
            lambda key: autoencode.init(key, module, recipe, train.info.shape),
            autoencode.make_step(module, recipe, count),
            autoencode.variables,
            recipe.num_steps,
            min(recipe.batch_size, count),
        )
        with meter.watch("autoencoder") as cost:
            key = program.key(config, "autoencoder")
            found, history = _trained(config, stage, training, (images,), key)
            found = autoencode.normalised(module, found, images[:: 1 + count // 2000])
            record = _record(train, found, history)
        stage.finish(checkpoint.flatten(found), {**record, **cost.record()})
    return checkpoint.unflatten(stage.load(), shapes)


def _published(config, info, generator):
    """The denoiser of a file of weights.

    Raises:
      ValueError: the file does not fit, or the labels do not.
    """
    section, (labels, classes) = config.generator, _labels(config, info)
    theirs = info._replace(classes=tuple(map(str, range(classes))))
    shapes = jax.eval_shape(build(config, theirs).init, jax.random.key(0))["denoiser"]
    found = generator_weights.load_dit(section.restore, shapes)
    table = found["params"]["y_embedder.embedding_table"]["embedding"]
    chosen = np.asarray(table)[[*labels, classes]]  # the last is no class
    found["params"]["y_embedder.embedding_table"] = {"embedding": chosen}
    return found


def _labels(config, info) -> tuple[tuple[int, ...], int]:
    """Which of the published classes each of ours is, and how many there are.

    Raises:
      ValueError: a class has none.
    """
    section, count = config.generator, info.num_classes
    labels = tuple(section.restore_labels) or tuple(range(count))
    classes = section.restore_classes or count
    if len(labels) != count or not all(0 <= label < classes for label in labels):
        raise ValueError(
            f"generator.restore_labels has {len(labels)} numbers, {labels[:3]}...; it "
            f"needs one for each of the {count} classes of {info.name}: which of the "
            f"{classes} classes of {section.restore} it is, counted from 0."
        )
    return labels, classes


def _in_memory(train):
    """The images, [N, H, W, ch] uint8.

    Raises:
      ValueError: they are on disk.
    """
    if isinstance(train.images, data.Records):
        raise ValueError(  # noqa: TRY004
            f"{train.info.name} is larger than data.memory_gb and stays on disk, and a "
            "generator is trained on images in memory: raise data.memory_gb, lower "
            "data.size, or set generator.restore to published weights."
        )
    return train.images


def _record(train, variables, history) -> dict:
    losses = [row["loss"] for row in history]
    return {
        "classes": list(train.info.classes),
        "data": train.info.name,
        "parameters": sum(x.size for x in jax.tree.leaves(variables)),
        "loss": float(np.mean(losses[-max(1, len(losses) // 10) :])),
    }


def _draw(config, stage, train, generator, variables, history) -> None:
    """samples.png, samples beside as many real images, and curves.png."""
    section, classes = config.generator, min(generator.num_classes, _CLASSES)
    kept = diffusion.schedule.respaced(generator.schedule, section.picture.steps)

    @functools.partial(jax.jit, static_argnums=2)
    def some(key, variables, scale):
        labels = jnp.repeat(jnp.arange(classes), _SHOWN)
        z = diffusion.sample(
            key, generator, variables, labels, schedule=kept, scale=scale
        )
        return generator.decode(variables, z)

    key = program.key(config, "generator", 1)
    images = np.asarray(some(key, variables, section.picture.scale))
    images = np.uint8(np.round(255 * np.clip(images, 0, 1)))
    slices = data.class_slices(train)[:classes]
    real = np.concatenate([train.images[rows][:_SHOWN] for rows in slices])
    rows = [(f"samples, guided by {section.picture.scale:g}", images), ("real", real)]
    rows = [(title, pictures.columns(x, classes, _SHOWN)) for title, x in rows]
    reports.grid(rows, classes).savefig(stage.folder / "samples.png")
    reports.curves(history, stage.folder.name).savefig(stage.folder / "curves.png")


if __name__ == "__main__":
    program.main(run)

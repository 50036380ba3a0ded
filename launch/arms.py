"""The arms of a comparison: methods with their start, and baselines.

An arm is written "method/start", such as "wmdd/real", or is the name of a baseline,
such as "herding". The config's section `methods.<method>` says how an arm recovers.
"sre2l+guard/noise" and "random+guard" have another teacher (see `launch.variants`): it
is what is inverted, it chooses, and it labels the images. "geodm.eh/random" is a method
with other settings (see `launch.sections`).
"""

import functools

import jax
import jax.numpy as jnp

from ddjax import (
    data,
    losses,
    matching,
    methods,
    optimizers,
    patches,
    recover,
    selection,
    squeeze,
    stats,
    tables,
)
from launch import (
    atoms,
    ensembles,
    generator,
    inputs,
    pool,
    sections,
    students,
    surrogates,
    variants,
)

STARTS = ("noise", "real", "random")
BASELINES = (*selection.names(), "rded")


def check(config) -> None:
    """Refuses what cannot work, before any time is spent."""
    train, _ = inputs.load_data(config)
    streamed = isinstance(train.images, data.Records)
    check_with(config, train.info, stats.class_counts(train), streamed)


def check_with(config, info, counts, streamed: bool) -> None:
    """The same for data that need not be there.

    Args:
      config: of the experiment.
      info: of the data.
      counts: [C], training images of each class.
      streamed: whether they stay on disk.
    """
    for ipc in config.recover.ipc:
        stats.check_ipc(ipc, info, counts)
    if streamed and config.evaluate.whole_epochs:
        raise ValueError(
            f"{info.name} is larger than data.memory_gb = {config.data.memory_gb}, and "
            "students on all images need them in memory: set evaluate.whole_epochs to "
            "0 (the teacher's accuracy is a bound too), or raise data.memory_gb."
        )
    students.check(config, info)
    for arm in (ours(config), *config.evaluate.against):
        name, _ = split(arm)
        theirs = variants.config_of(config, arm, 1)
        _check_squeeze(theirs.squeeze)
        network = inputs.build_network(theirs.squeeze.model, info)
        if name in methods.names():
            for ipc in config.recover.ipc:
                method = build(config, arm, network, info, ipc)
                _check_in_turn(config, arm, method, ipc)
                _check_teacher(theirs, arm, method, network, info)
                _check_mosaics(config, arm, ipc, info, counts)
                recover.chunks(1, 1, 1, sections.of(config, arm, ipc)["layout"])
            _check_real(info, arm, method, streamed)
        elif name == "rded":
            for ipc in config.recover.ipc:
                patches.check(ipc, info, counts)
    _one_of("evaluate.labels", config.evaluate.labels, tables.LABELS)
    if ensembles.asked(config):
        _check_labellers(config, info)
    _check_squeeze(config.squeeze)
    atoms.options(config.stats)


def _check_labellers(config, info):
    """ValueError for teachers of labels that cannot be trained."""
    ensembles.check(config, config.recover.ipc)
    for name in config.relabel.teachers:
        theirs = ensembles.config_of(config, name, config.recover.ipc[0])
        _check_squeeze(theirs.squeeze)
        inputs.build_network(theirs.squeeze.model, info)


def _check_squeeze(section):
    """ValueError for a word or number that no teacher's training knows."""
    _one_of("squeeze.optimizer", [section.optimizer], ("sgd", "adamw"))
    losses.Curvature(**section.curvature).check()
    squeeze.Adversarial(**section.adversarial).check()


def _check_mosaics(config, arm, ipc, info, counts):
    """ValueError for images that cannot be mosaics, or begin as some."""
    factor = sections.factor(config, arm, ipc)
    matching.mosaics.check(factor, info.shape)
    start = split(arm)[1]
    if factor > 1 and start == "real":
        raise ValueError(
            f"{arm} has a factor of {factor}: each image holds {factor**2}, and its "
            'start "real" is one for each atom. Choose "random" or "noise".'
        )
    if start == "random":
        stats.check_ipc(ipc * factor**2, info, counts)


def _check_teacher(config, arm, method, teacher, info):
    """ValueError if a method reads what the teacher has not."""
    for stage, module in (
        ("pool", pool),
        ("generator", generator),
        ("surrogates", surrogates),
    ):
        if stage in method.requires:
            module.check(config)
    seen = reported(teacher, info)
    if "running" in method.requires and not seen["running"]:
        raise ValueError(
            f"{arm} matches the running statistics of BatchNorm, and the network "
            f"{config.squeeze.model.name!r} has none as it is configured. Choose one "
            "with BatchNorm, or wmdd, which can match what LayerNorms read."
        )


def _check_in_turn(config, arm, method, ipc):
    """ValueError for a start that would not be read, or chunks that part a class."""
    if not method.in_turn:
        return
    if split(arm)[1] != "noise":
        raise ValueError(
            f"{arm} has a start that would not be read: images that are sampled start "
            "from noise. Set recover.start to noise, or write the arm with /noise."
        )
    layout = sections.of(config, arm, ipc)["layout"]
    if layout == "images":
        raise ValueError(
            f"{arm} makes the images of a class one after another, and the layout "
            '"images" parts them: set its layout to "classes".'
        )


def _check_real(info, arm, method, streamed):
    """ValueError if a method draws images that are not in memory."""
    if streamed and method.real_batch:
        raise ValueError(
            f"{arm} draws real images at every step, and {info.name} is larger than "
            "data.memory_gb: raise it, or lower data.size."
        )


def reported(network, info) -> dict:
    """Shapes of what a network reports of one image; see `models.Network`."""
    return _reported(network, info.shape)


@functools.cache
def _reported(network, shape):
    variables = jax.eval_shape(network.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(network.apply, variables, image)[1]


def _one_of(field, values, known):
    for value in values:
        if value not in known:
            raise ValueError(f"unknown {field} {value!r}; known: {', '.join(known)}.")


def ours(config) -> str:
    """The arm that the config is about."""
    return f"{config.recover.method}/{config.recover.start}"


def split(arm: str) -> tuple[str, str]:
    """The method and the start of an arm, or a baseline and "real".

    Raises:
      ValueError: neither.
    """
    name, _, start = arm.partition("/")
    name, dot, _ = name.partition("+")[0].partition(".")
    if name in BASELINES and not start and not dot:
        return name, "real"
    known = ", ".join((*BASELINES, *(f"{m}/START" for m in methods.names())))
    if name not in methods.names() or start not in STARTS:
        raise ValueError(
            f"unknown arm {arm!r}; known: {known}; START is {', '.join(STARTS)}. With "
            '"+NAME" behind the method or baseline it has the teacher teachers.NAME, '
            'with ".NAME" behind a method the settings changes.NAME.'
        )
    return name, start


def build(config, arm: str, network, info, ipc: int) -> methods.Method:
    """A method with the optimiser, view and options of its section.

    Raises:
      ValueError: see `sections.of` and `methods.create`; or its view lacks a field.
    """
    options, (name, _) = sections.of(config, arm, ipc), split(arm)
    num_steps, _ = (options.pop(field) for field in sections.FIELDS)
    optimizer, beside = None, {}
    if methods.moves_pixels(name):
        optimizer = optimizers.pixels(
            options.pop("optimizer", "adam"),
            options.pop(sections.RATE),
            num_steps,
            info.std,
            options.pop("momentum", 0.5),
        )
    if methods.is_told_a_view(name):
        beside["augment"] = _view(name, options)
    if methods.samples(name):
        beside["generator"] = generator.build(config, info)
        network = surrogates.build(config, info)
    space = atoms.space(config.stats)
    if space is not None and methods.is_told_a_space(name):
        options["space"] = space
    return methods.create(
        name,
        network,
        optimizer,
        num_steps=num_steps,
        options=tuple(sorted(options.items())),
        **beside,
    )


def _view(name, options) -> data.augment.CropFlipRoll:
    """How a step looks at the images; takes its fields out of the options."""
    missing = [field for field in sections.VIEW if field not in options]
    if missing:
        raise ValueError(
            f"the config's section methods.{name} lacks {', '.join(missing)}; "
            "configs/default.py says what they are."
        )
    scale, flip, jitter = (options.pop(field) for field in sections.VIEW)
    return data.augment.CropFlipRoll(tuple(scale), flip, jitter)

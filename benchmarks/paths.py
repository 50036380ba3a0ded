"""The hot paths of ddjax, each at a few sizes: what `benchmarks.run` times.

A path is a function that yields its `Case`s. One thing varies at a time, so that a plot
against it is one line: images per class, classes, pixels a side, or students. Labelling and
students include their views in one program, as an accelerator has them; on a CPU
`relabel.look` is a program of its own.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sampling
from ddjax import (
    attacks,
    methods,
    models,
    optimizers,
    ot,
    parallel,
    relabel,
    squeeze,
    stats,
    student,
)
from ddjax.types import Batch, Context, DataInfo, Targets

__all__ = ["PATHS", "Case"]

SMALL = parallel.is_cpu()  # sizes that a CPU ends in its lifetime
WIDTH = 32 if SMALL else 128
CLASSES, SIDE = 10, 32
LARGE = 4 if SMALL else 100  # images of 224 pixels at a time
STEPS = 1000  # of whatever has a schedule


class Case(NamedTuple):
    """One program and what it is called with."""

    path: str
    what: str  # of the path
    varied: str  # the name of what varies along `what`; "" for nothing
    value: int  # of it
    step: Callable  # pure: (state, *given) to a pytree
    state: Any  # what `step` takes first
    given: tuple
    loops: bool = False  # then its compiler counts an iteration, not the work


def _info(side=SIDE, classes=CLASSES, channels=3):
    names = tuple(map(str, range(classes)))
    shape = (side, side, channels)
    return DataInfo("noise", names, shape, (0.5,) * channels, (0.25,) * channels)


def _images(count, info):
    """uint8, and labels class after class."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *info.shape), dtype=np.uint8)
    labels = np.arange(count) * info.num_classes // count
    return jnp.asarray(images), jnp.asarray(labels, jnp.int32)


def _network(info, name="convnet", **fields):
    if name == "convnet":
        fields = {"width": WIDTH, "depth": 3, **fields}
    network = models.create(name, info, **fields)
    return network, network.init(jax.random.key(0))


def _networks():
    """(what, pixels a side, images, network and variables), small ones first."""
    for side in (8, 16, 32):
        info = _info(side)
        yield "ConvNet-3", side, 100, info, *_network(info)
    info = _info(224)
    yield "ResNet-18", 224, LARGE, info, *_network(info, "resnet18")


# Stages of the teacher ----------------------------------------------------------------


def squeezing() -> Iterator[Case]:
    """A step of training a teacher."""
    for what, side, count, info, network, _ in _networks():
        recipe = squeeze.Recipe(batch_size=count)
        step = squeeze.make_step(network, recipe, count)
        state = squeeze.init(jax.random.key(0), network, recipe, count)
        given = jnp.int32(0), _images(count, info), jax.random.key(1)
        yield Case(
            "squeeze", f"{what}, {count} images", "side", side, step, state, given
        )


def statistics() -> Iterator[Case]:
    """Features and BatchNorm moments of real images, in one pass."""
    for what, side, count, info, network, variables in _networks():
        report, (images, _) = stats.make_reporter(network.apply), _images(count, info)
        told = f"{what}, {count} images"
        yield Case("stats", told, "side", side, report, variables, (images,))


def barycenters() -> Iterator[Case]:
    """The atoms of one class, in 512 features."""
    rng = np.random.default_rng(0)
    for points, counts in ((1300, (1, 10, 50)), (5000, (10,))):
        x = jnp.asarray(rng.normal(size=(points, 512)), jnp.float32)
        for ipc in counts:

            def find(key, x, ipc=ipc):
                return ot.barycenter(key, x, ipc)

            told = f"{points:,} points"
            key = jax.random.key(0)
            yield Case("barycenter", told, "ipc", ipc, find, key, (x,), loops=True)


# Images -------------------------------------------------------------------------------


def _step_of(method):
    def step(state, key, *given):
        return method.step(key, state, *given)

    return step


def _recovered(kind, network, variables, info, classes, ipc):
    """The step of a chunk: whole classes for WMDD, whatever for the others."""
    images, labels = _images(classes * ipc, info)
    optimizer = optimizers.pixel_adam(0.1, STEPS, info.std)
    method = methods.create(kind, network, optimizer, num_steps=STEPS)
    start, mass = images / jnp.float32(255), jnp.full(len(labels), 1 / ipc)
    out = jax.jit(network.apply)(variables, start)[1]
    moments = jax.tree.map(
        lambda x: x.reshape(classes, ipc, -1).mean(1), tuple(out["moments"])
    )
    goal = Targets(start, labels, mass, out["features"], moments, jnp.arange(classes))
    context = Context(variables)
    state = method.init(jax.random.key(0), context, goal)
    return _step_of(method), state, (jax.random.key(1), context, goal, ())


def recovering() -> Iterator[Case]:
    """A step of WMDD's and of SRe2L's recovery: by ipc, by classes, and by pixels."""
    for kind in ("wmdd", "sre2l"):
        info = _info()
        network, variables = _network(info)
        for ipc in (1, 10, 50):
            made = _recovered(kind, network, variables, info, CLASSES, ipc)
            told = f"{kind}, ConvNet-3, ten classes of {SIDE} pixels"
            yield Case("recover", told, "ipc", ipc, *made)
        for classes in (10, 50, 100):
            info = _info(classes=classes)
            made = _recovered(kind, *_network(info), info, classes, 1)
            told = f"{kind}, ConvNet-3, an image a class of {SIDE} pixels"
            yield Case("recover", told, "classes", classes, *made)
        for what, side, count, info, network, variables in _networks():
            classes = min(CLASSES, count)
            made = _recovered(kind, network, variables, info, classes, count // classes)
            told = f"{kind}, {what}, {count} images"
            yield Case("recover", told, "side", side, *made)


def matching() -> Iterator[Case]:
    """A step of DM, DSA, DC and GeoDM: ten classes, real images beside the synthetic."""
    info, real = _info(), 32 if SMALL else 256
    network, _ = _network(info, norm="instance")
    pixels, _ = _images(CLASSES * real, info)
    pixels = (pixels / jnp.float32(255)).reshape(CLASSES, real, *info.shape)
    batch = Batch(pixels, jnp.full((CLASSES, real), 1 / real))
    for kind in ("dm", "dsa", "dc", "geodm"):
        for ipc in (1, 10):
            images, labels = _images(CLASSES * ipc, info)
            mass, classes = jnp.full(len(labels), 1 / ipc), jnp.arange(CLASSES)
            goal = Targets(images / jnp.float32(255), labels, mass, classes=classes)
            options = {"real_batch": real}
            if kind in ("dc", "dsa"):  # one outer step, without the network's epochs
                options |= {"outer": 1, "inner": 0}
            method = methods.create(
                kind,
                network,
                optimizers.pixel_sgd(1.0, 0.5, info.std),
                num_steps=STEPS,
                options=tuple(options.items()),
            )
            state = method.init(jax.random.key(0), Context(), goal)
            given = jax.random.key(1), Context(), goal, batch
            told = f"{kind}, {real} real images a class"
            made = _step_of(method), state, given
            # DC and DSA take class after class, in a loop.
            yield Case("match", told, "ipc", ipc, *made, kind in ("dc", "dsa"))


def sampled() -> Iterator[Case]:
    """A step of a diffusion sampler: plain, and with each term of its guidance."""
    size = "digits" if SMALL else "small"
    for name, call in sampling.programs(size).items():
        state, *given = call.args
        made = call.func, state, tuple(given)
        # Transport is found in a loop.
        loops = "transport" in name or name == "all"
        yield Case("sample", f"{size}, {name}", "", 0, *made, loops)


# Evaluation ---------------------------------------------------------------------------


def labelling() -> Iterator[Case]:
    """The soft labels of one batch of views."""
    for what, side, count, info, network, variables in _networks():
        label = relabel.make_labeller(
            network.apply, relabel.Views(batch_size=min(count, 100))
        )
        images, _ = _images(count, info)
        given = jax.random.key(1), jnp.int32(0), images
        told = f"{what}, {count} images"
        yield Case("relabel", told, "side", side, label, variables, given)


def students() -> Iterator[Case]:
    """A step of students on 100 images: of one by pixels; of several under `vmap`."""
    for side in (8, 16, 32):
        yield _student(side, 1, "one", "side", side)
    for many in (1, 2, 5):
        yield _student(8, many, "of 8 pixels, under vmap", "students", many)


def _student(side, many, what, varied, value):
    info = _info(side)
    network, _ = _network(info)
    recipe, key = student.Recipe(), jax.random.key(1)
    images, labels = _images(100, info)
    step = student.make_step(network, recipe, 100, "hard")
    keys = jax.random.split(jax.random.key(0), many)
    state = student.initial_state(keys, network, recipe, 100)
    if many > 1:
        step = jax.vmap(step, in_axes=(0, None, None, None))
    given = jnp.int32(0), (key, images, labels, jnp.full(100, 0.1), ()), ()
    return Case("student", what, varied, value, step, state, given)


def attacked() -> Iterator[Case]:
    """A step of PGD and of each attack of AutoAttack."""
    info, count = _info(), 32
    network, variables = _network(info)
    images, labels = _images(count, info)
    images, keys = images / jnp.float32(255), jax.random.split(jax.random.key(2), count)
    eps = 8 / 255
    suite = attacks.autoattack(eps, num_classes=CLASSES)
    for attack in (attacks.pgd(eps=eps), *suite):

        def init(variables, attack=attack):
            def model(x):
                return network.apply(variables, x)[0]

            return attack.init(model, images, labels, keys, 0)

        def step(state, variables, attack=attack):
            def model(x):
                return network.apply(variables, x)[0]

            return attack.step(model, state, jnp.int32(1), images, labels, keys)

        state = jax.jit(init)(variables)
        told = f"{attack.name}, {count} images of {SIDE} pixels"
        loops = attack.name == "square"  # several queries
        yield Case("attack", told, "", 0, step, state, (variables,), loops)


PATHS = {
    "squeeze": squeezing,
    "stats": statistics,
    "barycenter": barycenters,
    "recover": recovering,
    "match": matching,
    "sample": sampled,
    "relabel": labelling,
    "student": students,
    "attack": attacked,
}

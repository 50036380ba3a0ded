"""The contract of a distillation method, and the short way to fulfil it."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax import losses
from ddjax.data.augment import CropFlipRoll
from ddjax.diffusion import Generator
from ddjax.models import Network
from ddjax.types import Context, DistilledSet, Targets

__all__ = [
    "VIEW",
    "ImagesState",
    "Method",
    "create",
    "finalize",
    "from_loss",
    "from_matching",
    "is_told_a_space",
    "is_told_a_view",
    "move",
    "moves_pixels",
    "names",
    "outside",
    "samples",
    "split_classes",
    "total",
    "with_curvature",
]

VIEW = CropFlipRoll()  # how SRe2L, CDA and WMDD look at images of 224 pixels


class Method(NamedTuple):
    """A method, as pure functions on one chunk of class-major images.

    Attributes:
      init: `(key, context, targets) -> state`.
      step: `(key, state, context, targets, batch) -> (state, metrics)`; `metrics` is a
        dict of scalars, "loss", one for each of its terms, and others that are only
        watched, whose names have a slash. `batch` is the Batch of real images of the
        chunk's classes where `real_batch` is not 0, else ().
      finalize: `(state, context, targets) -> DistilledSet`, pixels in [0, 1].
      requires: what it reads: of the artifacts "teacher", "class_stats", "barycenter",
        "pool", "frame", "generator", "surrogates", and "running", the statistics that
        only a teacher with BatchNorm has.
      real_batch: real images of each class that a step looks at; 0 for none.
      real_set: real images of each class that `init` is given once, as `Targets.real`,
        with `Targets.keys`; 0 for none of either.
      in_turn: whether the images of a class are made one after another, each in as many
        steps as the config says; else all take these steps together.
    """

    init: Callable
    step: Callable
    finalize: Callable
    requires: tuple[str, ...]
    real_batch: int = 0
    real_set: int = 0
    in_turn: bool = False

    def length(self, num_steps: int, ipc: int) -> int:
        """Steps of a chunk with so many images per class."""
        return num_steps * ipc if self.in_turn else num_steps


class ImagesState(NamedTuple):
    """State of a method that only moves pixels."""

    images: jax.Array  # [N, H, W, ch]
    opt_state: Any
    count: jax.Array  # scalar int32, steps made


def from_loss(
    loss: Callable,
    optimizer: optax.GradientTransformation,
    *,
    augment: Callable,
    requires: tuple[str, ...],
) -> Method:
    """Makes a method of a loss on the images.

    A step looks at the images through `augment`, takes the gradient of the summed
    terms, lets the optimiser move the pixels, and clamps them to [0, 1] (after the
    update, as the reference codes do: the optimiser's moments never see the clamp).

    Args:
      loss: `(images, context, targets) -> dict of scalars`, the weighted terms.
      optimizer: of the pixels.
      augment: `(key, images, count) -> images`, differentiable.
      requires: see `Method`.
    """

    def seen(key, state, images, context, targets, batch):
        del batch
        return loss(augment(key, images, state.count), context, targets)

    return _moving(seen, optimizer, requires, clip=True)


def from_matching(
    loss: Callable,
    optimizer: optax.GradientTransformation,
    *,
    requires: tuple[str, ...],
    real_batch: int,
) -> Method:
    """Makes a method of a loss on the images beside a batch of real ones.

    Pixels move freely, as in DC, DSA and DM, and are clamped to [0, 1] at the end:
    sets are stored as uint8. The share of them that lies outside is watched.

    Args:
      loss: `(key, images, context, targets, batch) -> dict of scalars`, the weighted
        terms, and what is only watched (names with a slash); see `split_classes` for
        the images.
      optimizer: of the pixels.
      requires: see `Method`.
      real_batch: see `Method`.

    Raises:
      ValueError: no real images.
    """
    if real_batch < 1:
        raise ValueError(f"real_batch must be at least 1; got {real_batch}.")

    def seen(key, state, images, context, targets, batch):
        del state
        return loss(key, images, context, targets, batch)

    return _moving(seen, optimizer, requires, clip=False, real_batch=real_batch)


def _moving(terms_of, optimizer, requires, *, clip, real_batch=0) -> Method:
    """A method whose state is its images."""

    def init(key: jax.Array, context: Context, targets: Targets) -> ImagesState:
        del key, context
        # A copy: the loop donates its state, and the targets are used again.
        images = jnp.array(targets.images, copy=True)
        return ImagesState(images, optimizer.init(images), jnp.int32(0))

    def step(key, state: ImagesState, context: Context, targets: Targets, batch):
        def objective(images):
            terms = terms_of(key, state, images, context, targets, batch)
            return total(terms), terms

        gradient_and_value = jax.value_and_grad(objective, has_aux=True)
        (value, terms), gradient = gradient_and_value(state.images)
        if not clip:
            terms = {**terms, "pixels/outside": outside(state.images)}
        state = move(state, gradient, optimizer, clip=clip)
        return state, {"loss": value, **terms}

    return Method(init, step, finalize, requires, real_batch)


def total(terms: dict) -> jax.Array:
    """The sum of the terms; what is only watched (a slash in its name) is left out."""
    return sum(value for name, value in terms.items() if "/" not in name)


def outside(images: jax.Array) -> jax.Array:
    """The share of pixels that lie outside [0, 1]."""
    return jnp.mean((images < 0) | (images > 1), dtype=jnp.float32)


def move(state: ImagesState, gradient, optimizer, *, clip: bool) -> ImagesState:
    """One step of the optimiser on the pixels; clamped to [0, 1] after it, or not."""
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.images)
    images = optax.apply_updates(state.images, updates)
    images = jnp.clip(images, 0.0, 1.0) if clip else images
    return ImagesState(images, opt_state, state.count + 1)


def finalize(state: ImagesState, context: Context, targets: Targets) -> DistilledSet:
    """The images of a state, as `Method` has it."""
    del context
    images = jnp.clip(state.images, 0.0, 1.0)
    return DistilledSet(images, targets.labels, targets.weights)


def split_classes(images: jax.Array, targets: Targets) -> jax.Array:
    """Images [N, H, W, ch] of a chunk as [q, ipc, H, W, ch], class by class."""
    return images.reshape(len(targets.classes), -1, *images.shape[1:])


def with_curvature(
    loss: Callable, apply_fn: Callable, weight: float, form: str, h: float
) -> Callable:
    """A loss on the images with one more term: how curved the teacher's is at them.

    Ours, to compare with GUARD, whose penalty acts on the teacher alone. A weight of 0
    gives back the loss itself.

    Args:
      loss: see `from_loss`.
      apply_fn: the teacher, `(variables, images) -> (logits, out)`.
      weight: of the term.
      form: one of `losses.CURVATURES`.
      h: length of the step in pixels of [0, 1]; what was a step of 3 in normalised
        pixels is about 0.7 in these.
    """
    options = losses.Curvature(form, weight, h, units="pixels")
    options.check()
    if not options.acts:
        return loss

    def curved(images, context, targets):
        def logits_fn(images):
            return apply_fn(context.teacher, images)[0]

        terms = loss(images, context, targets)
        at = losses.curvature(logits_fn, images, targets.labels, options)
        return {**terms, "curvature": weight * at}

    return curved


def names() -> tuple[str, ...]:
    """The methods there are: the modules of this folder that have a `method`."""
    package = importlib.import_module("ddjax.methods")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(name for name in found if name != "base")


def is_told_a_view(name: str) -> bool:
    """Whether a method looks at its images as `augment` says; others have a view."""
    return "augment" in _factory(name)[1]


def is_told_a_space(name: str) -> bool:
    """Whether a method can match atoms that are points of a product space."""
    return "space" in _factory(name)[1]


def samples(name: str) -> bool:
    """Whether a method samples its images from a generator."""
    return "generator" in _factory(name)[1]


def moves_pixels(name: str) -> bool:
    """Whether a method moves pixels by an optimiser; others sample."""
    return "optimizer" in _factory(name)[1]


def _factory(name):
    factory = importlib.import_module(f"ddjax.methods.{name}").method
    return factory, set(inspect.signature(factory).parameters)


@functools.cache  # the same steps every time: jit compiles them once
def create(
    name: str,
    network: Network,
    optimizer: optax.GradientTransformation | None,
    *,
    num_steps: int,
    augment: CropFlipRoll = VIEW,
    generator: Generator | None = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> Method:
    """Builds the method in module `ddjax.methods.<name>`.

    Args:
      name: the module.
      network: of the teacher, of the networks that images are matched through, or of
        the surrogates that guide a generator.
      optimizer: of the pixels, if there is one: see `moves_pixels`.
      num_steps: length of the run, for schedules; or of the making of one image.
      augment: how a step looks at the images.
      generator: that images are sampled from, if they are.
      options: (name, value) pairs of the factory's own keyword arguments.

    Raises:
      ValueError: unknown method or option.
    """
    if name not in names():
        raise ValueError(f"unknown method {name!r}; known: {', '.join(names())}.")
    factory, wanted = _factory(name)
    if "generator" in wanted and generator is None:
        raise ValueError(f"method {name!r} samples from a generator; none was given.")
    offered = {
        "optimizer": optimizer,
        "num_steps": num_steps,
        "augment": augment,
        "generator": generator,
    }
    known = sorted(wanted - {"network", *offered})
    for option, _ in options:
        if option not in known:
            raise ValueError(
                f"method {name!r} has no option {option!r}; known: {', '.join(known)}."
            )
    offered = {key: value for key, value in offered.items() if key in wanted}
    return factory(network, **offered, **dict(options))

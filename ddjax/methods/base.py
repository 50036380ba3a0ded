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
from ddjax.types import Context, DistilledSet, Targets

__all__ = [
    "VIEW",
    "ImagesState",
    "Method",
    "create",
    "from_loss",
    "names",
    "with_curvature",
]

VIEW = CropFlipRoll()  # how SRe2L, CDA and WMDD look at images of 224 pixels


class Method(NamedTuple):
    """A method, as pure functions on one chunk of class-major images.

    Attributes:
      init: `(key, context, targets) -> state`.
      step: `(key, state, context, targets, batch) -> (state, metrics)`; `metrics` is a
        dict of scalars, "loss" and one for each of its terms. `batch` holds real
        images where `requires` names "real", else ().
      finalize: `(state, context, targets) -> DistilledSet`, pixels in [0, 1].
      requires: what it reads: of the artifacts "teacher", "class_stats", "barycenter",
        and "running", the statistics that only a teacher with BatchNorm has.
    """

    init: Callable
    step: Callable
    finalize: Callable
    requires: tuple[str, ...]


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

    def init(key: jax.Array, context: Context, targets: Targets) -> ImagesState:
        del key, context
        # A copy: the loop donates its state, and the targets are used again.
        images = jnp.array(targets.images, copy=True)
        return ImagesState(images, optimizer.init(images), jnp.int32(0))

    def step(key, state: ImagesState, context: Context, targets: Targets, batch):
        del batch

        def total(images):
            terms = loss(augment(key, images, state.count), context, targets)
            return sum(terms.values()), terms

        gradient, (value, terms) = _gradient_and_value(total)(state.images)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.images)
        images = jnp.clip(optax.apply_updates(state.images, updates), 0.0, 1.0)
        return ImagesState(images, opt_state, state.count + 1), {"loss": value, **terms}

    def finalize(state: ImagesState, context: Context, targets: Targets):
        del context
        images = jnp.clip(state.images, 0.0, 1.0)
        return DistilledSet(images, targets.labels, targets.weights)

    return Method(init, step, finalize, requires)


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


def _gradient_and_value(function):
    def both(x):
        value_and_terms, gradient = jax.value_and_grad(function, has_aux=True)(x)
        return gradient, value_and_terms

    return both


def names() -> tuple[str, ...]:
    """The methods there are: the modules of this folder that have a `method`."""
    package = importlib.import_module("ddjax.methods")
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(name for name in found if name != "base")


@functools.cache  # the same steps every time: jit compiles them once
def create(
    name: str,
    apply_fn: Callable,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    augment: CropFlipRoll,
    options: tuple[tuple[str, Any], ...] = (),
) -> Method:
    """Builds the method in module `ddjax.methods.<name>`.

    Args:
      name: the module.
      apply_fn: the teacher, `(variables, images) -> (logits, out)`.
      optimizer: of the pixels.
      num_steps: length of the run, for schedules.
      augment: how a step looks at the images.
      options: (name, value) pairs of the factory's own keyword arguments.

    Raises:
      ValueError: unknown method or option.
    """
    if name not in names():
        raise ValueError(f"unknown method {name!r}; known: {', '.join(names())}.")
    factory = importlib.import_module(f"ddjax.methods.{name}").method
    offered = {"num_steps": num_steps, "augment": augment}
    wanted = set(inspect.signature(factory).parameters)
    known = sorted(wanted - {"apply_fn", "optimizer", *offered})
    for option, _ in options:
        if option not in known:
            raise ValueError(
                f"method {name!r} has no option {option!r}; known: {', '.join(known)}."
            )
    offered = {key: value for key, value in offered.items() if key in wanted}
    return factory(apply_fn, optimizer, **offered, **dict(options))

"""Optimisers and schedules as the papers' PyTorch code has them, from optax."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "Averaged",
    "adam",
    "adamw",
    "averaged",
    "cosine_by_epoch",
    "cosine_then_linear",
    "decayed",
    "drop_once",
    "pixel_adam",
    "pixel_sgd",
    "pixels",
    "sgd",
]


def cosine_by_epoch(
    learning_rate: float, epochs: int, steps_per_epoch: int, stretch: float = 1.0
):
    """Learning rate of a step: lr (1 + cos(pi e / (z E))) / 2, constant in epoch e.

    The stretch z is 1 for a rate that ends near 0, and 2 in RDED's code for one that
    ends at half of where it began.
    """

    def schedule(count):
        epoch = jnp.minimum(count // steps_per_epoch, epochs)
        angle = jnp.pi * epoch / (stretch * epochs)
        return learning_rate * 0.5 * (1 + jnp.cos(angle))

    return schedule


def cosine_then_linear(
    learning_rate: float, epochs: int, steps_per_epoch: int, stretch: float = 1.0
):
    """EDC's "cos2": `cosine_by_epoch` for five sixths of the epochs, then a line to 0.

        lr (1 + cos(5 pi / (6 z))) / 2 (1 - e / E)  where  e > 5 E / 6

    The line begins at a sixth of what the cosine has come to, as in EDC's code
    (https://github.com/shaoshitong/EDC, `direct_train.py`).
    """
    cosine = cosine_by_epoch(learning_rate, epochs, steps_per_epoch, stretch)
    last = learning_rate * 0.5 * (1 + math.cos(5 * math.pi / (6 * stretch)))

    def schedule(count):
        epoch = jnp.minimum(count // steps_per_epoch, epochs)
        line = last * (1 - epoch / epochs)
        return jnp.where(6 * epoch > 5 * epochs, line, cosine(count))

    return schedule


def drop_once(learning_rate: float, first: int):
    """Learning rate of a step: a tenth of it from step `first` on."""
    return lambda count: jnp.where(count < first, learning_rate, 0.1 * learning_rate)


def sgd(schedule, *, momentum: float, weight_decay: float, restart: int | None = None):
    """torch.optim.SGD: the decay of *all* parameters goes through the momentum.

    Args:
      schedule: learning rate of a step.
      momentum: share of the last direction that is kept.
      weight_decay: coupled, of all parameters.
      restart: a step that begins with no momentum, as a new optimiser would; or None.
    """
    kept = optax.trace(momentum) if restart is None else _trace(momentum, restart)
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        kept,
        optax.scale_by_learning_rate(schedule),
    )


class _TraceState(NamedTuple):
    count: jax.Array  # steps made
    trace: Any


def _trace(momentum, restart):
    """`optax.trace`, which forgets all at the step `restart`."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return _TraceState(jnp.zeros((), jnp.int32), zeros)

    def update(gradient, state, params=None):
        del params
        decay = jnp.where(state.count == restart, 0.0, momentum)
        trace = jax.tree.map(lambda g, t: g + decay * t, gradient, state.trace)
        return trace, _TraceState(state.count + 1, trace)

    return optax.GradientTransformation(init, update)


def adam(schedule, *, weight_decay: float = 0.0):
    """torch.optim.Adam: the decay of *all* parameters is part of the gradient."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.scale_by_learning_rate(schedule),
    )


def adamw(schedule, *, weight_decay: float, b1: float = 0.9, b2: float = 0.999):
    """torch.optim.AdamW with decay on kernels only (see `decayed`)."""
    return optax.adamw(
        schedule, b1=b1, b2=b2, eps=1e-8, weight_decay=weight_decay, mask=decayed
    )


def decayed(params):
    """Which parameters FKD's recipe decays: tensors of rank above 1 named "weight".

    In flax those are called "kernel". Biases and BatchNorm's scales are left alone.
    """

    def decide(path, leaf):
        return path[-1].key == "kernel" and leaf.ndim > 1

    return jax.tree_util.tree_map_with_path(decide, params)


class Averaged(NamedTuple):
    """State of `averaged`."""

    inner: Any
    params: Any  # the average


def averaged(optimizer, decay: float):
    """An optimiser that also keeps a moving average of the parameters it makes.

        average <- decay * average + (1 - decay) * parameters,  after every step

    It begins at the first parameters and is not corrected for that.
    """

    def init(params):
        return Averaged(optimizer.init(params), params)

    def update(gradient, state, params):
        updates, inner = optimizer.update(gradient, state.inner, params)
        moved = optax.apply_updates(params, updates)
        average = optax.incremental_update(moved, state.params, 1 - decay)
        return updates, Averaged(inner, average)

    return optax.GradientTransformation(init, update)


def pixels(
    name: str, learning_rate: float, num_steps: int, std, momentum: float = 0.5
) -> optax.GradientTransformation:
    """The optimiser of the pixels by its name: "adam" or "sgd".

    Args:
      name: see `pixel_adam` and `pixel_sgd`.
      learning_rate: in units of normalised pixels.
      num_steps: length of the run; Adam's rate ends at 0.
      std: per channel, of pixels in [0, 1].
      momentum: of SGD.

    Raises:
      ValueError: another name.
    """
    if name == "adam":
        return pixel_adam(learning_rate, num_steps, std)
    if name == "sgd":
        return pixel_sgd(learning_rate, momentum, std)
    raise ValueError(f"unknown optimizer {name!r} of pixels; known: adam, sgd.")


@functools.cache  # the same object every time: jit compiles it once
def pixel_adam(learning_rate: float, num_steps: int, std: tuple[float, ...]):
    """Adam (0.5, 0.9) with a cosine schedule on pixels in [0, 1].

    The papers optimise *normalised* pixels, z = (x - mean) / std. Adam does not see the
    scale of a gradient, so a step of `lr` in z is one of `lr * std` in x: that is what
    this does, channel by channel (exact up to Adam's epsilon, 1e-8).

    Args:
      learning_rate: in units of normalised pixels, as the papers give it (0.25).
      num_steps: length of the run; the rate ends at 0.
      std: per channel, of pixels in [0, 1].
    """

    def to_pixels(updates, _):
        return updates * jnp.array(std)

    return optax.chain(
        optax.scale_by_adam(b1=0.5, b2=0.9, eps=1e-8),
        optax.stateless(to_pixels),
        optax.scale_by_learning_rate(
            optax.cosine_decay_schedule(learning_rate, num_steps)
        ),
    )


@functools.cache
def pixel_sgd(learning_rate: float, momentum: float, std: tuple[float, ...]):
    """SGD with momentum on pixels in [0, 1], at the rate of normalised pixels.

    DC, DSA and DM optimise z = (x - mean) / std. A gradient in z is one in x times
    std, and a step in x one in z times std.

    Args:
      learning_rate: in units of normalised pixels, as the papers give it; constant.
      momentum: share of the last direction that is kept.
      std: per channel, of pixels in [0, 1].
    """

    def scaled(updates, _):
        return updates * jnp.array(std)

    return optax.chain(
        optax.stateless(scaled),
        optax.trace(momentum),
        optax.stateless(scaled),
        optax.scale_by_learning_rate(learning_rate),
    )

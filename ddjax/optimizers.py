"""Optimisers and schedules as the papers' PyTorch code has them, from optax."""

import functools

import jax
import jax.numpy as jnp
import optax

__all__ = ["adamw", "cosine_by_epoch", "decayed", "pixel_adam", "sgd"]


def cosine_by_epoch(learning_rate: float, epochs: int, steps_per_epoch: int):
    """Learning rate of a step: lr (1 + cos(pi e / E)) / 2, constant within epoch e."""

    def schedule(count):
        epoch = jnp.minimum(count // steps_per_epoch, epochs)
        return learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))

    return schedule


def sgd(schedule, *, momentum: float, weight_decay: float):
    """torch.optim.SGD: the decay of *all* parameters goes through the momentum."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
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

"""How far a term moves a latent, and at which steps."""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.diffusion import steps
from ddjax.diffusion.schedule import Schedule

__all__ = ["INFLUENCE", "WINDOW", "rms", "scaled", "size", "window"]

WINDOW = (2e-4, 2.3e-2)
INFLUENCE = 0.0015


def window(schedule: Schedule, bounds):
    inside = np.flatnonzero(
        (schedule.alpha_bar >= bounds[0]) & (schedule.alpha_bar <= bounds[1])
    )
    return (int(inside[0]), int(inside[-1])) if len(inside) else (1, 0)


def rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(x * x, axis=tuple(range(1, x.ndim)), keepdims=True))


def scaled(direction, length):
    own = rms(direction)
    return direction * jnp.where(own > 0, length / jnp.where(own > 0, own, 1.0), 0.0)


def size(schedule, index, noise):
    return steps.table(np.sqrt(1 - schedule.alpha_bar), index, noise) * rms(noise)

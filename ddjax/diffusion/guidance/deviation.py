"""Deviation guidance: away from the finished latent that looks most alike."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["IGD", "Options", "value_and_gradient"]


class Options(NamedTuple):
    """Which finished latents are remembered."""

    size: int = 64  # of the last finished ones, as in IGD's code

    def check(self) -> None:
        """ValueError for what cannot be."""
        if self.size < 1:
            raise ValueError(
                f"deviation guidance has a memory of size {self.size}; it needs 1 or "
                "more latents (or leave the term out)."
            )


IGD = Options()


def value_and_gradient(
    z: jax.Array, memory: jax.Array, count: jax.Array, options: Options = IGD
) -> tuple[jax.Array, jax.Array]:
    """The largest cosine to a finished latent, and its gradient, in closed form.

        G_D(z) = max_m cos(z, m),   grad G_D = (m* / |m*| - cos(z, m*) z / |z|) / |z|

    where m* is the nearest one. It compares a *noisy* latent with clean ones, as the
    reference code does: nothing runs through a network.

    Args:
      z: [d], the latent at its noise level.
      memory: [M, d], finished latents in the order they were finished; rows from
        `count` on are not read, but must be finite.
      count: integer scalar, how many are finished; may be traced.
      options: numbers only.

    Returns:
      The cosine, a scalar, and its gradient [d] in 1 / units of z. Both are exactly 0
      where nothing is finished yet; the gradient also where z is 0.

    Reference: M. Chen et al., "Influence-Guided Diffusion for Dataset Distillation"
      (IGD), ICLR 2025, https://openreview.net/forum?id=0whx8MhysK, deviation guidance.
      Their code gives a class's first image no such term.

    Example:
      >>> import jax.numpy as jnp
      >>> memory = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> value, gradient = value_and_gradient(jnp.array([0.6, 0.8]), memory, 1)
      >>> round(float(value), 3), [round(float(x), 3) for x in gradient]
      (0.6, [0.64, -0.48])
    """
    options.check()
    there = _remembered(len(memory), count, options.size)
    direction, length = _unit(z)
    memory, _ = _unit(memory)
    cosines = jnp.matmul(memory, direction, precision=jax.lax.Precision.HIGHEST)
    nearest = jnp.argmax(jnp.where(there, cosines, -jnp.inf))
    value = jnp.where(count > 0, cosines[nearest], 0.0)
    slope = (memory[nearest] - cosines[nearest] * direction) / length
    is_point = jnp.any(z != 0) & (count > 0)
    return value, jnp.where(is_point, slope, 0.0)


def _remembered(size, count, last):
    """[size] bool, the `last` rows before row `count`."""
    rows = jnp.arange(size)
    return (rows < count) & (rows >= count - last)


def _unit(x):
    """x / |x| along the last axis, and |x|; 0 and 1 where x is 0."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    return x / length, length[..., 0]

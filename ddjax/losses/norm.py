"""The Euclidean norm, with a derivative of zero where it has none."""

import jax
import jax.numpy as jnp

__all__ = ["safe_norm"]


def safe_norm(x: jax.Array, axis=None) -> jax.Array:
    """||x||_2 over `axis` (all axes where None).

    The plain norm has the derivative 0 / 0 at the origin: NaN in JAX, 0 in PyTorch.
    The inner `where` keeps the square root away from 0, so that the outer one really
    gives 0 (a NaN times zero would still be NaN).
    """
    squares = jnp.sum(x * x, axis=axis)
    is_zero = squares == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squares)))

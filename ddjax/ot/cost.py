"""Ground costs."""

import jax
import jax.numpy as jnp

__all__ = ["squared_euclidean"]


def squared_euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """||x_i - y_j||^2 in O(n m) memory.

    The square is expanded around the mean of `x`, at the highest matmul precision:
    TF32 or bfloat16 products would lose the small distances that decide a plan.

    Args:
      x: [n, D].
      y: [m, D].

    Returns:
      [n, m], never negative.
    """
    centre = jax.lax.stop_gradient(x.mean(0))
    x, y = x - centre, y - centre
    cross = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)[None, :]
    return jnp.maximum(squares - 2 * cross, 0.0)

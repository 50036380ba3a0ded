"""Ground costs, and the size of one under the masses that use it."""

import jax
import jax.numpy as jnp

__all__ = [
    "UNITS",
    "cost_scale",
    "euclidean",
    "expanded_square",
    "l1",
    "squared_euclidean",
]

UNITS = ("absolute", "mean", "std")


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
    return expanded_square(x, y, jnp.sum(x * x, 1))


def expanded_square(x: jax.Array, y: jax.Array, squares: jax.Array) -> jax.Array:
    """`squared_euclidean` for a loop over y: x is centred, its `squares` [n] known."""
    cross = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(squares[:, None] + jnp.sum(y * y, 1) - 2 * cross, 0.0)


def euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """||x_i - y_j|| in O(n m + n D) memory, with derivative 0 where the points meet.

    Not the root of `squared_euclidean`: the root would turn the rounding of the
    expanded square into a distance between equal points (in float32 up to 1e-3 of the
    others). The differences are taken instead, a row of the smaller cloud at a time.

    Args:
      x: [n, D].
      y: [m, D].

    Returns:
      [n, m], in units of x; exactly 0 for equal points.
    """
    return _row_by_row(_norm, x, y)


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """sum_d |x_id - y_jd| in O(n m + n D) memory, with derivative 0 at ties.

    One row of the smaller cloud at a time, and again for the gradient, so that the
    differences [n, m, D] never exist.

    Args:
      x: [n, D].
      y: [m, D].

    Returns:
      [n, m], in units of x. A sum, so it grows with D; divide by D for the mean.
    """
    # JAX's derivative of abs at 0 is 1.
    return _row_by_row(lambda z: jnp.sum(z * jnp.sign(z), 1), x, y)


def cost_scale(cost: jax.Array, a: jax.Array, b: jax.Array, unit: str) -> jax.Array:
    """The size of one `unit` of a cost, from the pairs that have mass.

        "absolute": 1
        "mean":     mu = sum_ij a_i b_j C_ij / (|a| |b|)
        "std":      sqrt( sum_ij a_i b_j (C_ij - mu)^2 / (|a| |b|) )

    A constant: no gradient flows through it. A cost that is the same for all pairs, up
    to rounding, has no deviation; its root mean square stands in (1 where that is 0
    too): such a problem has one solution at any strength of the entropy.

    Args:
      cost: [n, m], finite.
      a: [n], non-negative.
      b: [m], non-negative.
      unit: "absolute", "mean" or "std".

    Returns:
      Scalar, in units of the cost.

    Raises:
      ValueError: unknown `unit`.

    Example:
      >>> import jax.numpy as jnp
      >>> cost = jnp.array([[1.0, 3.0, 1e6]])
      >>> mass = jnp.array([0.5, 0.5, 0.0])
      >>> [float(cost_scale(cost, jnp.ones(1), mass, unit)) for unit in UNITS]
      [1.0, 2.0, 1.0]
    """
    if unit not in UNITS:
        raise ValueError(f"unknown cost unit {unit!r}; known: {', '.join(UNITS)}.")
    cost, a, b = jax.lax.stop_gradient((cost, a, b))
    one = jnp.ones((), cost.dtype)
    if unit == "absolute":
        return one
    weights = (a / a.sum())[:, None] * (b / b.sum())
    cost = jnp.where(weights > 0, cost, 0.0)  # the square of a padded one may overflow
    mean = jnp.sum(weights * cost)
    if unit == "mean":
        return jnp.where(mean == 0, one, mean)
    square = jnp.sqrt(jnp.sum(weights * cost**2))
    std = jnp.sqrt(jnp.sum(weights * (cost - mean) ** 2))
    rounding = 10 * jnp.finfo(cost.dtype).eps * square
    return jnp.where(std > rounding, std, jnp.where(square == 0, one, square))


def _row_by_row(length, x, y):
    """length(x - y_j) for every row j, of the cloud that has fewer."""
    if len(x) < len(y):
        return _row_by_row(length, y, x).T
    # The checkpoint keeps the map from storing its [n, D] differences m times.
    return jax.lax.map(jax.checkpoint(lambda row: length(x - row)), y).T


def _norm(z):
    """The norm of each row; its derivative at 0 is 0 / 0, so 0 is left out."""
    squares = jnp.sum(z * z, 1)
    is_zero = squares == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squares)))

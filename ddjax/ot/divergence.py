"""A distance between clouds from entropic transport, without its bias."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddjax.ot.cost import cost_scale, squared_euclidean
from ddjax.ot.sinkhorn import sinkhorn
from ddjax.ot.transport import check_cloud

__all__ = ["sinkhorn_divergence"]


def sinkhorn_divergence(
    x: jax.Array,
    y: jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
    *,
    epsilon: float | jax.Array,
    unit: str = "mean",
    cost: Callable[[jax.Array, jax.Array], jax.Array] = squared_euclidean,
    gradient: str = "envelope",
    threshold: float = 1e-3,
    max_iterations: int = 2000,
) -> jax.Array:
    """Debiased entropic transport between two weighted clouds.

        S = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2,   OT the objective of `sinkhorn`

    Zero for equal clouds and positive for others, unlike OT, whose minimum over x is a
    shrunken y. Between the cost of transport (epsilon to 0) and, for squared distances,
    that between the means (epsilon to infinity).

    Balanced only: b is scaled to the sum of a. Points of zero mass are ignored, but
    should lie near the others: `squared_euclidean` rounds by the largest.

    Args:
      x: [n, D].
      y: [m, D].
      a: [n], non-negative masses of x; equal with sum 1 where None.
      b: [m], the same of y.
      epsilon: positive, strength of the entropy in `unit`.
      unit: "absolute", or "mean" or "std" of the cost between x and y: one epsilon for
        all three problems, a constant for the derivatives.
      cost: `(x [n, D], y [m, D]) -> [n, m]`, symmetric.
      gradient: see `sinkhorn`. "envelope" is right for first derivatives of S.
      threshold: see `sinkhorn`. S errs by about its square times epsilon.
      max_iterations: see `sinkhorn`.

    Returns:
      Scalar, in units of the cost. It does not say whether the three problems
      converged; `sinkhorn` does.

    Raises:
      ValueError: as `sinkhorn` and `check_cloud`.

    Reference: J. Feydy et al., "Interpolating between Optimal Transport and MMD using
      Sinkhorn Divergences", AISTATS 2019, https://arxiv.org/abs/1810.08278.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
      >>> float(sinkhorn_divergence(x, x, epsilon=0.1))
      0.0
      >>> round(float(sinkhorn_divergence(x, x + 3.0, epsilon=0.1)), 3)  # |3, 3|^2
      18.0
    """
    dtype = jnp.result_type(x, y, jnp.float32)
    x, y = jnp.asarray(x, dtype), jnp.asarray(y, dtype)
    a = jnp.full(len(x), 1 / len(x), dtype) if a is None else jnp.asarray(a, dtype)
    b = jnp.full(len(y), 1 / len(y), dtype) if b is None else jnp.asarray(b, dtype)
    check_cloud("x", x, a)
    check_cloud("y", y, b)
    # One factor for both: the masses of y against y must be those against x.
    b = b * jax.lax.stop_gradient(a.sum() / b.sum())
    between = cost(x, y)
    scale = cost_scale(between, a, b, unit)

    def solve(cost, a, b):
        return sinkhorn(
            cost,
            a,
            b,
            epsilon=epsilon * scale,
            gradient=gradient,
            threshold=threshold,
            max_iterations=max_iterations,
        ).objective

    return (
        solve(between, a, b) - (solve(cost(x, x), a, a) + solve(cost(y, y), b, b)) / 2
    )

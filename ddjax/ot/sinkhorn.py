"""Entropic optimal transport, on the device."""

import jax
import jax.numpy as jnp

from ddjax.ot.transport import Transport

__all__ = ["sinkhorn"]


def sinkhorn(
    cost: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    epsilon: float,
    relative: bool = False,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
) -> Transport:
    """Entropic plan by ott-jax's log-domain Sinkhorn iterations.

        min_P <C, P> + epsilon KL(P || a b')   subject to  P 1 = a,  P' 1 = b

    Points of zero mass are ignored, so padding is free.

    Args:
      cost: [n, m].
      a: [n], non-negative, sum 1.
      b: [m], non-negative, sum 1.
      epsilon: strength of the entropy, in units of the cost, or of its mean under
        a b' if `relative` (0.01 to 0.02 loses nothing for barycenters; 0.05 visibly
        shrinks their atoms).
      relative: see `epsilon`.
      threshold: largest L1 error of a marginal at which to stop.
      max_iterations: gives up after as many, with `converged` False.

    Returns:
      Transport. `cost` is <C, P> without the entropy; `f` is the c-transform of `g`,
      so that both are feasible for the unregularised dual and `gap` bounds how much
      the plan costs above the exact one (up to the error of its marginals).

    Raises:
      ValueError: epsilon is not positive.

    Reference: M. Cuturi, "Sinkhorn Distances", NeurIPS 2013,
      https://arxiv.org/abs/1306.0895; M. Cuturi et al., "Optimal Transport Tools
      (OTT)", 2022, https://arxiv.org/abs/2201.12324.
    """
    # ott takes three seconds to import: only who asks for it pays.
    from ott.geometry import geometry
    from ott.solvers import linear

    if not epsilon > 0:
        raise ValueError(f"sinkhorn needs epsilon > 0; got {epsilon}. Use ot.lp for 0.")
    # Padded rows may hold any cost: they must not set the scale.
    scale = (a @ cost @ b) / (a.sum() * b.sum()) if relative else 1.0
    geom = geometry.Geometry(cost_matrix=cost, epsilon=epsilon * scale)
    out = linear.solve(geom, a, b, threshold=threshold, max_iterations=max_iterations)
    used = (a > 0)[:, None] & (b > 0)[None, :]
    plan = jnp.where(used, out.matrix, 0.0)
    value = jnp.sum(plan * cost)
    # c-transforms: feasible everywhere, and not led by points without mass.
    f = jnp.min(jnp.where(b > 0, cost - out.g, jnp.inf), axis=1)
    g = jnp.min(jnp.where(a > 0, cost.T - f, jnp.inf), axis=1)
    g, f = g - g.mean(), f + g.mean()
    gap = (value - a @ f - b @ g) / jnp.maximum(value, jnp.finfo(value.dtype).tiny)
    return Transport(plan, f, g, value, gap, out.converged)

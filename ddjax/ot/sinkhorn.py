"""Entropic optimal transport, balanced or not, on the device."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import special

from ddjax.ot import entropic
from ddjax.ot.cost import cost_scale
from ddjax.ot.transport import Transport, check

__all__ = ["GRADIENTS", "sinkhorn"]

GRADIENTS = ("envelope", "implicit", "unrolled")


def sinkhorn(
    cost: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    epsilon: float | jax.Array,
    unit: str = "absolute",
    slack_a: float | None = None,
    slack_b: float | None = None,
    start: jax.Array | None = None,
    gradient: str = "envelope",
    threshold: float = 1e-3,
    max_iterations: int = 2000,
) -> Transport:
    """Entropic plan by ott-jax's log-domain Sinkhorn iterations.

        min_P <C, P> + epsilon KL(P | a b')   subject to  P 1 = a,  P' 1 = b

    A side with slack rho has no such constraint but the term rho KL(P 1 | a) (or
    rho KL(P' 1 | b)). KL(p | q) = sum p log(p / q) - p + q, for any masses. With both
    sides hard, b is scaled to the sum of a. Points of zero mass are ignored, so padding
    is free, and still have a price in `f`, `g` and in the derivatives in a and b.

    Three ways to differentiate; the values are the same at convergence:

      * "envelope": the plan and the duals are constants. Right for `objective`, at
        convergence and to first order; costs nothing. `cost` sees C but not the plan.
      * "implicit": also right for `plan`, `f`, `g`, `cost` and for second derivatives
        of `objective`, at convergence. Solves one linear system of min(n, m) unknowns,
        whose conditioning worsens as epsilon falls.
      * "unrolled": through the iterations, of which `max_iterations` are then made; the
        derivative of what was computed, converged or not.

    Args:
      cost: [n, m], finite.
      a: [n], non-negative, not all zero.
      b: [m], non-negative, not all zero.
      epsilon: positive, strength of the entropy in `unit` (0.01 to 0.02 of the mean
        loses nothing for barycenters; 0.05 visibly shrinks their atoms).
      unit: "absolute" (that of the cost), or "mean" or "std" of the cost under a b';
        a constant for the derivatives. See `cost_scale`.
      slack_a: positive, the rho of the rows in `unit`; None for a hard marginal.
      slack_b: the same of the columns.
      start: [m], cost units, a guess of g; zero where None.
      gradient: "envelope", "implicit" or "unrolled".
      threshold: largest L1 error of the optimality conditions (that of a marginal, when
        both are hard) at which to stop.
      max_iterations: gives up after as many, with `converged` False. Looked at after
        every ten.

    Returns:
      Transport. `objective` is the minimum above, by its dual: the error is of second
      order in that of the marginals. `cost` is <C, P>. `f` and `g` are c-transforms of
      the entropic duals, so feasible for the problem without entropy, f_i + g_j <=
      C_ij, and `gap` bounds how far the plan is from optimal there, up to the error of
      its marginals, by (primal - dual) / primal with

        primal = <C, P> + slack_a KL(P 1 | a) + slack_b KL(P' 1 | b)
        dual   = sum_i a_i slack_a (1 - exp(-f_i / slack_a)) + the same of b and g

      where a hard side has no term in the primal and a.f in the dual. With slack, f and
      g are unique: they are not centred. For the derivatives in a and b differentiate
      `objective`: f and g lack the entropy. `error` is that of the hard sides.

    Raises:
      ValueError: epsilon or a slack is not positive; a slack, or epsilon beside one, is
        traced; unknown `unit` or `gradient`; or see `check`.

    Reference: M. Cuturi, "Sinkhorn Distances", NeurIPS 2013,
      https://arxiv.org/abs/1306.0895; L. Chizat et al., "Scaling Algorithms for
      Unbalanced Transport Problems", Math. Comp. 2018,
      https://arxiv.org/abs/1607.05816; M. Cuturi et al., "Optimal Transport Tools
      (OTT)", 2022, https://arxiv.org/abs/2201.12324. Given a slack, ott 0.6 finds the
      plan of the entropy sum P log P but reports the value with KL(P | a b'), which has
      another plan; we pass it a cost that holds the masses, so that both are KL. Its
      implicit derivatives are NaN at points without mass; ours are finite. With slack
      on one side only, a large one converges slowly: by a factor of about
      slack / (slack + epsilon) per iteration.

    Example:
      >>> import jax.numpy as jnp
      >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> mass = jnp.array([0.5, 0.5])
      >>> sharp, soft = (sinkhorn(cost, mass, mass, epsilon=e) for e in (0.05, 1.0))
      >>> round(float(sharp.cost), 3), round(float(soft.cost), 3)
      (0.0, 0.269)
    """
    if gradient not in GRADIENTS:
        raise ValueError(
            f"unknown gradient {gradient!r}; known: {', '.join(GRADIENTS)}."
        )
    check(cost, a, b)
    _check_positive("epsilon", epsilon)
    tau_a, tau_b = (
        _damping(name, slack, epsilon)
        for name, slack in (("slack_a", slack_a), ("slack_b", slack_b))
    )
    dtype = jnp.result_type(cost, jnp.float32)
    cost, a, b = (jnp.asarray(x, dtype) for x in (cost, a, b))
    if slack_a is None and slack_b is None:
        b = b * jax.lax.stop_gradient(a.sum() / b.sum())
    scale = cost_scale(cost, a, b, unit)
    epsilon = jnp.asarray(epsilon * scale, dtype)
    rho_a, rho_b = (s if s is None else s * scale for s in (slack_a, slack_b))

    # u and v are the duals in units of epsilon.
    problem = entropic.Problem(cost / epsilon, a, b, tau_a, tau_b)
    fixed = problem.constant()
    v = jnp.zeros_like(b) if start is None else jnp.asarray(start, dtype) / epsilon
    v = jax.lax.stop_gradient(v)
    if gradient == "unrolled":
        v = entropic.unroll(v, problem, max_iterations)
    else:
        v = entropic.solve(v, fixed, threshold, max_iterations)
    if gradient == "implicit":
        v = entropic.implicit(v, problem)
    u = entropic.rows(v, fixed if gradient == "envelope" else problem)
    density = entropic.density(u, v, problem)
    plan = a[:, None] * (b * density)
    objective = _dual(a, epsilon * u, rho_a) + _dual(b, epsilon * v, rho_b)
    objective += epsilon * (a.sum() * b.sum() - plan.sum())

    f, g = _feasible(epsilon * v, cost, a, b)
    if gradient == "envelope":
        plan, f, g = jax.lax.stop_gradient((plan, f, g))
    total = jnp.sum(plan * cost)
    rows, columns = plan.sum(1), plan.sum(0)
    primal = total + _penalty(rows, a, rho_a) + _penalty(columns, b, rho_b)
    dual = _dual(a, f, rho_a) + _dual(b, g, rho_b)
    gap = (primal - dual) / jnp.maximum(jnp.abs(primal), jnp.finfo(dtype).tiny)
    row_error = jnp.abs(rows - _target(a, epsilon * u, rho_a)).sum()
    column_error = jnp.abs(columns - _target(b, epsilon * v, rho_b)).sum()
    error = (slack_a is None) * row_error + (slack_b is None) * column_error
    if slack_a is None and slack_b is None:
        shift = jnp.mean(g, where=b > 0)
        f, g = f + shift, g - shift

    valid = jnp.isfinite(cost).all() & (epsilon > 0) & _is_measure(a) & _is_measure(b)
    total, objective = (jnp.where(valid, x, jnp.nan) for x in (total, objective))
    converged = jnp.isfinite(total) & (row_error + column_error <= threshold)
    gap, error = jax.lax.stop_gradient((gap, error))
    return Transport(plan, f, g, total, objective, gap, error, converged)


def _feasible(g, cost, a, b):
    """c-transforms: feasible everywhere, and not led by points without mass."""
    f = _least(jnp.where(b > 0, cost - g, jnp.inf))
    g = _least(jnp.where(a > 0, cost.T - f, jnp.inf))
    return jnp.where(a > 0, f, _least(cost - g)), g


def _least(x):
    """The smallest of each row, with the derivative of one entry.

    That of `jnp.min` looks for the entries equal to the minimum, which compilers round
    differently; c-transforms are full of ties.
    """
    place = jnp.argmin(jax.lax.stop_gradient(x), axis=1, keepdims=True)
    return jnp.take_along_axis(x, place, axis=1)[:, 0]


def _dual(mass, f, rho):
    """What a side adds to the dual: mass.f if it is hard."""
    return jnp.sum(mass * (f if rho is None else -rho * jnp.expm1(-f / rho)))


def _penalty(marginal, mass, rho):
    """What a side adds to the primal, rho KL(marginal | mass)."""
    if rho is None:
        return 0.0
    # A large rho would magnify the rounding of p log(p / q) - p + q.
    t = (marginal - mass) / jnp.where(mass > 0, mass, 1.0)
    return rho * jnp.sum(mass * (special.xlog1py(1 + t, t) - t))


def _target(mass, f, rho):
    """The marginal that a dual asks for: its derivative of `_dual`."""
    return mass if rho is None else mass * jnp.exp(-f / rho)


def _is_measure(mass):
    return (mass >= 0).all() & (mass.sum() > 0) & jnp.isfinite(mass.sum())


def _check_positive(name, value):
    if not isinstance(value, jax.core.Tracer) and not 0 < value < np.inf:
        hint = "Use ot.lp for 0." if name == "epsilon" else "None is a hard marginal."
        raise ValueError(f"sinkhorn needs {name} > 0; got {value}. {hint}")


def _damping(name, slack, epsilon):
    """tau of a side, a number: ott compares it with 1 in Python."""
    if slack is None:
        return 1.0
    if any(isinstance(x, jax.core.Tracer) for x in (slack, epsilon)):
        raise ValueError(
            f"with {name}, sinkhorn must know it and epsilon when it is traced; give "
            "both as numbers (in a relative unit, if the cost changes)."
        )
    _check_positive(name, slack)
    return float(slack / (slack + epsilon))

"""Exact optimal transport on the device: Newton steps along the entropic path."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.ot.transport import Transport, check, envelope

__all__ = ["semidual"]

_COLD, _WARM = 0.3, 0.02  # epsilon at the start, in the spread of the cost
_LOST = 0.5  # of the mass at the wrong atom: a warm start is no start here
_SHRINK = 0.25  # of epsilon, when a point of the path is reached
_REACHED = 0.3  # share of the gap that the marginals may still cause there
_TRUST = 3.0  # largest change of a log-probability in one step


def semidual(
    cost: jax.Array,
    a: jax.Array,
    b: jax.Array,
    *,
    start: jax.Array | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> Transport:
    """Optimal plan and duals to a certified tolerance, without leaving the device.

        max_g  sum_i a_i softmin_eps,j (C_ij - g_j) + b.g,    eps -> 0

    The smoothed semi-dual is concave in the few variables g (m of them, or n where
    there are fewer points than atoms). Damped Newton steps climb it while epsilon
    falls. Three observations make some ten steps enough where Sinkhorn needs
    thousands:

      * the maximiser g(eps) is smooth, so its tangent predicts the next one;
      * for small eps it is nearly a line, so the tangent at eps also predicts g(0),
        the duals of the exact problem: the certificate uses those;
      * the last Newton step, applied to the plan to first order, gives it the right
        marginals beyond the rounding of exp(g / eps). What is left is moved by the
        rank-one rounding of Altschuler et al.

    Every step costs one exponential for each entry of C, one [m, n] x [n, m] product
    and one Cholesky factor [m, m]; memory is O(n m). Zero masses are ignored, so
    padding is free. Under `vmap` a batch runs until its slowest problem is done.

    Args:
      cost: [n, m], finite; any ground cost.
      a: [n], non-negative, not all zero.
      b: [m], non-negative; scaled to the sum of a.
      start: [m], duals of a similar problem, to begin from.
      tolerance: relative duality gap at which to stop. 1e-6 can be had in float32 where
        the optimal cost is not small against the costs themselves.
      max_iterations: most Newton steps.

    Returns:
      Transport in the dtype of `cost`. The marginals of `plan` are exact to rounding
      and the duals are feasible, so `gap` is a certificate; `converged` says that it
      is below `tolerance` (or below the rounding of the costs, where the optimum is
      zero). The derivatives of `cost` are those of the optimum: the plan in C, the
      duals in a and b.

    Raises:
      ValueError: shapes that do not fit; NaN costs, negative or zero-sum masses.

    Reference: M. Cuturi and G. Peyre, "Semidual Regularized Optimal Transport", SIAM
      Review 2018, https://arxiv.org/abs/1811.05527 (the function); J. Altschuler, J.
      Weed and P. Rigollet, NeurIPS 2017, https://arxiv.org/abs/1705.09634, Algorithm 2
      (the rounding). Path-following and the extrapolated certificate are ours.

    Example:
      >>> import jax.numpy as jnp
      >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> found = semidual(cost, jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75]))
      >>> round(float(found.cost), 3), bool(found.converged)
      (0.25, True)
    """
    check(cost, a, b)
    cost, a, b = jnp.asarray(cost), jnp.asarray(a), jnp.asarray(b)
    dtype = jnp.result_type(cost, jnp.float32)
    cost, a, b = cost.astype(dtype), a.astype(dtype), b.astype(dtype)
    valid = (a.min() >= 0) & (b.min() >= 0) & (a.sum() > 0) & (b.sum() > 0)
    total = jnp.where(valid, a.sum(), jnp.nan)  # under `jit` nobody could check before
    b = b * (total / b.sum())
    points, atoms = jax.lax.stop_gradient((a / total, b / total))
    fixed = jax.lax.stop_gradient(cost)
    if cost.shape[0] >= cost.shape[1]:
        solved = _solve(fixed.T, points, atoms, start, tolerance, max_iterations)
        plan, f, g, gap, converged = solved
        plan = plan.T
    else:
        if start is not None:
            start = jnp.min(fixed - start, 1)  # the duals of the other side
        solved = _solve(fixed, atoms, points, start, tolerance, max_iterations)
        plan, g, f, gap, converged = solved
    shift = jnp.mean(g, where=b > 0)
    f, g, plan = f + shift, g - shift, plan * total
    value = jnp.sum(plan * fixed)
    error = jnp.abs(plan.sum(1) - a).sum() + jnp.abs(plan.sum(0) - b).sum()
    value = envelope(value, plan, (f, g), cost, (a, b))
    converged = converged & jnp.isfinite(value)
    return Transport(plan, f, g, value, value, gap, error, converged)


class _Problem(NamedTuple):
    """Masses that sum to 1, and the costs above the lowest of each point.

    The m atoms (the smaller side) are the rows: what is done for each point then runs
    along contiguous memory.
    """

    excess: jax.Array  # [m, n]; small numbers keep more digits
    offset: jax.Array  # what was taken from the cost
    a: jax.Array  # [n], of the points
    b: jax.Array  # [m], of the atoms


class _Model(NamedTuple):
    """The smoothed semi-dual near g, to second order; its slope to first in epsilon."""

    g: jax.Array  # [m]
    slope: jax.Array  # [m], b minus the mass that arrives
    drift: jax.Array  # [m], -epsilon d(slope)/d(epsilon)
    curvature: jax.Array  # [m, m], -epsilon times the Hessian


class _Candidate(NamedTuple):
    """A plan and feasible duals.

    The plan is kept: made again from g, at small epsilon, its exponentials would be
    rounded another way, by more than the gap that was certified.
    """

    plan: jax.Array  # [m, n], nearly of the right marginals
    duals: jax.Array  # [m], the prediction for epsilon = 0


class _State(NamedTuple):
    count: jax.Array
    model: _Model  # at the last accepted point
    step: jax.Array  # [m], to try next
    epsilon: jax.Array
    ridge: jax.Array
    fresh: jax.Array  # bool: epsilon has just changed, nothing to compare with
    warm: jax.Array  # bool: no point of the path is reached yet
    best: _Candidate
    gap: jax.Array  # of the best, relative
    done: jax.Array  # bool


def _solve(*problem):
    """See `_follow`. Products in TF32 or bfloat16 would certify only three digits."""
    with jax.default_matmul_precision("highest"):
        return _follow(*problem)


def _follow(cost, a, b, start, tolerance, max_iterations):
    """(plan [m, n], f [n], g [m], relative gap, converged)."""
    m, tiny = len(cost), jnp.finfo(cost.dtype).tiny
    lowest = _least(cost, b)
    excess = jnp.where(b[:, None] > 0, cost - lowest, 0.0)
    problem = _Problem(excess, a @ lowest, a, b)
    spread = jnp.maximum(b @ excess @ a, tiny)
    rounding = jnp.finfo(cost.dtype).eps * spread
    nothing = jnp.maximum(16 * rounding, tiny)  # an optimum of zero

    def improve(state):
        epsilon, g = state.epsilon, state.model.g + state.step
        model, share = _evaluate(problem, g, epsilon)
        accept = state.fresh | _is_better(model, state.model, state.step)
        model = jax.tree.map(
            lambda new, old: jnp.where(accept, new, old), model, state.model
        )
        newton, tangent = _directions(problem, model, state.ridge)
        size = jnp.max(jnp.abs(newton))
        bend = jnp.max(jnp.abs(tangent)) / epsilon

        small = jnp.where(accept & (size < 0.5), newton, 0.0)
        duals = model.g + epsilon * small - jnp.where(bend < 10, tangent, 0.0)
        candidate = _Candidate(_corrected(problem, share, small), duals)
        gap, value, biased = _certificate(problem, candidate)
        relative = gap / jnp.maximum(jnp.abs(value), nothing)
        better = relative < state.gap
        best = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), candidate, state.best
        )

        error = jnp.sum(jnp.abs(model.slope))
        lost = state.warm & state.fresh & (error > _LOST) & (epsilon < _COLD * spread)
        reached = accept & (gap - biased < _REACHED * gap) & (error < 0.1)
        step = epsilon * newton * jnp.minimum(1, _TRUST / size)
        ahead = (1 - _SHRINK) * tangent * jnp.minimum(1, _TRUST / bend)
        harder = jnp.where(accept, jnp.clip(size / _TRUST, 1, 8), 8)
        factor = jnp.where(accept & (size <= _TRUST), 0.25, harder)
        return _State(
            count=state.count + 1,
            model=model,
            step=jnp.where(lost, 0.0, step - jnp.where(reached, ahead, 0.0)),
            epsilon=epsilon * jnp.where(lost, 4.0, jnp.where(reached, _SHRINK, 1.0)),
            ridge=jnp.where(
                lost, state.ridge, jnp.clip(factor * state.ridge, 1e-6, 1e3)
            ),
            fresh=reached | lost,
            warm=state.warm & ~reached,
            best=best,
            gap=jnp.minimum(relative, state.gap),
            done=(gap <= jnp.maximum(tolerance * jnp.abs(value), rounding))
            | (jnp.abs(value) + gap <= nothing),
        )

    def unfinished(state):
        going = ~state.done & (state.count < max_iterations)
        return going & jnp.isfinite(state.epsilon)

    zero, infinity = jnp.zeros(m, cost.dtype), jnp.array(jnp.inf, cost.dtype)
    g = zero if start is None else _feasible(problem, start)
    epsilon = jnp.maximum((_COLD if start is None else _WARM) * spread, tiny)
    state = _State(
        count=jnp.array(0),
        model=_Model(g, zero, zero, jnp.zeros((m, m), cost.dtype)),
        step=zero,
        epsilon=epsilon,
        ridge=jnp.array(1e-3, cost.dtype),
        fresh=jnp.array(True),
        warm=jnp.array(True),
        best=_Candidate(b[:, None] * a, g),
        gap=infinity,
        done=jnp.array(False),
    )
    state = jax.lax.while_loop(unfinished, improve, state)
    plan, out, into = _fitted(state.best.plan, a, b)
    # c-transforms: feasible everywhere, and not led by points without mass.
    f = _least(cost - state.best.duals[:, None], b)
    g = _least(cost.T - f[:, None], a)
    f = jnp.where(a > 0, f, jnp.min(cost - g[:, None], 0))
    return plan + into[:, None] * out, f, g, state.gap, state.done


def _evaluate(problem, g, epsilon):
    """The model at g, and the share [m, n] of each point's mass that each atom gets."""
    excess, _, a, b = problem
    profit = jnp.where(b[:, None] > 0, g[:, None] - excess, 0.0)
    share = jax.nn.softmax(profit / epsilon + jnp.log(b)[:, None], axis=0)
    plan = share * a
    arrives = plan.sum(1)
    drift = jnp.sum(plan * (profit - jnp.sum(share * profit, 0)), 1)
    curvature = jnp.diag(arrives) - plan @ share.T
    return _Model(g, b - arrives, drift, curvature), share


def _feasible(problem, g):
    """The c-transform of the c-transform: never worse, and no wider than the costs."""
    excess, _, a, b = problem
    f = _least(excess - g[:, None], b)
    g = jnp.where(b > 0, _least(excess.T - f[:, None], a), 0.0)
    return jnp.where(b > 0, g - b @ g, 0.0)


def _is_better(new, old, step):
    """Whether a step went up a concave function, as its slopes tell it.

    Differences of values would drown in rounding. Half as far past the maximum as the
    step began before it is allowed; so is any step to much better marginals.
    """
    uphill = new.slope @ step >= -0.5 * (old.slope @ step)
    return uphill | (_l1(new.slope) < 0.5 * _l1(old.slope))


def _directions(problem, model, ridge):
    """To the maximiser (in units of epsilon), and epsilon times the path's tangent."""
    b = problem.b
    damping = jnp.where(b > 0, ridge * jnp.maximum(b, b - model.slope), 1.0)
    # b b' takes the freedom of a constant away.
    matrix = model.curvature + jnp.diag(damping) + jnp.outer(b, b)
    factor = jax.scipy.linalg.cho_factor(matrix)
    both = jnp.stack([model.slope, model.drift], 1)
    both = jax.scipy.linalg.cho_solve(factor, both)
    return (both - b @ both).T


def _certificate(problem, candidate):
    """(gap, cost, the part of the gap that the marginals do not cause)."""
    excess, offset, a, b = problem
    plan, duals = candidate
    above = excess - duals[:, None]
    slack = jnp.where(b[:, None] > 0, above - _least(above, b), 0.0)
    before = jnp.sum(plan * slack)
    plan, out, into = _fitted(plan, a, b)
    gap = jnp.sum(plan * slack) + into @ slack @ out
    value = jnp.sum(plan * excess) + into @ excess @ out + offset
    return gap, value, before


def _corrected(problem, share, newton):
    """The plan after a Newton step on the duals, to first order in the step.

    No step is longer than 1/2, so that no entry becomes negative.
    """
    return problem.a * share * (1 + newton[:, None] - newton @ share)


def _fitted(plan, a, b):
    """Takes away what is too much; `into` x `out` is the rank-one plan of the rest."""
    arrives = plan.sum(1)
    plan = plan * jnp.minimum(1, b / jnp.where(arrives > 0, arrives, 1))[:, None]
    out = jnp.maximum(a - plan.sum(0), 0)
    into = jnp.maximum(b - plan.sum(1), 0)
    return plan, out, into / jnp.maximum(into.sum(), jnp.finfo(plan.dtype).tiny)


def _least(cost, mass):
    """For each column the smallest cost of the rows with mass."""
    return jnp.min(jnp.where(mass[:, None] > 0, cost, jnp.inf), 0)


def _l1(x):
    return jnp.sum(jnp.abs(x))

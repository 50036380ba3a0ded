"""Exact optimal transport by linear programming."""

import concurrent.futures
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.ot.host import on_host
from ddjax.ot.transport import Transport, check, envelope

__all__ = ["lp"]

_MAX_PIVOTS = 10_000_000  # POT's default of 100,000 stops early from n ~ 5,000 on


def lp(
    cost: jax.Array, a: jax.Array, b: jax.Array, *, start: jax.Array | None = None
) -> Transport:
    """Optimal plan and duals, by POT's network simplex in float64 on the host.

        min_P <C, P>   subject to  P 1 = a,  P' 1 = b,  P >= 0

    Works under `jit` and `vmap` (a batch of problems is spread over the CPU's cores;
    the simplex releases Python's lock). Points of zero mass are left out of the
    program and get the largest feasible dual (the c-transform), so padding is free
    and a dead atom still has a price.

    Args:
      cost: [n, m], finite.
      a: [n], non-negative, not all zero.
      b: [m], non-negative; scaled to the sum of a.
      start: ignored (other solvers begin there; a simplex gains nothing from duals).

    Returns:
      Transport in the dtype of `cost`. `gap` is computed in float64 against duals
      that are feasible by construction: it certifies the plan. `converged` says that
      the simplex reported an optimum. The derivatives of `cost` are those of the
      optimum: the plan in C, the duals in a and b. Where the duals are not unique
      (equal masses, and m divides n) they are one choice among many.

    Raises:
      ValueError: shapes that do not fit; NaN costs, negative or zero-sum masses.

    Reference: N. Bonneel et al., "Displacement Interpolation Using Lagrangian Mass
      Transport", SIGGRAPH Asia 2011; R. Flamary et al., "POT: Python Optimal
      Transport", JMLR 22(78), 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> transport = lp(cost, jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75]))
      >>> float(transport.cost)
      0.25
    """
    check(cost, a, b)
    cost, a, b = jnp.asarray(cost), jnp.asarray(a), jnp.asarray(b)
    dtype = jnp.result_type(cost, jnp.float32)
    b = b * (a.sum() / b.sum())
    n, m = cost.shape
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=dtype)
    flag = jax.ShapeDtypeStruct((), np.bool_)
    plan, f, g, value, gap, error, optimal = on_host(
        _solve_batch,
        (
            shape((n, m)),
            shape((n,)),
            shape((m,)),
            shape(()),
            shape(()),
            shape(()),
            flag,
        ),
        *jax.lax.stop_gradient((cost, a, b)),
    )
    value = envelope(value, plan, (f, g), cost, (a, b))
    return Transport(plan, f, g, value, value, gap, error, optimal)


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())


def _solve_batch(cost, a, b):
    """Solves one problem, or all problems along the leading axes. NumPy only."""
    cost, a, b = (z.astype(np.float64) for z in (cost, a, b))
    batch = cost.shape[:-2]
    n, m = cost.shape[-2:]
    problems = zip(cost.reshape(-1, n, m), a.reshape(-1, n), b.reshape(-1, m))
    if batch:
        solved = list(_pool().map(lambda problem: _solve(*problem), problems))
    else:
        solved = [_solve(*next(problems))]
    stacked = (np.stack(parts) for parts in zip(*solved))
    return [x.reshape(batch + x.shape[1:]) for x in stacked]


def _solve(cost, a, b):
    if not _is_solvable(cost, a, b):  # under `jit` nobody could check before
        failed = np.full_like(cost, np.nan), np.full_like(a, np.nan)
        return *failed, np.full_like(b, np.nan), *[np.float64(np.nan)] * 3, np.False_
    rows, columns = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
    mass = a[rows]
    wanted = b[columns] * (mass.sum() / b[columns].sum())
    used = cost[np.ix_(rows, columns)]
    small, duals, optimal = _simplex(mass, wanted, used)
    plan = np.zeros_like(cost)
    plan[np.ix_(rows, columns)] = small
    # c-transforms: feasible duals everywhere, the same on an optimal support.
    f = np.min(used - duals, axis=1)
    g = np.min(cost[rows] - f[:, None], axis=0)
    g -= g[columns].mean()
    f = np.min(cost - g, axis=1)
    value = np.sum(plan * cost)
    dual = mass @ f[rows] + wanted @ g[columns]
    rounding = np.finfo(np.float64).eps * np.abs(used).max()
    gap = (value - dual) / max(abs(value), rounding, np.finfo(np.float64).tiny)
    error = np.abs(small.sum(1) - mass).sum() + np.abs(small.sum(0) - wanted).sum()
    return plan, f, g, value, gap, error, optimal


def _simplex(a, b, cost):
    """(plan, duals of b, whether it is optimal)."""
    import ot  # two seconds to import, so only when a plan is asked for

    # Near a barycenter the simplex is 3 to 5 times faster from the smaller side.
    flip = len(a) > len(b)
    problem = (b, a, cost.T) if flip else (a, b, cost)
    problem = map(np.ascontiguousarray, problem)
    plan, log = ot.emd(*problem, numItermax=_MAX_PIVOTS, log=True)
    optimal = np.bool_(log["result_code"] == 1)
    return (plan.T, log["u"], optimal) if flip else (plan, log["v"], optimal)


def _is_solvable(cost, a, b):
    if not (np.isfinite(cost).all() and np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    return min(a.min(), b.min()) >= 0 and a.sum() > 0 and b.sum() > 0

"""Exact optimal transport by linear programming."""

import concurrent.futures
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.ot.transport import Transport

__all__ = ["lp"]

_MAX_PIVOTS = 10_000_000  # POT's default of 100,000 stops early from n ~ 5,000 on


def lp(cost: jax.Array, a: jax.Array, b: jax.Array) -> Transport:
    """Optimal plan and duals, by POT's network simplex in float64 on the host.

        min_P <C, P>   subject to  P 1 = a,  P' 1 = b,  P >= 0

    Works under `jit` and `vmap` (a batch of problems is spread over the CPU's cores;
    the simplex releases Python's lock). Points of zero mass are left out of the
    program and get the largest feasible dual (the c-transform), so padding is free
    and a dead atom still has a price. Not differentiable: by the envelope theorem the
    derivative of the cost is the plan (in C) and the centred dual (in b).

    Args:
      cost: [n, m], finite.
      a: [n], non-negative, not all zero.
      b: [m], non-negative; scaled to the sum of a.

    Returns:
      Transport in the dtype of `cost`. `gap` is computed in float64 against duals
      that are feasible by construction: it certifies the plan. `converged` says that
      the simplex reported an optimum.

    Reference: N. Bonneel et al., "Displacement Interpolation Using Lagrangian Mass
      Transport", SIGGRAPH Asia 2011; R. Flamary et al., "POT: Python Optimal
      Transport", JMLR 22(78), 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> from ddjax import ot
      >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
      >>> transport = ot.lp(cost, jnp.array([0.5, 0.5]), jnp.array([0.25, 0.75]))
      >>> float(transport.cost)
      0.25
    """
    dtype = jnp.result_type(cost, jnp.float32)
    n, m = cost.shape
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=dtype)
    result = Transport(
        shape((n, m)),
        shape((n,)),
        shape((m,)),
        shape(()),
        shape(()),
        jax.ShapeDtypeStruct((), np.bool_),
    )
    solved = jax.pure_callback(
        functools.partial(_solve_batch, dtype=dtype),
        tuple(result),
        cost,
        a,
        b,
        vmap_method="broadcast_all",
    )
    return Transport(*solved)


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(os.cpu_count())


def _solve_batch(cost, a, b, *, dtype):
    """Solves one problem, or all problems along the leading axes. NumPy only."""
    cost, a, b = (np.asarray(z, np.float64) for z in (cost, a, b))
    batch = cost.shape[:-2]
    n, m = cost.shape[-2:]
    problems = zip(cost.reshape(-1, n, m), a.reshape(-1, n), b.reshape(-1, m))
    if batch:
        solved = list(_pool().map(lambda problem: _solve(*problem), problems))
    else:
        solved = [_solve(*next(problems))]
    stacked = (np.stack(parts) for parts in zip(*solved))
    stacked = (x.reshape(batch + x.shape[1:]) for x in stacked)
    plan, f, g, value, gap, optimal = stacked
    return *(x.astype(dtype) for x in (plan, f, g, value, gap)), optimal


def _solve(cost, a, b):
    import ot  # two seconds to import, so only when a plan is asked for

    rows, columns = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
    mass = a[rows]
    wanted = b[columns] * (mass.sum() / b[columns].sum())
    used = np.ascontiguousarray(cost[np.ix_(rows, columns)])
    small, log = ot.emd(mass, wanted, used, numItermax=_MAX_PIVOTS, log=True)
    plan = np.zeros_like(cost)
    plan[np.ix_(rows, columns)] = small
    # c-transforms: feasible duals everywhere, the same on an optimal support.
    f = np.min(used - log["v"], axis=1)
    g = np.min(cost[rows] - f[:, None], axis=0)
    g -= g.mean()
    f = np.min(cost - g, axis=1)
    value = np.sum(plan * cost)
    dual = mass @ f[rows] + wanted @ g[columns]
    gap = (value - dual) / max(value, np.finfo(np.float64).tiny)
    return plan, f, g, value, gap, np.bool_(log["result_code"] == 1)

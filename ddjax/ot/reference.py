"""WMDD's released weighted barycenter, step by step: for parity, not for use."""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.ot.atoms import check_size, measure
from ddjax.ot.host import on_host
from ddjax.types import Barycenter

__all__ = ["mirror_descent", "reference_barycenter"]


def reference_barycenter(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    a: jax.Array | None = None,
    start: jax.Array | None = None,
    rounds: int = 10,
    damping: float = 0.2,
    steps: int = 100,
) -> Barycenter:
    """The weighted barycenter as WMDD's released code computes it.

        w <- mirror descent from equal weights;   y <- 0.8 y + 0.2 y*(w)

    with y*(w) the fixed point of the position step for those weights. It starts from
    N(0, 1) noise, of which 0.8^10, a tenth, is left in every atom at the end, and its
    mirror descent oscillates: it ends *above* equal weights (by a factor of 5.6 on a
    small case). `barycenter(weights="learned")` is the same idea done to the end.

    Where it starts far off, its result depends on the last bits of the arithmetic: the
    usual two formulas for the same cost agree for seven rounds and then part.

    Args:
      key: draws the noise; consumed.
      x: [n, D].
      size: number of atoms.
      a: [n], masses, scaled to sum 1. Equal where None.
      start: [size, D], instead of noise.
      rounds: of weights and atoms; stops early when the weights stay.
      damping: share of the new atoms in each round.
      steps: most steps of each inner loop.

    Returns:
      Barycenter; `converged` says that the weights stayed.

    Raises:
      ValueError: as `barycenter`.

    Reference: H. Liu et al., ICCV 2025, https://arxiv.org/abs/2311.18531, released
      code, `--weight-wb true`.
    """
    x, a = measure("x", x, a)
    check_size(x, size)
    if start is None:
        start = jax.random.normal(key, (size, x.shape[1]), x.dtype)
    start = jnp.asarray(start, x.dtype)
    results = jax.eval_shape(lambda y: (y, y[:, 0], y[0, 0], y[0, 0] > 0), start)

    def find(x, a, y):
        batch = x.shape[:-2]
        problems = zip(*(z.reshape(-1, *z.shape[len(batch) :]) for z in (x, a, y)))
        found = [_find(*problem, rounds, damping, steps) for problem in problems]
        return [np.stack(z).reshape(batch + np.shape(z[0])) for z in zip(*found)]

    return Barycenter(*on_host(find, results, x, a, start))


def mirror_descent(cost: np.ndarray, a: np.ndarray, *, steps: int = 100) -> np.ndarray:
    """Weights of fixed atoms by the code's w <- w exp(-10 u), normalised. NumPy.

    From equal weights, on the cost divided by its largest entry, with the duals u that
    POT returns; the last iterate, not the best. `subgradient_weights` is what we use.

    Args:
      cost: [m, n], from atoms to points.
      a: [n].
      steps: most steps; stops when the weights change by less than 1e-9.

    Returns:
      [m].
    """
    import ot

    w = np.full(len(cost), 1 / len(cost))
    for _ in range(steps):
        _, log = ot.emd(w, a, cost / cost.max(), log=True)
        new = w * np.exp(-10 * log["u"])
        new /= new.sum()
        if np.abs(new - w).sum() < 1e-9:
            return new
        w = new
    return w


def _find(x, a, y, rounds, damping, steps):
    """(atoms, weights, cost, whether the weights stayed), in float64."""
    import ot

    x, a, y = (np.asarray(z, np.float64) for z in (x[a > 0], a[a > 0], y))
    a = a / a.sum()
    w, converged = np.full(len(y), 1 / len(y)), False
    for _ in range(rounds):
        new = mirror_descent(ot.dist(y, x), a, steps=steps)
        converged = bool(np.linalg.norm(new - w) < 1e-6)
        w = new
        if converged:
            break
        free = ot.lp.free_support_barycenter([x], [a], y, b=w, numItermax=steps)
        y = (1 - damping) * y + damping * free
    return y, w, ot.emd2(w, a, ot.dist(y, x)), converged

"""A few weighted atoms that stand for a cloud of features.

With one input measure the Wasserstein barycenter is optimal quantisation: for free
weights its solution is k-means (weights = masses of the Voronoi cells), for equal
weights *balanced* k-means. Three ways to the weights, one update of the positions.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddjax.ot.atoms import INITS, check_size, measure
from ddjax.ot.cost import expanded_square, squared_euclidean
from ddjax.ot.lp import lp
from ddjax.ot.semidual import semidual
from ddjax.ot.weights import nearest_plan, subgradient_weights, voronoi_masses
from ddjax.types import Barycenter

__all__ = ["SMOOTH", "WEIGHTS", "barycenter", "newton_step"]

WEIGHTS = ("uniform", "learned", "voronoi")
SMOOTH = functools.partial(semidual, tolerance=1e-2)
"""Plans that are a hundredth off find lower optima than exact ones, and sooner."""

_PATIENCE = 3  # alternations without progress before the end


def barycenter(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    a: jax.Array | None = None,
    start: jax.Array | None = None,
    init: str = "data",
    restarts: int = 1,
    weights: str = "uniform",
    solver: Callable = SMOOTH,
    iterations: int = 100,
    weight_steps: int = 50,
    tolerance: float = 1e-3,
) -> Barycenter:
    """Free-support Wasserstein barycenter of one weighted point cloud.

        min_{y, w}  W_2^2( sum_j w_j delta(y_j),  sum_i a_i delta(x_i) )

    Alternates between the weights for fixed atoms and the atoms for fixed weights
    (Cuturi and Doucet 2014, Algorithm 2 with step 1), and looks ahead: a plan is that
    of the atoms moved on by as much as they moved last, which halves the alternations
    and ends lower. Weights:

      * "uniform": w_j = 1 / size. What WMDD's released runs use.
      * "learned": projected subgradient on the duals of the transport (their Algorithm
        1; exact with `ot.lp`), the WMDD paper's way; see `subgradient_weights`.
      * "voronoi": the masses of the Voronoi cells, which is where "learned"
        converges to, in closed form: k-means.

    An atom without mass is moved to the point that is served worst. With `size` 1 the
    result is the mean. WMDD's code starts from N(0, 1) noise and damps the position
    step of its weighted variant by 0.2, which leaves a tenth of that noise in every
    atom (`ot.reference_barycenter`); we start from data and take the whole step.

    The problem is not convex, and plans that are a little smooth (`SMOOTH`, the
    default) find lower optima than exact ones on average. The last position step and
    the cost are exact, by `ot.lp`, whatever the solver.

    Pure; `jit` and `vmap` (over key, x, a) work, with the exact solver too.

    Args:
      key: draws the initial atoms among the points; consumed.
      x: [n, D], the points.
      size: number of atoms, the images per class.
      a: [n], masses, scaled to sum 1; zero for padding. Equal where None.
      start: [size, D], initial atoms, instead of those that `key` draws.
      init: "data" (points drawn at random) or "k-means++" (far from each other).
      restarts: from as many draws, side by side; the lowest cost is kept.
      weights: "uniform", "learned" or "voronoi".
      solver: `(cost [n, size], a, w, start=g [size]) -> Transport`, such as `ot.lp` or
        a partial of `ot.semidual` or `ot.sinkhorn`; `start` are the duals of the
        alternation before. Not used by "voronoi".
      iterations: most alternations.
      weight_steps: subgradient steps in each alternation of "learned".
      tolerance: stops when three alternations together lower the cost by less than
        this share of it. 0 goes on while it falls at all.

    Returns:
      Barycenter with points [size, D], weights [size], cost W_2^2 (squared feature
      units; exact) and converged.

    Raises:
      ValueError: more atoms than points, unknown `weights` or `init`, no restart,
        features that are not finite, masses that are no measure.

    Reference: M. Cuturi and A. Doucet, "Fast Computation of Wasserstein Barycenters",
      ICML 2014, https://arxiv.org/abs/1310.4375; H. Liu et al., ICCV 2025,
      https://arxiv.org/abs/2311.18531.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1]])
      >>> atoms = barycenter(jax.random.key(0), x, 2)
      >>> [round(float(y), 2) for y in sorted(atoms.points[:, 0])]
      [0.05, 5.05]
    """
    if weights not in WEIGHTS:
        raise ValueError(
            f"unknown barycenter weights {weights!r}; known: {', '.join(WEIGHTS)}."
        )
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}; known: {', '.join(INITS)}.")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1; got {restarts}.")
    x, a = measure("x", x, a)
    check_size(x, size)

    centre = a @ x  # small numbers keep more digits
    x = x - centre

    def place(key):
        y = INITS[init](key, x, size, a) if start is None else start - centre
        options = weights, solver, iterations, weight_steps, tolerance
        y, w, converged = _alternate(x, a, y, *options)
        cost = squared_euclidean(x, y)
        if weights == "voronoi":
            return Barycenter(y + centre, w, jnp.sum(a * jnp.min(cost, 1)), converged)
        y = newton_step(lp(cost, a, w).plan, x, y)  # the last one is exact
        cost = lp(squared_euclidean(x, y), a, w).cost
        return Barycenter(y + centre, w, cost, converged)

    if restarts == 1 or start is not None:
        return place(key)
    found = jax.vmap(place)(jax.random.split(key, restarts))
    return jax.tree.map(lambda part: part[jnp.argmin(found.cost)], found)


def _alternate(x, a, y, weights, solver, iterations, weight_steps, tolerance):
    """(atoms, weights, converged) from the first atoms, for centred points."""
    size, squares = len(y), jnp.sum(x * x, 1)

    def improve(carry):
        count, y, ahead, w, g, reference, stalled = carry  # weights and duals go on
        cost = expanded_square(x, ahead, squares)
        if weights == "voronoi":
            plan = nearest_plan(cost, a)
            w, value = plan.sum(0), jnp.sum(plan * cost)
        else:
            if weights == "learned":
                w = subgradient_weights(cost, a, w, solver, steps=weight_steps)
            transport = solver(cost, a, w, start=g)
            plan, g, value = transport.plan, transport.g, transport.cost
        moved = newton_step(plan, x, ahead)
        gain = jnp.sum(plan.sum(0)[:, None] * (moved - ahead) ** 2)  # of the same plan
        value = value - gain
        # As far again as the last time; the first time says nothing.
        ahead = jnp.where(count > 0, 2 * moved - y, moved)
        if weights != "uniform":  # equal masses leave no atom without
            dead = (plan.sum(0) <= 0)[:, None]
            moved = jnp.where(dead, _worst_served(plan, cost, x), moved)
            ahead = jnp.where(dead, moved, ahead)
        falls = value < (1 - tolerance) * reference
        reference = jnp.where(falls, value, reference)
        stalled = jnp.where(falls, 0, stalled + 1)
        return count + 1, moved, ahead, w, g, reference, stalled

    def unfinished(carry):
        count, *_, stalled = carry
        return (count < iterations) & (stalled < _PATIENCE)

    w = jnp.full(size, 1 / size, x.dtype)
    infinity = jnp.array(jnp.inf, x.dtype)
    carry = (0, y, y, w, jnp.zeros(size, x.dtype), infinity, 0)
    _, y, _, w, _, _, stalled = jax.lax.while_loop(unfinished, improve, carry)
    if weights == "voronoi":
        w = voronoi_masses(expanded_square(x, y, squares), a)
    return y, w, stalled >= _PATIENCE


def newton_step(plan: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Moves every atom to the mean of the mass it receives: y_j = sum_i P_ij x_i / w_j.

    The minimiser of the transport cost for a fixed plan (Cuturi and Doucet 2014, the
    position update of Algorithm 2). An atom that receives nothing stays.

    Args:
      plan: [n, m].
      x: [n, D].
      y: [m, D], the atoms now.

    Returns:
      [m, D].
    """
    mass = plan.sum(0)
    sums = jnp.matmul(plan.T, x, precision=jax.lax.Precision.HIGHEST)
    alive = (mass > 0)[:, None]
    return jnp.where(alive, sums / jnp.where(alive, mass[:, None], 1.0), y)


def _worst_served(plan, cost, x):
    """For each atom another of the points that cost most: places for atoms without."""
    dead = plan.sum(0) <= 0
    _, worst = jax.lax.top_k(jnp.sum(plan * cost, 1), len(dead))
    return x[worst[jnp.clip(jnp.cumsum(dead) - 1, 0)]]

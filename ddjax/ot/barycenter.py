"""A few weighted atoms that stand for a cloud of features.

With one input measure the Wasserstein barycenter is optimal quantisation: for free
weights its solution is k-means (weights = masses of the Voronoi cells), for equal
weights *balanced* k-means. Three ways to the weights, one update of the positions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ddjax.ot.cost import squared_euclidean
from ddjax.ot.lp import lp
from ddjax.types import Barycenter

__all__ = [
    "WEIGHTS",
    "barycenter",
    "newton_step",
    "subgradient_weights",
    "voronoi_masses",
]

WEIGHTS = ("uniform", "learned", "voronoi")


def barycenter(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    a: jax.Array | None = None,
    start: jax.Array | None = None,
    weights: str = "uniform",
    solver: Callable = lp,
    iterations: int = 100,
    weight_steps: int = 50,
    tolerance: float = 1e-7,
) -> Barycenter:
    """Free-support Wasserstein barycenter of one weighted point cloud.

        min_{y, w}  W_2^2( sum_j w_j delta(y_j),  sum_i a_i delta(x_i) )

    Alternates between the weights for fixed atoms and the atoms for fixed weights
    (Cuturi and Doucet 2014, Algorithm 2 with step 1). Weights:

      * "uniform": w_j = 1 / size. What WMDD's released runs use.
      * "learned": projected subgradient on the duals of the exact transport (their
        Algorithm 1), the WMDD paper's way; see `subgradient_weights`.
      * "voronoi": the masses of the Voronoi cells, which is where "learned"
        converges to, in closed form: k-means.

    An atom without mass is moved to the point that is served worst. With `size` 1 the
    result is the mean. WMDD's code starts from N(0, 1) noise and damps the position
    step of its weighted variant by 0.2, which leaves a tenth of that noise in every
    atom; we start from data and take the whole step.

    Pure; `jit` and `vmap` (over key, x, a) work, with the exact solver too.

    Args:
      key: draws the initial atoms among the points; consumed.
      x: [n, D], the points.
      size: number of atoms, the images per class.
      a: [n], masses, sum 1; zero for padding. Equal where None.
      start: [size, D], initial atoms, instead of points drawn by `key`.
      weights: "uniform", "learned" or "voronoi".
      solver: `(cost [n, size], a, w) -> Transport`, such as `ot.lp` or a partial of
        `ot.sinkhorn`. Not used by "voronoi" except for the final cost.
      iterations: most alternations (WMDD: 100; 10 with learned weights, whose small
        steps never quite stop).
      weight_steps: subgradient steps in each alternation of "learned".
      tolerance: stops when the atoms' squared displacement, summed, is below this
        share of the cloud's variance.

    Returns:
      Barycenter with points [size, D], weights [size], cost W_2^2 (squared feature
      units) and converged.

    Raises:
      ValueError: more atoms than points, or unknown `weights`.

    Reference: M. Cuturi and A. Doucet, "Fast Computation of Wasserstein Barycenters",
      ICML 2014, https://arxiv.org/abs/1310.4375; H. Liu et al., ICCV 2025,
      https://arxiv.org/abs/2311.18531.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ddjax import ot
      >>> x = jnp.array([[0.0], [0.1], [5.0], [5.1]])
      >>> atoms = ot.barycenter(jax.random.key(0), x, 2)
      >>> [round(float(y), 2) for y in sorted(atoms.points[:, 0])]
      [0.05, 5.05]
    """
    if weights not in WEIGHTS:
        raise ValueError(
            f"unknown barycenter weights {weights!r}; known: {', '.join(WEIGHTS)}."
        )
    if size > len(x):
        raise ValueError(
            f"{size} atoms for {len(x)} points; a barycenter needs at least as many "
            "points as atoms (lower the images per class)."
        )
    x = jnp.asarray(x)
    a = jnp.full(len(x), 1 / len(x), x.dtype) if a is None else jnp.asarray(a)
    uniform = jnp.full(size, 1 / size, x.dtype)
    if start is None:
        start = x[jax.random.choice(key, len(x), (size,), replace=False, p=a)]
    start = jnp.asarray(start, x.dtype)
    spread = a @ jnp.sum((x - a @ x) ** 2, 1)
    tiny = jnp.finfo(x.dtype).tiny

    def improve(carry):
        count, y, w, _ = carry  # the weights go on from where they were
        cost = squared_euclidean(x, y)
        if weights == "voronoi":
            plan = _nearest_plan(cost, a)
            w = plan.sum(0)
        else:
            if weights == "learned":
                w = subgradient_weights(cost, a, w, solver, steps=weight_steps)
            plan = solver(cost, a, w).plan
        moved = _revive(newton_step(plan, x, y), plan, cost, x)
        return count + 1, moved, w, jnp.sum((moved - y) ** 2)

    def unfinished(carry):
        count, _, _, displacement = carry
        return (count < iterations) & (displacement > tolerance * spread + tiny)

    carry = (0, start, uniform, jnp.array(jnp.inf, x.dtype))
    _, y, w, displacement = jax.lax.while_loop(unfinished, improve, carry)
    cost = squared_euclidean(x, y)
    if weights == "voronoi":
        w = voronoi_masses(cost, a)
    converged = displacement <= tolerance * spread + tiny
    return Barycenter(y, w, solver(cost, a, w).cost, converged)


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


def subgradient_weights(
    cost: jax.Array, a: jax.Array, w: jax.Array, solver: Callable = lp, *, steps: int
) -> jax.Array:
    """Weights of fixed atoms, by projected subgradient on the dual of the transport.

        w <- Proj_simplex( w - g (W(a, w) - W*) / ||g||^2 ),   g the dual of the atoms

    The dual is a subgradient of w -> W(a, w) (Cuturi and Doucet 2014, Algorithm 1), and
    centred it lies in the simplex's plane. The step is Polyak's: for fixed atoms the
    optimum is known, W* = sum_i a_i min_j C_ij. The best weights met are returned.
    WMDD's code takes entropic steps of a fixed size, oscillates, and returns the last.

    Args:
      cost: [n, m].
      a: [n], masses of the points.
      w: [m], where to start, on the simplex.
      solver: `(cost, a, w) -> Transport`.
      steps: how many; each solves one transport problem.

    Returns:
      [m], non-negative, sum 1. The optimum is `voronoi_masses(cost, a)`.
    """
    optimum = a @ jnp.min(cost, 1)

    def step(_, carry):
        w, best, lowest = carry
        transport = solver(cost, a, w)
        excess = transport.cost - optimum
        best = jnp.where(excess < lowest, w, best)
        g = transport.g - transport.g.mean()
        squares = jnp.maximum(jnp.sum(g * g), jnp.finfo(g.dtype).tiny)
        moved = w - jnp.maximum(excess, 0.0) / squares * g
        projected = optax.projections.projection_simplex(moved)
        return projected, best, jnp.minimum(excess, lowest)

    infinity = jnp.array(jnp.inf, cost.dtype)
    w, best, lowest = jax.lax.fori_loop(0, steps, step, (w, w, infinity))
    return jnp.where(solver(cost, a, w).cost - optimum < lowest, w, best)


def voronoi_masses(cost: jax.Array, a: jax.Array) -> jax.Array:
    """Mass that lies nearest to each atom: the optimal weights of fixed atoms.

    Args:
      cost: [n, m].
      a: [n].

    Returns:
      [m].
    """
    return _nearest_plan(cost, a).sum(0)


def _nearest_plan(cost, a):
    return (
        jax.nn.one_hot(jnp.argmin(cost, 1), cost.shape[1], dtype=cost.dtype)
        * a[:, None]
    )


def _revive(y, plan, cost, x):
    """Puts each atom without mass on one of the points that cost most."""
    dead = plan.sum(0) <= 0
    worst = jnp.argsort(-jnp.sum(plan * cost, 1))
    turn = jnp.clip(jnp.cumsum(dead) - 1, 0)
    return jnp.where(dead[:, None], x[worst[turn]], y)

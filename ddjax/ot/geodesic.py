"""A few atoms that stand for a cloud in a product of curved spaces.

What `ot.barycenter` is in Euclidean space, with geodesic distances for the cost and
Frechet means for the positions.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import geometry
from ddjax.geometry import Product
from ddjax.ot.atoms import INITS, check_size, measure
from ddjax.ot.barycenter import SMOOTH
from ddjax.ot.lp import lp
from ddjax.types import Barycenter

__all__ = ["geodesic_barycenter"]

_PATIENCE = 3  # alternations without progress before the end
_LAST_STEPS = 16  # of the last means, which are exact


def geodesic_barycenter(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    product: Product,
    dims: Sequence[int],
    a: jax.Array | None = None,
    start: jax.Array | None = None,
    init: str = "data",
    restarts: int = 1,
    solver: Callable = SMOOTH,
    iterations: int = 100,
    steps: int = 2,
    tolerance: float = 1e-3,
) -> Barycenter:
    """Free-support barycenter of one weighted point cloud in a product space.

        min_y  W( sum_j delta(y_j) / size,  sum_i a_i delta(x_i) ),
        with the cost  sum_m w_m d_m(x_i, y_j)^2

    Alternates, as `ot.barycenter` does, between the plan for fixed atoms and the atoms
    for a fixed plan: each goes to the Frechet mean of the mass that it receives, by

        y_j <- exp_{y_j}( sum_i P_ij log_{y_j}(x_i) / w_j ),

    factor by factor, from where it is. In a flat factor the first such step is the
    mean. A plan is that of the atoms moved on along their geodesics by as much as they
    moved last. All in O(n size + n D) memory. Weights are equal; with curvatures 0 and
    weights 1 it is `ot.barycenter`.

    Points should lie where means are unique: on a sphere within a quarter of its
    circumference around one point.

    Pure; `jit` and `vmap` (over key, x, a) work, with the exact solver too.

    Args:
      key: draws the initial atoms among the points; consumed.
      x: [n, D], the points: normal coordinates of all factors, one after another.
      size: number of atoms.
      product: curvatures and weights of the k factors; the number 0 for a flat one.
      dims: [k], coordinates of each factor; one may be -1, what the others leave.
      a: [n], masses, scaled to sum 1; zero for padding. Equal where None.
      start: [size, D], initial atoms, instead of those that `key` draws.
      init: "data", or "k-means++", far from each other by their coordinates.
      restarts: from as many draws, side by side; the lowest cost is kept.
      solver: see `ot.barycenter`.
      iterations: most alternations.
      steps: towards the means, in each of them; the last means take more.
      tolerance: see `ot.barycenter`.

    Returns:
      Barycenter with points [size, D], weights [size], cost (exact) and converged.

    Raises:
      ValueError: more atoms than points, dims that are not those of the points,
        unknown `init`, no restart, features that are not finite, masses that are no
        measure.

    Reference: M. Cuturi and A. Doucet, ICML 2014, Algorithm 2, see `ot.barycenter`;
      Frechet means in its place are ours.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ddjax import geometry
      >>> x = jnp.array([[0.0, 1.0], [0.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
      >>> round_ = {"product": geometry.Product((1.0,), (1.0,)), "dims": (2,)}
      >>> found = geodesic_barycenter(jax.random.key(0), x / 2, 1, **round_)
      >>> bool(jnp.linalg.norm(found.points[0] - x.mean(0) / 2) > 0.01)
      True
    """
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}; known: {', '.join(INITS)}.")
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1; got {restarts}.")
    x, a = measure("x", x, a)
    check_size(x, size)
    cuts = _cuts(dims, product, x.shape[1])
    parts = jnp.split(x, cuts, 1)
    w = jnp.full(size, 1 / size, x.dtype)

    def place(key):
        y = INITS[init](key, x, size, a) if start is None else start
        y = tuple(jnp.split(jnp.asarray(y, x.dtype), cuts, 1))
        options = solver, iterations, steps, tolerance
        y, converged = _alternate(product, parts, a, y, *options)
        plan = lp(_cost(product, parts, y), a, w).plan
        y = _means(product, parts, plan, y, _LAST_STEPS)
        cost = lp(_cost(product, parts, y), a, w).cost
        return Barycenter(jnp.concatenate(y, 1), w, cost, converged)

    if restarts == 1 or start is not None:
        return place(key)
    found = jax.vmap(place)(jax.random.split(key, restarts))
    return jax.tree.map(lambda part: part[jnp.argmin(found.cost)], found)


def _cuts(dims, product, width) -> list[int]:
    """Where each factor's coordinates end, but the last one's."""
    given = [d for d in dims if d != -1]
    left = width - sum(given)
    whole = [left if d == -1 else d for d in dims]
    is_whole = len(dims) - len(given) <= 1 and sum(whole) == width and min(whole) > 0
    if len(dims) != len(product.curvatures) or not is_whole:
        raise ValueError(
            f"dims are {tuple(dims)}, for points of {width} coordinates in "
            f"{len(product.curvatures)} factors; expected one size of each factor, "
            "together all coordinates. One may be -1, what the others leave."
        )
    return [int(cut) for cut in np.cumsum(whole)[:-1]]


def _alternate(product, x, a, y, solver, iterations, steps, tolerance):
    """(atoms, converged) from the first atoms; points and atoms factor by factor."""
    w = jnp.full(len(y[0]), 1 / len(y[0]), a.dtype)

    def improve(carry):
        count, y, ahead, g, reference, stalled = carry  # the duals go on
        transport = solver(_cost(product, x, ahead), a, w, start=g)
        moved = _means(product, x, transport.plan, ahead, steps)
        # By so much the same plan costs less; in a curved factor about that.
        gain = transport.plan.sum(0) @ geometry.product_distance_squared(
            product, moved, ahead
        )
        value = transport.cost - gain
        further = _beyond(product, y, moved)
        # As far again as the last time; the first time says nothing.
        ahead = jax.tree.map(lambda p, q: jnp.where(count > 0, p, q), further, moved)
        falls = value < (1 - tolerance) * reference
        reference = jnp.where(falls, value, reference)
        stalled = jnp.where(falls, 0, stalled + 1)
        return count + 1, moved, ahead, transport.g, reference, stalled

    def unfinished(carry):
        count, *_, stalled = carry
        return (count < iterations) & (stalled < _PATIENCE)

    infinity = jnp.array(jnp.inf, a.dtype)
    carry = (0, y, y, jnp.zeros_like(w), infinity, 0)
    _, y, *_, stalled = jax.lax.while_loop(unfinished, improve, carry)
    return y, stalled >= _PATIENCE


def _cost(product, x, y):
    return geometry.product_pairwise_squared(product, x, y)


def _means(product, x, plan, y, steps):
    """Moves every atom towards the Frechet mean of its mass; one without stays."""
    mass = plan.sum(0)
    shares = plan / jnp.where(mass > 0, mass, 1.0)

    def step(_, y):
        return tuple(
            geometry.exp(base, geometry.log_sums(base, part, shares, kappa), kappa)
            for kappa, base, part in zip(product.curvatures, y, x)
        )

    moved = jax.lax.fori_loop(0, steps, step, y)
    alive = (mass > 0)[:, None]
    return tuple(jnp.where(alive, p, q) for p, q in zip(moved, y))


def _beyond(product, y, moved):
    """The points as far behind `moved` as y is before it."""
    return tuple(
        geometry.exp(q, -geometry.log(q, p, kappa), kappa)
        for kappa, p, q in zip(product.curvatures, y, moved)
    )

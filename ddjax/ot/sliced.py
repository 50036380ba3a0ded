"""Optimal transport through one-dimensional projections."""

import functools

import jax
import jax.numpy as jnp

from ddjax.ot.atoms import check_size, measure, sample
from ddjax.ot.cost import squared_euclidean
from ddjax.ot.lp import lp
from ddjax.types import Barycenter

__all__ = ["directions", "sliced_barycenter", "sliced_wasserstein", "wasserstein_1d"]

_matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def wasserstein_1d(
    x: jax.Array,
    y: jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
) -> jax.Array:
    """Exact W_2^2 between weighted points of the line.

        W_2^2 = int_0^1 (F^-1(t) - G^-1(t))^2 dt

    F^-1 and G^-1 are the quantile functions. Both are constant between the n + m
    merged levels of the two cumulated masses, so the integral is a finite sum.

    Pure; `jit` and `vmap` work. Differentiable in x and y (with subgradients where
    points coincide); the masses are constants.

    Args:
      x: [n].
      y: [m], in the unit of x.
      a: [n], masses of x, scaled to sum 1; zero for padding. Equal where None.
      b: [m], masses of y, likewise.

    Returns:
      Scalar, in the squared unit of x.

    Raises:
      ValueError: x or y is not finite or not [n] with n masses, or the masses are
        negative or all zero.

    Reference: G. Peyre and M. Cuturi, "Computational Optimal Transport", 2019, remark
      2.30, https://arxiv.org/abs/1803.00567.

    Example:
      >>> import jax.numpy as jnp
      >>> from ddjax.ot.sliced import wasserstein_1d
      >>> float(wasserstein_1d(jnp.array([0.0, 4.0]), jnp.array([1.0])))
      5.0
    """
    x, a = measure("x", jnp.asarray(x)[..., None], a)
    y, b = measure("y", jnp.asarray(y)[..., None], b)
    return _transport(x[:, 0], y[:, 0], a, b)


def directions(key: jax.Array, count: int, dimension: int) -> jax.Array:
    """Unit vectors theta_l in whole random orthonormal bases, the last one cut.

        1 / L  sum_l theta_l theta_l' = I / D    exactly, for L a multiple of D

    Each vector is uniform on the sphere, but those of one basis repel each other: the
    mean over them varies less than over independent ones, and not at all where the
    projected quantity is quadratic (a translation, for instance).

    Args:
      key: draws the bases; consumed.
      count: L, how many.
      dimension: D.

    Returns:
      [L, D].

    Raises:
      ValueError: count or dimension is below 1.

    Reference: M. Rowland et al., "Orthogonal Estimation of Wasserstein Distances",
      AISTATS 2019, https://arxiv.org/abs/1903.03784.
    """
    if count < 1 or dimension < 1:
        raise ValueError(
            f"directions needs a count and a dimension of at least 1; got {count} and "
            f"{dimension}."
        )
    bases = jax.random.orthogonal(key, dimension, (-(-count // dimension),))
    return bases.reshape(-1, dimension)[:count]


def sliced_wasserstein(
    x: jax.Array,
    y: jax.Array,
    theta: jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
) -> jax.Array:
    """Mean over directions of the W_2^2 between the projections of two clouds.

        SW_2^2 = 1 / L  sum_l W_2^2( sum_i a_i delta(theta_l.x_i),
                                     sum_j b_j delta(theta_l.y_j) )

    Never larger than W_2^2 / D for whole bases, and equal to it for a translation.
    Takes O(L (n + m)) memory: no [n, m] array is made. Pure; `jit` and `vmap` work.
    Differentiable in x and y (with subgradients where projections coincide).

    Args:
      x: [n, D].
      y: [m, D].
      theta: [L, D], unit vectors; see `directions`.
      a: [n], masses of x, scaled to sum 1; zero for padding. Equal where None.
      b: [m], masses of y, likewise.

    Returns:
      Scalar, squared feature units.

    Raises:
      ValueError: x or y is not finite or not [n, D] with n masses, the masses are
        negative or all zero, or x, y and theta differ in D.

    Reference: J. Rabin et al., "Wasserstein Barycenter and its Application to Texture
      Mixing", SSVM 2011; N. Bonneel et al., "Sliced and Radon Wasserstein Barycenters
      of Measures", JMIV 51, 2015. POT returns the square root.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ddjax.ot.sliced import directions, sliced_wasserstein
      >>> x = jnp.array([[0.0, 0.0], [1.0, 2.0]])
      >>> theta = directions(jax.random.key(0), 10, 2)
      >>> print(f"{sliced_wasserstein(x, x + jnp.array([3.0, 4.0]), theta):.3f}")
      12.500
    """
    x, a = measure("x", x, a)
    y, b = measure("y", y, b)
    theta = jnp.asarray(theta, x.dtype)
    if theta.ndim != 2 or not x.shape[1] == y.shape[1] == theta.shape[1]:
        raise ValueError(
            "x [n, D], y [m, D] and theta [L, D] must agree in D; got shapes "
            f"{x.shape}, {y.shape} and {theta.shape}."
        )
    # Projections of a cloud far from the origin would lose its shape to rounding.
    centre = jax.lax.stop_gradient(a @ x)
    x, y = _matmul(theta, (x - centre).T), _matmul(theta, (y - centre).T)
    return jax.vmap(_transport, (0, 0, None, None))(x, y, a, b).mean()


def sliced_barycenter(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    a: jax.Array | None = None,
    start: jax.Array | None = None,
    projections: int = 512,
    iterations: int = 100,
    tolerance: float = 1e-7,
) -> Barycenter:
    """Equally weighted atoms nearest to one weighted cloud in sliced distance.

        min_y  SW_2^2( 1/m sum_j delta(y_j),  sum_i a_i delta(x_i) )

    For a direction theta_l, let q_lr be the mean of the r-th of m equal-mass quantile
    segments of theta_l.x: the best place for the r-th atom on that line. The q are
    computed once; then, with r_l(j) the rank of theta_l.y_j among the atoms,

        y_j <- y_j + D/L sum_l theta_l (q_l,r_l(j) - theta_l.y_j)

    The sliced cost never rises: with the ranks held it is an upper bound that touches
    (sorting is the best pairing on a line), quadratic with Hessian
    2/(L m) sum_l theta_l theta_l' = 2/(D m) I for whole bases, so that the step, a
    Newton step, lands on the minimum of the bound. A local minimum, as in
    `ot.barycenter`: noisier descents end up to 12% lower on the same directions, but
    no lower on fresh ones. No transport problem is solved before the final cost.

    In one dimension the sliced cost is the exact one, and one atom is the mean in both.
    Otherwise the minima differ: sliced atoms fill the cloud's spread in every
    direction, exact ones the centres of its parts. They agree on as many tight groups
    as atoms. In two dimensions the sliced atoms cost a few percent more in W_2^2 than
    those of `ot.barycenter`; 10 atoms for 500 points in 64 dimensions cost 1.6 times
    as much (Gaussian or rectified features), and more than 10 copies of the mean: they
    lie nearly as far out as the points, as atoms drawn from the data do.

    Pure; `jit` and `vmap` (over key, x, a) work. Takes O(L (n + m)) memory, L
    directions, before the final cost.

    Args:
      key: draws the directions, and the initial atoms among the points; consumed.
      x: [n, D], the points.
      size: m, number of atoms, the images per class.
      a: [n], masses, scaled to sum 1; zero for padding. Equal where None.
      start: [size, D], initial atoms, instead of points drawn by `key`.
      projections: how many directions, rounded up to whole bases (a multiple of D).
      iterations: most steps.
      tolerance: stops when the atoms' squared displacement, summed, is at most this
        share of the cloud's variance.

    Returns:
      Barycenter with points [size, D], weights [size] (equal), converged, and cost,
      the exact W_2^2 by `lp` (squared feature units), on the scale of
      `ot.barycenter`. The sliced cost is `sliced_wasserstein` for other directions.

    Raises:
      ValueError: more atoms than points, x not finite or not [n, D] with n masses, or
        masses that are negative or all zero.

    Reference: N. Bonneel et al., "Sliced and Radon Wasserstein Barycenters of
      Measures", JMIV 51, 2015, for the distance and its Newton step; H. Liu et al.,
      ICCV 2025, https://arxiv.org/abs/2311.18531, names a sliced variant of WMDD as
      the faster one. This is our reading of it: we could not compare with theirs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ddjax.ot.sliced import sliced_barycenter
      >>> x = jnp.array([[0.0], [0.5], [5.0], [5.5]])
      >>> atoms = sliced_barycenter(jax.random.key(0), x, 2)
      >>> [round(float(y), 2) for y in sorted(atoms.points[:, 0])]
      [0.25, 5.25]
    """
    x, a = measure("x", x, a)
    check_size(x, size)
    drawn, turned = jax.random.split(key)
    if start is None:
        start = sample(drawn, x, size, a)
    dimension = x.shape[1]
    bases = -(-projections // dimension)
    theta = directions(turned, bases * dimension, dimension).astype(x.dtype)
    centre = a @ x  # sums of centred points round less
    x = x - centre
    means = jax.vmap(_segment_means, (0, None, None))(_matmul(theta, x.T), a, size)
    spread = a @ jnp.sum(x * x, 1)
    tiny = jnp.finfo(x.dtype).tiny

    def improve(carry):
        count, y, _ = carry
        lines = _matmul(theta, y.T)
        ranks = jnp.argsort(jnp.argsort(lines, 1), 1)
        residual = jnp.take_along_axis(means, ranks, 1) - lines
        step = _matmul(residual.T, theta) / bases
        return count + 1, y + step, jnp.sum(step * step)

    def unfinished(carry):
        count, _, displacement = carry
        return (count < iterations) & (displacement > tolerance * spread + tiny)

    carry = (0, jnp.asarray(start, x.dtype) - centre, jnp.array(jnp.inf, x.dtype))
    _, y, displacement = jax.lax.while_loop(unfinished, improve, carry)
    weights = jnp.full(size, 1 / size, x.dtype)
    converged = displacement <= tolerance * spread + tiny
    cost = lp(squared_euclidean(x, y), a, weights).cost
    return Barycenter(y + centre, weights, cost, converged)


def _transport(x, y, a, b):
    (x, a), (y, b) = _sorted(x, a), _sorted(y, b)
    width, i, j = _coupling(a, b)
    return jnp.sum(width * (x[i] - y[j]) ** 2)


def _segment_means(x, a, size):
    """Mean of each of `size` equal-mass quantile segments of points of the line."""
    x, a = _sorted(x, a)
    width, i, j = _coupling(a, jnp.ones(size, x.dtype))
    sums = jax.ops.segment_sum(jnp.stack([width * x[i], width], 1), j, size)
    return sums[:, 0] / sums[:, 1]


def _sorted(x, a):
    order = jnp.argsort(jnp.where(a > 0, x, jnp.inf))  # points without mass go last
    return x[order], a[order]


def _coupling(a, b):
    """The monotone coupling of masses in sorted order: n + m pieces, some empty.

    Piece k carries `width[k]` from point i[k] to point j[k].
    """
    rows, columns = _levels(a), _levels(b)
    levels = jnp.sort(jnp.concatenate([rows, columns]))
    width = jnp.diff(levels, prepend=0)
    return width, jnp.searchsorted(rows, levels), jnp.searchsorted(columns, levels)


def _levels(a):
    """Cumulated masses, exactly 1 from the last point with mass on.

    Sums of a parallel scan may fall by a rounding, or end beside 1: neither may lead
    to a point without mass, or past the end.
    """
    sums = jax.lax.cummax(jnp.cumsum(a))
    last = jnp.sum(a > 0) - 1
    return jnp.where(jnp.arange(len(a)) < last, sums / sums[-1], 1)

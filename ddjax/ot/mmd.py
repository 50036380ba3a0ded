"""Maximum mean discrepancy between feature clouds: the ablation of transport."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ddjax.ot.atoms import check_size, measure, sample
from ddjax.ot.cost import squared_euclidean
from ddjax.ot.lp import lp
from ddjax.types import Barycenter

__all__ = [
    "energy",
    "gaussian",
    "linear",
    "median_bandwidth",
    "mmd_atoms",
    "mmd_squared",
]

Kernel = Callable[[jax.Array, jax.Array], jax.Array]  # [n, D], [m, D] -> [n, m]


def energy(x: jax.Array, y: jax.Array) -> jax.Array:
    """Kernel of the energy distance: k(x, y) = -||x - y||.

    Positive definite for masses of sum zero, all that an MMD needs; characteristic,
    and without a parameter. Distances that rounding may not tell from 0 (in float32
    below about 0.003 of the points' distance from their mean) are 0, with gradient 0.

    Args:
      x: [n, D].
      y: [m, D].

    Returns:
      [n, m], feature units.

    Reference: D. Sejdinovic et al., "Equivalence of Distance-Based and RKHS-Based
      Statistics in Hypothesis Testing", Annals of Statistics 41(5), 2013,
      https://arxiv.org/abs/1207.6076.
    """
    return -_distance(x, y)


def gaussian(bandwidth: jax.Array | float) -> Kernel:
    """The kernel k(x, y) = exp(-||x - y||^2 / (2 h^2)).

    Characteristic, but nearly flat between points farther apart than a few h, where
    its gradient vanishes.

    Args:
      bandwidth: h, feature units, positive; see `median_bandwidth`.

    Returns:
      Kernel `(x [n, D], y [m, D]) -> [n, m]`, in [0, 1].

    Raises:
      ValueError: the bandwidth is not positive.
    """
    if not isinstance(bandwidth, jax.core.Tracer) and not bandwidth > 0:
        raise ValueError(f"a Gaussian kernel needs a bandwidth > 0; got {bandwidth}.")

    def kernel(x, y):
        return jnp.exp(squared_euclidean(x, y) / (-2 * bandwidth**2))

    return kernel


def linear(x: jax.Array, y: jax.Array) -> jax.Array:
    """The kernel k(x, y) = x.y, whose MMD is the distance of the means.

    This is the objective of distribution matching (DM): it sees nothing but the mean.

    Args:
      x: [n, D].
      y: [m, D].

    Returns:
      [n, m], squared feature units.

    Reference: B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching",
      WACV 2023, https://arxiv.org/abs/2110.04181.
    """
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)


def median_bandwidth(x: jax.Array, a: jax.Array | None = None) -> jax.Array:
    """Weighted median of the distances between different points.

        h = min{ d :  sum_{i<j, d_ij <= d} a_i a_j  >=  1/2 sum_{i<j} a_i a_j }

    The usual bandwidth of the Gaussian kernel. Sorts n^2 values: for more than some
    5,000 points, give it a sample.

    Args:
      x: [n, D], at least two with mass.
      a: [n], masses, zero for padding. Equal where None.

    Returns:
      Scalar, feature units.

    Raises:
      ValueError: x is a single point, or not finite or not [n, D] with n masses, or
        the masses are negative or all zero.

    Reference: A. Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, section 8.
    """
    x, a = measure("x", x, a)
    if len(x) < 2:
        raise ValueError("a median distance needs at least two points; got one.")
    mass = jnp.ravel(a[:, None] * a * (1 - jnp.eye(len(x), dtype=x.dtype)))
    distance = jnp.where(mass > 0, jnp.ravel(_distance(x, x)), jnp.inf)
    order = jnp.argsort(distance)
    sums = jnp.cumsum(mass[order])
    return distance[order[jnp.searchsorted(sums, sums[-1] / 2)]]


def mmd_squared(
    x: jax.Array,
    y: jax.Array,
    a: jax.Array | None = None,
    b: jax.Array | None = None,
    *,
    kernel: Kernel,
) -> jax.Array:
    """Squared maximum mean discrepancy of two weighted clouds, the biased estimate.

        MMD^2 = a' K(x, x) a  -  2 a' K(x, y) b  +  b' K(y, y) b

    Takes O(n^2 + n m + m^2) memory. Pure; `jit` and `vmap` work. Differentiable in x
    and y; the masses are constants.

    Args:
      x: [n, D].
      y: [m, D].
      a: [n], masses of x, scaled to sum 1; zero for padding. Equal where None.
      b: [m], masses of y, likewise.
      kernel: `energy`, `linear`, `gaussian(h)` or any `(x, y) -> [n, m]`.

    Returns:
      Scalar, in units of the kernel. Where the clouds agree, the three terms cancel up
      to their rounding, and the result may fall below 0 by as much.

    Raises:
      ValueError: x or y is not finite or not [n, D] with n masses, the masses are
        negative or all zero, or x and y differ in D.

    Reference: A. Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012, equation 5.

    Example:
      >>> import jax.numpy as jnp
      >>> from ddjax.ot.mmd import energy, mmd_squared
      >>> x, y = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
      >>> float(mmd_squared(x, y, kernel=energy))
      10.0
    """
    x, a = measure("x", x, a)
    y, b = measure("y", y, b)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x [n, D] and y [m, D] must agree in D; got {x.shape} and {y.shape}."
        )
    within = _mean(kernel(x, x), a, a) + _mean(kernel(y, y), b, b)
    return within - 2 * _mean(kernel(x, y), a, b)


def mmd_atoms(
    key: jax.Array,
    x: jax.Array,
    size: int,
    *,
    a: jax.Array | None = None,
    start: jax.Array | None = None,
    kernel: Kernel = energy,
    iterations: int = 200,
    tolerance: float = 5e-3,
) -> Barycenter:
    """Equally weighted atoms of smallest MMD to one weighted cloud.

        min_y  MMD^2( 1/m sum_j delta(y_j),  sum_i a_i delta(x_i) )

    The ablation of `ot.barycenter`: the same product, another discrepancy. With the
    energy kernel the atoms are the support points of Mak and Joseph; with the linear
    one only their mean is determined, and is that of the cloud. Found by L-BFGS with a
    zoom line search, in units of the cloud's standard deviation and of the first
    gradient, so that the scale of features and kernel does not matter. A local
    minimum, never above the start (as far as the kernel is exact). The energy kernel
    has a kink at each point, where atoms may come to rest without a small gradient: on
    fewer than some 10 points per atom, `converged` may stay False at a minimum.

    Pure; `jit` and `vmap` (over key, x, a) work. Takes O(n m) memory.

    Args:
      key: draws the initial atoms among the points; consumed.
      x: [n, D], the points.
      size: m, number of atoms, the images per class.
      a: [n], masses, scaled to sum 1; zero for padding. Equal where None.
      start: [size, D], initial atoms, instead of points drawn by `key`.
      kernel: `energy`, `linear`, `gaussian(h)` or any `(x, y) -> [n, m]`.
      iterations: most L-BFGS steps.
      tolerance: stops when the gradient's norm is at most this share of the start's.
        The value is then within a few percent of where it would end. A start that is
        a minimum already comes back, but with `converged` False.

    Returns:
      Barycenter with points [size, D], weights [size] (equal), converged, and cost,
      the exact W_2^2 by `lp` (squared feature units), on the scale of
      `ot.barycenter`; the MMD is `mmd_squared`.

    Raises:
      ValueError: more atoms than points, x not finite or not [n, D] with n masses, or
        masses that are negative or all zero.

    Reference: S. Mak and V. R. Joseph, "Support Points", Annals of Statistics 46(6A),
      2018, https://arxiv.org/abs/1609.01811; D. C. Liu and J. Nocedal, "On the Limited
      Memory BFGS Method", Mathematical Programming 45, 1989. H. Liu et al., ICCV 2025,
      https://arxiv.org/abs/2311.18531, ablate transport by "MMD"; their kernel is not
      known to us, so this is our reading.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ddjax.ot.mmd import linear, mmd_atoms
      >>> x = jnp.array([[0.0, 1.0], [2.0, 5.0]])
      >>> mean = mmd_atoms(jax.random.key(0), x, 1, kernel=linear).points[0]
      >>> [round(float(value), 3) for value in mean]
      [1.0, 3.0]
    """
    x, a = measure("x", x, a)
    check_size(x, size)
    if start is None:
        start = sample(key, x, size, a)
    start = jnp.asarray(start, x.dtype)
    weights = jnp.full(size, 1 / size, x.dtype)
    unit = jnp.sqrt(a @ jnp.sum((x - a @ x) ** 2, 1))

    def discrepancy(z):  # without the term of x alone, which is [n, n] and constant
        y = start + unit * z
        cross = _mean(kernel(x, y), a, weights)
        return _mean(kernel(y, y), weights, weights) - 2 * cross

    origin = jnp.zeros_like(start)
    slope = optax.tree.norm(jax.grad(discrepancy)(origin))
    slope = jnp.where(slope > 0, slope, 1.0)
    optimiser = optax.lbfgs()

    def objective(z):
        return discrepancy(z) / slope

    measured = optax.value_and_grad_from_state(objective)

    def improve(carry):
        count, z, state, _ = carry
        value, gradient = measured(z, state=state)
        step, state = optimiser.update(
            gradient, state, z, value=value, grad=gradient, value_fn=objective
        )
        steepness = optax.tree.norm(optax.tree.get(state, "grad"))
        return count + 1, z + step, state, steepness

    def unfinished(carry):
        count, _, _, steepness = carry
        return (count < iterations) & (steepness > tolerance)

    carry = (0, origin, optimiser.init(origin), jnp.array(jnp.inf, x.dtype))
    _, z, _, steepness = jax.lax.while_loop(unfinished, improve, carry)
    lower = objective(z) <= objective(origin)
    y = start + unit * jnp.where(lower, z, origin)
    cost = lp(squared_euclidean(x, y), a, weights).cost
    return Barycenter(y, weights, cost, lower & (steepness <= tolerance))


def _distance(x, y):
    centre = jax.lax.stop_gradient(x.mean(0))
    x, y = x - centre, y - centre
    squares = squared_euclidean(x, y)
    # A point's expanded square to itself is rounding (up to 9 eps of the squares were
    # met). Its root would not be small, and the root's slope at 0 is infinite.
    scale = jnp.sum(x * x, 1)[:, None] + jnp.sum(y * y, 1)
    apart = squares > 32 * jnp.finfo(x.dtype).eps * scale
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)


def _mean(k, a, b):
    """a' k b, not as a matrix product: those may round to ten bits on accelerators."""
    return jnp.sum(a[:, None] * b * k)

"""Spaces of constant curvature, of any sign, as one smooth family.

A point is its normal coordinates at the origin, v: the direction in which it lies, at
the distance |v|. `lift` gives the coordinates in which everything is algebra,

    X_s = sn(|v|) v / |v|,   X_c = (1 - cs(|v|)) / kappa,   <a, b> = a_s.b_s + kappa a_c b_c

which are those of the sphere and the hyperboloid, moved so that the origin is at 0 and
the limit kappa = 0 is Euclidean space.
"""

import jax
import jax.numpy as jnp

from ddjax.geometry import series

__all__ = [
    "clip",
    "distance",
    "distance_squared",
    "exp",
    "is_flat",
    "largest_radius",
    "log",
    "log_sums",
    "norm",
    "pairwise_squared",
]

HYPERBOLIC = 3.0  # largest sqrt|kappa| rho that float32 is good for
SPHERICAL = 0.45 * jnp.pi  # means are unique within half of the sphere


def norm(v: jax.Array) -> jax.Array:
    """The Euclidean norm of the last axis, with derivative 0 at 0."""
    return root(jnp.sum(v * v, -1))


def distance_squared(x: jax.Array, y: jax.Array, kappa: jax.Array) -> jax.Array:
    """Squared geodesic distance.

        h = (delta / 2)^2 sigma(delta / 2)^2 + (s - delta^2) / 4 sigma(r) sigma(r')
        d^2 = 4 h G(kappa h)

    with r = |x|, r' = |y|, delta = r - r', s = |x - y|^2, sigma(t) = sn(t) / t: the law
    of cosines, without the cancellation of cosh - 1 between near points.

    Args:
      x: [..., d], normal coordinates.
      y: [..., d].
      kappa: scalar, curvature of any sign; 0 is Euclidean space.

    Returns:
      [...], differentiable in all three, at coincident points and through kappa = 0 too.
      On a sphere it stops just below the antipode.
    """
    s = jnp.sum((x - y) ** 2, -1)
    if is_flat(kappa):
        return s
    return _from_half(_half(norm(x), norm(y), s, kappa), kappa)


def distance(x: jax.Array, y: jax.Array, kappa: jax.Array) -> jax.Array:
    """Geodesic distance; its derivative at coincident points is 0.

    Args:
      x: [..., d], normal coordinates.
      y: [..., d].
      kappa: scalar.

    Returns:
      [...].
    """
    return root(distance_squared(x, y, kappa))


def pairwise_squared(x: jax.Array, y: jax.Array, kappa: jax.Array) -> jax.Array:
    """Squared geodesic distances between all points of two clouds.

    By one matrix product: near points are rounded by the size of the cloud, unlike in
    `distance_squared`.

    Args:
      x: [n, d], normal coordinates.
      y: [m, d].
      kappa: scalar.

    Returns:
      [n, m].
    """
    if is_flat(kappa):
        return _squares(x, y)
    return _from_half(_pairwise_half(x, y, kappa), kappa)


def log(base: jax.Array, x: jax.Array, kappa: jax.Array) -> jax.Array:
    """The tangent vector at `base` that points to x, as long as x is far.

    It is carried to the origin along the geodesic, where coordinates are orthonormal:
    its Euclidean norm is the distance, inner products are those at `base`. For
    kappa = 0 it is x - base.

    Args:
      base: [..., d], normal coordinates.
      x: [..., d].
      kappa: scalar.

    Returns:
      [..., d].
    """
    if is_flat(kappa):
        return x - base
    p_s, p_c = lift(base, kappa)
    x_s, x_c = lift(x, kappa)
    s = jnp.sum((x - base) ** 2, -1)
    h = _half(norm(base), norm(x), s, kappa)
    ratio = series.sine(kappa * _from_half(h, kappa))[..., None]
    chord, p_c, x_c = 2 * h[..., None], p_c[..., None], x_c[..., None]
    u_s = (x_s - (1 - kappa * chord) * p_s) / ratio
    u_c = (x_c - p_c - chord + kappa * chord * p_c) / ratio
    return u_s + kappa * u_c / (2 - kappa * p_c) * p_s


def log_sums(
    base: jax.Array, x: jax.Array, plan: jax.Array, kappa: jax.Array
) -> jax.Array:
    """Weighted sums of the tangent vectors at each base that point to all of x.

        sum_i P_ij log_{b_j}(x_i)

    A logarithm is linear in the lifted coordinates of x, up to a number for each pair:
    two matrix products do it, and no [n, m, d] array.

    Args:
      base: [m, d], normal coordinates.
      x: [n, d].
      plan: [n, m], the weights P.
      kappa: scalar.

    Returns:
      [m, d]; see `log`.
    """

    def summed(weights, values):
        return jnp.matmul(weights.T, values, precision=jax.lax.Precision.HIGHEST)

    if is_flat(kappa):
        return summed(plan, x) - plan.sum(0)[:, None] * base
    p_s, p_c = lift(base, kappa)
    x_s, x_c = lift(x, kappa)
    h = _pairwise_half(x, base, kappa)
    plan = plan / series.sine(kappa * _from_half(h, kappa))
    mass, chord = plan.sum(0), jnp.sum(2 * h * plan, 0)
    u_s = summed(plan, x_s) - (mass - kappa * chord)[:, None] * p_s
    u_c = summed(plan, x_c) - mass * p_c - chord * (1 - kappa * p_c)
    return u_s + (kappa * u_c / (2 - kappa * p_c))[:, None] * p_s


def exp(base: jax.Array, u: jax.Array, kappa: jax.Array) -> jax.Array:
    """The point at the end of the geodesic from `base` along u; the inverse of `log`.

    Args:
      base: [..., d], normal coordinates.
      u: [..., d], a tangent vector at `base`, carried to the origin (see `log`).
      kappa: scalar.

    Returns:
      [..., d].
    """
    if is_flat(kappa):
        return base + u
    p_s, p_c = lift(base, kappa)
    along = jnp.sum(p_s * u, -1)
    square = jnp.sum(u * u, -1)
    ratio, rise = series.sine(kappa * square), _rise(square, kappa)
    turn = 1 - kappa * rise
    u_s = u - (kappa * along / (2 - kappa * p_c))[..., None] * p_s
    x_s = turn[..., None] * p_s + ratio[..., None] * u_s
    return lower(x_s, p_c * turn + rise + ratio * along, kappa)


def clip(v: jax.Array, radius: jax.Array) -> jax.Array:
    """Pulls points smoothly into a ball: |v| becomes radius tanh(|v| / radius).

    Args:
      v: [..., d], normal coordinates.
      radius: scalar; infinite for no clip.
    """
    return v * series.tanh_ratio(jnp.sum((v / radius) ** 2, -1))[..., None]


def largest_radius(
    kappa: jax.Array, hyperbolic: float = HYPERBOLIC, spherical: float = SPHERICAL
) -> jax.Array:
    """The distance from the origin within which coordinates are safe; a constant.

    Args:
      kappa: scalar.
      hyperbolic: radius in units of 1 / sqrt|kappa| where kappa < 0.
      spherical: the same where kappa > 0.

    Returns:
      Scalar, infinite for kappa = 0; no gradient flows through it, or a curvature would
      act as a scale of the features.
    """
    kappa = jax.lax.stop_gradient(jnp.asarray(kappa, jnp.result_type(kappa, 1.0)))
    size = jnp.where(kappa == 0, 1.0, jnp.abs(kappa))
    units = jnp.where(kappa < 0, hyperbolic, spherical)
    return jnp.where(kappa == 0, jnp.inf, units / jnp.sqrt(size))


# Parts ---------------------------------------------------------------------------------


def is_flat(kappa) -> bool:
    """Whether a curvature is the number 0, and not an array that may be 0.

    The formulas hold for both; only for the number are they left out of the program.
    """
    return isinstance(kappa, (int, float)) and kappa == 0


def root(square):
    """The root, with derivative 0 at 0."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def _rise(square, kappa):
    """(1 - cs(t)) / kappa of t^2."""
    return square / 2 * series.sine(kappa * square / 4) ** 2


def lift(v, kappa):
    """(X_s [..., d], X_c [...]) of normal coordinates."""
    square = jnp.sum(v * v, -1)
    return series.sine(kappa * square)[..., None] * v, _rise(square, kappa)


def lower(x_s, x_c, kappa):
    """Normal coordinates of (X_s, X_c): half of X_c is sn(|v| / 2)^2."""
    square = _from_half(jnp.maximum(x_c / 2, 0.0), kappa)
    return x_s / series.sine(kappa * square)[..., None]


def _half(r, q, s, kappa):
    """sn(d / 2)^2, for the radii of two points and the square of x - y."""
    delta = (r - q) ** 2
    radial = delta / 4 * series.sine(kappa * delta / 4) ** 2
    ratios = series.sine(kappa * r * r) * series.sine(kappa * q * q)
    return jnp.maximum(radial + (s - delta) / 4 * ratios, 0.0)


def _squares(x, y):
    """|x_i - y_j|^2 [n, m]."""
    centre = jax.lax.stop_gradient((x.mean(0) + y.mean(0)) / 2)
    a, b = x - centre, y - centre  # small numbers keep more digits
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    s = jnp.sum(a * a, 1)[:, None] + jnp.sum(b * b, 1) - 2 * product
    return jnp.maximum(s, 0.0)


def _pairwise_half(x, y, kappa):
    """sn(d / 2)^2 [n, m] of all points of two clouds."""
    return _half(norm(x)[:, None], norm(y), _squares(x, y), kappa)


def _from_half(h, kappa):
    """d^2 of sn(d / 2)^2."""
    return 4 * h * series.arcsine(kappa * h)

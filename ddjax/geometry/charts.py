"""Other coordinates: the ball, and the sphere or hyperboloid in one dimension more."""

import jax
import jax.numpy as jnp

from ddjax.geometry import series, space

__all__ = ["from_ball", "from_embedded", "to_ball", "to_embedded"]


def to_ball(v: jax.Array, kappa: jax.Array) -> jax.Array:
    """kappa-stereographic coordinates: the Poincare ball for kappa < 0.

        x = tan_kappa(|v| / 2) v / |v|

    As kappa goes to 0 they tend to v / 2: the metric of these coordinates is
    (2 / (1 + kappa |x|^2))^2 times the Euclidean one, *four* times it at the origin.
    (geoopt's `expmap0(u)` is as far as 2 |u| from the origin: give it v / 2.)

    Args:
      v: [..., d], normal coordinates.
      kappa: scalar.

    Returns:
      [..., d], of length below 1 / sqrt(-kappa) where kappa < 0.
    """
    quarter = kappa * jnp.sum(v * v, -1)[..., None] / 4
    return v * series.sine(quarter) / (2 * series.cosine(quarter))


def from_ball(x: jax.Array, kappa: jax.Array) -> jax.Array:
    """Normal coordinates of stereographic ones; the inverse of `to_ball`."""
    return 2 * series.arctangent(kappa * jnp.sum(x * x, -1))[..., None] * x


def to_embedded(v: jax.Array, kappa: jax.Array) -> jax.Array:
    """The hyperboloid (Lorentz model) or the sphere of radius 1 / sqrt|kappa|.

        (x_0, x_s) = (cs(|v|) / sqrt|kappa|, sn(|v|) v / |v|)

    with -x_0^2 + |x_s|^2 = 1 / kappa or x_0^2 + |x_s|^2 = 1 / kappa. geoopt's Lorentz
    model calls its squared radius -1 / kappa `k`.

    Args:
      v: [..., d], normal coordinates.
      kappa: scalar, not 0.

    Returns:
      [..., d + 1].
    """
    z = kappa * jnp.sum(v * v, -1)[..., None]
    first = series.cosine(z) / jnp.sqrt(jnp.abs(kappa))
    return jnp.concatenate([first, series.sine(z) * v], -1)


def from_embedded(x: jax.Array, kappa: jax.Array) -> jax.Array:
    """Normal coordinates of a point on the hyperboloid or sphere."""
    first, x_s = x[..., 0], x[..., 1:]
    root, length = jnp.sqrt(jnp.abs(kappa)), space.norm(x_s)
    flat = jnp.arcsinh(root * length)
    round_ = jnp.arctan2(root * length, root * first)
    angle = jnp.where(kappa < 0, flat, round_)
    there = length > 0
    ratio = jnp.where(there, angle / (root * jnp.where(there, length, 1.0)), 1.0)
    return ratio[..., None] * x_s

"""Products of spaces of constant curvature, with a weight on each factor.

A point is a tuple of normal coordinates, one array [..., d_m] for each factor; squared
distances add up, g = sum_m w_m g_m.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.geometry import means, space

__all__ = [
    "Product",
    "product_distance_squared",
    "product_exp",
    "product_log",
    "product_mean",
    "product_pairwise",
    "product_pairwise_squared",
]

Point = Sequence[jax.Array]


class Product(NamedTuple):
    """A product space. Both may be traced, and learned."""

    curvatures: jax.Array  # [k]
    weights: jax.Array  # [k], non-negative, of squared distances


def product_distance_squared(product: Product, x: Point, y: Point) -> jax.Array:
    """sum_m w_m d_m^2 of points with arrays [..., d_m]: [...]."""
    return _sum(product, x, y, space.distance_squared)


def product_pairwise_squared(product: Product, x: Point, y: Point) -> jax.Array:
    """sum_m w_m d_m^2 between all of x ([n, d_m] each) and y ([m, d_m]): [n, m]."""
    return _sum(product, x, y, space.pairwise_squared)


def product_pairwise(product: Product, x: Point, y: Point) -> jax.Array:
    """The l1 distance sum_m w_m d_m between all of x and y: [n, m].

    Unlike the root of the sum of squares it is of negative type: exp(-t d) is a
    kernel, and the energy distance a distance, on spheres and hyperbolic spaces too.
    """
    return _sum(
        product,
        x,
        y,
        lambda a, b, kappa: space.root(space.pairwise_squared(a, b, kappa)),
    )


def product_mean(
    product: Product, x: Point, weights: jax.Array | None = None, steps: int = 8
) -> tuple[jax.Array, ...]:
    """The Frechet mean of points [n, d_m]: [d_m] for each factor, see `frechet_mean`.

    It does not depend on the weights of the factors.
    """
    return tuple(
        means.frechet_mean(part, kappa, weights, steps)
        for kappa, part in zip(product.curvatures, x)
    )


def product_log(product: Product, base: Point, x: Point) -> jax.Array:
    """Tangent vectors [..., sum_m d_m] at a point, whose norms are distances.

    The factors beside each other, each times the root of its weight; see `space.log`.
    """
    return jnp.concatenate(
        [
            space.root(weight) * space.log(a, b, kappa)
            for kappa, weight, a, b in zip(*product, base, x)
        ],
        -1,
    )


def product_exp(product: Product, base: Point, u: jax.Array) -> tuple[jax.Array, ...]:
    """The inverse of `product_log`; weights above 0."""
    found, start = [], 0
    for kappa, weight, part in zip(*product, base):
        stop = start + part.shape[-1]
        found.append(space.exp(part, u[..., start:stop] / jnp.sqrt(weight), kappa))
        start = stop
    return tuple(found)


def _sum(product, x, y, of):
    return sum(weight * of(a, b, kappa) for kappa, weight, a, b in zip(*product, x, y))

"""Features in a product of Euclidean, hyperbolic and spherical space.

Our reading of GeoDM: the paper has a branch with a projection head for each geometry
and says no more of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import geometry, losses
from ddjax.geometry import Product

__all__ = ["SPACES", "Factors", "Points", "heads", "place", "stretch", "within"]

SPACES = ("euclidean", "hyperbolic", "spherical")
_SIGNS = {"hyperbolic": -1.0, "spherical": 1.0}


class Factors(NamedTuple):
    """Which factors there are, and how large; numbers only."""

    names: tuple[str, ...]  # of SPACES
    dims: tuple[int, ...]  # of the curved ones, in their order
    scale: float = 1.0  # typical distance of a point from the origin, curved factors
    hyperbolic: float = 3.0  # largest sqrt|kappa| rho, see geometry.largest_radius
    spherical: float = geometry.space.SPHERICAL

    @property
    def curved(self) -> tuple[str, ...]:
        """Those with a head and a curvature."""
        return tuple(name for name in self.names if name != "euclidean")

    def curvatures(self, sizes: Sequence) -> tuple:
        """The curvature of each factor, the number 0 for a flat one.

        Args:
          sizes: [c], |curvature| of the curved ones.
        """
        sizes = iter(sizes)
        return tuple(
            0.0 if name == "euclidean" else _SIGNS[name] * next(sizes)
            for name in self.names
        )


class Points(NamedTuple):
    """Features of some classes as points of a product; see `ddjax.geometry`."""

    parts: tuple[jax.Array, ...]  # [q, n, d_m] for each factor
    norms: tuple[jax.Array, ...]  # [q, n], of the curved ones before they are clipped


def heads(key: jax.Array, factors: Factors, width: int) -> tuple[jax.Array, ...]:
    """A random projection [D, d] for each curved factor, which keeps lengths.

    Args:
      key: consumed.
      factors: see `Factors`.
      width: D of the features.
    """
    keys = jax.random.split(key, max(len(factors.dims), 1))
    return tuple(
        jax.random.normal(k, (width, d)) / jnp.sqrt(jnp.float32(d))
        for k, d in zip(keys, factors.dims)
    )


def place(
    factors: Factors,
    projections: Sequence[jax.Array],
    curvatures: jax.Array,
    features: jax.Array,
    real: jax.Array,
    weights: jax.Array,
) -> Points:
    """Features as points: as they are in the Euclidean factor, projected in others.

    What is projected is centred and scaled by the real features of all classes, so that
    points lie around the origin at a distance of about `scale`: raw features are an
    order of magnitude too long for a hyperbolic space, and point one way.

    Args:
      factors: see `Factors`.
      projections: see `heads`.
      curvatures: [k] of all factors.
      features: [q, m, D], to be placed.
      real: [q, n, D], of the batch; constants.
      weights: [q, n].
    """
    centre = jnp.einsum("qn,qnd->d", weights, real) / len(real)
    square = jnp.einsum("qn,qnd->", weights, (real - centre) ** 2) / len(real)
    inner = (features - centre) * (factors.scale * jax.lax.rsqrt(square + 1e-12))
    return within(factors, projections, curvatures, features, inner)


def within(
    factors: Factors,
    projections: Sequence[jax.Array],
    curvatures: Sequence,
    features: jax.Array,
    inner: jax.Array,
) -> Points:
    """Points of each factor: features as they are, or projected and clipped.

    Args:
      factors: see `Factors`.
      projections: see `heads`.
      curvatures: [k] of all factors.
      features: [..., D], for the Euclidean factor.
      inner: [..., D], the same centred and scaled, for the others.
    """
    projections, parts, norms = iter(projections), [], []
    for name, kappa in zip(factors.names, curvatures):
        if name == "euclidean":
            parts.append(features)
            continue
        v = inner @ next(projections)
        radius = geometry.largest_radius(kappa, factors.hyperbolic, factors.spherical)
        norms.append(geometry.norm(v))
        parts.append(geometry.clip(v, radius))
    return Points(tuple(parts), tuple(norms))


def stretch(
    product: Product,
    real: Sequence[jax.Array],
    means: Sequence[jax.Array],
    features: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """By how much each factor's squared distances must grow to be as wide as features.

    So stretched, they are in the units of squared features, in which learning rates of
    DM are, and no factor counts for more because its numbers are larger. A factor
    cannot shrink what it costs by shrinking distances either.

    Args:
      product: the space.
      real: [q, n, d_m] for each factor.
      means: [q, d_m] of their classes, see `losses.class_means`.
      features: [q, n, D], the same images.
      weights: [q, n].

    Returns:
      [k], by the spread around the means of the classes.
    """
    centre = jnp.einsum("qn,qnd->qd", weights, features)
    wide = losses.spread(features, weights, 0.0, centre)
    return jnp.stack(
        [
            wide / jnp.maximum(losses.spread(x, weights, kappa, mean), 1e-12)
            for x, mean, kappa in zip(real, means, product.curvatures)
        ]
    )

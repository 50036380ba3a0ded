"""Real and synthetic features compared in a product of geometries."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import geometry, losses
from ddjax.geometry import Product
from ddjax.matching.learned import Geometry, product_of
from ddjax.matching.product import Factors, Points, place, stretch

__all__ = ["UNITS", "Comparison", "compare"]

UNITS = ("spread", "absolute")
_EDGE = 0.95  # of the radius: points beyond count as clipped


class Comparison(NamedTuple):
    """What is compared, and how; numbers and words only."""

    factors: Factors
    fixed: tuple[float, ...] | None  # weights of the factors; None where learned
    unit: str = "spread"
    match: str = "tangent"
    frequencies: int = 1024
    ot_weight: float = 1.0
    ot_epsilon: float = 0.05
    radius_weight: float = 0.1

    def check(self) -> None:
        """ValueError for words that are not known, or numbers that cannot be."""
        known = {"unit": UNITS, "match": losses.MATCHES}
        for field, words in known.items():
            if getattr(self, field) not in words:
                raise ValueError(
                    f"unknown {field} {getattr(self, field)!r}; known: "
                    f"{', '.join(words)}."
                )
        if min(self.ot_weight, self.radius_weight) < 0 or self.ot_epsilon <= 0:
            raise ValueError(
                f"ot_weight {self.ot_weight} and radius_weight {self.radius_weight} "
                f"must not be negative, and ot_epsilon {self.ot_epsilon} above 0."
            )


def compare(
    options: Comparison,
    key: jax.Array,
    heads,
    found: Geometry,
    pair: tuple[jax.Array, jax.Array],
    weights: jax.Array,
) -> tuple[dict, dict]:
    """The weighted terms of the loss on features, and what is watched.

    Args:
      options: see `Comparison`.
      key: draws the frequencies of "characteristic"; consumed.
      heads: projections of the curved factors, where the geometry has none.
      found: the geometry.
      pair: real [q, n, D] and synthetic [q, m, D] features.
      weights: [q, n] of the real ones.

    Returns:
      ({"matching", "transport", "radius"}, what is watched): without what has no
      weight, or no curved factor.
    """
    factors, (real, synthetic) = options.factors, pair
    product, heads = product_of(factors, found, options.fixed), found.heads or heads
    theirs = place(factors, heads, product.curvatures, real, real, weights)
    ours = place(factors, heads, product.curvatures, synthetic, real, weights)
    means = [
        losses.class_means(x, weights, kappa)
        for x, kappa in zip(theirs.parts, product.curvatures)
    ]
    if options.unit == "spread" and factors.curved:
        factor = stretch(product, theirs.parts, means, real, weights)
        product = _stretched(options.match, product, factor)
    drawn = None
    if options.match == "characteristic":
        wide = sum(x.shape[-1] for x in ours.parts)
        drawn = jax.random.normal(key, (options.frequencies, wide))
    clouds = product, theirs.parts, ours.parts, weights
    matched = losses.product_matching(
        options.match, *clouds, means=means, frequencies=drawn
    )
    terms = {"matching": matched}
    if options.ot_weight:
        moved = losses.product_transport(*clouds, epsilon=options.ot_epsilon)
        terms["transport"] = options.ot_weight * moved
    if factors.curved and options.radius_weight:
        radii = _radii(factors, product)
        beyond = losses.curvature_penalty((*ours.norms, *theirs.norms), radii * 2)
        terms["radius"] = options.radius_weight * beyond
    return terms, jax.lax.stop_gradient(_watched(options, product, found, ours))


def _stretched(match, product, factor) -> Product:
    """The product in units of squared features; of distances for "energy"."""
    if match == "characteristic":  # of vectors of length 1
        return product
    factor = jnp.sqrt(factor) if match == "energy" else factor
    return product._replace(weights=jnp.stack(product.weights) * factor)


def _radii(factors, product) -> list:
    """Of the curved factors, see `geometry.largest_radius`."""
    return [
        geometry.largest_radius(kappa, factors.hyperbolic, factors.spherical)
        for name, kappa in zip(factors.names, product.curvatures)
        if name != "euclidean"
    ]


def _watched(options, product, found, ours: Points) -> dict:
    """Curvatures, the share of clipped points, and learned weights."""
    factors, told = options.factors, {}
    sizes = jnp.exp(found.log_sizes)
    radii = _radii(factors, product)
    for name, size, norms, radius in zip(factors.curved, sizes, ours.norms, radii):
        told[f"{name}/curvature"] = size
        # tanh(1.83) = 0.95: where a clipped point is that near to the radius.
        told[f"{name}/clipped"] = jnp.mean(jnp.tanh(norms / radius) > _EDGE)
    if options.fixed is None:
        for name, weight in zip(factors.names, jax.nn.softmax(found.logits)):
            told[f"weights/{name}"] = weight
    return told

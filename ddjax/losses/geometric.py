"""Matching of real and synthetic features in spaces of constant curvature.

All take real points [q, n, d] with weights [q, n] (sum 1 over n, 0 for padding) and
synthetic ones [q, m, d], class by class, in normal coordinates (see `ddjax.geometry`),
and sum over the classes. For curvature 0 they are what is known of Euclidean features.
The GeoDM paper does not say how it matches in its product space: these are readings.

Reference: GeoDM, https://arxiv.org/abs/2512.08317.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ddjax import geometry, ot
from ddjax.geometry import Product
from ddjax.losses.characteristic import characteristic_matching
from ddjax.losses.means import mean_matching

__all__ = [
    "MATCHES",
    "centroid_matching",
    "class_means",
    "covariance_matching",
    "curvature_penalty",
    "energy_matching",
    "product_matching",
    "product_transport",
    "spread",
    "tangent_matching",
]

MATCHES = ("tangent", "centroid", "covariance", "energy", "characteristic")

_COVARIANCE = 50.0  # DSDM's
_STEPS = 5  # of a Frechet mean: what is left of them cancels out in `tangent_matching`


def class_means(real: jax.Array, weights: jax.Array, kappa: jax.Array) -> jax.Array:
    """The Frechet mean of the real points of each class: [q, d]."""

    def mean(x, a):
        return geometry.frechet_mean(x, kappa, a, steps=_STEPS)

    return jax.vmap(mean)(real, weights)


def tangent_matching(
    real: jax.Array,
    synthetic: jax.Array,
    weights: jax.Array,
    kappa: jax.Array,
    means: jax.Array | None = None,
) -> jax.Array:
    """sum_k | mean_j log_mu(s_kj) - sum_i w_ki log_mu(x_ki) |^2 at the real mean mu.

    For kappa = 0 it is DM's loss. It vanishes where the real mean is a Frechet mean of
    the synthetic points too. The second sum would be 0 at the exact mean.

    Args:
      real: [q, n, d].
      synthetic: [q, m, d].
      weights: [q, n].
      kappa: scalar.
      means: [q, d], see `class_means`; made where None.

    Returns:
      Scalar, squared distance.
    """
    ours, theirs = _logs(real, synthetic, weights, kappa, means)
    centre = jnp.einsum("qn,qnd->qd", weights, theirs)
    return jnp.sum((ours.mean(1) - centre) ** 2)


def covariance_matching(
    real: jax.Array,
    synthetic: jax.Array,
    weights: jax.Array,
    kappa: jax.Array,
    means: jax.Array | None = None,
) -> jax.Array:
    """sum_k | Cov(x_k) - Cov(s_k) |_F^2 / d of tangent vectors at the real mean.

    The second moments of DSDM, without the first: H. Li et al., "Diversified Semantic
    Distribution Matching for Dataset Distillation", MM 2024, which weighs them with 50.
    Unbiased; 0 where a class has one synthetic image.
    """
    if synthetic.shape[1] == 1:
        return jnp.zeros((), synthetic.dtype)
    ours, theirs = _logs(real, synthetic, weights, kappa, means)
    uniform = jnp.full(synthetic.shape[:2], 1 / synthetic.shape[1], synthetic.dtype)
    apart = _covariance(theirs, weights) - _covariance(ours, uniform)
    return jnp.sum(apart**2) / real.shape[-1]


def centroid_matching(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array, kappa: jax.Array
) -> jax.Array:
    """sum_k d(centroid(x_k), centroid(s_k))^2.

    HDD (Hyperbolic Dataset Distillation, NeurIPS 2025) has 20 d, whose slope does not
    fade where the centroids meet.
    """
    theirs = jax.vmap(geometry.centroid, (0, None, 0))(real, kappa, weights)
    ours = jax.vmap(geometry.centroid, (0, None))(synthetic, kappa)
    return jnp.sum(geometry.distance_squared(ours, theirs, kappa))


def energy_matching(
    product: Product,
    real: Sequence[jax.Array],
    synthetic: Sequence[jax.Array],
    weights: jax.Array,
) -> jax.Array:
    """sum_k 2 E d(x, s) - E d(x, x') - E d(s, s') with d = sum_m w_m d_m.

    A distance between distributions, for each d_m is of negative type; a Gaussian of
    geodesic distances is no kernel on curved spaces.

    Args:
      product: the space; its weights are those of the distances here.
      real: [q, n, d_m] for each factor.
      synthetic: [q, m, d_m].
      weights: [q, n].
    """

    def of_class(x, s, a):
        between = geometry.product_pairwise(product, x, s)
        within = geometry.product_pairwise(product, x, x)
        own = geometry.product_pairwise(product, s, s)
        return 2 * (a @ between).mean() - a @ within @ a - own.mean()

    return jnp.sum(jax.vmap(of_class)(tuple(real), tuple(synthetic), weights))


def product_matching(
    kind: str,
    product: Product,
    real: Sequence[jax.Array],
    synthetic: Sequence[jax.Array],
    weights: jax.Array,
    *,
    means: Sequence | None = None,
    frequencies: jax.Array | None = None,
) -> jax.Array:
    """One of `MATCHES` in a product space.

    The first three add up over the factors, each times its weight. A factor whose
    curvature is the number 0 is compared by its means, which is the same at less cost.

    Args:
      kind: "tangent", "centroid", "covariance" (tangent + 50 times the covariances'
        distance, as DSDM), "energy", or "characteristic" (NCFM's loss on tangent
        vectors at the real mean, times the roots of the weights; a flat factor's
        features have length 1, as NCFM's).
      product: the space; its curvatures may be a sequence of scalars.
      real: [q, n, d_m] for each factor.
      synthetic: [q, m, d_m].
      weights: [q, n].
      means: [q, d_m] for each factor, see `class_means`; made where None.
      frequencies: [F, sum d_m], of "characteristic".

    Raises:
      ValueError: unknown kind.
    """
    means = [None] * len(real) if means is None else means
    if kind == "energy":
        return energy_matching(product, real, synthetic, weights)
    if kind == "characteristic":
        pair = _characteristic(product, real, synthetic, weights, means)
        return characteristic_matching(*pair, weights, frequencies)
    if kind not in MATCHES:
        raise ValueError(f"unknown match {kind!r}; known: {', '.join(MATCHES)}.")
    total = 0.0
    for kappa, weight, *clouds, mean in zip(*product, real, synthetic, means):
        if geometry.is_flat(kappa):
            value = mean_matching(*clouds, weights)
        elif kind == "centroid":
            value = centroid_matching(*clouds, weights, kappa)
        else:
            value = tangent_matching(*clouds, weights, kappa, mean)
        if kind == "covariance":
            value += _COVARIANCE * covariance_matching(*clouds, weights, kappa, mean)
        total += weight * value
    return total


def _characteristic(product, real, synthetic, weights, means):
    """Both clouds as vectors [q, ., sum d_m]: the real one, the synthetic one."""
    ours, theirs = [], []
    for kappa, weight, x, s, mean in zip(*product, real, synthetic, means):
        if geometry.is_flat(kappa):
            s, x = (f / jnp.maximum(geometry.norm(f), 1e-12)[..., None] for f in (s, x))
        else:
            s, x = _logs(x, s, weights, kappa, mean)
        ours.append(jnp.sqrt(weight) * s)
        theirs.append(jnp.sqrt(weight) * x)
    return jnp.concatenate(theirs, -1), jnp.concatenate(ours, -1)


def product_transport(
    product: Product,
    real: Sequence[jax.Array],
    synthetic: Sequence[jax.Array],
    weights: jax.Array,
    *,
    epsilon: float = 0.05,
) -> jax.Array:
    """The debiased entropic transport of each class in the product space, summed.

        sum_k OT(x, s) - OT(x, x) / 2 - OT(s, s) / 2,   C = sum_m w_m d_m^2

    Mass stays within its class, and one plan couples all factors. With one synthetic
    point a class it is the mean cost, up to what does not depend on the point.

    Args:
      product: the space.
      real: [q, n, d_m] for each factor.
      synthetic: [q, m, d_m].
      weights: [q, n].
      epsilon: in units of the mean cost of the real points of all classes.

    Returns:
      Scalar, units of the cost. Differentiable once in points, curvatures, weights.

    Reference: J. Feydy et al., AISTATS 2019, https://arxiv.org/abs/1810.08278.
    """

    def cost(x, y):
        return jax.vmap(lambda a, b: geometry.product_pairwise_squared(product, a, b))(
            tuple(x), tuple(y)
        )

    within = cost(real, real)
    unit = jnp.einsum("qn,qnm,qm->q", weights, within, weights).mean()
    strength = jax.lax.stop_gradient(epsilon * jnp.maximum(unit, 1e-12))
    uniform = jnp.full(synthetic[0].shape[:2], 1 / synthetic[0].shape[1])

    def total(costs, a, b):
        found = jax.vmap(lambda c, a, b: ot.sinkhorn(c, a, b, epsilon=strength))
        return found(costs, a, b).objective.sum()

    between = total(cost(real, synthetic), weights, uniform)
    own = total(cost(synthetic, synthetic), uniform, uniform)
    return between - (total(within, weights, weights) + own) / 2


def spread(
    real: jax.Array,
    weights: jax.Array,
    kappa: jax.Array,
    means: jax.Array | None = None,
) -> jax.Array:
    """The mean squared distance of real points from the mean of their class.

    Returns:
      Scalar, the mean over the classes.
    """
    means = class_means(real, weights, kappa) if means is None else means
    squares = geometry.distance_squared(real, means[:, None], kappa)
    return jnp.sum(weights * squares) / len(real)


def curvature_penalty(norms: Sequence[jax.Array], radii: Sequence) -> jax.Array:
    """How far points reach beyond the radius of their factor, before they are clipped.

        mean_m mean_i relu(|u_mi| / R_m - 1)^2

    Our reading of what GeoDM's equation 3 is for: in normal coordinates points are on
    their manifold by construction.

    Args:
      norms: arrays of |u| for each curved factor.
      radii: R_m, see `geometry.largest_radius`.
    """
    beyond = [jnp.mean(jax.nn.relu(u / r - 1) ** 2) for u, r in zip(norms, radii)]
    return sum(beyond) / len(beyond)


def _logs(real, synthetic, weights, kappa, means=None):
    """Tangent vectors at the real means: of the synthetic points, and the real ones."""
    means = class_means(real, weights, kappa) if means is None else means
    base = means[:, None]
    return geometry.log(base, synthetic, kappa), geometry.log(base, real, kappa)


def _covariance(x, weights):
    """[q, d, d], unbiased."""
    centred = x - jnp.einsum("qn,qnd->qd", weights, x)[:, None]
    free = 1 - jnp.sum(weights**2, 1)  # (n - 1) / n for equal weights
    found = jnp.einsum("qn,qnd,qne->qde", weights, centred, centred)
    return found / free[:, None, None]

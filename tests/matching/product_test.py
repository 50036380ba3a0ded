"""Features as points of a product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import geometry, losses
from ddjax.matching import product
from ddjax.matching.product import Factors

FACTORS = Factors(("euclidean", "hyperbolic", "spherical"), (5, 4))
CURVATURES = (0.0, -1.0, 1.0)


@pytest.fixture(scope="module")
def features():
    """Long, and all in one direction, as a network's are."""
    rng = np.random.default_rng(0)
    return jnp.array(rng.normal(2.0, 1.0, (3, 8, 30)), jnp.float32)


@pytest.fixture(scope="module")
def weights():
    there = np.ones((3, 8), np.float32)
    there[1, 6:] = 0
    return jnp.array(there / there.sum(1, keepdims=True))


def placed(features, weights, factors=FACTORS, seed=0):
    drawn = product.heads(jax.random.key(seed), factors, features.shape[-1])
    return product.place(factors, drawn, CURVATURES, features, features, weights)


def test_the_euclidean_factor_has_the_features_themselves(features, weights):
    np.testing.assert_array_equal(placed(features, weights).parts[0], features)


def test_points_lie_around_the_origin(features, weights):
    """At a distance of about `scale`, which many draws of the heads agree on."""
    norms = [placed(features, weights, seed=seed).norms for seed in range(30)]
    mass = weights / len(weights)
    for of_factor in zip(*norms):
        typical = np.mean([jnp.sum(mass * n**2) for n in of_factor])
        assert typical == pytest.approx(1.0, rel=0.2)


def test_padding_places_nothing(features, weights):
    far = features.at[1, 6:].add(100.0)
    for a, b in zip(placed(features, weights).parts, placed(far, weights).parts):
        np.testing.assert_allclose(a[1, :6], b[1, :6], rtol=1e-5, atol=1e-6)


def test_units_of_features_do_not_matter(features, weights):
    got = placed(1e4 * features, weights).parts[1:]
    for a, b in zip(got, placed(features, weights).parts[1:]):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_points_are_clipped_within_their_radius(features, weights):
    wide = FACTORS._replace(scale=50.0)
    points = placed(features, weights, wide)
    for kappa, part in zip(CURVATURES[1:], points.parts[1:]):
        radius = geometry.largest_radius(kappa)
        assert float(geometry.norm(part).max()) <= float(radius) * (1 + 1e-6)
    assert float(points.norms[0].max()) > 50  # before


def test_stretch_makes_all_factors_as_wide_as_the_features(features, weights):
    points = placed(features, weights)
    space = geometry.Product(CURVATURES, (1.0, 1.0, 1.0))
    means = [
        losses.class_means(x, weights, kappa)
        for x, kappa in zip(points.parts, CURVATURES)
    ]
    factor = product.stretch(space, points.parts, means, features, weights)
    assert float(factor[0]) == pytest.approx(1.0, rel=1e-5)
    wide = float(losses.spread(features, weights, 0.0))
    for times, kappa, x, mean in zip(factor, CURVATURES, points.parts, means):
        there = np.asarray(geometry.distance_squared(x, mean[:, None], kappa))
        spread = np.mean([there[0].mean(), there[1, :6].mean(), there[2].mean()])
        assert float(times) * spread == pytest.approx(wide, rel=1e-4)

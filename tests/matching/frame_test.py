"""Features as points of a fixed product space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import geometry
from ddjax.matching import frame

FEATURES = 5 + 3 * np.random.default_rng(0).normal(size=(1500, 6)).astype(np.float32)
SPACE = frame.space_of((0.5, 0.2, 0.3), dims=(4, 3), scale=0.8)
FLAT = frame.space_of((1.0, 0.0, 0.0))


def _parts(points):
    return points[..., :6], points[..., 6:10], points[..., 10:]


def test_a_space_has_the_factors_that_weigh_something():
    assert SPACE.product == geometry.Product((0.0, -1.0, 1.0), (0.5, 0.2, 0.3))
    assert (SPACE.dims, SPACE.width(6)) == ((-1, 4, 3), 13)
    round_ = frame.space_of((0, 0, 1), curvatures=(1.0, 0.5), dims=(4, 3))
    assert round_.product == geometry.Product((0.5,), (1.0,)) and round_.dims == (3,)
    assert hash(SPACE) == hash(frame.space_of((0.5, 0.2, 0.3), (1, 1), (4, 3), 0.8))


def test_flat_features_stay_as_they_are():
    found, points = frame.place_all(FLAT, FEATURES)
    assert float(found.unit) == 1 and found.heads == ()
    np.testing.assert_array_equal(points, FEATURES)
    difference = frame.tangents(FLAT, found, FEATURES[:9], FEATURES[9:18])
    np.testing.assert_array_equal(difference, FEATURES[:9] - FEATURES[9:18])
    assert frame.place_all(None, FEATURES) == ((), FEATURES)


def test_points_lie_around_the_origin_at_the_scale():
    found, points = frame.place_all(SPACE, FEATURES)
    flat, open_, round_ = _parts(points)
    np.testing.assert_allclose(flat, FEATURES / found.unit, rtol=1e-6)
    away = np.sqrt(np.mean(np.sum((flat - flat.mean(0)) ** 2, 1)))
    assert away == pytest.approx(0.8, rel=1e-4)
    assert np.abs(open_.mean(0)).max() < 0.1
    assert np.linalg.norm(open_, axis=1).max() < 3
    assert np.linalg.norm(round_, axis=1).max() < 0.45 * np.pi


def test_the_size_of_features_does_not_matter():
    """Curved factors see neither where features are nor how large."""
    for other in (8 * FEATURES, FEATURES - 20):
        pair = (frame.place_all(SPACE, x)[1] for x in (FEATURES, other))
        np.testing.assert_allclose(*(x[:, 6:] for x in pair), atol=1e-4)


def test_costs_are_squared_distances_whatever_the_rows():
    _, points = frame.place_all(SPACE, FEATURES)
    found = frame.costs(SPACE)(points[:3], points)
    pair = (_parts(x) for x in (points[:3, None], points))
    wanted = geometry.product_distance_squared(SPACE.product, *pair)
    assert found.shape == (3, 1500)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert frame.costs(None) is None


def test_lengths_of_tangents_are_distances_in_units_of_features():
    """Eight times the features are eight times as far from their atoms."""
    lengths = {}
    for size in (1, 8):
        found, points = frame.place_all(SPACE, size * FEATURES)
        u = frame.tangents(SPACE, found, size * FEATURES[:3], points[3:6])
        wanted = np.diag(frame.costs(SPACE)(points[3:6], points[:3]))
        np.testing.assert_allclose(jnp.sum(u * u, 1) / found.unit**2, wanted, 1e-4)
        lengths[size] = np.linalg.norm(u, axis=1) / size
    np.testing.assert_allclose(lengths[8], lengths[1], rtol=1e-4)


def test_slopes_at_the_atoms_are_finite():
    found, points = frame.place_all(SPACE, FEATURES)

    def loss(x):
        return jnp.sum(frame.tangents(SPACE, found, x, points[:3]) ** 2)

    slope = jax.grad(loss)(FEATURES[:3])
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    assert np.isfinite(jax.grad(loss)(FEATURES[1:4])).all()


REFUSED = {
    "weights are .* three numbers": {"weights": (1.0,)},
    "weights are .* not negative": {"weights": (1.0, -1.0, 0.0)},
    "curvatures are .* two numbers from": {"curvatures": (0.0, 1.0)},
    "dims are .* two sizes": {"dims": (0, 4)},
    "and scale 0": {"scale": 0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(message):
    with pytest.raises(ValueError, match=message):
        frame.space_of(**REFUSED[message])

"""The whole comparison: its slopes, where it could be no number, and in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import losses
from ddjax.matching import product
from ddjax.matching.compare import Comparison, compare
from ddjax.matching.learned import Geometry
from ddjax.matching.product import Factors

WIDTH = 9
NEAR = Factors(("euclidean", "hyperbolic", "spherical"), (4, 3), 0.7)


def features(own=2, seed=0):
    """Real [2, 6, D], one of them padding, and synthetic ones that are others."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(2.0, 2.0, (2, 1, WIDTH))
    real, synthetic = (centres + rng.normal(size=(2, n, WIDTH)) for n in (6, own))
    there = np.ones((2, 6))
    there[1, 5] = 0
    return real, synthetic, there / there.sum(1, keepdims=True)


def start():
    drawn = product.heads(jax.random.key(0), NEAR, WIDTH)
    return Geometry(
        jnp.log(jnp.array([1.3, 0.6])), jnp.log(jnp.array([2.0, 3, 1])), drawn
    )


def program(options):
    """Terms and what is watched, and the slopes of the loss in images and geometry."""

    @jax.jit
    def run(real, own, weights, found):
        def loss(own, found):
            pair = real, own
            terms, watched = compare(
                options, jax.random.key(1), (), found, pair, weights
            )
            return sum(terms.values()), (terms, watched)

        slopes, told = jax.grad(loss, (0, 1), has_aux=True)(own, found)
        return *told, slopes

    return run


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def is_finite(tree):
    return all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def default():
    """As runs have it, with a geometry that is learned."""
    return program(Comparison(NEAR, None))


def test_float32_is_as_good(default):
    given = (*features(), start())
    terms, _, slopes = default(*cast(given, jnp.float32))
    with jax.enable_x64(True):
        wanted, _, exact = default(*cast(given, jnp.float64))
    for name, value in wanted.items():
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-4)
    for got, other in zip(*map(jax.tree.leaves, (slopes, exact))):
        apart = np.linalg.norm(np.asarray(got) - np.asarray(other))
        assert apart <= 1e-3 * np.linalg.norm(np.asarray(other)) + 1e-5


def test_slopes_are_numbers_where_points_coincide(default):
    real, own, weights, found = cast((*features(), start()), jnp.float32)
    nothing = jnp.zeros_like(real)
    for clouds in (
        (real, real[:, :2]),  # images that are real ones
        (real, jnp.tile(own[:, :1], (1, 2, 1))),  # twice the same
        (nothing, nothing[:, :2]),  # a network that sees nothing
        (nothing, own),  # in the real images
    ):
        terms, _, slopes = default(*clouds, weights, found)
        assert is_finite((terms, slopes))


def test_far_points_are_clipped_and_told(default):
    real, own, weights, found = cast((*features(), start()), jnp.float32)
    _, near, _ = default(real, own, weights, found)
    terms, far, slopes = default(real, 1e4 * own, weights, found)
    assert is_finite((terms, slopes))
    assert near["hyperbolic/clipped"] == 0
    assert far["hyperbolic/clipped"] == far["spherical/clipped"] == 1
    assert float(terms["radius"]) > 0


def test_what_is_watched(default):
    _, watched, _ = default(*cast((*features(), start()), jnp.float32))
    assert float(watched["hyperbolic/curvature"]) == pytest.approx(1.3)
    assert float(watched["spherical/curvature"]) == pytest.approx(0.6)
    shares = [float(watched[f"weights/{name}"]) for name in NEAR.names]
    np.testing.assert_allclose(shares, [1 / 3, 1 / 2, 1 / 6], rtol=1e-5)


def test_one_image_of_a_class_has_no_covariance():
    """And its transport pulls as matching does, in units of the spread."""
    flat = Factors(("euclidean",), ())
    found = Geometry(jnp.zeros(0), jnp.zeros(1), ())
    real, own, weights = cast(features(own=1), jnp.float32)
    options = Comparison(flat, (1.0,), match="covariance")
    terms, watched, slopes = program(options)(real, own, weights, found)
    wanted, slope = jax.value_and_grad(losses.mean_matching, 1)(real, own, weights)
    assert float(terms["matching"]) == pytest.approx(float(wanted), rel=1e-5)
    assert watched == {}
    np.testing.assert_allclose(slopes[0], 2 * slope, rtol=1e-3)


def test_words_and_numbers_are_checked():
    for options, message in (
        ({"unit": "metres"}, "unknown unit 'metres'; known: spread, absolute"),
        ({"match": "means"}, "unknown match 'means'; known: tangent, centroid"),
        ({"ot_epsilon": 0.0}, "ot_epsilon 0.0 above 0"),
        ({"ot_weight": -1.0}, "ot_weight -1.0 and radius_weight 0.1 must not be"),
    ):
        with pytest.raises(ValueError, match=message):
            Comparison(NEAR, None, **options).check()

"""Siamese augmentation against its operators in torch, and its distribution."""

import functools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddjax.data import dsa

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
NAMES = ("color", "crop", "cutout", "flip", "scale", "rotate")
EXACT = ("crop", "cutout", "flip")
NUM_DRAWS = 3000


@pytest.fixture(scope="module")
def golden():
    """What torch gives for parameters drawn there (make_augment_fixtures.py)."""
    with np.load(FIXTURES / "dsa.npz") as arrays:
        return dict(arrays)


def given(golden, case, name):
    """Parameters of the fixture, for one operator."""
    prefix = f"{case}_param_"
    params = {
        key.removeprefix(prefix): jnp.asarray(value)
        for key, value in golden.items()
        if key.startswith(prefix)
    }
    return dsa.Params(operator=jnp.int32(NAMES.index(name)), **params)


@functools.cache
def drawn(count=None, strategy=dsa.STRATEGY):
    """Parameters of 3,000 draws for 32x32 images, compiled once."""
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    sample = jax.jit(
        jax.vmap(lambda key: dsa.sample(key, 32, 32, strategy, count=count))
    )
    return jax.tree.map(np.asarray, sample(keys))


class TestApply:
    @pytest.mark.parametrize("name", NAMES)
    def test_equals_torch(self, golden, name):
        images = jnp.asarray(golden["small_images"], jnp.float32)
        got = jax.jit(dsa.apply)(given(golden, "small", name), images)
        tolerance = 0 if name in EXACT else 2e-5
        np.testing.assert_allclose(got, golden[f"small_{name}"], atol=tolerance)
        assert not np.allclose(got, images, atol=0.1)

    @pytest.mark.parametrize("name", ["scale", "rotate"])
    def test_equals_torch_at_32_pixels(self, golden, name):
        images = jnp.asarray(golden["large_images"], jnp.float32)
        got = jax.jit(dsa.apply)(given(golden, "large", name), images)
        np.testing.assert_allclose(got, golden[f"large_{name}"], atol=2e-5)

    @pytest.mark.parametrize("name", NAMES)
    def test_one_draw_is_the_same_for_every_image(self, golden, name):
        """As if each image had been given it, in batches of any length."""
        images = jnp.asarray(golden["small_images"], jnp.float32)
        params = given(golden, "small", name)
        one = jax.tree.map(lambda leaf: leaf[1:2] if leaf.ndim else leaf, params)
        each = jax.tree.map(
            lambda leaf: jnp.repeat(leaf, 4, axis=0) if leaf.ndim else leaf, one
        )
        apply = jax.jit(dsa.apply)
        wanted = apply(each, images)
        np.testing.assert_allclose(apply(one, images), wanted, atol=1e-6)
        np.testing.assert_allclose(apply(one, images[:3]), wanted[:3], atol=1e-6)

    @pytest.mark.parametrize("name", NAMES)
    def test_gradient(self, golden, name):
        """Linear in the images, so that one difference is exact."""
        params = given(golden, "small", name)
        images = jnp.asarray(golden["small_images"], jnp.float32)
        direction = jax.random.normal(jax.random.key(1), images.shape)
        weights = jax.random.normal(jax.random.key(2), images.shape)

        @jax.jit
        def value(images):
            return (weights * dsa.apply(params, images)).sum()

        got = (jax.grad(value)(images) * direction).sum()
        wanted = value(images + direction) - value(images)
        assert float(got) == pytest.approx(float(wanted), rel=1e-3, abs=1e-3)
        assert float(jnp.abs(got)) > 0.1

    def test_keeps_the_type_of_the_images(self, key):
        images = jnp.ones((2, 8, 8, 3), jnp.bfloat16)
        params = dsa.sample(key, 8, 8)
        assert jax.eval_shape(dsa.apply, params, images).dtype == jnp.bfloat16

    def test_one_program_for_all_draws(self, key):
        images = jnp.zeros((2, 8, 8, 3))

        @jax.jit
        @chex.assert_max_traces(n=1)
        def run(key):
            return dsa.apply(dsa.sample(key, 8, 8), images)

        for k in jax.random.split(key, 8):
            assert run(k).shape == images.shape


class TestSample:
    def test_operators_occur_equally_often(self):
        counts = np.bincount(drawn().operator, minlength=6)
        assert stats.chisquare(counts).pvalue > 1e-3

    def test_only_those_of_the_strategy_occur(self):
        """Named twice, twice as often: as the reference draws from its list."""
        counts = np.bincount(drawn(None, "rotate_crop_rotate").operator, minlength=6)
        assert counts[[0, 2, 3, 4]].sum() == 0
        assert stats.binomtest(int(counts[1]), NUM_DRAWS, 1 / 3).pvalue > 1e-3

    @pytest.mark.parametrize(
        ("field", "low", "high"),
        [
            ("brightness", -0.5, 0.5),
            ("saturation", 0.0, 2.0),
            ("contrast", 0.5, 1.5),
            ("angle", -np.pi / 12, np.pi / 12),
            ("scale", 1 / 1.2, 1.2),
        ],
    )
    def test_strengths_are_uniform(self, field, low, high):
        values = getattr(drawn(), field).reshape(NUM_DRAWS, -1)
        for column in values.T:
            test = stats.kstest(column, stats.uniform(low, high - low).cdf)
            assert test.pvalue > 1e-3
        if values.shape[1] == 2:
            assert abs(np.corrcoef(values.T)[0, 1]) < 0.1

    @pytest.mark.parametrize(
        ("field", "low", "high"), [("shift", -4, 4), ("centre", 0, 32)]
    )
    def test_places_are_uniform(self, field, low, high):
        for column in getattr(drawn(), field)[:, 0].T:
            counts = np.bincount(column - low, minlength=high - low + 1)
            assert len(counts) == high - low + 1
            assert stats.chisquare(counts).pvalue > 1e-3

    def test_odd_squares_have_their_centre_on_a_pixel(self):
        sample = jax.jit(jax.vmap(lambda key: dsa.sample(key, 10, 13).centre[0]))
        centres = sample(jax.random.split(jax.random.key(0), 1000))
        np.testing.assert_array_equal(centres.min(0), [0, 0])
        # Sides of 5 and 7.
        np.testing.assert_array_equal(centres.max(0), [9, 12])

    def test_half_of_the_images_are_mirrored(self):
        assert stats.binomtest(int(drawn().mirrored.sum()), NUM_DRAWS).pvalue > 1e-3

    @pytest.mark.parametrize(
        ("name", "smallest", "largest", "mean"),
        [("crop", 0, 240, 136), ("cutout", 64, 256, 191)],
    )
    def test_zeroed_area_is_the_reference_s(self, name, smallest, largest, mean):
        """Of 32x32 pixels, as counted for the reference's code."""
        ones = jnp.ones((1, 32, 32, 1))
        params = drawn()._replace(
            operator=np.full(NUM_DRAWS, NAMES.index(name), np.int32)
        )
        out = jax.jit(lambda params: jax.lax.map(lambda p: dsa.apply(p, ones), params))
        areas = np.asarray((out(params) == 0).sum((1, 2, 3, 4)))
        assert (areas.min(), areas.max()) == (smallest, largest)
        assert areas.mean() == pytest.approx(mean, rel=0.02)

    def test_siamese_draws_are_the_same_for_256_and_10_images(self):
        """The draw knows nothing of the batch; each image is seen alike in both."""
        key = jax.random.key(3)
        images = jax.random.normal(key, (256, 8, 8, 3))
        see = jax.jit(lambda key, x: dsa.apply(dsa.sample(key, 8, 8), x))
        seen = set()
        for k in jax.random.split(key, 30):
            params = dsa.sample(k, 8, 8)
            seen.add(int(params.operator))
            real, synthetic = see(k, images), see(k, images[:10])
            np.testing.assert_allclose(real[:10], synthetic, rtol=1e-6, atol=1e-6)
        assert seen == set(range(6))

    def test_a_draw_for_each_image(self):
        params = drawn(3)
        assert params.operator.shape == (NUM_DRAWS,)
        assert params.scale.shape == (NUM_DRAWS, 3, 2)
        assert params.centre.shape == (NUM_DRAWS, 3, 2)
        for field in dsa.Params._fields[1:]:
            values = getattr(params, field).reshape(NUM_DRAWS, 3, -1)[..., 0]
            assert abs(np.corrcoef(values[:, 0], values[:, 2])[0, 1]) < 0.1

    def test_strengths_do_not_tell_the_operator(self):
        params = drawn()
        for field in ("brightness", "saturation", "contrast", "angle"):
            values = getattr(params, field)[:, 0]
            assert abs(stats.spearmanr(params.operator, values).statistic) < 0.1


class TestParse:
    def test_names_are_places_in_their_order(self):
        assert tuple(dsa.OPERATORS) == NAMES
        assert dsa.parse("flip_color") == (3, 0)

    @pytest.mark.parametrize("strategy", ["color_blur", "", "none", "color__crop"])
    def test_unknown_operators_are_refused(self, key, strategy):
        with pytest.raises(ValueError, match="unknown DSA operator .*known: color, "):
            dsa.sample(key, 8, 8, strategy)

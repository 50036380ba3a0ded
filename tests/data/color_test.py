"""Colours against torchvision's own, and the distribution of the random ones."""

import itertools
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddjax.data import color

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def golden():
    """What torchvision gives (make_augment_fixtures.py)."""
    with np.load(FIXTURES / "augment.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def image(golden):
    return jnp.asarray(golden["color_image"] / np.float32(255))


class TestAdjust:
    @pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
    def test_equals_torchvision(self, golden, image, name):
        adjust = getattr(color, f"adjust_{name}")
        factors = golden["shifts" if name == "hue" else "factors"]
        assert len(factors) == 4
        for factor, wanted in zip(factors, golden[name]):
            got = adjust(image, np.float32(factor))
            np.testing.assert_allclose(got, wanted, atol=2e-6)

    @pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
    def test_a_factor_of_each_image(self, image, name):
        adjust = getattr(color, f"adjust_{name}")
        images, factors = jnp.stack([image, image[::-1]]), jnp.array([0.3, 0.45])
        wanted = [adjust(one, factor) for one, factor in zip(images, factors)]
        np.testing.assert_allclose(adjust(images, factors), np.stack(wanted), atol=1e-6)

    @pytest.mark.parametrize("name", ["saturation", "hue"])
    def test_grey_images_have_no_colour_to_change(self, image, name):
        grey = image[..., :1]
        np.testing.assert_array_equal(getattr(color, f"adjust_{name}")(grey, 0.2), grey)

    @pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
    def test_gradient_is_finite_at_greys_and_ties(self, image, name):
        adjust = getattr(color, f"adjust_{name}")
        gradient = jax.grad(lambda x: jnp.sum(adjust(x, 0.3) ** 2))(image)
        assert np.isfinite(gradient).all()

    def test_gradient(self, key):
        images = 0.2 + 0.6 * jax.random.uniform(key, (3, 4, 3))

        def both(images):
            return jnp.sin(color.adjust_hue(color.adjust_contrast(images, 0.5), 0.2))

        chex.assert_numerical_grads(
            jax.jit(lambda x: both(x).sum()), (images,), order=1, atol=1e-2, rtol=1e-2
        )


class TestColorJitter:
    def test_is_the_adjustments_in_every_order(self):
        """Clipping alone tells the orders apart, so a pixel in it and one near it."""
        image = jnp.array([[[0.9, 0.1, 0.3], [0.2, 0.8, 0.6]]])
        names = ("brightness", "contrast", "saturation")
        adjust = [getattr(color, f"adjust_{name}") for name in names]

        @jax.jit
        @jax.vmap
        def errors(key):
            """Of each order, with the factors that the jitter draws."""
            got = color.color_jitter(key, image[None], 0.8, 0.8, 0.8, shared=True)[0]
            low, high = jnp.array([[0.2, 0.2, 0.2, 0.0], [1.8, 1.8, 1.8, 0.0]])
            _, key_factors = jax.random.split(key)
            factors = jax.random.uniform(key_factors, 4, minval=low, maxval=high)
            results = []
            for order in itertools.permutations(range(3)):
                wanted = image
                for place in order:
                    wanted = adjust[place](wanted, factors[place])
                results.append(jnp.abs(got - wanted).max())
            return jnp.stack(results)

        errors = np.asarray(errors(jax.random.split(jax.random.key(0), 600)))
        assert errors.min(1).max() < 1e-5
        told_apart = (errors < 1e-5).sum(1) == 1
        counts = np.bincount(errors[told_apart].argmin(1), minlength=6)
        assert counts.min() > 10

    def test_factors_are_uniform(self):
        """Brightness alone, of a pixel that cannot be clipped."""
        images = jnp.full((2000, 1, 1, 1), 0.25)
        out = color.color_jitter(jax.random.key(0), images, 0.4, 0.0, 0.0)
        factors = np.asarray(out).ravel() / 0.25
        assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3

    def test_strengths_above_one_give_no_negative_factor(self):
        images = jnp.full((2000, 1, 1, 1), 0.25)
        out = color.color_jitter(jax.random.key(1), images, 2.0, 0.0, 0.0)
        factors = np.asarray(out).ravel() / 0.25
        assert stats.kstest(factors, stats.uniform(0.0, 3.0).cdf).pvalue > 1e-3

    def test_shared_treats_all_images_alike(self, key, image):
        images = jnp.stack([image, image, image])
        out = color.color_jitter(key, images, 0.4, 0.4, 0.4, 0.1, shared=True)
        np.testing.assert_allclose(out[0], out[1], atol=1e-6)
        assert not np.allclose(out[0], image)

    def test_own_draws_differ(self, key, image):
        images = jnp.stack([image, image, image])
        out = color.color_jitter(key, images, 0.4, 0.4, 0.4, 0.1)
        assert len({np.asarray(one).tobytes() for one in out}) == 3

    def test_keeps_the_type_of_the_images(self, key):
        images = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
        out = jax.eval_shape(
            lambda key, x: color.color_jitter(key, x, 0.4, 0.4, 0.4, 0.1), key, images
        )
        assert out.dtype == jnp.bfloat16

    def test_no_strength_is_the_identity(self, key, image):
        out = color.color_jitter(key, image[None], 0, 0, 0)
        np.testing.assert_array_equal(out[0], image)

    @pytest.mark.parametrize(
        "strengths", [(-0.1, 0, 0), (0, 0, -1.0), (0, 0, 0, 0.6), (0, 0, 0, -0.1)]
    )
    def test_wrong_strengths_are_refused(self, key, image, strengths):
        with pytest.raises(ValueError, match="strengths must not be negative"):
            color.color_jitter(key, image[None], *strengths)

    def test_wrong_channels_are_refused(self, key):
        with pytest.raises(ValueError, match="got 4"):
            color.color_jitter(key, jnp.zeros((1, 2, 2, 4)), 0.4, 0.4, 0.4)


class TestLighting:
    def test_covariance_is_that_of_imagenet_s_components(self):
        """One colour per image: covariance V (std * lambda)^2 V'."""
        images = jnp.zeros((20_000, 1, 1, 3))
        out = np.asarray(color.lighting(jax.random.key(0), images, 0.1))[:, 0, 0]
        # As printed in the field's code, and again here.
        values = np.diag([0.2175, 0.0188, 0.0045])
        vectors = np.array(
            [
                [-0.5675, 0.7192, 0.4009],
                [-0.5808, -0.0045, -0.8140],
                [-0.5836, -0.6948, 0.4203],
            ]
        )
        wanted = vectors @ (0.1 * values) ** 2 @ vectors.T
        np.testing.assert_allclose(np.cov(out.T), wanted, rtol=0.05)
        np.testing.assert_allclose(out.mean(0), 0, atol=5e-4)

    def test_adds_one_colour_to_all_pixels(self, key, image):
        out = color.lighting(key, image[None]) - image[None]
        assert np.ptp(np.asarray(out), axis=(1, 2)).max() < 1e-6
        assert np.abs(out).min() > 0

    @pytest.mark.parametrize(("shared", "distinct"), [(True, 1), (False, 3)])
    def test_one_colour_for_all_or_for_each(self, key, shared, distinct):
        out = color.lighting(key, jnp.zeros((3, 1, 1, 3)), shared=shared)
        assert len({np.asarray(one).tobytes() for one in out}) == distinct

    def test_grey_images_are_refused(self, key):
        with pytest.raises(ValueError, match="colour images; got 1"):
            color.lighting(key, jnp.zeros((1, 2, 2, 1)))

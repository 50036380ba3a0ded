"""ZCA against a decomposition in float64, and what whitening means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.data import zca

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])


@pytest.fixture(scope="module")
def images():
    """Smooth noise, as photographs have it: [600, 6, 5, 3] uint8."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(600, 8, 7, 3))
    smooth = (
        sum(noise[:, i : i + 6, j : j + 5] for i in range(3) for j in range(3))
        + 2 * noise[:, :1, :1, :1]
    )
    return np.clip(128 + 15 * smooth, 0, 255).astype(np.uint8)


def normalised(images):
    return (images / 255 - MEAN) / STD


def reference(x, regularisation=0.1):
    """As kornia has it: by the singular values of the covariance. x is [N, D]."""
    centre = x.mean(0)
    u, s, _ = np.linalg.svd((x - centre).T @ (x - centre) / (len(x) - 1))
    root = np.sqrt(s + regularisation)
    return centre, u @ np.diag(1 / root) @ u.T, u @ np.diag(root) @ u.T


class TestFit:
    def test_equals_the_reference_on_normalised_images(self, images):
        x = normalised(images)
        got = zca.fit(x)
        wanted = reference(x.reshape(600, -1))
        for leaf, value in zip(got, wanted):
            assert leaf.dtype == jnp.float32
            np.testing.assert_allclose(leaf, value, rtol=1e-5, atol=1e-6)

    def test_pixels_with_mean_and_std_are_whitened_alike(self, images):
        """uint8, the same in [0, 1], and normalised images give one result."""
        wanted = zca.apply(zca.fit(normalised(images)), jnp.asarray(normalised(images)))
        for pixels in (images, images / np.float32(255)):
            fitted = zca.fit(pixels, mean=MEAN, std=STD)
            got = zca.apply(fitted, jnp.asarray(pixels))
            np.testing.assert_allclose(got, wanted, atol=1e-4)

    def test_chunks_make_no_difference(self, images, monkeypatch):
        wanted = zca.fit(images)
        monkeypatch.setattr(zca, "_CHUNK", 7)
        for got, want in zip(zca.fit(images), wanted):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)

    def test_fewer_images_than_values(self, images):
        """A singular covariance: the rest has the regularisation's variance."""
        fitted = zca.fit(normalised(images[:5]))
        values = np.linalg.eigvalsh(fitted.whiten)
        np.testing.assert_allclose(values[-1], 0.1**-0.5, rtol=1e-4)
        assert np.sum(values > 0.1**-0.5 * (1 - 1e-4)) == 90 - 4

    def test_too_large_images_are_refused_before_they_are_read(self):
        images = np.broadcast_to(np.uint8(0), (10, 128, 128, 3))
        with pytest.raises(ValueError, match="128x128x3 .*49,152.*12,288"):
            zca.fit(images)

    @pytest.mark.parametrize(("count", "regularisation"), [(1, 0.1), (5, 0.0)])
    def test_nothing_to_fit_is_refused(self, images, count, regularisation):
        with pytest.raises(ValueError, match="two images or more and a positive"):
            zca.fit(images[:count], regularisation=regularisation)


class TestApply:
    def test_covariance_is_the_identity_but_for_the_regularisation(self, images):
        """s / (s + r) along the directions of the images' own covariance."""
        x = normalised(images)
        out = zca.apply(zca.fit(x), jnp.asarray(x)).reshape(600, -1)
        variances = np.linalg.eigvalsh(np.cov(x.reshape(600, -1).T))
        got = np.linalg.eigvalsh(np.cov(np.asarray(out, np.float64).T))
        np.testing.assert_allclose(got, variances / (variances + 0.1), atol=1e-4)
        np.testing.assert_allclose(np.mean(out, axis=0), 0, atol=1e-5)

    def test_little_regularisation_whitens(self, images):
        x = normalised(images)
        fitted = zca.fit(x, regularisation=1e-6)
        out = np.asarray(zca.apply(fitted, jnp.asarray(x)), np.float64)
        np.testing.assert_allclose(
            np.cov(out.reshape(600, -1).T), np.eye(90), atol=1e-2
        )

    def test_gradient_goes_through(self, images):
        fitted = zca.fit(images)
        x = jnp.asarray(images[:2] / np.float32(255))
        gradient = jax.grad(lambda x: zca.apply(fitted, x).sum())(x)
        wanted = fitted.whiten.sum(0).reshape(6, 5, 3)
        np.testing.assert_allclose(gradient[1], wanted, rtol=1e-4, atol=1e-5)


class TestInvert:
    @pytest.mark.parametrize("keywords", [{}, {"mean": MEAN, "std": STD}])
    def test_restores_what_was_whitened(self, images, keywords):
        fitted = zca.fit(images, **keywords)
        x = jnp.asarray(images / np.float32(255))
        restored = jax.jit(lambda x: zca.invert(fitted, zca.apply(fitted, x)))(x)
        np.testing.assert_allclose(restored, x, atol=1e-4)

    def test_restores_images_that_were_not_fitted(self, images):
        fitted = zca.fit(normalised(images[:300]))
        x = jnp.asarray(normalised(images[300:]), jnp.float32)
        np.testing.assert_allclose(
            zca.invert(fitted, zca.apply(fitted, x)), x, atol=1e-4
        )

"""BatchNorm distances against golden value C and direct computation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import losses
from ddjax.types import Moments


@pytest.fixture(scope="module")
def golden():
    """Activations of golden value C: 2 classes x 3 images, 2x2 pixels, 3 channels."""
    n, c, h, w = np.meshgrid(*map(np.arange, (6, 3, 2, 2)), indexing="ij")
    a = np.sin(0.1 * (3 * n + 1) + 0.7 * c + 0.3 * h - 0.2 * w) + 0.05 * n
    k, c = np.meshgrid(np.arange(2), np.arange(3), indexing="ij")
    per_class = Moments(0.1 * (k + 1) + 0.05 * c, 0.3 + 0.1 * c + 0.05 * k)
    running = Moments(0.1 * np.arange(3), 0.5 + 0.1 * np.arange(3))
    to_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    return jnp.asarray(a.transpose(0, 2, 3, 1), jnp.float32), *map(
        to_jax, (per_class, running)
    )


def moments(activations):
    return [Moments(activations.mean((1, 2)), activations.var((1, 2)))]


def test_values_are_golden(golden):
    a, per_class, running = golden
    weights = jnp.array([0.5, 0.3, 0.2, 0.2, 0.2, 0.6])
    found = [
        losses.class_batch_norm(moments(a), [per_class]),
        losses.class_batch_norm(moments(a), [per_class], weights=weights),
        losses.class_batch_norm(moments(a), [per_class], squared=True),
        losses.batch_norm(moments(a), [running]),
    ]
    golden_values = [1.898163060, 1.864879018, 3.865886806, 2.235719230]
    np.testing.assert_allclose(found, golden_values, rtol=1e-5)


def test_gradients_are_those_of_finite_differences(golden):
    a, per_class, running = golden
    for loss in (
        lambda x: losses.class_batch_norm(moments(x), [per_class]),
        lambda x: losses.class_batch_norm(moments(x), [per_class], squared=True),
        lambda x: losses.batch_norm(moments(x), [running], first_weight=3.0),
    ):
        gradient = jax.grad(loss)(a)
        rng = np.random.default_rng(0)
        for _ in range(3):
            d = jnp.asarray(rng.normal(size=a.shape), jnp.float32)
            slope = (loss(a + 1e-2 * d) - loss(a - 1e-2 * d)) / 2e-2
            assert float(jnp.sum(gradient * d)) == pytest.approx(float(slope), rel=5e-3)


def test_group_moments_are_the_moments_of_all_pixels(golden):
    a, _, _ = golden
    found = losses.group_moments(moments(a)[0])
    np.testing.assert_allclose(found.mean, a.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.var, a.var((0, 1, 2)), rtol=1e-5)


def test_equal_weights_change_nothing_and_scale_does_not_matter(golden):
    a, per_class, _ = golden
    plain = losses.class_batch_norm(moments(a), [per_class])
    for scale in (1.0, 7.0):
        weights = jnp.full(6, scale)
        weighted = losses.class_batch_norm(moments(a), [per_class], weights=weights)
        assert float(weighted) == pytest.approx(float(plain), rel=1e-6)


def test_an_image_without_weight_is_not_seen(golden):
    a, per_class, _ = golden
    weights = jnp.array([0.5, 0.5, 0, 0.5, 0.5, 0])
    seen = losses.class_batch_norm(moments(a), [per_class], weights=weights)
    kept = moments(a[jnp.array([0, 1, 3, 4])])
    alone = losses.class_batch_norm(kept, [per_class])
    assert float(seen) == pytest.approx(float(alone), rel=1e-5)


def test_first_layer_has_a_weight_of_its_own(golden):
    a, per_class, _ = golden
    two = moments(a) * 2, [per_class] * 2
    once = float(losses.class_batch_norm(*two))
    tenfold = float(losses.class_batch_norm(*two, first_weight=10.0))
    assert tenfold == pytest.approx(11 / 2 * once, rel=1e-5)


def test_gradient_is_finite_where_the_distance_is_zero(golden):
    a, _, _ = golden
    own = losses.group_moments(moments(a)[0])
    gradient = jax.grad(lambda x: losses.batch_norm(moments(x), [own]))(a)
    assert np.isfinite(gradient).all()


def test_refuses_networks_without_batch_norm():
    with pytest.raises(ValueError, match="0 BatchNorm layers"):
        losses.batch_norm([], [])


class Variants(chex.TestCase):
    """With and without jit and pmap."""

    @chex.all_variants
    def test_same_value(self):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(4, 3, 3, 2)), jnp.float32)
        target = Moments(jnp.zeros((2, 2)), jnp.ones((2, 2)))
        loss = self.variant(lambda x: losses.class_batch_norm(moments(x), [target]))
        expected = losses.class_batch_norm(moments(x), [target])
        np.testing.assert_allclose(loss(x), expected, rtol=1e-5)

"""Labels, features and priors against closed forms and golden values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ddjax import losses
from ddjax.losses.norm import safe_norm

RNG = np.random.default_rng(0)


def test_divergence_is_golden():
    student = jnp.array([[0.1, 0.4, -0.3]])
    teacher = jnp.array([[2.0, 1.0, 0.5]])
    found = losses.soft_label_divergence(student, teacher, temperature=20.0)
    assert float(found) == pytest.approx(4.1468690504e-4, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_divergence_is_that_of_scipy(temperature):
    s, t = RNG.normal(size=(2, 6, 5))
    w = RNG.random(6)
    p, q = (special.softmax(x / temperature, 1) for x in (t, s))
    each = special.rel_entr(p, q).sum(1)
    expected = np.mean(w / w.mean() * each)
    found = losses.soft_label_divergence(
        jnp.asarray(s, jnp.float32), t, temperature=temperature, weights=jnp.asarray(w)
    )
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_divergence_gradient_is_the_closed_form():
    s, t = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(2, 6, 5)))
    w = jnp.asarray(RNG.random(6), jnp.float32)
    temperature = 3.0

    def loss(s):
        return losses.soft_label_divergence(s, t, temperature=temperature, weights=w)

    difference = jax.nn.softmax(s / temperature) - jax.nn.softmax(t / temperature)
    expected = w[:, None] / w.sum() * difference / temperature
    np.testing.assert_allclose(jax.grad(loss)(s), expected, atol=1e-6)


def test_teacher_is_not_differentiated():
    s, t = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(2, 3, 4)))
    gradient = jax.grad(losses.soft_label_divergence, argnums=1)(s, t)
    assert float(jnp.abs(gradient).max()) == 0


def test_distance_is_the_mean_square():
    s, t = RNG.normal(size=(2, 6, 5))
    w = RNG.random(6)
    each = ((s - t) ** 2).mean(1)
    found = losses.soft_label_distance(jnp.asarray(s), t, jnp.asarray(w))
    assert float(found) == pytest.approx((each * w).sum() / w.sum(), rel=1e-5)
    plain = losses.soft_label_distance(jnp.asarray(s), t)
    assert float(plain) == pytest.approx(each.mean(), rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_mixed_logits_have_the_mixed_probabilities(share, temperature):
    own, other = 5 * RNG.normal(size=(2, 6, 5))
    mixed = losses.mixed_logits(
        jnp.asarray(own), jnp.asarray(other), jnp.float32(share), temperature
    )
    p, q = (special.softmax(x / temperature, 1) for x in (own, other))
    found = special.softmax(np.asarray(mixed, np.float64) / temperature, 1)
    np.testing.assert_allclose(found, share * p + (1 - share) * q, atol=1e-6)


def test_cross_entropy_is_that_of_scipy():
    logits, labels = RNG.normal(size=(7, 4)), RNG.integers(0, 4, 7)
    each = -special.log_softmax(logits, 1)[np.arange(7), labels]
    found = losses.cross_entropy(jnp.asarray(logits), labels)
    assert float(found) == pytest.approx(each.mean(), rel=1e-5)
    w = RNG.random(7)
    found = losses.cross_entropy(jnp.asarray(logits), labels, jnp.asarray(w))
    assert float(found) == pytest.approx(np.average(each, weights=w), rel=1e-5)


def test_barycenter_distance_has_both_forms():
    f, b = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(2, 4, 6)))
    assert float(losses.barycenter_distance(f, b)) == pytest.approx(
        np.linalg.norm(f - b), rel=1e-6
    )
    assert float(losses.barycenter_distance(f, b, squared=True)) == pytest.approx(
        np.linalg.norm(f - b) ** 2, rel=1e-6
    )


def test_mean_distance_is_that_of_the_weighted_class_means():
    f, b = (jnp.asarray(x, jnp.float32) for x in RNG.normal(size=(2, 6, 5)))
    w = jnp.array([0.2, 0.3, 0.5, 0.6, 0.3, 0.1])
    means = [
        np.average(f[k], 0, weights=w[k]) - np.average(b[k], 0, weights=w[k])
        for k in (slice(3), slice(3, 6))
    ]
    found = losses.mean_distance(f, b, w, classes=2)
    assert float(found) == pytest.approx(np.linalg.norm(means), rel=1e-5)
    found = losses.mean_distance(f, b, w, classes=2, squared=True)
    assert float(found) == pytest.approx(np.linalg.norm(means) ** 2, rel=1e-5)


def test_gradient_is_finite_where_features_are_the_atoms():
    f = jnp.ones((3, 2))
    gradient = jax.grad(lambda x: losses.barycenter_distance(x, f))(f)
    np.testing.assert_array_equal(gradient, np.zeros((3, 2)))


def test_safe_norm_along_an_axis():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(safe_norm(x, axis=-1), [5.0, 0.0])
    gradient = jax.grad(lambda x: safe_norm(x, axis=-1).sum())(x)
    np.testing.assert_allclose(gradient, [[0.6, 0.8], [0, 0]])


def test_total_variation_of_known_pictures():
    flat = jnp.full((2, 4, 4, 3), 0.7)
    assert float(losses.total_variation(flat)) == 0
    # One bright pixel in the middle of 3x3: it differs from all eight neighbours.
    spot = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1.0)
    assert float(losses.total_variation(spot, squared=True)) == 8
    assert float(losses.total_variation(spot)) == pytest.approx(4 * np.sqrt(2))

"""Teachers that label as one: their mean, and how sure it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ddjax import ensemble, relabel

VIEWS = relabel.Views(batch_size=4, crop_scale=(0.3, 1.0))


def linear(variables, images):
    return jnp.tensordot(images, variables, 3), {}


def bent(variables, images):
    return jnp.tensordot(jnp.sin(3 * images), variables, 3), {}


@pytest.fixture(scope="module")
def teachers():
    """Variables of six teachers of three classes."""
    keys = jax.random.split(jax.random.key(2), 6)
    return tuple(jax.random.normal(key, (8, 8, 3, 3)) / 2 for key in keys)


@pytest.fixture(scope="module")
def logits():
    """Of three teachers, one of which is much surer."""
    scale = np.array([1.0, 2.0, 8.0])[:, None, None]
    return scale * np.random.default_rng(0).normal(size=(3, 20, 5)) + scale


def of(images, *chosen, **options):
    """Labels of a few steps by (function, variables) pairs."""
    functions, variables = zip(*chosen)
    apply = ensemble.create(functions, **options)
    key = jax.random.key(4)
    return relabel.soft_labels(apply, variables, VIEWS, key, images, range(3))


class TestLabels:
    def test_those_of_one_are_its_own_bit_for_bit(self, tiny_data, teachers):
        images, key = jnp.asarray(tiny_data.images), jax.random.key(4)
        alone = relabel.soft_labels(linear, teachers[0], VIEWS, key, images, range(3))
        for options in ({}, {"average": "probs"}, {"standardise": True}):
            found = of(images, (linear, teachers[0]), **options)
            np.testing.assert_array_equal(found, alone)

    def test_those_of_two_are_the_mean(self, tiny_data, teachers):
        """Of different networks, before it is rounded."""
        images, key = jnp.asarray(tiny_data.images), jax.random.key(4)
        found = of(images, (linear, teachers[0]), (bent, teachers[1]))
        assert found.dtype == np.float16 and found.shape == (3, 4, 3)
        for step in range(3):
            seen = np.float64(relabel.view(VIEWS, key, step, images).images)
            wanted = np.tensordot(seen, np.float64(teachers[0]), 3)
            wanted += np.tensordot(np.sin(3 * seen), np.float64(teachers[1]), 3)
            np.testing.assert_allclose(found[step], wanted / 2, rtol=2e-3, atol=2e-3)

    def test_each_has_variables(self, tiny_data, teachers):
        apply = ensemble.create((linear, linear))
        with pytest.raises(ValueError, match="shorter"):
            apply(teachers[:1], jnp.asarray(tiny_data.images) / 255)

    def test_the_same_is_made_once(self):
        """Or every call of `relabel` would compile it anew."""
        assert ensemble.create((linear, bent)) is ensemble.create((linear, bent))


class TestCombine:
    def test_mean_of_logits(self, logits):
        found = ensemble.combine(jnp.asarray(logits))
        np.testing.assert_allclose(found, logits.mean(0), rtol=1e-5)

    @pytest.mark.parametrize("temperature", [1.0, 20.0])
    def test_mean_of_probabilities_as_logits(self, logits, temperature):
        found = ensemble.combine(jnp.asarray(logits), "probs", temperature)
        wanted = special.softmax(logits / temperature, axis=-1).mean(0)
        got = special.softmax(np.asarray(found) / temperature, axis=-1)
        np.testing.assert_allclose(got, wanted, rtol=1e-4)
        np.testing.assert_allclose(found.mean(-1), logits.mean((0, -1)), rtol=1e-4)

    def test_probabilities_of_equal_teachers_are_theirs(self, logits):
        """With their constant, which squared differences see."""
        twice = jnp.asarray(np.stack([logits[1], logits[1]]))
        found = ensemble.combine(twice, "probs", 2.0)
        np.testing.assert_allclose(found, logits[1], rtol=1e-4, atol=1e-4)

    def test_standardised_all_count_alike(self, logits):
        middle = logits.mean(-1, keepdims=True)
        norm = np.linalg.norm(logits - middle, axis=-1, keepdims=True)
        each = middle + (logits - middle) / norm * norm.mean(0)
        found = ensemble.combine(jnp.asarray(logits), standardise=True)
        np.testing.assert_allclose(found, each.mean(0), rtol=1e-4, atol=1e-5)

    def test_standardised_a_teacher_that_says_nothing_is_no_nan(self):
        flat = jnp.zeros((2, 3, 4)).at[0].set(jnp.arange(4.0))
        found = ensemble.combine(flat, standardise=True)
        assert np.isfinite(found).all()

    def test_half_of_the_precision_is_not_summed_in(self):
        """Two logits of float16's largest."""
        large = jnp.full((2, 1, 3), 60_000, jnp.float16)
        found = ensemble.combine(large)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, 60_000)


@pytest.mark.parametrize("average", ensemble.AVERAGES)
def test_more_teachers_are_less_sure(average):
    """The paper's reason for more of them: where they differ, none is followed."""
    random = np.random.default_rng(1)
    common, own = random.normal(size=(300, 10)), 3 * random.normal(size=(6, 300, 10))
    logits = jnp.asarray(common + own)
    found = [
        float(ensemble.entropy(ensemble.combine(logits[:count], average)))
        for count in (1, 2, 4, 6)
    ]
    assert np.all(np.diff(found) > 0.05) and found[-1] < np.log(10)


def test_entropy_is_scipy_s(logits):
    wanted = special.entr(special.softmax(logits / 2, axis=-1)).sum(-1).mean()
    found = ensemble.entropy(jnp.asarray(logits), temperature=2.0)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    assert float(ensemble.entropy(jnp.zeros((3, 7)))) == pytest.approx(np.log(7))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="unknown average 'median'; known: logits, p"):
        ensemble.create((linear,), average="median")
    with pytest.raises(ValueError, match="needs a teacher; got none"):
        ensemble.create(())

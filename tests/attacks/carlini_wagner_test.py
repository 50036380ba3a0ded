"""CW against torchattacks, a linear classifier's distances and its own promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks
from ddjax.attacks import base
from ddjax.attacks.carlini_wagner import lead


def length(images):
    return np.asarray(base.distance(images, "l2"))


class TestTorchattacks:
    @pytest.mark.parametrize("case", range(3))
    def test_same_images_and_same_stop(self, case, oracle, drive):
        c, wanted = oracle.found["cw_c"][case], oracle.found["cw"][case]
        attack = attacks.carlini_wagner(c=float(c))
        states = drive(attack, *oracle[:3])
        np.testing.assert_allclose(attack.result(states[-1]), wanted, atol=1e-6)
        running = [state for state in states if not state.stopped.any()]
        # The start, and every step but the one that stopped.
        assert len(running) == oracle.found["cw_steps"][case] < attack.num_steps

    def test_nothing_changes_after_the_stop(self, oracle, drive):
        states = drive(attacks.carlini_wagner(c=1e-4), *oracle[:3])
        stopped = [state for state in states if state.stopped.any()]
        assert len(stopped) > 40 and all(state.stopped.all() for state in stopped)
        chex.assert_trees_all_equal(stopped[0], stopped[-1])

    def test_lead_multiplies(self):
        logits = jnp.array([[1.0, 2.0, 4.0], [-1.0, -2.0, 3.0], [-1.0, -2.0, -3.0]])
        labels = jnp.array([2, 2, 2])
        np.testing.assert_array_equal(lead(logits, labels), [2.0, 3.0, 0.0])
        np.testing.assert_array_equal(base.margin(logits, labels), [2.0, 4.0, -2.0])


class TestLinear:
    def test_finds_the_nearest_image(self, x64, drive):
        """The distance to the plane between two classes is margin / ||w||_2."""
        key_images, key_weights = jax.random.split(jax.random.key(0))
        images = jax.random.uniform(key_images, (8, 4, 4, 3), minval=0.3, maxval=0.7)
        normal = jax.random.normal(key_weights, (48,))

        def model(pixels):
            score = (pixels - 0.5).reshape(len(pixels), -1) @ normal
            # Of both signs, and so far up that no logit is negative.
            return jnp.stack([10 + score, 10 - score], 1)

        labels = model(images).argmax(1)
        wanted = base.margin(model(images), labels) / (2 * jnp.linalg.norm(normal))
        attack = attacks.carlini_wagner(c=0.3, num_steps=400, learning_rate=1e-3)
        state = drive(attack, model, images, labels)[-1]
        found = length(state.best - images)
        assert (base.margin(model(state.best), labels) < 0).all()
        assert (found >= wanted).all()
        np.testing.assert_allclose(found, wanted, rtol=0.02)
        np.testing.assert_allclose(state.nearest, found**2, rtol=1e-9)


class TestPromises:
    def test_images_are_fooling_ones_or_the_originals(self, oracle, drive):
        attack = attacks.carlini_wagner(num_steps=20)
        model, images, labels = oracle[:3]
        found = attack.result(drive(attack, model, images, labels)[-1])
        assert found.min() >= 0 and found.max() <= 1
        fooled = np.asarray(model(found).argmax(1) != labels)
        moved = length(found - images) > 0
        assert 0 < moved.sum() and fooled[moved].all()
        assert (np.asarray(found)[~moved] == np.asarray(images)[~moved]).all()

    def test_saturated_pixels_stay(self, dense, drive):
        saturated = (dense.images == 0) | (dense.images == 1)
        states = drive(attacks.carlini_wagner(c=10.0, num_steps=20), *dense)
        assert saturated.any() and not saturated.all()
        moved = np.asarray((jnp.tanh(states[-1].latent) + 1) / 2)
        assert np.isfinite(moved).all()
        np.testing.assert_array_equal(moved[saturated], dense.images[saturated])
        assert (moved != dense.images)[~saturated].mean() > 0.5

    def test_state_leads_with_the_batch(self, dense, drive):
        states = drive(attacks.carlini_wagner(num_steps=1), *dense)
        for leaf in jax.tree.leaves(states):
            assert leaf.shape[0] == 6

    def test_the_batch_is_one(self, dense, drive):
        """Its cost is summed: twice the images cost twice as much."""
        model, images, labels = dense
        attack = attacks.carlini_wagner(num_steps=1)
        once = drive(attack, model, images, labels)[-1].cost
        double = [jnp.concatenate([x, x]) for x in (images, labels)]
        twice = drive(attack, model, *double)[-1].cost
        np.testing.assert_allclose(twice, np.full(12, 2 * once[0]), rtol=1e-12)

    def test_gradients_are_counted(self, dense):
        attack, calls = attacks.carlini_wagner(num_steps=3), []

        def model(images):
            calls.append(len(images))
            return dense.model(images)

        state = attack.init(model, dense.images, dense.labels, None, 0)
        for index in range(attack.num_steps):
            state = attack.step(model, state, index, dense.images, dense.labels, None)
        assert calls == [6] * (attack.gradients + attack.forwards)


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_first_step_is_of_one_length(self):
        """Adam's, whatever the gradient: lr in w, so lr / 2 of a pixel at 1 / 2."""
        images, labels = jnp.full((2, 2, 2, 1), 0.5), jnp.zeros(2, jnp.int32)
        attack = attacks.carlini_wagner(c=1e-4)

        def model(pixels):
            return pixels.reshape(2, -1) * jnp.array([3.0, 2.0, 1.0, 1.0])

        def step(state, index):
            return attack.step(model, state, index, images, labels, None)

        state = attack.init(model, images, labels, None, 0)
        latent = self.variant(step)(state, jnp.int32(0)).latent
        np.testing.assert_allclose(latent[0].ravel(), [-0.01, 0.01, 0, 0], rtol=1e-3)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"c": 0.0}, "c=0.0 should be positive"),
            ({"c": float("nan")}, "c=nan should be positive"),
            ({"kappa": -1.0}, "kappa=-1.0 should not be negative"),
            ({"learning_rate": 0.0}, "learning_rate=0.0 should be positive"),
            ({"num_steps": 0}, "num_steps=0 should be positive"),
        ],
    )
    def test_says_what_came(self, options, message):
        with pytest.raises(ValueError, match=message):
            attacks.carlini_wagner(**options)

    def test_weight_is_in_the_name(self):
        assert attacks.carlini_wagner(c=1e-4).name == "cw_c0.0001"

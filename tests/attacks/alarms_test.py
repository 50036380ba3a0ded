"""Deliberate faults, and tables that no honest network gives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks

EIGHT = 8 / 255
HONEST = {
    "fgsm": {1 / 255: 0.5, EIGHT: 0.1},
    "pgd10": {1 / 255: 0.42, EIGHT: 0.02},
    "pgd100": {1 / 255: 0.4, EIGHT: 0.01},
    "apgd_ce": {1 / 255: 0.39, EIGHT: 0.0},
    "square": {1 / 255: 0.45, EIGHT: 0.05},
    "autoattack": {1 / 255: 0.38, EIGHT: 0.0},
    "pgd10_l2": {0.1: 0.5, 0.5: 0.3},
}


class TestCheck:
    """A convolutional network with BatchNorm, and ways to spoil it."""

    suite = (attacks.pgd(eps=EIGHT), attacks.square(eps=EIGHT))

    def check(self, apply_fn, variables, images, num_classes=3, suite=None):
        suite = suite or self.suite
        return attacks.check(apply_fn, variables, images, num_classes, suite)

    @pytest.fixture
    def images(self, tiny_data):
        return tiny_data.images

    def test_nothing_to_say(self, tiny_network, tiny_variables, images):
        assert self.check(tiny_network.apply, tiny_variables, images) == []
        floats = images / np.float32(255)
        assert self.check(tiny_network.apply, tiny_variables, floats) == []

    def test_normalised_images(self, tiny_network, tiny_variables, images):
        with pytest.raises(ValueError, match="Leave the normalisation"):
            normalised = (images / 255 - 0.5) / 0.25
            self.check(tiny_network.apply, tiny_variables, normalised)

    def test_rounding_errors_pass(self, tiny_network, tiny_variables, images):
        floats = np.float32(images / 255) - np.float32(3e-8)
        assert self.check(tiny_network.apply, tiny_variables, floats) == []

    def test_batchnorm_in_training(self, tiny_network, tiny_variables, images):
        with pytest.raises(ValueError, match="others of its batch"):
            self.check(tiny_network.apply_train, tiny_variables, images)

    def test_probabilities(self, tiny_network, tiny_variables, images):
        def softmax(variables, images):
            logits, out = tiny_network.apply(variables, images)
            return jax.nn.softmax(logits), out

        with pytest.raises(ValueError, match="before the softmax"):
            self.check(softmax, tiny_variables, images)

    def test_random_logits(self, tiny_network, tiny_variables, images):
        random = np.random.default_rng(0)

        def noisy(variables, images):
            logits, out = tiny_network.apply(variables, images)
            return logits + random.normal(size=logits.shape), out

        (told,) = self.check(noisy, tiny_variables, images)
        assert "vary from call to call" in told and "autoattack_rand" in told

    def test_logits_that_are_not_finite(self, tiny_network, tiny_variables, images):
        broken = jax.tree.map(lambda leaf: leaf * np.nan, tiny_variables)
        with pytest.raises(ValueError, match="not finite"):
            self.check(tiny_network.apply, broken, images)

    def test_classes_of_another_data_set(self, tiny_network, tiny_variables, images):
        with pytest.raises(ValueError, match=re.escape("expected [N, 10]")):
            self.check(tiny_network.apply, tiny_variables, images, 10)

    @pytest.mark.parametrize(("loss", "least"), [("dlr", 3), ("dlr_targeted", 4)])
    def test_few_classes(self, loss, least, tiny_network, tiny_variables, images):
        suite = (attacks.apgd(EIGHT, loss=loss, targets=1),)
        with pytest.raises(ValueError, match=f"compares {least} logits"):
            about = tiny_network.apply, tiny_variables, images
            self.check(*about, least - 1, suite)

    def test_dead_gradients(self, images):
        """Three quarters of the images are brighter than where the network is flat."""
        images = np.full((8, 4, 4, 1), 0.9, np.float32)
        images[:2] = 0.1

        def flat(variables, images):
            live = jnp.minimum(images.mean((1, 2, 3)), 0.5)
            return variables * jnp.stack([live, -live, live**2], 1), {}

        (told,) = self.check(flat, jnp.float32(2), images)
        assert told.startswith("75.0 % of the images")

    def test_saturated_softmax(self, images):
        """Confident as float32 can be: the cross entropy is 0, and so is its slope."""

        def confident(variables, images):
            mean = images.mean((1, 2, 3))
            return variables * jnp.stack([mean + 1, mean - 1, -mean], 1), {}

        assert self.check(confident, jnp.float32(1), images) == []
        (told,) = self.check(confident, jnp.float32(1e4), images)
        assert told.startswith("100.0 % of the images")


class TestAlarms:
    """One sentence for each sign; the first table is an honest one."""

    def told(self, clean=0.8, **changes):
        results = {name: dict(found) for name, found in HONEST.items()}
        for name, found in changes.items():
            results.setdefault(name, {}).update(found)
        return attacks.alarms(clean, results)

    def test_honest(self):
        assert self.told() == []
        assert attacks.alarms(0.8, {}) == []

    def test_square_below_the_gradients(self):
        (told,) = self.told(square={1 / 255: 0.385})
        assert "square reaches 38.5 % at 1/255" in told and "39.0 % of apgd_ce" in told
        assert self.told(square={1 / 255: 0.389}) == []  # 0.1 points

    def test_one_step_below_many(self):
        (told,) = self.told(fgsm={1 / 255: 0.3})
        assert "fgsm reaches 30.0 %" in told

    def test_a_suite_above_an_attack(self):
        (told,) = self.told(autoattack={1 / 255: 0.41})
        assert (
            "autoattack leaves 41.0 % at 1/255, more than apgd_ce with 39.0 %" in told
        )

    def test_many_steps_that_do_not_help(self):
        (told,) = self.told(pgd100={1 / 255: 0.42})
        assert "pgd100 leaves 42.0 % at 1/255, no less than pgd10" in told
        assert self.told(pgd100={EIGHT: 0.0}, pgd10={EIGHT: 0.0}) == []

    def test_a_larger_ball_that_is_safer(self):
        (told,) = self.told(fgsm={2 / 255: 0.55})
        assert "fgsm leaves 55.0 % at 2/255, more than 50.0 % at 1/255" in told

    def test_an_attack_that_helps(self):
        assert any("80.0 % without attack" in t for t in self.told(mim={1 / 255: 0.9}))

    def test_a_large_ball_that_is_survived(self):
        found = {"pgd100": {4 / 255: 0.3, EIGHT: 0.3}}
        (told,) = attacks.alarms(0.8, found)
        assert told.startswith("30.0 % are left at 8/255")
        assert attacks.alarms(0.8, {"pgd100": {4 / 255: 0.3}}) == []

    def test_l2_is_compared_with_l2(self):
        assert self.told(apgd_ce_l2={0.1: 0.2, 0.5: 0.1}) == []
        (told,) = self.told(pgd100_l2={0.1: 0.6, 0.5: 0.2})
        assert "pgd100_l2 leaves 60.0 % at 0.1, no less than pgd10_l2" in told


def test_square_after_gradients():
    """More than two in a thousand that only a search without gradients finds."""

    def stages(*left):
        names = ("apgd-ce", "fab-t", "square")
        return tuple({"name": n, "robust": r} for n, r in zip(names, left))

    assert attacks.square_alarm(stages(500, 400, 398), 1000) == []
    (words,) = attacks.square_alarm(stages(500, 400, 390), 1000)
    assert "39.0 % of the 40.0 %" in words
    assert attacks.square_alarm(stages(500, 400), 1000) == [], "no square at the end"

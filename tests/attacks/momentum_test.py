"""MI-FGSM and VMI-FGSM against torchattacks, GUARD's MIM and their own promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks
from ddjax.attacks import momentum

EPS = 8 / 255
ALL = {
    "mi_fgsm": lambda eps: attacks.mi_fgsm(eps=eps, num_steps=3),
    "batch": lambda eps: attacks.mi_fgsm(eps=eps, num_steps=3, normalise="batch"),
    "vmi_fgsm": lambda eps: attacks.vmi_fgsm(eps=eps, num_steps=2, neighbours=3),
}
INDEPENDENT = ("mi_fgsm", "vmi_fgsm")


class TestReferences:
    @pytest.mark.parametrize(
        ("name", "attack"),
        [
            ("mi_fgsm", attacks.mi_fgsm(eps=EPS)),
            (
                "guard_mim",
                attacks.mi_fgsm(
                    eps=EPS, num_steps=20, step_size=EPS, normalise="batch"
                ),
            ),
        ],
    )
    def test_same_images(self, name, attack, oracle, drive):
        found = drive(attack, *oracle[:3])[-1].images
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, oracle.found[name], atol=1e-6)

    def test_variance_on_the_same_noise(self, oracle, drive, monkeypatch):
        noise = oracle.found["vmi_noise"] / 127  # [moves, neighbours, B, H, W, ch]
        moves, neighbours = noise.shape[:2]
        # The iterate's own turn comes first, and has none.
        noise = np.concatenate([np.zeros_like(noise[:, :1]), noise], 1)
        noise = jnp.asarray(noise.reshape(-1, *noise.shape[2:]))
        monkeypatch.setattr(
            momentum, "_noise", lambda keys, index, images: noise[index]
        )
        attack = attacks.vmi_fgsm(
            eps=EPS, num_steps=moves, step_size=EPS / 3, neighbours=neighbours
        )
        found = drive(attack, *oracle[:3])[-1].images
        np.testing.assert_allclose(found, oracle.found["vmi_fgsm"], atol=1e-6)


@pytest.mark.parametrize("name", ALL)
class TestPromises:
    def test_nothing_moves_in_a_ball_of_radius_0(self, name, dense, drive):
        found = drive(ALL[name](eps=0.0), *dense)[-1].images
        np.testing.assert_array_equal(found, dense.images)

    @pytest.mark.parametrize("eps", [1 / 255, 0.3])
    def test_every_iterate_is_in_the_ball_and_the_box(self, name, eps, dense, drive):
        states = drive(ALL[name](eps=eps), *dense)
        for state in states:
            assert np.abs(state.images - dense.images).max() <= eps + 1e-9
            assert state.images.min() >= 0 and state.images.max() <= 1
        assert np.abs(states[-1].images - dense.images).max() > 0.5 / 255

    def test_gradients_are_counted(self, name, dense):
        attack, calls = ALL[name](eps=EPS), []

        def model(images):
            calls.append(len(images))
            return dense.model(images)

        keys = jax.random.split(jax.random.key(0), 6)
        state = attack.init(model, dense.images, dense.labels, keys, 0)
        for index in range(attack.num_steps):
            state = attack.step(model, state, index, dense.images, dense.labels, keys)
        assert calls == [6] * (attack.gradients + attack.forwards)

    def test_no_gradient_is_no_step(self, name, dense, drive):
        """torchattacks divides 0 by 0 here and returns NaN."""

        def flat(images):
            return 0 * dense.model(images)

        found = drive(ALL[name](eps=EPS), flat, *dense[1:])[-1].images
        np.testing.assert_array_equal(found, dense.images)


class TestCompany:
    @pytest.mark.parametrize("name", INDEPENDENT)
    def test_does_not_matter(self, name, dense, drive):
        keys = jax.random.split(jax.random.key(8), 6)
        attack, (model, images, labels) = ALL[name](eps=EPS), dense
        whole = drive(attack, model, images, labels, keys=keys)[-1].images
        parts = [
            drive(attack, model, images[p], labels[p], keys=keys[p])[-1].images
            for p in (slice(0, 2), slice(2, 6))
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)

    def test_matters_where_the_batch_is_normalised(self, dense, drive):
        """One loud image makes the others' first gradients count for less."""
        attack = attacks.mi_fgsm(eps=0.2, num_steps=8, normalise="batch")
        model, images, labels = dense

        def loud(pixels):
            return model(pixels) * jnp.linspace(1.0, 30.0, len(pixels))[:, None]

        alone = drive(attack, model, images[:1], labels[:1])[-1].images
        together = drive(attack, loud, images, labels)[-1].images[:1]
        assert np.abs(alone - together).max() > 0.01

    def test_neighbours_of_each_image_and_step_are_its_own(self, dense):
        keys = jax.random.split(jax.random.key(0), 6)
        noise = [momentum._noise(keys, index, dense.images) for index in range(3)]
        rows = np.concatenate(noise).reshape(18, -1)
        assert len(np.unique(rows, axis=0)) == 18
        assert np.abs(rows).max() <= 1


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_move_of_vmi_fgsm(self):
        images, labels = jnp.full((2, 2, 2, 1), 0.5), jnp.zeros(2, jnp.int32)
        attack = attacks.vmi_fgsm(eps=0.1, step_size=0.02, neighbours=1)
        keys = jax.random.split(jax.random.key(0), 2)

        def model(pixels):
            return pixels.reshape(2, -1) * jnp.array([1.0, 2.0, -1.0, 0.0])

        step = self.variant(
            lambda state, index: attack.step(model, state, index, images, labels, keys)
        )
        first = step(attack.init(model, images, labels, keys, 0), jnp.int32(0))
        np.testing.assert_array_equal(first.images, images)
        moved = step(first, jnp.int32(1)).images
        # Cross entropy falls with the first logit and rises with the others'.
        wanted = 0.5 + 0.02 * np.array([-1, 1, -1, 0])
        np.testing.assert_allclose(moved[0].ravel(), wanted, rtol=1e-6)


class TestErrors:
    @pytest.mark.parametrize(
        ("factory", "options", "message"),
        [
            (attacks.mi_fgsm, {"eps": -1.0}, "eps=-1.0 is no radius"),
            (attacks.mi_fgsm, {"eps": 0.1, "num_steps": 0}, "num_steps=0"),
            (attacks.mi_fgsm, {"eps": 0.1, "step_size": 0.0}, "moves nothing"),
            (
                attacks.mi_fgsm,
                {"eps": 0.1, "normalise": "l1"},
                "unknown normalise 'l1'; known: sample, batch",
            ),
            (attacks.vmi_fgsm, {"eps": 2.0}, "eps=2.0 is no radius"),
            (attacks.vmi_fgsm, {"eps": 0.1, "neighbours": 0}, "use mi_fgsm"),
            (attacks.vmi_fgsm, {"eps": 0.1, "beta": 0.0}, "beta=0.0"),
        ],
    )
    def test_says_what_came(self, factory, options, message):
        with pytest.raises(ValueError, match=message):
            factory(**options)

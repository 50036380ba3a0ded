"""FGSM and PGD against torchattacks, a linear classifier, and their own promises."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks
from ddjax.attacks import base, gradient

EPS = 8 / 255
L2 = {"eps": 0.5, "step_size": 0.1, "norm": "l2"}


def fooled(model, images, labels):
    return np.asarray(model(images).argmax(1) != labels)


class TestTorchattacks:
    @pytest.mark.parametrize(
        ("name", "attack"),
        [
            ("fgsm", attacks.fgsm(eps=EPS)),
            ("pgd", attacks.pgd(eps=EPS, num_steps=25)),
            ("pgd_l2", attacks.pgd(num_steps=20, **L2)),
        ],
    )
    def test_same_images(self, name, attack, oracle, drive):
        start = oracle.found.get(f"{name}_start")
        start = None if start is None else jnp.asarray(start)
        state = drive(attack, *oracle[:3], start=start)[-1]
        found = attack.result(state)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, oracle.found[name], atol=1e-6)
        assert 0.1 < fooled(oracle.model, found, oracle.labels).mean() < 0.95

    def test_float32_fools_the_same_images(self, oracle, drive):
        """A flipped sign of a tiny gradient moves pixels, not accuracies."""
        images = jnp.asarray(oracle.images, jnp.float32)
        start = jnp.asarray(oracle.found["pgd_start"], jnp.float32)
        attack = attacks.pgd(eps=EPS, num_steps=25)
        found = drive(attack, oracle.model, images, oracle.labels, start=start)[-1]
        assert found.images.dtype == jnp.float32
        same = np.abs(found.images - oracle.found["pgd"]).max((1, 2, 3)) < 1e-5
        assert same.sum() >= len(same) - 1


class TestLinear:
    """On two classes of a linear model every attack is exact, and known."""

    @pytest.fixture
    def linear(self, x64):
        key_images, key_weights, key_labels = jax.random.split(jax.random.key(5), 3)
        images = jax.random.uniform(key_images, (60, 4, 4, 3), minval=0.3, maxval=0.7)
        kernel = jax.random.normal(key_weights, (48, 2))
        bias = -images.reshape(60, -1).mean(0) @ kernel  # both classes are met

        def model(pixels):
            return pixels.reshape(len(pixels), -1) @ kernel + bias

        labels = model(images).argmax(1)
        labels = jnp.where(
            jax.random.uniform(key_labels, (60,)) < 0.1, 1 - labels, labels
        )
        return model, images, labels, np.asarray(kernel[:, 0] - kernel[:, 1])

    @pytest.mark.parametrize("eps", [0.005, 0.02, 0.05])
    @pytest.mark.parametrize(
        ("order", "make"),
        [
            (1, attacks.fgsm),
            (1, lambda eps: attacks.pgd(eps=eps, num_steps=10)),
            (1, lambda eps: attacks.pgd(eps=eps, num_steps=10, loss="margin")),
            (2, lambda eps: attacks.pgd(eps=4 * eps, num_steps=60, norm="l2")),
        ],
        ids=["fgsm", "pgd", "margin", "l2"],
    )
    def test_breaks_exactly_what_can_be_broken(self, order, make, eps, linear, drive):
        model, images, labels, normal = linear
        attack = make(eps=eps)
        found = attack.result(drive(attack, model, images, labels)[-1])
        radius = eps if order == 1 else 4 * eps  # the dual norm of the ball's
        reach = radius * np.linalg.norm(normal, order)
        margin = np.asarray(base.margin(model(images), labels))
        assert (np.abs(margin - reach) > 1e-6).all()
        np.testing.assert_array_equal(fooled(model, found, labels), margin < reach)
        np.testing.assert_allclose(
            base.margin(model(found), labels), margin - reach, atol=1e-6 * reach
        )

    def test_no_attack_breaks_what_cannot_be_broken(self, x64, drive):
        """Of five classes: an image is safe if its margins are wide to all others."""
        key_images, key_weights = jax.random.split(jax.random.key(6))
        images = jax.random.uniform(key_images, (80, 4, 4, 3), minval=0.3, maxval=0.7)
        kernel = jax.random.normal(key_weights, (48, 5))

        def model(pixels):
            return (pixels - 0.5).reshape(len(pixels), -1) @ kernel

        logits = model(images)
        labels = logits.argmax(1)
        eps = 0.01
        widths = np.abs(kernel[:, labels].T[:, :, None] - kernel).sum(1)  # [80, 5]
        gaps = np.asarray(logits.max(1)[:, None] - logits)
        other = np.arange(5) != labels[:, None]
        breakable = (other & (gaps < eps * widths)).any(1)
        found = drive(attacks.pgd(eps=eps, num_steps=20), model, images, labels)[-1]
        broken = fooled(model, found.images, labels)
        assert not broken[~breakable].any()
        assert 0 < breakable.sum() < 80
        assert broken.sum() >= 0.9 * breakable.sum()


ALL = {
    "fgsm": attacks.fgsm,
    "pgd": lambda eps: attacks.pgd(eps=eps, num_steps=3),
    "margin": lambda eps: attacks.pgd(eps=eps, num_steps=3, loss="margin"),
    "l2": lambda eps: attacks.pgd(eps=eps, num_steps=3, norm="l2"),
}


@pytest.mark.parametrize("name", ALL)
class TestPromises:
    def test_nothing_moves_in_a_ball_of_radius_0(self, name, dense, drive):
        found = drive(ALL[name](eps=0.0), *dense[:3])[-1].images
        np.testing.assert_array_equal(found, dense.images)

    @pytest.mark.parametrize("eps", [1 / 255, 0.3])
    def test_every_iterate_is_in_the_ball_and_the_box(self, name, eps, dense, drive):
        norm = "l2" if name == "l2" else "linf"
        for state in drive(ALL[name](eps=eps), *dense[:3]):
            assert base.distance(state.images - dense.images, norm).max() <= eps + 1e-9
            assert state.images.min() >= 0 and state.images.max() <= 1

    def test_an_image_s_company_does_not_matter(self, name, dense, drive):
        attack, keys = ALL[name](eps=EPS), jax.random.split(jax.random.key(8), 6)
        images, labels = dense.images[:6], dense.labels[:6]
        whole = drive(attack, dense.model, images, labels, keys=keys)[-1].images
        parts = [
            drive(attack, dense.model, images[p], labels[p], keys=keys[p])[-1].images
            for p in (slice(0, 2), slice(2, 6))
        ]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)

    def test_gradients_are_counted(self, name, dense):
        attack, calls = ALL[name](eps=EPS), []

        def model(images):
            calls.append(len(images))
            return dense.model(images)

        keys = jax.random.split(jax.random.key(0), 2)
        images, labels = dense.images[:2], dense.labels[:2]
        state = attack.init(model, images, labels, keys, 0)
        for index in range(attack.num_steps):
            state = attack.step(model, state, index, images, labels, keys)
        assert calls == [2] * (attack.gradients + attack.forwards)


class TestRestarts:
    @pytest.mark.parametrize("norm", base.NORMS)
    def test_rounds_differ_and_only_help(self, norm, dense, drive):
        eps = EPS if norm == "linf" else 0.3
        attack = attacks.pgd(eps=eps, num_steps=2, restarts=4, norm=norm)
        assert attack.rounds == 4
        rounds = [drive(attack, *dense[:3], round=round) for round in range(4)]
        starts = np.stack([states[0].images for states in rounds])
        assert (np.abs(starts[1:] - starts[:1]).max((2, 3, 4)) > eps / 50).all()
        broken = [fooled(dense.model, s[-1].images, dense.labels) for s in rounds]
        assert np.any(broken, 0).sum() >= max(b.sum() for b in broken)

    def test_linf_starts_fill_the_ball(self, x64):
        images = jnp.full((50, 4, 4, 3), 0.5)
        keys = jax.random.split(jax.random.key(0), 50)
        start = attacks.pgd(eps=0.1).init(None, images, None, keys, 0).images - 0.5
        np.testing.assert_allclose(start.mean(), 0, atol=0.005)
        np.testing.assert_allclose(start.var(), 0.1**2 / 3, rtol=0.05)

    def test_l2_lengths_are_uniform(self, x64):
        images = jnp.full((500, 2, 2, 3), 0.5)
        keys = jax.random.split(jax.random.key(0), 500)
        attack = attacks.pgd(eps=0.1, norm="l2")
        start = attack.init(None, images, None, keys, 0).images - 0.5
        lengths = np.sort(base.distance(start, "l2")) / 0.1
        np.testing.assert_allclose(lengths, np.linspace(0, 1, 500), atol=0.08)
        directions = start / base.per_sample(base.distance(start, "l2"), start)
        np.testing.assert_allclose(directions.mean(0), 0, atol=0.06)

    def test_without_a_random_start_it_starts_at_a_copy(self):
        images = jnp.full((2, 2, 2, 3), 0.5)
        attack = attacks.pgd(eps=0.1, random_start=False)
        start = attack.init(None, images, None, None, 0).images
        np.testing.assert_array_equal(start, images)
        assert start.unsafe_buffer_pointer() != images.unsafe_buffer_pointer()


class TestTinyGradients:
    """A saturated network's gradients; in float32 their squares round to 0."""

    @pytest.mark.parametrize("scale", [1e-3, 1e-25, 1e-37])
    def test_l2_steps_have_full_length(self, scale):
        slope = jax.random.normal(jax.random.key(0), (3, 4, 4, 3)) * scale
        slope = slope.at[1].set(0.0)
        attack = attacks.pgd(
            eps=0.5, num_steps=1, step_size=0.1, norm="l2", random_start=False
        )

        def model(pixels):
            logit = (pixels * slope).sum((1, 2, 3))
            return jnp.stack([jnp.zeros_like(logit), logit], 1)

        images, labels = jnp.full((3, 4, 4, 3), 0.5), jnp.zeros(3, jnp.int32)
        state = attack.init(model, images, labels, None, 0)
        moved = attack.step(model, state, 0, images, labels, None).images - images
        lengths = base.distance(moved, "l2")
        np.testing.assert_allclose(lengths, [0.1, 0, 0.1], rtol=1e-4)


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_step(self):
        images = jnp.full((2, 2, 2, 1), 0.5)
        labels, attack = jnp.zeros(2, jnp.int32), attacks.pgd(eps=0.1)

        def model(pixels):
            return pixels.reshape(2, -1) * jnp.array([1.0, 2.0, -1.0, 0.0])

        def step(state, index):
            return attack.step(model, state, index, images, labels, None)

        found = self.variant(step)(gradient.PGDState(images), jnp.int32(0)).images
        # Cross entropy falls with the first logit and rises with the others'.
        wanted = 0.5 + 0.025 * np.array([-1, 1, -1, 0])
        np.testing.assert_allclose(found[0].ravel(), wanted, rtol=1e-6)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"eps": -0.1}, "eps=-0.1 is no radius"),
            ({"eps": float("nan")}, "eps=nan is no radius"),
            ({"eps": 8}, "write 8 / 255"),
            ({"eps": 0.1, "num_steps": 0}, "num_steps=0 should be at least 1"),
            ({"eps": 0.1, "step_size": 0.0}, "step_size=0.0 moves nothing"),
            ({"eps": 0.1, "step_size": -1.0}, "step_size=-1.0 moves nothing"),
            ({"eps": 0.1, "restarts": 0}, "restarts=0"),
            ({"eps": 0.1, "restarts": 2, "random_start": False}, "random starts"),
            ({"eps": 0.1, "norm": "l1"}, "unknown norm 'l1'; known: linf, l2"),
            ({"eps": 0.1, "loss": "kl"}, "unknown loss 'kl'; known: ce, margin"),
        ],
    )
    def test_says_what_came(self, options, message):
        with pytest.raises(ValueError, match=message):
            attacks.pgd(**options)

    def test_l2_radius_may_exceed_1(self):
        assert attacks.pgd(eps=2.0, norm="l2").name == "pgd100_l2"


def test_equal_attacks_are_one_object():
    assert attacks.pgd(eps=0.1) is attacks.pgd(eps=0.1)
    assert attacks.pgd(eps=0.1, loss="margin").name == "pgd100_margin"
    assert attacks.fgsm(eps=0.1).name == "fgsm"

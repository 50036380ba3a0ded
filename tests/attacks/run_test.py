"""The driver: what is attacked, what counts, and that nothing depends on batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks, parallel
from ddjax.attacks import base

EPS = 0.01


@functools.cache  # compiled once, as the real ones
def sign_attack(eps, num_steps=3, rounds=2):
    """Steps by the sign of the gradient from a random point, all over the ball."""

    def init(model, images, labels, keys, round):
        start = base.uniform(keys, images) * eps
        return base.project(images + start, images, eps, "linf")

    def step(model, state, index, images, labels, keys):
        grads = jax.grad(lambda x: base.cross_entropy(model(x), labels).sum())(state)
        return base.project(state + eps * jnp.sign(grads), images, eps, "linf")

    return base.Attack("sign", rounds, num_steps, init, step, lambda s: s, num_steps, 0)


def network(variables, images):
    """A layer of patches, ReLU and a linear one: enough to be attacked."""
    hidden = jnp.maximum((images - 0.5).reshape(len(images), -1) @ variables[0], 0)
    return hidden @ variables[1], {}


def draw(seed):
    random = np.random.default_rng(seed)
    first = random.normal(size=(192, 16)) / 8
    return np.float32(first), np.float32(random.normal(size=(16, 3)) / 4)


@pytest.fixture(scope="module")
def students():
    return [draw(i) for i in range(3)]


@pytest.fixture(scope="module")
def points(students):
    """45 images; two in three are what the first student takes them for."""
    images = np.random.default_rng(9).integers(0, 256, (45, 8, 8, 3), dtype=np.uint8)
    labels = np.array(network(students[0], images / np.float32(255))[0]).argmax(-1)
    labels[::3] = (labels[::3] + 1) % 3
    return images, labels


@pytest.fixture(scope="module")
def outcomes(students, points):
    suite = (sign_attack(EPS), sign_attack(3 * EPS))
    return attacks.run(
        suite,
        network,
        students,
        *points,
        jax.random.key(5),
        batch_size=16,
        keep_images=True,
    )


def masks(outcomes):
    return np.stack([np.concatenate([o.clean[None], o.left]) for o in outcomes])


class TestOutcome:
    def test_clean_is_what_the_network_says(self, outcomes, students, points):
        images, labels = points
        for outcome, variables in zip(outcomes, students):
            guess = np.argmax(network(variables, images / np.float32(255))[0], -1)
            np.testing.assert_array_equal(outcome.clean, guess == labels)

    def test_masks_agree(self, outcomes):
        for outcome in outcomes:
            np.testing.assert_array_equal(outcome.robust, outcome.left[-1])
            assert (
                0 < outcome.robust.sum() < outcome.left[0].sum() < outcome.clean.sum()
            )
            np.testing.assert_array_equal(outcome.broken_by == -2, ~outcome.clean)
            np.testing.assert_array_equal(outcome.broken_by == -1, outcome.robust)
            by_first = outcome.clean & ~outcome.left[0]
            np.testing.assert_array_equal(outcome.broken_by == 0, by_first)

    def test_images_break_what_is_broken(self, outcomes, students, points):
        images, labels = points
        for outcome, variables in zip(outcomes, students):
            broken = outcome.broken_by >= 0
            guess = np.argmax(network(variables, outcome.images)[0], -1)
            assert np.all(guess[broken] != labels[broken])
            moved = np.abs(outcome.images - images / np.float32(255)).max((1, 2, 3))
            assert np.all(moved[~broken] == 0)
            assert np.all(moved[outcome.broken_by == 0] <= EPS + 1e-6)
            assert outcome.images.dtype == np.float32

    def test_stages_count(self, outcomes):
        for outcome in outcomes:
            first, second = outcome.stages
            assert first["attacked"] == outcome.clean.sum()
            assert second["attacked"] == first["robust"] == outcome.left[0].sum()
            assert second["robust"] == outcome.robust.sum()
            # Two rounds of three gradients; broken points are left out of the second.
            assert 3 * second["attacked"] < second["gradients"] < 6 * second["attacked"]
            assert EPS + 1e-6 < second["max_distance"] <= 3 * EPS + 1e-6
            assert first["name"] == "sign" and first["not_finite"] == 0


def run(suite, students, points, key=None, **options):
    key = jax.random.key(5) if key is None else key
    return attacks.run(suite, network, students, *points, key, **options)


class TestNothingElseMatters:
    """Masks by the image, the attack, the round and the key alone."""

    @pytest.fixture
    def suite(self):
        return (sign_attack(EPS), sign_attack(3 * EPS))

    def test_batches(self, outcomes, suite, students, points):
        again = run(suite, students, points, batch_size=45)
        np.testing.assert_array_equal(masks(again), masks(outcomes))

    def test_other_students(self, outcomes, suite, students, points):
        alone = run(suite, students[1:2], points, batch_size=16)
        np.testing.assert_array_equal(masks(alone)[0], masks(outcomes)[1])

    def test_floats_or_bytes(self, outcomes, suite, students, points):
        images = points[0] / np.float32(255) + np.float32(1e-7)  # still an image
        again = run(suite, students, (images, points[1]), batch_size=16)
        np.testing.assert_array_equal(masks(again), masks(outcomes))

    def test_devices(self, outcomes, suite, students, points, monkeypatch):
        """The fixture's are two; here each batch is alone."""
        monkeypatch.setattr(parallel, "device_count", lambda: 1)
        again = run(suite, students, points, batch_size=16)
        np.testing.assert_array_equal(masks(again), masks(outcomes))

    def test_the_key_does(self, outcomes, suite, students, points):
        again = run(suite, students, points, jax.random.key(6), batch_size=16)
        assert np.any(masks(again)[:, 1:] != masks(outcomes)[:, 1:])


class TestEachOnItsOwn:
    def test_every_attack_begins_with_all_points(self, outcomes, students, points):
        suite = (sign_attack(3 * EPS), sign_attack(EPS))
        apart = run(suite, students, points, in_turn=False, batch_size=16)
        for outcome in apart:
            strong, weak = outcome.left
            assert outcome.stages[1]["attacked"] == outcome.clean.sum()
            assert strong.sum() < weak.sum()
            np.testing.assert_array_equal(outcome.robust, strong & weak)
            np.testing.assert_array_equal(
                outcome.broken_by == 0, outcome.clean & ~strong
            )
        # The weaker one is first in the fixture too, with other random numbers.
        assert abs(apart[0].left[1].sum() - outcomes[0].left[0].sum()) <= 3

    def test_a_worst_case_is_no_better_than_any(self, students, points):
        suite = (
            sign_attack(EPS),
            sign_attack(EPS, rounds=1),
            attacks.square(eps=EPS, num_queries=20),
        )
        for outcome in run(suite, students[:1], points, in_turn=False):
            assert outcome.robust.sum() <= min(left.sum() for left in outcome.left)


def fixed(result, name="fixed"):
    """An attack that returns what it is told to, without a step."""
    return base.Attack(
        name, 1, 0, lambda m, images, *_: result(images), None, lambda s: s, 0, 0
    )


class TestWhatCounts:
    def test_no_radius_leaves_all(self, students, points):
        for outcome in run((sign_attack(0.0),), students, points):
            np.testing.assert_array_equal(outcome.robust, outcome.clean)
            assert outcome.stages[0]["max_distance"] == 0

    @pytest.mark.parametrize("outside", [1.1, -0.1, np.nan])
    def test_images_outside_the_box_do_not(self, outside, students, points):
        suite = (fixed(lambda images: (1 - images).at[:, 0, 0, 0].set(outside)),)
        (outcome,) = run(suite, students[:1], points)
        np.testing.assert_array_equal(outcome.robust, outcome.clean)
        bad = outcome.stages[0]["not_finite"]
        assert bad == (outcome.clean.sum() if np.isnan(outside) else 0)

    def test_the_same_inside_do(self, students, points):
        (outcome,) = run((fixed(lambda images: 1 - images),), students[:1], points)
        assert outcome.robust.sum() < outcome.clean.sum()
        assert outcome.stages[0]["max_distance"] > 0.9

    def test_nobody_left_is_no_error(self, students, points):
        images, _ = points
        wrong = np.argmax(network(students[0], images / np.float32(255))[0], -1)
        suite = (sign_attack(EPS),)
        (outcome,) = run(suite, students[:1], (images, (np.array(wrong) + 1) % 3))
        assert not outcome.clean.any() and np.all(outcome.broken_by == -2)
        assert outcome.stages[0]["gradients"] == 0


class TestHooks:
    def test_progress_ends_where_it_said(self, students, points):
        seen = []
        suite = (sign_attack(EPS), sign_attack(3 * EPS))
        run(suite, students, points, observe=lambda *x: seen.append(x), batch_size=16)
        done, totals = zip(*seen)
        assert all(np.diff(done) > 0)
        assert done[-1] == totals[-1]

    def test_remembered_rounds_are_not_made_again(self, outcomes, students, points):
        suite, stored, made = (sign_attack(EPS), sign_attack(3 * EPS)), {}, []

        def remember(stage, round, make):
            if (stage, round) not in stored:
                made.append((stage, round))
                stored[stage, round] = make()
            return stored[stage, round]

        run(suite[:1], students, points, remember=remember, batch_size=16)
        again = run(suite, students, points, remember=remember, batch_size=16)
        assert made == [(0, 0), (0, 1), (1, 0), (1, 1)]
        np.testing.assert_array_equal(masks(again), masks(outcomes))
        with pytest.raises(ValueError, match="gone"):
            run(suite, students, points, remember=remember, keep_images=True)


class TestMisuse:
    def test_normalised_images(self, students, points):
        images = (points[0] / np.float32(255) - 0.5) / 0.25
        with pytest.raises(ValueError, match="Leave the normalisation"):
            run((sign_attack(EPS),), students, (images, points[1]))

    def test_labels_of_others(self, students, points):
        with pytest.raises(ValueError, match="expected"):
            run((sign_attack(EPS),), students, (points[0], points[1][:-1]))

    def test_no_attack(self, students, points):
        with pytest.raises(ValueError, match="0 attacks"):
            run((), students, points)


def test_other_students_compile_nothing(students, points):
    """The shapes of batches are few, and the same for all."""
    traced = []

    def step(model, state, *rest):
        traced.append(1)
        return state

    suite = (fixed(lambda images: images)._replace(step=step, num_steps=2),)
    run(suite, students, points, batch_size=45)
    assert len(traced) <= 3
    before = len(traced)
    run(suite, students[::-1], points, batch_size=45)
    assert len(traced) == before

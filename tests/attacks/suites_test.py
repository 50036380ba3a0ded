"""Whole suites: AutoAttack of two packages, a linear network's known answer, names."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import attacks, models
from ddjax.models import weights
from ddjax.types import DataInfo

FOLDER = pathlib.Path(__file__).parent / "fixtures"
# As make_square_fixtures.py has them.
INFO = DataInfo("noise", tuple("abcde"), (8, 8, 3), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def found():
    with np.load(FOLDER / "autoattack.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def attacked(found):
    """`attacked(suite, **options)`, the Outcome on the fixture's network and images."""
    network = models.create("convnet", INFO, width=6, depth=2)
    like = jax.eval_shape(network.init, jax.random.key(0))
    tensors = {k.removeprefix("weights/"): v for k, v in found.items() if "/" in k}
    variables = weights.from_torch(tensors, like)
    points = found["pixels"], found["labels"]

    def attacked(suite, **options):
        options = {"batch_size": 200, "key": jax.random.key(0), **options}
        return attacks.run(suite, network.apply, [variables], *points, **options)[0]

    return attacked


@pytest.fixture(scope="module")
def suite(found):
    """The standard version with fewer queries, as the fixture was made."""
    eps = float(found["eps"])
    whole = attacks.autoattack(eps, num_classes=5)
    return (*whole[:3], attacks.square(eps=eps, num_queries=int(found["queries"])))


@pytest.fixture(scope="module")
def outcome(attacked, suite):
    return attacked(suite)


class TestAutoAttack:
    def test_the_authors_code(self, outcome, found):
        """Stage by stage: two of 200 points may differ, as their own seeds do by one.

        Starts are drawn by other generators. What all their seeds break, or leave, is
        the same but for those two.
        """
        wanted = found["masks"]  # [seeds, stages, N]
        assert 0.2 < wanted.mean() < 0.8
        always, never = wanted.all(0), ~wanted.any(0)
        assert np.all(np.sum(always & ~outcome.left, 1) <= 2)
        assert np.all(np.sum(never & outcome.left, 1) <= 2)
        apart = np.abs(outcome.left.mean(1) - wanted.mean((0, 2)))
        assert np.all(apart <= 0.01)

    def test_the_one_of_torchattacks(self, attacked, found):
        """Stage by stage, means over three seeds: a point of 200 at most.

        With a hundred steps the first stage would be two points away.
        """
        eps, queries = float(found["eps"]), int(found["queries"])
        square = attacks.square(eps=eps, num_queries=queries, rescale=True)
        suite = (*attacks.torchattacks10(eps, num_classes=5)[:3], square)
        keys = map(jax.random.key, range(3))
        left = np.mean([attacked(suite, key=key).left for key in keys], (0, 2))
        wanted = found["torchattacks"].mean((0, 2))  # of [seeds, stages, N]
        np.testing.assert_allclose(left, wanted, rtol=0, atol=0.005 + 1e-9)

    def test_no_attack_alone_is_stronger(self, outcome, attacked, suite, found):
        eps = float(found["eps"])
        alone = attacked((*attacks.named("pgd20", eps, 5), suite[-1]), in_turn=False)
        assert outcome.robust.sum() <= alone.left.sum(1).min()
        assert outcome.robust.sum() < alone.clean.sum()

    def test_another_batch_size(self, outcome, attacked, suite):
        """One point may be at the edge of float32, where convolutions sum anew."""
        again = attacked(suite[:2], batch_size=64)
        assert np.sum(again.left != outcome.left[:2]) <= 1


class TestLinear:
    """logits = W x + b: what can be broken is known."""

    classes, count, eps = 5, 60, 0.01

    @pytest.fixture
    def points(self):
        random = np.random.default_rng(1)
        images = random.uniform(0.3, 0.7, (self.count, 4, 4, 3)).astype(np.float32)
        matrix = random.normal(size=(48, self.classes)).astype(np.float32)
        logits = (images - 0.5).reshape(self.count, -1) @ matrix
        return images, matrix, logits

    @staticmethod
    def apply(matrix, images):
        return (images - 0.5).reshape(len(images), -1) @ matrix, {}

    def run(self, points, eps):
        images, matrix, logits = points
        suite = attacks.autoattack(eps, num_classes=self.classes)
        suite = (*suite[:3], attacks.square(eps=eps, num_queries=50))
        key = jax.random.key(2)
        points = images, logits.argmax(1), key
        return attacks.run(suite, self.apply, [matrix], *points, batch_size=60)[0]

    def test_known_answer(self, points):
        _, matrix, logits = points
        own = logits.argmax(1)
        apart = np.abs(matrix[:, own, None] - matrix[:, None, :]).sum(0)  # [N, C]
        lead = logits.max(1, keepdims=True) - logits
        others = np.arange(self.classes) != own[:, None]
        reach = np.where(others, lead / np.maximum(apart, 1e-9), np.inf).min(1)
        sure = np.abs(reach / self.eps - 1) > 0.01  # FAB crosses with 5 % to spare
        outcome = self.run(points, self.eps)
        np.testing.assert_array_equal(outcome.robust[sure], (reach > self.eps)[sure])
        assert 0.2 < outcome.robust.mean() < 0.8 and sure.mean() > 0.9

    def test_no_radius_breaks_nothing(self, points):
        outcome = self.run(points, 0.0)
        assert outcome.robust.all()


class TestVersions:
    def test_standard(self):
        suite = attacks.autoattack(8 / 255, num_classes=1000)
        assert [a.name for a in suite] == ["apgd-ce", "apgd-t", "fab-t", "square"]
        # Start and 100 steps; nine targets.
        assert [(a.rounds, a.gradients) for a in suite[:2]] == [(1, 101), (9, 101)]
        assert suite[2].rounds == 9 and suite[3].forwards == 5001

    def test_few_classes_have_fewer_targets(self):
        suite = attacks.autoattack(8 / 255, num_classes=5)
        assert [a.rounds for a in suite] == [1, 4, 4, 1]

    def test_plus(self):
        suite = attacks.autoattack(8 / 255, num_classes=10, version="plus")
        names = ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
        assert [a.name for a in suite] == names
        assert [a.rounds for a in suite] == [5, 5, 5, 1, 9, 9]

    def test_rand(self):
        suite = attacks.autoattack(8 / 255, num_classes=10, version="rand")
        assert [a.name for a in suite] == ["apgd-ce", "apgd-dlr"]
        assert [a.gradients for a in suite] == [20 * 101, 20 * 101]

    def test_torchattacks_makes_ten_steps(self):
        suite = attacks.torchattacks10(1 / 255, num_classes=10)
        assert [a.num_steps for a in suite[:3]] == [10, 10, 10]
        assert suite[3] is attacks.square(eps=1 / 255, rescale=True)

    @pytest.mark.parametrize(
        ("wrong", "word"),
        [
            ({"version": "best"}, "standard, plus, rand"),
            ({"norm": "l2"}, "apgd_ce_l2"),
            ({"num_classes": 3}, "compares 4"),
            ({"version": "plus", "num_classes": 11}, "use autoattack"),
        ],
    )
    def test_what_cannot_be_is_refused(self, wrong, word):
        with pytest.raises(ValueError, match=word):
            attacks.autoattack(0.1, **{"num_classes": 10} | wrong)


class TestNamed:
    @pytest.mark.parametrize(
        "name",
        ["fgsm", "pgd7", "pgd7_l2", "pgd7_margin", "pgd7_margin_l2", "mim", "vmi_fgsm"]
        + ["cw", "cw_torchattacks", "square", "apgd_ce", "apgd_dlr", "apgd_t", "fab_t"]
        + ["apgd_ce_l2", "apgd_dlr_l2", "apgd_t_l2", "autoattack", "autoattack_plus"]
        + ["autoattack_rand", "torchattacks10"],
    )
    def test_known_names_are_the_same_objects_again(self, name):
        suite = attacks.named(name, 2 / 255, 10)
        again = attacks.named(name, 2 / 255, 10)
        assert all(isinstance(attack, attacks.Attack) for attack in suite)
        assert all(a is b for a, b in zip(suite, again, strict=True))

    def test_parts_are_the_suites_own(self):
        whole = attacks.named("autoattack", 1 / 255, 10)
        parts = ("apgd_ce", "apgd_t", "fab_t", "square")
        for attack, name in zip(whole, parts, strict=True):
            assert attacks.named(name, 1 / 255, 10)[0] is attack
        margin = attacks.named("pgd100_margin", 1 / 255, 10)
        assert attacks.named("cw", 1 / 255, 10)[0] is margin[0]

    def test_settings_of_guard(self):
        (pgd,) = attacks.named("pgd100", 1 / 255, 10)
        (mim,) = attacks.named("mim", 1 / 255, 10)
        assert (pgd.num_steps, mim.num_steps, pgd.rounds) == (100, 20, 1)
        images = jnp.full((1, 2, 2, 1), 0.5)
        labels, keys = jnp.zeros(1, int), jax.random.split(jax.random.key(0), 1)

        def model(images):
            return jnp.stack([images.sum((1, 2, 3)), jnp.zeros(1)], 1)

        start = mim.init(model, images, labels, keys, 0)
        moved = mim.result(mim.step(model, start, 0, images, labels, keys))
        np.testing.assert_allclose(moved, 0.5 - 1 / 255, atol=1e-7)
        start = pgd.init(model, images, labels, keys, 0)
        moved = pgd.result(pgd.step(model, start, 0, images, labels, keys))
        step = pgd.result(start) - 0.25 / 255
        np.testing.assert_allclose(moved, jnp.maximum(step, 0.5 - 1 / 255), atol=1e-7)

    @pytest.mark.parametrize("name", ["pgd", "pgd0", "aa", "square_l2", "fgsm_l2"])
    def test_unknown_names_list_the_known(self, name):
        with pytest.raises(ValueError, match="known: .*pgd<N>.*square"):
            attacks.named(name, 1 / 255, 10)

    def test_few_classes(self):
        attacks.named("apgd_dlr", 1 / 255, 3)
        with pytest.raises(ValueError, match="compares 4"):
            attacks.named("apgd_t", 1 / 255, 3)

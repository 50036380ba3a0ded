"""Scores."""

import math
import statistics

import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import metrics


def classify(variables, images):
    """Class 1 where the mean pixel, in [0, 1], is above a threshold."""
    mean = images.mean((1, 2, 3))
    return jnp.stack([jnp.full_like(mean, variables), mean], -1), {}


@pytest.fixture(scope="module")
def toy():
    """37 images of one grey level each, and labels half of which are true."""
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, 37).astype(np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (37, 2, 3, 1))
    labels = random.integers(0, 2, 37)
    return levels, images, labels


class TestAccuracy:
    @pytest.mark.parametrize("batch_size", [1, 5, 36, 37, 38, 500])
    def test_equals_counting_whatever_the_batch(self, toy, batch_size):
        levels, images, labels = toy
        wanted = np.mean((levels > 0.6 * 255) == labels)
        assert 0.2 < wanted < 0.8
        got = metrics.accuracy(classify, 0.6, images, labels, batch_size=batch_size)
        assert got == pytest.approx(wanted, abs=1e-12)

    @pytest.mark.parametrize("truth", [0, 1])
    def test_padding_is_not_counted(self, truth):
        """Padding is black: class 0, which would be right or wrong everywhere."""
        images = np.full((3, 2, 2, 1), 255 * truth, np.uint8)
        labels = np.full(3, truth)
        assert metrics.accuracy(classify, 0.5, images, labels, batch_size=8) == 1.0
        assert metrics.accuracy(classify, 0.5, images, 1 - labels, batch_size=8) == 0.0

    def test_network_sees_pixels_in_the_unit_interval(self):
        images = np.full((1, 2, 2, 1), 51, np.uint8)  # 0.2
        assert metrics.accuracy(classify, 0.19, images, np.array([1])) == 1.0
        assert metrics.accuracy(classify, 0.21, images, np.array([0])) == 1.0

    def test_type_does_not_matter(self, toy):
        _, images, labels = toy
        wanted = metrics.accuracy(classify, 0.6, images, labels)
        got = metrics.accuracy(classify, 0.6, jnp.asarray(images), jnp.asarray(labels))
        assert got == wanted and type(got) is float


class TestMeanAndStd:
    def test_equals_the_standard_library(self):
        values = [0.31, 0.35, 0.305, 0.4]
        mean, std, count = metrics.mean_and_std(values)
        assert mean == pytest.approx(statistics.mean(values), rel=1e-12)
        assert std == pytest.approx(statistics.stdev(values), rel=1e-12)
        assert count == 4

    def test_one_value_has_no_spread(self):
        mean, std, count = metrics.mean_and_std([0.7])
        assert (mean, count) == (0.7, 1)
        assert math.isnan(std)


# Whole data, distilled with hard labels, distilled with soft ones, random with soft.
EXAMPLES = (
    ((0.84, 0.45, 0.60, 0.50), 0.2115),
    ((0.565, 0.14, 0.42, 0.39), 0.1927),
)


class TestScores:
    """Golden values worked out from the paper's formulas."""

    @pytest.mark.parametrize("accuracies, wanted", EXAMPLES)
    def test_label_robust_score(self, accuracies, wanted):
        whole, hard, soft, random = accuracies
        got = metrics.lrs(metrics.hlr(whole, hard), metrics.ior(soft, random))
        assert got == pytest.approx(wanted, abs=5e-5)

    @pytest.mark.parametrize("accuracies, _", EXAMPLES)
    def test_the_released_package_prints_another(self, accuracies, _):
        """Its percentages in the same formula: both examples get one wrong score."""
        whole, hard, soft, random = (100 * a for a in accuracies)
        alpha = 0.5 * (soft - random) - 0.5 * (whole - hard)
        theirs = (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))
        assert theirs == pytest.approx(-0.1565, abs=5e-5)
        with pytest.raises(ValueError, match="Divide percentages by 100"):
            metrics.hlr(whole, hard)

    def test_a_lead_of_twenty_points(self):
        assert metrics.ars(0.2, 0.2) == pytest.approx(0.363, abs=5e-4)
        with pytest.raises(ValueError, match=r"augmented is 20, .* in \[-1, 1\]"):
            metrics.ars(20, 20)  # 2e8 in the released package

    def test_neither_better_than_random_nor_worse_than_everything(self):
        assert metrics.lrs(0.0, 0.0) == pytest.approx(0.2689, abs=5e-5)
        assert metrics.ars(0.0, 0.0) == pytest.approx(0.2689, abs=5e-5)

    def test_ends_of_the_scale(self):
        assert metrics.lrs(1.0, -1.0) == pytest.approx(0, abs=1e-12)
        assert metrics.lrs(-1.0, 1.0) == pytest.approx(1)
        assert metrics.ars(-1.0, -1.0) == pytest.approx(0, abs=1e-12)
        assert metrics.ars(1.0, 1.0) == pytest.approx(1)

    def test_weight_chooses_the_part(self):
        assert metrics.lrs(0.3, 0.1, weight=1) == pytest.approx(metrics.ars(0.1, 0.1))
        assert metrics.lrs(0.3, 0.1, weight=0) == pytest.approx(metrics.ars(-0.3, -0.3))
        assert metrics.ars(0.3, 0.1, weight=1) == pytest.approx(metrics.ars(0.3, 0.3))

    @pytest.mark.parametrize("wrong", [-0.1, 1.01, 45, math.nan])
    def test_percentages_are_refused(self, wrong):
        for call in (
            lambda: metrics.hlr(wrong, 0.5),
            lambda: metrics.hlr(0.5, wrong),
            lambda: metrics.ior(wrong, 0.5),
            lambda: metrics.ior(0.5, wrong),
            lambda: metrics.lrs(0.5, 0.5, weight=wrong),
        ):
            with pytest.raises(ValueError, match="are fractions here"):
                call()

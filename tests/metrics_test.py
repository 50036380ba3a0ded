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

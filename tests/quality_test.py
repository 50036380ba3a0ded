"""Measures of images against other libraries, and on images made to be caught."""

import io
import math

import numpy as np
import ot as pot
import pytest
from PIL import Image
from scipy import spatial
from sklearn import neighbors
from sklearn.metrics import pairwise

from ddjax import quality


@pytest.fixture(scope="module")
def random():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def images(random):
    return random.integers(0, 256, (23, 4, 5, 3), dtype=np.uint8)


class TestRedundancy:
    def test_equals_the_mean_of_scikit_learns_pairs(self, random):
        features = random.normal(size=(9, 5)).astype(np.float32) + 0.5
        labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
        means = []
        for k in range(3):
            alike = pairwise.cosine_similarity(features[labels == k])
            means.append(alike[np.triu_indices(len(alike), 1)].mean())
        got = quality.redundancy(features, labels)
        assert got == pytest.approx(np.mean(means), rel=1e-6)

    def test_the_same_image_again_and_opposite_ones(self):
        same, labels = np.ones((3, 4)), np.zeros(3, int)
        assert quality.redundancy(same, labels) == pytest.approx(1)
        assert quality.redundancy(np.array([[1.0], [-1]]), labels[:2]) == -1

    def test_a_class_of_one_image_says_nothing(self):
        features = np.array([[1.0, 0], [0, 1], [1, 0]])
        assert quality.redundancy(features, np.array([0, 0, 1])) == 0
        assert math.isnan(quality.redundancy(features, np.arange(3)))

    def test_a_feature_of_zeros_is_like_nothing(self):
        assert quality.redundancy(np.zeros((2, 3)), np.zeros(2, int)) == 0


class TestHalves:
    def test_equals_scikit_learns_nearest_neighbour(self, random):
        images = random.integers(0, 256, (14, 3, 3, 1), dtype=np.uint8)
        labels = np.repeat([0, 1, 2], [6, 5, 3])
        first = np.concatenate([np.arange(0, 6, 2), np.arange(6, 11, 2), [11, 13]])
        second = np.setdiff1d(np.arange(14), first)
        flat, right = images.reshape(14, -1).astype(float), 0
        for mine, other in ((first, second), (second, first)):
            model = neighbors.KNeighborsClassifier(1).fit(flat[other], labels[other])
            right += np.sum(model.predict(flat[mine]) == labels[mine])
        assert quality.halves(images, labels) == pytest.approx(right / 14)

    def test_a_set_that_says_everything_twice(self):
        images = np.repeat(np.arange(3, dtype=np.uint8), 2)[:, None, None, None]
        assert quality.halves(images, np.repeat([0, 1, 2], 2)) == 1

    def test_a_class_of_one_image_says_nothing(self):
        images = np.zeros((3, 1, 1, 1), np.uint8)
        assert math.isnan(quality.halves(images, np.array([0, 0, 1])))


class TestNearest:
    @pytest.mark.parametrize("batch_size", [1, 7, 23, 1000])
    def test_images_as_scikit_learn_finds_them(self, images, random, batch_size):
        points = random.integers(0, 256, (8, 4, 5, 3), dtype=np.uint8)
        flat = images.reshape(23, -1) / 255
        index = neighbors.NearestNeighbors(n_neighbors=1).fit(flat)
        wanted, row = index.kneighbors(points.reshape(8, -1) / 255)
        got, distance = quality.nearest(points, images, batch_size=batch_size)
        np.testing.assert_array_equal(got, row[:, 0])
        np.testing.assert_allclose(distance, wanted[:, 0], rtol=1e-6)

    def test_features_as_scipy_finds_them(self, random):
        x, y = random.normal(size=(5, 6)), random.normal(size=(40, 6)) * 3
        cost = spatial.distance.cdist(x, y)
        rows, distances = quality.nearest(x, y, batch_size=16)
        np.testing.assert_array_equal(rows, cost.argmin(1))
        np.testing.assert_allclose(distances, cost.min(1), rtol=1e-6)

    def test_a_copy_is_at_no_distance(self, images):
        far = images.astype(np.float32) + 1e4  # where squares lose the difference
        for space in (images, far):
            rows, distances = quality.nearest(space[[3, 17]], space)
            np.testing.assert_array_equal(rows, [3, 17])
            np.testing.assert_array_equal(distances, 0)

    @pytest.mark.parametrize("batch_size", [4, 1000])
    def test_left_out_rows_do_not_count(self, images, batch_size):
        cost = spatial.distance.cdist(*[images.reshape(23, -1) / 255] * 2)
        np.fill_diagonal(cost, np.inf)
        rows, distances = quality.nearest(
            images, images, leave_out=np.arange(23), batch_size=batch_size
        )
        np.testing.assert_array_equal(rows, cost.argmin(1))
        np.testing.assert_allclose(distances, cost.min(1), rtol=1e-6)


class TestRealNearest:
    def test_of_all_images_it_is_the_other_nearest(self, images):
        cost = spatial.distance.cdist(*[images.reshape(23, -1) / 255] * 2)
        np.fill_diagonal(cost, np.inf)
        got = quality.real_nearest(images, batch_size=10)
        np.testing.assert_allclose(got, cost.min(1), rtol=1e-6)

    def test_a_sample_is_drawn_of_many(self, images):
        everything = quality.real_nearest(images)
        got = quality.real_nearest(images, size=6, seed=1)
        assert len(got) == 6 and np.isin(got, everything).all()
        assert not np.array_equal(got, quality.real_nearest(images, size=6, seed=2))

    def test_an_image_twice_is_near_itself(self, images):
        twice = np.concatenate([images, images[:1]])
        assert (quality.real_nearest(twice) == 0).sum() == 2


class TestCopies:
    def test_finds_the_planted_ones_only(self, images, random):
        mine = random.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
        mine[1], mine[4] = images[20], images[0]
        mine[5] = images[7]
        mine[5, 0, 0, 0] ^= 1  # one bit of one pixel
        for batch_size in (3, 1000):
            got = quality.copies(mine, quality.digests(images, batch_size=batch_size))
            np.testing.assert_array_equal(got, [0, 1, 0, 0, 1, 0])
            assert got.dtype == bool

    def test_the_same_bytes_of_another_shape_are_another_image(self, images):
        turned = images.reshape(23, 5, 4, 3)
        assert not quality.copies(turned, quality.digests(images)).any()

    def test_among_no_images_there_is_no_copy(self, images):
        known = quality.digests(images[:0])
        assert known.shape == (0, 16)
        np.testing.assert_array_equal(quality.copies(images[:2], known), [False, False])


class TestWasserstein:
    def test_equals_pot_class_by_class(self, random):
        real, labels = random.normal(size=(30, 4)), np.repeat([0, 1, 2], 10)
        made, own = random.normal(size=(7, 4)) + 1, np.array([0, 0, 0, 1, 1, 2, 2])
        weights = random.uniform(0.1, 1, 7)
        wanted = []
        for k in range(3):
            cost = spatial.distance.cdist(real[labels == k], made[own == k]) ** 2
            mass = weights[own == k] / weights[own == k].sum()
            wanted.append(math.sqrt(pot.emd2(np.full(10, 0.1), mass, cost)))
        got = quality.wasserstein(real, labels, made, own, weights)
        assert got == pytest.approx(np.mean(wanted), rel=1e-5)

    def test_one_image_is_at_the_root_mean_square(self, random):
        real, point = random.normal(size=(12, 3)), random.normal(size=(1, 3))
        wanted = math.sqrt(np.mean(np.sum((real - point) ** 2, 1)))
        got = quality.wasserstein(real, np.zeros(12, int), point, np.zeros(1, int), [5])
        assert got == pytest.approx(wanted, rel=1e-5)

    def test_all_real_images_are_at_no_distance(self, random):
        real, labels = random.normal(size=(12, 3)), np.repeat([0, 1], 6)
        got = quality.wasserstein(real, labels, real, labels, np.ones(12))
        assert got == pytest.approx(0, abs=1e-3)

    def test_a_class_without_real_images_is_told(self, random):
        real = random.normal(size=(4, 3))
        with pytest.raises(ValueError, match="no real image has the label 1"):
            quality.wasserstein(real, np.zeros(4), real, np.ones(4), np.ones(4))


class TestPngBytes:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_files_of_these_sizes_hold_the_images(self, images, channels):
        mine, total = images[:3, ..., :channels], 0
        for image in mine:
            file = io.BytesIO()
            Image.fromarray(image.squeeze()).save(file, "png", optimize=True)
            back = np.asarray(Image.open(file)).reshape(image.shape)
            np.testing.assert_array_equal(back, image)
            total += len(file.getvalue())
        assert quality.png_bytes(mine) == total

    def test_plain_images_take_less(self, images):
        plain = np.zeros((3, 64, 64, 3), np.uint8)
        noise = np.random.default_rng(0).integers(0, 256, plain.shape, np.uint8)
        assert quality.png_bytes(plain) < quality.png_bytes(noise) / 10

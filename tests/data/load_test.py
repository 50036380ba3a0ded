"""Data sets: the embedded digits, sorting by class, holding out, identity."""

import numpy as np
import pytest
from sklearn import datasets

from ddjax import data
from ddjax.types import DataInfo, Dataset


@pytest.fixture(scope="module")
def train():
    return data.load("digits", "train")


@pytest.fixture(scope="module")
def test():
    return data.load("digits", "test")


def info_of(classes="abc", shape=(2, 2, 1)):
    return DataInfo(
        "toy", tuple(classes), shape, (0.5,) * shape[-1], (0.2,) * shape[-1]
    )


def rows_of(images):
    """Each image as bytes, so that images can be counted."""
    return [image.tobytes() for image in np.asarray(images)]


class TestDigits:
    def test_sizes_and_types(self, train, test):
        assert train.images.shape == (1437, 8, 8, 1)
        assert test.images.shape == (360, 8, 8, 1)
        for part in (train, test):
            assert part.images.dtype == np.uint8
            assert part.labels.dtype == np.int32
            assert part.labels.shape == (len(part.images),)

    def test_splits_share_out_scikit_learn_s_images(self, train, test):
        source = datasets.load_digits()
        pixels = np.rint(source.images * 255 / 16).astype(np.uint8)[..., None]
        both = rows_of(train.images) + rows_of(test.images)
        assert sorted(both) == sorted(rows_of(pixels))
        label_of = dict(zip(rows_of(pixels), source.target))
        assert len(label_of) == 1797  # no image twice, so nothing is in both splits
        for part in (train, test):
            wanted = [label_of[row] for row in rows_of(part.images)]
            np.testing.assert_array_equal(part.labels, wanted)

    def test_a_fifth_of_every_class_is_held_for_testing(self, train, test):
        kept, held = np.bincount(train.labels), np.bincount(test.labels)
        np.testing.assert_allclose(held, (kept + held) * 360 / 1797, atol=1)

    def test_grey_levels_reach_both_ends(self, train):
        assert len(np.unique(train.images)) == 17
        assert train.images.min() == 0 and train.images.max() == 255

    def test_classes_are_in_order(self, train, test):
        for part in (train, test):
            assert np.all(np.diff(part.labels) >= 0)
            assert part.info.classes == tuple("0123456789")
            assert part.info.num_classes == 10

    def test_split_is_the_same_every_time(self, train):
        again = data.load("digits")  # the training split is the default
        np.testing.assert_array_equal(again.images, train.images)
        np.testing.assert_array_equal(again.labels, train.labels)

    def test_mean_and_std_are_the_training_split_s(self, train, test):
        pixels = train.images / 255
        np.testing.assert_allclose(train.info.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(train.info.std, pixels.std((0, 1, 2)), rtol=1e-12)
        assert test.info == train.info

    def test_unknown_names_and_splits_raise(self):
        with pytest.raises(ValueError, match="unknown data set 'mnist'; known: digits"):
            data.load("mnist")
        with pytest.raises(ValueError, match="unknown split 'val'; known: train, test"):
            data.load("digits", "val")


class TestNormaliseInfo:
    def test_channels_are_kept_apart(self):
        images = np.random.default_rng(0).integers(0, 256, (7, 5, 3, 3), dtype=np.uint8)
        images[..., 2] //= 3
        info = data.normalise_info("toy", images, ["a", "b"])
        np.testing.assert_allclose(info.mean, (images / 255).mean((0, 1, 2)))
        np.testing.assert_allclose(info.std, (images / 255).std((0, 1, 2)))
        assert info.shape == (5, 3, 3) and info.classes == ("a", "b")

    def test_plain_numbers_that_can_be_hashed(self):
        images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
        info = data.normalise_info("toy", images, ["a"])
        assert isinstance(hash(info), int)
        assert {type(x) for x in (*info.mean, *info.std)} == {float}

    @pytest.mark.parametrize("level", [0, 77, 255])
    def test_constant_channel_raises(self, level):
        images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
        images[..., 1] = level
        with pytest.raises(ValueError, match="toy: a colour channel is constant"):
            data.normalise_info("toy", images, ["a"])


class TestClassMajor:
    def test_sorts_stably(self):
        """Many images: numpy's quicksort keeps the order of a few."""
        labels = np.random.default_rng(0).integers(0, 3, 200)
        images = np.arange(200, dtype=np.uint8)[:, None, None, None]
        sorted_set = data.class_major(images, labels, info_of())
        wanted = [row for k in range(3) for row in range(200) if labels[row] == k]
        np.testing.assert_array_equal(sorted_set.images.ravel(), wanted)
        np.testing.assert_array_equal(sorted_set.labels, labels[wanted])
        assert sorted_set.labels.dtype == np.int32

    def test_slices_are_the_rows_of_the_classes(self, tiny_data):
        slices = data.class_slices(tiny_data)
        assert slices == [slice(0, 4), slice(4, 9), slice(9, 15)]
        for k, rows in enumerate(slices):
            assert set(tiny_data.labels[rows]) == {k}

    @pytest.mark.parametrize("label", [-1, 3])
    def test_label_out_of_range_raises(self, label):
        images = np.zeros((4, 2, 2, 1), np.uint8)
        with pytest.raises(ValueError, match=f"label {label} is out of range; 3 cl"):
            data.class_major(images, [0, 1, 2, label], info_of())

    def test_class_without_images_raises_with_its_name(self):
        images = np.zeros((2, 2, 2, 1), np.uint8)
        with pytest.raises(ValueError, match=r"1 of 3 classes have no images: 1 \(b\)"):
            data.class_major(images, [0, 2], info_of())


class TestHoldOut:
    def test_parts_make_up_the_whole(self, train):
        rest, held = data.hold_out(train, 0.1)
        both = rows_of(rest.images) + rows_of(held.images)
        assert sorted(both) == sorted(rows_of(train.images))
        assert rest.info == held.info == train.info

    def test_takes_the_share_of_each_class_rounded_up(self, train):
        _, held = data.hold_out(train, 0.1)
        wanted = np.ceil(0.1 * np.bincount(train.labels))
        np.testing.assert_array_equal(np.bincount(held.labels), wanted)

    def test_labels_stay_with_their_images(self, train):
        label_of = dict(zip(rows_of(train.images), train.labels))
        for part in data.hold_out(train, 0.3):
            wanted = [label_of[row] for row in rows_of(part.images)]
            np.testing.assert_array_equal(part.labels, wanted)
            assert np.all(np.diff(part.labels) >= 0)

    def test_seed_fixes_the_draw(self, train):
        first, again, other = (
            rows_of(data.hold_out(train, 0.2, seed)[1].images) for seed in (3, 3, 4)
        )
        assert first == again
        assert first != other

    def test_rows_of_a_class_are_drawn_and_not_cut(self, train):
        """The held-out images are not simply the first of their class."""
        _, held = data.hold_out(train, 0.5)
        zeros = train.images[train.labels == 0]
        first = rows_of(zeros[: len(zeros) // 2])
        assert len(set(rows_of(held.images[held.labels == 0])) & set(first)) < 60

    @pytest.mark.parametrize(("fraction", "size"), [(0.07, 100), (0.28, 25)])
    def test_whole_shares_are_not_rounded_up(self, fraction, size):
        """fraction * size is 7.000000000000001 in floating point."""
        labels = np.zeros(size, np.int32)
        images = np.zeros((size, 2, 2, 1), np.uint8)
        _, held = data.hold_out(Dataset(images, labels, info_of("a")), fraction)
        assert len(held.labels) == 7

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0])
    def test_fraction_out_of_range_raises(self, tiny_data, fraction):
        with pytest.raises(ValueError, match=r"must lie in \(0, 1\); got"):
            data.hold_out(tiny_data, fraction)

    def test_class_that_would_be_emptied_raises(self, tiny_data):
        with pytest.raises(ValueError, match="a class of 4 images cannot give 4 away"):
            data.hold_out(tiny_data, 0.9)


class TestFingerprint:
    def test_is_the_same_for_equal_sets(self, tiny_data):
        copy = Dataset(tiny_data.images.copy(), tiny_data.labels.copy(), tiny_data.info)
        assert data.fingerprint(copy) == data.fingerprint(tiny_data)
        strided = np.asfortranarray(tiny_data.images)
        other = tiny_data._replace(images=strided)
        assert data.fingerprint(other) == data.fingerprint(tiny_data)

    def test_changes_with_everything_that_identifies_the_data(self, tiny_data):
        pixels = tiny_data.images.copy()
        pixels[3, 2, 1, 0] ^= 1
        labels = tiny_data.labels.copy()
        labels[3] = 1
        classes = ("a", "b", "d")
        joined = ("a", "bc", "")  # the names run together are the same
        changed = [
            tiny_data,
            tiny_data._replace(images=pixels),
            tiny_data._replace(labels=labels),
            tiny_data._replace(images=tiny_data.images[::-1]),
            tiny_data._replace(images=tiny_data.images.reshape(15, 4, 16, 3)),
            tiny_data._replace(info=tiny_data.info._replace(classes=classes)),
            tiny_data._replace(info=tiny_data.info._replace(classes=joined)),
        ]
        prints = [data.fingerprint(dataset) for dataset in changed]
        assert len(set(prints)) == len(prints)

"""Streamed batches: the same from any step, for any number of workers and hosts."""

import itertools
import threading
import time

import jax
import numpy as np
import pytest
from scipy import stats

from ddjax import data
from ddjax.data import augment, decode, prepare, stream
from ddjax.data.records import Records
from ddjax.types import DataInfo, Dataset

COUNTS = (5, 4, 4)


@pytest.fixture(scope="module")
def pictures():
    """13 images of 13 sizes, by class."""
    random = np.random.default_rng(0)
    return [
        [
            random.integers(0, 256, (18 + 3 * k + i, 27 - i, 3), dtype=np.uint8)
            for i in range(count)
        ]
        for k, count in enumerate(COUNTS)
    ]


@pytest.fixture(scope="module")
def on_disk(pictures, tmp_path_factory):
    """The set of the pictures, prepared, and left on disk."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for split in ("train", "test"):
        for k, images in enumerate(pictures):
            (folder / split / f"class{k}").mkdir(parents=True)
            for i, image in enumerate(images):
                path = folder / split / f"class{k}" / f"{i}.png"
                Image.fromarray(image).save(path)
    kept = tmp_path_factory.mktemp("kept")
    prepare.from_source(folder, "pictures", kept)
    dataset = data.load("pictures", folder=kept, size=16, memory_gb=0)
    assert isinstance(dataset.images, Records)
    return dataset


@pytest.fixture(scope="module")
def in_memory():
    """13 images of one size; each has its row in all its pixels."""
    images = np.broadcast_to(np.arange(13)[:, None, None, None], (13, 12, 12, 1))
    info = DataInfo("rows", ("a", "b", "c"), (12, 12, 1), (0.5,), (0.2,))
    labels = np.repeat(np.arange(3, dtype=np.int32), COUNTS)
    return Dataset(images.astype(np.uint8), labels, info)


def same(got, wanted):
    """Whether two sequences of batches are equal, to the last bit."""
    got, wanted = list(got), list(wanted)
    assert len(got) == len(wanted)
    for batches in zip(got, wanted):
        for a, b in zip(*batches):
            np.testing.assert_array_equal(a, b)


class TestRows:
    def test_an_epoch_shows_every_row_and_ends_with_its_front(self, in_memory):
        batches = stream.Stream(in_memory, 0, 5, size=12)
        assert batches.steps_per_epoch == 3
        orders = []
        for epoch in range(4):
            steps = range(3 * epoch, 3 * epoch + 3)
            rows = np.concatenate([batches.rows(step) for step in steps])
            np.testing.assert_array_equal(np.sort(rows[:13]), np.arange(13))
            np.testing.assert_array_equal(rows[13:], rows[:2])
            orders.append(tuple(rows))
        assert len(set(orders)) == 4

    def test_seeds_have_different_orders(self, in_memory):
        a, b = (stream.Stream(in_memory, seed, 13, size=12) for seed in (0, 1))
        assert not np.array_equal(a.rows(0), b.rows(0))

    def test_hosts_share_the_rows_of_each_batch(self, in_memory):
        whole = stream.Stream(in_memory, 3, 6, size=12)
        parts = [stream.Stream(in_memory, 3, 6, size=12, host=(i, 3)) for i in range(3)]
        for step in range(7):
            rows = [part.rows(step) for part in parts]
            assert [len(part) for part in rows] == [2, 2, 2]
            np.testing.assert_array_equal(np.concatenate(rows), whole.rows(step))

    def test_a_batch_larger_than_the_set_is_cut(self, in_memory):
        rows = stream.Stream(in_memory, 0, 100, size=12).rows(1)
        np.testing.assert_array_equal(np.sort(rows), np.arange(13))


class TestBatch:
    def test_images_and_labels_belong_together(self, in_memory):
        batches = stream.Stream(in_memory, 0, 5, size=12)
        for step in range(4):
            images, labels = batches[step]
            assert images.shape == (5, 12, 12, 1) and images.dtype == np.uint8
            assert labels.dtype == np.int32
            np.testing.assert_array_equal(images[:, 3, 7, 0], batches.rows(step))
            wanted = in_memory.labels[batches.rows(step)]
            np.testing.assert_array_equal(labels, wanted)

    def test_without_a_crop_it_is_the_middle_of_each_image(self, on_disk, pictures):
        """Of the images at their own size, whatever size the set is loaded at."""
        batches = stream.Stream(on_disk, 0, 6, size=14)
        flat = list(itertools.chain(*pictures))
        images, labels = batches[1]
        for image, label, row in zip(images, labels, batches.rows(1)):
            # Within a class the order is the source's, which TFDS shuffled.
            first = sum(COUNTS[:label])
            assert first <= row < first + COUNTS[label]
            known = flat[first : first + COUNTS[label]]
            assert any(
                np.array_equal(image, decode.resize_and_crop(picture, 14))
                for picture in known
            )

    def test_all_images_of_an_epoch_are_different_ones(self, on_disk):
        images, _ = stream.Stream(on_disk, 0, 13, size=14)[0]
        assert len({image.tobytes() for image in images}) == 13

    def test_crops_are_of_the_image_at_its_full_size(self, on_disk):
        """Every crop is torchvision's of the decoded image, for some box."""
        batches = stream.Stream(on_disk, 0, 13, size=9, crop_scale=(0.08, 1.0))
        images, _ = batches[2]
        for image, row in zip(images, batches.rows(2)):
            whole = decode.decode(on_disk.images.encoded(row), 3)
            random = np.random.default_rng((0, 2, int(row) + 1))
            box = stream.sample_crop(random, *whole.shape[:2], (0.08, 1.0))
            wanted = decode.crop_and_resize(whole, box, 9)
            np.testing.assert_array_equal(image, wanted)

    def test_crops_differ_from_epoch_to_epoch_and_not_with_the_batch(self, on_disk):
        def by_row(batch_size, epoch):
            batches = stream.Stream(
                on_disk, 0, batch_size, size=9, crop_scale=(0.08, 0.5)
            )
            per_epoch = batches.steps_per_epoch
            seen = {}
            for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
                for row, image in zip(batches.rows(step), batches[step][0]):
                    seen[int(row)] = image.tobytes()
            return seen

        assert by_row(13, 0) == by_row(4, 0)
        first, second = by_row(13, 0), by_row(13, 1)
        assert all(first[row] != second[row] for row in range(13))

    def test_arrays_are_cropped_as_well(self, in_memory):
        """Each image is of one value: no crop changes it."""
        batches = stream.Stream(in_memory, 0, 5, size=7, crop_scale=(0.1, 0.4))
        images, _ = batches[0]
        wanted = np.broadcast_to(batches.rows(0)[:, None, None, None], (5, 7, 7, 1))
        np.testing.assert_array_equal(images, wanted)

    def test_a_damaged_image_is_named(self, on_disk, monkeypatch):
        monkeypatch.setattr(Records, "encoded", lambda self, row: b"no image")
        with pytest.raises(ValueError, match="image [0-9]+ of pictures: "):
            stream.Stream(on_disk, 0, 2, size=8)[0]


class TestRead:
    @pytest.mark.parametrize("crop_scale", [None, (0.08, 1.0)])
    def test_gives_the_batches_of_the_steps_in_their_order(self, on_disk, crop_scale):
        batches = stream.Stream(on_disk, 1, 5, size=8, crop_scale=crop_scale)
        wanted = [batches[step] for step in range(8)]
        same(batches.read(range(8)), wanted)

    def test_resumes_in_the_middle_of_an_epoch(self, on_disk):
        batches = stream.Stream(on_disk, 1, 5, size=8, crop_scale=(0.08, 1.0))
        whole = list(batches.read(range(8)))
        again = stream.Stream(on_disk, 1, 5, size=8, crop_scale=(0.08, 1.0))
        same(again.read(range(4, 8)), whole[4:])

    def test_workers_change_nothing(self, on_disk):
        batches = stream.Stream(on_disk, 1, 5, size=8, crop_scale=(0.08, 1.0))
        same(batches.read(range(2, 7), workers=2), batches.read(range(2, 7)))

    def test_no_steps_are_no_batches(self, in_memory):
        assert not list(stream.Stream(in_memory, 0, 5, size=12).read(range(3, 3)))

    def test_the_next_batch_is_made_while_the_first_is_used(self, in_memory):
        made, second = [], threading.Event()

        class Watched(stream.Stream):
            def __getitem__(self, step):
                made.append(step)
                if step == 1:
                    second.set()
                return super().__getitem__(step)

        batches = Watched(in_memory, 0, 5, size=12).read(range(100))
        next(batches)
        assert second.wait(timeout=10)
        # And not all of them, which would fill the memory.
        time.sleep(0.2)
        assert len(made) < 50
        batches.close()

    def test_errors_of_the_threads_arrive(self, on_disk, monkeypatch):
        monkeypatch.setattr(Records, "encoded", lambda self, row: b"")
        with pytest.raises(ValueError, match="image [0-9]+ of pictures: "):
            next(stream.Stream(on_disk, 0, 2, size=8).read(range(4)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": (0, 2)}, "host 0 of 2 cannot have its part of 5 rows"),
        ({"host": (5, 5)}, "host 5 of 5"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale must be"),
        ({"crop_scale": (0.9, 0.5)}, "crop_scale must be"),
        ({"size": 0}, "size 0 is too small"),
        ({"seed": -1}, "seed -1"),
    ],
    ids=str,
)
def test_wrong_numbers_are_refused(in_memory, options, message):
    numbers = {"seed": 0, "batch_size": 5, "size": 12} | options
    with pytest.raises(ValueError, match=message):
        stream.Stream(in_memory, **numbers)


class TestSampleCrop:
    @pytest.mark.parametrize(("height", "width"), [(224, 224), (375, 500), (32, 48)])
    def test_boxes_are_distributed_as_the_device_s(self, height, width):
        random = np.random.default_rng(0)
        host = np.array(
            [
                stream.sample_crop(random, height, width, (0.08, 1.0))
                for _ in range(2000)
            ]
        )
        keys = jax.random.split(jax.random.key(0), 2000)
        sample = jax.vmap(lambda k: augment.sample_crop(k, height, width, (0.08, 1.0)))
        device = np.asarray(jax.jit(sample)(keys))
        for column in range(4):
            test = stats.ks_2samp(host[:, column], device[:, column])
            assert test.pvalue > 1e-3, f"column {column}: {test}"
        areas = [box[:, 2] * box[:, 3] for box in (host, device)]
        assert stats.ks_2samp(*areas).pvalue > 1e-3

    @pytest.mark.parametrize(
        ("height", "width"), [(10, 40), (40, 10), (9, 8), (1, 1), (1, 300)]
    )
    def test_central_crop_where_nothing_fits(self, height, width):
        """Areas of more than the whole image fit nowhere."""
        box = stream.sample_crop(np.random.default_rng(0), height, width, (1.5, 2.0))
        wanted = augment.sample_crop(jax.random.key(0), height, width, (1.5, 2.0))
        np.testing.assert_array_equal(box, wanted)

"""Batches of a set too large for memory, decoded while the device is at work.

Grain reads ahead in threads, and in processes where they are asked for. A batch is a
function of seed and step alone, so training resumes at any step, with any number of
workers, by asking for the steps that are left. The host crops, because it has the image
at its full resolution; flips, colours and mixing come later, on the device (`augment`).
"""

import functools
import math
import os
from collections.abc import Iterator

import numpy as np

from ddjax.data import decode
from ddjax.data.batches import steps_per_epoch
from ddjax.data.records import Records
from ddjax.types import Dataset

__all__ = ["Stream", "sample_crop"]

_TRIES = 10  # torchvision's


class Stream:
    """All batches of a training run: `stream[step]`, or `stream.read(steps)`.

    Every epoch has a permutation of its own, and every batch is full: where the batch
    size does not divide the set, the last batch of an epoch is filled up from the front
    of its permutation, as in `batches.indices`.

    Example:
      >>> from ddjax import data
      >>> from ddjax.data.stream import Stream
      >>> stream = Stream(data.load("digits"), seed=0, batch_size=32, size=8)
      >>> images, labels = stream[1000]
      >>> images.shape, labels.shape
      ((32, 8, 8, 1), (32,))
    """

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        batch_size: int,
        *,
        size: int,
        crop_scale: tuple[float, float] | None = None,
        host: tuple[int, int] = (0, 1),
    ):
        """Reads nothing yet.

        Args:
          dataset: N images, `Records` on disk or an array; pickled for each worker, so
            an array is copied to it.
          seed: not negative; fixes the order and the crops of all epochs.
          batch_size: rows of a batch, over all hosts together; cut to N.
          size: of the images that come out, pixels.
          crop_scale: (lowest, highest) share of the area of a RandomResizedCrop; None
            for the middle of the image, see `decode.resize_and_crop`.
          host: (index, count): this host gets rows of its own of every batch.

        Raises:
          ValueError: numbers that do not fit together.
        """
        index, hosts = host
        batch_size = min(batch_size, len(dataset.labels))
        if not 0 <= index < hosts or batch_size < 1 or batch_size % hosts:
            raise ValueError(
                f"host {index} of {hosts} cannot have its part of {batch_size} rows; "
                "the batch size must be a positive multiple of the number of hosts, "
                "and hosts are counted from 0."
            )
        if crop_scale is not None and not 0 < crop_scale[0] <= crop_scale[1]:
            raise ValueError(
                f"crop_scale must be (lowest, highest) shares of the area, above 0; "
                f"got {tuple(crop_scale)}."
            )
        if seed < 0 or size < 1:
            raise ValueError(f"seed {seed} or size {size} is too small.")
        on_disk = isinstance(dataset.images, Records)
        self._images = dataset.images if on_disk else np.asarray(dataset.images)
        self._labels = np.asarray(dataset.labels, np.int32)
        self._info = dataset.info
        self._seed, self._batch_size, self._host = seed, batch_size, host
        self._size, self._crop_scale = size, crop_scale

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self._labels), self._batch_size)

    def rows(self, step: int) -> np.ndarray:
        """This host's rows of the batch at `step`, [batch_size / hosts]."""
        epoch, slot = divmod(step, self.steps_per_epoch)
        index, hosts = self._host
        share = self._batch_size // hosts
        places = slot * self._batch_size + index * share + np.arange(share)
        order = _order(self._seed, epoch, len(self._labels))
        return order[places % len(order)]

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """This host's part of the batch at `step`, made now.

        Returns:
          images [batch_size / hosts, size, size, ch] uint8, labels [...] int32.

        Raises:
          ValueError: an image is damaged.
        """
        rows, epoch = self.rows(step), step // self.steps_per_epoch
        images = np.stack([self._image(int(row), epoch) for row in rows])
        return images, self._labels[rows]

    def read(self, steps: range, *, workers: int = 0) -> Iterator:
        """The batches of these steps in their order, made ahead of their use.

        To resume, leave out the steps that are done. Pillow lets go of Python's lock,
        so threads decode on all cores; processes pay where Python itself is the limit.

        Args:
          steps: which, such as `range(done, total)`.
          workers: processes that decode; 0 for threads of this one. Each is a fresh
            Python that imports the main program again, which therefore needs its
            `if __name__ == "__main__"`. Grain asks absl for flags then: a program that
            does not start by `absl.app.run` calls `absl.flags.FLAGS.mark_as_parsed()`.
            Batches pass through /dev/shm, which has to hold some of each worker: a
            container's usual 64 MB are too few for large images.
        """
        import grain  # slow to import

        threads = max(1, (os.cpu_count() or 1) // max(1, workers))
        batches = grain.MapDataset.range(steps.start, steps.stop, steps.step)
        # Grain would keep 500 batches.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        ahead = batches.map(self.__getitem__).to_iter_dataset(options)
        processes = grain.MultiprocessingOptions(num_workers=workers)
        iterator = iter(ahead.mp_prefetch(processes))
        try:
            yield from iterator
        finally:
            iterator.close()

    def _image(self, row: int, epoch: int) -> np.ndarray:
        """[size, size, ch] uint8."""
        image = self._full(row)
        if self._crop_scale is None:
            return decode.resize_and_crop(image, self._size)
        # A seed of (a, b) is one of (a, b, 0) to NumPy, and that is the epoch's order.
        random = np.random.default_rng((self._seed, epoch, row + 1))
        box = sample_crop(random, *image.shape[:2], self._crop_scale)
        return decode.crop_and_resize(image, box, self._size)

    def _full(self, row):
        """An image at its own resolution."""
        if not isinstance(self._images, Records):
            return self._images[row]
        try:
            return decode.decode(self._images.encoded(row), self._info.shape[-1])
        except ValueError as error:
            raise ValueError(f"image {row} of {self._info.name}: {error}") from error


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The permutation of an epoch, kept for its other steps."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def sample_crop(
    random: np.random.Generator, height: int, width: int, scale, ratio=(3 / 4, 4 / 3)
) -> tuple[int, int, int, int]:
    """Draws the box of a RandomResizedCrop, on the host; see `augment.sample_crop`.

    Args:
      random: used up to 40 times.
      height: of the image, pixels.
      width: of the image, pixels.
      scale: (lowest, highest) share of the area.
      ratio: (lowest, highest) aspect ratio, width over height.

    Returns:
      (top, left, height, width), whole pixels.
    """
    for _ in range(_TRIES):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(random.integers(height - h + 1))
            left = int(random.integers(width - w + 1))
            return top, left, h, w
    # No try fits: the largest central crop whose aspect ratio is allowed.
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (height - h) // 2, (width - w) // 2, h, w

"""Images on disk that look like one array."""

import concurrent.futures
import functools
import hashlib
import os

import numpy as np

from ddjax.data import decode, sets

__all__ = ["Records"]

_TOGETHER = 128  # images that a thread reads and decodes at a time, at most


class Records:
    """Images of a prepared set, decoded when rows of them are asked for.

    Looks like an array [N, H, W, ch] of uint8 where rows are taken: `images[3]`,
    `images[5:9]`, `images[[2, 7]]` and `images[mask]` are NumPy arrays. Decoding takes
    all cores: Pillow lets go of Python's lock. It can be pickled, and every process
    opens the files for itself.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, prepared: sets.Prepared, split: str, size: int, shape):
        """All images of a split, in the order of its records.

        Args:
          prepared: the set.
          split: the set's own name of it.
          size: images are resized and cropped to it, see `decode.resize_and_crop`; 0
            leaves them as they are.
          shape: (H, W, ch) of every image then.
        """
        self._prepared, self._split, self._size = prepared, split, size
        self._rows = np.arange(sum(prepared.lengths[split]))
        self._shape = tuple(shape)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self._rows), *self._shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all of them would take, decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows) -> np.ndarray:
        """The pixels of one row, [H, W, ch], or of an array of rows, [..., H, W, ch].

        Raises:
          ValueError: an image is damaged, or has not the set's size.
        """
        wanted = np.asarray(self._rows[rows])
        flat = wanted.ravel()
        images = np.empty((flat.size, *self._shape), np.uint8)
        # Few reads of many records: one alone costs as much as decoding a small image.
        workers = os.cpu_count()
        step = min(max(flat.size // workers, 8), _TOGETHER)
        starts, reader = range(0, flat.size, step), self._reader

        def fill(start):
            part = flat[start : start + step].tolist()
            for i, (encoded, _) in enumerate(reader.read(part)):
                images[start + i] = self._pixels(encoded, part[i])

        if len(starts) > 1:
            with concurrent.futures.ThreadPoolExecutor(workers) as pool:
                list(pool.map(fill, starts))  # raises what they raise
        elif len(starts) == 1:
            fill(0)
        return images.reshape(*wanted.shape, *self._shape)

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            f"{self._prepared.name} is on disk; take rows of it ([rows]), or all of "
            "them ([:]) where they fit into memory."
        )

    def subset(self, rows) -> "Records":
        """Some of the rows, in this order, still on disk.

        Args:
          rows: slice, [n] integers, or [N] booleans.
        """
        other = Records(self._prepared, self._split, self._size, self._shape)
        other._rows = self._rows[rows]
        return other

    def encoded(self, row: int) -> bytes:
        """One image as it is stored."""
        return self._reader.read([int(self._rows[row])])[0][0]

    def fingerprint(self) -> bytes:
        """Identifies the pixels without reading them."""
        set_, split = self._prepared, self._split
        told = (set_.name, set_.version, split, set_.lengths[split])
        told += (set_.num_bytes[split], self._size, self._shape)
        return hashlib.sha256(repr(told).encode() + self._rows.tobytes()).digest()

    def _pixels(self, data, record):
        try:
            image = decode.decode(data, self._shape[-1])
            if self._size:
                image = decode.resize_and_crop(image, self._size)
            if image.shape != self._shape:
                raise ValueError(f"it is {image.shape}, not {self._shape}.")
            return image
        except ValueError as error:
            raise ValueError(
                f"image {record} of {self._split} in {self._prepared.folder}: {error}"
            ) from error

    @functools.cached_property
    def _reader(self):
        return sets.Reader(self._prepared, self._split)

    def __getstate__(self):
        return {k: v for k, v in vars(self).items() if k != "_reader"}

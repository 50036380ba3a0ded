"""The door to data sets: `load(name, split)`.

A name is either a module `ddjax.data.<name>` with one function,
`read(split) -> (images [N, H, W, ch] uint8, labels [N], class names)`, as the embedded
digits are, or a set that `python -m launch.prepare` has prepared (see `sets`).
"""

import hashlib
import importlib
import math

import numpy as np

from ddjax.data import decode, sets
from ddjax.data.records import Records
from ddjax.types import DataInfo, Dataset

__all__ = [
    "EMBEDDED",
    "class_major",
    "class_slices",
    "fingerprint",
    "hold_out",
    "load",
    "normalise_info",
]

EMBEDDED = ("digits",)
_SAMPLE = 10_000  # images that mean and std are taken from, of a set left on disk
_CHUNK = 256  # images whose pixels are counted together
_INFO = {}  # of training splits, so that a test split does not decode them again


def load(
    name: str,
    split: str = "train",
    *,
    folder: str = "",
    size: int = 0,
    memory_gb: float = 4.0,
) -> Dataset:
    """Loads one split of a data set, sorted by class.

    A prepared set that fits into memory is decoded now; a larger one stays on disk,
    and its `images` are `records.Records`.

    Args:
      name: which data set; `digits` is embedded, and needs no download.
      split: "train" or "test" (of a set that has none, "validation").
      folder: where prepared sets are kept; $TFDS_DATA_DIR or ~/tensorflow_datasets by
        default.
      size: images are resized and cropped to it (see `decode.resize_and_crop`), pixels;
        0 takes them as they are, where all have one size.
      memory_gb: decoded images may take so much memory, GiB.

    Returns:
      Dataset with `images [N, H, W, ch]` uint8 and `labels [N]` int32, class-major
      (the order within a class is the source's). Its `info` holds the class names in
      label order and the pixel mean and standard deviation **of the training split**,
      whichever split was asked for.

    Raises:
      ValueError: unknown name or split, a class without images, a label out of range,
        a damaged image, images of several sizes and no `size`.

    Example:
      >>> from ddjax import data
      >>> digits = data.load("digits", "test")
      >>> digits.images.shape, digits.info.num_classes
      ((360, 8, 8, 1), 10)
    """
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}; known: train, test.")
    if size < 0 or memory_gb < 0:
        raise ValueError(f"size {size} and memory_gb {memory_gb} must not be negative.")
    if name in EMBEDDED:
        return _load_embedded(name, split, size)
    prepared = sets.find(name, folder)
    dataset = _load_prepared(prepared, split, name, size, memory_gb)
    on_disk = isinstance(dataset.images, Records)
    key = (prepared.folder, prepared.written, name, size, on_disk)
    if split == "train":
        if key not in _INFO:
            classes = dataset.info.classes
            _INFO[key] = normalise_info(name, dataset.images, classes)
    elif key not in _INFO:
        _INFO[key] = load(name, folder=folder, size=size, memory_gb=memory_gb).info
    return dataset._replace(info=_INFO[key])


def _load_embedded(name, split, size):
    read = importlib.import_module(f"ddjax.data.{name}").read
    images, labels, classes = read("train")
    info = normalise_info(name, images, classes)
    if size and info.shape[:2] != (size, size):
        raise ValueError(
            f"{name} are images of {info.shape[0]}x{info.shape[1]} pixels; set the "
            f"size to 0 instead of {size}."
        )
    if split == "test":
        images, labels, _ = read("test")
    return class_major(images, labels, info)


def _load_prepared(prepared, split, name, size, memory_gb):
    """One split, with an `info` that has no mean and std yet."""
    own = prepared.split(split)
    shape = (size, size, prepared.shape[-1]) if size else _one_shape(prepared, own)
    records = Records(prepared, own, size, shape)
    info = DataInfo(name, prepared.classes, shape, (), ())
    dataset = class_major(records, prepared.labels(own), info)
    if records.nbytes <= memory_gb * 2**30:
        dataset = dataset._replace(images=dataset.images[:])
    return dataset


def _one_shape(prepared, split):
    """(H, W, ch) of a split's images as they are stored."""
    *sides, channels = prepared.shape
    if None in sides:
        found = {}
        for row, data in enumerate(prepared.encoded(split)):
            found.setdefault(decode.measure(data), row)
            if len(found) > 1:
                (a, i), (b, j) = found.items()
                raise ValueError(
                    f"the images of {prepared.name} have several sizes ({a[0]}x{a[1]} "
                    f"and {b[0]}x{b[1]}, images {i} and {j} of {split}); set data.size "
                    "to resize and crop them, such as to 224."
                )
        (sides,) = found
    return (*sides, channels)


def class_major(images: np.ndarray, labels: np.ndarray, info: DataInfo) -> Dataset:
    """Sorts a set by class, and refuses one that has holes.

    Args:
      images: [N, H, W, ch] uint8, or Records, which are sorted without being read.
      labels: [N] integers.
      info: names the classes.

    Raises:
      ValueError: a label out of range, or a class with no images.
    """
    labels = np.asarray(labels, np.int32)
    count = info.num_classes
    wrong = labels[(labels < 0) | (labels >= count)]
    if wrong.size:
        raise ValueError(
            f"{info.name}: label {wrong[0]} is out of range; {count} classes are "
            f"named, so labels must lie in 0..{count - 1}."
        )
    missing = np.flatnonzero(np.bincount(labels, minlength=count) == 0)
    if missing.size:
        named = ", ".join(f"{k} ({info.classes[k]})" for k in missing[:5])
        raise ValueError(
            f"{info.name}: {missing.size} of {count} classes have no images: {named}. "
            "Add images, or remove the class from the list of names."
        )
    order = np.argsort(labels, kind="stable")
    return Dataset(_take(images, order), labels[order], info)


def _take(images, rows):
    """Rows of images; what is on disk stays there."""
    if isinstance(images, Records):
        return images.subset(rows)
    return np.asarray(images)[rows]


def normalise_info(name: str, images: np.ndarray, classes) -> DataInfo:
    """DataInfo of a training split: per-channel mean and std of pixels in [0, 1].

    Of Records, at most 10,000 images are looked at, spread evenly over all of them (and
    so over the classes). The mean level of an image varies by 0.15 in ImageNet, so the
    mean of so many is off by some 0.0015.

    Args:
      name: the data set's name.
      images: [N, H, W, ch] uint8, or Records.
      classes: names in label order.
    """
    count = len(images)
    if isinstance(images, Records) and count > _SAMPLE:
        rows = np.arange(_SAMPLE) * count // _SAMPLE
    else:
        rows = np.arange(count)
    # From the histogram: exact, and no float copy of the images.
    values = np.arange(256) / 255.0
    mass = np.zeros((images.shape[-1], 256), np.int64)
    for first in range(0, len(rows), _CHUNK):
        pixels = images[rows[first : first + _CHUNK]]
        for channel in range(images.shape[-1]):
            mass[channel] += np.bincount(pixels[..., channel].ravel(), minlength=256)
    mass = mass / mass.sum(axis=1, keepdims=True)
    mean = mass @ values
    std = np.sqrt([m @ (values - mu) ** 2 for m, mu in zip(mass, mean)])
    if min(std) == 0:
        raise ValueError(f"{name}: a colour channel is constant; nothing to learn.")
    shape = tuple(images.shape[1:])
    return DataInfo(
        name, tuple(classes), shape, tuple(mean.tolist()), tuple(std.tolist())
    )


def hold_out(dataset: Dataset, fraction: float, seed: int = 0):
    """Splits a training set in two, class by class, for choosing hyper-parameters.

    Args:
      dataset: class-major, N images.
      fraction: share of each class to hold out, in (0, 1), rounded up.
      seed: fixes the draw.

    Returns:
      (rest, held out): two Datasets with the same `info`.

    Raises:
      ValueError: the fraction leaves a class without training images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"hold_out fraction must lie in (0, 1); got {fraction}.")
    rng = np.random.default_rng(seed)
    held = np.zeros(len(dataset.labels), bool)
    for rows in class_slices(dataset):
        size = rows.stop - rows.start
        take = math.ceil(round(fraction * size, 9))  # 0.07 * 100 is above 7
        if take >= size:
            raise ValueError(
                f"{dataset.info.name}: a class of {size} images cannot give "
                f"{take} away; lower the held-out fraction {fraction}."
            )
        held[rows.start + rng.permutation(size)[:take]] = True
    return tuple(
        Dataset(_take(dataset.images, keep), dataset.labels[keep], dataset.info)
        for keep in (~held, held)
    )


def class_slices(dataset: Dataset) -> list[slice]:
    """The rows of each class of a class-major set, in label order."""
    counts = np.bincount(dataset.labels, minlength=dataset.info.num_classes)
    ends = np.cumsum(counts)
    return [slice(end - n, end) for end, n in zip(ends.tolist(), counts.tolist())]


def fingerprint(dataset: Dataset) -> str:
    """A short hash of pixels, labels and class names: the identity of the data.

    Of Records the set's name, version, shards, bytes and size stand for the pixels, so
    the same images have another hash in memory.
    """
    digest = hashlib.sha256(repr(dataset.info.classes).encode())
    for array in (dataset.images, dataset.labels):
        digest.update(repr((array.shape, str(array.dtype))).encode())
        on_disk = isinstance(array, Records)
        digest.update(array.fingerprint() if on_disk else np.ascontiguousarray(array))
    return digest.hexdigest()[:16]

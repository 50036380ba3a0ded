"""The door to data sets: `load(name, split)`.

A data set is a module `ddjax.data.<name>` with one function,
`read(split) -> (images [N, H, W, ch] uint8, labels [N], class names)`.
"""

import hashlib
import importlib
import math

import numpy as np

from ddjax.types import DataInfo, Dataset

__all__ = [
    "class_major",
    "class_slices",
    "fingerprint",
    "hold_out",
    "load",
    "normalise_info",
]

_KNOWN = ("digits",)


def load(name: str, split: str = "train") -> Dataset:
    """Loads one split of a data set, sorted by class.

    Args:
      name: which data set; `digits` is embedded, and needs no download.
      split: "train" or "test".

    Returns:
      Dataset with `images [N, H, W, ch]` uint8 and `labels [N]` int32, class-major
      (the order within a class is the source's). Its `info` holds the class names in
      label order and the pixel mean and standard deviation **of the training split**,
      whichever split was asked for.

    Raises:
      ValueError: unknown name or split, a class without images, a label out of range.

    Example:
      >>> from ddjax import data
      >>> digits = data.load("digits", "test")
      >>> digits.images.shape, digits.info.num_classes
      ((360, 8, 8, 1), 10)
    """
    if name not in _KNOWN:
        raise ValueError(
            f"unknown data set {name!r}; known: {', '.join(_KNOWN)}. A new one is a "
            "module ddjax/data/<name>.py with a function read(split)."
        )
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}; known: train, test.")
    read = importlib.import_module(f"ddjax.data.{name}").read
    images, labels, classes = read("train")
    info = normalise_info(name, images, classes)
    if split == "test":
        images, labels, _ = read("test")
    return class_major(images, labels, info)


def class_major(images: np.ndarray, labels: np.ndarray, info: DataInfo) -> Dataset:
    """Sorts a set by class, and refuses one that has holes.

    Args:
      images: [N, H, W, ch] uint8.
      labels: [N] integers.
      info: names the classes.

    Raises:
      ValueError: a label out of range, or a class with no images.
    """
    images, labels = np.asarray(images), np.asarray(labels, np.int32)
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
    return Dataset(images[order], labels[order], info)


def normalise_info(name: str, images: np.ndarray, classes) -> DataInfo:
    """DataInfo of a training split: per-channel mean and std of pixels in [0, 1].

    Args:
      name: the data set's name.
      images: [N, H, W, ch] uint8.
      classes: names in label order.
    """
    # From the histogram: exact, and no float copy of the images.
    values = np.arange(256) / 255.0
    mean, std = [], []
    for channel in range(images.shape[-1]):
        mass = np.bincount(images[..., channel].ravel(), minlength=256)
        mass = mass / mass.sum()
        mean.append(float(mass @ values))
        std.append(float(np.sqrt(mass @ (values - mean[-1]) ** 2)))
    if min(std) == 0:
        raise ValueError(f"{name}: a colour channel is constant; nothing to learn.")
    return DataInfo(name, tuple(classes), images.shape[1:], tuple(mean), tuple(std))


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
        Dataset(dataset.images[keep], dataset.labels[keep], dataset.info)
        for keep in (~held, held)
    )


def class_slices(dataset: Dataset) -> list[slice]:
    """The rows of each class of a class-major set, in label order."""
    counts = np.bincount(dataset.labels, minlength=dataset.info.num_classes)
    ends = np.cumsum(counts)
    return [slice(end - n, end) for end, n in zip(ends.tolist(), counts.tolist())]


def fingerprint(dataset: Dataset) -> str:
    """A short hash of pixels, labels and class names: the identity of the data."""
    digest = hashlib.sha256(repr(dataset.info.classes).encode())
    for array in (dataset.images, dataset.labels):
        digest.update(repr((array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]

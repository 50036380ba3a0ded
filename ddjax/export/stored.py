"""A distilled set with all that is needed to use it, and its checks."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from ddjax.types import DataInfo, DistilledSet

__all__ = ["StoredSet", "checked", "data_info", "decoded", "from_header", "header"]

_VERSION = 1


class StoredSet(NamedTuple):
    """The product outside a run, class-major; all of it on the host."""

    images: np.ndarray  # [N, H, W, ch] uint8
    labels: np.ndarray  # [N] int32, ascending
    weights: np.ndarray  # [N] float32, mass of each image within its class
    soft_labels: Any  # [N, C] float16, the teacher's logits; () where there are none
    info: DataInfo  # of the data: the class order, and mean and std of the transform
    about: dict  # plain values: arm, ipc, seed, data, config, licence, ...

    @property
    def factor(self) -> int:
        """Parts along one side of an image, see `matching.mosaics`; mostly 1."""
        return int(self.about.get("factor", 1))

    @property
    def ipc(self) -> int | None:
        """Images per class; None where classes differ."""
        counts = set(np.bincount(self.labels, minlength=self.info.num_classes).tolist())
        return counts.pop() if len(counts) == 1 else None


def checked(stored: StoredSet, where: str) -> StoredSet:
    """The set with its arrays checked, sorted by class, and in their types.

    Args:
      stored: arrays of any kind.
      where: the set is from; begins every message.

    Raises:
      ValueError: shapes that do not fit, labels that name no class, a class without
        images, numbers that are not finite.
    """
    images, labels, weights, soft, info, about = stored
    images, labels, weights = map(np.asarray, (images, labels, weights))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{where}: images are {images.dtype} {images.shape}; expected uint8 "
            "[N, H, W, ch] with ch 1 or 3."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{where}: labels are {labels.dtype}; expected integers.")
    count, classes = len(images), info.num_classes
    for name, array in (("labels", labels), ("weights", weights)):
        if array.shape != (count,):
            raise ValueError(
                f"{where}: {name} are {array.shape}, and there are {count} images; "
                "expected one for each."
            )
    _check_labels(labels, info, where)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError(f"{where}: a weight is negative or not finite.")
    _check_info(info, images.shape[1:], where)
    _check_factor(about, info, soft, where)
    # Most sets are sorted, and large ones should not be copied.
    in_order = bool(np.all(labels[1:] >= labels[:-1]))
    order = slice(None) if in_order else np.argsort(labels, kind="stable")
    if not _absent(soft):
        soft = np.asarray(soft, np.float16)
        if soft.shape != (count, classes) or not np.all(np.isfinite(soft)):
            raise ValueError(
                f"{where}: soft labels are {soft.shape}, or not finite; expected "
                f"{(count, classes)}, a row for each image and a column for each class."
            )
        soft = soft[order]
    labels, weights = labels.astype(np.int32), weights.astype(np.float32)
    return StoredSet(images[order], labels[order], weights[order], soft, info, about)


def decoded(stored: StoredSet) -> StoredSet:
    """A set of mosaics as networks see it: each part is an image; others as they are.

    What is said of the set keeps the factor, as "decoded_factor".
    """
    if stored.factor == 1:
        return stored
    from ddjax.matching import mosaics  # slow to import

    about = {**stored.about, "decoded_factor": stored.factor}
    del about["factor"]
    parts = mosaics.decoded(DistilledSet(*stored[:3]), stored.factor)
    return StoredSet(*parts, (), stored.info, about)


def _check_labels(labels, info, where):
    classes = info.num_classes
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise ValueError(
            f"{where}: label {labels[wrong[0]]} of image {wrong[0]} names no class; "
            f"{classes} are named, so labels must lie in 0..{classes - 1}."
        )
    empty = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if empty.size:
        raise ValueError(
            f"{where}: {empty.size} of {classes} classes have no image, the first "
            f"{empty[0]} ({info.classes[empty[0]]}). Is it the right list of classes?"
        )


def _check_info(info, shape, where):
    channels = shape[-1]
    fits = len(info.mean) == len(info.std) == channels and min(info.std, default=0) > 0
    fits = fits and bool(np.all(np.isfinite(info.mean + info.std)))
    if tuple(info.shape) != tuple(shape) or not fits:
        raise ValueError(
            f"{where}: images of {tuple(shape)}, but the set's record says shape "
            f"{tuple(info.shape)}, mean {info.mean}, std {info.std}; expected the same "
            f"shape, and {channels} numbers each, std above 0."
        )


def _check_factor(about, info, soft, where):
    factor = about.get("factor", 1)
    if factor == 1:
        return
    from ddjax.matching import mosaics  # slow to import

    try:
        mosaics.check(int(factor), info.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if not _absent(soft):
        raise ValueError(
            f"{where}: soft labels of mosaics: each image holds {int(factor) ** 2}, "
            "and there is one row of labels for all. Leave the labels out."
        )


def _absent(soft) -> bool:
    return isinstance(soft, tuple) and not soft


# As text -----------------------------------------------------------------------------


def header(stored: StoredSet, form: str) -> dict:
    """All but the pixels and soft labels, as plain values; exact for float32.

    Args:
      stored: a checked set.
      form: that the pixels are kept in.
    """
    info = stored.info
    return {
        "format": "ddjax distilled set",
        "version": _VERSION,
        "form": form,
        "data": info.name,
        "classes": list(info.classes),  # the position is the label
        "shape": list(info.shape),
        "mean": list(info.mean),
        "std": list(info.std),
        "about": stored.about,
        "labels": stored.labels.tolist(),
        "weights": [float(weight) for weight in stored.weights],
        "soft_labels": not _absent(stored.soft_labels),
        "sha256": _digest(stored),
    }


def data_info(told: dict, shape) -> DataInfo:
    """The DataInfo of a record; KeyError, TypeError or ValueError if it has none."""
    numbers = (tuple(float(x) for x in told[key]) for key in ("mean", "std"))
    names, shape = tuple(map(str, told["classes"])), tuple(int(side) for side in shape)
    return DataInfo(str(told["data"]), names, shape, *numbers)


def from_header(told: dict, images, soft_labels, where: str) -> StoredSet:
    """The set of a header, and of what was read beside it.

    Raises:
      ValueError: the header lacks something, or the pixels are not those it is about.
    """
    if not isinstance(told, dict) or told.get("version") != _VERSION:
        raise ValueError(
            f"{where}: no record of a distilled set of version {_VERSION}; was it "
            "written by a newer ddjax, or by another program?"
        )
    try:
        info = data_info(told, told["shape"])
        labels = np.asarray(told["labels"])
        weights = np.asarray(told["weights"], np.float32)
        about, wanted = {**told["about"]}, told["sha256"]
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: the set's record is damaged ({error}); export the set again."
        ) from error
    stored = StoredSet(images, labels, weights, soft_labels, info, about)
    stored = checked(stored, where)
    if _digest(stored) != wanted:
        raise ValueError(
            f"{where}: its pixels or numbers are not those that were written. Put "
            "back a copy, or export the set again."
        )
    return stored


def _digest(stored) -> str:
    digest = hashlib.sha256(repr(stored.info).encode())
    for array in stored[: 3 if _absent(stored.soft_labels) else 4]:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()

"""What a user's images come in: a folder of class folders, a zip of one, or Parquet.

All three are brought to one form, a `Source`, which is checked as far as it can be
without looking at an image: class names, labels, splits, missing files.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

__all__ = ["LAYOUT", "SPLITS", "Source", "fingerprint"]

# Names that folders and files have, and ours.
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("val", "valid", "validation"), "validation")
LAYOUT = (
    "wanted are train/<class>/*.jpg and test/<class>/*.jpg (or val), or <class>/*.jpg "
    "alone, a zip of such a folder, or files <split>-00000-of-00001.parquet"
)


class Source(NamedTuple):
    """Labelled images that can be read one after another, in the same order again."""

    path: str
    classes: tuple[str, ...]  # names in label order
    labels: dict[str, np.ndarray]  # of each split, [N] int32 in the order of `read`
    num_bytes: int  # on disk
    fingerprint: str  # of names, sizes and dates; not of the bytes
    read: Callable[[str], Iterator[tuple[str, bytes]]]  # split -> (file, its bytes)

    def check(self) -> None:
        """Refuses a source that nothing can be learned from.

        Raises:
          ValueError: there is no training split, or a class has no images.
        """
        if "train" not in self.labels:
            raise ValueError(
                f"{self.path} has no train split, only {', '.join(self.labels)}; "
                f"{LAYOUT}."
            )
        for split, labels in self.labels.items():
            counts = np.bincount(labels, minlength=len(self.classes))
            if empty := [c for c, n in zip(self.classes, counts) if not n]:
                raise ValueError(
                    f"{self.path}: {len(empty)} of {len(counts)} classes have no images "
                    f"in the {split} split: {', '.join(empty[:5])}. Add images, or "
                    "remove the classes from all splits."
                )


def fingerprint(*values) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]

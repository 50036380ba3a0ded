"""Names to arrays: data sets, batches and augmentation."""

from ddjax.data import augment, batches, dsa, stream, zca
from ddjax.data.load import (
    class_major,
    class_slices,
    fingerprint,
    hold_out,
    load,
    normalise_info,
)

__all__ = [
    "augment",
    "batches",
    "class_major",
    "class_slices",
    "dsa",
    "fingerprint",
    "hold_out",
    "load",
    "normalise_info",
    "stream",
    "zca",
]

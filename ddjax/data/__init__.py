"""Names to arrays: data sets, batches and augmentation."""

from ddjax.data import augment, batches
from ddjax.data.load import (
    class_major,
    class_slices,
    fingerprint,
    hold_out,
    load,
    normalise_info,
)
from ddjax.data.records import Records

__all__ = [
    "Records",
    "augment",
    "batches",
    "class_major",
    "class_slices",
    "fingerprint",
    "hold_out",
    "load",
    "normalise_info",
]

"""Names to arrays: data sets, batches and augmentation."""

from ddjax.data import augment, batches, dsa, stream, zca
from ddjax.data.load import (
    EMBEDDED,
    class_major,
    class_slices,
    fingerprint,
    hold_out,
    load,
    normalise_info,
)
from ddjax.data.records import Records
from ddjax.data.stream import Stream

__all__ = [
    "EMBEDDED",
    "Records",
    "Stream",
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

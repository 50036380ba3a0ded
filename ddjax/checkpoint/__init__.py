"""What is on disk: finished artifacts, and the states of unfinished stages."""

from ddjax.checkpoint.arrays import (
    canonical,
    digest,
    fingerprint,
    flatten,
    unflatten,
    write_atomically,
)
from ddjax.checkpoint.late import seen
from ddjax.checkpoint.stage import Stage, load, record

__all__ = [
    "Stage",
    "canonical",
    "digest",
    "fingerprint",
    "flatten",
    "load",
    "record",
    "seen",
    "unflatten",
    "write_atomically",
]

"""Distilled sets outside a run: written for others, read back, brought in from others.

`save_distilled` and `load_distilled` are the doors; `forms` has one writer and one
reader a form, `card` the text that goes with each, `public` what others have released.
"""

from ddjax.export.disk import FORMS, describe, load_distilled, save_distilled
from ddjax.export.stored import StoredSet, checked

__all__ = [
    "FORMS",
    "StoredSet",
    "checked",
    "describe",
    "load_distilled",
    "save_distilled",
]

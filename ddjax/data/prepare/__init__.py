"""Data sets made ready: the user's own images, and those that TFDS knows by name."""

from ddjax.data.prepare.named import by_name
from ddjax.data.prepare.own import from_source, open_source

__all__ = ["by_name", "from_source", "open_source"]

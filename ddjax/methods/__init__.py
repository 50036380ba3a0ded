"""One file, one method. `create` finds them by their module's name."""

from ddjax.methods.base import (
    Method,
    create,
    from_loss,
    from_matching,
    is_told_a_space,
    is_told_a_view,
    moves_pixels,
    names,
    samples,
)

__all__ = [
    "Method",
    "create",
    "from_loss",
    "from_matching",
    "is_told_a_space",
    "is_told_a_view",
    "moves_pixels",
    "names",
    "samples",
]

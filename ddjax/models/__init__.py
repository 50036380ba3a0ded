"""Networks as pure functions: `create(name, info)` gives `init` and `apply`."""

from ddjax.models.create import Network, create
from ddjax.models.weights import load, to_torch

__all__ = ["Network", "create", "load", "to_torch"]

"""Networks as pure functions: `create(name, info)` gives `init` and `apply`."""

from ddjax.models.create import Network, create

__all__ = ["Network", "create"]

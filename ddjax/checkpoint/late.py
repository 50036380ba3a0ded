"""What another host has written, on a network whose files may come late."""

import time
from collections.abc import Callable

__all__ = ["seen"]

SECONDS = 90.0  # what NFS may keep for itself, and more


def seen(condition: Callable[[], bool]) -> bool:
    """Whether a condition on files comes true in time; at once where it is true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True

"""Compiled programs that are no longer needed, given back in time.

On a CPU every compiled program takes some fifteen memory maps, and a process may have
65,530 (Linux's default): at the next the compiler aborts. A sweep of many methods gets
there.
"""

import pathlib

import jax
from absl import logging

_SHARE = 0.5  # of the maps that a process may have
_LIMIT, _MAPS = (
    pathlib.Path("/proc/sys/vm/max_map_count"),
    pathlib.Path("/proc/self/maps"),
)


def ease() -> None:
    """Forgets all programs where they crowd the process; those in use compile again.

    The compile cache on disk has them. Where there is no such limit nothing happens.
    """
    try:
        limit, maps = int(_LIMIT.read_text()), _MAPS.read_bytes().count(b"\n")
    except (OSError, ValueError):
        return
    if maps > _SHARE * limit:
        logging.info("%d of %d memory maps: compiled programs are freed.", maps, limit)
        jax.clear_caches()

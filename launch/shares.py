"""Artifacts that are made part by part, each part by one host."""

from collections.abc import Callable

import numpy as np

from ddjax import checkpoint, parallel


def make(
    stage: checkpoint.Stage,
    names: list[str],
    part: Callable,
    observe: Callable | None = None,
) -> list[dict[str, np.ndarray]]:
    """All parts of an artifact; those of an interrupted run are not made again.

    Args:
      stage: whose parts they are.
      names: of all parts, the same for any number of hosts.
      part: `i -> arrays` of part i, which do not depend on who makes it.
      observe: called after each of this host's.

    Returns:
      The parts in order, on the primary; () on other hosts.
    """
    made = {}
    for i in parallel.share(range(len(names))):
        found = stage.load_part(names[i])
        if found is None:
            found = part(i)
            stage.save_part(names[i], found)
        if parallel.is_primary():  # others need not remember it
            made[i] = found
        if observe is not None:
            observe()
    return collect(stage, names, made, part)


def collect(stage, names: list[str], made: dict, part: Callable):
    """The parts of all hosts, once each has made its own; see `make`.

    Args:
      stage: whose parts they are.
      names: of all parts.
      made: this host's, by their numbers.
      part: makes one again that another host has written and that is damaged.
    """
    parallel.gather(f"parts of {stage.folder.name}")
    if not parallel.is_primary():
        return ()
    found = []
    for i, name in enumerate(names):
        own = made.get(i)
        found.append(own if own is not None else _others(stage, name) or part(i))
    return found


def _others(stage, name) -> dict | None:
    """A part that another host has written, as soon as it can be seen."""
    checkpoint.seen(lambda: stage.has_part(name))
    return stage.load_part(name)

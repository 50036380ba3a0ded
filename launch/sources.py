"""The teacher of each arm, and what it saw: what images are made from."""

import json
from collections.abc import Callable
from typing import NamedTuple

from launch import squeeze, stats, teachers, variants


class Source(NamedTuple):
    """What the images of an arm are made from, and labelled by."""

    teacher: teachers.Teacher
    seen: stats.Stats


def finder(config, workdir) -> Callable[..., Source]:
    """`(arm, ipc) -> Source`, of the main teacher by default; each is made once."""
    known = {}

    def find(arm: str = "", ipc: int = 1) -> Source:
        theirs = variants.config_of(config, arm, ipc)
        about = json.dumps(theirs.squeeze.to_dict(), sort_keys=True)
        if about not in known:
            teacher = squeeze.run(theirs, workdir)
            known[about] = Source(teacher, stats.collect(theirs, workdir, teacher))
        return known[about]

    return find

"""Names of arms for people."""

import pathlib

from ddjax import methods, tables

_NAMES = {
    "random": "random",
    "herding": "herding",
    "kcenter": "K-Center",
    "kmeans": "k-means medoids",
    "rded": "RDED patches",
    "sre2l": "SRe2L",
    "cda": "CDA",
    "wmdd": "WMDD",
    "dm": "DM",
    "dc": "DC",
    "dsa": "DSA",
    "geodm": "GeoDM",
    "otg": "OTG",
    tables.WHOLE: tables.WHOLE,
}
_TEACHERS = {"guard": "GUARD"}  # others as they are
_STARTS = {"": "", "noise": ", from noise", "real": ", from real images"}
_STARTS["random"] = ", from random images"


def title(arm: str) -> str:
    """The name of "method.change+teacher/start"; of an imported set, of its folder.

    >>> title("sre2l+guard/noise"), title("random+adversarial"), title("sets/theirs")
    ('SRe2L + GUARD, from noise', 'random + adversarial', 'theirs')
    >>> title("geodm.E_H/random")
    'GeoDM (E H), from random images'
    """
    method, _, start = arm.partition("/")
    name, plus, teacher = method.partition("+")
    name, dot, change = name.partition(".")
    if name in (*_NAMES, *methods.names()) and start in _STARTS:
        settings = f" ({change.replace('_', ' ')})" if dot else ""
        behind = f" + {variant(teacher)}" if plus else ""
        return _NAMES.get(name, name) + settings + behind + _STARTS[start]
    return pathlib.PurePath(arm).name


def variant(teacher: str) -> str:
    """The name of one of the config's other teachers."""
    return _TEACHERS.get(teacher, teacher)

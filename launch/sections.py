"""How an arm recovers: the config's section of its method, with what changes in it.

"geodm.eh/random" is the method of `methods.geodm`, with the fields of `changes.eh` in
the place of its own: several settings of a method in one comparison. A field may also
depend on the images per class, as pairs: ((1, 1000), (10, 10000)).
"""

from ddjax import methods

# What every section has, and those of methods that move pixels.
FIELDS = ("num_steps", "layout")
RATE = "learning_rate"
# How a step looks at the images, of methods that are told so.
VIEW = ("crop_scale", "flip", "jitter")


def change_of(arm: str) -> str:
    """Which of the config's changes an arm has; "" for none.

    >>> change_of("geodm.eh+guard/random"), change_of("herding")
    ('eh', '')
    """
    return arm.partition("/")[0].partition("+")[0].partition(".")[2]


def of(config, arm: str, ipc: int) -> dict:
    """The fields of an arm's method, for so many images per class.

    Raises:
      ValueError: there is no such section or change; a field is missing, or has no
        value for this ipc.
    """
    name = arm.partition("/")[0].partition("+")[0].partition(".")[0]
    if name not in config.methods:
        raise ValueError(
            f"the config has no section methods.{name}; it has "
            f"{', '.join(sorted(config.methods))}. Add one, as in configs/default.py."
        )
    found = config.methods[name].to_dict() | _change(config, arm)
    wanted = (*FIELDS, RATE) if methods.moves_pixels(name) else FIELDS
    missing = [field for field in wanted if field not in found]
    if missing:
        raise ValueError(
            f"the config's section methods.{name} lacks {', '.join(missing)}; "
            "configs/default.py says what they are."
        )
    return {field: at(value, ipc, field) for field, value in found.items()}


def factor(config, arm: str, ipc: int) -> int:
    """Parts along one side of an arm's images, see `matching.mosaics`; mostly 1."""
    if "/" not in arm:  # a baseline: whole images
        return 1
    return of(config, arm, ipc).get("factor", 1)


def _change(config, arm) -> dict:
    change = change_of(arm)
    if not change and "." not in arm.partition("/")[0]:
        return {}
    known = {k: v for k, v in config.changes.items() if hasattr(v, "to_dict")}
    if change not in known:
        raise ValueError(
            f"the arm {arm!r} has the change {change!r}; config.changes has "
            f"{', '.join(known) or 'none'}."
        )
    return known[change].to_dict()


def at(value, ipc: int, field: str = "a number"):
    """A value, or that of the last pair (ipc, value) whose ipc is not above this one.

    A flag that is given one number in the place of pairs makes it a tuple: (0.5,).

    Raises:
      ValueError: pairs whose ipc do not rise, or begin above this one.

    >>> at(3, 10), at(((1, 5), (10, 7)), 9), at(((1, 5), (10, 7)), 50), at((0.5, 1.0), 1)
    (3, 5, 7, (0.5, 1.0))
    """
    if isinstance(value, (tuple, list)) and len(value) == 1 and not _is_pairs(value):
        return value[0]
    if not _is_pairs(value):
        return value
    starts = [pair[0] for pair in value]
    if starts != sorted(set(starts)) or ipc < starts[0]:
        raise ValueError(
            f"{field} is {value}, pairs of an ipc and a value from it on; they must "
            f"rise, and begin at {ipc} or below."
        )
    return [pair[1] for pair in value if pair[0] <= ipc][-1]


def _is_pairs(value) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) > 0
        and all(isinstance(x, (tuple, list)) and len(x) == 2 for x in value)
    )

"""Configs of other teachers: "sre2l+guard/noise" has the one of `teachers.guard`.

`config.teachers.<name>` says what changes in `config.squeeze` for it. The strength of
its curvature penalty may depend on the images per class.
"""

import copy
import math

import numpy as np


def name_of(arm: str) -> str:
    """Which of the config's other teachers an arm has; "" for the main one."""
    return arm.partition("/")[0].partition("+")[2]


def config_of(config, arm: str, ipc: int):
    """The config whose main teacher is that of an arm.

    Args:
      config: of the experiment.
      arm: see `launch.arms`.
      ipc: images per class, on which the strength of a penalty may depend.

    Raises:
      ValueError: there is no such teacher, or it changes what no teacher has.
    """
    name = name_of(arm)
    if not name and "+" not in arm.partition("/")[0]:
        return config
    there = {
        k: v.to_dict() for k, v in config.teachers.items() if hasattr(v, "to_dict")
    }
    if name not in there:
        known = ", ".join(there) or "none"
        raise ValueError(
            f"the arm {arm!r} has a teacher {name!r}; config.teachers has {known}."
        )
    changed, changes = copy.deepcopy(config), there[name]
    changes.setdefault("restore", "")  # the main one's weights are not this one's
    penalty = changes.get("curvature", {})
    if "weight" in penalty:
        penalty["weight"] = weight_at(penalty["weight"], ipc)
    if "model" in changes:  # whole: another network has other options
        with changed.unlocked():
            changed.squeeze.model = changes.pop("model")
    try:
        changed.lock()
        changed.squeeze.update(changes)
    except (AttributeError, KeyError, TypeError) as error:
        told = str(error).strip("'\"")
        raise ValueError(
            f"config.teachers.{name} changes what config.squeeze has not: {told}"
        ) from error
    return changed


def weight_at(weight, ipc: int) -> float:
    """The strength of a penalty for so many images per class.

    Args:
      weight: one number for all, or pairs (ipc, weight) with ipc rising: between two
        of them the logarithms are interpolated, outside the nearest counts.
      ipc: images per class.

    Raises:
      ValueError: pairs that are none, do not rise, or are not above 0.
    """
    if isinstance(weight, (int, float)):
        return float(weight)
    pairs = np.array(weight, float)
    rising = (
        pairs.ndim == 2 and pairs.shape[1] == 2 and np.all(np.diff(pairs[:, 0]) > 0)
    )
    if not rising or pairs.min() <= 0:
        raise ValueError(
            f"a strength of {weight}; expected a number, or pairs (ipc, strength) above "
            "0 with ipc rising, such as ((1, 1.0), (10, 0.1))."
        )
    counts, weights = pairs.T
    found = np.interp(math.log(ipc), np.log(counts), np.log(weights))
    return float(f"{math.exp(found):.6g}")  # the same teacher for the same number


def others(config, arms) -> list:
    """The configs of all teachers but the main one that arms have; each is there once."""
    found = {}
    for arm in arms:
        for ipc in config.recover.ipc:
            if name_of(arm):
                theirs = config_of(config, arm, ipc)
                found.setdefault(theirs.squeeze.to_json_best_effort(), theirs)
    return list(found.values())

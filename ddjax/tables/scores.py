"""Scores of distilled sets, and how much one arm is better than another."""

import numpy as np

from ddjax import metrics
from ddjax.tables.groups import summarise

__all__ = ["RANDOM", "WHOLE", "difference", "scores"]

WHOLE, RANDOM = "whole data", "random"
_PLAIN = "+plain"  # behind the name of a recipe: without augmentation


def scores(students: list[dict]) -> list[dict]:
    """HLR, IOR, LRS and ARS of every distilled set, see `metrics`.

    Whatever is subtracted has the same run, recipe, model, size and labels: the whole
    data with hard labels (HLR; of the same recipe and model), random images (IOR), and
    both under the recipe without augmentation, "<recipe>+plain" (ARS).

    Args:
      students: of any recipes and models.

    Returns:
      One dict for each run, recipe, model, ipc, arm and labels, with "hlr", "ior",
      "lrs" and "ars"; None where a part of the score is not in the records.
    """
    by = ("run", "recipe", "model", "ipc", "arm", "labels")
    rows = [{"run": None, **row} for row in students]
    mean = {tuple(g[f] for f in by): g["mean"] for g in summarise(rows, by)}
    found = []
    for key in mean:
        run, recipe, model, ipc, arm, _ = key
        if arm == WHOLE:
            continue
        hlr = _of(
            metrics.hlr,
            mean.get((run, recipe, model, 0, WHOLE, "hard")),
            mean.get((run, recipe, model, ipc, arm, "hard")),
        )
        ior, plain = _lead(mean, *key), _lead(mean, run, recipe + _PLAIN, *key[2:])
        row = {**dict(zip(by, key)), "hlr": hlr, "ior": ior}
        row |= {"lrs": _of(metrics.lrs, hlr, ior), "ars": _of(metrics.ars, ior, plain)}
        found.append(row)
    return found


def _lead(mean, run, recipe, model, ipc, arm, labels):
    """Improvement over random images, or None."""
    both = (mean.get((run, recipe, model, ipc, a, labels)) for a in (arm, RANDOM))
    return _of(metrics.ior, *both)


def _of(score, *parts):
    """The score, or None where a part is missing."""
    return None if None in parts else score(*parts)


def difference(
    records: list[dict], first: str, second: str, value: str = "top1", by=()
) -> list[dict]:
    """How much better students of one arm are than those of another.

    Students of one distilled set are not independent, so the standard error is that of
    the means of the sets (Welch).

    Args:
      records: of students of any recipes and models, or of attacks on them.
      first: an arm.
      second: another.
      value: the field that is compared, in [0, 1].
      by: further fields that must be equal.

    Returns:
      One dict for each run, recipe, model, ipc, labels and `by` that both have: these,
      the two means, their "difference" and its "error" (all in percent; the error is
      NaN where an arm has one set).

    Raises:
      ValueError: an arm that the records do not have.
    """
    known = sorted({row["arm"] for row in records})
    for arm in (first, second):
        if arm not in known:
            raise ValueError(f"no arm {arm!r}; the records have: {', '.join(known)}.")
    by = ("run", "recipe", "model", "ipc", "labels", *by)
    cells: dict[tuple, dict] = {}
    for row in records:
        cell = cells.setdefault(tuple(row.get(field) for field in by), {})
        sets = cell.setdefault(row["arm"], {})
        sets.setdefault(row["set"], []).append(100 * row[value])
    found = []
    for key, cell in cells.items():
        if first in cell and second in cell:
            (a, error_a), (b, error_b) = (_mean(cell[arm]) for arm in (first, second))
            row = {**dict(zip(by, key)), "first": a, "second": b}
            row |= {"difference": a - b, "error": float(np.hypot(error_a, error_b))}
            found.append(row)
    return found


def _mean(sets: dict[int, list]) -> tuple[float, float]:
    """Mean of the means of the sets, and its standard error."""
    mean, std, n = metrics.mean_and_std([np.mean(top1) for top1 in sets.values()])
    return mean, std / n**0.5

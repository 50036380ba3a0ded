"""Records of students in groups: by what is compared, and in what order."""

from ddjax import metrics

__all__ = [
    "LABELS",
    "at",
    "label_modes",
    "places",
    "series",
    "split",
    "summarise",
    "total_bytes",
]

# Kinds of labels, the cheapest first; "+lia": those of several teachers.
LABELS = ("hard", "single", "single+lia", "stored", "stored+lia", "online")
LABELS += ("online+lia",)


def split(records: list[dict], by=("recipe", "model")) -> dict[tuple, list[dict]]:
    """The records of each value of some fields, in order of appearance."""
    found: dict[tuple, list] = {}
    for row in records:
        found.setdefault(tuple(row.get(field) for field in by), []).append(row)
    return found


def summarise(
    records: list[dict], by: tuple[str, ...], value: str = "top1"
) -> list[dict]:
    """Groups records of single students and takes the mean and std of each group.

    Args:
      records: with a number each, and the fields in `by`.
      by: the fields that make a group, in the order of the result.
      value: the field of the number.

    Returns:
      One dict a group, in order of appearance: the fields, "mean", "std", "n".
    """
    groups = {
        key: metrics.mean_and_std([row[value] for row in rows])
        for key, rows in split(records, by).items()
    }
    return [
        dict(zip((*by, "mean", "std", "n"), (*key, *numbers)))
        for key, numbers in groups.items()
    ]


def series(students: list[dict], x: str) -> dict[str, dict[str, list[tuple]]]:
    """What is drawn: accuracy over the size of a set, by labels and arm.

    Args:
      students: of one recipe and model.
      x: "ipc", or "bytes" of all that training needs.

    Returns:
      {labels: {arm: [(x, mean, std)]}}, by growing x. The whole data have ipc 0.
    """
    rows = [{**row, "bytes": total_bytes(row)} for row in students]
    found: dict[str, dict] = {mode: {} for mode in label_modes(students)}
    for group in summarise(rows, ("labels", "arm", x)):
        points = found[group["labels"]].setdefault(group["arm"], [])
        points.append((group[x], group["mean"], group["std"]))
    return {
        mode: {arm: sorted(points) for arm, points in arms.items()}
        for mode, arms in found.items()
    }


def label_modes(students) -> list[str]:
    """The kinds of labels that there are, the cheapest first."""
    known = {row["labels"] for row in students}
    return sorted(known, key=LABELS.index)


def total_bytes(row) -> int:
    """All that a student needs to be trained."""
    return row["image_bytes"] + row["label_bytes"] + row["other_bytes"]


def places(rows) -> list[tuple]:
    """The distinct (run, ipc, arm): by ipc, the whole data last, runs together."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    runs = list(dict.fromkeys(row.get("run") for row in rows))
    places = {(row.get("run"), row["ipc"], row["arm"]) for row in rows}
    return sorted(
        places,
        key=lambda p: (p[1] == 0, p[1], arms.index(p[2]), runs.index(p[0])),
    )


def at(rows, place) -> list[dict]:
    return [row for row in rows if (row.get("run"), row["ipc"], row["arm"]) == place]

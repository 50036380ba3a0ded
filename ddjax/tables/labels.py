"""Tables of labels: how sure they are, and how right who gives them."""

import numpy as np

from ddjax.tables.forms import named
from ddjax.tables.groups import at, places

__all__ = ["label_counts", "sureness"]


def sureness(labels: list[dict], title=str) -> tuple[list[str], list[list[str]]]:
    """One row an arm, ipc and number of teachers: means over the sets.

    Args:
      labels: rows with "arm", "ipc", "set", "teachers", their number, "entropy" in nats,
        and in [0, 1] "accuracy" of the teachers, their mean, and "agreed" of the labels.
      title: `(arm) -> str`, its name for people.
    """
    header = ["IPC", "images", "teachers", "entropy, nats", "teachers right, %"]
    header += ["labels right, %"]
    rows = []
    for place in places(labels):
        run, ipc, arm = place
        mine = at(labels, place)
        for count in sorted({row["teachers"] for row in mine}):
            of = [row for row in mine if row["teachers"] == count]
            mean = {
                field: np.mean([row[field] for row in of])
                for field in ("entropy", "accuracy", "agreed")
            }
            numbers = (
                f"{mean['entropy']:.3f}",
                *(f"{100 * mean[field]:.1f}" for field in ("accuracy", "agreed")),
            )
            about = [*([run] if run else []), str(ipc), title(arm), str(count)]
            rows.append([*about, *numbers])
    return named(labels, header), rows


def label_counts(tried: list[dict]) -> tuple[list[str], list[list[str]]]:
    """What each number of teachers gave on held-out images, and which was chosen.

    Args:
      tried: rows with "ipc", "teachers", "score" in [0, 1] and "chosen".
    """
    rows = [
        [
            *([row["run"]] if row.get("run") else []),
            *(str(row["ipc"]), str(row["teachers"]), f"{100 * row['score']:.1f}"),
            "yes" if row["chosen"] else "",
        ]
        for row in sorted(tried, key=lambda r: (r["ipc"], r["teachers"]))
    ]
    return named(tried, ["IPC", "teachers", "held out, %", "chosen"]), rows

"""What a page says in numbers: tables and plots, from the records alone."""

import math

import numpy as np

from ddjax import metrics
from ddjax.page import charts
from ddjax.tables import LABELS

__all__ = [
    "as_bytes",
    "as_percent",
    "as_seconds",
    "costs",
    "quality",
    "results",
    "sizes",
]

_COLORS = 10  # of the palette
_MARKS = {"hard": "dot", "single": "ring", "stored": "square", "online": "cross"}
_MEASURES = {
    "redundancy": ("redundancy", "mean cosine of two images of a class"),
    "halves": (
        "half from half",
        "images whose nearest in the other half has their class",
    ),
    "nearest_pixels": ("to nearest, pixels", "distance to the nearest training image"),
    "nearest_features": ("to nearest, features", "the same, as the teacher sees them"),
    "w2": ("W2", "to the real features, mean over classes"),
    "copies": ("copies", "images that equal a training image"),
    "test_copies": ("of test images", "images that equal a test image"),
    "png_bytes": ("as PNG", "bytes of the images as PNG files"),
}


def as_bytes(count) -> str:
    """1234567 as 1.2 MB."""
    if count is None:
        return ""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def as_seconds(count) -> str:
    """3725 as 1 h 2 min."""
    if count is None:
        return ""
    if count >= 3600:
        return f"{count // 3600:.0f} h {count % 3600 // 60:.0f} min"
    if count >= 60:
        return f"{count // 60:.0f} min {count % 60:.0f} s"
    return f"{count:.1f} s"


def as_percent(share) -> str:
    return f"{100 * share:.1f}"


# Scores -------------------------------------------------------------------------------


def _grouped(rows, *fields) -> dict:
    """Rows by the values of some fields, in order of appearance."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(tuple(row.get(field) for field in fields), []).append(row)
    return groups


def results(students, arms) -> list[dict]:
    """A table and its plots for every recipe and network."""
    return [
        {
            "recipe": recipe,
            "model": model,
            "labels": sorted({row["labels"] for row in rows}, key=_label_order),
            "blocks": _blocks(rows),
            "by_ipc": _by_ipc(rows, arms),
            "by_bytes": _by_bytes(rows, arms),
        }
        for (recipe, model), rows in _grouped(students, "recipe", "model").items()
    ]


def _label_order(kind) -> int:
    return [*LABELS, kind].index(kind)


def _blocks(students) -> list[tuple[int, list]]:
    """(ipc, [(arm, cells by kind of labels)]); all images (ipc 0) come last."""
    blocks = []
    for (ipc,), rows in sorted(
        _grouped(students, "ipc").items(), key=lambda item: item[0][0] or math.inf
    ):
        arms = [
            (
                arm,
                {
                    kind: _score(cell)
                    for (kind,), cell in _grouped(mine, "labels").items()
                },
            )
            for (arm,), mine in _grouped(rows, "arm").items()
        ]
        best = {}
        for _, cells in arms:
            for kind, cell in cells.items():
                best[kind] = max(best.get(kind, 0), cell["mean"])
        for _, cells in arms:
            for kind, cell in cells.items():
                cell["best"] = len(arms) > 1 and cell["mean"] == best[kind]
        blocks.append((ipc, arms))
    return blocks


def _score(rows) -> dict:
    mean, std, n = metrics.mean_and_std([row["top1"] for row in rows])
    return {"mean": mean, "std": std if n > 1 else None, "n": n}


def _by_ipc(students, arms) -> list[charts.Chart]:
    """Accuracy against images per class, a plot for every kind of labels."""
    found = []
    for kind in sorted({row["labels"] for row in students}, key=_label_order):
        rows = [row for row in students if row["labels"] == kind]
        curves, levels = [], {}
        for (arm,), mine in _grouped(rows, "arm").items():
            cells = {i: _score(cell) for (i,), cell in _grouped(mine, "ipc").items()}
            if 0 in cells:
                levels[arm] = 100 * cells.pop(0)["mean"]
            if cells:
                curves.append(_curve(arm, arms.index(arm), sorted(cells.items())))
        if curves:
            chart = charts.plot(
                curves,
                title=f"{kind} labels",
                x_label="images per class",
                y_label="top-1, %",
                x_log=True,
                x_at=sorted({x for curve in curves for x in curve.x}),
                levels=levels,
            )
            found.append(chart)
    return found


def _by_bytes(students, arms) -> charts.Chart:
    """Accuracy against all bytes that training on a set needs."""
    curves = []
    for (arm, kind), rows in _grouped(students, "arm", "labels").items():
        cells = {max(1, _total(c)): _score(c) for c in _grouped(rows, "ipc").values()}
        curve = _curve(arm, arms.index(arm), sorted(cells.items()))
        mark = _MARKS.get(kind.partition("+")[0], "dot")
        curves.append(curve._replace(mark=mark, name=f"{arm}, {kind}"))
    return charts.plot(
        curves,
        title="all labels",
        x_label="bytes of images, labels and what else training reads",
        y_label="top-1, %",
        x_log=True,
    )


def _curve(name, color, cells) -> charts.Curve:
    x, scores = [x for x, _ in cells], [score for _, score in cells]
    spread = [math.nan if s["std"] is None else 100 * s["std"] for s in scores]
    return charts.Curve(
        name, color % _COLORS, x, [100 * s["mean"] for s in scores], spread
    )


def _total(rows) -> float:
    """Bytes, the mean over the rows."""
    names = ("image_bytes", "label_bytes", "other_bytes")
    return float(np.mean([sum(row.get(name) or 0 for name in names) for row in rows]))


def sizes(students) -> list[dict]:
    """What each arm stores, one row for each ipc and kind of labels."""
    names = ("num_images", "image_bytes", "label_bytes", "other_bytes")
    groups = _grouped(students, "ipc", "arm", "labels", "recipe").items()
    found = [
        {
            **dict(zip(("ipc", "arm", "labels", "recipe"), key)),
            **{name: rows[0].get(name) for name in names},
            "total": _total(rows[:1]),
        }
        for key, rows in groups
    ]
    return sorted(found, key=lambda row: row["ipc"] or math.inf)


def quality(sets) -> dict:
    """Measures of the sets, their means over the sets of an arm and ipc."""
    columns = [
        (name, *words, f"real_{name}")
        for name, words in _MEASURES.items()
        if any(row.get(name) is not None for row in sets)
    ]
    rows = []
    for (ipc, arm), mine in _grouped(sets, "ipc", "arm").items():
        cells = [(_mean(mine, name), _mean(mine, real)) for name, _, _, real in columns]
        rows.append({"ipc": ipc, "arm": arm, "n": len(mine), "cells": cells})
    rows.sort(key=lambda row: row["ipc"] or math.inf)
    return {"columns": columns, "rows": rows}


def _mean(rows, name) -> str:
    values = [row[name] for row in rows if row.get(name) is not None]
    if not values:
        return ""
    mean = float(np.mean(values))
    if name.endswith("_bytes"):
        return as_bytes(mean)
    return f"{mean:.3g}" if abs(mean) < 1000 else f"{mean:,.0f}"


def costs(stages) -> list[dict]:
    """Seconds of every kind of stage and its largest memory."""

    def total(rows, name):
        values = [row[name] for row in rows if row.get(name) is not None]
        return sum(values) if values else None

    return [
        {
            "stage": stage,
            "n": len(rows),
            "seconds": total(rows, "seconds"),
            "compile_seconds": total(rows, "compile_seconds"),
            "peak_bytes": max(row.get("peak_bytes") or 0 for row in rows) or None,
        }
        for (stage,), rows in _grouped(stages, "stage").items()
    ]

"""What a page says of students under attack and of loss surfaces."""

import math

import numpy as np

from ddjax import tables
from ddjax.page import charts, pictures

__all__ = ["results", "surfaces"]

_COLORS = 10  # of the palette
_SIDE = 168  # pixels of a surface


def results(attacks, arms) -> list[dict]:
    """A table and its plots for every recipe, network and kind of labels."""
    return [
        {
            **dict(zip(tables.KIND, kind)),
            "names": [tables.attack_title(name) for name in tables.attack_names(rows)],
            "blocks": _blocks(rows),
            "charts": _charts(rows, arms),
        }
        for kind, rows in tables.split(attacks, tables.KIND).items()
    ]


# Tables -------------------------------------------------------------------------------


def _blocks(attacks) -> list[dict]:
    """Arms of one size at one radius stand together; all images (ipc 0) come last."""
    names, by = tables.attack_names(attacks), ("ipc", "norm", "eps")
    blocks = []
    for place, cells in sorted(
        tables.split(tables.robustness(attacks), by).items(),
        key=lambda item: (item[0][0] or math.inf, tables.radius_order(*item[0][1:])),
    ):
        ipc, norm, eps = place
        rows = [_row(cell, names) for cell in cells]
        for column in zip(*(row["cells"] for row in rows)):
            _mark_best([cell for cell in column if cell])
        block = {"ipc": ipc, "radius": tables.radius(norm, eps), "rows": rows}
        block["n"] = _range([cell["n"] for cell in cells])
        block["num_images"] = _range([n for cell in cells for n in cell["num_images"]])
        blocks.append(block)
    return blocks


def _range(counts) -> str:
    few, many = min(counts), max(counts)
    return f"{few:,}" if few == many else f"{few:,} to {many:,}"


def _row(cell, names) -> dict:
    """Clean, the attacks, and the share that the worst of them leaves."""
    groups = [cell["clean"], *map(cell["attacks"].get, names), cell["ratio"]]
    return {"arm": cell["arm"], "cells": [group and dict(group) for group in groups]}


def _mark_best(column) -> None:
    best = max((cell["mean"] for cell in column), default=0)
    for cell in column:
        cell["best"] = len(column) > 1 and cell["mean"] == best > 0


# Plots --------------------------------------------------------------------------------


def _charts(attacks, arms) -> list[charts.Chart]:
    """The worst case over the radius, a plot for every size."""
    return [
        charts.plot(
            [_curve(arm, arms.index(arm), points) for arm, points in lines.items()],
            title=f"IPC {ipc}" if ipc else "all images",
            x_label="radius of the attacks, 1/255",
            y_label="top-1 in the worst case, %",
            x_at=sorted({x for points in lines.values() for x, _, _ in points}),
        )
        for ipc, lines in tables.robust_series(attacks).items()
    ]


def _curve(arm, color, points) -> charts.Curve:
    x, mean, std = np.array(points, np.float64).T
    percent = [(100 * values).tolist() for values in (mean, std)]
    return charts.Curve(arm, color % _COLORS, x.tolist(), *percent)


# Surfaces -----------------------------------------------------------------------------


def surfaces(networks) -> dict | None:
    """Maps of the loss around images, all in the same colours, and their numbers."""
    if not networks:
        return None
    losses = [np.array(row["surface"]["loss"], np.float64) for row in networks]
    low, high = float(min(map(np.min, losses))), float(max(map(np.max, losses)))
    maps = []
    for row, loss in zip(networks, losses):
        upwards = loss.T[::-1]  # the gradient to the right, the other direction upwards
        picture = pictures.picture(pictures.bands(upwards, low, high, (_SIDE, _SIDE)))
        radius = f"{row['surface']['radius']:g}"
        maps.append({"name": row["name"], "image": picture, "radius": radius})
    key = pictures.bands(np.array([[low, high]]), low, high, (8, _SIDE))
    header, rows = tables.landscapes(networks)
    return {
        "maps": maps,
        "key": pictures.picture(key),
        "ends": [f"{low:.3g}", f"{high:.3g}"],
        "side": _SIDE,
        "header": header,
        "rows": rows,
    }

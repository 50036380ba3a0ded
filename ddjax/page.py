"""The page of a run: one file of HTML that needs nothing else.

Its pictures are PNG in the text, its plots are SVG, and it asks no server for anything.
"""

import importlib.resources
import math
from typing import NamedTuple

import numpy as np

from ddjax import charts, metrics, pictures

__all__ = ["Gallery", "Page", "Plane", "render"]

_SIDE, _FILM_SIDE = 64, 48  # pixels; larger images are shown smaller
_CLASSES, _EACH, _PAIRS = 20, 10, 20  # of a set, at most
# Pixels: of a set's images, of its pairs, and of the frames of all sets together. With
# them the page has less than 3 MB.
_IMAGES_ROOM, _PAIRS_ROOM, _FILMS_ROOM = 103_000, 66_000, 290_000
_COLORS = 10  # of the palette
_MARKS = {"hard": "dot", "single": "ring", "stored": "square", "online": "cross"}
_MEASURES = {
    "redundancy": ("redundancy", "mean cosine of two images of a class"),
    "nearest_pixels": ("to nearest, pixels", "distance to the nearest training image"),
    "nearest_features": ("to nearest, features", "the same, as the teacher sees them"),
    "w2": ("W2", "to the real features, mean over classes"),
    "copies": ("copies", "images that equal a training image"),
    "test_copies": ("of test images", "images that equal a test image"),
    "png_bytes": ("as PNG", "bytes of the images as PNG files"),
}


class Gallery(NamedTuple):
    """A distilled set that is shown."""

    arm: str
    ipc: int
    classes: tuple[str, ...]
    images: np.ndarray  # [N, H, W, ch] uint8
    labels: np.ndarray  # [N]
    beside: tuple | None = None  # (rows [k], nearest real images [k, H, W, ch])
    frames: tuple | None = None  # (steps [F], images [F, n, H, W, ch])
    losses: tuple = ()  # dicts with "step" and one number for each term
    share: float = 1.0  # of the room for one set: less where others matter more


class Plane(NamedTuple):
    """Points of a map: two numbers and a class each."""

    arm: str
    real: tuple  # (points [n, 2], labels [n])
    atoms: tuple | None
    distilled: tuple | None
    shares: tuple[float, float]  # of the variance, on each axis


class Page(NamedTuple):
    """What a page shows; what is empty or None is left out with a sentence."""

    run: dict  # of records.json
    arm: str = ""  # what the config is about, shown first
    date: str = ""  # of the records
    galleries: tuple[Gallery, ...] = ()
    plane: Plane | None = None
    config: str = ""


def render(page: Page) -> str:
    """The page as HTML; all text from outside is escaped."""
    import jinja2  # slow to import

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": _bytes, "seconds": _seconds, "percent": _percent}
    text = importlib.resources.files("ddjax").joinpath("page.html").read_text("utf-8")
    students, galleries = page.run.get("students", []), page.galleries
    return environment.from_string(text).render(
        page=page,
        facts=_facts(page),
        results=_results(students, _arms(page)),
        galleries=[_shown(gallery) for gallery in galleries],
        films=_films([gallery for gallery in galleries if gallery.frames]),
        pairs=[_pairs(gallery) for gallery in galleries if gallery.beside],
        losses=[chart for gallery in galleries if (chart := _losses(gallery))],
        plane=_plane(page.plane, galleries) if page.plane else None,
        quality=_quality(page.run.get("sets", [])),
        sizes=_sizes(students),
        costs=_costs(page.run.get("stages", [])),
    )


# Words and numbers --------------------------------------------------------------------


def _facts(page: Page) -> dict:
    """What the first paragraph says."""
    students, run = page.run.get("students", []), page.run
    environment, data = run.get("environment", {}), run.get("data", {})
    device = environment.get("device", "")
    return {
        "name": run.get("name", ""),
        "data": data.get("name", "") if isinstance(data, dict) else str(data),
        "arms": _arms(page),
        "ipc": sorted({row["ipc"] for row in students if row["ipc"]}),
        "students": len(students),
        "commit": str(environment.get("commit") or "")[:12],
        "device": device if isinstance(device, str) else str(device),
        "versions": dict(environment.get("versions") or {}),
    }


def _arms(page: Page) -> list[str]:
    """All arms; the one that the run is about first, in the first colour."""
    known = dict.fromkeys(row["arm"] for row in page.run.get("students", []))
    return sorted(known, key=lambda arm: arm != page.arm)


def _bytes(count) -> str:
    """1234567 as 1.2 MB."""
    if count is None:
        return ""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _seconds(count) -> str:
    """3725 as 1 h 2 min."""
    if count is None:
        return ""
    if count >= 3600:
        return f"{count // 3600:.0f} h {count % 3600 // 60:.0f} min"
    if count >= 60:
        return f"{count // 60:.0f} min {count % 60:.0f} s"
    return f"{count:.1f} s"


def _percent(share) -> str:
    return f"{100 * share:.1f}"


# Scores -------------------------------------------------------------------------------


def _grouped(rows, *fields) -> dict:
    """Rows by the values of some fields, in order of appearance."""
    groups: dict = {}
    for row in rows:
        groups.setdefault(tuple(row.get(field) for field in fields), []).append(row)
    return groups


def _results(students, arms) -> list[dict]:
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
    return [*_MARKS, kind].index(kind)


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
        mark = _MARKS.get(kind, "dot")
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


def _sizes(students) -> list[dict]:
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


def _quality(sets) -> dict:
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
        return _bytes(mean)
    return f"{mean:.3g}" if abs(mean) < 1000 else f"{mean:,.0f}"


def _costs(stages) -> list[dict]:
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


# Pictures -----------------------------------------------------------------------------


def _shown(gallery: Gallery) -> dict:
    """A strip of images for each class."""
    labels = np.asarray(gallery.labels)
    known = np.unique(labels)
    shown = known[:: math.ceil(len(known) / _CLASSES)]
    room = gallery.share * _IMAGES_ROOM
    most = max(1, int(room / (pictures.area(gallery.images, _SIDE) * len(shown))))
    each = min(_EACH, most, max(np.bincount(labels)))
    rows = []
    for label in shown:
        images = pictures.small(
            gallery.images[np.flatnonzero(labels == label)[:each]], _SIDE
        )
        pixels = pictures.strip(images, len(images))
        row = {"name": gallery.classes[label], "count": len(images)}
        rows.append(
            {**row, "image": pictures.picture(pixels), "size": pixels.shape[1::-1]}
        )
    counts = {"each": each, "of": len(labels) // len(known), "classes": len(known)}
    return {"arm": gallery.arm, "ipc": gallery.ipc, "rows": rows, **counts}


def _films(galleries) -> list[dict]:
    whole = sum(gallery.share for gallery in galleries)
    return [_film(g, _FILMS_ROOM * g.share / whole) for g in galleries]


def _film(gallery: Gallery, room: float) -> dict:
    """All frames below each other in one picture."""
    steps, images = gallery.frames
    most = max(1, int(room / (pictures.area(images[0], _FILM_SIDE) * len(images))))
    count = images.shape[1]
    chosen = np.arange(count)
    if count > most:  # evenly, so that all classes have their turn
        chosen = np.unique(np.linspace(0, count - 1, most).astype(int))
    columns = min(10, math.ceil(math.sqrt(len(chosen))))
    frames = [
        pictures.strip(pictures.small(frame[chosen], _FILM_SIDE), columns)
        for frame in images
    ]
    height, width = frames[0].shape[:2]
    return {
        "arm": gallery.arm,
        "ipc": gallery.ipc,
        "steps": [int(step) for step in steps],
        "image": pictures.picture(np.concatenate(frames)),
        "size": (width, height),
    }


def _pairs(gallery: Gallery) -> dict:
    """Distilled images with the nearest real ones under them."""
    rows, real = gallery.beside
    labels = np.asarray(gallery.labels)[rows]
    rank = np.arange(len(rows)) - np.searchsorted(labels, labels)
    room = gallery.share * _PAIRS_ROOM / (2 * pictures.area(real, _SIDE))
    most = max(1, min(_PAIRS, int(room)))
    order = np.lexsort((labels, rank))[:most]  # the first of every class come first
    found = []
    for position in sorted(order):
        mine, other = gallery.images[rows[position]], real[position]
        distance = np.linalg.norm((mine.astype(float) - other.astype(float)) / 255)
        found.append(
            {
                "name": gallery.classes[labels[position]],
                "distilled": _alone(mine),
                "real": _alone(other),
                "distance": float(distance),
            }
        )
    return {"arm": gallery.arm, "ipc": gallery.ipc, "pairs": found}


def _alone(image) -> str:
    return pictures.picture(pictures.visible(pictures.small(image[None], _SIDE)[0]))


# Plots --------------------------------------------------------------------------------


def _losses(gallery: Gallery) -> charts.Chart | None:
    """The terms of a loss over the steps, some two hundred points of each."""
    rows = [row for row in gallery.losses if "step" in row and "loss" in row]
    terms = sorted({key for row in rows for key in row} - {"step"}, key=_term_order)
    curves = []
    for color, term in enumerate(terms):
        points = [(row["step"], row.get(term)) for row in rows]
        good = [(s, v) for s, v in points if _is_positive(v)]
        if good:
            places = np.linspace(0, len(good) - 1, min(200, len(good))).astype(int)
            x, y = [list(values) for values in zip(*(good[i] for i in places))]
            curves.append(charts.Curve(term, color % _COLORS, x, y, mark=""))
    if not curves:
        return None
    title = f"{gallery.arm}, IPC {gallery.ipc}"
    return charts.plot(curves, title=title, x_label="step", y_label="loss", y_log=True)


def _term_order(term):
    return term != "loss", term


def _is_positive(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _plane(plane: Plane, galleries) -> dict:
    """The map, its classes and its marks."""
    names = next((g.classes for g in galleries if g.arm == plane.arm), None)
    known = np.unique(plane.real[1])
    shown = known[:: math.ceil(len(known) / _COLORS)]
    groups = []
    for kind, mark in (("real", "dot"), ("atoms", "cross"), ("distilled", "ring")):
        points, labels = getattr(plane, kind) or (np.zeros((0, 2)), np.zeros(0, int))
        for color, label in enumerate(shown):
            mine = points[labels == label]
            if len(mine):
                x, y = mine.T.tolist()
                groups.append(charts.Curve(kind, color, x, y, mark=mark, line=False))
    axes = [f"component {i + 1} ({_percent(s)} %)" for i, s in enumerate(plane.shares)]
    return {
        "arm": plane.arm,
        "chart": charts.cloud(groups, x_label=axes[0], y_label=axes[1]),
        "classes": [names[k] if names else str(k) for k in shown],
        "of": len(known),
        "kinds": list(dict.fromkeys(group.name for group in groups)),
    }

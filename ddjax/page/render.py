"""The page of a run: one file of HTML that needs nothing else.

Its pictures are PNG in the text, its plots are SVG, and it asks no server for anything.
"""

import importlib.resources
import math
from typing import NamedTuple

import numpy as np

from ddjax.page import attacks, charts, pictures, scores

__all__ = ["Gallery", "Page", "Plane", "render"]

_SIDE, _FILM_SIDE = 64, 48  # pixels; larger images are shown smaller
_CLASSES, _EACH, _PAIRS = 20, 10, 20  # of a set, at most
# Pixels: of a set's images, of its pairs, and of the frames of all sets together. With
# them the page has less than 3 MB.
_IMAGES_ROOM, _PAIRS_ROOM, _FILMS_ROOM = 103_000, 66_000, 290_000
_COLORS = 10  # of the palette


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

    folder = importlib.resources.files("ddjax.page")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": scores.as_bytes,
        "seconds": scores.as_seconds,
        "percent": scores.as_percent,
    }
    students, galleries = page.run.get("students", []), page.galleries
    return environment.get_template("page.html").render(
        page=page,
        facts=_facts(page),
        results=scores.results(students, _arms(page)),
        attacks=attacks.results(page.run.get("attacks", []), _arms(page)),
        alarms=page.run.get("alarms", []),
        surfaces=attacks.surfaces(page.run.get("landscapes", [])),
        galleries=[_shown(gallery) for gallery in galleries],
        films=_films([gallery for gallery in galleries if gallery.frames]),
        pairs=[_pairs(gallery) for gallery in galleries if gallery.beside],
        losses=[chart for gallery in galleries if (chart := _losses(gallery))],
        plane=_plane(page.plane, galleries) if page.plane else None,
        quality=scores.quality(page.run.get("sets", [])),
        sizes=scores.sizes(students),
        costs=scores.costs(page.run.get("stages", [])),
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
    rows = (*page.run.get("students", []), *page.run.get("attacks", []))
    known = dict.fromkeys(row["arm"] for row in rows)
    return sorted(known, key=lambda arm: arm != page.arm)


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
    terms = {key for row in rows for key in row if "/" not in key} - {"step"}
    terms = sorted(terms, key=_term_order)
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
    axes = [
        f"component {i + 1} ({scores.as_percent(s)} %)"
        for i, s in enumerate(plane.shares)
    ]
    return {
        "arm": plane.arm,
        "chart": charts.cloud(groups, x_label=axes[0], y_label=axes[1]),
        "classes": [names[k] if names else str(k) for k in shown],
        "of": len(known),
        "kinds": list(dict.fromkeys(group.name for group in groups)),
    }

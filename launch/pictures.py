"""Pictures of a run: its sets, its losses, and what its students know."""

import pathlib

import numpy as np

from ddjax import checkpoint, report, tables
from launch import titles


def draw(folder, info, distilled, real, history) -> None:
    """Writes grid.png, the distilled images beside real ones, and curves.png.

    Args:
      folder: of the distilled set.
      info: of the data.
      distilled: DistilledSet with uint8 images.
      real: the same, of which as many are shown.
      history: the losses, see `progress.Monitor`.
    """
    width = info.num_classes
    shown = len(real.images) // width
    blocks = [
        ("distilled", columns(distilled.images, width, shown)),
        ("real", columns(real.images, width, shown)),
    ]
    report.grid(blocks, min(width, 20)).savefig(folder / "grid.png")
    report.curves(history, folder.name).savefig(folder / "curves.png")


def columns(images, classes: int, count: int):
    """The first `count` images of every class, in rows of one of each class."""
    by_class = images.reshape(classes, -1, *images.shape[1:])[:, :count]
    return np.concatenate(by_class.swapaxes(0, 1))


def figures(workdir, run: dict):
    """(name, figure) of each picture of a report.

    Args:
      workdir: of the run, whose sets are shown.
      run: its records.
    """
    students = run["students"]
    yield from _accuracies(students)
    yield from _attacked(run.get("attacks", []))
    networks = run.get("landscapes", [])
    if networks:
        yield "surfaces", report.surfaces(list(_surfaces(networks)))
    figure = _grid(workdir, students)
    if figure is not None:
        yield "grid", figure


def _accuracies(students):
    """Over the size and the bytes of a set, for every recipe and model."""
    for (recipe, model), mine in tables.split(students).items():
        what = f"{model}, recipe {recipe}"
        for name, x, label in (
            ("accuracy", "ipc", "images per class"),
            ("bytes", "bytes", "bytes of all that training needs"),
        ):
            panels = {
                labels: {titles.title(arm): points for arm, points in lines.items()}
                for labels, lines in tables.series(mine, x).items()
            }
            yield f"{name}-{recipe}-{model}", report.accuracy(panels, what, label)


def _attacked(attacks):
    """Over the radius of attacks, for every recipe, model and kind of labels."""
    for kind, mine in tables.split(attacks, tables.KIND).items():
        panels = {
            ipc: {titles.title(arm): points for arm, points in lines.items()}
            for ipc, lines in tables.robust_series(mine).items()
        }
        if panels:
            recipe, model, labels = kind
            what = f"{model}, recipe {recipe}, {labels} labels"
            yield f"robust-{recipe}-{model}-{labels}", report.robust(panels, what)


def _surfaces(networks):
    """(name, surface, numbers under it) of each network."""
    header, rows = tables.landscapes(networks)
    for network, row in zip(networks, rows):
        words = "\n".join(f"{what} {value}" for what, value in zip(header[1:], row[1:]))
        yield network["name"], network["surface"], words


def _grid(workdir, students):
    """Three images a class of the first set of every arm, at the largest ipc."""
    folders = {
        path.parent.name.rpartition("-")[2]: path.parent
        for path in (pathlib.Path(workdir) / "recover").glob("*/manifest.json")
    }
    largest = sorted(students, key=lambda row: (-row["ipc"], row["set"]))
    chosen = dict.fromkeys(row["arm"] for row in students)
    for row in largest:
        chosen[row["arm"]] = chosen[row["arm"]] or folders.get(row["images"])
    chosen = {arm: folder for arm, folder in chosen.items() if folder is not None}
    rows, width = [], 1
    for arm, folder in chosen.items():
        found = checkpoint.load(folder)
        width = len(np.unique(found["labels"]))
        shown = columns(found["images"], width, 3)
        ipc = len(found["images"]) // width
        rows.append(
            (f"{titles.title(arm)}: {len(shown) // width} of {ipc} per class", shown)
        )
    return report.grid(rows, min(width, 20)) if rows else None

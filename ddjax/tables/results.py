"""Tables of students and of distilled sets: (header, rows) of texts."""

import numpy as np

from ddjax.tables.forms import named, percent
from ddjax.tables.groups import at, label_modes, places, summarise, total_bytes
from ddjax.tables.scores import scores

__all__ = ["long", "quality", "results", "scores_table", "settings"]

_MEASURES = {
    "redundancy": ("redundancy", "{:.2f}"),
    "halves": ("half from half", "{:.2f}"),
    "nearest_pixels": ("nearest, pixels", "{:.2f}"),
    "real_nearest_pixels": ("of real ones", "{:.2f}"),
    "nearest_features": ("nearest, features", "{:.2f}"),
    "real_nearest_features": ("of real ones", "{:.2f}"),
    "copies": ("copies", "{:,.0f}"),
    "test_copies": ("of test images", "{:,.0f}"),
    "w2": ("W2", "{:.2f}"),
    "png_bytes": ("bytes as PNG", "{:,.0f}"),
}


def results(students: list[dict], title=str) -> tuple[list[str], list[list[str]]]:
    """One row an arm and ipc, one column a kind of labels: percent, mean ± std.

    Args:
      students: of one recipe and model.
      title: `(arm) -> str`, its name for people.

    Returns:
      (header, rows); the first column is the run where the records name one. Bytes
      are those of the images, and of all that training needs, for each kind of labels.
    """
    modes, rows = label_modes(students), []
    header = ["IPC", "images", *(f"{mode} labels" for mode in modes), "n"]
    header += ["bytes of images", *(f"with {mode} labels" for mode in modes)]
    for place in places(students):
        mine = at(students, place)
        groups = {group["labels"]: group for group in summarise(mine, ("labels",))}
        sizes = {row["labels"]: total_bytes(row) for row in mine}
        run, ipc, arm = place
        rows.append(
            [
                *([run] if run else []),
                str(ipc or "all"),
                title(arm),
                *(percent(groups.get(mode)) for mode in modes),
                str(max(group["n"] for group in groups.values())),
                f"{mine[0]['image_bytes']:,}",
                *(f"{sizes[mode]:,}" if mode in sizes else "" for mode in modes),
            ]
        )
    return named(students, header), rows


def settings(
    students: list[dict], stages: list[dict], title=str
) -> tuple[list[str], list[list[str]]]:
    """One row an arm, one column an ipc: what a comparison of many settings is read by.

    Args:
      students: of one recipe, model and kind of labels.
      stages: of the run, with the seconds of each recovery.
      title: `(arm) -> str`.

    Returns:
      (header, rows): percent, mean ± std, and the seconds that a set took, compiler
      apart, mean over the sets of each ipc.
    """
    sizes = sorted({row["ipc"] for row in students} - {0})
    header = ["images", *(f"IPC {ipc}" for ipc in sizes)]
    header += [f"s a set, IPC {ipc}" for ipc in sizes]
    spent: dict[str, list] = {}
    for row in stages:
        if row["stage"] == "recover":
            spent.setdefault(row["name"].rpartition("-seed")[0], []).append(
                row["seconds"]
            )
    groups = {(g["arm"], g["ipc"]): g for g in summarise(students, ("arm", "ipc"))}
    rows = []
    for arm in dict.fromkeys(row["arm"] for row in students if row["ipc"]):
        names = [f"{arm.replace('/', '-')}-ipc{ipc}" for ipc in sizes]
        seconds = [spent.get(name) for name in names]
        rows.append(
            [
                title(arm),
                *(percent(groups.get((arm, ipc))) for ipc in sizes),
                *(
                    f"{np.mean(x):.0f}" if x and np.mean(x) >= 0.5 else ""
                    for x in seconds
                ),
            ]
        )
    return header, rows


def scores_table(students, title=str) -> tuple[list[str], list[list[str]]]:
    """`scores` of one recipe and model, as fractions; empty where parts are missing.

    Args:
      students: of any recipes: those without augmentation are parts of the ARS.
      title: `(arm) -> str`.
    """
    header = ["recipe", "model", "IPC", "images", "labels", "HLR", "IOR", "LRS", "ARS"]
    rows = []
    for row in scores(students):
        parts = [row[name] for name in ("hlr", "ior", "lrs", "ars")]
        if any(part is not None for part in parts):
            shown = ["" if part is None else f"{part:.3f}" for part in parts]
            where = [row["recipe"], row["model"], str(row["ipc"]), title(row["arm"])]
            run = [row["run"]] if row["run"] else []
            rows.append([*run, *where, row["labels"], *shown])
    return named(students, header), rows


def quality(sets: list[dict], title=str) -> tuple[list[str], list[list[str]]]:
    """Measures of the images, see `ddjax.quality`: means over the sets of an arm."""
    header, rows = ["IPC", "images"], []
    header += [name for name, _ in _MEASURES.values()]
    for place in places(sets):
        run, ipc, arm = place
        row = [*([run] if run else []), str(ipc), title(arm)]
        for field, (_, form) in _MEASURES.items():
            found = (r.get(field) for r in at(sets, place))
            values = [value for value in found if value is not None]
            row.append(form.format(np.mean(values)) if values else "")
        rows.append(row)
    return named(sets, header), rows


def long(students: list[dict]) -> tuple[list[str], list[list]]:
    """Numbers for other programs: one row a cell of the tables, accuracy in [0, 1]."""
    by = ("run",) if any("run" in row for row in students) else ()
    by += ("recipe", "model", "ipc", "arm", "labels")
    sizes = {tuple(row[field] for field in by): row for row in students}
    parts = ("image_bytes", "label_bytes", "other_bytes")
    rows = []
    for group in summarise(students, by):
        size = sizes[tuple(group[field] for field in by)]
        rows.append([*group.values(), *(size[part] for part in parts)])
    return [*by, "mean", "std", "n", *parts], rows

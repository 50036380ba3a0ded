"""Tables and scores of a run, from its records alone.

A student's record says, of a student: "arm", "ipc" (0 for the whole data), "labels",
"recipe", "model", "set", "student", "top1" in [0, 1], and the bytes of its images, its
labels and what else it needs. Where records of several runs are joined, "run" tells
them apart. Scores of different recipes or models are never put into one table.
"""

import csv
import io

import numpy as np

from ddjax import metrics

__all__ = [
    "LABELS",
    "RANDOM",
    "WHOLE",
    "csv_table",
    "difference",
    "latex_table",
    "long",
    "markdown_table",
    "quality",
    "results",
    "scores",
    "scores_table",
    "series",
    "split",
    "summarise",
]

LABELS = ("hard", "single", "stored", "online")
WHOLE, RANDOM = "whole data", "random"
_PLAIN = "+plain"  # behind the name of a recipe: without augmentation
_MEASURES = {
    "redundancy": ("redundancy", "{:.2f}"),
    "nearest_pixels": ("nearest, pixels", "{:.2f}"),
    "real_nearest_pixels": ("of real ones", "{:.2f}"),
    "nearest_features": ("nearest, features", "{:.2f}"),
    "real_nearest_features": ("of real ones", "{:.2f}"),
    "copies": ("copies", "{:,.0f}"),
    "test_copies": ("of test images", "{:,.0f}"),
    "w2": ("W2", "{:.2f}"),
    "png_bytes": ("bytes as PNG", "{:,.0f}"),
}


# Groups of records -------------------------------------------------------------------


def split(students: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """The records of each (recipe, model), in order of appearance."""
    found: dict[tuple[str, str], list] = {}
    for row in students:
        found.setdefault((row["recipe"], row["model"]), []).append(row)
    return found


def summarise(records: list[dict], by: tuple[str, ...]) -> list[dict]:
    """Groups records of single students and takes the mean and std of each group.

    Args:
      records: with "top1" in [0, 1] and the fields in `by`.
      by: the fields that make a group, in the order of the result.

    Returns:
      One dict a group, in order of appearance: the fields, "mean", "std", "n".
    """
    groups: dict[tuple, list] = {}
    for row in records:
        groups.setdefault(tuple(row[field] for field in by), []).append(row["top1"])
    return [
        dict(zip((*by, "mean", "std", "n"), (*key, *metrics.mean_and_std(top1))))
        for key, top1 in groups.items()
    ]


def series(students: list[dict], x: str) -> dict[str, dict[str, list[tuple]]]:
    """What is drawn: accuracy over the size of a set, by labels and arm.

    Args:
      students: of one recipe and model.
      x: "ipc", or "bytes" of all that training needs.

    Returns:
      {labels: {arm: [(x, mean, std)]}}, by growing x. The whole data have ipc 0.
    """
    rows = [{**row, "bytes": _bytes(row)} for row in students]
    found: dict[str, dict] = {mode: {} for mode in _modes(students)}
    for group in summarise(rows, ("labels", "arm", x)):
        points = found[group["labels"]].setdefault(group["arm"], [])
        points.append((group[x], group["mean"], group["std"]))
    return {
        mode: {arm: sorted(points) for arm, points in arms.items()}
        for mode, arms in found.items()
    }


def _modes(students) -> list[str]:
    """The kinds of labels that there are, the cheapest first."""
    known = {row["labels"] for row in students}
    return sorted(known, key=LABELS.index)


def _bytes(row) -> int:
    """All that a student needs to be trained."""
    return row["image_bytes"] + row["label_bytes"] + row["other_bytes"]


def _places(rows) -> list[tuple]:
    """The distinct (run, ipc, arm): by ipc, the whole data last, runs together."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    runs = list(dict.fromkeys(row.get("run") for row in rows))
    places = {(row.get("run"), row["ipc"], row["arm"]) for row in rows}
    return sorted(
        places,
        key=lambda p: (p[1] == 0, p[1], arms.index(p[2]), runs.index(p[0])),
    )


def _at(rows, place) -> list[dict]:
    return [row for row in rows if (row.get("run"), row["ipc"], row["arm"]) == place]


# Scores ------------------------------------------------------------------------------


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


def difference(students: list[dict], first: str, second: str) -> list[dict]:
    """How much better students of one arm are than those of another.

    Students of one distilled set are not independent, so the standard error is that of
    the means of the sets (Welch).

    Args:
      students: of any recipes and models.
      first: an arm.
      second: another.

    Returns:
      One dict for each run, recipe, model, ipc and labels that both have: these, the
      two means, their "difference" and its "error" (all in percent; the error is NaN
      where an arm has one set).

    Raises:
      ValueError: an arm that the records do not have.
    """
    known = sorted({row["arm"] for row in students})
    for arm in (first, second):
        if arm not in known:
            raise ValueError(f"no arm {arm!r}; the records have: {', '.join(known)}.")
    by = ("run", "recipe", "model", "ipc", "labels")
    cells: dict[tuple, dict] = {}
    for row in students:
        cell = cells.setdefault(tuple(row.get(field) for field in by), {})
        sets = cell.setdefault(row["arm"], {})
        sets.setdefault(row["set"], []).append(100 * row["top1"])
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


# Tables: (header, rows) of texts -----------------------------------------------------


def results(students: list[dict], title=str) -> tuple[list[str], list[list[str]]]:
    """One row an arm and ipc, one column a kind of labels: percent, mean ± std.

    Args:
      students: of one recipe and model.
      title: `(arm) -> str`, its name for people.

    Returns:
      (header, rows); the first column is the run where the records name one. Bytes
      are those of the images, and of all that training needs, for each kind of labels.
    """
    modes, rows = _modes(students), []
    header = ["IPC", "images", *(f"{mode} labels" for mode in modes), "n"]
    header += ["bytes of images", *(f"with {mode} labels" for mode in modes)]
    for place in _places(students):
        mine = _at(students, place)
        groups = {group["labels"]: group for group in summarise(mine, ("labels",))}
        sizes = {row["labels"]: _bytes(row) for row in mine}
        run, ipc, arm = place
        rows.append(
            [
                *([run] if run else []),
                str(ipc or "all"),
                title(arm),
                *(_percent(groups.get(mode)) for mode in modes),
                str(max(group["n"] for group in groups.values())),
                f"{mine[0]['image_bytes']:,}",
                *(f"{sizes[mode]:,}" if mode in sizes else "" for mode in modes),
            ]
        )
    return _named(students, header), rows


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
    return _named(students, header), rows


def quality(sets: list[dict], title=str) -> tuple[list[str], list[list[str]]]:
    """Measures of the images, see `ddjax.quality`: means over the sets of an arm."""
    header, rows = ["IPC", "images"], []
    header += [name for name, _ in _MEASURES.values()]
    for place in _places(sets):
        run, ipc, arm = place
        row = [*([run] if run else []), str(ipc), title(arm)]
        for field, (_, form) in _MEASURES.items():
            found = (r.get(field) for r in _at(sets, place))
            values = [value for value in found if value is not None]
            row.append(form.format(np.mean(values)) if values else "")
        rows.append(row)
    return _named(sets, header), rows


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


def _named(rows, header) -> list[str]:
    return ["run", *header] if any(row.get("run") for row in rows) else header


def _percent(group) -> str:
    if group is None:
        return ""
    spread = f" ± {100 * group['std']:.1f}" if group["n"] > 1 else ""
    return f"{100 * group['mean']:.1f}{spread}"


# Their forms -------------------------------------------------------------------------


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with columns as wide as their longest cell."""
    widths = [
        max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))
    ]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(str(c).ljust(w) for c, w in zip(line, widths)) + " |"
        for line in lines
    )


def csv_table(header: list[str], rows: list[list[str]]) -> str:
    """The same, as comma separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


_LATEX = str.maketrans(
    {char: "\\" + char for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
    | {"^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
)


def latex_table(header: list[str], rows: list[list[str]], caption: str = "") -> str:
    """The same, as a LaTeX table for the package booktabs; numbers to the right."""
    columns = zip(*rows) if rows else [[] for _ in header]
    align = "".join(
        "r" if any(cells) and all(map(_is_number, filter(None, cells))) else "l"
        for cells in (list(map(str, column)) for column in columns)
    )
    lines = [
        " & ".join(str(cell).translate(_LATEX) for cell in line) + r" \\"
        for line in (header, *rows)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            *([rf"\caption{{{caption.translate(_LATEX)}}}"] if caption else []),
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _is_number(cell: str) -> bool:
    return cell.lstrip("-+")[:1].isdigit()

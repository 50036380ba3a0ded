"""Tables and pictures of what runs have found.

    python -m launch.report --workdir=runs/default
    python -m launch.report runs/default runs/other
    python -m launch.report runs/default --between=wmdd/noise,sre2l/noise

Trains nothing: it reads the records that the last `launch.evaluate` left there. The
first command writes <workdir>/report/ again; the second prints one table of several
runs, named by their work folders or files of records; the third, by how much the
students of one arm are better than those of another, and the standard error of that.
"""

import json
import pathlib

import numpy as np
from absl import flags, logging

from ddjax import checkpoint, tables
from launch import page, pictures, program, sections, titles

VERSION = 2  # of the file of records
_FILE = "records.json"
_RUN = {"name": str, "config": dict, "environment": dict, "data": dict}
_RUN |= {"students": list, "sets": list, "stages": list}
_STUDENT = ("arm", "ipc", "labels", "recipe", "model", "set", "student", "top1")
_STUDENT += ("image_bytes", "label_bytes", "other_bytes", "images")
_SET = ("arm", "ipc", "set")
_LATER = (
    "attacks",
    "alarms",
    "landscapes",
    "strengths",
    "labels",
    "label_counts",
)  # not in older files
_ATTACK = ("arm", "ipc", "labels", "recipe", "model", "set", "student", "attack")
_ATTACK += ("eps", "norm", "clean", "robust", "num_images")
_LANDSCAPE = ("name", "gradient_norm", "rayleigh", "top_eigenvalue", "cosine")
_LANDSCAPE += ("surface",)
_FIELDS = {"student": _STUDENT, "set": _SET}
_FIELDS |= {"attack": _ATTACK, "landscape": _LANDSCAPE}
_FIELDS |= {"label_count": ("ipc", "teachers", "score", "chosen")}
_FIELDS |= {"label": ("arm", "ipc", "set", "teachers", "entropy", "accuracy", "agreed")}


def run(config, workdir) -> None:
    """Writes <workdir>/report/ again, from the records of the last evaluation."""
    del config
    write(workdir, records(workdir))


# Reading -----------------------------------------------------------------------------


def records(path) -> dict:
    """A run's records.

    Args:
      path: its work folder, a folder with a records.json, or such a file.

    Raises:
      ValueError: there is none, or it is not what `write` writes; says why.
    """
    path = pathlib.Path(path)
    if path.is_dir() or not path.suffix:
        here, within = path / _FILE, path / "report" / _FILE
        path = here if here.exists() else within
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"no records in {path}; run launch.evaluate with the same --config and "
            "--workdir first."
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the records in {path}: {error}.") from error
    try:
        _check(found)
    except ValueError as error:
        raise ValueError(
            f"{path} does not hold the records of a run: {error}. Run launch.evaluate "
            "again to have them written."
        ) from None
    return found


def _check(found) -> None:
    """ValueError unless these are a run's records."""
    version = found.get("version") if isinstance(found, dict) else 1
    if version != VERSION:
        raise ValueError(f"they are of version {version}, not {VERSION}")
    for field, kind in _RUN.items():
        if not isinstance(found.get(field), kind):
            told = f"{field!r} is missing, or is no {kind.__name__}"
            raise ValueError(told)  # noqa: TRY004  (of a file, not of a program)
    for field in _LATER:
        if not isinstance(found.get(field, []), list):
            raise ValueError(f"{field!r} is no list")  # noqa: TRY004
    for kind, fields in _FIELDS.items():
        for i, row in enumerate(found.get(f"{kind}s", [])):
            missing = [field for field in fields if field not in row]
            if missing:
                raise ValueError(f"{kind} {i} has no {missing[0]!r}")
    for i, row in enumerate(found["students"]):
        _check_numbers(f"student {i}", row, "top1")
    for i, row in enumerate(found.get("attacks", [])):
        _check_numbers(f"attack {i}", row, "clean", "robust")
        _check_radius(f"attack {i}", row)
    for i, row in enumerate(found.get("landscapes", [])):
        if not _is_surface(row["surface"]):
            raise ValueError(f"the surface of landscape {i} is no table of numbers")


def _check_numbers(what, row, *fractions) -> None:
    if row["labels"] not in tables.LABELS:
        raise ValueError(f"{what} has unknown labels {row['labels']!r}")
    for field in fractions:
        value = row[field]
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"the {field} of {what} is {value!r}, no fraction")


def _check_radius(what, row) -> None:
    norm, eps = row["norm"], row["eps"]
    if norm not in tables.NORMS:
        known = ", ".join(tables.NORMS)
        raise ValueError(f"{what} has the unknown norm {norm!r}; known: {known}")
    if eps is not None and not (isinstance(eps, (int, float)) and eps > 0):
        raise ValueError(f"the eps of {what} is {eps!r}, no number above 0")


def _is_surface(surface) -> bool:
    try:
        loss = np.asarray(surface["loss"], np.float64)
        wide = float(surface["radius"]) > 0
    except (KeyError, TypeError, ValueError):
        return False
    return wide and loss.ndim == 2 and loss.size > 0 and bool(np.isfinite(loss).all())


def joined(paths) -> dict:
    """The records of several runs, with the name of the run in each row."""
    runs = [records(path) for path in paths]
    names = [run["name"] for run in runs]
    if len(set(names)) < len(names):  # the same config in two work folders
        names = [str(path) for path in paths]
    both = {"name": ", ".join(names), "alarms": []}
    for name, run in zip(names, runs):
        more, before = ({"run": name}, f"{name}: ") if len(runs) > 1 else ({}, "")
        for field in ("students", "sets", *(f for f in _LATER if f != "alarms")):
            rows = [{**row, **more} for row in run.get(field, [])]
            both[field] = both.get(field, []) + rows
        both["alarms"] += [before + alarm for alarm in run.get("alarms", [])]
    return both


# Writing -----------------------------------------------------------------------------


def write(workdir, run: dict) -> None:
    """Writes a run's records, tables and pictures, and prints the tables.

    In <workdir>/report/: records.json, table.md (all tables), table.tex, table.csv,
    scores.csv and sets.csv, accuracy-<recipe>-<model>.png and bytes-... of each recipe
    and model, grid.png, and index.html, the page that shows it all. Where students
    were attacked also robust.csv and robust-<recipe>-<model>-<labels>.png; where loss
    surfaces were measured, surfaces.png.

    Args:
      workdir: of the run.
      run: what `records` reads.

    Raises:
      ValueError: the records are not those of a run.
    """
    _check(run)
    folder = pathlib.Path(workdir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    students, sets = run["students"], run["sets"]
    texts = {
        _FILE: json.dumps(run, indent=1),
        "table.md": markdown(run),
        "table.tex": latex(run),
        "table.csv": tables.csv_table(*tables.long(students)),
        "scores.csv": tables.csv_table(*tables.scores_table(students)),
        "sets.csv": tables.csv_table(*tables.quality(sets)),
    }
    if run.get("attacks"):
        texts["robust.csv"] = tables.csv_table(*tables.robust_long(run["attacks"]))
    for name, text in texts.items():
        data = text.encode()
        checkpoint.write_atomically(
            folder / name, lambda file, data=data: file.write(data)
        )
    for name, figure in pictures.figures(workdir, run):
        figure.savefig(folder / f"{name}.png")
    logging.info("page: %s", page.write(workdir, run))
    print(f"\n{run['name']}\n\n{texts['table.md']}")
    logging.info("report: %s", folder)


def markdown(run: dict) -> str:
    """All tables of a run, or of several joined, with a line on each; the alarms."""
    parts = []
    for caption, table in _tables(run):
        parts += [caption + ".", tables.markdown_table(*table)]
    if run.get("alarms"):
        told = "\n".join(f"- {alarm}" for alarm in run["alarms"])
        parts += ["What looks wrong with the attacks.", told]
    return "\n\n".join(parts) + "\n"


def latex(run: dict) -> str:
    """The same tables for LaTeX."""
    return "\n\n".join(tables.latex_table(*t, caption) for caption, t in _tables(run))


def _tables(run):
    """(caption, (header, rows)) of each table that has rows."""
    students, sets = run["students"], run["sets"]
    for (recipe, model), mine in tables.split(students).items():
        caption = (
            f"Students: {model}, recipe {recipe}. Top-1 of the last epoch in percent, "
            "mean ± std of n students; bytes of the images, and of all that training "
            "needs"
        )
        yield caption, tables.results(mine, titles.title)
    for (recipe, model, labels), mine in tables.split(students, tables.KIND).items():
        if any("/" in r["arm"] and sections.change_of(r["arm"]) for r in mine):
            caption = (
                f"Settings: {model}, recipe {recipe}, {labels} labels. Top-1 of the last "
                "epoch in percent, mean ± std; seconds without the compiler's, of a "
                "machine that may have had other work"
            )
            yield caption, tables.settings(mine, run["stages"], titles.title)
    attacked = tables.split(run.get("attacks", []), tables.KIND)
    for (recipe, model, labels), mine in attacked.items():
        caption = (
            f"Under attack: {model}, recipe {recipe}, {labels} labels. Top-1 of the "
            "last epoch on the attacked images in percent, mean ± std of n students; "
            "eps in L-inf unless told; worst: of all attacks, image by image; robust / "
            "clean: the share of the accuracy that the worst case leaves"
        )
        yield caption, tables.robust(mine, titles.title)
    scores = tables.scores_table(students, titles.title)
    if scores[1]:
        yield "Scores, from accuracies in [0, 1]", scores
    if sets:
        caption = (
            "Images, means over the sets. Nearest: distance to the nearest training "
            "image, beside that of real images to the nearest other one; W2: between "
            "features"
        )
        yield caption, tables.quality(sets, titles.title)
    if run.get("labels"):
        caption = (
            "Labels of the images as they are, means over the sets: entropy at "
            "temperature 1, and accuracy on the classes of the images, of the teachers "
            "and of the labels that they give together"
        )
        yield caption, tables.sureness(run["labels"], titles.title)
    if run.get("label_counts"):
        caption = "Teachers that label, on held-out training images: mean accuracy"
        yield caption, tables.label_counts(run["label_counts"])
    tried = run.get("strengths", [])
    if tried:
        caption = (
            "Strengths of the curvature penalty, on held-out training images: accuracy "
            "without an attack and under one, means over students"
        )
        yield caption, tables.strengths(tried)
    networks = run.get("landscapes", [])
    if networks:
        caption = "Loss around test images: medians over images"
        yield caption, tables.landscapes(networks)


# Comparing ---------------------------------------------------------------------------


def between(run: dict, first: str, second: str) -> str:
    """A line for each recipe, model, ipc and labels that two arms have in common.

    Then one for each attack and radius that students of both were under.

    Raises:
      ValueError: an arm that the records do not have.
    """
    rows = tables.difference(run["students"], first, second)
    attacks = run.get("attacks", [])
    if {first, second} <= {row["arm"] for row in attacks}:
        by = ("attack", "norm", "eps")
        rows += tables.difference(attacks, first, second, "robust", by)
    lines = []
    for row in rows:
        where = f"{row['recipe']}, {row['model']}, ipc {row['ipc']}, {row['labels']}"
        if "attack" in row:
            name = tables.attack_title(row["attack"])
            where += f", {name} at {tables.radius(row['norm'], row['eps'])}"
        if row["run"]:
            where = f"{row['run']}: {where}"
        lines.append(
            f"{where}: {row['first']:.1f} against {row['second']:.1f}, "
            f"{row['difference']:+.1f} {_error(row)}"
        )
    return "\n".join(lines) or f"{first} and {second} have no table in common."


def _error(row) -> str:
    if np.isnan(row["error"]):
        return "(one set: no standard error)"
    if row["error"] == 0:
        return "± 0.0"
    ratio = row["difference"] / row["error"]
    return f"± {row['error']:.1f} ({ratio:+.1f} standard errors)"


def _main(config, workdir, *paths) -> None:
    arms = flags.FLAGS.between
    if arms and len(arms) != 2:
        raise ValueError(
            f"--between={','.join(arms)} must name two arms, with a comma between them."
        )
    if not paths and not arms:
        return run(config, workdir)
    both = joined(paths or [workdir])
    print(between(both, *arms) if arms else markdown(both))


if __name__ == "__main__":
    # Here, as other programs import this file, and have no such flag.
    flags.DEFINE_list("between", [], "Two arms to compare, as A,B.")
    program.main(_main, positional=True, alone=False)

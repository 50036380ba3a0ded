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

from ddjax import checkpoint, methods, report, tables
from launch import page, program

VERSION = 2  # of the file of records
_FILE = "records.json"
_NAMES = {
    "random": "random",
    "herding": "herding",
    "kcenter": "K-Center",
    "kmeans": "k-means medoids",
    "rded": "RDED patches",
    "sre2l": "SRe2L",
    "cda": "CDA",
    "wmdd": "WMDD",
}
_STARTS = {"": "", "noise": ", from noise", "real": ", from real images"}
_RUN = {"name": str, "config": dict, "environment": dict, "data": dict}
_RUN |= {"students": list, "sets": list, "stages": list}
_STUDENT = ("arm", "ipc", "labels", "recipe", "model", "set", "student", "top1")
_STUDENT += ("image_bytes", "label_bytes", "other_bytes", "images")
_SET = ("arm", "ipc", "set")


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
    for kind, fields in (("student", _STUDENT), ("set", _SET)):
        for i, row in enumerate(found[f"{kind}s"]):
            missing = [field for field in fields if field not in row]
            if missing:
                raise ValueError(f"{kind} {i} has no {missing[0]!r}")
    for i, row in enumerate(found["students"]):
        if row["labels"] not in tables.LABELS:
            raise ValueError(f"student {i} has unknown labels {row['labels']!r}")
        top1 = row["top1"]
        if not isinstance(top1, (int, float)) or not 0 <= top1 <= 1:
            raise ValueError(f"the top1 of student {i} is {top1!r}, no fraction")


def joined(paths) -> dict:
    """The students and sets of several runs, with the name of the run in each."""
    runs = [records(path) for path in paths]
    names = [run["name"] for run in runs]
    if len(set(names)) < len(names):  # the same config in two work folders
        names = [str(path) for path in paths]
    both = {"name": ", ".join(names), "students": [], "sets": []}
    for name, run in zip(names, runs):
        for field in ("students", "sets"):
            more = {"run": name} if len(runs) > 1 else {}
            both[field] += [{**row, **more} for row in run[field]]
    return both


# Writing -----------------------------------------------------------------------------


def write(workdir, run: dict) -> None:
    """Writes a run's records, tables and pictures, and prints the tables.

    In <workdir>/report/: records.json, table.md (all tables), table.tex, table.csv,
    scores.csv and sets.csv, accuracy-<recipe>-<model>.png and bytes-... of each recipe
    and model, grid.png, and index.html, the page that shows it all.

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
    for name, text in texts.items():
        data = text.encode()
        checkpoint.write_atomically(
            folder / name, lambda file, data=data: file.write(data)
        )
    for name, figure in _figures(workdir, students):
        figure.savefig(folder / f"{name}.png")
    logging.info("page: %s", page.write(workdir, run))
    print(f"\n{run['name']}\n\n{texts['table.md']}")
    logging.info("report: %s", folder)


def markdown(run: dict) -> str:
    """All tables of a run, or of several joined, with a line on each."""
    parts = []
    for caption, table in _tables(run):
        parts += [caption + ".", tables.markdown_table(*table)]
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
        yield caption, tables.results(mine, title)
    scores = tables.scores_table(students, title)
    if scores[1]:
        yield "Scores, from accuracies in [0, 1]", scores
    if sets:
        caption = (
            "Images, means over the sets. Nearest: distance to the nearest training "
            "image, beside that of real images to the nearest other one; W2: between "
            "features"
        )
        yield caption, tables.quality(sets, title)


def title(arm: str) -> str:
    """An arm's name for people; of an imported set, that of its folder."""
    name, _, start = arm.partition("/")
    if name in (*_NAMES, *methods.names()) and start in _STARTS:
        return _NAMES.get(name, name) + _STARTS[start]
    return pathlib.PurePath(arm).name


# Comparing ---------------------------------------------------------------------------


def between(run: dict, first: str, second: str) -> str:
    """A line for each recipe, model, ipc and labels that two arms have in common.

    Raises:
      ValueError: an arm that the records do not have.
    """
    lines = []
    for row in tables.difference(run["students"], first, second):
        where = f"{row['recipe']}, {row['model']}, ipc {row['ipc']}, {row['labels']}"
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


# Pictures ----------------------------------------------------------------------------


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


def _figures(workdir, students):
    """(name, figure): accuracy over size of every recipe and model, and the images."""
    for (recipe, model), mine in tables.split(students).items():
        what = f"{model}, recipe {recipe}"
        for name, x, label in (
            ("accuracy", "ipc", "images per class"),
            ("bytes", "bytes", "bytes of all that training needs"),
        ):
            panels = {
                labels: {title(arm): points for arm, points in lines.items()}
                for labels, lines in tables.series(mine, x).items()
            }
            yield f"{name}-{recipe}-{model}", report.accuracy(panels, what, label)
    figure = _grid(workdir, students)
    if figure is not None:
        yield "grid", figure


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
        rows.append((f"{title(arm)}: {len(shown) // width} of {ipc} per class", shown))
    return report.grid(rows, min(width, 20)) if rows else None


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

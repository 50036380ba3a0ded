"""Tables and pictures of what a work folder holds.

    python -m launch.report --workdir=runs/default

Trains nothing: it reads the records that the last `launch.evaluate` left there.
"""

import json
import pathlib

import numpy as np
from absl import logging

from ddjax import checkpoint, report
from launch import program

_NAMES = {
    "random": "random",
    "herding": "herding",
    "kmeans": "k-means medoids",
    "sre2l": "SRe2L",
    "cda": "CDA",
    "wmdd": "WMDD",
}


def run(config, workdir) -> None:
    """Writes <workdir>/report/ again, from the records of the last evaluation."""
    path = pathlib.Path(workdir) / "report" / "records.json"
    if not path.exists():
        raise ValueError(
            f"no records in {path}; run launch.evaluate with the same --config and "
            "--workdir first."
        )
    write(config, workdir, json.loads(path.read_text()))


def write(config, workdir, records: list[dict]) -> None:
    """Writes table.md, table.csv, records.json and grid.png, and prints the table."""
    folder = pathlib.Path(workdir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    header, rows = table(records)
    texts = {
        "table.md": report.markdown_table(header, rows),
        "table.csv": report.csv_table(header, rows),
        "records.json": json.dumps(records, indent=1),
    }
    for name, text in texts.items():
        data = text.encode()
        checkpoint.write_atomically(
            folder / name, lambda file, data=data: file.write(data)
        )
    figure = _grid(workdir, records)
    if figure is not None:
        figure.savefig(folder / "grid.png")
    print(f"\n{config.name}: top-1 of the last epoch, mean ± std of n students\n")
    print(texts["table.md"])
    logging.info("report: %s", folder)


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


def table(records) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row an arm and ipc, one column a kind of labels."""
    groups = report.summarise(records, ("ipc", "arm", "labels"))
    kinds = sorted({group["labels"] for group in groups})
    header = ["IPC", "images", *(f"{kind} labels" for kind in kinds), "n"]
    header += ["bytes of images", *(f"of {kind} labels" for kind in kinds)]
    rows = []
    for ipc, arm in dict.fromkeys((g["ipc"], g["arm"]) for g in groups):
        mine = {g["labels"]: g for g in groups if (g["ipc"], g["arm"]) == (ipc, arm)}
        sizes = {r["labels"]: r for r in records if (r["ipc"], r["arm"]) == (ipc, arm)}
        scores = [_score(mine.get(kind)) for kind in kinds]
        some = next(iter(sizes.values()))
        rows.append(
            [
                str(ipc or "all"),
                title(arm),
                *scores,
                str(max(g["n"] for g in mine.values())),
                f"{some['image_bytes']:,}",
                *(f"{sizes[k]['label_bytes']:,}" if k in sizes else "" for k in kinds),
            ]
        )
    return header, rows


def title(arm: str) -> str:
    """An arm's name for people."""
    name, _, start = arm.partition("/")
    origin = {"": "", "noise": ", from noise", "real": ", from real images"}[start]
    return _NAMES.get(name, name) + origin


def _score(group) -> str:
    if group is None:
        return ""
    spread = f" ± {100 * group['std']:.1f}" if group["n"] > 1 else ""
    return f"{100 * group['mean']:.1f}{spread}"


def _grid(workdir, records):
    """Three images a class of the first set of every arm, at the largest ipc."""
    folders = {
        path.parent.name.rpartition("-")[2]: path.parent
        for path in (pathlib.Path(workdir) / "recover").glob("*/manifest.json")
    }
    chosen = {}
    for row in sorted(records, key=lambda row: (-row["ipc"], row["set"])):
        if row["images"] in folders:
            chosen.setdefault(row["arm"], (row["ipc"], folders[row["images"]]))
    rows, width = [], 1
    for arm in dict.fromkeys(row["arm"] for row in records if row["arm"] in chosen):
        ipc, folder = chosen[arm]
        images = checkpoint.load(folder)["images"]
        width = len(images) // ipc
        shown = columns(images, width, 3)
        rows.append((f"{title(arm)}: {len(shown) // width} of {ipc} per class", shown))
    return report.grid(rows, min(width, 20)) if rows else None


if __name__ == "__main__":
    program.main(run)

"""Whether bfloat16 costs accuracy: the default job in both types, teacher by teacher.

    python -m benchmarks.precision
    python -m benchmarks.precision --seeds=2 --folder=runs/precision

Runs `launch.recover` and `launch.evaluate` of the default config with networks whose
products are float32 and with such that are bfloat16, teachers and students alike, once
for each seed. A seed gives both runs the same teacher's initialisation, order of the
data, views and real images; yet rounding alone makes another teacher, which moves the
rows of a table together. So the difference is taken seed by seed, and its standard error
is that of the mean over seeds. Where nothing is lost, a third of the rows or more lie
beyond one standard error all the same, and about as many above zero as below.

The folder keeps what is finished: the same command goes on. Top-1 of all runs and the
table go to benchmarks/results/precision.json.
"""

import argparse
import collections
import json
import pathlib
import subprocess
import sys

import numpy as np

from benchmarks import beside
from ddjax import tables
from launch import report, titles

RESULTS = pathlib.Path(__file__).parent / "results" / "precision.json"
TYPES = ("float32", "bfloat16")
_MODELS = ("squeeze.model", "student.models.convnet")


def run(folder: pathlib.Path, dtype: str, seed: int) -> dict:
    """The records of a job, which begins or goes on in a folder of its own."""
    workdir = folder / f"{dtype}-{seed}"
    options = [f"--workdir={workdir}", f"--config.seed={seed}"]
    options += [f"--config.{model}.dtype={dtype}" for model in _MODELS]
    for program in ("recover", "evaluate"):
        command = [sys.executable, "-m", f"launch.{program}", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return report.records(workdir)


def rows(records: dict) -> dict[tuple, float]:
    """The mean top-1 of the students of each (IPC, arm, labels), in percent."""
    found = collections.defaultdict(list)
    for student in records["students"]:
        row = str(student["ipc"]), student["arm"], student["labels"]
        found[row].append(100 * student["top1"])
    return {row: float(np.mean(values)) for row, values in found.items()}


def differences(pairs: list[tuple[dict, dict]]) -> list[dict]:
    """bfloat16 - float32, row by row, over pairs of `rows` of the same seed."""
    found = []
    for row in pairs[0][0]:
        wide, narrow = np.array([(a[row], b[row]) for a, b in pairs]).T
        gained = narrow - wide
        found.append(
            {
                "ipc": row[0],
                "arm": row[1],
                "labels": row[2],
                "float32": wide.tolist(),
                "bfloat16": narrow.tolist(),
                "difference": gained.mean(),
                "standard_error": gained.std(ddof=1) / np.sqrt(len(gained)),
            }
        )
    return found


def table(found: list[dict]) -> str:
    """In Markdown."""
    header = ["IPC", "images", "labels", *TYPES, "difference", "standard error"]
    cells = [
        [
            r["ipc"] if r["ipc"] != "0" else "all",
            titles.title(r["arm"]),
            r["labels"],
            *(f"{np.mean(r[dtype]):.1f}" for dtype in TYPES),
            f"{r['difference']:+.1f}",
            f"{r['standard_error']:.1f}",
        ]
        for r in found
    ]
    return tables.markdown_table(header, cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least two")
    parser.add_argument("--folder", type=pathlib.Path, default="runs/precision")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds={options.seeds}: a standard error needs two or more.")
    pairs, teachers = [], []
    for seed in range(options.seeds):
        both = [run(options.folder, dtype, seed) for dtype in TYPES]
        pairs.append(tuple(map(rows, both)))
        teachers.append(
            [100 * records["teacher"]["accuracy"]["test"] for records in both]
        )
        print(f"seed {seed}: teachers {teachers[-1]}", flush=True)
    found = differences(pairs)
    record = {"machine": beside.machine(), "teachers": teachers, "rows": found}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()

"""Whether bfloat16 costs accuracy: the default job in both types, teacher by teacher.

    python -m benchmarks.precision
    python -m benchmarks.precision --seeds=2 --folder=runs/precision

Runs `launch.recover` and `launch.evaluate` of the default config with networks whose
products are float32 and with such that are bfloat16, teachers and students alike, once
for each seed. A seed gives both runs the same teacher's initialisation, order of the
data, views and real images; yet rounding alone makes another teacher, which moves the
rows of a table together. So the difference is taken seed by seed, its standard error is
that of the mean over seeds, and beside it stands what float32 with another rounding makes
of the same: on a CPU, with sums too left to Eigen (see `launch.xla`).

The folder keeps what is finished: the same command goes on. Top-1 of all runs and the
table go to benchmarks/results/precision.json.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from benchmarks import beside
from ddjax import tables
from launch import report, titles

RESULTS = pathlib.Path(__file__).parent / "results" / "precision.json"
_OTHER = "--xla_cpu_experimental_ynn_fusion_type="  # nothing for YNNPACK
RUNS = {  # type of the products, and flags of XLA's
    "float32": ("float32", ""),
    "bfloat16": ("bfloat16", ""),
    "rounded": ("float32", _OTHER),
}
_MODELS = ("squeeze.model", "student.models.convnet")


def run(folder: pathlib.Path, name: str, seed: int) -> dict:
    """The records of a job, which begins or goes on in a folder of its own."""
    dtype, flags = RUNS[name]
    workdir = folder / f"{name}-{seed}"
    options = [f"--workdir={workdir}", f"--config.seed={seed}"]
    options += [f"--config.{model}.dtype={dtype}" for model in _MODELS]
    environment = {**os.environ, "XLA_FLAGS": flags}
    for program in ("recover", "evaluate"):
        command = [sys.executable, "-m", f"launch.{program}", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return report.records(workdir)


def rows(records: dict) -> dict[tuple, float]:
    """The mean top-1 of the students of each (IPC, arm, labels), in percent."""
    found = collections.defaultdict(list)
    for student in records["students"]:
        row = str(student["ipc"]), student["arm"], student["labels"]
        found[row].append(100 * student["top1"])
    return {row: float(np.mean(values)) for row, values in found.items()}


def differences(found: list[dict[str, dict]]) -> list[dict]:
    """Of each row, from the `rows` of each run, seed by seed."""
    told = []
    for ipc, arm, labels in found[0]["float32"]:
        tops = {
            name: np.array([runs[name][ipc, arm, labels] for runs in found])
            for name in RUNS
        }
        row = {"ipc": ipc, "arm": arm, "labels": labels}
        row |= {name: values.tolist() for name, values in tops.items()}
        for name in ("bfloat16", "rounded"):
            gained = tops[name] - tops["float32"]
            row[f"{name} difference"] = gained.mean()
            row[f"{name} error"] = gained.std(ddof=1) / np.sqrt(len(gained))
        told.append(row)
    return told


def table(told: list[dict]) -> str:
    """In Markdown."""
    header = ["IPC", "images", "labels", "float32", "bfloat16 - float32"]
    header.append("float32, rounded otherwise, - float32")
    cells = [
        [
            row["ipc"] if row["ipc"] != "0" else "all",
            titles.title(row["arm"]),
            row["labels"],
            f"{np.mean(row['float32']):.1f}",
            *(
                f"{row[f'{name} difference']:+.1f} ± {row[f'{name} error']:.1f}"
                for name in ("bfloat16", "rounded")
            ),
        ]
        for row in told
    ]
    return tables.markdown_table(header, cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="at least two")
    parser.add_argument("--folder", type=pathlib.Path, default="runs/precision")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds={options.seeds}: a standard error needs two or more.")
    found, teachers = [], []
    for seed in range(options.seeds):
        records = {name: run(options.folder, name, seed) for name in RUNS}
        found.append({name: rows(record) for name, record in records.items()})
        teachers.append(
            {n: 100 * r["teacher"]["accuracy"]["test"] for n, r in records.items()}
        )
        print(f"seed {seed}: teachers {teachers[-1]}", flush=True)
    told = differences(found)
    record = {"machine": beside.machine(), "teachers": teachers, "rows": told}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(table(told))


if __name__ == "__main__":
    main()

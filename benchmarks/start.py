"""How soon each program computes: with an empty compile cache, and with a full one.

    python -m benchmarks.start

Runs the quick form of the default config, program after program (squeeze, recover,
relabel, evaluate), in an empty folder and with an empty cache; then all again in
another folder, with the programs that the first run has compiled. Seconds on the wall,
what of them went into compiling (or reading what was compiled), and the ratio of the
second run to the first, to benchmarks/results/start.json. Each program begins where the
one before has ended, so that its seconds are its own.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import beside

RESULTS = pathlib.Path(__file__).parent / "results" / "start.json"
PROGRAMS = ("squeeze", "recover", "relabel", "evaluate")


def run(program: str, workdir: str, cache: str) -> dict:
    """Seconds of a program, and of its compiling."""
    command = [sys.executable, "-m", f"launch.{program}"]
    command += ["--config=configs/default.py:quick", f"--workdir={workdir}"]
    began = time.monotonic()
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return {
        "seconds": time.monotonic() - began,
        "compile_seconds": _compiling(workdir, program),
    }


def _compiling(workdir, program) -> float:
    """Of the records that a program has written."""
    stages = {"evaluate": ("evaluate",), "recover": ("stats", "recover")}
    total = 0.0
    for stage in stages.get(program, (program,)):
        for path in pathlib.Path(workdir, stage).glob("*/manifest.json"):
            record = json.loads(path.read_text()).get("record", {})
            total += record.get("compile_seconds", 0)
    return total


def main():
    machine, rows = beside.machine(), []
    with tempfile.TemporaryDirectory() as folder:
        for when in ("empty", "full"):
            for program in PROGRAMS:
                found = run(program, f"{folder}/{when}", f"{folder}/cache")
                rows.append({"program": program, "cache": when, **found})
                print(rows[-1], flush=True)
    cold = {r["program"]: r for r in rows if r["cache"] == "empty"}
    for row in rows:
        row["ratio"] = row["seconds"] / cold[row["program"]]["seconds"]
    machine["load_after"] = beside.load()
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

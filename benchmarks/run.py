"""Every hot path against what the machine could do, and the other benchmarks by name.

    python -m benchmarks.run                         # all hot paths
    python -m benchmarks.run squeeze recover         # some of them
    python -m benchmarks.run convolution matching --torch_python=PATH
    python -m benchmarks.run --list

For each program of `benchmarks.paths`: seconds of a call, the fastest of several turns
that all programs of a path take; seconds to compile; its operations and memory as the
compiler counts them. **How far from the limit**: the machine's own rate of products of
matrices is measured before and after, in the same run, and `share` is the time that the
path's operations would take at that rate over the time it takes. Seconds of a CPU are
those of one machine on one day; ratios are what to read.

Records go to benchmarks/results/paths/<backend>.json, where a path that is timed again
replaces its own, with a table and plots against images per class, classes, pixels,
students and devices. Names of other benchmarks (see --list) run these, one after another.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import beside, paths, plots
from ddjax import parallel, tables

RESULTS = pathlib.Path(__file__).parent / "results" / "paths"
OTHERS = {  # whether it has a side of PyTorch's
    "attacks": True,
    "convolution": True,
    "matching": True,
    "geometries": False,
    "memory": False,
    "ot": False,
    "precision": False,
    "sampling": False,
    "scale": False,
    "scaling": False,
    "start": False,
    "students": False,
}


class Timed:
    """A case, compiled."""

    def __init__(self, case):
        self.case = case
        program = jax.jit(case.step)
        began = time.perf_counter()
        self._compiled = program.lower(case.state, *case.given).compile()
        self.compile_seconds = time.perf_counter() - began
        self.cost = parallel.cost(program, case.state, *case.given)
        self.seconds = np.inf
        self.turn(0)

    def turn(self, seconds: float) -> None:
        """Calls it for so long, at least once, and keeps the fastest."""
        began = time.perf_counter()
        while True:
            start = time.perf_counter()
            jax.block_until_ready(self._compiled(self.case.state, *self.case.given))
            self.seconds = min(self.seconds, time.perf_counter() - start)
            if time.perf_counter() - began >= seconds:
                return

    def record(self, rate: float) -> dict:
        """What was found; `rate`: operations a second that the machine can do."""
        case = self.case
        record = {
            "path": case.path,
            "what": case.what,
            "varied": case.varied,
            "value": case.value,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "bytes": self.cost.memory,
        }
        if case.loops:
            return record
        least = self.cost.flops / rate
        return {**record, "flops": self.cost.flops, "share": least / self.seconds}


def rate_of_products(seconds: float = 1.0) -> float:
    """Operations a second of a product of float32 matrices, the fastest seen."""
    size = 1024 if parallel.is_cpu() else 8192
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    best, began = np.inf, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        jax.block_until_ready(product(x, x))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def measured(name: str, rounds: int, seconds: float) -> tuple[list[dict], float]:
    """The records of a path, and the rate they were compared with."""
    rate = rate_of_products()
    cases = [Timed(case) for case in paths.PATHS[name]()]
    for _ in range(rounds):
        for case in cases:
            case.turn(seconds)
    rate = max(rate, rate_of_products())
    return [case.record(rate) for case in cases], rate


def table(records: list[dict]) -> str:
    """In Markdown: relative time, share of the limit, memory, seconds to compile."""
    header = ["path", "of", "at", "time", "share of the limit", "memory", "compiling"]
    rows, first = [], {}
    for r in records:
        line = r["path"], r["what"]
        against = first.setdefault(line if r["varied"] else r["path"], r["seconds"])
        share = f"{r['share']:.0%}" if "share" in r else ""
        rows.append(
            [
                r["path"],
                r["what"],
                f"{r['varied']} {r['value']}" if r["varied"] else "",
                f"{r['seconds'] / against:.2f} x",
                share,
                f"{r['bytes'] / 1e6:,.0f} MB",
                f"{r['compile_seconds']:.1f} s",
            ]
        )
    return tables.markdown_table(header, rows)


def hot_paths(names: list[str], rounds: int, seconds: float) -> None:
    """Times paths, and writes their records, table and plots."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{'cpu' if parallel.is_cpu() else 'accelerator'}.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    # What is kept on disk must not be taken for what was compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    for name in names:
        machine = beside.machine()
        records, rate = measured(name, rounds, seconds)
        machine |= {"load_after": beside.load(), "gflops": rate / 1e9}
        kept[name] = {"machine": machine, "records": records}
        kept = {known: kept[known] for known in paths.PATHS if known in kept}
        path.write_text(json.dumps(kept, indent=1) + "\n")
        print(table(records), flush=True)
    every = [r for found in kept.values() for r in found["records"]]
    path.with_suffix(".md").write_text(table(every) + "\n")
    plots.against(every).savefig(path.with_suffix(".png"))
    print(path.with_suffix(".png"))


def others(names: list[str], torch_python: str | None) -> None:
    """Runs benchmarks that have programs of their own."""
    for name in names:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if OTHERS[name] and torch_python:
            command.append(f"--torch_python={torch_python}")
        print("$", *command[1:], flush=True)
        subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="see --list; all hot paths by default")
    parser.add_argument("--list", action="store_true", help="the names, and stop")
    parser.add_argument("--torch_python", metavar="PATH", help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    options = parser.parse_args()
    if options.list:
        print("hot paths:", *paths.PATHS)
        print("others:   ", *OTHERS)
        return
    known = [*paths.PATHS, *OTHERS]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown name {unknown[0]!r}; known: {', '.join(known)}")
    chosen = [n for n in options.names or paths.PATHS if n in paths.PATHS]
    if chosen:
        hot_paths(chosen, options.rounds, options.seconds)
    others([n for n in options.names if n in OTHERS], options.torch_python)


if __name__ == "__main__":
    main()

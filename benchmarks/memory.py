"""The memory of programs on a CPU: what is foretold of it, and what it comes to.

    python -m benchmarks.memory

The programs of `benchmarks.paths` that are foretold more than 50 MB. Foretold is
`parallel.cost`, which `--dry_run` prints: arguments, results and all between them.
Measured is the same of the process (resident memory, of Linux): its arguments, and how
far it rises during a call, once what is free has been given back. That it does not go on
rising is seen from another twenty calls. Records go to benchmarks/results/memory.json.
"""

import argparse
import ctypes
import json
import pathlib
import time

import jax

from benchmarks import beside, paths
from ddjax import parallel, tables

RESULTS = pathlib.Path(__file__).parent / "results" / "memory.json"
LEAST = 50e6  # bytes; less is lost among those of Python and of the compiler
_PATHS = ("squeeze", "stats", "recover", "relabel", "student")
_CALLS = 20


def resident(field: str) -> int:
    """Bytes of this process: "VmRSS", as it is now, or "VmHWM", the peak."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {field} in /proc/self/status; this needs Linux.")


def record(case) -> dict | None:
    """Of a program; None for a small one."""
    program, arguments = jax.jit(case.step), (case.state, *case.given)
    foretold = parallel.cost(program, *arguments).memory
    if foretold < LEAST:
        return None
    compiled = program.lower(*arguments).compile()

    def calls(count):
        """Bytes above the beginning, at most."""
        time.sleep(0.5)  # a result is there a little before the rest is given back
        ctypes.CDLL(None).malloc_trim(0)
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        for _ in range(count):
            jax.block_until_ready(compiled(*arguments))
        return resident("VmHWM") - before

    calls(1)
    given = sum(x.nbytes for x in jax.tree.leaves(arguments))
    risen = max(calls(1), calls(1))
    time.sleep(0.5)
    ctypes.CDLL(None).malloc_trim(0)
    kept = resident("VmRSS")
    calls(_CALLS)
    time.sleep(0.5)
    ctypes.CDLL(None).malloc_trim(0)
    return {
        "path": case.path,
        "what": case.what,
        "varied": case.varied,
        "value": case.value,
        "foretold": foretold,
        "measured": given + risen,
        "growth": resident("VmRSS") - kept,
    }


def table(records) -> str:
    """In Markdown."""
    header = ["path", "of", "at", "foretold", "measured", "ratio"]
    header.append(f"growth in {_CALLS} calls")
    rows = [
        [
            r["path"],
            r["what"],
            f"{r['varied']} {r['value']}" if r["varied"] else "",
            f"{r['foretold'] / 1e6:,.0f} MB",
            f"{r['measured'] / 1e6:,.0f} MB",
            f"{r['foretold'] / r['measured']:.2f}",
            f"{r['growth'] / 1e6:,.1f} MB",
        ]
        for r in records
    ]
    return tables.markdown_table(header, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=_PATHS, help=", ".join(_PATHS))
    records = []
    for name in parser.parse_args().names:
        for case in paths.PATHS[name]():
            if (found := record(case)) is not None:
                records.append(found)
                print(table([found]).splitlines()[-1], flush=True)
    found = {"machine": beside.machine(), "records": records}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()

"""Transport and barycenters of feature clouds, beside POT, as ratios of one run.

    python -m benchmarks.ot                    # all; about four minutes on two cores
    python -m benchmarks.ot transport          # or only some of the parts
    python -m benchmarks.ot barycenter
    python -m benchmarks.ot classes --classes=1000 --atoms=10

Synthetic features as a ReLU network leaves them, 512 wide. POT works through the classes
one after another, in float64, as WMDD's released code does; both sides get the same
points and the same first atoms. The order is A B A B; ratios are of medians. Records go
to benchmarks/results/ot/.
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time

import jax
import numpy as np

from ddjax import ot, parallel

RESULTS = pathlib.Path(__file__).parent / "results" / "ot"
WIDTH = 512
SIZES = (500, 947, 1300)  # of a class: Tiny-ImageNet, ImageNette, ImageNet
ATOMS = (10, 50, 100)
SOLVERS = {
    "lp": ot.lp,
    "semidual 1e-2": ot.SMOOTH,
    "semidual 1e-3": ot.semidual,
    "semidual 1e-6": functools.partial(ot.semidual, tolerance=1e-6),
}


def features(seed: int, n: int) -> np.ndarray:
    """[n, 512] float32: rectified, correlated, as pooled features are."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, 64)) @ rng.normal(size=(64, WIDTH)) / 8
    return np.maximum(mixed + 0.5 * rng.normal(size=(n, WIDTH)), 0).astype(np.float32)


def class_sizes(classes: int) -> list[int]:
    """As in ImageNet-1K: 1,300 images in nine classes of ten, the others 732 to 1,299."""
    rng = np.random.default_rng(0)
    return [1300 if k % 10 else int(rng.integers(732, 1300)) for k in range(classes)]


def alternate(rounds: int, **sides) -> dict[str, float]:
    """Median seconds of each side, run in turns; the first turn warms up."""
    seconds = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(x) for name, x in seconds.items()}


def transport(classes: int = 10, rounds: int = 3):
    """One transport for each class: `ot.emd` in a loop, and ours side by side."""
    for n in SIZES:
        for m in ATOMS:
            yield from _transports(n, m, classes, rounds)


def _transports(n, m, classes, rounds):
    import ot as pot

    x = np.stack([features(k, n) for k in range(classes)])
    cost = np.asarray(jax.vmap(ot.squared_euclidean)(x, x[:, :m]))
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    exact = cost.astype(np.float64)
    found = {}

    def by_pot():
        found["POT"] = [pot.emd2(a, b, c) for c in exact]

    def by_us(name, solve, *masses):
        found[name] = jax.block_until_ready(solve(cost, *masses))

    sides = {"POT": by_pot}
    for name, solver in SOLVERS.items():
        solve = jax.jit(jax.vmap(solver, in_axes=(0, None, None)))
        masses = a.astype(np.float32), b.astype(np.float32)
        sides[name] = functools.partial(by_us, name, solve, *masses)
    seconds = alternate(rounds, **sides)
    for name in SOLVERS:
        yield {
            "part": "transport",
            "points": n,
            "atoms": m,
            "classes": classes,
            "solver": name,
            "seconds": seconds[name] / classes,
            "pot_seconds": seconds["POT"] / classes,
            "ratio": seconds["POT"] / seconds[name],
            "gap": float(found[name].gap.max()),
            "above_pot": float(np.max(found[name].cost / np.array(found["POT"]) - 1)),
        }


def barycenter(classes: int = 10, rounds: int = 1):
    """The barycenters of some classes of one size."""
    for n in SIZES:
        for m in ATOMS:
            yield from _barycenters("barycenter", [n] * classes, m, rounds)


def many_classes(classes: int, atoms: int):
    """The barycenters of classes of uneven sizes: a hundredth, a tenth, and all."""
    for count in (classes // 100, classes // 10, classes):
        if count:
            yield _many_classes(count, atoms)


def _many_classes(classes, atoms):
    """Each side once, in a process of its own, which has its own peak of memory."""
    command = [sys.executable, "-m", "benchmarks.ot", "--alone"]
    sides = {}
    for side in ("POT", "semidual 1e-2"):
        asked = [side, f"--classes={classes}", f"--atoms={atoms}"]
        ended = subprocess.run(command + asked, check=True, stdout=subprocess.PIPE)
        sides[side] = json.loads(ended.stdout.splitlines()[-1])
    theirs, ours = sides.values()
    return {
        "part": "classes",
        "points": "732-1300",
        "atoms": atoms,
        "classes": classes,
        "solver": "semidual 1e-2",
        "seconds": ours["seconds"] / classes,
        "pot_seconds": theirs["seconds"] / classes,
        "ratio": theirs["seconds"] / ours["seconds"],
        "objective": ours["cost"] / theirs["cost"],
        "bytes": ours["bytes"],
        "pot_bytes": theirs["bytes"],
        "data_bytes": ours["data_bytes"],
    }


def _barycenters(part, sizes, m, rounds):
    clouds, starts = _clouds(sizes, m)
    costs = {}

    def side(name):
        costs[name] = _solve(name, clouds, starts)

    names = ("POT", "lp", "semidual 1e-2")
    seconds = alternate(
        rounds, **{name: functools.partial(side, name) for name in names}
    )
    for name in names[1:]:
        yield {
            "part": part,
            "points": max(sizes),
            "atoms": m,
            "classes": len(sizes),
            "solver": name,
            "seconds": seconds[name] / len(sizes),
            "pot_seconds": seconds["POT"] / len(sizes),
            "ratio": seconds["POT"] / seconds[name],
            "objective": float(np.mean(costs[name]) / np.mean(costs["POT"])),
        }


def _clouds(sizes, m):
    clouds = [features(k, n) for k, n in enumerate(sizes)]
    rngs = (np.random.default_rng(k) for k in range(len(sizes)))
    starts = [x[rng.permutation(len(x))[:m]] for x, rng in zip(clouds, rngs)]
    return clouds, starts


def _solve(name, clouds, starts):
    """The exact cost of every class's barycenter."""
    if name == "POT":
        return [_by_pot(x, y) for x, y in zip(clouds, starts)]
    largest = max(map(len, clouds))

    def load(k):
        missing = largest - len(clouds[k])
        mass = np.full(largest, 1 / len(clouds[k]), np.float32)
        mass[largest - missing :] = 0
        x = np.pad(clouds[k], ((0, missing), (0, 0))) if missing else clouds[k]
        return x, mass, starts[k]

    return parallel.mapped(_finder(name), load, len(clouds))


@functools.cache
def _finder(name):
    key, solver = jax.random.key(0), SOLVERS[name]

    def find(x, mass, start):
        size = len(start)
        return ot.barycenter(key, x, size, a=mass, start=start, solver=solver).cost

    return find


def _by_pot(x, start):
    import ot as pot

    x, mass = x.astype(np.float64), np.full(len(x), 1 / len(x))
    y = pot.lp.free_support_barycenter([x], [mass], start.astype(np.float64))
    return pot.emd2(np.full(len(y), 1 / len(y)), mass, pot.dist(y, x))


def _alone(name, classes, atoms):
    """One side of `many_classes`: seconds, bytes and mean cost, as a line of JSON."""
    clouds, starts = _clouds(class_sizes(classes), atoms)
    _solve(name, clouds[:2], starts[:2])  # compile, import
    began = time.perf_counter()
    costs = _solve(name, clouds, starts)
    record = {
        "seconds": time.perf_counter() - began,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "data_bytes": sum(x.nbytes for x in clouds),
        "cost": float(np.mean(costs)),
    }
    print(json.dumps(record))


def growth(records: list[dict]) -> list[str]:
    """How the seconds of all classes grow: exponents of what the records vary."""
    lines = []
    for solver in dict.fromkeys(r["solver"] for r in records):
        mine = [r for r in records if r["solver"] == solver]
        varied = [
            name
            for name in ("points", "atoms", "classes")
            if len({r[name] for r in mine}) > 1
        ]
        for side, field in ((solver, "seconds"), ("POT", "pot_seconds")):
            design = [[1, *(np.log(r[name]) for name in varied)] for r in mine]
            seconds = [np.log(r[field] * r["classes"]) for r in mine]
            _, *powers = np.linalg.lstsq(design, seconds, rcond=None)[0]
            terms = (f"{name}^{power:.2f}" for name, power in zip(varied, powers))
            lines.append(f"{side}: seconds ~ {' '.join(terms)}")
    return list(dict.fromkeys(lines))


def _line(record):
    words = [
        f"{record['part']:>10} {record['classes']:>5} classes x {record['points']:>8}",
        f"-> {record['atoms']:>3} atoms  {record['solver']:<13}",
        f"{1e3 * record['seconds']:8.2f} ms a class,",
        f"POT {1e3 * record['pot_seconds']:8.2f},  {record['ratio']:6.1f} x",
    ]
    if "gap" in record:
        words.append(f" gap <= {record['gap']:.0e}")
    if "objective" in record:
        words.append(f" objective {record['objective']:.4f} of POT's")
    if "bytes" in record:
        peaks = (record[name] / 2**20 for name in ("bytes", "pot_bytes", "data_bytes"))
        words.append(" peak {:.0f} MiB, POT {:.0f}, the data {:.0f}".format(*peaks))
    return " ".join(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help="transport, barycenter, classes")
    parser.add_argument("--classes", type=int, default=1000, help="of `classes`")
    parser.add_argument("--atoms", type=int, default=10, help="of `classes`")
    parser.add_argument("--alone", metavar="SIDE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        return _alone(options.alone, options.classes, options.atoms)
    parts = {
        "transport": transport,
        "barycenter": barycenter,
        "classes": lambda: many_classes(options.classes, options.atoms),
    }
    unknown = set(options.parts) - set(parts)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}; known: {', '.join(parts)}")
    device = jax.devices()[0]
    machine = {
        "device": f"{device.platform} {device.device_kind}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in options.parts or parts:
        records = []
        for record in parts[name]():
            print(_line(record), flush=True)
            records.append(record)
        print(*growth(records), sep="\n")
        file = (
            f"{name}-{options.classes}x{options.atoms}" if name == "classes" else name
        )
        text = json.dumps({"machine": machine, "records": records}, indent=1)
        (RESULTS / f"{file}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

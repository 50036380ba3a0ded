"""Seconds of a DM, DC and DSA iteration beside PyTorch's, as ratios of one run.

    python -m benchmarks.matching --torch_python=PATH    # a Python with torch
    python -m benchmarks.matching                        # ours alone
    python -m benchmarks.matching --quick --torch_python=PATH

An iteration is one step of the images: for DC and DSA one outer step, with the epochs
of the network after it (none at 1 image per class, 50 at 10). The sizes are those of
the reference: ConvNet-3 of width 128 with InstanceNorm, ten classes of 32x32 pixels,
256 real images of each; `--quick` has a narrow network and fewer images. Both sides get
the same images and weights and must find the same loss and size of the image gradient
before they are timed; then they take turns. Drawing real images is not timed, a new
network is. The other side is `torch_reference/matching.py`. Records go to
benchmarks/results/matching/.

`--geodm` times GeoDM's step beside DM's in place of all that: with all three factors,
and with transport.

Where other programs run, give --threads=1: see `benchmarks.attacks`.
"""

import argparse
import json
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from benchmarks import beside
from ddjax import methods, models, optimizers, parallel
from ddjax.data import dsa
from ddjax.methods import dc
from ddjax.types import Batch, Context, DataInfo, Targets

RESULTS = pathlib.Path(__file__).parent / "results" / "matching"
GEODM = {
    "dm": ("dm", {}),
    "E + H + S": ("geodm", {"ot_weight": 0.0}),
    "E + H + S, transport": ("geodm", {}),
}
KINDS = {"dm": 1.0, "dc": 0.1, "dsa": 0.1}  # rates of the pixels
MOMENTUM = 0.5
ENDLESS = 2**30  # outer steps with one network: it learns after each
INFO = DataInfo("random", tuple("0123456789"), (32, 32, 3), (0.5,) * 3, (0.25,) * 3)


class Problem:
    """Images and a network that both sides are given."""

    def __init__(self, options, ipc):
        rng = np.random.default_rng(0)
        classes = len(INFO.classes)
        self.real, self.synthetic = (
            rng.normal(size=(classes, n, *INFO.shape)).astype(np.float32)
            for n in (options.real, ipc)
        )
        self.network = models.create(
            "convnet", INFO, width=options.width, depth=3, norm="instance"
        )
        self.variables = self.network.init(jax.random.key(0))
        outer, inner = dc.loops(ipc)
        self.epochs = options.epochs if options.epochs is not None else inner
        self.epochs *= outer > 1

    def targets(self):
        """What ours starts from: pixels, class after class."""
        classes, ipc = self.synthetic.shape[:2]
        images = _pixels(self.synthetic).reshape(-1, *INFO.shape)
        labels = np.repeat(np.arange(classes, dtype=np.int32), ipc)
        mass = np.full(len(labels), 1 / ipc, np.float32)
        return Targets(images, labels, mass, classes=np.arange(classes))

    def batch(self):
        """The real images of a step."""
        mass = np.full(self.real.shape[:2], 1 / self.real.shape[1], np.float32)
        return Batch(_pixels(self.real), mass)

    def method(self, kind, network, **options):
        """Ours; all that both sides know is in its options."""
        if kind in ("dc", "dsa"):
            options |= {"outer": ENDLESS, "inner": self.epochs}
        options["real_batch"] = self.real.shape[1]
        optimizer = optimizers.pixel_sgd(KINDS.get(kind, 1.0), MOMENTUM, INFO.std)
        return methods.create(
            kind, network, optimizer, num_steps=1, options=tuple(options.items())
        )

    def write(self, folder, options):
        """What the other side reads."""
        given = {f"w/{k}": v for k, v in models.to_torch(self.variables).items()}
        for name in ("real", "synthetic"):
            given[name] = np.moveaxis(getattr(self, name), -1, 2)
        np.savez(folder / "given.npz", **given)
        numbers = {
            "width": options.width,
            "depth": 3,
            "epochs": self.epochs,
            "repeats": options.repeats,
            "rates": KINDS,
            "strategy": dsa.STRATEGY.split("_"),
            "threads": beside.threads(),
            "gpu": not parallel.is_cpu(),
        }
        (folder / "given.json").write_text(json.dumps(numbers))


class Ours:
    """Steps of one method, compiled once."""

    def __init__(self, problem, kind, **options):
        self._method = problem.method(kind, problem.network, **options)
        self._given = jax.device_put((Context(), problem.targets(), problem.batch()))
        self._step = jax.jit(self._method.step, donate_argnums=1)
        began = time.perf_counter()
        self.ask(1)
        self.first = time.perf_counter() - began

    def cost(self):
        """Operations and memory of a step, as its compiler counts them."""
        state = self._method.init(jax.random.key(0), *self._given[:2])
        return parallel.cost(self._step, jax.random.key(0), state, *self._given)

    def ask(self, repeats):
        """Seconds of a step."""
        state = self._method.init(jax.random.key(0), *self._given[:2])
        jax.block_until_ready(state)
        began = time.perf_counter()
        for i in range(repeats):
            state, metrics = self._step(jax.random.key(i), state, *self._given)
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - began) / repeats


def _pixels(images):
    return images * np.array(INFO.std, np.float32) + np.array(INFO.mean, np.float32)


def _found(problem, kind):
    """(loss, size of the image gradient), nothing augmented, with the given weights."""
    network = problem.network._replace(init=lambda key: problem.variables)
    method = problem.method(kind, network, dsa="")
    context, targets, batch = Context(), problem.targets(), problem.batch()
    state = method.init(jax.random.key(0), context, targets)
    moved, metrics = jax.jit(method.step)(
        jax.random.key(0), state, context, targets, batch
    )
    # The first step of SGD with momentum is its rate times the gradient.
    gradient = (state.images - moved.images) / np.array(INFO.std) / KINDS[kind]
    return float(metrics["loss"]), float(np.linalg.norm(gradient))


def _compared(problem, kind, theirs, options):
    """A record of one method at one size."""
    record = {"kind": kind, "ipc": problem.synthetic.shape[1], "epochs": problem.epochs}
    if kind == "dm":
        del record["epochs"]
    record["value"], record["gradient"] = _found(problem, kind)
    ours, here, there = Ours(problem, kind), [], []
    for turn in range(options.rounds + bool(theirs)):
        answer = theirs.ask(kind) if theirs else None
        if answer and not turn:  # its first turn warms up, and shows what it computes
            _check(record, answer)
            record["torch"] = answer["torch"]
            continue
        if answer:
            there.append(answer["seconds"])
        here.append(ours.ask(options.repeats))
    record |= {"compile": ours.first - here[0], "turns": here}
    record["seconds"] = statistics.median(here)
    if there:
        record |= {"torch_turns": there, "torch_seconds": statistics.median(there)}
        record["ratio"] = statistics.median(t / o for t, o in zip(there, here))
    return record


def _check(record, answer):
    """Refuses to compare the times of different things.

    In float64 the two agree to 1e-8 (tests/methods/condensation_test.py). In float32
    gradients jump where rounding turns a ReLU's sign: one of 368,640 that was 4e-8 moved
    DC's loss by 7e-5. DM's loss has no gradient in it.
    """
    exact = record["kind"] == "dm"
    for name, most in (("value", 1e-5 if exact else 1e-3), ("gradient", 1e-2)):
        apart = abs(record[name] / answer[name] - 1)
        record[f"{name}_apart"] = apart
        if not apart < most:
            raise RuntimeError(
                f"{record['kind']}'s {name} is {record[name]:.6g} here and "
                f"{answer[name]:.6g} in torch."
            )


def records(options):
    """One for each method and number of images per class."""
    for ipc in options.ipc:
        problem, theirs = Problem(options, ipc), None
        with tempfile.TemporaryDirectory() as folder:
            if options.torch_python:
                problem.write(pathlib.Path(folder), options)
                theirs = beside.Torch(options.torch_python, "matching.py", folder)
            try:
                for kind in options.kinds:
                    yield _compared(problem, kind, theirs, options)
            finally:
                if theirs:
                    theirs.close()


def shares(options):
    """What GeoDM's parts cost: seconds of its steps and of DM's, which take turns."""
    for ipc in options.ipc:
        problem, turns = Problem(options, ipc), {name: [] for name in GEODM}
        sides = {k: Ours(problem, kind, **how) for k, (kind, how) in GEODM.items()}
        for _ in range(options.rounds + 1):
            for name, ours in sides.items():
                turns[name].append(ours.ask(options.repeats))
        seconds = {k: statistics.median(found[1:]) for k, found in turns.items()}
        plain, moved = list(seconds.values())[1:]
        memory = {name: ours.cost().memory for name, ours in sides.items()}
        record = {"kind": "geodm", "ipc": ipc, "seconds": seconds, "turns": turns}
        record["memory"] = memory
        record["compile"] = {k: o.first - turns[k][0] for k, o in sides.items()}
        yield record | {"transport_share": 1 - plain / moved}


def _line(record):
    if record["kind"] == "geodm":
        told = ", ".join(
            f"{name} {x:.3f} s and {record['memory'][name] / 1e6:,.0f} MB"
            for name, x in record["seconds"].items()
        )
        return f"ipc {record['ipc']}: {told}; transport {record['transport_share']:.1%}"
    words = f"{record['kind']:<4} ipc {record['ipc']:<3} {record['seconds']:8.3f} s"
    words += f", compiled in {record['compile']:.0f} s"
    if "ratio" in record:
        words += (
            f"; torch {record['torch_seconds']:8.3f} s: {record['ratio']:.2f} x "
            f"(losses {record['value_apart']:.0e} apart)"
        )
    return words


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", help=", ".join(KINDS))
    parser.add_argument("--torch_python", metavar="PATH", help="a Python with torch")
    parser.add_argument("--quick", action="store_true", help="small, for a try")
    parser.add_argument("--geodm", action="store_true", help="its parts, beside DM")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--width", type=int, help="of the network; 128, or 16")
    parser.add_argument("--real", type=int, help="images of each class; 256, or 32")
    parser.add_argument("--epochs", type=int, help="of the network; the reference's")
    parser.add_argument("--repeats", type=int, default=3, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=2, help="turns of both sides")
    parser.add_argument("--threads", type=int, help="of both sides; all by default")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"unknown kind {min(unknown)!r}; known: {', '.join(KINDS)}")
    options.kinds = options.kinds or list(KINDS)
    options.width = options.width or (16 if options.quick else 128)
    options.real = options.real or (32 if options.quick else 256)
    beside.only(options.threads)
    machine, found = beside.machine(), []
    name = "quick" if options.quick else "full"
    name = f"geodm-{name}" if options.geodm else name
    name += "-cpu" if parallel.is_cpu() else "-accelerator"
    asked = vars(options) | {"torch_python": bool(options.torch_python)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    for record in (shares if options.geodm else records)(options):
        print(_line(record), flush=True)
        found.append(record)
        machine["load_after"] = beside.load()
        told = {"machine": machine, "options": asked, "records": found}
        (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""The gradients of a ConvNet-3 on a CPU: with our convolution, with XLA's, and PyTorch's.

    python -m benchmarks.convolution --torch_python=PATH    # a Python with torch
    python -m benchmarks.convolution                        # without that side

What squeezing takes is the gradient of the cross entropy in the parameters, with
BatchNorm's statistics of the batch, and what recovering takes the gradient in the
images, with the running ones. All sides get the same images and weights, and must find
the same sizes of both gradients (1e-4) before they are timed; then they take turns, and
the fastest call of each counts. Our commands ask for large pages of memory; PyTorch is
timed as it is installed, and with those too.

Records go to benchmarks/results/convolution-cpu.json.
"""

import argparse
import contextlib
import json
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import beside
from ddjax import losses, models, parallel
from ddjax.types import DataInfo

RESULTS = pathlib.Path(__file__).parent / "results" / "convolution-cpu.json"
# Images, pixels a side, channels, width of the network.
CASES = [
    (100, 8, 1, 32),
    (32, 32, 3, 32),
    (100, 32, 3, 32),
    (32, 32, 3, 128),
    (100, 32, 3, 128),
]
WORK = ("squeeze", "recover")


class Ours:
    """Both gradients, compiled with one form of the convolution."""

    def __init__(self, network, variables, images, labels, xla: bool):
        def squeeze(variables, images, labels):
            def loss(params):
                logits, stats = network.apply_train(
                    {**variables, "params": params}, images
                )
                return losses.cross_entropy(logits, labels), stats

            return jax.grad(loss, has_aux=True)(variables["params"])[0]

        def recover(variables, images, labels):
            return losses.input_gradient(
                lambda x: network.apply(variables, x)[0], images, labels
            )

        self._given = variables, images, labels
        # While it counts operations, all convolutions are XLA's.
        with parallel.counting(True) if xla else contextlib.nullcontext():
            self._programs = {
                name: jax.jit(function).lower(*self._given).compile()
                for name, function in (("squeeze", squeeze), ("recover", recover))
            }

    def size(self, work: str) -> float:
        """The Euclidean norm of a gradient."""
        leaves = jax.tree.leaves(self._programs[work](*self._given))
        return float(
            np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in leaves))
        )

    def best(self, work: str, seconds: float) -> float:
        """Seconds of the fastest call."""
        best, began = np.inf, time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            jax.block_until_ready(self._programs[work](*self._given))
            best = min(best, time.perf_counter() - start)
        return best


def measured(case, torch_python, rounds: int, seconds: float) -> list[dict]:
    """The records of one case, one for each kind of work."""
    count, side, channels, width = case
    mean, std = (0.5,) * channels, (0.25,) * channels
    info = DataInfo("random", tuple("0123456789"), (side, side, channels), mean, std)
    network = models.create("convnet", info, width=width)
    variables = network.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.random((count, *info.shape), np.float32)
    labels = np.arange(count, dtype=np.int32) % 10
    given = variables, jnp.asarray(images), jnp.asarray(labels)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sides = {
            "ours": Ours(network, *given, False),
            "xla": Ours(network, *given, True),
        }
        if torch_python:
            path = pathlib.Path(folder) / "given.npz"
            np.savez(
                path,
                images=images,
                labels=labels,
                **models.to_torch(variables),
            )
            for name, small in (("torch", True), ("torch, large pages", False)):
                theirs = beside.Torch(torch_python, "convolution.py", str(path), small)
                closing = contextlib.closing(_Theirs(theirs))
                sides[name] = stack.enter_context(closing)
        found = []
        for work in WORK:
            sizes = {name: side_.size(work) for name, side_ in sides.items()}
            worst = max(abs(x / sizes["ours"] - 1) for x in sizes.values())
            if not worst < 1e-4:
                raise RuntimeError(f"the gradients of {work} differ: {sizes}")
            best = dict.fromkeys(sides, np.inf)
            for _ in range(rounds):
                for name, side_ in sides.items():
                    best[name] = min(best[name], side_.best(work, seconds))
            found.append(
                {
                    "images": f"{count} of {side}x{side}x{channels}",
                    "width": width,
                    "work": work,
                    "seconds": best,
                    "times_as_fast": {
                        name: s / best["ours"] for name, s in best.items()
                    },
                    "apart": worst,
                }
            )
    return found


class _Theirs:
    """PyTorch, with the methods of `Ours`."""

    def __init__(self, process):
        self._process = process
        self.close = process.close

    def size(self, work):
        return self._process.ask(f"size {work}")

    def best(self, work, seconds):
        return self._process.ask(f"best {work} {seconds}")


def table(records: list[dict]) -> str:
    """How many times as fast ours is, in Markdown."""
    sides = {
        "xla": "XLA's",
        "torch": "PyTorch",
        "torch, large pages": "with large pages",
    }
    titles = [
        f"{work}: {title}" if side == "xla" else title
        for work in WORK
        for side, title in sides.items()
    ]
    rows = [["images", "width", *titles], ["---"] * (2 + len(titles))]
    for one, two in zip(records[::2], records[1::2]):  # as WORK has them
        times = [
            f"{r['times_as_fast'][side]:.2f}" for r in (one, two) for side in sides
        ]
        rows.append([one["images"], str(one["width"]), *times])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch_python", metavar="PATH", help="a Python with torch")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    options = parser.parse_args()
    if not parallel.is_cpu():
        parser.error("on an accelerator the convolution is XLA's: nothing to compare.")
    machine, records = beside.machine(), []
    for case in CASES:
        for record in measured(
            case, options.torch_python, options.rounds, options.seconds
        ):
            records.append(record)
            told = ", ".join(
                f"{name} {1000 * s:.1f} ms ({record['times_as_fast'][name]:.2f})"
                for name, s in record["seconds"].items()
            )
            print(
                f"{record['images']}, width {record['width']}, {record['work']}: {told}"
            )
        machine["load_after"] = beside.load()
        RESULTS.write_text(
            json.dumps({"machine": machine, "records": records}, indent=1) + "\n"
        )
    if options.torch_python:
        print(table(records))


if __name__ == "__main__":
    main()

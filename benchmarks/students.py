"""Students side by side against one after another.

    python -m benchmarks.students

Trains ConvNet-3 students on the same distilled set with `parallel.stacked` (one
program, under `vmap`) and with `parallel.single` (one after another), in turns, and
prints the time of a step of all of them as a ratio. `parallel.groups` takes the form
that is faster on the backend. Writes benchmarks/results/students-<backend>.json.
"""

import json
import pathlib
import time

import jax
import numpy as np

from ddjax import loop, models, parallel, student
from ddjax.types import DataInfo, DistilledSet

RESULTS = pathlib.Path(__file__).parent / "results"
ROUNDS = 3
CASES = [  # what, (H, W, ch), width, steps of a round
    ("digits, 8x8, width 32", (8, 8, 1), 32, 20),
    ("CIFAR-10's size, 32x32, width 32", (32, 32, 3), 32, 1),
]
if not parallel.is_cpu():  # a minute a step there
    CASES.append(("CIFAR-10's size, 32x32, width 128", (32, 32, 3), 128, 1))


def measure(shape, width: int, steps: int, students: int) -> dict:
    """Seconds of a step of all students, in both forms, the median of the rounds.

    Args:
      shape: (H, W, ch) of the images.
      width: channels of the ConvNet.
      steps: of a round; on an accelerator fifty times as many.
      students: how many.
    """
    steps *= 1 if parallel.is_cpu() else 50
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, *shape), dtype=np.uint8)
    labels = np.repeat(np.arange(10, dtype=np.int32), 10)
    distilled = DistilledSet(images, labels, np.full(100, 0.1, np.float32))
    network = models.create("convnet", _info(shape), width=width, depth=3)
    recipe, keys = student.Recipe(), jax.random.split(jax.random.key(0), students)
    step = student.make_step(network, recipe, 100, "hard")

    def train(group, many):
        state = student.initial_state(group, network, recipe, 100)
        spread = parallel.stacked if many else parallel.single
        shared = (jax.random.key(1), *distilled, ())
        state = loop.run(step, state, shared, (), range(steps), spread=spread)
        jax.block_until_ready(state)

    def together():
        train(keys, many=True)

    def one_by_one():
        for i in range(students):
            train(keys[i : i + 1], many=False)

    for form in (together, one_by_one):
        form()  # compiles
    seconds = {"together": [], "one by one": []}
    for _ in range(ROUNDS):
        for name, form in (("together", together), ("one by one", one_by_one)):
            began = time.perf_counter()
            form()
            seconds[name].append((time.perf_counter() - began) / steps)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def _info(shape):
    channels = shape[-1]
    classes = tuple(map(str, range(10)))
    return DataInfo("noise", classes, shape, (0.5,) * channels, (0.25,) * channels)


def _write(rows):
    kind = "cpu" if parallel.is_cpu() else "accelerator"
    record = {"device": parallel.describe(), "jax": jax.__version__, "rows": rows}
    text = json.dumps(record, indent=1) + "\n"
    (RESULTS / f"students-{kind}.json").write_text(text)


def main():
    rows = []
    print(parallel.describe())
    for what, shape, width, steps in CASES:
        for students in (5, 10):
            seconds = measure(shape, width, steps, students)
            ratio = seconds["together"] / seconds["one by one"]
            rows.append({"what": what, "students": students, **seconds, "ratio": ratio})
            print(f"{what}: {students} students together {ratio:.2f}x one by one")
            _write(rows)  # what follows may take long


if __name__ == "__main__":
    main()

"""What more devices cost the host: simulated ones, the same work on each.

    python -m benchmarks.scaling

For 1, 2, 4 and 8 simulated CPU devices, each count in a process of its own: programs
and seconds to compile, the host's work for a step, and bytes that cross, of a recovery
(a chunk on each device) and of students side by side (one on each). Prints ratios to
one device and writes benchmarks/results/scaling.json.

**This says nothing about speed**: simulated devices share the cores of one machine, so
that eight take eight times as long for eight times the work. It is about overhead that
grows with devices where it should not.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import loop, methods, models, optimizers, parallel, recover, relabel, student
from ddjax.data import augment
from ddjax.types import Context, DataInfo, DistilledSet

RESULTS = pathlib.Path(__file__).parent / "results"
COUNTS = (1, 2, 4, 8)
ROUNDS = 3
STEPS = 500  # that do next to nothing, to see the host's work for each
INFO = DataInfo("noise", tuple("0123456789"), (8, 8, 1), (0.5,), (0.25,))
COMPILING = "/jax/core/compile/"
BACKEND = COMPILING + "backend_compile_duration"
RATIOS = ("compile_seconds", "host_us")
COLLECTIVE = (
    r" = \(?(\w+)\[([\d,]*)\][^ ]* "
    r"(?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\("
)
ELEMENT = {"f32": 4, "s32": 4, "u32": 4, "f16": 2, "bf16": 2, "u8": 1, "pred": 1}


# On one count of devices ---------------------------------------------------------------


def recovery(count: int):
    """A chunk of ten images on each device: what `loop.run` takes."""
    network = models.create("convnet", INFO, width=8, depth=2)
    optimizer = optimizers.pixel_adam(0.1, 100, INFO.std)
    crop = augment.CropFlipRoll((0.5, 1.0), False, 1)
    method = methods.create("sre2l", network, optimizer, num_steps=100, augment=crop)
    context = Context(network.init(jax.random.key(0)))
    rows = np.arange(10)
    goal = recover.targets(rows, recover.noise(jax.random.key(1), rows, INFO), 1)
    goals = jax.tree.map(lambda x: np.stack([x] * count), goal)
    keys = jax.random.split(jax.random.key(2), count)
    state = recover.initial_state(method, context, goals, keys)
    spread = parallel.over_devices(count)
    return recover.make_step(method), state, context, (keys, goals), spread


def students(count: int):
    """A student on each device: what `loop.run` takes."""
    network = models.create("convnet", INFO, width=8, depth=2)
    recipe = student.Recipe(relabel.Views(crop_scale=(1.0, 1.0), mix="none"), epochs=1)
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    labels = np.repeat(np.arange(10, dtype=np.int32), 10)
    shared = DistilledSet(images, labels, np.full(100, 0.1, np.float32))
    keys = jax.random.split(jax.random.key(0), count)
    start = jax.vmap(lambda key: student.initial_state([key], network, recipe, 100))
    step = student.make_step(network, recipe, 100, "hard")
    shared = (jax.random.key(1), *shared, ())
    return step, start(keys), shared, (), parallel.stacked


def idle(state, index, shared, private):
    """A step that does next to nothing."""
    return state + private * index + shared, {"loss": state.sum()}


def compile_cost(step, state, shared, private, spread) -> dict:
    """Programs and seconds until the loop has made its first steps."""
    heard = []

    def listen(event, seconds, **about):
        heard.append((event, seconds))

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.block_until_ready(
        loop.run(step, state, shared, private, range(3), spread=spread)
    )
    jax.monitoring.unregister_event_duration_listener(listen)
    return {
        "programs": sum(event == BACKEND for event, _ in heard),
        "compile_seconds": sum(s for e, s in heard if e.startswith(COMPILING)),
    }


def traffic(step, state, shared, private, spread) -> dict:
    """Bytes put on a device at the start, and those that devices exchange in a step."""
    placed = spread.place((state, (shared, np.int32(0)), private))
    state, (shared, index), private = placed
    program = spread.compile(step).lower(state, index, shared, private).compile()
    exchanged = sum(
        int(np.prod([int(n) for n in shape.split(",") if n], initial=ELEMENT[kind]))
        for kind, shape in re.findall(COLLECTIVE, program.as_text())
    )
    shards = [
        leaf.addressable_shards[0].data
        for leaf in jax.tree.leaves(jax.tree.map(_plain, placed))
    ]
    return {
        "bytes_placed": sum(shard.nbytes for shard in shards),
        "bytes_exchanged": exchanged,
    }


def _plain(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(x) if is_key else x


def host_work(count: int, spread) -> float:
    """Microseconds of a step's own thread, which does not count what it waits for.

    Nothing may cross in these steps: JAX's transfer guard would stop them.
    """

    def place(arguments):
        with jax.transfer_guard("allow"):
            return spread.place(arguments)

    def run():
        state = jnp.zeros((count, 4))
        began = time.thread_time()
        with jax.transfer_guard("disallow"):
            state = loop.run(idle, state, one, private, range(STEPS), spread=placing)
        spent = time.thread_time() - began
        jax.block_until_ready(state)
        return 1e6 * spent / STEPS

    placing, one = spread._replace(place=place), jnp.ones(())
    private = jnp.ones((count, 4))
    run()  # compiles
    return float(np.median([run() for _ in range(5)]))


def measure(count: int) -> dict:
    """Numbers of both kinds of loop, on as many devices as there are."""
    found = {}
    for kind in (recovery, students):
        found[kind.__name__] = {
            **compile_cost(*kind(count)),
            **traffic(*kind(count)),
            "host_us": host_work(count, kind(count)[-1]),
        }
    return found


# On all counts -------------------------------------------------------------------------


def in_a_process(count: int) -> dict:
    """`measure` where nothing was compiled before, in memory or on disk."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(count),
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }
    command = [sys.executable, "-m", "benchmarks.scaling", str(count)]
    output = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(output.stdout)


def summarise(rounds: list[dict]) -> list[dict]:
    """A row for each kind and count: medians, and of ratios to one device in a round."""
    rows = []
    for kind in ("recovery", "students"):
        for count in COUNTS:
            row = {"loop": kind, "devices": count}
            for name in rounds[0][1][kind]:
                values = [found[count][kind][name] for found in rounds]
                row[name] = float(np.median(values))
                if name in RATIOS:
                    alone = [found[1][kind][name] for found in rounds]
                    row[f"{name}_ratio"] = float(np.median(np.divide(values, alone)))
            rows.append(row)
    return rows


def show(rows) -> None:
    print("Simulated devices share the cores: overhead only, nothing about speed.")
    print(f"{'loop':9} devices  programs  compiling   host's work  placed  exchanged")
    for row in rows:
        print(
            f"{row['loop']:9} {row['devices']:7} {row['programs']:9.0f} "
            f"{row['compile_seconds_ratio']:9.2f}x {row['host_us_ratio']:12.2f}x "
            f"{row['bytes_placed']:7,.0f} {row['bytes_exchanged']:10,.0f}"
        )


def main():
    if len(sys.argv) > 1:
        return print(json.dumps(measure(int(sys.argv[1]))))
    load, rounds = [], []
    for _ in range(ROUNDS):  # in turns: others may work on this machine
        load.append(os.getloadavg()[0])
        rounds.append({count: in_a_process(count) for count in COUNTS})
        rows = summarise(rounds)
        record = {
            "note": "simulated devices share the cores: overhead only, not speed",
            "cores": os.cpu_count(),
            "load before each round": load,
            "jax": jax.__version__,
            "rows": rows,
        }
        text = json.dumps(record, indent=1) + "\n"
        (RESULTS / "scaling.json").write_text(text)  # what follows may take long
    return show(rows)


if __name__ == "__main__":
    main()

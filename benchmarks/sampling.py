"""What guidance costs: seconds of a sampler's step, plain and with each of its terms.

    python -m benchmarks.sampling                 # DiT-S/2 at 32 pixels, 4 classes
    python -m benchmarks.sampling --size=digits   # as configs/otg_digits.py has it

One step of one image of each class, with classifier-free guidance; the fifth image of
ten, of networks with random weights. The steps take turns, so that their ratios are of
one time. Of 50 steps 16 are guided in the papers: "an image" counts so. "transport" is
also timed by itself, value and gradient for all classes: its share is what optimal
transport takes, and the rest of a guided step is the way back through the network.
Records go to benchmarks/results/sampling/.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import beside
from ddjax import diffusion, models, parallel
from ddjax.diffusion import guided
from ddjax.diffusion.guidance import transport
from ddjax.types import DataInfo

RESULTS = pathlib.Path(__file__).parent / "results" / "sampling"
SIZES = {  # pixels a side, channels, classes, width, depth, heads, patch, surrogate's
    "digits": (8, 1, 10, 64, 3, 2, 2, 32),
    "small": (32, 3, 4, 384, 12, 6, 2, 128),
}
MADE, OF, REAL, AGES = 4, 10, 200, 4  # finished, images a class, real ones, surrogates
GUIDED, STEPS = 16, 50
TERMS = {
    "plain": {},
    "deviation": {"deviation": 50.0},
    "transport at z0": {"transport": 0.02},
    "transport at zt": {
        "transport": 0.02,
        "moved": transport.PRESETS["paper"]._replace(at="zt"),
    },
    "influence": {"influence": 5.0},
    "all": {"transport": 0.02, "deviation": 50.0, "influence": 5.0},
}


def programs(size):
    """{name: call without arguments}, compiled."""
    side, channels, classes, width, depth, heads, patch, narrow = SIZES[size]
    half = (0.5,) * channels
    names = tuple(map(str, range(classes)))
    info = DataInfo("random", names, (side, side, channels), half, half)
    model = {"width": width, "depth": depth, "heads": heads, "patch": patch}
    generator = diffusion.create(info, model=model)
    surrogate = models.create("convnet", info, width=narrow, norm="instance")
    one = jax.tree.map(jnp.asarray, surrogate.init(jax.random.key(1)))
    ages = jax.tree.map(lambda x: jnp.stack([x] * AGES), one)
    variables = generator.init(jax.random.key(0))
    memory, z = _memory(generator, one, classes), _normal(2, classes, info.shape)
    draw, labels = _normal(3, classes, info.shape), jnp.arange(classes)
    kept = diffusion.schedule.respaced(generator.schedule, STEPS)
    found = {}
    for name, terms in TERMS.items():
        step = guided.make_step(
            generator,
            guided.Sampler(kept),
            guided.Guidance(**terms),
            surrogate.apply,
        )
        before = {term: jnp.float32(0) for term in guided.Guidance(**terms).names}
        told = variables, ages, memory, z, labels, jnp.int32(38), draw, before
        found[name] = functools.partial(jax.jit(step), *told)
    flat = z.reshape(classes, -1)
    found["transport alone"] = functools.partial(_transport, flat, memory)
    return found


@jax.jit
def _transport(flat, memory):
    def of_class(u, rows, real, masses):
        return transport.value_and_gradient(
            u, rows, memory.count, real, masses, transport.PRESETS["paper"]
        )

    return jax.vmap(of_class)(flat, memory.rows, memory.real, memory.masses)


def _memory(generator, surrogate, classes) -> guided.Memory:
    """Four finished images of ten, all random."""
    d = int(np.prod(generator.latent_shape))
    done, real = _normal(4, classes, (OF, d)), _normal(5, classes, (REAL, d))
    options = transport.PRESETS["paper"]
    cost = jax.vmap(jax.vmap(lambda x, y: transport.row(x, y, options), (0, None)))
    bank = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(6), (classes, AGES, *x.shape)),
        surrogate["params"],
    )
    masses = jnp.full((classes, REAL), 1 / REAL)
    return guided.Memory(done, jnp.int32(MADE), cost(done, real), real, masses, bank)


def _normal(seed, classes, shape):
    return jax.random.normal(jax.random.key(seed), (classes, *shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, default=5, help="turns of all")
    parser.add_argument("--threads", type=int, help="all by default")
    options = parser.parse_args()
    beside.only(options.threads)
    machine, calls = beside.machine(), programs(options.size)
    turns, compiled = {name: [] for name in calls}, {}
    for turn in range(options.rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            spent = time.perf_counter() - began
            (
                compiled.__setitem__(name, spent)
                if not turn
                else turns[name].append(spent)
            )
    seconds = {name: statistics.median(found) for name, found in turns.items()}
    plain, alone = seconds["plain"], seconds.pop("transport alone")
    for name, found in seconds.items():
        image = (GUIDED * found + (STEPS - GUIDED) * plain) / (STEPS * plain)
        print(
            f"{name:<16} {found / plain:5.2f} x a plain step, an image {image:4.2f} x"
        )
    image = GUIDED * seconds["transport at z0"] + (STEPS - GUIDED) * plain
    share = GUIDED * alone / image
    print(f"transport itself {share:.2%} of an image guided by it")
    record = {
        "machine": machine | {"load_after": beside.load()},
        "options": vars(options),
        "seconds": seconds,
        "transport_alone": alone,
        "transport_share": share,
        "turns": turns,
        "first_call": compiled,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = f"{options.size}-{'cpu' if parallel.is_cpu() else 'accelerator'}.json"
    (RESULTS / name).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

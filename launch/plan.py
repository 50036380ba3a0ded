"""What a config would take, told before anything heavy starts: --dry_run.

Every step is compiled for the shapes it will have, and not run: the compiler tells the
operations and the memory. Seconds are those operations at the rate of a small probe,
the teacher's gradient on a few images, so they are right within a factor of two or so.
"""

import math
import time

import jax
import jax.numpy as jnp

from ddjax import parallel, tables
from launch import arms, costs, inputs, students
from launch.costs import Plan, Row

_PROBE = 16  # images


def show(config) -> None:
    """Prints the plan of a config.

    Raises:
      ValueError: the config cannot work.
    """
    plan = outlined(config)
    print(describe(plan))
    rows = costs.work(plan)
    header = ["stage", "what", "steps", "GFLOP a step", "memory", "on disk", "time"]
    cells = [
        [
            row.stage,
            row.what,
            f"{row.calls:,}",
            f"{row.flops / 1e9:,.3g}" if row.flops else "",
            _bytes(row.memory),
            _bytes(row.disk),
            _duration(row.seconds),
        ]
        for row in rows
    ]
    print(tables.markdown_table(header, cells))
    print(verdict(rows))
    if rates := config.evaluate.learning_rates:
        print(f"All of it {len(rates)} times more, to choose from as many rates.")


def outlined(config) -> Plan:
    """The networks and the data of a config, and how fast this machine is."""
    outline = inputs.outline(config)
    arms.check_with(config, outline.info, outline.counts, outline.streamed)
    teacher = inputs.build_network(config.squeeze.model, outline.info)
    pupils = {
        name: students.network(config, name, outline.info)
        for name in config.evaluate.models
    }
    variables = jax.eval_shape(teacher.init, jax.random.key(0))
    width = arms.reported(teacher, outline.info)["features"].shape[-1]
    return Plan(
        config, outline, teacher, pupils, variables, width, _rate(teacher, outline.info)
    )


def _rate(network, info) -> float:
    """Operations a second, of the gradient that recovers images."""

    def gradient(variables, images):
        return jax.grad(lambda x: network.apply(variables, x)[0].sum())(images)

    program = jax.jit(gradient)
    arguments = network.init(jax.random.key(0)), jnp.zeros((_PROBE, *info.shape))
    flops = parallel.cost(program, *arguments).flops
    program(*arguments).block_until_ready()
    began, runs = time.monotonic(), 0
    while runs < 3 or time.monotonic() - began < 0.5:
        program(*arguments).block_until_ready()
        runs += 1
    return runs * flops / (time.monotonic() - began)


def describe(plan: Plan) -> str:
    """Data, networks and devices, in lines."""
    outline, info = plan.outline, plan.outline.info
    total = int(outline.counts.sum())
    h, w, ch = info.shape
    kept = "streamed from disk" if outline.streamed else "kept in memory"
    pixels = _bytes(total * h * w * ch)
    lines = {
        "data": f"{info.name} ({outline.origin}): {total:,} + {outline.test:,} images "
        f"of {h}x{w}x{ch}, {pixels} {kept}; {info.num_classes:,} classes of "
        f"{outline.counts.min():,} to {outline.counts.max():,}",
        "teacher": f"{plan.config.squeeze.model.name}: {_parameters(plan.teacher):,} "
        f"parameters, {plan.features:,} features",
        "student": "; ".join(
            f"{name}: {_parameters(pupil):,} parameters"
            for name, pupil in plan.pupils.items()
        ),
        "device": f"{parallel.describe()}, {_bytes(parallel.memory_limit())}; "
        f"{plan.rate / 1e9:,.1f} GFLOP/s on the teacher's gradient",
    }
    return "\n".join(f"{name:<9} {told}" for name, told in lines.items()) + "\n"


def verdict(rows: list[Row]) -> str:
    """Whether it fits, and how long it all takes."""
    largest = max(rows, key=lambda row: row.memory)
    limit = parallel.memory_limit()
    total = sum(row.seconds for row in rows), sum(row.disk for row in rows)
    lines = [f"in all about {_duration(total[0])}, and {_bytes(total[1])} on disk."]
    if largest.memory > limit:
        lines.append(
            f"{largest.stage}, {largest.what}: {_bytes(largest.memory)} do not fit "
            f"into {_bytes(limit)}. Lower its batch_size or data.memory_gb."
        )
    return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}" if count else ""
        count /= 1000


def _duration(seconds: float) -> str:
    units = ((31_557_600, "years"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for size, unit in units:
        if seconds >= size:
            return f"{seconds / size:,.3g} {unit}"
    return "" if not seconds else "< 1 s"


def _parameters(network) -> int:
    variables = jax.eval_shape(network.init, jax.random.key(0))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))

"""What a config would take, told before anything heavy starts: --dry_run.

Every step is compiled for the shapes it will have, and not run: the compiler tells the
operations and the memory. Seconds are those operations at the rate of a small probe,
the teacher's gradient on a few images, or at a rate that is told, so they are right
within a factor of two or so. Not counted: what devices send each other, and choosing
real images by a baseline.
"""

import math
import shutil
import time

import jax
import jax.numpy as jnp

from ddjax import parallel, tables
from launch import arms, costs, decoding, inputs, pod, rates, strengths, students
from launch.costs import Plan, Row

_PROBE = 16  # images


def show(config, told: dict | None = None) -> None:
    """Prints the plan of a config.

    Args:
      config: of the experiment.
      told: of the machines it is for; see `pod.told`.

    Raises:
      ValueError: the config cannot work, or the machine makes no sense.
    """
    told = told or {}
    plan = outlined(config)
    machines = pod.machines(told, plan.machine.rate)
    print(describe(plan))
    if told:
        print(assumed(plan, told, machines[0]))
    found = [everything(plan._replace(machine=machine)) for machine in machines]
    if len(machines) == 1:
        print(table(found[0]))
    if "devices" in told:
        print(compared(machines, found))
    free = None if "devices" in told else shutil.disk_usage(".").free
    for machine, rows in zip(machines, found):
        print(verdict(rows, machine, free))


def everything(plan: Plan) -> list[Row]:
    """The rows of a config, those of its searches first."""
    config, rows = plan.config, []
    if tried := config.evaluate.strengths:
        names = strengths.penalised(config)
        held = outlined(strengths.held_out(config, names, tried[0]), plan.machine)
        rows += costs.tried(costs.work(held), len(tried))
    if candidates := config.evaluate.learning_rates:
        held = outlined(rates.held_out(config, candidates[0]), plan.machine)
        rows += costs.searched(costs.work(held), len(candidates))
    return rows + costs.work(plan)


def outlined(config, machine: pod.Machine | None = None) -> Plan:
    """The networks and the data of a config, and how fast this machine is.

    Args:
      config: of the experiment.
      machine: that it is for; this one, measured now, where None.
    """
    outline = inputs.outline(config)
    info = outline.info
    arms.check_with(config, info, outline.counts, outline.streamed)
    teacher = inputs.build_network(config.squeeze.model, info)
    pupils = {
        name: students.network(config, name, info) for name in config.evaluate.models
    }
    variables = jax.eval_shape(teacher.init, jax.random.key(0))
    width = arms.reported(teacher, info)["features"].shape[-1]
    machine = machine or pod.here(_rate(teacher, info))
    decoded = decoding.rate(config.data, info.shape)[0] if outline.streamed else 0.0
    return Plan(
        config, outline, teacher, pupils, variables, width, machine, decoded, {}
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
        "device": f"{parallel.describe()}, {_bytes(plan.machine.memory)}; "
        f"{plan.machine.rate / 1e9:,.1f} GFLOP/s on the teacher's gradient, measured "
        "here",
    }
    if outline.streamed:
        source = decoding.rate(plan.config.data, info.shape)[1]
        lines["input"] = f"{plan.decoding:,.0f} images a second and core, {source}"
    return "\n".join(f"{name:<9} {told}" for name, told in lines.items()) + "\n"


def assumed(plan: Plan, told: dict, machine: pod.Machine) -> str:
    """What the machine of a plan is, and which of it the user has told."""

    def source(flag):
        return "as told" if flag in told else "as here"

    rate = "as told" if "tflops" in told else "measured here"
    count = ", ".join(map(str, told.get("devices", [machine.devices])))
    lines = {
        "pod": f"{count} devices of {machine.rate / 1e12:,.3g} TFLOP/s ({rate}) and "
        f"{_bytes(machine.memory)} ({source('device_memory_gb')})",
        "hosts": f"{machine.per_host} devices, {machine.cores} cores "
        f"({source('cores_per_host')}) and {_bytes(machine.host_memory)} "
        f"({source('host_memory_gb')}) each",
    }
    return "\n".join(f"{name:<9} {line}" for name, line in lines.items()) + "\n"


def table(rows: list[Row]) -> str:
    """All rows, in Markdown."""
    header = ["stage", "what", "steps", "GFLOP a step", "memory", "host", "on disk"]
    cells = [
        [
            row.stage,
            row.what,
            f"{row.calls:,}" if row.calls else "",
            f"{row.flops / 1e9:,.3g}" if row.flops else "",
            _bytes(row.memory),
            _bytes(row.host),
            _bytes(row.disk),
            _duration(max(row.seconds, row.least)),
        ]
        for row in rows
    ]
    return tables.markdown_table([*header, "time"], cells)


def compared(machines: list[pod.Machine], found: list[list[Row]]) -> str:
    """A line for each machine: the time of each stage, and what limits it."""
    there = {row.stage for rows in found for row in rows}
    stages = [stage for stage in costs.COLUMNS if stage in there]
    named = {"relabel": "labels"}
    header = ["devices", "hosts", *(named.get(stage, stage) for stage in stages)]
    header += ["in all", "largest memory", "of a host", "first bottleneck"]
    lines = [
        [
            f"{machine.devices:,}",
            f"{machine.hosts:,}",
            *(_duration(costs.seconds(rows, stage)) for stage in stages),
            _duration(costs.total(rows)),
            _bytes(max(row.memory for row in rows)),
            _bytes(max(row.host for row in rows)),
            costs.limit(rows, machine),
        ]
        for machine, rows in zip(machines, found)
    ]
    return tables.markdown_table(header, lines)


def verdict(rows: list[Row], machine: pod.Machine, free: int | None = None) -> str:
    """Whether it fits, and how long it all takes.

    Args:
      rows: of all stages.
      machine: that they are for.
      free: bytes of its disk; None where that is not known.
    """
    disk = sum(row.disk for row in rows)
    spent, limit = _duration(costs.total(rows)), costs.limit(rows, machine)
    told = (
        f"in all about {spent}, and {_bytes(disk)} on disk. First bottleneck: {limit}"
    )
    plural = "s" if machine.devices > 1 else ""
    lines = [f"{machine.devices:,} device{plural}: {told}."]
    limits = {
        "memory": ("a device", machine.memory, "its batch_size, ipc or data.memory_gb"),
        "host": ("a host", machine.host_memory, "ipc or data.memory_gb"),
    }
    for field, (where, most, lower) in limits.items():
        largest = max(rows, key=lambda row: getattr(row, field))
        size = getattr(largest, field)
        if size > most:
            if largest.stage == "evaluate":
                lower = "ipc, or store no labels (evaluate.labels: online)"
            lines.append(
                f"{largest.stage}, {largest.what}: {_bytes(size)} do not fit into "
                f"{_bytes(most)} of {where}. Lower {lower}."
            )
    lines += [row.note for row in rows if row.note]
    if free is not None and disk > free:
        lines.append(f"{_bytes(disk)} on disk are more than the {_bytes(free)} here.")
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

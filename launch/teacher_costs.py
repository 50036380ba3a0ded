"""What the teacher costs, and what it sees: squeeze, stats, and the classes' atoms."""

import math
import time

import jax
import numpy as np

from ddjax import data, parallel, squeeze, stats
from ddjax.types import DataInfo
from launch import arms, atoms, shapes
from launch import squeeze as squeeze_stage
from launch.shapes import FLOAT, Row


def squeeze_rows(plan) -> list[Row]:
    """Training: the batch is split evenly over as many devices as divide it."""
    config, outline = plan.config, plan.outline
    disk, count = shapes.size(plan.variables), int(outline.counts.sum())
    seen = count + outline.test  # once more, to score it
    if config.squeeze.restore:
        row = Row("squeeze", "restored", 0, 0.0, 0, disk, 0.0)
        return [row, *shapes.decoded(plan, "scores of the teacher", seen)]
    recipe = squeeze_stage.recipe_of(config)
    batch, steps = min(recipe.batch_size, count), squeeze.num_steps(recipe, count)
    used = divisor(batch, plan.machine.devices)
    cost = shapes.once(
        plan, ("squeeze", batch // used), lambda: step_cost(plan, batch // used)
    )
    what = config.squeeze.model.name
    if used < plan.machine.devices:
        what += f", a batch of {batch} on {used} of {plan.machine.devices} devices"
    ahead = batch // used * plan.machine.per_host * shapes.image_bytes(plan)
    host = plan.machine.cores * ahead if outline.streamed else 0
    return [
        shapes.row(plan, "squeeze", what, steps, cost, disk, host),
        *shapes.decoded(plan, "for squeeze", steps * batch + seen),
    ]


def divisor(count: int, most: int) -> int:
    """The largest number, `most` at the most, that divides a count."""
    return max(n for n in range(1, min(count, most) + 1) if count % n == 0)


def step_cost(plan, batch: int) -> parallel.Cost:
    """Of a training step on a device that has so many images of the batch."""
    outline, count = plan.outline, int(plan.outline.counts.sum())
    recipe = squeeze_stage.recipe_of(plan.config)._replace(batch_size=batch)
    state = jax.eval_shape(
        lambda key: squeeze.init(key, plan.teacher, recipe, count), shapes.key()
    )
    if outline.streamed:
        step = squeeze.make_streamed_step(plan.teacher, recipe, count)
        fed = shapes.images(batch, outline.info), shapes.integers(batch)
        return shapes.step_cost(step, state, (), (shapes.key(), fed))
    step = squeeze.make_step(plan.teacher, recipe, count)
    shared = shapes.images(count, outline.info), shapes.integers(count)
    return shapes.step_cost(step, state, shared, shapes.key())


def stats_rows(plan) -> list[Row]:
    """One pass over the data: batches of whole classes, over all devices."""
    batch, counts = plan.config.stats.batch_size, plan.outline.counts
    total = int(counts.sum())

    def compiled():
        fed = shapes.images(batch, plan.outline.info)
        program = stats.make_reporter(plan.teacher.apply)
        return parallel.cost(program, plan.variables, fed)

    cost = shapes.once(plan, "stats", compiled)
    calls = -(-int(np.ceil(counts / batch).sum()) // plan.machine.devices)
    disk = FLOAT * total * plan.features
    host = 2 * disk + moment_bytes(plan)  # parts, and the whole
    row = shapes.row(plan, "stats", "features", calls, cost, disk, host)
    return [row, *shapes.decoded(plan, "for stats", total)]


def moment_bytes(plan) -> int:
    """Of the statistics of all classes."""
    read = arms.reported(plan.teacher, plan.outline.info)["moments"]
    width = sum(moments.mean.shape[-1] for moments in read)
    return 2 * FLOAT * plan.outline.info.num_classes * width


def atom_rows(plan) -> list[Row]:
    """Made for one class of numbers drawn at random, and counted for all.

    Hosts share the classes. What is timed is this machine's processor, whatever the
    hosts of a pod have.
    """
    config, rows = plan.config, []
    if not any(needs_atoms(plan, arm) for arm in methods(plan)):
        return []
    classes, largest = plan.outline.info.num_classes, int(plan.outline.counts.max())
    sets = config.recover.sets
    for ipc in config.recover.ipc:
        key = "atoms", ipc, largest
        each = shapes.once(plan, key, lambda ipc=ipc: _seconds(plan, largest, ipc))
        calls = -(-classes // plan.machine.hosts) * sets
        disk = FLOAT * classes * ipc * plan.features * sets
        memory = 2 * FLOAT * largest * (plan.features + ipc)
        host = FLOAT * int(plan.outline.counts.sum()) * plan.features + disk // sets
        what = f"atoms, ipc {ipc}"
        rows.append(Row("stats", what, calls, 0.0, memory, disk, each * calls, host))
    return rows


def _seconds(plan, count, ipc) -> float:
    """Of the atoms of one class."""
    x = np.random.default_rng(0).normal(size=(count, plan.features))
    toy = data.class_major(
        np.zeros((count, 1, 1, 1), np.uint8),
        np.zeros(count, int),
        DataInfo("toy", ("a",), (1, 1, 1), (0.5,), (0.5,)),
    )
    find, least = atoms.find(plan.config.stats), math.inf
    for _ in range(2):  # the first compiles
        began = time.monotonic()
        stats.barycenters(jax.random.key(0), x.astype(np.float32), toy, ipc, find=find)
        least = min(least, time.monotonic() - began)
    return least


def methods(plan) -> list[str]:
    """The arms that make images."""
    return [arm for arm in shapes.ours_and_others(plan) if "/" in arm]


def needs_atoms(plan, arm) -> bool:
    name, start = arms.split(arm)
    method = arms.build(plan.config, name, plan.teacher, plan.outline.info)
    return start == "real" or "barycenter" in method.requires

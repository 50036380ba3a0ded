"""What the teacher costs, and what it sees: squeeze, stats, and the classes' atoms."""

import functools
import itertools
import json
import math
import time

import jax
import numpy as np

from ddjax import data, parallel, squeeze, stats
from ddjax.types import DataInfo
from launch import arms, atoms, ensembles, inputs, pool, shapes, variants
from launch import squeeze as squeeze_stage
from launch.shapes import FLOAT, Row

_CLASSES = 10  # that a host looks at together


def teacher_rows(plan) -> list[Row]:
    """The main teacher and those that arms have besides, each trained and looked through."""
    rows = squeeze_rows(plan) + stats_rows(plan)
    for theirs in variants.others(plan.config, shapes.ours_and_others(plan)):
        other = plan._replace(config=theirs)
        rows += squeeze_rows(other) + stats_rows(other)
    return rows + label_rows(plan) + pool_rows(plan)


def label_rows(plan) -> list[Row]:
    """Teachers that label and are no arm's: trained, and not looked through."""
    if not ensembles.asked(plan.config):
        return []
    there = variants.others(plan.config, shapes.ours_and_others(plan))
    known = {c.squeeze.to_json_best_effort() for c in (plan.config, *there)}
    rows = []
    for theirs in ensembles.others(plan.config):
        if theirs.squeeze.to_json_best_effort() not in known:
            info, section = plan.outline.info, theirs.squeeze.model
            network = inputs.build_network(section, info)
            variables = jax.eval_shape(network.init, shapes.key())
            other = plan._replace(config=theirs, teacher=network, variables=variables)
            rows += squeeze_rows(other._replace(known={}))
    return rows


def pool_rows(plan) -> list[Row]:
    """The networks of pools that arms match images through; hosts share them."""
    config, rows = plan.config, []
    theirs = {  # one pool for all arms that have the same teacher
        json.dumps(found.squeeze.to_dict(), sort_keys=True): found
        for arm, ipc in itertools.product(methods(plan), config.recover.ipc)
        if "pool" in requires(plan, arm)
        for found in [variants.config_of(config, arm, ipc)]
    }
    count = int(plan.outline.counts.sum())
    for found in theirs.values():
        recipe, size = pool.recipe_of(found), found.pool.size
        batch = min(recipe.batch_size, count)
        share = batch // shapes.divisor(batch, plan.machine.per_host)
        key = "squeeze", recipe._replace(epochs=0), share
        other = plan._replace(config=found)
        cost = shapes.once(plan, key, functools.partial(step_cost, other, share))
        calls = -(-size // plan.machine.hosts) * squeeze.num_steps(recipe, count)
        disk = 2 * size * shapes.size(plan.variables)
        what = f"pool of {size} networks, {recipe.epochs} epochs"
        rows.append(shapes.row(plan, "squeeze", what, calls, cost, disk, disk))
    return rows


def pool_shapes(plan) -> tuple:
    """Of the first and the last variables, stacked."""
    stacked = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((plan.config.pool.size, *x.shape), x.dtype),
        plan.variables,
    )
    return stacked, stacked


def requires(plan, arm) -> tuple[str, ...]:
    """What an arm reads, see `methods.Method`."""
    ipc = plan.config.recover.ipc[0]
    info = plan.outline.info
    return arms.build(plan.config, arm, plan.teacher, info, ipc).requires


def squeeze_rows(plan) -> list[Row]:
    """Training: every batch is split evenly over devices."""
    config, outline, machine = plan.config, plan.outline, plan.machine
    disk, count = shapes.size(plan.variables), int(outline.counts.sum())
    seen = count + outline.test  # once more, to score it
    if config.squeeze.restore:
        row = Row("squeeze", "restored", 0, 0.0, 0, disk, 0.0)
        return [row, *shapes.decoded(plan, "scores of the teacher", seen)]
    recipe, what, note = squeeze_stage.recipe_of(config), config.squeeze.model.name, ""
    batch, used = divided(min(recipe.batch_size, count), machine)
    if used < machine.devices:
        what += f", a batch of {batch} on {used} of {machine.devices} devices"
    if batch != min(recipe.batch_size, count):
        what += f", batches of {batch}"
        note = f"squeeze.batch_size {recipe.batch_size} cannot be divided over "
        note += f"{machine.devices} devices; counted is {batch}: set it."
    steps = squeeze.num_steps(recipe._replace(batch_size=batch), count)
    share = batch // used
    key = "squeeze", recipe._replace(epochs=0), share
    cost = shapes.once(plan, key, lambda: step_cost(plan, share))
    ahead = share * machine.per_host * shapes.image_bytes(plan)
    host = machine.cores * ahead if outline.streamed else 0
    row = shapes.row(plan, "squeeze", what, steps, cost, disk, host)
    row = row._replace(note=note)
    return [row, *shapes.decoded(plan, "for squeeze", steps * batch + seen)]


def divided(batch: int, machine) -> tuple[int, int]:
    """The batch that devices can share, and how many of them: see `parallel.sharded`.

    One host leaves devices idle that do not divide the batch; several refuse, and the
    batch they ask for is counted.
    """
    if machine.hosts == 1:
        return batch, shapes.divisor(batch, machine.devices)
    count = machine.devices
    return (
        batch if batch % count == 0 else count * max(1, round(batch / count))
    ), count


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
    """One pass over the data, some classes at a time; each host has its own."""
    batch, counts, machine = (
        plan.config.stats.batch_size,
        plan.outline.counts,
        plan.machine,
    )
    total, classes = int(counts.sum()), len(counts)
    own = min(classes, -(-classes // (_CLASSES * machine.hosts)) * _CLASSES)

    def compiled():
        fed = shapes.images(batch, plan.outline.info)
        program = stats.make_reporter(plan.teacher.apply)
        return parallel.cost(program, plan.variables, fed)

    cost = shapes.once(plan, "stats", compiled)
    batches = np.ceil(counts / batch).sum() * own / classes
    calls = math.ceil(batches / machine.per_host)
    disk = FLOAT * total * plan.features
    host = 2 * disk + moment_bytes(plan)  # parts, and the whole
    cost = shapes.in_turn(plan, cost)
    row = shapes.row(plan, "stats", "features", calls, cost, disk, host)
    return [row, *shapes.decoded(plan, "for stats", total, classes / own)]


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
        width = atoms.width(config.stats, plan.features)
        disk = FLOAT * classes * ipc * width * sets
        memory = 2 * FLOAT * largest * (width + ipc)
        held = plan.features + (width if atoms.space(config.stats) else 0)
        host = FLOAT * int(plan.outline.counts.sum()) * held + disk // sets
        what = f"atoms, ipc {ipc}"
        rows.append(Row("stats", what, calls, 0.0, memory, disk, each * calls, host))
    return rows


def _seconds(plan, count, ipc) -> float:
    """Of the atoms of one class."""
    width = atoms.width(plan.config.stats, plan.features)
    x = np.random.default_rng(0).normal(size=(count, width)) / np.sqrt(width)
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
    return arms.split(arm)[1] == "real" or "barycenter" in requires(plan, arm)

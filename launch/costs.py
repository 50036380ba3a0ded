"""What each stage of a config costs: its programs, compiled and not run."""

import itertools
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import (
    data,
    models,
    parallel,
    recipes,
    recover,
    relabel,
    squeeze,
    stats,
    student,
)
from ddjax.types import Barycenter, ClassStats, Context, DataInfo, Moments
from launch import arms, atoms, comparison, inputs, progress, students
from launch import relabel as relabel_stage
from launch import squeeze as squeeze_stage


class Row(NamedTuple):
    """One kind of work."""

    stage: str
    what: str
    calls: int  # of its program
    flops: float  # of a call
    memory: int  # bytes on each device, while it runs
    disk: int  # bytes it leaves
    seconds: float  # of all calls


class Plan(NamedTuple):
    """What the rows are made of."""

    config: object
    outline: inputs.Outline
    teacher: models.Network
    pupils: dict  # networks of the students, by name
    variables: dict  # shapes of the teacher's
    features: int  # D
    rate: float  # operations a second


def work(plan: Plan) -> list[Row]:
    """All that the config does, in the order in which it does it."""
    makers = (_squeeze, _stats, _barycenters, _recover, _relabel, _evaluate)
    rows = []
    with progress.bar("plan", len(makers), unit="stage") as bar:
        for make in makers:
            rows += make(plan)
            bar.update()
    return rows


# Stages -------------------------------------------------------------------------------


def _squeeze(plan) -> list[Row]:
    config, outline = plan.config, plan.outline
    size = _size(plan.variables)
    if config.squeeze.restore:
        return [Row("squeeze", "restored", 0, 0.0, 0, size, 0.0)]
    recipe, count = squeeze_stage.recipe_of(config), int(outline.counts.sum())
    state = jax.eval_shape(
        lambda key: squeeze.init(key, plan.teacher, recipe, count), _key()
    )
    if outline.streamed:
        step = squeeze.make_streamed_step(plan.teacher, recipe, count)
        batch = _images(recipe.batch_size, outline.info), _integers(recipe.batch_size)
        shared, private = (), (_key(), batch)
    else:
        step = squeeze.make_step(plan.teacher, recipe, count)
        shared, private = (_images(count, outline.info), _integers(count)), _key()
    cost = _step_cost(step, state, shared, private)
    steps = squeeze.num_steps(recipe, count)
    what = config.squeeze.model.name
    return [_row(plan, "squeeze", what, steps, cost, size)]


def _stats(plan) -> list[Row]:
    batch, counts = plan.config.stats.batch_size, plan.outline.counts
    program = stats.make_reporter(plan.teacher.apply)
    cost = parallel.cost(program, plan.variables, _images(batch, plan.outline.info))
    calls = int(np.ceil(counts / batch).sum())
    disk = 4 * int(counts.sum()) * plan.features
    return [_row(plan, "stats", "features", calls, cost, disk)]


def _barycenters(plan) -> list[Row]:
    """Made for one class of numbers drawn at random, and counted for all."""
    config, rows = plan.config, []
    needed = [arm for arm in _methods(plan) if _needs_atoms(plan, arm)]
    classes, largest = plan.outline.info.num_classes, int(plan.outline.counts.max())
    x = np.random.default_rng(0).normal(size=(largest, plan.features))
    toy = data.class_major(
        np.zeros((largest, 1, 1, 1), np.uint8),
        np.zeros(largest, int),
        DataInfo("toy", ("a",), (1, 1, 1), (0.5,), (0.5,)),
    )
    for ipc in config.recover.ipc if needed else ():
        find = atoms.find(config.stats)
        for _ in range(2):  # the first compiles
            began = time.monotonic()
            stats.barycenters(
                jax.random.key(0), x.astype(np.float32), toy, ipc, find=find
            )
        seconds = (time.monotonic() - began) * classes * config.recover.sets
        disk = 4 * classes * ipc * plan.features * config.recover.sets
        memory = 8 * largest * (plan.features + ipc)
        what = f"atoms, ipc {ipc}"
        calls = classes * config.recover.sets
        rows.append(Row("stats", what, calls, 0.0, memory, disk, seconds))
    return rows


def _recover(plan) -> list[Row]:
    config, info, rows, costs = plan.config, plan.outline.info, [], {}
    for ipc in config.recover.ipc:
        for arm in _methods(plan):
            name, _ = arms.split(arm)
            section = arms.section(config, name)
            method = arms.build(config, name, plan.teacher, info)
            cuts = recover.chunks(
                info.num_classes, ipc, config.recover.batch_size, section["layout"]
            )
            waves = recover.waves(cuts, section["num_steps"], parallel.device_count())
            key = name, waves[0].rows.shape
            if key not in costs:  # as many images, as much work
                costs[key] = _chunk_cost(plan, method, waves[0], ipc)
            steps = len(waves) * section["num_steps"] * config.recover.sets
            disk = info.num_classes * ipc * math.prod(info.shape) * config.recover.sets
            what = f"{arm}, ipc {ipc}, {len(cuts[0])} images a chunk"
            rows.append(_row(plan, "recover", what, steps, costs[key], disk))
    return rows


def _chunk_cost(plan, method, wave, ipc) -> parallel.Cost:
    """Of a step of a wave's chunks, of which each device has one."""
    info, width = plan.outline.info, plan.features
    chunks, size = wave.rows.shape
    every = info.num_classes
    out = arms.reported(plan.teacher, info)
    layers = tuple(
        Moments(*(np.zeros((every, m.mean.shape[-1]), np.float32),) * 2)
        for m in out["moments"]
    )
    seen = ClassStats(layers, np.zeros(every))
    found = Barycenter(
        np.zeros((every, ipc, width), np.float32),
        np.zeros((every, ipc), np.float32),
        (),
        (),
    )
    goals = recover.targets(
        wave.rows[0],
        np.zeros((size, *info.shape), np.float32),
        ipc,
        barycenter=found if "barycenter" in method.requires else None,
        class_stats=seen if "class_stats" in method.requires else None,
    )
    stacked = jax.tree.map(lambda x: _like(chunks, x), goals)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), chunks))
    context = Context(teacher=plan.variables)
    state = jax.eval_shape(
        lambda c, t, k: recover.initial_state(method, c, t, k), context, stacked, keys
    )
    step, spread = recover.make_step(method), parallel.over_devices(chunks)
    return _step_cost(step, state, context, (keys, stacked), spread)


def _relabel(plan) -> list[Row]:
    config, rows = plan.config, []
    stored = [kind for kind in config.evaluate.labels if kind in ("single", "stored")]
    sets = len(_arms(plan)) * config.recover.sets
    for ipc, labels, name in itertools.product(
        config.recover.ipc, stored, config.evaluate.recipes
    ):
        if labels == "single" and name != config.evaluate.recipes[0]:
            continue  # made once for all recipes
        rows.append(_labels_row(plan, ipc, labels, name, sets))
    return rows


def _labels_row(plan, ipc, labels, name, sets) -> Row:
    info = plan.outline.info
    count, model = info.num_classes * ipc, plan.config.evaluate.models[0]
    recipe = students.recipe(plan.config, name, model, count, info)
    told = f"{sets} sets, ipc {ipc}, {labels}, {name}"
    if labels == "single":
        calls, told = sets * -(-count // 100), f"{sets} sets, ipc {ipc}, single"
        views = recipe.views._replace(batch_size=min(100, count))
        recipe = recipes.plain(recipe._replace(views=views))
    else:
        calls = sets * student.num_steps(recipe, count)
    program = relabel.make_labeller(plan.teacher.apply, recipe.views)
    cost = parallel.cost(
        program, plan.variables, _key(), _index(), _images(count, info)
    )
    disk = sets * relabel_stage.soft_bytes(labels, recipe, count, info.num_classes)
    return _row(plan, "relabel", told, calls, cost, disk)


def _evaluate(plan) -> list[Row]:
    """Students of all arms; those on the whole data are told apart."""
    config, rows, costs = plan.config, [], {}
    section, info = config.evaluate, plan.outline.info
    sizes = [
        (f"ipc {n}", n * info.num_classes, None, len(_arms(plan)))
        for n in config.recover.ipc
    ]
    if section.whole_epochs:
        whole = int(plan.outline.counts.sum())
        sizes.append((comparison.WHOLE, whole, section.whole_epochs, 1))
    for size, labels, name, model in itertools.product(
        sizes, section.labels, section.recipes, section.models
    ):
        what, count, epochs, many = size
        recipe = students.recipe(config, name, model, count, info, epochs)
        number = many * config.recover.sets * section.students
        steps = number * student.num_steps(recipe, count)
        key = labels, name, model, min(recipe.views.batch_size, count)
        if key not in costs:
            costs[key] = _student_cost(plan, recipe, key[-1], labels, model)
        images = count * math.prod(info.shape)
        cost = costs[key]._replace(memory=costs[key].memory + images)
        told = f"{number} students ({model}), {what}, {labels} labels, {name}"
        rows.append(_row(plan, "evaluate", told, steps, cost, 0))
        if section.whole_epochs and labels != "hard" and epochs is None:
            rows.append(_equal_bytes(plan, what, count, labels, name, model))
    return rows


def _equal_bytes(plan, what, count, labels, name, model) -> Row:
    """Students on random images with hard labels that take as many bytes."""
    config, info = plan.config, plan.outline.info
    recipe = students.recipe(config, name, model, count, info)
    needed = count * math.prod(info.shape)
    needed += relabel_stage.soft_bytes(labels, recipe, count, info.num_classes)
    needed += _size(plan.variables) if labels == "online" else 0
    count = comparison.affordable(needed, info, plan.outline.counts) * info.num_classes
    recipe = students.recipe(
        config, name, model, count, info, config.evaluate.whole_epochs
    )
    number = config.recover.sets * config.evaluate.students
    batch = min(recipe.views.batch_size, count)
    cost = _student_cost(plan, recipe, batch, "hard", model)
    told = f"{number} students ({model}), random, bytes of {what}, {labels}, {name}"
    steps = number * student.num_steps(recipe, count)
    return _row(plan, "evaluate", told, steps, cost, 0)


def _student_cost(plan, recipe, batch, labels, model) -> parallel.Cost:
    """Of a step of one student; the distilled set is as large as its batch."""
    info, pupil = plan.outline.info, plan.pupils[model]
    soft = {
        "hard": (),
        "single": jax.ShapeDtypeStruct((batch, info.num_classes), jnp.float16),
        "stored": jax.ShapeDtypeStruct((1, batch, info.num_classes), jnp.float16),
        "online": plan.variables,
    }[labels]
    step = student.make_step(pupil, recipe, batch, labels, plan.teacher.apply)
    state = jax.eval_shape(
        lambda key: student.initial_state(key[None], pupil, recipe, batch), _key()
    )
    shared = _images(batch, info), _integers(batch), _floats(batch), soft
    return _step_cost(step, state, shared, _key())


# What they are made of ----------------------------------------------------------------


def _arms(plan) -> list[str]:
    return list(dict.fromkeys((*plan.config.evaluate.against, arms.ours(plan.config))))


def _methods(plan) -> list[str]:
    return [arm for arm in _arms(plan) if "/" in arm]


def _needs_atoms(plan, arm) -> bool:
    name, start = arms.split(arm)
    method = arms.build(plan.config, name, plan.teacher, plan.outline.info)
    return start == "real" or "barycenter" in method.requires


def _step_cost(step, state, shared, private, spread=parallel.single) -> parallel.Cost:
    return parallel.cost(spread.compile(step), state, _index(), shared, private)


def _row(plan, stage, what, calls, cost, disk) -> Row:
    seconds = calls * cost.flops / plan.rate
    return Row(stage, what, calls, cost.flops, cost.memory, disk, seconds)


def _like(count, x):
    return jax.ShapeDtypeStruct((count, *x.shape), x.dtype)


def _images(count, info):
    return jax.ShapeDtypeStruct((count, *info.shape), jnp.uint8)


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _integers(count):
    return jax.ShapeDtypeStruct((count,), jnp.int32)


def _index():
    return jax.ShapeDtypeStruct((), jnp.int32)


def _key():
    return jax.eval_shape(lambda: jax.random.key(0))


def _size(tree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))

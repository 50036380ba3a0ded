"""What the students cost: their labels, and their training."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import ensemble, parallel, recipes, relabel, student
from launch import arms, comparison, ensembles, inputs, shapes, students
from launch import relabel as relabel_stage
from launch.shapes import Row

_BLOCK = 1000  # steps that a host labels together


class Labels(NamedTuple):
    """Who gives labels of which kind, for a plan."""

    kind: str  # of `student.LABELS`
    apply: Callable
    variables: dict | tuple  # shapes
    names: tuple[str, ...]  # of several teachers


def labels_of(plan, labels, ipc) -> Labels:
    """One teacher stands for that of every arm, several for those of arms with none."""
    kind, several = ensembles.split(labels)
    if not several:
        return Labels(kind, plan.teacher.apply, plan.variables, ())
    config, info = plan.config, plan.outline.info
    names = ensembles.names(config, ipc)
    networks = [
        inputs.build_network(theirs.squeeze.model, info)
        for theirs in (ensembles.config_of(config, name, ipc or 1) for name in names)
    ]
    functions = tuple(network.apply for network in networks)
    average, standardise = config.relabel.average, config.relabel.standardise
    apply = ensemble.create(functions, average, standardise=standardise)
    variables = tuple(jax.eval_shape(x.init, shapes.key()) for x in networks)
    return Labels(kind, apply, variables, names)


def relabel_rows(plan) -> list[Row]:
    """Labels that are stored; hosts and devices share the steps, of "stored" ones."""
    config, rows = plan.config, []
    stored = [
        labels
        for labels in config.evaluate.labels
        if ensembles.split(labels)[0] in ("single", "stored")
    ]
    for ipc, labels, name in itertools.product(
        config.recover.ipc, stored, config.evaluate.recipes
    ):
        kind = ensembles.split(labels)[0]
        if kind == "single" and name != config.evaluate.recipes[0]:
            continue  # made once for all recipes
        for parts, mine in shapes.by_parts(plan, ipc).items():
            sets = len(mine) * config.recover.sets
            rows.append(_labels_row(plan, ipc, parts, labels, name, sets))
    return rows


def _labels_row(plan, ipc, parts, labels, name, sets) -> Row:
    info, model = plan.outline.info, plan.config.evaluate.models[0]
    count, size = info.num_classes * ipc * parts, shapes.told(ipc, parts)
    recipe = students.recipe(plan.config, name, model, count, info)
    told = f"{sets} sets, {size}, {labels}, {name}"
    kind, apply, variables, whose = labels_of(plan, labels, ipc)
    if kind == "single":
        steps, told = -(-count // 100), f"{sets} sets, {size}, {labels}"
        views = recipe.views._replace(batch_size=min(100, count))
        recipe = recipes.plain(recipe._replace(views=views))
    else:
        steps = student.num_steps(recipe, count)

    def compiled():
        program = relabel.make_labeller(apply, recipe.views)
        fed = shapes.key(), shapes.index(), shapes.images(count, info)
        return parallel.cost(program, variables, *fed)

    cost = shapes.once(plan, ("relabel", recipe.views, count, whose), compiled)
    own = steps
    if kind == "stored":
        own = min(steps, -(-steps // (_BLOCK * plan.machine.hosts)) * _BLOCK)
    calls = sets * -(-own // plan.machine.per_host)
    each = relabel_stage.soft_bytes(kind, recipe, count, info.num_classes)
    host = 2 * each + count * shapes.image_bytes(plan)  # blocks, and the whole
    cost = shapes.in_turn(plan, cost)
    return shapes.row(plan, "relabel", told, calls, cost, sets * each, host)


def evaluate_rows(plan) -> list[Row]:
    """Students of all arms; those on the whole data are told apart."""
    config, rows = plan.config, []
    section, info = config.evaluate, plan.outline.info
    ours, sizes = arms.ours(config), []
    for n in config.recover.ipc:
        stored = n * info.num_classes
        for parts, mine in shapes.by_parts(plan, n).items():
            bounded = stored if ours in mine else 0
            sizes.append(
                (shapes.told(n, parts), stored * parts, None, len(mine), bounded, n)
            )
    if section.whole_epochs:
        whole = int(plan.outline.counts.sum())
        sizes.append((comparison.WHOLE, whole, section.whole_epochs, 1, 0, 0))
    for cell, labels, name, model in itertools.product(
        sizes, section.labels, section.recipes, section.models
    ):
        what, count, epochs, many, stored, ipc = cell
        of = labels_of(plan, labels, ipc)
        recipe = students.recipe(config, name, model, count, info, epochs)
        cells = many * config.recover.sets
        told = f"students ({model}), {what}, {labels} labels, {name}"
        rows += _students(plan, told, cells, recipe, count, of, model)
        if section.whole_epochs and labels != "hard" and stored:
            told = f"students ({model}), random, bytes of {what}, {labels}, {name}"
            rows += _equal_bytes(plan, told, (count, stored), of, name, model)
    return rows


def _equal_bytes(plan, told, counts, of, name, model) -> list[Row]:
    """Students on random images with hard labels that take as many bytes."""
    config, info = plan.config, plan.outline.info
    count, stored = counts  # images that students see, and those of as many bytes
    recipe = students.recipe(config, name, model, count, info)
    needed = stored * shapes.image_bytes(plan)
    needed += relabel_stage.soft_bytes(of.kind, recipe, count, info.num_classes)
    needed += shapes.size(of.variables) if of.kind == "online" else 0
    count = comparison.affordable(needed, info, plan.outline.counts) * info.num_classes
    recipe = students.recipe(
        config, name, model, count, info, config.evaluate.whole_epochs
    )
    hard = labels_of(plan, "hard", 0)
    return _students(plan, told, config.recover.sets, recipe, count, hard, model)


def _students(plan, told, cells, recipe, count, of, model) -> list[Row]:
    """Cells of students that differ in their seed alone, divided over hosts.

    On a host the students of a cell are side by side (on a CPU one in each thread) on
    as many devices as divide their number, and a student's batch is divided over as
    many of those left as divide it: see `parallel.sharded`.
    """
    machine, many = plan.machine, plan.config.evaluate.students
    info, batch = plan.outline.info, min(recipe.views.batch_size, count)
    used = shapes.divisor(many, machine.per_host) if machine.side_by_side else 1
    share = batch // shapes.divisor(batch, machine.per_host // used)
    key = "student", recipe._replace(epochs=0), share, of.kind, of.names, model
    cost = shapes.once(plan, key, lambda: student_cost(plan, recipe, share, of, model))
    together = many // used if machine.side_by_side else machine.threads
    steps, soft = student.num_steps(recipe, count), 0
    if of.kind in ("single", "stored"):
        soft = relabel_stage.soft_bytes(of.kind, recipe, count, info.num_classes)
    shared = count * shapes.image_bytes(plan) + soft
    longest = many // used * steps * cost.flops / machine.rate
    row = Row(
        "evaluate",
        f"{cells * many} {told}",
        cells * many * steps,
        cost.flops,
        together * cost.memory + shared,
        0,
        cells * longest / machine.hosts,
        shared,
        longest,
    )
    scored = cells * many * plan.outline.test
    hosts = min(cells, machine.hosts)
    what = f"scores of {cells * many} {told}"
    return [row, *shapes.decoded(plan, what, scored, hosts)]


def student_cost(plan, recipe, batch, of, model) -> parallel.Cost:
    """Of a step of one student on a device, which has so many images of the batch.

    The distilled set is as large as that.
    """
    info, pupil = plan.outline.info, plan.pupils[model]
    recipe = recipe._replace(views=recipe.views._replace(batch_size=batch))
    soft = {
        "hard": (),
        "single": jax.ShapeDtypeStruct((batch, info.num_classes), jnp.float16),
        "stored": jax.ShapeDtypeStruct((1, batch, info.num_classes), jnp.float16),
        "online": of.variables,
    }[of.kind]
    step = student.make_step(pupil, recipe, batch, of.kind, of.apply)
    state = jax.eval_shape(
        lambda key: student.initial_state(key[None], pupil, recipe, batch), shapes.key()
    )
    hard, weights = shapes.integers(batch), shapes.floats(batch)
    shared = shapes.key(), shapes.images(batch, info), hard, weights, soft
    return shapes.step_cost(step, state, shared, ())

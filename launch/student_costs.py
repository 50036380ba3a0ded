"""What the students cost: their labels, and their training."""

import itertools

import jax
import jax.numpy as jnp

from ddjax import parallel, recipes, relabel, student
from launch import arms, comparison, shapes, students
from launch import relabel as relabel_stage
from launch.shapes import Row

_BLOCK = 1000  # steps that a host labels together


def relabel_rows(plan) -> list[Row]:
    """Labels that are stored; hosts and devices share the steps, of "stored" ones."""
    config, rows = plan.config, []
    stored = [kind for kind in config.evaluate.labels if kind in ("single", "stored")]
    for ipc, labels, name in itertools.product(
        config.recover.ipc, stored, config.evaluate.recipes
    ):
        if labels == "single" and name != config.evaluate.recipes[0]:
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
    if labels == "single":
        steps, told = -(-count // 100), f"{sets} sets, {size}, single"
        views = recipe.views._replace(batch_size=min(100, count))
        recipe = recipes.plain(recipe._replace(views=views))
    else:
        steps = student.num_steps(recipe, count)

    def compiled():
        program = relabel.make_labeller(plan.teacher.apply, recipe.views)
        fed = shapes.key(), shapes.index(), shapes.images(count, info)
        return parallel.cost(program, plan.variables, *fed)

    cost = shapes.once(plan, ("relabel", recipe.views, count), compiled)
    own = steps
    if labels == "stored":
        own = min(steps, -(-steps // (_BLOCK * plan.machine.hosts)) * _BLOCK)
    calls = sets * -(-own // plan.machine.per_host)
    each = relabel_stage.soft_bytes(labels, recipe, count, info.num_classes)
    host = 2 * each + count * shapes.image_bytes(plan)  # blocks, and the whole
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
                (shapes.told(n, parts), stored * parts, None, len(mine), bounded)
            )
    if section.whole_epochs:
        whole = int(plan.outline.counts.sum())
        sizes.append((comparison.WHOLE, whole, section.whole_epochs, 1, 0))
    for cell, labels, name, model in itertools.product(
        sizes, section.labels, section.recipes, section.models
    ):
        what, count, epochs, many, stored = cell
        recipe = students.recipe(config, name, model, count, info, epochs)
        cells = many * config.recover.sets
        told = f"students ({model}), {what}, {labels} labels, {name}"
        rows += _students(plan, told, cells, recipe, count, labels, model)
        if section.whole_epochs and labels != "hard" and stored:
            rows += _equal_bytes(plan, what, (count, stored), labels, name, model)
    return rows


def _equal_bytes(plan, what, counts, labels, name, model) -> list[Row]:
    """Students on random images with hard labels that take as many bytes."""
    config, info = plan.config, plan.outline.info
    count, stored = counts  # images that students see, and those of as many bytes
    recipe = students.recipe(config, name, model, count, info)
    needed = stored * shapes.image_bytes(plan)
    needed += relabel_stage.soft_bytes(labels, recipe, count, info.num_classes)
    needed += shapes.size(plan.variables) if labels == "online" else 0
    count = comparison.affordable(needed, info, plan.outline.counts) * info.num_classes
    recipe = students.recipe(
        config, name, model, count, info, config.evaluate.whole_epochs
    )
    told = f"students ({model}), random, bytes of {what}, {labels}, {name}"
    return _students(plan, told, config.recover.sets, recipe, count, "hard", model)


def _students(plan, told, cells, recipe, count, labels, model) -> list[Row]:
    """Cells of students that differ in their seed alone, divided over hosts.

    On a host the students of a cell are side by side (on a CPU one after another) on
    as many devices as divide their number, and a student's batch is divided over as
    many of those left as divide it: see `parallel.sharded`.
    """
    machine, many = plan.machine, plan.config.evaluate.students
    info, batch = plan.outline.info, min(recipe.views.batch_size, count)
    used = shapes.divisor(many, machine.per_host) if machine.side_by_side else 1
    share = batch // shapes.divisor(batch, machine.per_host // used)
    key = "student", recipe._replace(epochs=0), share, labels, model
    cost = shapes.once(
        plan, key, lambda: student_cost(plan, recipe, share, labels, model)
    )
    together = many // used if machine.side_by_side else 1
    steps, soft = student.num_steps(recipe, count), 0
    if labels in ("single", "stored"):
        soft = relabel_stage.soft_bytes(labels, recipe, count, info.num_classes)
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


def student_cost(plan, recipe, batch, labels, model) -> parallel.Cost:
    """Of a step of one student on a device, which has so many images of the batch.

    The distilled set is as large as that.
    """
    info, pupil = plan.outline.info, plan.pupils[model]
    recipe = recipe._replace(views=recipe.views._replace(batch_size=batch))
    soft = {
        "hard": (),
        "single": jax.ShapeDtypeStruct((batch, info.num_classes), jnp.float16),
        "stored": jax.ShapeDtypeStruct((1, batch, info.num_classes), jnp.float16),
        "online": plan.variables,
    }[labels]
    step = student.make_step(pupil, recipe, batch, labels, plan.teacher.apply)
    state = jax.eval_shape(
        lambda key: student.initial_state(key[None], pupil, recipe, batch), shapes.key()
    )
    hard, weights = shapes.integers(batch), shapes.floats(batch)
    shared = shapes.images(batch, info), hard, weights, soft
    return shapes.step_cost(step, state, shared, shapes.key())

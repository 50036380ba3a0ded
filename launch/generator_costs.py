"""What generators and surrogates cost, which methods sample with."""

import functools

import jax

from ddjax import generate, squeeze
from launch import generator, shapes, surrogates, teacher_costs
from launch.shapes import Row

_AGES = 4  # of the surrogates that are kept: IGD's had three or four


def rows(plan) -> list[Row]:
    """Training, once for all arms: batches are split evenly over devices.

    An autoencoder's training is left out.
    """
    asked = set().union(
        *(teacher_costs.requires(plan, arm) for arm in teacher_costs.methods(plan)), ()
    )
    found = []
    if "generator" in asked and not plan.config.generator.restore:
        found.append(_generator_row(plan))
    if "surrogates" in asked:
        found.append(_surrogates_row(plan))
    return found


def sampled_from(plan, requires) -> dict:
    """Shapes of the variables that a method asks for, by the fields of `Context`."""
    found, config, info = {}, plan.config, plan.outline.info
    if "generator" in requires:
        init = generator.build(config, info).init
        found["generator"] = jax.eval_shape(init, shapes.key())
    if "surrogates" in requires:
        one = jax.eval_shape(surrogates.build(config, info).init, shapes.key())
        found["surrogates"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((_AGES, *x.shape), x.dtype), one
        )
    return found


def _generator_row(plan) -> Row:
    config, info = plan.config, plan.outline.info
    made, recipe = generator.build(config, info), generator.recipe_of(config)
    count, batch, own = _shared(plan, recipe)

    def compiled():
        state = jax.eval_shape(lambda k: generate.init(k, made, own), shapes.key())
        space = jax.eval_shape(made.init, shapes.key())["autoencoder"]
        shared = shapes.images(count, info), shapes.integers(count), space
        step = generate.make_step(made, own, count)
        return shapes.step_cost(step, state, shared, shapes.key())

    cost = shapes.once(plan, "generator", compiled)
    variables = jax.eval_shape(made.init, shapes.key())
    disk = shapes.size(variables)
    what = f"generator, batches of {batch}"
    return shapes.row(plan, "squeeze", what, recipe.num_steps, cost, disk, disk)


def _surrogates_row(plan) -> Row:
    config, info = plan.config, plan.outline.info
    network, recipe = surrogates.build(config, info), surrogates.recipe_of(config)
    count, batch, own = _shared(plan, recipe)

    def compiled():
        begin = functools.partial(
            squeeze.init, network=network, recipe=own, num_examples=count
        )
        shared = shapes.images(count, info), shapes.integers(count)
        step = squeeze.make_step(network, own, count)
        state = jax.eval_shape(begin, shapes.key())
        return shapes.step_cost(step, state, shared, shapes.key())

    cost = shapes.once(plan, "surrogates", compiled)
    steps = squeeze.num_steps(recipe._replace(batch_size=batch), count)
    one = shapes.size(jax.eval_shape(network.init, shapes.key()))
    disk = one * (_AGES + recipe.epochs + 1)  # every epoch's, until some are chosen
    what = f"surrogates, {recipe.epochs} epochs"
    return shapes.row(plan, "squeeze", what, steps, cost, disk, 2 * one)


def _shared(plan, recipe):
    """Training images, the batch of all devices, and the recipe of one's share."""
    count = int(plan.outline.counts.sum())
    batch, used = teacher_costs.divided(min(recipe.batch_size, count), plan.machine)
    return count, batch, recipe._replace(batch_size=batch // used)

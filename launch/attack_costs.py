"""What attacks on students cost, where nothing falls early: the most they can take."""

import itertools
import math

import jax

from ddjax import attacks, parallel
from launch import robustness, shapes
from launch.shapes import Row


def attack_rows(plan) -> list[Row]:
    """A row for each attack and network: all radii, on the students of all arms."""
    config, rows = plan.config, []
    asked = robustness.asked(config)
    for name, model in itertools.product(
        dict.fromkeys(name for name, _ in asked), config.evaluate.models
    ):
        radii = [radius for other, radius in asked if other == name]
        rows.append(_row(plan, name, radii, model))
    return rows


def _row(plan, name, radii, model) -> Row:
    section, machine = plan.config.evaluate, plan.machine
    total = plan.outline.test
    count = min(section.attack_images or total, total)
    students = _students(plan)
    suite = attacks.named(name, radii[0] / 255, plan.outline.info.num_classes)
    gradient, forward = (
        shapes.once(plan, (kind, model), lambda kind=kind: _cost(plan, kind, model))
        for kind in ("input gradient", "logits")
    )
    each = sum(
        attack.rounds
        * (attack.gradients * gradient.flops + attack.forwards * forward.flops)
        for attack in suite
    )
    steps = sum(attack.rounds * attack.num_steps for attack in suite)
    batches = math.ceil(count / section.attack_batch)
    jobs = students * len(radii) * batches
    calls = steps * math.ceil(jobs / (machine.per_host * machine.hosts))
    flops = each * section.attack_batch / steps
    bytes_left = 2 * count * students * len(radii)  # two masks
    word = "radius" if len(radii) == 1 else "radii"
    what = (
        f"{students} students ({model}), {name} on {count} images, {len(radii)} {word}"
    )
    return Row(
        "attack",
        what,
        calls,
        flops,
        gradient.memory,
        bytes_left,
        calls * flops / machine.rate,
    )


def _students(plan) -> int:
    """Of one network: all arms, kinds of labels, recipes, sets and seeds."""
    config = plan.config
    section, sets = config.evaluate, config.recover.sets * config.evaluate.students
    kinds = len(section.labels) * len(section.recipes)
    arms = len(shapes.ours_and_others(plan)) * len(config.recover.ipc)
    soft = sum(kind != "hard" for kind in section.labels) * len(section.recipes)
    bounds = kinds + soft * len(config.recover.ipc) if section.whole_epochs else 0
    return (arms * kinds + bounds) * sets


def _cost(plan, kind, model) -> parallel.Cost:
    """Of a batch of images through a student, forth, or forth and back."""
    pupil = plan.pupils[model]
    variables = jax.eval_shape(pupil.init, jax.random.key(0))
    shape = (plan.config.evaluate.attack_batch, *plan.outline.info.shape)

    def logits(variables, images):
        return pupil.apply(variables, images)[0]

    def gradient(variables, images):
        return jax.grad(lambda x: logits(variables, x).sum())(images)

    program = jax.jit({"input gradient": gradient, "logits": logits}[kind])
    found = parallel.cost(program, variables, shapes.floats(*shape))
    return found._replace(flops=found.flops / shape[0])  # of one image

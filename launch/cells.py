"""The students that a comparison asks for: what they learn from, and their training."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import checkpoint, metrics, models, parallel, recipes, student
from launch import (
    arms,
    comparison,
    ensembles,
    meter,
    profile,
    program,
    progress,
    rates,
    recover,
    relabel,
    runs,
    students,
    teachers,
)


class Cell(NamedTuple):
    """Students that differ in nothing but their seed, and train side by side."""

    distilled: recover.Distilled
    teacher: teachers.Teacher  # of the set
    labeller: ensembles.Labeller  # that teacher, or several
    labels: str  # that they are trained with
    recipe: student.Recipe
    network: models.Network
    sizes: relabel.Sizes
    seed: int  # of the distilled set
    students: list[int]
    stages: list[checkpoint.Stage]  # one record for each student
    weights: list[checkpoint.Stage]  # their variables, where they will be attacked

    @property
    def complete(self) -> bool:
        return all(stage.complete for stage in (*self.stages, *self.weights))

    @property
    def steps(self) -> int:
        """Of the training of one student."""
        return student.num_steps(self.recipe, len(self.distilled.images.labels))

    @property
    def labelled(self) -> tuple:
        """Whose labels they are, as `relabel` asks for them."""
        return self.labeller, self.distilled, self.recipe, self.seed, self.labels

    @property
    def kept(self) -> bool:
        """Whether the variables of all its students are on disk."""
        return bool(self.weights) and all(stage.complete for stage in self.weights)

    def variables(self) -> list:
        """Of its students, where they are kept."""
        shapes = jax.eval_shape(self.network.init, jax.random.key(0))
        return [checkpoint.unflatten(stage.load(), shapes) for stage in self.weights]

    def records(self) -> list[dict]:
        """What is known of each student."""
        return [{**stage.made_from, **stage.record()} for stage in self.stages]


def every(config, workdir, source: Callable, chosen: dict) -> list[Cell]:
    """All cells of a config; makes the sets that are missing.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      source: `sources.finder(config, workdir)`.
      chosen: learning rates of `rates.search`, in the place of the recipes'.
    """
    labellers = ensembles.finder(config, workdir, source)
    return [
        cell
        for entry in comparison.entries(config, workdir, source)
        for cell in _of_entry(config, workdir, source, labellers, entry, chosen)
    ]


def train(config, workdir, cells: list[Cell]) -> None:
    """Trains and scores the students that are missing; hosts share them."""
    missing = [cell for cell in cells if not cell.complete]
    for cell in missing:
        relabel.make(config, workdir, *cell.labelled)
    own = parallel.share(missing)
    with (
        parallel.alone(),
        progress.bar("students", sum(cell.steps for cell in own)) as bar,
    ):
        finish = functools.partial(_finish, config, workdir, bar)
        parallel.beside(finish, own, alone=profile.is_on())
    parallel.gather("students")


def _finish(config, workdir, bar, cell, begun) -> None:
    """Trains and scores the students of a cell, or what is left of that."""
    if cell.kept:  # the program was ended while it scored them
        _score(config, cell, cell.variables(), cell.weights[0].record())
        bar.update(cell.steps)
    else:
        _train(config, workdir, cell, bar, begun)


def _of_entry(config, workdir, source, labellers, entry, chosen) -> Iterator[Cell]:
    """The cells of one set: labels x recipe x model x group of students."""
    section, info = config.evaluate, entry.teacher.train.info
    count, about = len(entry.distilled.images.labels), entry.distilled.record
    for kind in itertools.product(section.labels, section.recipes, section.models):
        compared, name, model = kind
        labels, _ = ensembles.split(compared)
        recipe = students.recipe(config, name, model, count, info)
        whose = about["ipc"], entry.teacher
        labeller = labellers(compared, *whose, recipe.temperature)
        yield from _groups(config, workdir, entry, kind, (labels, labeller), chosen)
        if about["arm"] != arms.ours(config) or labels == "hard":
            continue
        equal = comparison.equal_bytes(
            config, workdir, source, entry, labels, recipe, labeller
        )
        if equal is not None:
            hard = "hard", ensembles.Labeller((equal.teacher,))
            yield from _groups(config, workdir, equal, kind, hard, chosen)


def _groups(config, workdir, entry, kind, trained_with, chosen) -> Iterator[Cell]:
    """The cells of one kind (labels, recipe, model).

    They are trained with other labels than that names where these are hard ones in its
    bytes: `trained_with` has them, and their labeller.
    """
    (compared, recipe_name, model), (labels, labeller) = kind, trained_with
    section, distilled, teacher = config.evaluate, entry.distilled, entry.teacher
    info, count = teacher.train.info, len(distilled.images.labels)
    recipe = students.recipe(config, recipe_name, model, count, info, entry.epochs)
    fields = {
        "version": 2,
        "arm": distilled.record["arm"],
        "ipc": distilled.record["ipc"],
        "labels": compared,
        "recipe": recipe_name,
        "model": model,
    }
    if chosen:
        rate = chosen[tuple(fields[f] for f in rates.KEY)]
        recipe = recipe._replace(learning_rate=rate)
    fields |= {
        "recipe_fields": recipes.fields(recipe),
        "model_fields": config.student.models[model].to_dict(),
        "set": entry.seed,
        "holdout": config.data.holdout,
        "searched": list(section.learning_rates) if chosen else [],
        "seed": config.seed,
        "images": distilled.hash,
        "teacher": teacher.hash,
    }
    if len(labeller.teachers) > 1:
        fields["labellers"] = labeller.identity
    name = f"{fields['arm']}-ipc{fields['ipc']}-{compared}-{recipe_name}-{model}"
    name = f"{name}-set{entry.seed}".replace("/", "-").replace(" ", "-")

    def stages(kind, group):
        return [
            checkpoint.Stage(
                workdir, kind, f"{name}-student{i}", {**fields, "student": i}
            )
            for i in group
        ]

    for group in parallel.groups(section.students):
        yield Cell(
            distilled,
            teacher,
            labeller,
            labels,
            recipe,
            students.network(config, model, info),
            relabel.sizes(labels, recipe, labeller, distilled),
            entry.seed,
            group,
            stages("evaluate", group),
            stages("students", group) if section.attacks else [],
        )


def _train(config, workdir, cell, bar, begun):
    """Trains the students of a cell and writes them, where asked for, and their scores."""
    soft = relabel.load(config, workdir, *cell.labelled)
    draw = program.key(config, "student", cell.seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(draw, i))(np.array(cell.students))
    images, stage = cell.distilled.images, (cell.weights or cell.stages)[0]
    like = jax.eval_shape(
        lambda: student.initial_state(
            keys, cell.network, cell.recipe, len(images.labels)
        )
    )
    done, state = stage.restore(like) or (0, None)
    bar.set_description(f"students: {stage.folder.name[:-13]}")
    bar.update(done)
    with (
        progress.Monitor(stage, bar, cell.steps, done, config.save_every_s) as monitor,
        meter.watch(beside=True) as cost,
    ):

        def observe(*seen):
            begun()  # a step was made: all is compiled
            monitor(*seen)

        trained = student.train(
            keys,
            cell.network,
            cell.recipe,
            images,
            program.key(config, "views", cell.seed),
            labels=cell.labels,
            soft=soft.soft,
            teacher_fn=soft.teacher_fn,
            state=state,
            done=done,
            observe=observe,
        )
        monitor.finish(trained)
    cost = cost.record()
    for field in ("seconds", "compile_seconds"):
        cost[field] /= len(cell.students)
    for place, variables in zip(cell.weights, trained):
        place.finish(checkpoint.flatten(variables), cost)
    _score(config, cell, trained, cost)


def _score(config, cell, trained, cost):
    """Writes what students are worth, and what each has cost."""
    test = cell.teacher.test
    for place, variables in zip(cell.stages, trained):
        identity = checkpoint.digest(*jax.tree.leaves(variables))
        if place.complete:  # trained again, for its variables
            if place.record()["students"] != identity:
                logging.warning(
                    "%s is another student than the one that was scored: the devices "
                    "round differently. Its clean accuracy under attack is its own.",
                    place.folder.name,
                )
            continue
        top1 = metrics.accuracy(cell.network.apply, variables, test.images, test.labels)
        record = {
            "top1": top1,
            "students": identity,
            "num_images": len(cell.distilled.images.labels),
            "image_bytes": cell.distilled.record["image_bytes"],
            **cell.sizes._asdict(),
            **cost,
            **runs.shared(config, cell.teacher),
        }
        place.finish({}, record)

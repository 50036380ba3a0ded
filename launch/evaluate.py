"""Trains students on distilled sets, ours and the baselines, and prints the table.

    python -m launch.evaluate
    python -m launch.evaluate --config.evaluate.students=3

Every arm has the same ipc, recipes, networks, labels, and number of sets and students;
the score is that of the last epoch. Makes <workdir>/evaluate/, one record for each
student, and <workdir>/report/, the table and the pictures.
"""

import importlib.metadata
import itertools
import time
from typing import NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, metrics, models, parallel, recipes, student
from ddjax.types import DistilledSet
from launch import (
    arms,
    program,
    progress,
    recover,
    relabel,
    report,
    squeeze,
    stats,
    students,
)

WHOLE = "whole data"


class Cell(NamedTuple):
    """Students that differ in nothing but their seed, and train side by side."""

    distilled: recover.Distilled
    labels: str
    recipe: student.Recipe
    network: models.Network
    sizes: relabel.Sizes
    seed: int  # of the distilled set
    students: list[int]
    stages: list[checkpoint.Stage]  # one record for each student


def run(config, workdir) -> list[dict]:
    """The records of all students; trains those that are missing."""
    arms.check(config)
    teacher = squeeze.run(config, workdir)
    cells = [
        cell
        for distilled, seed, epochs in _sets(config, workdir, teacher)
        for cell in _cells(config, workdir, teacher, distilled, seed, epochs)
    ]
    missing = [c for c in cells if not all(stage.complete for stage in c.stages)]
    for cell in missing:
        _labels(config, workdir, teacher, cell)
    total = sum(_steps(cell) for cell in missing)
    with progress.bar("students", total) as bar:
        for cell in missing:
            _train(config, workdir, teacher, cell, bar)
    records = [
        {**stage.made_from, **stage.record()} for cell in cells for stage in cell.stages
    ]
    report.write(config, workdir, records)
    return records


def _sets(config, workdir, teacher):
    """(distilled set, its seed, epochs of its students or None) of every arm."""
    section, recipe = config.evaluate, config.recover
    seen = stats.collect(config, workdir, teacher)
    compared = dict.fromkeys((*section.against, arms.ours(config)))
    for ipc, arm, seed in itertools.product(recipe.ipc, compared, range(recipe.sets)):
        distilled = recover.make(config, workdir, teacher, seen, arm, ipc, seed)
        yield distilled, seed, None
    if section.whole_epochs:
        whole = _whole(teacher)
        for seed in range(recipe.sets):
            yield whole, seed, section.whole_epochs


def _cells(config, workdir, teacher, distilled, seed, epochs):
    """The cells of one distilled set: labels x recipe x model x group of students."""
    section, info = config.evaluate, teacher.train.info
    count = len(distilled.images.labels)
    for labels, recipe_name, model in itertools.product(
        section.labels, section.recipes, section.models
    ):
        recipe = students.recipe(config, recipe_name, model, count, info, epochs)
        fields = {
            "version": 2,
            "arm": distilled.record["arm"],
            "ipc": distilled.record["ipc"],
            "labels": labels,
            "recipe": recipe_name,
            "recipe_fields": recipes.fields(recipe),
            "model": model,
            "model_fields": config.student.models[model].to_dict(),
            "set": seed,
            "holdout": config.data.holdout,
            "seed": config.seed,
            "images": distilled.hash,
            "teacher": teacher.hash,
        }
        name = f"{fields['arm']}-ipc{fields['ipc']}-{labels}-{recipe_name}-{model}"
        name = f"{name}-set{seed}".replace("/", "-").replace(" ", "-")
        for group in parallel.groups(section.students):
            yield Cell(
                distilled,
                labels,
                recipe,
                students.network(config, model, info),
                relabel.sizes(labels, recipe, teacher, distilled),
                seed,
                group,
                [_stage(workdir, name, fields, i) for i in group],
            )


def _stage(workdir, name, fields, index) -> checkpoint.Stage:
    """Where the record of one student is kept."""
    name, fields = f"{name}-student{index}", {**fields, "student": index}
    return checkpoint.Stage(workdir, "evaluate", name, fields)


def _steps(cell) -> int:
    return student.num_steps(cell.recipe, len(cell.distilled.images.labels))


def _labels(config, workdir, teacher, cell) -> relabel.Labels:
    return relabel.make(
        config, workdir, teacher, cell.distilled, cell.recipe, cell.seed, cell.labels
    )


def _train(config, workdir, teacher, cell, bar):
    """Trains the students of a cell and writes their records."""
    distilled, network, stage = cell.distilled, cell.network, cell.stages[0]
    soft = _labels(config, workdir, teacher, cell)
    draw = program.key(config, "student", cell.seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(draw, i))(np.array(cell.students))
    count = len(distilled.images.labels)
    like = jax.eval_shape(
        lambda: student.initial_state(keys, network, cell.recipe, count)
    )
    done, state = stage.restore(like) or (0, None)
    bar.set_description(f"students: {stage.folder.name[:-13]}")
    bar.update(done)
    began = time.monotonic()
    monitor = progress.Monitor(stage, bar, _steps(cell), done, config.save_every_s)
    trained = student.train(
        keys,
        network,
        cell.recipe,
        distilled.images,
        program.key(config, "views", cell.seed),
        labels=cell.labels,
        soft=soft.soft,
        teacher_fn=soft.teacher_fn,
        state=state,
        done=done,
        observe=monitor,
    )
    monitor.finish(trained)
    seconds = (time.monotonic() - began) / len(cell.students)
    test = teacher.test
    for place, variables in zip(cell.stages, trained):
        top1 = metrics.accuracy(network.apply, variables, test.images, test.labels)
        record = {
            "top1": top1,
            "num_images": count,
            "image_bytes": distilled.record["image_bytes"],
            **cell.sizes._asdict(),
            "seconds": seconds,
            "versions": versions(),
        }
        place.finish({}, record)


def _whole(teacher) -> recover.Distilled:
    """All training images, as if they had been distilled: the bound."""
    train = teacher.train
    weights = np.ones(len(train.labels), np.float32)
    record = {"arm": WHOLE, "ipc": 0, "image_bytes": int(train.images.nbytes)}
    identity = checkpoint.fingerprint(train.info.name, teacher.hash)
    return recover.Distilled(
        DistilledSet(train.images, train.labels, weights), identity, record
    )


def versions() -> dict:
    """What the numbers depend on besides the config."""
    names = ("jax", "flax", "optax", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {**found, "device": jax.devices()[0].device_kind}


if __name__ == "__main__":
    program.main(run)

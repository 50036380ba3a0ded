"""Trains students on distilled sets, ours and the baselines, and prints the table.

    python -m launch.evaluate
    python -m launch.evaluate --config.evaluate.students=3

Every arm has the same ipc, recipe, labels, and number of sets and students; the score
is that of the last epoch. Makes <workdir>/evaluate/, one record for each student, and
<workdir>/report/, the table and the pictures.
"""

import importlib.metadata
import itertools
import time
from typing import NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, metrics, parallel, student
from ddjax.types import DistilledSet
from launch import (
    arms,
    inputs,
    program,
    progress,
    recover,
    relabel,
    report,
    squeeze,
    stats,
)

WHOLE = "whole data"


class Cell(NamedTuple):
    """Students that differ in nothing but their seed, and train side by side."""

    distilled: recover.Distilled
    labels: str
    label_bytes: int
    recipe: student.Recipe
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
    """(distilled set, its seed, epochs of its students) of every arm."""
    section, recipe = config.evaluate, config.recover
    seen = stats.collect(config, workdir, teacher)
    compared = dict.fromkeys((*section.against, arms.ours(config)))
    for ipc, arm, seed in itertools.product(recipe.ipc, compared, range(recipe.sets)):
        distilled = recover.make(config, workdir, teacher, seen, arm, ipc, seed)
        yield distilled, seed, config.student.epochs
    if section.whole_epochs:
        whole = _whole(teacher)
        for seed in range(recipe.sets):
            yield whole, seed, section.whole_epochs


def _cells(config, workdir, teacher, distilled, seed, epochs):
    """The cells of one distilled set; makes its soft labels."""
    recipe = relabel.recipe(config, epochs)
    for labels in config.evaluate.labels:
        needed = len(distilled.images.labels)  # a byte for a hard label
        if labels == "soft":
            needed += relabel.make(
                config, workdir, teacher, distilled, recipe, seed
            ).bytes
        fields = {
            "version": 1,
            "arm": distilled.record["arm"],
            "ipc": distilled.record["ipc"],
            "labels": labels,
            "set": seed,
            "recipe": {**recipe._asdict(), "views": recipe.views._asdict()},
            "model": config.student.model.to_dict(),
            "holdout": config.data.holdout,
            "stored": config.relabel.store,
            "seed": config.seed,
            "images": distilled.hash,
            "teacher": teacher.hash,
        }
        name = f"{fields['arm']}-ipc{fields['ipc']}-{labels}-set{seed}"
        name = name.replace("/", "-").replace(" ", "-")
        for group in parallel.groups(config.evaluate.students):
            stages = [
                checkpoint.Stage(
                    workdir, "evaluate", f"{name}-student{i}", {**fields, "student": i}
                )
                for i in group
            ]
            yield Cell(distilled, labels, needed, recipe, seed, group, stages)


def _steps(cell) -> int:
    return student.num_steps(cell.recipe, len(cell.distilled.images.labels))


def _train(config, workdir, teacher, cell, bar):
    """Trains the students of a cell and writes their records."""
    network = inputs.build_network(config.student.model, teacher.train.info)
    distilled, stage = cell.distilled, cell.stages[0]
    soft = relabel.Labels((), None, 0)
    if cell.labels == "soft":
        soft = relabel.make(config, workdir, teacher, distilled, cell.recipe, cell.seed)
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
            "image_bytes": distilled.record["image_bytes"],
            "label_bytes": cell.label_bytes,
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

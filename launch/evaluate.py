"""Trains students on distilled sets, ours and others, and says what the sets are worth.

    python -m launch.evaluate
    python -m launch.evaluate --config.evaluate.students=3
    python -m launch.evaluate --config.evaluate.sets=path/of/an/imported/set

Every arm has the same ipc, recipes, networks, labels, and number of sets and students.
The score is that of the last epoch, and nothing is chosen by the test images: learning
rates, where searched, are chosen on training images held out. Makes
<workdir>/evaluate/, one record for each student, and <workdir>/report/.
"""

import itertools
from typing import NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, metrics, models, parallel, recipes, student
from launch import (
    arms,
    comparison,
    meter,
    program,
    progress,
    quality,
    rates,
    recover,
    relabel,
    report,
    runs,
    squeeze,
    stats,
    students,
)


class Cell(NamedTuple):
    """Students that differ in nothing but their seed, and train side by side."""

    distilled: recover.Distilled
    labels: str  # that they are trained with
    recipe: student.Recipe
    network: models.Network
    sizes: relabel.Sizes
    seed: int  # of the distilled set
    students: list[int]
    stages: list[checkpoint.Stage]  # one record for each student


def run(config, workdir) -> list[dict]:
    """The records of all students; trains those that are missing."""
    arms.check(config)
    comparison.check(config)
    chosen = rates.search(config, workdir, train)
    records = train(config, workdir, chosen)
    teacher = squeeze.run(config, workdir)
    sets = _measured(config, workdir, teacher) if config.evaluate.quality else []
    if parallel.is_primary():
        report.write(workdir, runs.assemble(config, workdir, teacher, records, sets))
    return records


def train(config, workdir, chosen=None) -> list[dict]:
    """The records of all students.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      chosen: learning rates of `rates.search`, in the place of the recipes'.
    """
    teacher = squeeze.run(config, workdir)
    seen = stats.collect(config, workdir, teacher)
    cells = [
        cell
        for entry in comparison.entries(config, workdir, teacher, seen)
        for cell in _cells(config, workdir, teacher, seen, entry, chosen or {})
    ]
    missing = [i for i, c in enumerate(cells) if not all(s.complete for s in c.stages)]
    for i in missing:
        cell = cells[i]
        relabel.make(config, workdir, teacher, *_labelled(cell))
    own = [cells[i] for i in parallel.share(missing)]
    with (
        parallel.alone(),
        progress.bar("students", sum(_steps(cell) for cell in own)) as bar,
    ):
        for cell in own:
            _train(config, workdir, teacher, cell, bar)
    parallel.gather("students")
    return [
        {**stage.made_from, **stage.record()} for cell in cells for stage in cell.stages
    ]


def _cells(config, workdir, teacher, seen, entry, chosen):
    """The cells of one set: labels x recipe x model x group of students."""
    section, info = config.evaluate, teacher.train.info
    for labels, name, model in itertools.product(
        section.labels, section.recipes, section.models
    ):
        kind = labels, name, model
        yield from _groups(config, workdir, teacher, entry, kind, labels, chosen)
        if entry.distilled.record["arm"] != arms.ours(config) or labels == "hard":
            continue
        count = len(entry.distilled.images.labels)
        recipe = students.recipe(config, name, model, count, info)
        equal = comparison.equal_bytes(
            config, workdir, teacher, seen, entry, labels, recipe
        )
        if equal is not None:
            yield from _groups(config, workdir, teacher, equal, kind, "hard", chosen)


def _groups(config, workdir, teacher, entry, kind, labels, chosen):
    """The cells of one kind (labels, recipe, model); trained with `labels`."""
    compared, recipe_name, model = kind
    section, info, distilled = config.evaluate, teacher.train.info, entry.distilled
    count = len(distilled.images.labels)
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
    name = f"{fields['arm']}-ipc{fields['ipc']}-{compared}-{recipe_name}-{model}"
    name = f"{name}-set{entry.seed}".replace("/", "-").replace(" ", "-")
    for group in parallel.groups(section.students):
        yield Cell(
            distilled,
            labels,
            recipe,
            students.network(config, model, info),
            relabel.sizes(labels, recipe, teacher, distilled),
            entry.seed,
            group,
            [_stage(workdir, name, fields, i) for i in group],
        )


def _stage(workdir, name, fields, index) -> checkpoint.Stage:
    """Where the record of one student is kept."""
    name, fields = f"{name}-student{index}", {**fields, "student": index}
    return checkpoint.Stage(workdir, "evaluate", name, fields)


def _steps(cell) -> int:
    return student.num_steps(cell.recipe, len(cell.distilled.images.labels))


def _labelled(cell) -> tuple:
    """Whose labels they are, as `relabel` asks for them."""
    return cell.distilled, cell.recipe, cell.seed, cell.labels


def _train(config, workdir, teacher, cell, bar):
    """Trains the students of a cell and writes their records."""
    distilled, network, stage = cell.distilled, cell.network, cell.stages[0]
    soft = relabel.load(config, workdir, teacher, *_labelled(cell))
    draw = program.key(config, "student", cell.seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(draw, i))(np.array(cell.students))
    count = len(distilled.images.labels)
    like = jax.eval_shape(
        lambda: student.initial_state(keys, network, cell.recipe, count)
    )
    done, state = stage.restore(like) or (0, None)
    bar.set_description(f"students: {stage.folder.name[:-13]}")
    bar.update(done)
    save_every_s, total = config.save_every_s, _steps(cell)
    with (
        progress.Monitor(stage, bar, total, done, save_every_s) as monitor,
        meter.watch() as cost,
    ):
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
    cost = cost.record()
    for field in ("seconds", "compile_seconds"):
        cost[field] /= len(cell.students)
    test = teacher.test
    for place, variables in zip(cell.stages, trained):
        top1 = metrics.accuracy(network.apply, variables, test.images, test.labels)
        record = {
            "top1": top1,
            "students": checkpoint.digest(*jax.tree.leaves(variables)),
            "num_images": count,
            "image_bytes": distilled.record["image_bytes"],
            **cell.sizes._asdict(),
            **cost,
            **runs.shared(config, teacher),
        }
        place.finish({}, record)


def _measured(config, workdir, teacher) -> list[dict]:
    """What the images of every set are like, by the stage `quality`."""
    seen = stats.collect(config, workdir, teacher)
    entries = comparison.entries(config, workdir, teacher, seen)
    sets = {
        entry.distilled.hash: entry.distilled
        for entry in entries
        if entry.distilled.record["arm"] != comparison.WHOLE
    }
    quality.real(config, workdir, teacher, seen)
    own = parallel.share(sets.values())
    with parallel.alone(), progress.bar("quality", len(own), unit="set") as bar:
        for distilled in own:
            quality.measure(config, workdir, teacher, seen, distilled)
            bar.update()
    parallel.gather("quality")
    return [quality.record(workdir, teacher, seen, x) for x in sets.values()]


if __name__ == "__main__":
    program.main(run)

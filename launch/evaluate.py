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

import jax
import numpy as np

from ddjax import checkpoint, metrics, parallel, student
from ddjax.types import DistilledSet
from launch import program, progress, recover, relabel, report, squeeze

WHOLE = "whole data"


def run(config, workdir) -> list[dict]:
    """The records of all students; trains those that are missing."""
    recover.check(config)
    section = config.evaluate
    ours = f"{config.recover.method}/{config.recover.start}"
    arms = (*section.against, *(() if ours in section.against else (ours,)))
    cells = list(
        itertools.product(config.recover.ipc, arms, range(config.recover.sets))
    )
    records = []
    for ipc, arm, seed in cells:
        distilled = recover.make(config, workdir, arm, ipc, seed)
        records += _score(config, workdir, distilled, seed)
    if section.whole_epochs:
        whole = _whole(config, workdir)
        for seed in range(config.recover.sets):
            records += _score(config, workdir, whole, seed, section.whole_epochs)
    report.write(config, workdir, records)
    return records


def _score(config, workdir, distilled: recover.Distilled, seed, epochs=0) -> list[dict]:
    """Students of one distilled set, under each kind of labels."""
    teacher = squeeze.run(config, workdir)
    network = squeeze.build_network(config.student.model, teacher.train.info)
    recipe = relabel.recipe(config, epochs)
    records = []
    for labels in config.evaluate.labels:
        soft = relabel.Labels((), None, _views_key(config, distilled), 0)
        if labels == "soft":
            soft = relabel.make(config, workdir, distilled, recipe)
        fields = {
            "arm": distilled.record["arm"],
            "ipc": distilled.record["ipc"],
            "labels": labels,
            "set": seed,
            "recipe": _plain(recipe),
            "model": config.student.model.to_dict(),
            "holdout": config.data.holdout,
            "stored": config.relabel.store,
            "image_bytes": distilled.record["image_bytes"],
            "label_bytes": soft.bytes + len(distilled.images.labels),
            "seed": config.seed,
            "images": distilled.hash,
            "teacher": teacher.hash,
        }
        for group in parallel.groups(config.evaluate.students):
            stages = [_stage(workdir, {**fields, "student": i}) for i in group]
            if not all(stage.complete for stage in stages):
                _train(config, stages, group, teacher, network, recipe, distilled, soft)
            records += [{**stage.made_from, **stage.record()} for stage in stages]
    return records


def _train(config, stages, group, teacher, network, recipe, distilled, soft):
    """Trains one group of students and writes their records."""
    fields, stage = stages[0].made_from, stages[0]
    total = student.num_steps(recipe, len(distilled.images.labels))
    draw = jax.random.fold_in(jax.random.key(config.seed), fields["set"])
    keys = jax.vmap(lambda i: jax.random.fold_in(draw, i))(np.array(group))
    like = jax.eval_shape(
        lambda: student.initial_state(keys, network, recipe, len(distilled.images[1]))
    )
    done, state = stage.restore(like) or (0, None)
    title = " ".join(str(fields[k]) for k in ("arm", "ipc", "labels", "set", "student"))
    began = time.monotonic()
    with progress.bar(title, total, done) as bar:
        monitor = progress.Monitor(stage, bar, config.save_every_s)
        monitor.resume(done)
        trained = student.train(
            keys,
            network,
            recipe,
            distilled.images,
            soft.key,
            labels=fields["labels"],
            soft=soft.soft,
            teacher_fn=soft.teacher_fn,
            state=state,
            done=done,
            observe=monitor,
        )
        monitor.look()
    seconds = (time.monotonic() - began) / len(group)
    for place, variables in zip(stages, trained):
        test = teacher.test
        top1 = metrics.accuracy(network.apply, variables, test.images, test.labels)
        place.finish({}, {"top1": top1, "seconds": seconds, "versions": versions()})


def _stage(workdir, fields) -> checkpoint.Stage:
    name = "-".join(
        str(fields[k]).replace("/", "-").replace(" ", "-")
        for k in ("arm", "ipc", "labels", "set", "student")
    )
    return checkpoint.Stage(workdir, "evaluate", name, {"version": 1, **fields})


def _whole(config, workdir) -> recover.Distilled:
    """All training images, as if they had been distilled: the bound."""
    teacher = squeeze.run(config, workdir)
    train = teacher.train
    weights = np.ones(len(train.labels), np.float32)
    record = {"arm": WHOLE, "ipc": 0, "image_bytes": int(train.images.nbytes)}
    identity = checkpoint.fingerprint(train.info.name, teacher.hash)
    return recover.Distilled(
        DistilledSet(train.images, train.labels, weights), identity, record
    )


def _views_key(config, distilled):
    return jax.random.fold_in(jax.random.key(config.seed), int(distilled.hash[:7], 16))


def _plain(recipe) -> dict:
    return {**recipe._asdict(), "views": recipe.views._asdict()}


def versions() -> dict:
    """What the numbers depend on besides the config."""
    names = ("jax", "flax", "optax", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {**found, "device": jax.devices()[0].device_kind}


if __name__ == "__main__":
    program.main(run)

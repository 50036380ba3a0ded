"""What the labels of every set are like: how sure, and how right their teachers.

Makes <workdir>/labels/<set>-<hash>/, where a config compares labels of several teachers
with those of one: each set's labels on its images as they are, without any view.
"""

import numpy as np

from ddjax import checkpoint, ensemble, parallel, relabel
from launch import comparison, ensembles, progress


def measure(config, workdir, cells) -> list[dict]:
    """The labels' entropy and the teachers' accuracy, of every set and labeller.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      cells: of all students.

    Returns:
      Rows with "arm", "ipc", "set", "teachers", "entropy" (nats, at temperature 1),
      "accuracy" (mean over the teachers, of the classes of the images) and "agreed",
      that of the labels themselves; empty where no labels are of several teachers.
    """
    if not ensembles.asked(config):
        return []
    found = {}
    for cell in cells:
        if cell.labels != "hard" and cell.distilled.record["arm"] != comparison.WHOLE:
            about = (cell.distilled.hash, cell.seed, len(cell.labeller.teachers))
            found.setdefault(about, cell)
    stages = [(_stage(workdir, cell), cell) for cell in found.values()]
    own = parallel.share(stages)
    with parallel.alone(), progress.bar("labels", len(own), unit="set") as bar:
        for stage, cell in own:
            if not stage.complete:
                stage.finish({}, _measured(cell))
            bar.update()
    parallel.gather("labels")
    return [{**stage.record(), **_place(cell)} for stage, cell in stages]


def _place(cell) -> dict:
    about = cell.distilled.record
    return {"arm": about["arm"], "ipc": about["ipc"], "set": cell.seed}


def _stage(workdir, cell) -> checkpoint.Stage:
    made_from = {"version": 1, "images": cell.distilled.hash}
    made_from |= cell.labeller.identity
    place = _place(cell)
    name = f"{place['arm']}-ipc{place['ipc']}-{len(cell.labeller.teachers)}-teachers"
    name = name.replace("/", "-").replace(" ", "-")
    return checkpoint.Stage(workdir, "labels", name, made_from)


def _measured(cell) -> dict:
    who, images = cell.labeller, cell.distilled.images
    classes = np.asarray(images.labels)
    logits = np.stack(
        [
            relabel.plain_labels(
                teacher.network.apply, teacher.variables, images.images
            )
            for teacher in who.teachers
        ]
    )
    labels = logits[0]
    if len(logits) > 1:
        about = who.average, who.temperature, who.standardise
        labels = ensemble.combine(logits, *about)
    return {
        "teachers": len(logits),
        "entropy": float(ensemble.entropy(labels)),
        "accuracy": float(np.mean(logits.argmax(-1) == classes)),
        "agreed": float(np.mean(np.argmax(labels, -1) == classes)),
    }

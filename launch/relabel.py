"""Makes the teacher's soft labels for a distilled set.

    python -m launch.relabel --config=configs/default.py

Makes <workdir>/relabel/<set>-<hash>/ for every distilled set of the config and every
kind of labels that is stored: "single" and "stored", see configs/default.py.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, parallel, relabel, student
from launch import (
    arms,
    meter,
    program,
    progress,
    recover,
    shares,
    sources,
    students,
)

_BLOCK = 1000  # steps kept together while the labels are made
_HALF, _FLOAT = 2, 4  # bytes of a float16 and of a float32


class Labels(NamedTuple):
    """Soft labels as a student's loop takes them."""

    soft: Any  # (), logits [N, C] or [steps, B, C] float16, or the teacher's variables
    teacher_fn: Any  # None, or the teacher's apply


class Sizes(NamedTuple):
    """Bytes that a student's training needs besides the images."""

    label_bytes: int
    other_bytes: int  # the teacher's parameters, the images' weights


def run(config, workdir) -> None:
    """The soft labels of every distilled set of the config."""
    arms.check(config)
    source, model = sources.finder(config, workdir), config.evaluate.models[0]
    for distilled in recover.run(config, workdir):
        count, seed = len(distilled.images.labels), distilled.record["seed"]
        teacher, _ = source(arms.ours(config), distilled.record["ipc"])
        info = teacher.train.info
        for name in config.evaluate.recipes:
            recipe = students.recipe(config, name, model, count, info)
            for labels in config.evaluate.labels:
                make(config, workdir, teacher, distilled, recipe, seed, labels)


def make(config, workdir, teacher, distilled, recipe, seed: int, labels: str) -> None:
    """Makes the labels of one distilled set, if they are stored and not there yet."""
    if labels in ("hard", "online"):
        return
    stage = _stage(config, workdir, teacher, distilled, recipe, seed, labels)
    if stage.complete:
        return
    name = stage.folder.name[:-13]
    with meter.watch(f"relabel {name}") as cost:
        if labels == "single":
            logits = relabel.plain_labels(
                teacher.network.apply, teacher.variables, distilled.images.images
            )
        else:
            # Students of all arms see the same crops and boxes.
            key = program.key(config, "views", seed)
            logits = _of_views(stage, name, teacher, distilled, recipe.views, key)
    stage.finish({"logits": logits}, cost.record())


def load(config, workdir, teacher, distilled, recipe, seed: int, labels: str) -> Labels:
    """The labels that `make` has made, or what stands for them."""
    if labels == "hard":
        return Labels((), None)
    if labels == "online":
        return Labels(teacher.variables, teacher.network.apply)
    stage = _stage(config, workdir, teacher, distilled, recipe, seed, labels)
    return Labels(stage.load()["logits"], None)


def _stage(config, workdir, teacher, distilled, recipe, seed, labels):
    made_from = {
        "version": 2,
        "labels": labels,
        "images": distilled.hash,
        "teacher": teacher.hash,
    }
    if labels == "stored":
        made_from |= {
            "views": recipe.views._asdict(),
            "steps": student.num_steps(recipe, len(distilled.images.labels)),
            "seed": (config.seed, seed),
        }
    name = f"{distilled.record['arm']}-ipc{distilled.record['ipc']}-{labels}"
    name = name.replace("/", "-").replace(" ", "-")
    return checkpoint.Stage(workdir, "relabel", name, made_from)


def _of_views(stage, name, teacher, distilled, views, key) -> np.ndarray:
    """Logits of every step, kept block by block; each host makes its own blocks."""
    total = stage.made_from["steps"]
    blocks = [range(i, min(i + _BLOCK, total)) for i in range(0, total, _BLOCK)]
    own = sum(map(len, parallel.share(blocks)))
    with progress.bar(f"relabel {name}", own) as bar:
        before = 0

        def part(i):
            logits = relabel.soft_labels(
                teacher.network.apply,
                teacher.variables,
                views,
                key,
                distilled.images.images,
                blocks[i],
                observe=lambda done: bar.update(
                    before + done - blocks[i].start - bar.n
                ),
            )
            return {"logits": logits}

        def observe():
            nonlocal before
            before = min(before + _BLOCK, own)
            bar.update(before - bar.n)

        names = [f"steps{block.start}" for block in blocks]
        parts = shares.make(stage, names, part, observe)
    return np.concatenate([p["logits"] for p in parts]) if parts else np.zeros(0)


def sizes(labels: str, recipe, teacher, distilled) -> Sizes:
    """What the labels take, and what else a student's training needs."""
    images = distilled.images
    count, classes = len(images.labels), teacher.train.info.num_classes
    stored = len(distilled.stored)  # the parts of a mosaic share its label and weight
    label_bytes = soft_bytes(labels, recipe, count, classes)
    if labels == "hard" or recipe.loss == "mse_ce":  # which reads the class too
        label_bytes += stored * (1 if classes <= 256 else 2)
    equal = np.ptp(np.asarray(images.weights)) == 0
    other_bytes = 0 if equal else _FLOAT * stored
    if labels == "online":
        variables = jax.tree.leaves(teacher.variables)
        other_bytes += sum(np.asarray(x).nbytes for x in variables)
    return Sizes(label_bytes, other_bytes)


def soft_bytes(labels: str, recipe, num_images: int, num_classes: int) -> int:
    """Bytes of the stored logits of one set."""
    batch = min(recipe.views.batch_size, num_images)
    rows = {
        "single": num_images,
        "stored": student.num_steps(recipe, num_images) * batch,
    }
    return _HALF * rows.get(labels, 0) * num_classes


if __name__ == "__main__":
    program.main(run)

"""Makes the teacher's soft labels for a distilled set.

    python -m launch.relabel --config=configs/default.py

Makes <workdir>/relabel/<set>-<hash>/ for every distilled set of the config and every
kind of labels that is stored: "single" and "stored", of one teacher or ("+lia") of
several, see configs/default.py and launch/ensembles.py.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, parallel, relabel, student
from launch import (
    arms,
    ensembles,
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

    soft: Any  # (), logits [N, C] or [steps, B, C] float16, or the labeller's variables
    teacher_fn: Any  # None, or the labeller's apply


class Sizes(NamedTuple):
    """Bytes that a student's training needs besides the images."""

    label_bytes: int
    other_bytes: int  # the labeller's parameters, the images' weights


def run(config, workdir) -> None:
    """The soft labels of every distilled set of the config."""
    arms.check(config)
    source, model = sources.finder(config, workdir), config.evaluate.models[0]
    labellers = ensembles.finder(config, workdir, source)
    for distilled in recover.run(config, workdir):
        count, seed = len(distilled.images.labels), distilled.record["seed"]
        ipc = distilled.record["ipc"]
        teacher, _ = source(arms.ours(config), ipc)
        info = teacher.train.info
        for name in config.evaluate.recipes:
            recipe = students.recipe(config, name, model, count, info)
            for labels in config.evaluate.labels:
                who = labellers(labels, ipc, teacher, recipe.temperature)
                kind, _ = ensembles.split(labels)
                make(config, workdir, who, distilled, recipe, seed, kind)


def make(config, workdir, labeller, distilled, recipe, seed: int, labels: str) -> None:
    """Makes the labels of one distilled set, if they are stored and not there yet."""
    if labels in ("hard", "online"):
        return
    stage = _stage(config, workdir, labeller, distilled, recipe, seed, labels)
    if stage.complete:
        return
    name = stage.folder.name[:-13]
    with meter.watch(f"relabel {name}") as cost:
        if labels == "single":
            logits = relabel.plain_labels(
                labeller.apply, labeller.variables, distilled.images.images
            )
        else:
            # Students of all arms see the same crops and boxes.
            key = program.key(config, "views", seed)
            logits = _of_views(stage, name, labeller, distilled, recipe.views, key)
    stage.finish({"logits": logits}, cost.record())


def load(
    config, workdir, labeller, distilled, recipe, seed: int, labels: str
) -> Labels:
    """The labels that `make` has made, or what stands for them."""
    if labels == "hard":
        return Labels((), None)
    if labels == "online":
        return Labels(labeller.variables, labeller.apply)
    stage = _stage(config, workdir, labeller, distilled, recipe, seed, labels)
    return Labels(stage.load()["logits"], None)


def _stage(config, workdir, labeller, distilled, recipe, seed, labels):
    made_from = {
        "version": 2,
        "labels": labels,
        "images": distilled.hash,
        **labeller.identity,
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


def _of_views(stage, name, labeller, distilled, views, key) -> np.ndarray:
    """Logits of every step, kept block by block; each host makes its own blocks."""
    total = stage.made_from["steps"]
    blocks = [range(i, min(i + _BLOCK, total)) for i in range(0, total, _BLOCK)]
    own = sum(map(len, parallel.share(blocks)))
    with progress.bar(f"relabel {name}", own) as bar:
        before = 0

        def part(i):
            logits = relabel.soft_labels(
                labeller.apply,
                labeller.variables,
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


def sizes(labels: str, recipe, labeller, distilled) -> Sizes:
    """What the labels take, and what else a student's training needs."""
    images, info = distilled.images, labeller.teachers[0].train.info
    count, classes = len(images.labels), info.num_classes
    stored = len(distilled.stored)  # the parts of a mosaic share its label and weight
    label_bytes = soft_bytes(labels, recipe, count, classes)
    if labels == "hard" or recipe.loss == "mse_ce":  # which reads the class too
        label_bytes += stored * (1 if classes <= 256 else 2)
    equal = np.ptp(np.asarray(images.weights)) == 0
    other_bytes = 0 if equal else _FLOAT * stored
    if labels == "online":
        variables = jax.tree.leaves(labeller.variables)
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

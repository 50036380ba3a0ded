"""Makes the teacher's soft labels for a distilled set.

    python -m launch.relabel --config=configs/default.py

Makes <workdir>/relabel/<set>-<hash>/ for every distilled set of the config, if
`relabel.store` is on; else there is nothing to store, and students ask the teacher.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, relabel, student
from launch import arms, meter, program, progress, recover, squeeze

_BLOCK = 1000  # steps kept together while the labels are made


class Labels(NamedTuple):
    """Soft labels as a student's loop takes them."""

    soft: Any  # logits [steps, B, C] float16, or the teacher's variables
    teacher_fn: Any  # None, or the teacher's apply
    bytes: int  # of what training needs besides images and hard labels


def run(config, workdir) -> None:
    """The soft labels of every distilled set of the config."""
    arms.check(config)
    teacher = squeeze.run(config, workdir)
    for distilled in recover.run(config, workdir):
        students = recipe(config, config.student.epochs)
        make(config, workdir, teacher, distilled, students, distilled.record["seed"])


def recipe(config, epochs: int) -> student.Recipe:
    """The students' recipe, of which the views are the labels' too."""
    views = config.relabel.to_dict()
    views = {k: views[k] for k in relabel.Views._fields}
    views["crop_scale"] = tuple(views["crop_scale"])
    section = config.student
    return student.Recipe(
        relabel.Views(**views),
        epochs,
        section.learning_rate,
        section.weight_decay,
        section.temperature,
    )


def make(config, workdir, teacher, distilled, recipe, seed: int) -> Labels:
    """The labels of one distilled set; loaded, made, or left to the teacher."""
    # Students of all arms see the same crops and boxes.
    key = program.key(config, "views", seed)
    if not config.relabel.store:
        size = sum(np.asarray(x).nbytes for x in jax.tree.leaves(teacher.variables))
        return Labels(teacher.variables, teacher.network.apply, size)
    images = distilled.images.images
    total = student.num_steps(recipe, len(images))
    made_from = {
        "version": 1,
        "views": recipe.views._asdict(),
        "steps": total,
        "seed": (config.seed, seed),
        "images": distilled.hash,
        "teacher": teacher.hash,
    }
    name = f"{distilled.record['arm'].replace('/', '-')}-ipc{distilled.record['ipc']}"
    stage = checkpoint.Stage(workdir, "relabel", name, made_from)
    if not stage.complete:
        title, parts = f"relabel {name}", []
        with meter.watch(title) as cost, progress.bar(title, total) as bar:
            for first in range(0, total, _BLOCK):
                steps = range(first, min(first + _BLOCK, total))
                part = stage.load_part(f"steps{first}")
                if part is None:
                    logits = relabel.soft_labels(
                        teacher.network.apply,
                        teacher.variables,
                        recipe.views,
                        key,
                        images,
                        steps,
                        observe=lambda done: bar.update(done - bar.n),
                    )
                    part = {"logits": logits}
                    stage.save_part(f"steps{first}", part)
                bar.update(steps.stop - bar.n)
                parts.append(part["logits"])
        stage.finish({"logits": np.concatenate(parts)}, cost.record())
    logits = stage.load()["logits"]
    return Labels(logits, None, logits.nbytes)


if __name__ == "__main__":
    program.main(run)

"""How flat the teachers' loss is: what their penalties did, in numbers and pictures.

Makes <workdir>/landscape/<teacher>-<hash>/: slope and curvature of the loss at test
images, and the loss on a plane through each.
"""

import jax
import numpy as np
from absl import logging

from ddjax import checkpoint, landscape, parallel
from launch import arms, meter, robustness, titles, variants

_IMAGES = 50  # each takes a score of images of memory


def measure(config, workdir, source) -> list[dict]:
    """A row for each teacher of the arms, as `report` reads them.

    One that has diverged is left out: there is nothing to see.

    Args:
      config: of the experiment; [] where nothing is attacked.
      workdir: where artifacts are.
      source: `sources.finder(config, workdir)`.
    """
    if not config.evaluate.attacks:
        return []
    rows = {}
    for arm in dict.fromkeys((*config.evaluate.against, arms.ours(config))):
        for ipc in config.recover.ipc:
            teacher = source(arm, ipc).teacher
            name = _name(config, arm, ipc)
            rows.setdefault(teacher.hash, _measured(config, workdir, teacher, name))
    return [row for row in rows.values() if row is not None]


def _name(config, arm, ipc) -> str:
    variant = variants.name_of(arm)
    if not variant:
        return "teacher"
    weight = variants.config_of(config, arm, ipc).squeeze.curvature.weight
    strength = f", weight {weight:g}" if weight else ""
    return f"{titles.variant(variant)} teacher{strength}"


def _measured(config, workdir, teacher, name) -> dict | None:
    made_from = {"version": 2, "teacher": teacher.hash, "images": _IMAGES}
    stage = checkpoint.Stage(workdir, "landscape", name.replace(" ", "-"), made_from)
    if not stage.complete:
        with meter.watch() as cost:
            arrays = _look(teacher) if parallel.is_primary() else {}
        stage.finish(arrays, cost.record())
    found = stage.load()
    if not all(np.isfinite(array).all() for array in found.values()):
        logging.warning("the loss of the %s is not finite.", name)
        return None
    return {
        "name": name,
        "accuracy": teacher.record["accuracy"]["test"],
        "gradient_norm": float(np.median(found["gradient_norm"])),
        "rayleigh": float(np.median(found["rayleigh"])),
        "top_eigenvalue": float(np.median(found["top"])),
        "cosine": float(np.median(found["cosine"])),
        "surface": {
            "radius": float(found["offsets"].max()),
            "loss": found["losses"].mean(0).round(5).tolist(),
        },
    }


def _look(teacher) -> dict:
    images, labels = robustness.spread(teacher.test, _IMAGES)
    about = teacher.network.apply, teacher.variables, images / np.float32(255), labels
    keys = jax.random.split(jax.random.key(0))
    arrays = landscape.curved(keys[0], *about)._asdict()
    return arrays | landscape.surface(keys[1], *about)._asdict()

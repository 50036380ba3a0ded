"""Looks at distilled images without training on them.

Makes <workdir>/quality/<arm>-ipc<m>-seed<s>-<hash>/: how alike the images of a class
are, how far they are from real ones, in pixels and to the teacher, whether any is a
copy, and the real neighbours that a report shows beside them. What real images give is
measured once, in <workdir>/stats/real-<hash>/.
"""

import math

import numpy as np
from absl import logging

from ddjax import checkpoint, data, parallel, quality, stats
from ddjax.types import Dataset
from launch import meter

_SAMPLE = 1000  # real images whose nearest others are looked for
_SHOWN = 10  # neighbours kept of each class


def measure(config, workdir, teacher, seen, distilled) -> None:
    """Measures a distilled set, unless that was done.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      teacher: teachers.Teacher, whose features are compared.
      seen: stats.Stats, those of the real images.
      distilled: recover.Distilled, by a method, a baseline or an import.
    """
    stage = _stage(workdir, teacher, seen, distilled)
    if not stage.complete:
        beside = real(config, workdir, teacher, seen)
        with meter.watch() as cost:
            arrays, record = _measure(teacher, seen, distilled, beside)
        stage.finish(arrays, {**record, **cost.record()})


def record(workdir, teacher, seen, distilled) -> dict:
    """What `measure` has found: plain values, distances as means over the images.

    "redundancy" is None where no class has two images, "halves" where one has not.
    """
    stage = _stage(workdir, teacher, seen, distilled)
    found = stage.record()
    if found["test_copies"]:
        logging.warning(
            "%d of the %d images of %s are images of the test set: scores of students "
            "trained on them say nothing.",
            found["test_copies"],
            found["num_images"],
            stage.folder.name[:-13],
        )
    return found


def _stage(workdir, teacher, seen, distilled) -> checkpoint.Stage:
    told = distilled.record
    made_from = {
        "version": 2,
        "images": distilled.hash,
        "stats": seen.hash,
        "test": data.fingerprint(teacher.test),
    }
    name = f"{told['arm']}-ipc{told['ipc']}-seed{told.get('seed', 0)}"
    name = name.replace("/", "-").replace(" ", "-")
    return checkpoint.Stage(workdir, "quality", name, made_from)


def _measure(teacher, seen, distilled, real):
    """Arrays and record of one set."""
    train, chosen = teacher.train, distilled.images
    images, labels = np.asarray(chosen.images), np.asarray(chosen.labels)
    features = _features(teacher, images)
    neighbour, pixels = quality.nearest(images, train.images)
    _, depth = quality.nearest(features, seen.features)
    shown = _first(labels, _SHOWN)
    arrays = {
        "features": features,
        "neighbour": neighbour,
        "neighbour_rows": shown,
        "neighbour_images": train.images[neighbour[shown]],
    }
    alike = quality.redundancy(features, labels)
    told = quality.halves(images, labels)
    record = {
        "arm": distilled.record["arm"],
        "ipc": distilled.record["ipc"],
        "set": distilled.record.get("seed", 0),
        "images": distilled.hash,
        "num_images": len(images),
        "redundancy": None if math.isnan(alike) else alike,
        "halves": None if math.isnan(told) else told,
        "nearest_pixels": float(np.mean(pixels)),
        "real_nearest_pixels": float(np.mean(real["pixels"])),
        "nearest_features": float(np.mean(depth)),
        "real_nearest_features": float(np.mean(real["features"])),
        "copies": int(quality.copies(images, real["train"]).sum()),
        "test_copies": int(quality.copies(images, real["test"]).sum()),
        "w2": quality.wasserstein(
            seen.features, train.labels, features, labels, chosen.weights
        ),
        "png_bytes": quality.png_bytes(np.asarray(distilled.stored)),
    }
    return arrays, record


def _features(teacher, images) -> np.ndarray:
    """[N, D] float32, by the program that made those of the real images."""
    info = teacher.train.info._replace(classes=("all",))
    every = Dataset(images, np.zeros(len(images), np.int32), info)
    return stats.collect(teacher.network.apply, teacher.variables, every)[0]


def _first(labels, count) -> np.ndarray:
    """Rows of the first `count` images of every class."""
    rows = [np.flatnonzero(labels == k)[:count] for k in np.unique(labels)]
    return np.concatenate(rows).astype(np.int32)


def real(config, workdir, teacher, seen) -> dict:
    """Of real images: distances to the nearest other one, and digests of all."""
    made_from = {
        "version": 1,
        "stats": seen.hash,
        "test": data.fingerprint(teacher.test),
        "seed": config.seed,
        "sample": _SAMPLE,
    }
    stage = checkpoint.Stage(workdir, "stats", "real", made_from)
    if not stage.complete:
        with meter.watch() as cost:
            found = _real(config, teacher, seen) if parallel.is_primary() else {}
        stage.finish(found, cost.record())
    return stage.load()


def _real(config, teacher, seen) -> dict:
    train, options = teacher.train.images, {"size": _SAMPLE, "seed": config.seed}
    return {
        "pixels": quality.real_nearest(train, **options),
        "features": quality.real_nearest(seen.features, **options),
        "train": quality.digests(train),
        "test": quality.digests(teacher.test.images),
    }

"""Looks at the real images through the teacher.

    python -m launch.stats --config=configs/default.py

Makes <workdir>/stats/: the features and per-class BatchNorm statistics (`teacher-...`),
and for each ipc and seed the barycenters of the features (`barycenter-...`).
"""

from typing import NamedTuple

import jax
import numpy as np

from ddjax import checkpoint, stats
from ddjax.types import Barycenter, ClassStats, Moments
from launch import arms, atoms, meter, program, progress, squeeze, teachers

_CLASSES = 10  # kept together while the data is looked at


class Stats(NamedTuple):
    """What the teacher saw."""

    features: np.ndarray  # [N, D], in the order of the training images
    class_stats: ClassStats
    hash: str


def run(config, workdir) -> None:
    """Everything that the config's distilled sets will need."""
    arms.check(config)
    teacher = squeeze.run(config, workdir)
    seen = collect(config, workdir, teacher)
    for ipc in config.recover.ipc:
        for seed in range(config.recover.sets):
            barycenters(config, workdir, teacher, seen, ipc, seed)


def collect(config, workdir, teacher: teachers.Teacher) -> Stats:
    """Features and class statistics, loaded or made."""
    made_from = {
        "version": 1,
        "exact": config.stats.exact,
        "batch_size": config.stats.batch_size,
        "teacher": teacher.hash,
    }
    stage = checkpoint.Stage(workdir, "stats", "teacher", made_from)
    if not stage.complete:
        with meter.watch("stats") as cost:
            arrays = _collect(config, stage, teacher)
        stage.finish(arrays, cost.record())
    arrays = stage.load()
    features, count = arrays.pop("features"), arrays.pop("count")
    layers = range(len(arrays) // 2)
    layers = tuple(Moments(arrays[f"mean{i}"], arrays[f"var{i}"]) for i in layers)
    return Stats(features, ClassStats(layers, count), stage.hash)


def _collect(config, stage, teacher):
    """One pass over the data, some classes at a time; finished ones are kept."""
    parts = []
    total = teacher.train.info.num_classes
    with progress.bar("stats", total, unit="class") as bar:
        for first in range(0, total, _CLASSES):
            classes = range(first, min(first + _CLASSES, total))
            part = stage.load_part(f"classes{first}")
            if part is None:
                features, found = stats.collect(
                    teacher.network.apply,
                    teacher.variables,
                    teacher.train,
                    classes=classes,
                    batch_size=config.stats.batch_size,
                    exact=config.stats.exact,
                )
                part = {"features": features, "count": found.count}
                for i, layer in enumerate(found.layers):
                    part |= {f"mean{i}": layer.mean, f"var{i}": layer.var}
                stage.save_part(f"classes{first}", part)
            parts.append(part)
            bar.update(len(classes))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def barycenters(config, workdir, teacher, seen: Stats, ipc, seed) -> Barycenter:
    """The barycenters of one distilled set, loaded or made."""
    made_from = {
        "version": 2,
        **atoms.options(config.stats),
        "ipc": ipc,
        "seed": (config.seed, seed),
        "stats": seen.hash,
    }
    name = f"barycenter-ipc{ipc}-seed{seed}"
    stage = checkpoint.Stage(workdir, "stats", name, made_from)
    if not stage.complete:
        title, total = f"atoms, ipc {ipc}", teacher.train.info.num_classes
        with (
            meter.watch(title) as cost,
            progress.bar(title, total, unit="class") as bar,
        ):
            found = stats.barycenters(
                program.key(config, "barycenter", seed),
                seen.features,
                teacher.train,
                ipc,
                find=atoms.find(config.stats),
                observe=lambda done: bar.update(done - bar.n),
            )
        record = {
            "mean_cost": float(np.mean(found.cost)),
            "converged": float(np.mean(found.converged)),
            **cost.record(),
        }
        stage.finish(found._asdict(), record)
    return Barycenter(**stage.load())


if __name__ == "__main__":
    program.main(run)

"""Looks at the real images through the teacher.

    python -m launch.stats --config=configs/default.py

Makes <workdir>/stats/: the features and per-class BatchNorm statistics (`teacher-...`),
and for each ipc and seed the barycenters of the features (`barycenter-...`).
"""

from typing import NamedTuple

import numpy as np

from ddjax import checkpoint, parallel, stats
from ddjax.matching import frame
from ddjax.types import Barycenter, ClassStats, Moments
from launch import (
    arms,
    atoms,
    meter,
    program,
    progress,
    shares,
    squeeze,
    teachers,
    variants,
)

_CLASSES = 10  # of a part, while the data is looked at
_ATOM_PARTS = 100  # of a set's barycenters, at most: each starts its threads anew


class Stats(NamedTuple):
    """What the teacher saw."""

    features: np.ndarray  # [N, D], in the order of the training images
    class_stats: ClassStats
    hash: str


def run(config, workdir) -> None:
    """Everything that the config's distilled sets will need."""
    arms.check(config)
    for ipc in config.recover.ipc:
        theirs = variants.config_of(config, arms.ours(config), ipc)
        teacher = squeeze.run(theirs, workdir)
        seen = collect(theirs, workdir, teacher)
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
    """One pass over the data, some classes at a time; each host sees its own."""
    total = teacher.train.info.num_classes
    blocks = [range(i, min(i + _CLASSES, total)) for i in range(0, total, _CLASSES)]

    def part(i):
        features, found = stats.collect(
            teacher.network.apply,
            teacher.variables,
            teacher.train,
            classes=blocks[i],
            batch_size=config.stats.batch_size,
            exact=config.stats.exact,
        )
        arrays = {"features": features, "count": found.count}
        for number, layer in enumerate(found.layers):
            arrays |= {f"mean{number}": layer.mean, f"var{number}": layer.var}
        return arrays

    return _joined(stage, "stats", blocks, part)


def _joined(stage, title, blocks, part) -> dict:
    """What all parts hold, class after class; {} but on the primary."""
    names = [f"classes{block.start}" for block in blocks]
    with progress.bar(title, len(parallel.share(blocks)), unit="part") as bar:
        parts = shares.make(stage, names, part, bar.update)
    return {k: np.concatenate([p[k] for p in parts]) for k in (parts or [{}])[0]}


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
        wide = max(_CLASSES, -(-total // _ATOM_PARTS))
        blocks = [range(i, min(i + wide, total)) for i in range(0, total, wide)]
        _, points = frame.place_all(atoms.space(config.stats), seen.features)

        def part(i):
            found = stats.barycenters(
                program.key(config, "barycenter", seed),
                points,
                teacher.train,
                ipc,
                classes=blocks[i],
                find=atoms.find(config.stats),
            )
            return found._asdict()

        with meter.watch(title) as cost:
            arrays = _joined(stage, title, blocks, part)
        stage.finish(arrays, {**_told(arrays), **cost.record()})
    return Barycenter(**stage.load())


def _told(arrays) -> dict:
    """What a record says of barycenters; nothing where they were not put together."""
    return {
        name: float(np.mean(arrays[field]))
        for name, field in (("mean_cost", "cost"), ("converged", "converged"))
        if field in arrays
    }


if __name__ == "__main__":
    program.main(run)

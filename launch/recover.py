"""Synthesises the images; makes what is missing on the way.

    python -m launch.recover
    python -m launch.recover --config=configs/wmdd_imagenette.py --workdir=runs/nette

Makes <workdir>/recover/<method>-<start>-ipc<m>-seed<s>-<hash>/, for every ipc and seed
of the config: the images as uint8 with labels and weights (artifact.npz), the losses
(metrics.jsonl, curves.png), what the first images looked like on the way (frames.npz),
a picture of them beside real ones (grid.png), and the card of the set (README.md).
"""

from typing import Any, NamedTuple

import numpy as np
from absl import logging

from ddjax import checkpoint, export, matching, methods, parallel
from ddjax.types import DistilledSet
from launch import (
    arms,
    atoms,
    baselines,
    crowding,
    generator,
    jobs,
    meter,
    pictures,
    pool,
    program,
    sections,
    sources,
    surrogates,
    variants,
)


class Distilled(NamedTuple):
    """A distilled set as it is stored, and evaluated."""

    images: DistilledSet  # its images are uint8, whole ones, as networks see them
    hash: str
    record: dict
    mosaics: Any = ()  # [N, H, W, ch] uint8, what is stored, where it holds several

    @property
    def stored(self) -> np.ndarray:
        """The images whose bytes count."""
        return self.mosaics if len(self.mosaics) else self.images.images


def run(config, workdir) -> list[Distilled]:
    """The distilled sets of a config: one for each ipc and seed."""
    arms.check(config)
    source, ours = sources.finder(config, workdir), arms.ours(config)
    return [
        make(config, workdir, *source(ours, ipc), ours, ipc, seed)
        for ipc in config.recover.ipc
        for seed in range(config.recover.sets)
    ]


def make(config, workdir, teacher, seen, arm: str, ipc: int, seed: int) -> Distilled:
    """One distilled set, by a method or by a baseline; loaded or made."""
    name, _ = arms.split(arm)
    made_from = {
        "version": 1,
        "arm": arm,
        "ipc": ipc,
        "seed": (config.seed, seed),
        "stats": seen.hash,
    }
    if name in methods.names():
        made_from |= {
            "batch_size": config.recover.batch_size,
            "method": sections.of(config, arm, ipc),
            "barycenter": atoms.recorded(config.stats),
            **_hashes(config, workdir, teacher, arm, ipc),
        }
    title = f"{arm.replace('/', '-')}-ipc{ipc}-seed{seed}"
    stage = checkpoint.Stage(workdir, "recover", title, made_from)
    if not stage.complete:
        crowding.ease()
        with meter.watch(f"recover {title}") as cost:
            images = _make(config, workdir, teacher, seen, stage)
        stage.finish(
            images._asdict() if images else {},
            {
                "arm": arm,
                "ipc": ipc,
                "seed": seed,
                **_about(teacher.train.info, images),
                **_in_parts(sections.factor(config, arm, ipc)),
                **cost.record(),
            },
        )
        logging.info("%s", stage.folder)
    if parallel.is_primary():
        export.describe(stage.folder)
    return whole(DistilledSet(**stage.load()), stage.hash, stage.record())


def _hashes(config, workdir, teacher, arm, ipc) -> dict:
    """Of the other networks that an arm reads, trained or not."""
    stages = {"pool": pool, "generator": generator, "surrogates": surrogates}
    theirs = variants.config_of(config, arm, ipc)
    method = arms.build(config, arm, teacher.network, teacher.train.info, ipc)
    return {
        name: stage.hashes(theirs, workdir)
        for name, stage in stages.items()
        if name in method.requires
    }


def whole(images: DistilledSet, identity: str, record: dict) -> Distilled:
    """A stored set with the images that networks see.

    Args:
      images: as they are stored.
      identity: the set's hash.
      record: its record; "factor" where images hold several.
    """
    factor = record.get("factor", 1)
    if factor == 1:
        return Distilled(images, identity, record)
    parts = matching.mosaics.decoded(images, factor)
    return Distilled(parts, identity, record, images.images)


def _make(config, workdir, teacher, seen, stage) -> DistilledSet | None:
    """The images of a set; None but on the primary, which has them from all hosts."""
    arm, ipc, (_, seed) = (stage.made_from[k] for k in ("arm", "ipc", "seed"))
    name, _ = arms.split(arm)
    if name not in methods.names():
        primary = parallel.is_primary()
        return (
            baselines.select(config, teacher, seen, name, ipc, seed)
            if primary
            else None
        )
    job = jobs.prepare(config, workdir, teacher, seen, arm, ipc, seed)
    images, history = jobs.run(job, stage, config.save_every_s)
    if images is not None:
        beside = baselines.select(config, teacher, seen, "random", min(ipc, 10), 0)
        pictures.draw(stage.folder, teacher.train.info, images, beside, history)
    return images


def _about(info, images) -> dict:
    """What a set's record says of its data."""
    return {
        "data": info.name,
        "classes": list(info.classes),
        "mean": list(info.mean),
        "std": list(info.std),
        "image_bytes": int(images.images.nbytes) if images else 0,
    }


def _in_parts(factor) -> dict:
    """What the record of a set of mosaics says besides."""
    return {"factor": factor} if factor > 1 else {}


if __name__ == "__main__":
    program.main(run)

"""Synthesises the images; makes what is missing on the way.

    python -m launch.recover
    python -m launch.recover --config=configs/wmdd_imagenette.py --workdir=runs/nette

Makes <workdir>/recover/<method>-<start>-ipc<m>-seed<s>-<hash>/, for every ipc and seed
of the config: the images as uint8 with labels and weights (artifact.npz), the losses
(metrics.jsonl, curves.png), what the first images looked like on the way (frames.npz),
a picture of them beside real ones (grid.png), and the card of the set (README.md).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import (
    checkpoint,
    data,
    export,
    matching,
    methods,
    parallel,
    patches,
    recover,
    selection,
)
from ddjax.matching.frame import costs, place_all
from ddjax.types import Context, DistilledSet
from launch import (
    arms,
    atoms,
    crowding,
    frames,
    generator,
    meter,
    pictures,
    pool,
    program,
    progress,
    resume,
    sections,
    shares,
    sources,
    stats,
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
        return _select(config, teacher, seen, name, ipc, seed) if primary else None
    job = _prepare(config, workdir, teacher, seen, arm, ipc, seed)
    images, history = _run(job, stage, config.save_every_s)
    if images is not None:
        beside = _select(config, teacher, seen, "random", min(ipc, 10), 0)
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


# Methods -----------------------------------------------------------------------------


class Job(NamedTuple):
    """A recovery, ready to run."""

    key: jax.Array
    method: methods.Method
    context: Context
    goals: Callable  # rows of a chunk -> Targets
    cuts: list  # rows of every chunk
    num_steps: int  # of each chunk


def _prepare(config, workdir, teacher, seen, arm, ipc, seed) -> Job:
    """Brings together what an arm needs."""
    _, start = arms.split(arm)
    info, section = teacher.train.info, sections.of(config, arm, ipc)
    factor = sections.factor(config, arm, ipc)
    method = arms.build(config, arm, teacher.network, info, ipc)
    if "class_stats" in method.requires:
        _tell_without_batch_norm(config, teacher)
    matched = "barycenter" in method.requires
    found, placed, space = None, None, atoms.space(config.stats)
    theirs = variants.config_of(config, arm, ipc)
    if matched or start == "real":
        found = stats.barycenters(config, workdir, teacher, seen, ipc, seed)
        placed = place_all(space, seen.features)
    key_start, key_steps = jax.random.split(program.key(config, "recover", seed))
    train, chosen = teacher.train, None
    if start == "real":
        chosen = recover.nearest(train, placed[1], found.points, costs(space))
    elif start == "random":
        chosen = _rows(teacher, seen, "random", ipc * factor**2, seed)
        chosen = chosen.reshape(-1, factor**2)
    key_images = program.key(config, "image", seed)
    if drawn := min(method.real_set, *np.bincount(train.labels)):
        beside = _rows(teacher, seen, "random", drawn, seed).reshape(-1, drawn)

    def goals(rows):
        if chosen is None:
            images = recover.noise(key_start, rows, info)
        else:
            images = train.images[chosen[rows].ravel()] / np.float32(255)
            images = matching.mosaics.encode(images, factor)
        return recover.targets(
            rows,
            images,
            ipc,
            barycenter=found if matched else None,
            class_stats=seen.class_stats if "class_stats" in method.requires else None,
            real=_images(train, beside[np.unique(rows // ipc)]) if drawn else (),
            keys=recover.image_keys(key_images, rows, ipc) if drawn else (),
        )

    cuts = recover.chunks(
        info.num_classes, ipc, config.recover.batch_size, section["layout"]
    )
    context = Context(
        teacher=teacher.variables if "teacher" in method.requires else (),
        real=matching.table(train) if method.real_batch else (),
        pool=pool.run(theirs, workdir) if "pool" in method.requires else (),
        frame=placed[0] if "frame" in method.requires else (),
        generator=generator.run(theirs, workdir).variables
        if "generator" in method.requires
        else (),
        surrogates=surrogates.run(theirs, workdir).variables
        if "surrogates" in method.requires
        else (),
    )
    length = method.length(section["num_steps"], ipc)
    return Job(key_steps, method, context, goals, cuts, length)


def _images(train, rows) -> np.ndarray:
    """Training images, rows [q, m], as [q, m, H, W, ch]."""
    return train.images[rows.ravel()].reshape(*rows.shape, *train.info.shape)


def _tell_without_batch_norm(config, teacher):
    """Says what stands for the statistics of BatchNorm, where there is none."""
    seen = arms.reported(teacher.network, teacher.train.info)
    name = config.squeeze.model.name
    if not seen["moments"]:
        logging.warning(
            "%s reports no statistics: images are matched without that term.", name
        )
    elif not seen["running"]:
        logging.info(
            "%s has no BatchNorm: matched are, class by class, the statistics of what "
            "its %d other normalisations read.",
            name,
            len(seen["moments"]),
        )


def _run(job: Job, stage, save_every_s: float) -> tuple[DistilledSet | None, list]:
    """The images and the losses; finished chunks and the current state are kept.

    Of several hosts each recovers its own chunks, and only the primary gets the images.
    """
    names = [f"rows{rows[0]}x{len(rows)}" for rows in job.cuts]
    plan, whose = resume.plan(job, stage, names), resume.whose()
    numbers = {rows[0]: i for i, rows in enumerate(job.cuts)}
    film, title = frames.Frames(stage, job), f"recover {stage.folder.name[:-13]}"
    with (
        progress.bar(title, plan.total, plan.start) as bar,
        progress.Monitor(
            stage, bar, plan.total, plan.start, save_every_s, whose
        ) as monitor,
    ):
        for place, wave in enumerate(plan.waves):
            goals = [job.goals(rows) for rows in wave.rows]
            film.begin(wave, goals)
            waiting = plan.waves[place + 1 :]
            watch = functools.partial(_observe, monitor, film, wave, waiting)
            chunks = _recover(job, wave, goals, watch)
            monitor.finish(chunks)  # first: a part without its losses leaves a gap
            for rows, chunk in zip(wave.rows, chunks):
                number = numbers[rows[0]]
                plan.made[number] = _stored(chunk)
                stage.save_part(names[number], plan.made[number])
    film.write()

    def again(i):
        wave = recover.Wave(job.cuts[i][None], 0)
        return _stored(*_recover(job, wave, [job.goals(job.cuts[i])], None))

    parts = shares.collect(stage, names, plan.made, again)
    if not parts:
        return None, monitor.history
    order = np.argsort(np.concatenate(job.cuts))
    whole = {k: np.concatenate([p[k] for p in parts])[order] for k in parts[0]}
    return DistilledSet(**whole), monitor.history


def _recover(job, wave, goals, observe) -> list[DistilledSet]:
    return recover.run_wave(
        job.key, job.method, job.context, wave, goals, job.num_steps, observe=observe
    )


def _observe(monitor, film, wave, waiting, done, state, metrics) -> None:
    step = done - wave.offset
    film.look(step, state)  # first: a saved state has its frames
    monitor(done, resume.state(wave, step, state, waiting), metrics)


def _stored(chunk: DistilledSet) -> dict[str, np.ndarray]:
    """A chunk as it is stored: pixels rounded to uint8."""
    pixels = np.rint(np.asarray(chunk.images) * 255).astype(np.uint8)
    return chunk._replace(images=pixels)._asdict()


# Baselines ---------------------------------------------------------------------------


def _select(config, teacher, seen, name, ipc, seed) -> DistilledSet:
    """Real images, chosen class by class in the teacher's feature space, or crops."""
    train = teacher.train
    if name == "rded":
        key = program.key(config, "recover", seed)
        return patches.select(key, teacher.network.apply, teacher.variables, train, ipc)
    rows = _rows(teacher, seen, name, ipc, seed)
    weights = np.full(len(rows), 1 / ipc, np.float32)
    return DistilledSet(train.images[rows], train.labels[rows], weights)


def _rows(teacher, seen, name, ipc, seed) -> np.ndarray:
    """Which of the training images a baseline chooses, class after class."""
    return np.concatenate(
        [
            place.start
            + selection.select(name, seen.features[place], ipc, 1000 * seed + k)
            for k, place in enumerate(data.class_slices(teacher.train))
        ]
    )


if __name__ == "__main__":
    program.main(run)

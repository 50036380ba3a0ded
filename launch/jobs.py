"""A recovery by a method: what it needs brought together, and run to its end."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import matching, methods, recover
from ddjax.matching.frame import costs, place_all
from ddjax.types import Context, DistilledSet
from launch import (
    arms,
    atoms,
    baselines,
    frames,
    generator,
    pool,
    program,
    progress,
    resume,
    sections,
    shares,
    stats,
    surrogates,
    variants,
)

__all__ = ["Job", "prepare", "run"]


class Job(NamedTuple):
    """A recovery, ready to run."""

    key: jax.Array
    method: methods.Method
    context: Context
    goals: Callable  # rows of a chunk -> Targets
    cuts: list  # rows of every chunk
    num_steps: int  # of each chunk


def prepare(config, workdir, teacher, seen, arm, ipc, seed) -> Job:
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
        chosen = baselines.rows(teacher, seen, "random", ipc * factor**2, seed)
        chosen = chosen.reshape(-1, factor**2)
    key_images = program.key(config, "image", seed)
    if drawn := min(method.real_set, *np.bincount(train.labels)):
        beside = baselines.rows(teacher, seen, "random", drawn, seed).reshape(-1, drawn)

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


def run(job: Job, stage, save_every_s: float) -> tuple[DistilledSet | None, list]:
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

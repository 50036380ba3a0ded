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
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import (
    checkpoint,
    data,
    export,
    methods,
    parallel,
    patches,
    recover,
    selection,
)
from ddjax.types import Context, DistilledSet
from launch import arms, frames, meter, program, progress, report, squeeze, stats


class Distilled(NamedTuple):
    """A distilled set as it is stored, and evaluated."""

    images: DistilledSet  # its images are uint8
    hash: str
    record: dict


def run(config, workdir) -> list[Distilled]:
    """The distilled sets of a config: one for each ipc and seed."""
    arms.check(config)
    teacher = squeeze.run(config, workdir)
    seen = stats.collect(config, workdir, teacher)
    return [
        make(config, workdir, teacher, seen, arms.ours(config), ipc, seed)
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
            "method": arms.section(config, name),
            "barycenter": config.stats.to_dict(),
        }
    title = f"{arm.replace('/', '-')}-ipc{ipc}-seed{seed}"
    stage = checkpoint.Stage(workdir, "recover", title, made_from)
    if not stage.complete:
        info = teacher.train.info
        with meter.watch(f"recover {title}") as cost:
            if name in methods.names():
                job = _prepare(config, workdir, teacher, seen, arm, ipc, seed)
                images, history = _run(job, stage, config.save_every_s)
                beside = _select(config, teacher, seen, "random", min(ipc, 10), 0)
                report.draw(stage.folder, info, images, beside, history)
            else:
                images = _select(config, teacher, seen, name, ipc, seed)
        record = {
            "arm": arm,
            "ipc": ipc,
            "seed": seed,
            "data": info.name,
            "classes": list(info.classes),
            "mean": list(info.mean),
            "std": list(info.std),
            "image_bytes": int(images.images.nbytes),
            **cost.record(),
        }
        stage.finish(images._asdict(), record)
        export.describe(stage.folder)
        logging.info("%s", stage.folder)
    return Distilled(DistilledSet(**stage.load()), stage.hash, stage.record())


# Methods -----------------------------------------------------------------------------


class Job(NamedTuple):
    """A recovery, ready to run."""

    key: jax.Array
    method: methods.Method
    context: Context
    goals: Callable  # rows of a chunk -> Targets
    cuts: list  # rows of every chunk
    waves: list[recover.Wave]
    num_steps: int  # of each chunk


def _prepare(config, workdir, teacher, seen, arm, ipc, seed) -> Job:
    """Brings together what an arm needs."""
    name, start = arms.split(arm)
    info, section = teacher.train.info, arms.section(config, name)
    method = arms.build(config, name, teacher.network, info)
    if "class_stats" in method.requires:
        _tell_without_batch_norm(config, teacher)
    matched = "barycenter" in method.requires
    atoms = None
    if matched or start == "real":
        atoms = stats.barycenters(config, workdir, teacher, seen, ipc, seed)
    key_start, key_steps = jax.random.split(program.key(config, "recover", seed))
    train, chosen = teacher.train, None
    if start == "real":
        chosen = recover.nearest(train, seen.features, atoms.points)

    def goals(rows):
        if chosen is None:
            images = recover.noise(key_start, rows, info)
        else:
            images = train.images[chosen[rows]] / np.float32(255)
        return recover.targets(
            rows,
            images,
            ipc,
            barycenter=atoms if matched else None,
            class_stats=seen.class_stats if "class_stats" in method.requires else None,
        )

    cuts = recover.chunks(
        info.num_classes, ipc, config.recover.batch_size, section["layout"]
    )
    num_steps = section["num_steps"]
    plan = recover.waves(cuts, num_steps, parallel.device_count())
    context = Context(teacher=teacher.variables)
    return Job(key_steps, method, context, goals, cuts, plan, num_steps)


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


def _run(job: Job, stage, save_every_s: float) -> tuple[DistilledSet, list]:
    """The images and the losses; finished waves and the current state are kept."""
    parts = [stage.load_part(_name(wave)) for wave in job.waves]
    done, state = _resume(job, stage, parts)
    total = len(job.waves) * job.num_steps
    film = frames.Frames(stage, job.method, job.context, job.waves[0], job.num_steps)
    with (
        progress.bar(f"recover {stage.folder.name[:-13]}", total, done) as bar,
        progress.Monitor(stage, bar, total, done, save_every_s) as monitor,
    ):
        for i, wave in enumerate(job.waves):
            if parts[i] is not None:
                continue
            goals = [job.goals(rows) for rows in wave.rows]
            if i == 0:
                film.begin(goals, job.key)
            chunks = recover.run_wave(
                job.key,
                job.method,
                job.context,
                wave,
                goals,
                job.num_steps,
                state=state,
                done=max(0, done - wave.offset),
                observe=functools.partial(
                    _observe, monitor, film if i == 0 else None, wave
                ),
            )
            monitor.finish(chunks)  # first: a part without its losses leaves a gap
            parts[i] = _stored(chunks)._asdict()
            stage.save_part(_name(wave), parts[i])
            state = None
    film.write()
    order = np.argsort(np.concatenate(job.cuts))
    whole = jax.tree.map(lambda *x: np.concatenate(x)[order], *parts)
    return DistilledSet(**whole), monitor.history


def _resume(job: Job, stage, parts: list):
    """(steps done, state in the middle of a wave or None)."""
    wave = next((w for w, part in zip(job.waves, parts) if part is None), None)
    if wave is None:
        return len(job.waves) * job.num_steps, None

    goals = [job.goals(rows) for rows in wave.rows]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *goals)
    keys = jax.random.split(job.key, len(goals))
    start = functools.partial(recover.initial_state, job.method)
    like = {
        "wave": _place(wave),
        "state": jax.eval_shape(start, job.context, stacked, keys),
    }
    found = stage.restore(like)
    # A state of another wave is of no use: those before are finished, and a run on
    # another number of devices had others.
    if found is None or not np.array_equal(found[1]["wave"], _place(wave)):
        stage.drop_states()
        return wave.offset, None
    logging.info("recover goes on from step %d.", found[0])
    return found[0], found[1]["state"]


def _observe(monitor, film, wave, done, state, metrics) -> None:
    if film is not None:
        film.look(done, state)  # first: a saved state has its frames
    monitor(done, {"wave": _place(wave), "state": state}, metrics)


def _place(wave) -> np.ndarray:
    """[1 + k]: where a wave is in the run, and the first row of each of its chunks."""
    return np.array([wave.offset, *wave.rows[:, 0]])


def _name(wave) -> str:
    """The name of a finished wave: other devices make other waves."""
    return f"rows{wave.rows[0, 0]}x{wave.rows.size}"


def _stored(parts: list[DistilledSet]) -> DistilledSet:
    """Chunks put together, as they are stored: pixels rounded to uint8."""
    whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return whole._replace(images=np.rint(whole.images * 255).astype(np.uint8))


# Baselines ---------------------------------------------------------------------------


def _select(config, teacher, seen, name, ipc, seed) -> DistilledSet:
    """Real images, chosen class by class in the teacher's feature space, or crops."""
    train = teacher.train
    if name == "rded":
        key = program.key(config, "recover", seed)
        return patches.select(key, teacher.network.apply, teacher.variables, train, ipc)
    rows = np.concatenate(
        [
            place.start
            + selection.select(name, seen.features[place], ipc, 1000 * seed + k)
            for k, place in enumerate(data.class_slices(train))
        ]
    )
    weights = np.full(len(rows), 1 / ipc, np.float32)
    return DistilledSet(train.images[rows], train.labels[rows], weights)


if __name__ == "__main__":
    program.main(run)

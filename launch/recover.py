"""Synthesises the images; makes what is missing on the way.

    python -m launch.recover
    python -m launch.recover --config=configs/wmdd_imagenette.py --workdir=runs/nette

Makes <workdir>/recover/<method>-<start>-ipc<m>-seed<s>-<hash>/, for every ipc and seed
of the config: the images as uint8 with labels and weights (artifact.npz), the losses
(history.json, curves.png), and a picture of them beside real ones (grid.png).
"""

import functools
import time
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import checkpoint, data, methods, parallel, recover, selection
from ddjax.types import Context, DistilledSet
from launch import arms, program, progress, report, squeeze, stats


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
    name, start = arms.split(arm)
    made_from = {
        "version": 1,
        "arm": arm,
        "ipc": ipc,
        "seed": (config.seed, seed),
        "stats": seen.hash,
    }
    is_method = name in methods.names()
    if is_method:
        made_from |= {
            "batch_size": config.recover.batch_size,
            "method": arms.section(config, name),
            "barycenter": config.stats.to_dict(),
        }
    title = f"{arm.replace('/', '-')}-ipc{ipc}-seed{seed}"
    stage = checkpoint.Stage(workdir, "recover", title, made_from)
    if not stage.complete:
        began = time.monotonic()
        if is_method:
            images = _recover(
                config, workdir, stage, teacher, seen, name, start, ipc, seed
            )
        else:
            images = _select(teacher, seen, name, ipc, seed)
        info = teacher.train.info
        record = {
            "arm": arm,
            "ipc": ipc,
            "seed": seed,
            "data": info.name,
            "classes": list(info.classes),
            "mean": list(info.mean),
            "std": list(info.std),
            "image_bytes": int(images.images.nbytes),
            "seconds": time.monotonic() - began,
        }
        stage.finish(images._asdict(), record)
        logging.info("%s", stage.folder)
    return Distilled(DistilledSet(**stage.load()), stage.hash, stage.record())


# Methods -----------------------------------------------------------------------------


def _recover(config, workdir, stage, teacher, seen, name, start, ipc, seed):
    """Runs a method, wave by wave; finished waves and the current state are kept."""
    info, pixels = teacher.train.info, arms.section(config, name)
    num_steps = pixels["num_steps"]
    method = arms.build(config, name, teacher.network, info)
    barycenter = None
    if start == "real" or "barycenter" in method.requires:
        barycenter = stats.barycenters(config, workdir, teacher, seen, ipc, seed)
    key_start, key_steps = jax.random.split(program.key(config, "recover", seed))
    first = recover.starts(
        key_start,
        start,
        teacher.train,
        ipc,
        features=seen.features,
        atoms=None if barycenter is None else barycenter.points,
    )
    context = Context(teacher=teacher.variables)
    cuts = recover.chunks(
        info.num_classes, ipc, config.recover.batch_size, pixels["layout"]
    )
    plan = recover.waves(cuts, num_steps, parallel.device_count())

    def goals(wave):
        return [
            recover.targets(
                rows,
                first,
                ipc,
                barycenter=barycenter if "barycenter" in method.requires else None,
                class_stats=(
                    seen.class_stats if "class_stats" in method.requires else None
                ),
            )
            for rows in wave.rows
        ]

    total = len(plan) * num_steps
    finished = [stage.load_part(_part(wave)) for wave in plan]
    finished = [part and DistilledSet(**part) for part in finished]
    done, state = _resume(
        stage, method, context, plan, finished, goals, key_steps, total
    )
    with progress.bar(f"recover {stage.folder.name[:-13]}", total, done) as bar:
        monitor = progress.Monitor(stage, bar, total, done, config.save_every_s)
        for i, wave in enumerate(plan):
            if finished[i] is not None:
                continue
            parts = recover.run_wave(
                key_steps,
                method,
                context,
                wave,
                goals(wave),
                num_steps,
                state=state,
                done=max(0, done - wave.offset),
                observe=functools.partial(_observe, monitor, wave),
            )
            monitor.look()
            finished[i] = _stored(parts)
            monitor.write_history()  # first: a part without its losses leaves a gap
            stage.save_part(_part(wave), finished[i]._asdict())
            state = None
    monitor.write_history()
    order = np.argsort(np.concatenate(cuts))
    images = jax.tree.map(lambda *x: np.concatenate(x)[order], *finished)
    beside = _select(teacher, seen, "random", min(ipc, 10), 0)
    report.draw(stage.folder, info, images, beside, monitor.history)
    return images


def _resume(stage, method, context, plan, finished, goals, key, total):
    """(steps done, state in the middle of a wave or None)."""
    behind = [w.offset for w, images in zip(plan, finished) if images is None]
    if not behind:
        return total, None
    wave = next(w for w in plan if w.offset == behind[0])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *goals(wave))
    keys = jax.random.split(key, len(wave.rows))
    like = jax.eval_shape(lambda: recover.initial_state(method, context, stacked, keys))
    found = stage.restore({"wave": _place(wave), "state": like})
    # A state of another wave is of no use: those before are finished, and a run on
    # another number of devices had others.
    if found is None or not np.array_equal(found[1]["wave"], _place(wave)):
        stage.drop_states()
        return wave.offset, None
    logging.info("recover goes on from step %d.", found[0])
    return found[0], found[1]["state"]


def _observe(monitor, wave, done, state, metrics) -> None:
    monitor(done, {"wave": _place(wave), "state": state}, metrics)


def _place(wave) -> np.ndarray:
    """[1 + k]: where a wave is in the run, and the first row of each of its chunks."""
    return np.array([wave.offset, *wave.rows[:, 0]])


def _part(wave) -> str:
    """The name of a finished wave: other devices make other waves."""
    return f"rows{wave.rows[0, 0]}x{wave.rows.size}"


def _stored(parts: list[DistilledSet]) -> DistilledSet:
    """Chunks put together, as they are stored: pixels rounded to uint8."""
    whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return whole._replace(images=np.rint(whole.images * 255).astype(np.uint8))


# Baselines ---------------------------------------------------------------------------


def _select(teacher, seen, name, ipc, seed) -> DistilledSet:
    """Real images, chosen class by class in the teacher's feature space."""
    train = teacher.train
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

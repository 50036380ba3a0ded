"""Synthesises the images; makes what is missing on the way.

    python -m launch.recover
    python -m launch.recover --config=configs/wmdd_imagenette.py --workdir=runs/nette

Makes <workdir>/recover/<method>-<start>-ipc<m>-seed<s>-<hash>/, for every ipc and seed
of the config: the images as uint8 with labels and weights (artifact.npz), the losses
(history.json, curves.png), and a picture of them beside real ones (grid.png).
"""

import time
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import (
    checkpoint,
    data,
    methods,
    optimizers,
    parallel,
    recover,
    report,
    selection,
)
from ddjax import stats as statistics
from ddjax.types import Context, DistilledSet
from launch import program, progress, squeeze, stats


class Distilled(NamedTuple):
    """A distilled set as it is stored, and evaluated."""

    images: DistilledSet  # its images are uint8
    hash: str
    record: dict


def run(config, workdir) -> list[Distilled]:
    """The distilled sets of a config: one for each ipc and seed."""
    check(config)
    arm = f"{config.recover.method}/{config.recover.start}"
    return [
        make(config, workdir, arm, ipc, seed)
        for ipc in config.recover.ipc
        for seed in range(config.recover.sets)
    ]


def check(config) -> None:
    """Refuses what cannot work, before any time is spent."""
    train, _ = squeeze.load_data(config)
    for ipc in config.recover.ipc:
        statistics.check_ipc(ipc, train)
    arms = [f"{config.recover.method}/{config.recover.start}", *config.evaluate.against]
    teacher = squeeze.build_network(config.squeeze.model, train.info)
    squeeze.build_network(config.student.model, train.info)
    for arm in arms:
        name, _ = split(arm)
        if name in methods.names():
            build(config, name, teacher, train.info)


def split(arm: str) -> tuple[str, str]:
    """An arm of a comparison: "method/start", or the name of a baseline.

    Raises:
      ValueError: neither.
    """
    name, _, start = arm.partition("/")
    if name in selection.names() and not start:
        return name, "real"
    known = ", ".join((*selection.names(), *(f"{m}/START" for m in methods.names())))
    if name not in methods.names() or start not in ("noise", "real"):
        raise ValueError(
            f"unknown arm {arm!r}; known: {known}; START is noise or real."
        )
    return name, start


def section(config, name: str) -> dict:
    """The config's section of a method.

    Raises:
      ValueError: there is none.
    """
    if name not in config.methods:
        raise ValueError(
            f"the config has no section methods.{name}; it has "
            f"{', '.join(sorted(config.methods))}. Add one, as in configs/default.py."
        )
    return config.methods[name].to_dict()


def build(config, name: str, network, info) -> methods.Method:
    """A method with the optimiser, view and options of its section."""
    options = section(config, name)
    del options["layout"]
    num_steps, rate = options.pop("num_steps"), options.pop("learning_rate")
    view = [options.pop(field) for field in ("crop_scale", "flip", "jitter")]
    return methods.create(
        name,
        network.apply,
        optimizers.pixel_adam(rate, num_steps, info.std),
        num_steps=num_steps,
        augment=data.augment.CropFlipRoll(tuple(view[0]), *view[1:]),
        options=tuple(sorted(options.items())),
    )


def make(config, workdir, arm: str, ipc: int, seed: int) -> Distilled:
    """One distilled set, by a method or by a baseline; loaded or made."""
    name, start = split(arm)
    teacher = squeeze.run(config, workdir)
    seen = stats.collect(config, workdir, teacher)
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
            "method": section(config, name),
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
    info, pixels = teacher.train.info, section(config, name)
    num_steps = pixels["num_steps"]
    method = build(config, name, teacher.network, info)
    barycenter = None
    if start == "real" or "barycenter" in method.requires:
        barycenter = stats.barycenters(config, workdir, teacher, seen, ipc, seed)
    key_start, key_steps = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), seed)
    )
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
    finished = [_read_wave(stage, wave) for wave in plan]
    done, state = _resume(stage, method, context, plan, finished, goals, key_steps)
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
                observe=monitor,
            )
            monitor.look()
            finished[i] = _stored(parts)
            if len(plan) > 1:
                _write_wave(stage, wave, finished[i])
            state = None
    monitor.write_history()
    images = _assemble(cuts, finished)
    _draw(stage, teacher, seen, images, monitor.history, ipc)
    return images


def _resume(stage, method, context, plan, finished, goals, key):
    """(steps done, state in the middle of a wave or None)."""
    behind = [w.offset for w, images in zip(plan, finished) if images is None]
    if not behind:
        return plan[-1].offset, None
    wave = next(w for w in plan if w.offset == behind[0])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *goals(wave))
    keys = jax.random.split(key, len(wave.rows))
    like = jax.eval_shape(lambda: recover.initial_state(method, context, stacked, keys))
    found = stage.restore(like)
    # A state of an earlier wave, whose images are already finished, is of no use.
    if found is None or found[0] <= wave.offset:
        return wave.offset, None
    logging.info("recover goes on from step %d.", found[0])
    return found


def _stored(parts: list[DistilledSet]) -> DistilledSet:
    """Chunks put together, as they are stored: pixels rounded to uint8."""
    whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return whole._replace(images=np.rint(whole.images * 255).astype(np.uint8))


def _assemble(cuts, finished) -> DistilledSet:
    order = np.argsort(np.concatenate(cuts))
    return jax.tree.map(lambda *x: np.concatenate(x)[order], *finished)


def _write_wave(stage, wave, images: DistilledSet) -> None:
    path = stage.folder / "checkpoints" / f"wave{wave.offset}.npz"
    path.parent.mkdir(exist_ok=True)
    arrays = images._asdict()
    checkpoint.write_atomically(path, lambda file: np.savez(file, **arrays))


def _read_wave(stage, wave) -> DistilledSet | None:
    path = stage.folder / "checkpoints" / f"wave{wave.offset}.npz"
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return DistilledSet(**arrays)


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


# Pictures ----------------------------------------------------------------------------


def _draw(stage, teacher, seen, images, history, ipc) -> None:
    classes, shown = teacher.train.info.num_classes, min(ipc, 10)
    real = _select(teacher, seen, "random", shown, 0)
    ours = images.images.reshape(classes, ipc, *images.images.shape[1:])[:, :shown]
    by_image = ours.swapaxes(0, 1).reshape(-1, *images.images.shape[1:])
    beside = real.images.reshape(classes, shown, *images.images.shape[1:])
    beside = beside.swapaxes(0, 1).reshape(by_image.shape)
    width = min(classes, 20)
    figure = report.grid([("distilled", by_image), ("real", beside)], width)
    figure.savefig(stage.folder / "grid.png")
    report.curves(history, stage.folder.name).savefig(stage.folder / "curves.png")


if __name__ == "__main__":
    program.main(run)

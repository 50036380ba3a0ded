"""What is compared: our arms, the baselines, imported sets, and two bounds.

Bounds are students on the whole data, and on random real images with hard labels that
take as many bytes as our images with their soft labels: whoever may keep 600 kB of
labels may keep 600 kB of images instead.
"""

import itertools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ddjax import checkpoint, export, stats
from ddjax.types import DistilledSet
from launch import arms, ensembles, inputs, recover, relabel, teachers

WHOLE = "whole data"
EQUAL = "random, as many bytes"


class Entry(NamedTuple):
    """A set of images, and how its students are trained."""

    distilled: recover.Distilled
    teacher: teachers.Teacher  # that labels it
    seed: int  # of the set
    epochs: int | None = None  # None for the recipe's


def check(config) -> None:
    """Refuses imported sets that cannot be scored, before any time is spent.

    Raises:
      ValueError: see `imported`; or a class has too few real images beside one.
    """
    train, _ = inputs.load_data(config)
    for path in config.evaluate.sets:
        ipc = imported(path, train.info).record["ipc"]
        stats.check_ipc(ipc, train.info, stats.class_counts(train))
        if ensembles.asked(config):
            ensembles.check(config, [ipc])


def entries(config, workdir, source: Callable) -> Iterator[Entry]:
    """Every set whose students are trained with all kinds of labels.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      source: `sources.finder(config, workdir)`.
    """
    section, sets = config.evaluate, range(config.recover.sets)
    compared = dict.fromkeys((*section.against, arms.ours(config)))

    def entry(arm, ipc, seed):
        teacher, seen = source(arm, ipc)
        found = recover.make(config, workdir, teacher, seen, arm, ipc, seed)
        return Entry(found, teacher, seed)

    for ipc, arm, seed in itertools.product(config.recover.ipc, compared, sets):
        yield entry(arm, ipc, seed)
    if not section.sets and not section.whole_epochs:
        return  # and no other teacher is needed
    (main, _), known = source(), set(config.recover.ipc)
    for path in dict.fromkeys(section.sets):
        taken = imported(path, main.train.info)
        ipc = taken.record["ipc"]
        yield from (Entry(taken, main, seed) for seed in sets)
        if ipc not in known:  # baselines beside it all the same, once
            known.add(ipc)
            for arm, seed in itertools.product(compared, sets):
                if "/" not in arm:
                    yield entry(arm, ipc, seed)
    if section.whole_epochs:
        whole = _whole(main)
        yield from (Entry(whole, main, seed, section.whole_epochs) for seed in sets)


def equal_bytes(
    config, workdir, source, entry, labels, recipe, labeller
) -> Entry | None:
    """Random real images with hard labels, in the bytes of a set with its labels.

    Args:
      config: of the experiment.
      workdir: where artifacts are.
      source: `sources.finder(config, workdir)`.
      entry: one of ours.
      labels: the kind of labels whose bytes are spent.
      recipe: student.Recipe, of which "stored" labels take their number.
      labeller: who gives the labels, whose bytes count where they are "online".

    Returns:
      None for hard labels, where the baseline "random" is this already, and where
      students on the whole data are not trained: these cost as much.
    """
    if labels == "hard" or not config.evaluate.whole_epochs:
        return None
    teacher, ours = entry.teacher, entry.distilled
    info, counts = teacher.train.info, stats.class_counts(teacher.train)
    needed = ours.record["image_bytes"] + sum(
        relabel.sizes(labels, recipe, labeller, ours)
    )
    ipc = affordable(needed, info, counts)
    found = recover.make(config, workdir, *source(), "random", ipc, entry.seed)
    record = {**found.record, "arm": EQUAL, "ipc": ours.record["ipc"]}
    return Entry(
        found._replace(record=record), teacher, entry.seed, config.evaluate.whole_epochs
    )


def affordable(size: int, info, counts) -> int:
    """Images per class, with hard labels, in so many bytes; each class has as many.

    Args:
      size: bytes.
      info: of the data.
      counts: [C], images of each class.
    """
    each = math.prod(info.shape) + (1 if info.num_classes <= 256 else 2)
    return int(min(size // (each * info.num_classes), *counts))


def imported(path: str, info) -> recover.Distilled:
    """A distilled set from elsewhere, as an arm by the name of its folder.

    Raises:
      ValueError: it is none, or its classes, their order, or the size of its images
        are not those of the data.
    """
    stored = export.load_distilled(path, decode=False)
    if stored.info.classes != info.classes:
        raise ValueError(
            f"{path} has the classes {_some(stored.info.classes)} and {info.name} "
            f"{_some(info.classes)}: students would be scored on other classes than "
            "they learnt. Import it again with --classes in the data's order."
        )
    if stored.info.shape != info.shape:
        raise ValueError(
            f"the images of {path} are {stored.info.shape} and those of {info.name} "
            f"{info.shape}; set data.size to the set's."
        )
    counts = np.bincount(stored.labels, minlength=info.num_classes)
    images = DistilledSet(stored.images, stored.labels, stored.weights)
    record = {
        "arm": pathlib.Path(path).name,
        "ipc": int(counts.max()),
        "image_bytes": int(stored.images.nbytes),
        "from": str(path),
    }
    pixels = np.ascontiguousarray(stored.images)
    identity = checkpoint.digest(pixels, stored.labels, stored.weights)
    if stored.factor > 1:
        record["factor"] = stored.factor
    return recover.whole(images, identity, record)


def _some(classes) -> str:
    shown = ", ".join(classes[:3])
    return f"{shown} ... ({len(classes)})" if len(classes) > 3 else shown


def _whole(teacher) -> recover.Distilled:
    """All training images, as if they had been distilled."""
    train = teacher.train
    weights = np.ones(len(train.labels), np.float32)
    record = {"arm": WHOLE, "ipc": 0, "image_bytes": int(train.images.nbytes)}
    identity = checkpoint.fingerprint(train.info.name, teacher.hash)
    return recover.Distilled(
        DistilledSet(train.images, train.labels, weights), identity, record
    )

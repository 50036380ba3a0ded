"""Finished teachers: ours, those of another run, and published weights.

A teacher says which classes it knows, in the order of its outputs, and how it looks at
pixels. On data where either differs its outputs mean something else, with no error
anywhere: such a pair is refused.
"""

import hashlib
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from ddjax import checkpoint, data, metrics, models, parallel
from ddjax.types import Dataset

_WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")


class Teacher(NamedTuple):
    """A trained network and what it was trained on."""

    network: models.Network
    variables: Any
    train: Dataset
    test: Dataset  # the test split, or what was held out of the training split
    hash: str
    record: dict


def describe(network, variables, train, test) -> dict:
    """The record of a teacher: what it knows, and how well."""
    scores = {
        name: metrics.accuracy(network.apply, variables, split.images, split.labels)
        for name, split in (("train", train), ("test", test))
    }
    return {
        "accuracy": scores,
        "classes": list(train.info.classes),
        "data": train.info.name,
        "mean": list(train.info.mean),
        "std": list(train.info.std),
        "parameters": sum(x.size for x in jax.tree.leaves(variables["params"])),
    }


def say(record) -> None:
    """Tells how good a teacher is."""
    scores = {name: 100 * score for name, score in record["accuracy"].items()}
    logging.info(
        "teacher: %.1f %% of the training images, %.1f %% of the test images.",
        scores["train"],
        scores["test"],
    )


def read(stage: checkpoint.Stage, network, train, test) -> Teacher:
    """The teacher that a stage has finished."""
    record = stage.record()
    _check(record, train, stage.folder)
    variables = checkpoint.unflatten(stage.load(), _shapes(network))
    return Teacher(network, variables, train, test, stage.hash, record)


def restore(config, workdir, network, train, test) -> Teacher:
    """The teacher that `squeeze.restore` names, a folder or a file of weights.

    Raises:
      ValueError: it is not there, does not fit the network, or was made for other
        classes or other pixels.
    """
    path = config.squeeze.restore
    if path.endswith(_WEIGHTS):
        return _import(config, workdir, network, train, test)
    record = checkpoint.record(path)
    _check(record, train, path)
    variables = checkpoint.unflatten(checkpoint.load(path), _shapes(network))
    identity = checkpoint.fingerprint(record["made_from"], data.fingerprint(train))
    return Teacher(network, variables, train, test, identity, record)


def _import(config, workdir, network, train, test) -> Teacher:
    """A teacher from a file of weights, scored once and then kept as our own are."""
    section = config.squeeze
    _check({"classes": _named(section, train)}, train, section.restore)
    made_from = {
        "version": 1,
        "model": section.model.to_dict(),
        "weights": digest(section.restore, "squeeze.restore"),
        "data": data.fingerprint(train),
        "pixels": (train.info.mean, train.info.std),
    }
    stage = checkpoint.Stage(workdir, "squeeze", "imported", made_from)
    if not stage.complete:
        variables = models.load(section.restore, _shapes(network))
        primary = parallel.is_primary()
        record = describe(network, variables, train, test) if primary else {}
        stage.finish(checkpoint.flatten(variables), record)
        record = stage.record()
        say(record)
        if record["accuracy"]["test"] < 2 / train.info.num_classes:
            logging.warning(
                "that is hardly above chance: look at the order of the classes "
                "(squeeze.restore_classes), at data.mean and data.std, and at the size."
            )
    return read(stage, network, train, test)


def _named(section, train) -> list[str]:
    """The classes of a file of weights, as the user says they are."""
    given = section.restore_classes
    if given == "sorted":
        return sorted(train.info.classes)
    if not given:
        raise ValueError(
            f"{section.restore} holds weights, which name no classes. Set "
            "squeeze.restore_classes to a file with the name of a class on each line, "
            f"in the order of the network's outputs and as {train.info.name} calls "
            'them, or to "sorted" if that order is alphabetical, as in torchvision.'
        )
    try:
        lines = pathlib.Path(given).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"squeeze.restore_classes: cannot read {given}: {error}."
        ) from error
    return [line.strip() for line in lines if line.strip()]


def digest(path, field: str) -> str:
    """Of the bytes of a file of weights, which a field of the config names.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{field}: cannot read {path}: {error.strerror}.") from error


def _check(record, train, place):
    """ValueError unless a teacher knows these classes and sees pixels this way."""
    _check_classes(record, train, place)
    for name in ("mean", "std"):
        ours, theirs = getattr(train.info, name), record.get(name)
        if theirs is not None and not np.allclose(ours, theirs, atol=1e-6):
            raise ValueError(
                f"the teacher in {place} was trained on pixels with {name} {theirs}; "
                f"here it is {list(ours)}. Set data.{name} to the teacher's."
            )


def _check_classes(record, train, place):
    ours, theirs = list(train.info.classes), record.get("classes")
    if theirs is None:
        raise ValueError(f"{place} holds no teacher: it names no classes.")
    if ours == theirs:
        return
    where = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b),
        min(len(ours), len(theirs)),
    )
    order = (
        "the same classes in another order"
        if set(ours) == set(theirs)
        else (f"{len(theirs)} other classes")
    )
    raise ValueError(
        f"the teacher in {place} was trained on {order}: label {where} is "
        f"{theirs[where : where + 1]} there and {ours[where : where + 1]} in "
        f"{train.info.name}. Train one on this data (leave squeeze.restore empty)."
    )


def _shapes(network):
    return jax.eval_shape(network.init, jax.random.key(0))

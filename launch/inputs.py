"""What every stage begins with: the images and the networks of a config."""

import functools
import math
from typing import NamedTuple

import numpy as np

from ddjax import data, models
from ddjax.data import published, sets
from ddjax.types import DataInfo, Dataset


def load_data(config) -> tuple[Dataset, Dataset]:
    """Training images, and the images that scores are counted on.

    Raises:
      ValueError: the set is not there, or the config's numbers do not fit it.
    """
    section = config.data.to_dict()
    del section["workers"]
    section = {k: tuple(v) if isinstance(v, list) else v for k, v in section.items()}
    return _load(**section)


@functools.lru_cache(maxsize=2)  # a program's stages all ask; decoding takes a while
def _load(name, folder, size, memory_gb, mean, std, holdout):
    def read(split):
        found = data.load(name, split, folder=folder, size=size, memory_gb=memory_gb)
        return found._replace(info=_with_pixels(found.info, mean, std))

    train = read("train")
    return data.hold_out(train, holdout) if holdout else (train, read("test"))


def _with_pixels(info, mean, std):
    """The info, with the config's mean and std where it has some."""
    if not mean and not std:
        return info
    channels = info.shape[-1]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ValueError(
            f"data.mean {mean} and data.std {std} must have {channels} numbers each, "
            f"one for each channel of {info.name}, std above 0; or leave both empty."
        )
    return info._replace(mean=mean, std=std)


class Outline(NamedTuple):
    """A data set without its images."""

    info: DataInfo  # mean and std may not be those of the images
    counts: np.ndarray  # [C], training images of each class
    test: int  # images that scores are counted on
    streamed: bool  # whether it stays on disk
    origin: str  # where these numbers are from


def outline(config) -> Outline:
    """What is known of a config's data without decoding an image.

    Raises:
      ValueError: the set is neither prepared nor well known, or has no fixed size.
    """
    section = config.data
    if section.name in data.EMBEDDED:
        train, test = load_data(config)
        counts = np.bincount(train.labels)
        return Outline(train.info, counts, len(test.labels), False, "embedded")
    try:
        found = sets.find(section.name, section.folder)
    except ValueError:
        if section.name not in published.SIZES:
            raise
        size = published.SIZES[section.name]
        classes = tuple(str(k) for k in range(size.classes))
        counts = np.full(size.classes, math.ceil(size.train / size.classes))
        test, shape = size.test, size.shape
        origin = "not prepared yet; its published numbers"
    else:
        counts = np.bincount(found.labels("train"), minlength=len(found.classes))
        test, shape = sum(found.lengths[found.split("test")]), found.shape
        classes, origin = found.classes, found.folder
    side = (section.size, section.size) if section.size else shape[:2]
    if None in side:
        raise ValueError(
            f"the images of {section.name} have several sizes; set data.size."
        )
    if section.holdout:
        held = np.ceil(section.holdout * counts).astype(int)
        counts, test = counts - held, int(held.sum())
    channels = shape[-1]
    info = DataInfo(
        section.name, classes, (*side, channels), (0.5,) * channels, (0.25,) * channels
    )
    size = int(counts.sum()) * math.prod(info.shape)
    return Outline(info, counts, test, size > section.memory_gb * 2**30, origin)


def build_network(model, info) -> models.Network:
    """The network of a config's `model` section, the same object for equal ones."""
    options = model.to_dict()
    return _network(options.pop("name"), info, tuple(sorted(options.items())))


@functools.cache  # so that a network's functions are compiled once in a program
def _network(name, info, options):
    return models.create(name, info, **dict(options))

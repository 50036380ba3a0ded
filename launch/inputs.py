"""What every stage begins with: the images and the networks of a config."""

import functools

from ddjax import data, models, parallel
from ddjax.models import layers
from ddjax.types import Dataset


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


def build_network(model, info) -> models.Network:
    """The network of a config's `model` section, the same object for equal ones."""
    options = model.to_dict()
    return _network(options.pop("name"), info, tuple(sorted(options.items())))


@functools.cache  # so that a network's functions are compiled once in a program
def _network(name, info, options):
    # For small images on a CPU a matrix product beats XLA's convolution.
    small = parallel.is_cpu() and info.shape[0] * info.shape[1] <= 256
    conv = layers.patches_conv if small else None
    return models.create(name, info, conv=conv, **dict(options))

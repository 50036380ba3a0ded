"""Baselines: sets of real images, whole ones or put together from crops."""

import numpy as np

from ddjax import data, patches, selection
from ddjax.types import DistilledSet
from launch import program

__all__ = ["rows", "select"]


def select(config, teacher, seen, name, ipc, seed) -> DistilledSet:
    """Real images, chosen class by class in the teacher's feature space, or crops.

    Args:
      config: of the experiment; its key, where crops are drawn.
      teacher: with the training images.
      seen: their features, in the order of the images.
      name: of the baseline.
      ipc: images per class.
      seed: of the set.

    Returns:
      DistilledSet: [C * ipc] uint8 images, class after class, of equal weights.

    Raises:
      ValueError: a class has too few images.
    """
    train = teacher.train
    if name == "rded":
        key = program.key(config, "recover", seed)
        return patches.select(key, teacher.network.apply, teacher.variables, train, ipc)
    chosen = rows(teacher, seen, name, ipc, seed)
    weights = np.full(len(chosen), 1 / ipc, np.float32)
    return DistilledSet(train.images[chosen], train.labels[chosen], weights)


def rows(teacher, seen, name, ipc, seed) -> np.ndarray:
    """Which of the training images a baseline chooses: [C * ipc], class after class."""
    return np.concatenate(
        [
            place.start
            + selection.select(name, seen.features[place], ipc, 1000 * seed + k)
            for k, place in enumerate(data.class_slices(teacher.train))
        ]
    )

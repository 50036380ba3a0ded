"""Batches of real images, drawn on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import data, parallel
from ddjax.types import Batch, Dataset, Real

__all__ = ["by_class", "draw", "table"]


def table(dataset: Dataset) -> Real:
    """The images of a data set, and where those of each class are.

    Args:
      dataset: class-major, in memory.

    Raises:
      ValueError: the images are on disk.
    """
    if isinstance(dataset.images, data.Records):
        raise ValueError(  # noqa: TRY004  (of a config, not of a program)
            f"{dataset.info.name} stays on disk, and methods that draw real images at "
            "every step need them on the device: raise data.memory_gb, or lower "
            "data.size."
        )
    slices = data.class_slices(dataset)
    rows = np.full((len(slices), max(x.stop - x.start for x in slices)), -1, np.int32)
    for row, place in zip(rows, slices):
        row[: place.stop - place.start] = np.arange(place.start, place.stop)
    return Real(np.asarray(dataset.images), rows)


def draw(key: jax.Array, real: Real, classes: jax.Array, size: int) -> Batch:
    """Real images of some classes, drawn without replacement.

    The draw of a class depends on the key and its label, not on the other classes.
    Several devices that share the step (`parallel.together`) divide the images.

    Args:
      key: consumed.
      real: see `table`.
      classes: [q] labels.
      size: images of each class, n; all of those that have fewer.

    Returns:
      Batch of q x min(n, largest) images; a class with fewer has some of its images
      twice, the second time with a weight of 0.
    """
    images, rows = jax.tree.map(jnp.asarray, real)
    largest = rows.shape[1]
    place = jnp.arange(min(size, largest))

    def of_class(label):
        mine = rows[label] >= 0
        drawn = jax.random.uniform(jax.random.fold_in(key, label), (largest,))
        order = jax.lax.top_k(jnp.where(mine, drawn, -1.0), len(place))[1]
        # Beyond its last image a class begins again: what counts for nothing in a mean
        # is still seen by BatchNorm, and should be of the class.
        return rows[label][order[place % mine.sum()]], place < mine.sum()

    chosen, there = jax.vmap(of_class)(classes)
    chosen, there = (parallel.divide(x, axis=1) for x in (chosen, there))
    weights = there.astype(jnp.float32)
    images = images[chosen] / jnp.float32(255)
    return Batch(images, weights / weights.sum(1, keepdims=True))


def by_class(function, images: jax.Array) -> jax.Array:
    """A function of images [n, ...] on all classes [q, n, ...] at once.

    The images of a class stay beside each other on their device, where several share
    the batch.

    Args:
      function: `images [N, ...] -> array [N, ...]`, image by image.
      images: [q, n, ...].

    Returns:
      [q, n, ...].
    """
    many = jnp.swapaxes(images, 0, 1)
    found = function(many.reshape(-1, *images.shape[2:]))
    split = functools.partial(jnp.reshape, shape=(*many.shape[:2], *found.shape[1:]))
    return jnp.swapaxes(split(found), 0, 1)

"""RDED: images put together from the crops of real ones that the teacher knows best.

P. Sun et al., "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset
Distillation Paradigm", CVPR 2024, https://arxiv.org/abs/2312.03526; our reading of the
authors' code. No pixel is optimised: square crops of real images are shrunk, scored
one by one in the middle of an image of the mean colour, and tiled.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddjax import data
from ddjax.types import DataInfo, Dataset, DistilledSet

__all__ = ["check", "default_factor", "make_scorer", "select", "tile"]

_CANDIDATES = 300  # real images of a class that are cropped
_CROPS = 5  # of each
_SCALE = (0.08, 1.0)  # share of an image's area in a crop
_LARGE = 64  # pixels of a side: above it, an image holds several crops


def default_factor(info: DataInfo) -> int:
    """Crops along one side of an image: 2 above 64 pixels, 1 up to them."""
    return 2 if min(info.shape[:2]) > _LARGE else 1


def check(ipc: int, info: DataInfo, counts, *, factor: int | None = None) -> None:
    """Refuses what `select` cannot do.

    Args:
      ipc: images per class.
      info: of the data.
      counts: [C], training images of each class.
      factor: see `select`.

    Raises:
      ValueError: a class has too few images, or the factor does not divide the image.
    """
    factor = factor or default_factor(info)
    height, width, _ = info.shape
    if height % factor or width % factor:
        raise ValueError(
            f"{factor} x {factor} crops do not fill an image of {height} x {width} "
            "pixels; choose a size of images that can be divided."
        )
    least = int(np.argmin(counts))
    if ipc * factor**2 > counts[least]:
        raise ValueError(
            f"rded takes {factor**2} real images for each of its {ipc}, and class "
            f"{info.classes[least]!r} has {counts[least]}; lower the ipc."
        )


def select(
    key: jax.Array,
    apply_fn: Callable,
    variables,
    dataset: Dataset,
    ipc: int,
    *,
    factor: int | None = None,
    batch_size: int = 20,
) -> DistilledSet:
    """The distilled set, class by class.

    Of up to 300 images of a class (more where the crops of more are wanted) five crops
    each are scored by the teacher's cross entropy. The best crop of each image stays,
    and of these the ipc * factor^2 best; image i is tiled from the crops i, i + ipc,
    i + 2 * ipc ..., so that every image has one of the best.

    Args:
      key: of the draws; the batch size does not change them.
      apply_fn: the teacher, `(variables, images) -> (logits, out)`.
      variables: of the teacher.
      dataset: class-major real images; `Records` are read as they are needed.
      ipc: images per class.
      factor: crops along one side of an image; None for `default_factor`.
      batch_size: real images whose crops are scored together.

    Returns:
      DistilledSet: uint8 images, equal weights.

    Raises:
      ValueError: see `check`.
    """
    factor = factor or default_factor(dataset.info)
    classes = data.class_slices(dataset)
    counts = [rows.stop - rows.start for rows in classes]
    check(ipc, dataset.info, counts, factor=factor)
    score = make_scorer(apply_fn, dataset.info, factor)
    variables, made = jax.device_put(variables), []
    for label, rows in enumerate(classes):
        key_rows, key_crops = jax.random.split(jax.random.fold_in(key, label))
        # Drawn on the host: a program for every size of a class would be compiled.
        draw = np.random.default_rng(np.asarray(jax.random.key_data(key_rows)))
        wanted = max(_CANDIDATES, ipc * factor**2)
        chosen = rows.start + np.sort(draw.permutation(counts[label])[:wanted])
        crops, losses = [], []
        for first in range(0, len(chosen), batch_size):
            batch = dataset.images[chosen[first : first + batch_size]]
            found = _padded(
                score, key_crops, variables, batch, label, first, batch_size
            )
            crops.append(found[0])
            losses.append(found[1])
        best = np.argsort(np.concatenate(losses), kind="stable")[: ipc * factor**2]
        made.append(tile(np.concatenate(crops)[best], factor))
    images = np.rint(np.concatenate(made) * 255).astype(np.uint8)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), ipc)
    return DistilledSet(images, labels, np.full(len(labels), 1 / ipc, np.float32))


def _padded(score, key, variables, batch, label, first, batch_size):
    """The scorer's results on a batch that may be short: one shape, one program."""
    padding = [(0, batch_size - len(batch))] + [(0, 0)] * 3
    places = first + np.arange(batch_size)
    found = score(key, variables, np.pad(batch, padding), places, np.int32(label))
    return tuple(x[: len(batch)] for x in jax.device_get(found))


@functools.lru_cache(maxsize=8)
def make_scorer(apply_fn: Callable, info: DataInfo, factor: int):
    """The best crop of each image of a batch, compiled.

    Returns:
      `(key, variables, images [n, H, W, ch] uint8, places [n], label) -> (crops
      [n, H/factor, W/factor, ch] in [0, 1], losses [n])`: `places` number the images
      of a class and fix, with the key, the crops drawn of each.
    """
    height, width, _ = info.shape
    small = (height // factor, width // factor)

    def crops_of(key, place, image):
        keys = jax.random.split(jax.random.fold_in(key, place), _CROPS)

        def one(key):
            box = data.augment.sample_crop(key, height, width, _SCALE, ratio=(1, 1))
            return data.augment.crop_resize(image[None], box, small)[0]

        return jax.vmap(one)(keys)

    def score(key, variables, images, places, label):
        images = images / jnp.float32(255)
        crops = jax.vmap(crops_of, (None, 0, 0))(key, places, images)
        seen = _surrounded(crops.reshape(-1, *crops.shape[2:]), info)
        logits = apply_fn(variables, seen)[0]
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits, jnp.full(len(logits), label)
        ).reshape(-1, _CROPS)
        best = jnp.argmin(losses, 1)[:, None]
        chosen = jnp.take_along_axis(crops, best[..., None, None, None], 1)
        return chosen[:, 0], jnp.take_along_axis(losses, best, 1)[:, 0]

    return jax.jit(score)


def _surrounded(crops, info):
    """Crops in the middle of images of the mean colour, which a teacher sees as 0."""
    mean = jnp.array(info.mean, crops.dtype)
    edges = [(0, 0)]
    for whole, part in zip(info.shape[:2], crops.shape[1:3]):
        edges.append(((whole - part) // 2, whole - part - (whole - part) // 2))
    return jnp.pad(crops - mean, [*edges, (0, 0)]) + mean


def tile(crops: np.ndarray, factor: int) -> np.ndarray:
    """Images put together from crops, row by row.

    Args:
      crops: [n * factor^2, h, w, ch]; image i takes the crops i, i + n, i + 2 n ...
      factor: crops along one side.

    Returns:
      [n, factor * h, factor * w, ch].
    """
    _, height, width, channels = crops.shape
    grid = crops.reshape(factor, factor, -1, height, width, channels)
    rows_first = grid.transpose(2, 0, 3, 1, 4, 5)
    return rows_first.reshape(-1, factor * height, factor * width, channels)

"""Stats: what the teacher sees in the real images of each class.

One pass over the data gives the features and the per-class BatchNorm moments; the
barycenters of the features follow.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import data, ot, parallel
from ddjax.types import Barycenter, ClassStats, DataInfo, Dataset, Moments

__all__ = [
    "barycenters",
    "check_ipc",
    "class_counts",
    "class_moments",
    "collect",
    "make_reporter",
]


def collect(
    apply_fn: Callable,
    variables,
    dataset: Dataset,
    *,
    classes: range | None = None,
    batch_size: int = 100,
    exact: bool = True,
    observe: Callable | None = None,
) -> tuple[np.ndarray, ClassStats]:
    """Features and per-class BatchNorm moments, class by class, by all devices.

    Args:
      apply_fn: the teacher.
      variables: of the teacher.
      dataset: class-major real images.
      classes: which of them to look at; all where None.
      batch_size: images at a time.
      exact: see `class_moments`.
      observe: called with the number of images done.

    Returns:
      (features [N, D] float32, in the order of the data set; ClassStats).
    """
    slices = data.class_slices(dataset)
    chosen = slices if classes is None else [slices[k] for k in classes]
    batches = [
        [
            (i, min(i + batch_size, rows.stop))
            for i in range(rows.start, rows.stop, batch_size)
        ]
        for rows in chosen
    ]

    def padded(start, stop):
        batch = dataset.images[start:stop]
        # Padding keeps one shape, so one program; the padded rows are dropped.
        rows = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
        return (np.pad(batch, rows),)

    calls = (padded(*places) for places in itertools.chain(*batches))
    found = parallel.in_turn(make_reporter(apply_fn), variables, calls)
    features, layers, done = [], [], 0
    for places in batches:
        seen = []
        for (start, stop), out in zip(places, found):
            seen.append(jax.tree.map(lambda x, n=stop - start: x[:n], out))
            done += stop - start
            if observe is not None:
                observe(done)
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *seen)
        features.append(whole[0])
        size = None if exact else batch_size
        layers.append([class_moments(m, batch_size=size) for m in whole[1]])
    stacked = tuple(Moments(*map(np.stack, zip(*layer))) for layer in zip(*layers))
    count = np.array([len(x) for x in features], np.int32)
    return np.concatenate(features), ClassStats(stacked, count)


@functools.lru_cache(maxsize=8)
def make_reporter(apply_fn: Callable):
    """`(variables, images [n, H, W, ch] uint8) -> (features, moments)`, compiled."""

    def report(variables, images):
        _, out = apply_fn(variables, images / jnp.float32(255))
        return out["features"], out["moments"]

    return jax.jit(report)


def class_moments(images: Moments, *, batch_size: int | None = None) -> Moments:
    """Moments of one class from those of its images, accumulated in float64.

    The exact class variance is the mean of the images' variances plus the variance of
    their means. WMDD's code averages the variances *within batches* instead and so
    loses the part between the batches' means: small for batches of 100, large for
    small ones.

    Args:
      images: of each image, [n, c].
      batch_size: None for the exact variance; else the reference code's, with its
        batches in the order of the rows.

    Returns:
      Moments [c], float32.
    """
    mean, var = (np.asarray(x, np.float64) for x in images)
    groups = [slice(None)]
    if batch_size is not None:
        groups = [slice(i, i + batch_size) for i in range(0, len(mean), batch_size)]
    sizes = [len(mean[group]) for group in groups]
    within = [var[group].mean(0) + mean[group].var(0) for group in groups]
    pooled = np.average(within, axis=0, weights=sizes)
    return Moments(mean.mean(0).astype(np.float32), pooled.astype(np.float32))


def barycenters(
    key: jax.Array,
    features: np.ndarray,
    dataset: Dataset,
    ipc: int,
    *,
    classes: range | None = None,
    find: Callable = ot.barycenter,
    observe: Callable | None = None,
) -> Barycenter:
    """The atoms that stand for every class.

    Classes are padded to the size of the largest with points of zero mass, so that one
    program solves them all.

    Args:
      key: draws the initial atoms; the draw of a class depends on its label only.
      features: [N, D], class-major, as `collect` gives them.
      dataset: tells where the classes are.
      ipc: atoms per class.
      classes: which of them to make; all where None.
      find: `(key, x [n, D], ipc, a=masses [n]) -> Barycenter`, such as
        `ot.barycenter`, `ot.sliced_barycenter`, `ot.mmd_atoms` or a partial of one.
      observe: called with the number of classes done.

    Returns:
      Barycenter with points [C, ipc, D] of the classes made, on the host.

    Raises:
      ValueError: a class has fewer than `ipc` images, or features that are not finite.
    """
    check_ipc(ipc, dataset.info, class_counts(dataset))
    slices = data.class_slices(dataset)
    for rows, name in zip(slices, dataset.info.classes):
        if not np.isfinite(features[rows]).all():
            raise ValueError(
                f"the features of class {name!r} have NaN or infinite values: a teacher "
                "that diverged, or images that are not pixels."
            )
    largest = max(rows.stop - rows.start for rows in slices)
    classes = range(len(slices)) if classes is None else classes

    def load(i):
        k = classes[i]
        x = features[slices[k]]
        padding = largest - len(x)
        if padding:  # with a real row: it must not stretch the cloud
            x = np.concatenate([x, np.repeat(x[:1], padding, 0)])
        mass = np.full(largest, 1 / (largest - padding), np.float32)
        mass[largest - padding :] = 0
        return np.asarray(jax.random.key_data(jax.random.fold_in(key, k))), x, mass

    return parallel.mapped(_finder(find, ipc), load, len(classes), observe)


@functools.lru_cache(maxsize=8)
def _finder(find, ipc):
    """The same object for the same arguments, so that it is compiled once."""
    return lambda key, x, mass: find(jax.random.wrap_key_data(key), x, ipc, a=mass)


def class_counts(dataset: Dataset) -> np.ndarray:
    """[C], images of each class."""
    return np.bincount(dataset.labels, minlength=dataset.info.num_classes)


def check_ipc(ipc: int, info: DataInfo, counts: np.ndarray) -> None:
    """ValueError unless every class has at least `ipc` >= 1 images.

    Args:
      ipc: images per class.
      info: of the data.
      counts: see `class_counts`.
    """
    smallest = int(np.argmin(counts))
    if not 1 <= ipc <= counts[smallest]:
        raise ValueError(
            f"ipc must lie in 1..{counts[smallest]}; got {ipc}. The smallest class of "
            f"{info.name}, {info.classes[smallest]!r}, has {counts[smallest]} images."
        )

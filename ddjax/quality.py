"""Quality: what distilled images are like, whatever students make of them."""

import hashlib
import io
import math

import jax
import numpy as np

from ddjax import ot

__all__ = [
    "copies",
    "digests",
    "halves",
    "nearest",
    "png_bytes",
    "real_nearest",
    "redundancy",
    "wasserstein",
]


def redundancy(features: np.ndarray, labels: np.ndarray) -> float:
    """How much alike the images of a class are.

    Args:
      features: [N, D].
      labels: [N] integers.

    Returns:
      The mean cosine similarity of two different images of one class, in [-1, 1]: over
      its pairs, then over the classes. NaN where no class has two images.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(length, np.finfo(np.float64).tiny)
    means = []
    for k in np.unique(labels):
        mine = features[labels == k]
        n = len(mine)
        if n > 1:
            alike = np.sum(mine.sum(0) ** 2) - np.sum(mine**2)  # of ordered pairs
            means.append(alike / (n * (n - 1)))
    return float(np.mean(means)) if means else math.nan


def halves(images: np.ndarray, labels: np.ndarray) -> float:
    """How well one half of a set tells the classes of the other.

    The images of each class go to the halves in turn. Sets that say everything twice
    score near 1; hold the score to that of as many real images.

    Args:
      images: [N, H, W, ch] uint8, or any points [N, ...].
      labels: [N] integers.

    Returns:
      The share of images, in [0, 1], whose nearest one of the other half is of their
      class. NaN where a class has a single image.

    Reference: ours, after LGD's observation that slices of 10 images per class of a
      diffusion model's set predict one another; it trains a network on a slice.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    classes = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    if min(map(len, classes)) < 2:
        return math.nan
    sides = [np.concatenate([mine[side::2] for mine in classes]) for side in (0, 1)]
    right = 0
    for mine, other in (sides, sides[::-1]):
        found, _ = nearest(images[mine], images[other])
        right += np.sum(labels[other][found] == labels[mine])
    return float(right / len(labels))


def nearest(
    points, others, *, leave_out: np.ndarray | None = None, batch_size: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of the others to each point, and how far it is.

    A batch of the others against a batch of the points at a time. Pixels are those of
    the unit interval, so distances of images are in units of the brightest pixel.

    Args:
      points: [n, ...], features, or images as uint8.
      others: [N, ...], of the same kind; images may be `data.Records`.
      leave_out: [n], for each point a row of the others that does not count: itself.
      batch_size: rows of both at a time.

    Returns:
      (rows [n] int32 of the others, Euclidean distances [n] float64).
    """
    count = len(points)
    least, rows = np.full(count, np.inf), np.zeros(count, np.int32)
    for first in range(0, len(others), batch_size):
        block = _flat(others[first : first + batch_size])
        for start in range(0, count, batch_size):
            mine = slice(start, min(start + batch_size, count))
            squares = np.array(_squares(block, _flat(points[mine])))  # [block, mine]
            if leave_out is not None:
                hidden = np.asarray(leave_out[mine]) - first
                inside = (hidden >= 0) & (hidden < len(block))
                squares[hidden[inside], np.flatnonzero(inside)] = np.inf
            found = squares.argmin(0)
            value = squares[found, np.arange(len(found))]
            nearer = value < least[mine]
            least[mine] = np.where(nearer, value, least[mine])
            rows[mine] = np.where(nearer, first + found, rows[mine])
    return rows, _distances(points, others, rows, batch_size)


@jax.jit
def _squares(x, y):
    return ot.squared_euclidean(x, y)


def _distances(points, others, rows, batch_size) -> np.ndarray:
    """[n], from differences: expanded squares do not tell a copy from a neighbour."""
    found = []
    for start in range(0, len(points), batch_size):
        mine = slice(start, start + batch_size)
        x, y = _flat(points[mine]), _flat(others[rows[mine]])
        found.append(np.linalg.norm(x.astype(np.float64) - y, axis=1))
    return np.concatenate(found)


def _flat(rows) -> np.ndarray:
    """[n, D] float32, pixels in [0, 1]."""
    rows = np.asarray(rows)
    scale = np.float32(255 if rows.dtype == np.uint8 else 1)
    return rows.reshape(len(rows), -1).astype(np.float32) / scale


def real_nearest(
    others, *, size: int = 1000, seed: int = 0, batch_size: int = 1000
) -> np.ndarray:
    """How far real images are from the nearest other one: what to hold `nearest` to.

    Args:
      others: [N, ...], as `nearest` takes them.
      size: of the sample they are taken for.
      seed: draws the sample.
      batch_size: see `nearest`.

    Returns:
      [min(size, N)] float64.
    """
    drawn = np.random.default_rng(seed).permutation(len(others))[:size]
    sample = np.sort(drawn)
    return nearest(others[sample], others, leave_out=sample, batch_size=batch_size)[1]


def digests(images, *, batch_size: int = 1000) -> np.ndarray:
    """What tells an image from all others, for `copies`.

    Args:
      images: [N, H, W, ch] uint8, or `data.Records`.
      batch_size: rows at a time.

    Returns:
      [N, 16] uint8: equal rows for images of equal shape and pixels, and only those.
    """
    starts = range(0, len(images), batch_size)
    parts = (images[start : start + batch_size] for start in starts)
    found = b"".join(_digest(image) for part in parts for image in part)
    return np.frombuffer(found, np.uint8).reshape(-1, 16)


def _digest(image) -> bytes:
    pixels = np.ascontiguousarray(image)
    shape = repr((pixels.shape, str(pixels.dtype))).encode()
    return hashlib.blake2b(shape + pixels.tobytes(), digest_size=16).digest()


def copies(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which images are, byte for byte, among others.

    Args:
      images: [n, H, W, ch] uint8.
      known: [N, 16], the `digests` of the others.

    Returns:
      [n] bool.
    """
    others = {row.tobytes() for row in known}
    return np.array([row.tobytes() in others for row in digests(images)], bool)


def wasserstein(real, real_labels, features, labels, weights) -> float:
    """W2 between the features of real and of distilled images, the mean over classes.

    Args:
      real: [N, D], of the real images, which weigh the same.
      real_labels: [N] integers.
      features: [n, D], of the distilled images.
      labels: [n] integers.
      weights: [n] masses within a class, of any sum.

    Returns:
      The mean over the distilled classes of the root of the least mean squared
      distance (exact transport), in units of the features.

    Raises:
      ValueError: a class without real images, or with features that are not finite.
    """
    real, features = np.asarray(real, np.float32), np.asarray(features, np.float32)
    weights, distances = np.asarray(weights, np.float32), []
    # Points of no mass fill the classes up, so that one program serves them all.
    n, m = (max(np.unique(x, return_counts=True)[1]) for x in (real_labels, labels))
    for k in np.unique(labels):
        x, y = real[np.asarray(real_labels) == k], features[labels == k]
        if not len(x):
            raise ValueError(f"no real image has the label {k} of distilled ones.")
        mass = np.full(len(x), 1 / len(x), np.float32)
        weight = weights[labels == k] / weights[labels == k].sum()
        cost = float(_transport_cost(*_filled(x, mass, n), *_filled(y, weight, m)))
        if not math.isfinite(cost):
            raise ValueError(f"the features of label {k} are not finite.")
        distances.append(math.sqrt(cost))
    return float(np.mean(distances))


@jax.jit
def _transport_cost(x, mass, y, weight):
    return ot.lp(ot.squared_euclidean(x, y), mass, weight).cost


def _filled(points, masses, count):
    """The same measure on `count` points."""
    more = count - len(points)
    return np.pad(points, ((0, more), (0, 0))), np.pad(masses, (0, more))


def png_bytes(images: np.ndarray) -> int:
    """Bytes of all images [N, H, W, ch] uint8 as PNG files, which lose nothing."""
    from PIL import Image  # slow to import

    total = 0
    for image in np.asarray(images):
        file = io.BytesIO()
        pixels = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(pixels).save(file, "png", optimize=True)
        total += file.tell()
    return total

"""Choosing real images: the baselines, and the starts of recovered ones.

All functions work on the features of **one** class and return row numbers, so that
they can be used with any features (a network's, or the pixels themselves).
"""

from collections.abc import Callable

import numpy as np

__all__ = ["herding", "k_center", "k_means", "names", "nearest", "random", "select"]


def names() -> tuple[str, ...]:
    """The baselines `select` knows."""
    return tuple(_BASELINES)


def select(name: str, features: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Rows chosen by the baseline called `name`.

    Args:
      name: "random", "herding", "kcenter" or "kmeans".
      features: [n, D], of one class.
      size: rows wanted.
      seed: of the draw; herding and kcenter have none.

    Returns:
      [size] distinct rows.

    Raises:
      ValueError: unknown name, or more rows wanted than there are.
    """
    if name not in _BASELINES:
        raise ValueError(f"unknown baseline {name!r}; known: {', '.join(_BASELINES)}.")
    if size > len(features):
        raise ValueError(
            f"{size} images wanted of a class that has {len(features)}; lower the ipc."
        )
    return _BASELINES[name](np.asarray(features), size, seed)


def random(features: np.ndarray, size: int, seed: int) -> np.ndarray:
    """[size] rows drawn without replacement."""
    return np.random.default_rng(seed).permutation(len(features))[:size]


def herding(features: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """[size] rows (of at least as many) whose running mean follows the mean, greedily.

    Reference: M. Welling, "Herding Dynamical Weights to Learn", ICML 2009, as used by
    S.-A. Rebuffi et al., "iCaRL", CVPR 2017, https://arxiv.org/abs/1611.07725 (without
    normalising the features).
    """
    del seed
    mean, total, chosen = features.mean(0), np.zeros(features.shape[1]), []
    for count in range(1, size + 1):
        distances = np.sum((mean - (total + features) / count) ** 2, axis=1)
        distances[chosen] = np.inf
        chosen.append(int(np.argmin(distances)))
        total += features[chosen[-1]]
    return np.array(chosen)


def k_center(features: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """[size] rows such that no other row is far from all of them, greedily.

    The first is the row nearest to the mean, and each next one the farthest from those
    before: the largest distance left is at most twice the least possible one.

    Reference: O. Sener and S. Savarese, "Active Learning for Convolutional Neural
    Networks: A Core-Set Approach", ICLR 2018, https://arxiv.org/abs/1708.00489; a
    baseline of distillation since B. Zhao et al., "Dataset Condensation with Gradient
    Matching", ICLR 2021, https://arxiv.org/abs/2006.05929 (K-Center).
    """
    del seed
    features = features.astype(np.float64)
    chosen = [int(np.argmin(np.sum((features - features.mean(0)) ** 2, axis=1)))]
    distances = np.full(len(features), np.inf)  # to the nearest chosen row
    for _ in range(1, size):
        newest = np.sum((features - features[chosen[-1]]) ** 2, axis=1)
        distances = np.minimum(distances, newest)
        distances[chosen] = -1  # of equal rows, each is chosen once
        chosen.append(int(np.argmax(distances)))
    return np.array(chosen)


def k_means(features: np.ndarray, size: int, seed: int) -> np.ndarray:
    """[size] medoids: the rows nearest to scikit-learn's k-means centres."""
    from sklearn import cluster  # slow to import

    fitted = cluster.KMeans(size, n_init=10, random_state=seed).fit(features)
    return nearest(features, fitted.cluster_centers_)


def nearest(
    features: np.ndarray, atoms: np.ndarray, cost: Callable | None = None
) -> np.ndarray:
    """A different row for each atom, at the least total squared distance.

    Args:
      features: [n, D].
      atoms: [m, D], m <= n.
      cost: `(atoms, features) -> [m, n]`; None for squared Euclidean distances.

    Returns:
      [m] distinct rows; row j stands for atom j.
    """
    from scipy import optimize, spatial

    if cost is None:
        found = spatial.distance.cdist(atoms, features, "sqeuclidean")
    else:
        found = cost(atoms, features)
    return optimize.linear_sum_assignment(found)[1]


_BASELINES = {
    "random": random,
    "herding": herding,
    "kcenter": k_center,
    "kmeans": k_means,
}

"""Every pytree that crosses a stage boundary.

In the shape comments `N` counts images, `C` classes, `q` the classes of one chunk,
`c` the channels of a layer, `D` the width of the features, `H, W, ch` the pixels.
Sets of images are **class-major**: sorted by label, so that the rows of one class
are contiguous and a chunk of whole classes reshapes to `[q, ipc, ...]`.
"""

from typing import Any, NamedTuple

import jax

__all__ = [
    "Barycenter",
    "Batch",
    "ClassStats",
    "Context",
    "DataInfo",
    "Dataset",
    "DistilledSet",
    "Moments",
    "Real",
    "Targets",
]


class DataInfo(NamedTuple):
    """What the numbers of a data set mean."""

    name: str
    classes: tuple[str, ...]  # class names; the position is the label
    shape: tuple[int, int, int]  # (H, W, ch) of one image
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1], from the training split
    std: tuple[float, ...]

    @property
    def num_classes(self) -> int:
        return len(self.classes)


class Dataset(NamedTuple):
    """Real images, class-major."""

    images: jax.Array  # [N, H, W, ch] uint8; or data.Records, which are on disk
    labels: jax.Array  # [N] int32, ascending
    info: DataInfo


class Moments(NamedTuple):
    """Mean and biased variance of the channels of one BatchNorm input."""

    mean: jax.Array  # [..., c]
    var: jax.Array  # [..., c]


class ClassStats(NamedTuple):
    """Moments of every BatchNorm input, class by class."""

    layers: tuple[Moments, ...]  # in the order of the forward pass; [C, c] each
    count: jax.Array  # [C], images behind each row


class Barycenter(NamedTuple):
    """Weighted atoms that stand for the features of each class."""

    points: jax.Array  # [C, ipc, D]; or coordinates of a product space
    weights: jax.Array  # [C, ipc], sum 1 over ipc
    cost: jax.Array  # [C], W2^2 to the features of the class
    converged: jax.Array  # [C], bool


class Real(NamedTuple):
    """Real images that methods draw from, whole on the device."""

    images: jax.Array  # [N, H, W, ch] uint8
    rows: jax.Array  # [C, largest] int32, images of each class; -1 beyond its last


class Batch(NamedTuple):
    """Real images of each class of a chunk, for one step."""

    images: jax.Array  # [q, n, H, W, ch] in [0, 1]
    weights: jax.Array  # [q, n], sum 1 over n; 0 where a class has fewer images


class Context(NamedTuple):
    """Arrays that all images share; what a method does not need is ()."""

    teacher: Any = ()  # {"params", "batch_stats"}
    real: Any = ()  # Real
    pool: Any = ()  # (first, last) variables of networks in training, stacked [P, ...]
    frame: Any = ()  # matching.frame.Frame, where atoms are points of a product space
    generator: Any = ()  # variables of a diffusion.Generator
    surrogates: Any = ()  # variables of a network at several epochs, stacked [E, ...]


class Targets(NamedTuple):
    """What the images of one chunk start from and are matched to."""

    images: jax.Array  # [N, H, W, ch], the start; pixels, may lie outside [0, 1]
    labels: jax.Array  # [N] int32
    weights: jax.Array  # [N], mass of each image within its class
    features: Any = ()  # [N, D], the atom of each image; see Barycenter
    class_stats: Any = ()  # tuple of Moments, [q, c] each
    classes: Any = ()  # [q] int32, labels of the chunk's classes
    real: Any = ()  # [q, m, H, W, ch] uint8, m real images of each class
    keys: Any = ()  # [N, 2] uint32, data of a key for each image, whatever its chunk


class DistilledSet(NamedTuple):
    """The product: a few images per class, class-major."""

    images: jax.Array  # [N, H, W, ch] in [0, 1]
    labels: jax.Array  # [N] int32, ascending
    weights: jax.Array  # [N], sum 1 over the images of a class

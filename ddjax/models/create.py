"""From a name to a network: normalisation inside, nothing but pure functions out."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.models import convnet, resnet
from ddjax.types import DataInfo

__all__ = ["Network", "create"]

_MODULES = {"convnet": convnet.ConvNet, "resnet18": resnet.ResNet18}


class Network(NamedTuple):
    """Pure functions of one architecture on one data set.

    Attributes:
      init: `key -> variables`, a dict {"params", "batch_stats"}.
      apply: `(variables, images) -> (logits, out)` with frozen BatchNorm statistics.
        `images [N, H, W, ch]` in [0, 1], `logits [N, C]`. `out` names what happened
        inside, and `jit` removes what nobody reads: `features [N, D]` (before the
        last layer); for every BatchNorm, in forward order, `moments` (a tuple of
        Moments `[N, c]`, image by image over H and W, of the layer's *input*) and
        `running` (a tuple of Moments `[c]`, the teacher's own statistics).
      apply_train: `(variables, images) -> (logits, batch_stats)`: BatchNorm uses the
        statistics of the batch and returns the updated running ones.
    """

    init: Callable
    apply: Callable
    apply_train: Callable


def create(
    name: str, info: DataInfo, *, conv: Callable | None = None, **options
) -> Network:
    """Builds a network for the images and classes of a data set.

    Args:
      name: "convnet" or "resnet18".
      info: gives the number of classes, the image shape, and the mean and standard
        deviation that the network subtracts and divides by.
      conv: replaces `jax.lax.conv_general_dilated` in every convolution, for
        instance by `ddjax.models.layers.patches_conv`; None keeps XLA's.
      **options: fields of the module, such as `width`, `depth`, `norm`, `stem`.

    Raises:
      ValueError: unknown name or option; an image too small for the depth.

    Example:
      >>> import jax
      >>> from ddjax import data, models
      >>> info = data.load("digits").info
      >>> network = models.create("convnet", info, width=16)
      >>> variables = network.init(jax.random.key(0))
      >>> logits, out = network.apply(variables, jax.numpy.zeros((2, 8, 8, 1)))
      >>> logits.shape, out["features"].shape, len(out["moments"])
      ((2, 10), (2, 16), 3)
    """
    if name not in _MODULES:
        raise ValueError(f"unknown model {name!r}; known: {', '.join(_MODULES)}.")
    make = _MODULES[name]
    fields = sorted(set(make.__dataclass_fields__) - {"parent", "name"})
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise ValueError(
            f"model {name!r} has no option {unknown[0]!r}; known: {', '.join(fields)}."
        )
    module = make(num_classes=info.num_classes, conv=conv, **options)
    module.check(info.shape)
    mean, std = info.mean, info.std  # numbers, not arrays: nothing is closed over

    def normalise(images):
        return (images - jnp.array(mean)) / jnp.array(std)

    @jax.jit
    def init(key):
        variables = module.init(key, jnp.zeros((1, *info.shape)), train=False)
        return {"params": {}, "batch_stats": {}, **variables}

    def apply(variables, images):
        return module.apply(variables, normalise(images), train=False)

    def apply_train(variables, images):
        (logits, _), updated = module.apply(
            variables, normalise(images), train=True, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", {})

    return Network(init, apply, apply_train)

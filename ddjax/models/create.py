"""From a name to a network: normalisation inside, nothing but pure functions out."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.models import (
    convnet,
    convnext,
    efficientnet,
    layers,
    mobilenet,
    resnet,
    resnetap,
    swin,
    vgg,
    vit,
)
from ddjax.types import DataInfo

__all__ = ["Network", "create"]

_MODULES = {
    "convnet": convnet.ConvNet,
    "resnet18": resnet.ResNet18,
    "resnet50": resnet.ResNet50,
    "resnet101": resnet.ResNet101,
    "resnetap10": resnetap.ResNetAP10,
    "vgg11": vgg.VGG11,
    "mobilenet_v2": mobilenet.MobileNetV2,
    "efficientnet_b0": efficientnet.EfficientNetB0,
    "vit_tiny": vit.ViTTiny,
    "vit_small": vit.ViTSmall,
    "swin_tiny": swin.SwinTiny,
    "convnext_tiny": convnext.ConvNeXtTiny,
}
_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}  # None: the parameters' own
# Given by `create`, or flax's own.
_NOT_OPTIONS = {"num_classes", "parent", "name"}


class Network(NamedTuple):
    """Pure functions of one architecture on one data set.

    Attributes:
      init: `key -> variables`, a dict {"params", "batch_stats"}.
      apply: `(variables, images) -> (logits, out)` with frozen BatchNorm statistics.
        `images [N, H, W, ch]` in [0, 1], `logits [N, C]`. `out` names what happened
        inside, and `jit` removes what nobody reads: `features [N, D]` (before the
        last layer); for every BatchNorm, in forward order, `moments` (a tuple of
        Moments `[N, c]`, image by image over H and W, of the layer's *input*) and
        `running` (a tuple of Moments `[c]`, the teacher's own statistics). Networks
        without BatchNorm report `moments` of what their LayerNorms read and no
        `running`, so per-class matching works on them (ours) and SRe2L's does not;
        those with InstanceNorm report neither.
      apply_train: `(variables, images) -> (logits, batch_stats)`: BatchNorm uses the
        statistics of the batch and returns the updated running ones.
      apply_batch: `(variables, images) -> (logits, out)`, as `apply`, but BatchNorm uses
        the statistics of the batch: a network that was never trained has no others.
      mean: of each channel, what is subtracted from pixels within.
      std: of each channel, what they are divided by.
    """

    init: Callable
    apply: Callable
    apply_train: Callable
    apply_batch: Callable | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def create(name: str, info: DataInfo, *, dtype: str = "float32", **options) -> Network:
    """Builds a network for the images and classes of a data set.

    At 224 pixels the networks are torchvision's and timm's, and every path in the
    variables, joined by dots, is the name of their tensor. Up to 64 pixels, first
    strides, patches and heads shrink, unless the options say which; the classes say
    how. Dropout and stochastic depth of the published recipes are left out.

    Args:
      name: "convnet" (options `depth` 3 to 6 are the field's), "resnet18",
        "resnet50", "resnet101", "resnetap10", "vgg11", "mobilenet_v2",
        "efficientnet_b0", "vit_tiny", "vit_small", "swin_tiny" or "convnext_tiny".
      info: gives the number of classes, the image shape, and the mean and standard
        deviation that the network subtracts and divides by.
      dtype: of convolutions and products, "float32" or "bfloat16": half the memory, and
        sooner where the accelerator has units for it. Variables, norms with what they
        report, features, the last layer and gradients are float32 in both.
      **options: fields of the module, such as `width`, `depth`, `norm`, `stem`.

    Raises:
      ValueError: unknown name or option; images that the options do not suit.

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
    module_class = getattr(make, "func", make)  # of a functools.partial
    fields = sorted(set(module_class.__dataclass_fields__) - _NOT_OPTIONS)
    unknown = sorted(set(options) - set(fields))
    if unknown:
        known = ", ".join(["dtype", *fields])
        raise ValueError(
            f"model {name!r} has no option {unknown[0]!r}; known: {known}."
        )
    layers.check_choice("dtype", dtype, tuple(_DTYPES))
    module = make(num_classes=info.num_classes, **options)
    module.check(info.shape)
    return _functions(module, info, _DTYPES[dtype])


def _functions(module, info, dtype) -> Network:
    mean, std = info.mean, info.std  # numbers, not arrays: nothing is closed over

    def normalise(images):
        return (images - jnp.array(mean)) / jnp.array(std)

    def run(variables, images, **options):
        images = normalise(images)
        if dtype is None:
            return module.apply(variables, images, **options)
        variables = {**variables, "params": _narrow(variables["params"], dtype)}
        found = module.apply(variables, images.astype(dtype), **options)
        return jax.tree.map(lambda x: x.astype(jnp.float32), found)

    @jax.jit
    def init(key):
        variables = module.init(key, jnp.zeros((1, *info.shape)), train=False)
        return {"params": {}, "batch_stats": {}, **variables}

    def apply(variables, images):
        return run(variables, images, train=False)

    def apply_train(variables, images):
        (logits, _), updated = run(
            variables, images, train=True, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", {})

    def apply_batch(variables, images):
        found, _ = run(variables, images, train=True, mutable=["batch_stats"])
        return found

    return Network(init, apply, apply_train, apply_batch, tuple(mean), tuple(std))


def _narrow(params, dtype):
    """Parameters in another type, all but those of norms, which compute in float32."""
    if "scale" in params:
        return params
    return {
        name: _narrow(value, dtype) if isinstance(value, dict) else value.astype(dtype)
        for name, value in params.items()
    }

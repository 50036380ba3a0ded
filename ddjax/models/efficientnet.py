"""EfficientNet-B0 with torchvision's topology, names and initialisation."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from ddjax.models import layers, norms
from ddjax.models.mobilenet import divisible

__all__ = ["EfficientNetB0"]

# Expansion, kernel, stride of the first block, channels: table 1 of the paper.
_STAGES = (
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 5, 2, 40),
    (6, 3, 2, 80),
    (6, 5, 1, 112),
    (6, 5, 2, 192),
    (6, 3, 1, 320),
)


class MBConv(nn.Module):
    """An inverted residual with squeeze and excitation."""

    features: int
    expansion: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x, train: bool):
        inner = divisible(self.expansion * x.shape[-1])
        unit = partial(layers.conv_norm, train=train)
        y, reports, layer = x, [], 0
        if self.expansion != 1:
            names = ("block.0.0", "block.0.1")
            y, reports = unit(y, names=names, features=inner, size=1)
            y, layer = nn.silu(y), 1
        y, depthwise = unit(
            y,
            names=(f"block.{layer}.0", f"block.{layer}.1"),
            features=inner,
            size=self.size,
            stride=self.stride,
            groups=inner,
        )
        y = nn.silu(y)
        y *= self._excitation(y, max(1, x.shape[-1] // 4), f"block.{layer + 1}")
        y, projection = unit(
            y,
            names=(f"block.{layer + 2}.0", f"block.{layer + 2}.1"),
            features=self.features,
            size=1,
        )
        y = x + y if x.shape == y.shape else y
        return y, [*reports, *depthwise, *projection]

    def _excitation(self, x, squeezed, name):
        """A factor in (0, 1) for each channel of each image, [N, 1, 1, c]."""
        conv = partial(layers.conv, size=1, use_bias=True)
        pooled = jnp.mean(x, (1, 2), keepdims=True)
        inside = nn.silu(conv(squeezed, name=f"{name}.fc1")(pooled))
        return nn.sigmoid(conv(x.shape[-1], name=f"{name}.fc2")(inside))


class EfficientNetB0(nn.Module):
    """M. Tan and Q. V. Le, "EfficientNet", ICML 2019, https://arxiv.org/abs/1905.11946.

    The stem "large" is the paper's: 224 pixels become 7. "small" leaves out the stride
    of the first convolution, as the common CIFAR variant does: 32 pixels become 2.
    "auto" takes "small" up to 64 pixels. `width` multiplies the channels. `features`
    are the 1,280 pooled activations. Dropout and stochastic depth are left out.
    """

    num_classes: int
    width: float = 1.0
    blocks: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)  # of each stage
    stem: str = "auto"  # "large", "small" or "auto"

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        layers.check_stages(self.blocks, len(_STAGES))
        layers.check_choice("stem", self.stem, ("auto", "large", "small"))
        stem, smallest = ("small", 16) if self._is_small(shape) else ("large", 32)
        if min(shape[:2]) < smallest:
            raise ValueError(
                f"EfficientNet-B0 with stem {stem} needs images of at least "
                f"{smallest} pixels; got {shape[0]}x{shape[1]}."
            )

    def _is_small(self, shape):
        return layers.is_small(shape) if self.stem == "auto" else self.stem == "small"

    @nn.compact
    def __call__(self, x, train: bool):
        unit = partial(layers.conv_norm, train=train)
        x, reports = unit(
            x,
            names=("features.0.0", "features.0.1"),
            features=divisible(32 * self.width),
            size=3,
            stride=1 if self._is_small(x.shape[1:]) else 2,
        )
        x = nn.silu(x)
        for stage, (expansion, size, first, channels) in enumerate(_STAGES):
            for index in range(self.blocks[stage]):
                block = MBConv(
                    divisible(channels * self.width),
                    expansion,
                    size,
                    first if index == 0 else 1,
                    name=f"features.{stage + 1}.{index}",
                )
                x, more = block(x, train)
                reports += more
        x, more = unit(
            x,
            names=("features.8.0", "features.8.1"),
            features=4 * x.shape[-1],
            size=1,
        )
        features = layers.pooled(nn.silu(x))
        head = nn.Dense(
            self.num_classes,
            # Uniform on +-1 / sqrt(outputs).
            kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform"),
            name="classifier.1",
        )
        return head(features), norms.outputs(features, reports + more)

"""MobileNetV2 with torchvision's topology, names and initialisation."""

from functools import partial

import flax.linen as nn

from ddjax.models import layers, norms

__all__ = ["MobileNetV2", "divisible"]

# Expansion, channels, stride of the first block: table 2 of the paper.
_STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 2),
    (6, 64, 2),
    (6, 96, 1),
    (6, 160, 2),
    (6, 320, 1),
)


def divisible(channels: float) -> int:
    """The multiple of 8 near a number of channels, at least nine tenths of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class InvertedResidual(nn.Module):
    """Expansion, depthwise 3x3 and linear projection, around them a shortcut."""

    features: int
    expansion: int
    stride: int

    @nn.compact
    def __call__(self, x, train: bool):
        inner = self.expansion * x.shape[-1]
        unit = partial(layers.conv_norm, train=train)
        y, reports, layer = x, [], 0
        if self.expansion != 1:
            y, reports = unit(y, names=("conv.0.0", "conv.0.1"), features=inner, size=1)
            y, layer = nn.relu6(y), 1
        names = (f"conv.{layer}.0", f"conv.{layer}.1")
        y, depthwise = unit(
            y, names=names, features=inner, size=3, stride=self.stride, groups=inner
        )
        names = (f"conv.{layer + 1}", f"conv.{layer + 2}")
        y, projection = unit(nn.relu6(y), names=names, features=self.features, size=1)
        y = x + y if x.shape == y.shape else y
        return y, [*reports, *depthwise, *projection]


class MobileNetV2(nn.Module):
    """M. Sandler et al., "MobileNetV2", CVPR 2018, https://arxiv.org/abs/1801.04381.

    The stem "large" is the paper's: 224 pixels become 7. "small" leaves out the
    strides of the first convolution and of the 24-channel stage, as the common CIFAR
    variants do: 32 pixels become 4. "auto" takes "small" up to 64 pixels. `width`
    multiplies the channels. `features` are the 1,280 pooled activations. The dropout
    before the last layer is left out.
    """

    num_classes: int
    width: float = 1.0
    blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)  # of each stage
    stem: str = "auto"  # "large", "small" or "auto"

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        layers.check_stages(self.blocks, len(_STAGES))
        layers.check_choice("stem", self.stem, ("auto", "large", "small"))
        stem, smallest = ("small", 8) if self._is_small(shape) else ("large", 32)
        if min(shape[:2]) < smallest:
            raise ValueError(
                f"MobileNetV2 with stem {stem} needs images of at least "
                f"{smallest} pixels; got {shape[0]}x{shape[1]}."
            )

    def _is_small(self, shape):
        return layers.is_small(shape) if self.stem == "auto" else self.stem == "small"

    @nn.compact
    def __call__(self, x, train: bool):
        small = self._is_small(x.shape[1:])
        unit = partial(layers.conv_norm, train=train)
        x, reports = unit(
            x,
            names=("features.0.0", "features.0.1"),
            features=divisible(32 * self.width),
            size=3,
            stride=1 if small else 2,
        )
        x, layer = nn.relu6(x), 1
        for (expansion, channels, first), count in zip(_STAGES, self.blocks):
            first = 1 if small and channels == 24 else first
            for index in range(count):
                block = InvertedResidual(
                    divisible(channels * self.width),
                    expansion,
                    first if index == 0 else 1,
                    name=f"features.{layer}",
                )
                x, more = block(x, train)
                reports += more
                layer += 1
        x, more = unit(
            x,
            names=(f"features.{layer}.0", f"features.{layer}.1"),
            features=divisible(1280 * max(1.0, self.width)),
            size=1,
        )
        features = layers.pooled(nn.relu6(x))
        head = layers.dense(self.num_classes, init=0.01, name="classifier.1")
        return head(features), norms.outputs(features, reports + more)

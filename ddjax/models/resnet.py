"""ResNets with torchvision's topology, paddings and initialisation."""

from functools import partial

import flax.linen as nn

from ddjax.models import layers, norms

__all__ = ["ResNet", "ResNet18", "ResNet50", "ResNet101"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; norms reported in torch's order."""

    features: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x, train: bool):
        unit = partial(_unit, self, train)
        y, first = unit(x, self.features, 3, self.stride, "conv1", "bn1")
        y, second = unit(nn.relu(y), self.features, 3, 1, "conv2", "bn2")
        x, shortcut = _shortcut(unit, x, y, self.stride)
        return nn.relu(x + y), [*first, *second, *shortcut]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, four times as wide outside.

    The 3x3 convolution has the stride, as in torchvision ("v1.5"); in the paper it is
    the first.
    """

    features: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x, train: bool):
        unit = partial(_unit, self, train)
        y, first = unit(x, self.features, 1, 1, "conv1", "bn1")
        y, second = unit(nn.relu(y), self.features, 3, self.stride, "conv2", "bn2")
        y, third = unit(nn.relu(y), 4 * self.features, 1, 1, "conv3", "bn3")
        x, shortcut = _shortcut(unit, x, y, self.stride)
        return nn.relu(x + y), [*first, *second, *third, *shortcut]


def _unit(block, train, x, features, size, stride, *names):
    return layers.conv_norm(
        x,
        train,
        names,
        block.norm,
        features=features,
        size=size,
        stride=stride,
    )


def _shortcut(unit, x, y, stride):
    """`x` in the shape of `y`."""
    if x.shape == y.shape:
        return x, []
    return unit(x, y.shape[-1], 1, stride, "downsample.0", "downsample.1")


class ResNet(nn.Module):
    """K. He et al., "Deep Residual Learning", CVPR 2016, arxiv.org/abs/1512.03385.

    The stem "7x7" is torchvision's (stride 2 and max pooling: 224 pixels to 56); "3x3"
    is the one for small images (stride 1, no pooling); "auto" takes "3x3" up to 64
    pixels. `features` are the pooled activations: 8 times `width` of them, 32 times
    with bottlenecks.
    """

    num_classes: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # of each stage
    bottleneck: bool = False
    width: int = 64
    stem: str = "auto"  # "7x7", "3x3" or "auto"
    norm: str = "batch"  # "batch" or "instance"

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        layers.check_choice("stem", self.stem, ("auto", "7x7", "3x3"))
        layers.check_choice("norm", self.norm, ("batch", "instance"))
        stem = self._stem(shape)
        smallest = 32 if stem == "7x7" else 8
        if min(shape[:2]) < smallest:
            raise ValueError(
                f"a ResNet with stem {stem} needs images of at least {smallest} "
                f"pixels; got {shape[0]}x{shape[1]}."
            )

    def _stem(self, shape):
        if self.stem != "auto":
            return self.stem
        return "3x3" if layers.is_small(shape) else "7x7"

    @nn.compact
    def __call__(self, x, train: bool):
        large = self._stem(x.shape[1:]) == "7x7"
        size, stride = (7, 2) if large else (3, 1)
        x, reports = _unit(self, train, x, self.width, size, stride, "conv1", "bn1")
        x = nn.relu(x)
        if large:
            x = layers.max_pool(x)
        block = Bottleneck if self.bottleneck else BasicBlock
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                unit = block(
                    self.width * 2**stage,
                    stride,
                    self.norm,
                    name=f"layer{stage + 1}.{index}",
                )
                x, more = unit(x, train)
                reports += more
        features = layers.pooled(x)
        head = layers.dense(self.num_classes, features.shape[-1], name="fc")
        return head(features), norms.outputs(features, reports)


ResNet18 = partial(ResNet, blocks=(2, 2, 2, 2))
ResNet50 = partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True)
ResNet101 = partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True)

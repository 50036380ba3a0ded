"""ResNet-18 with torchvision's topology, paddings and initialisation."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp

from ddjax.models import layers

__all__ = ["ResNet18"]

_BLOCKS = (2, 2, 2, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; BatchNorms reported in torch's order."""

    features: int
    stride: int
    conv: Callable | None = None

    @nn.compact
    def __call__(self, x, train: bool):
        def normed(x, size, stride, conv, norm):
            x = layers.conv(self.features, size, stride, hook=self.conv, name=conv)(x)
            return layers.BatchNorm(name=norm)(x, train)

        y, *first = normed(x, 3, self.stride, "conv1", "bn1")
        y, *second = normed(nn.relu(y), 3, 1, "conv2", "bn2")
        reports = [first, second]
        if x.shape != y.shape:
            x, *shortcut = normed(x, 1, self.stride, "downsample.0", "downsample.1")
            reports.append(shortcut)
        return nn.relu(x + y), reports


class ResNet18(nn.Module):
    """K. He et al., "Deep Residual Learning", CVPR 2016, arxiv.org/abs/1512.03385.

    The stem "7x7" is torchvision's (stride 2 and max pooling: 224 pixels to 56); "3x3"
    is the one for small images (stride 1, no pooling). `features` are the pooled
    activations, 8 times `width` of them.
    """

    num_classes: int
    width: int = 64
    stem: str = "7x7"
    conv: Callable | None = None

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        if self.stem not in ("7x7", "3x3"):
            raise ValueError(f"unknown stem {self.stem!r}; known: 7x7, 3x3.")
        smallest = 32 if self.stem == "7x7" else 8
        if min(shape[:2]) < smallest:
            raise ValueError(
                f"ResNet-18 with stem {self.stem} needs images of at least "
                f"{smallest} pixels; got {shape[0]}x{shape[1]}."
            )

    @nn.compact
    def __call__(self, x, train: bool):
        size, stride = (7, 2) if self.stem == "7x7" else (3, 1)
        x = layers.conv(self.width, size, stride, hook=self.conv, name="conv1")(x)
        x, *report = layers.BatchNorm(name="bn1")(x, train)
        reports = [report]
        x = nn.relu(x)
        if self.stem == "7x7":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(_BLOCKS):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"layer{stage + 1}.{block}"
                unit = BasicBlock(self.width * 2**stage, stride, self.conv, name=name)
                x, more = unit(x, train)
                reports += more
        features = jnp.mean(x, (1, 2))
        head = layers.dense(self.num_classes, features.shape[-1], name="fc")
        logits = head(features)
        moments, running = zip(*reports)
        return logits, {"features": features, "moments": moments, "running": running}

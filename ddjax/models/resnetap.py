"""ResNetAP-10, the condensation field's ResNet with average pooling."""

import flax.linen as nn

from ddjax.models import layers, norms

__all__ = ["ResNetAP10"]


class PooledBlock(nn.Module):
    """A basic block that average-pools 2x2 where others have a stride of 2."""

    features: int
    pool: bool
    norm: str

    @nn.compact
    def __call__(self, x, train: bool):
        def unit(x, size, *names):
            return layers.conv_norm(
                x,
                train,
                names,
                self.norm,
                features=self.features,
                size=size,
            )

        y, first = unit(x, 3, "conv1", "bn1")
        y = nn.relu(y)
        y = layers.avg_pool(y, 2) if self.pool else y
        y, second = unit(y, 3, "conv2", "bn2")
        shortcut = []
        if self.pool or x.shape != y.shape:
            # The norm reads the pooled convolution, so the two are not one unit.
            x = layers.conv(self.features, 1, name="downsample.0")(x)
            x = layers.avg_pool(x, 2) if self.pool else x
            x, shortcut = norms.norm(x, self.norm, train, name="downsample.2")
        return nn.relu(x + y), [*first, *second, *shortcut]


class ResNetAP10(nn.Module):
    """One basic block a stage, average pooling instead of strides, InstanceNorm.

    We take "ResNetAP-10" to be `resnet_ap.py` of IDC's code (also in DREAM, Minimax
    and their heirs) at depth 10: stages of 64, 128, 256 and 512 channels, and a stem
    that is a 3x3 convolution without pooling up to 64 pixels ("small"), followed by
    2x2 average pooling up to 128 ("mid"), and a 7x7 one followed by 4x4 beyond
    ("large"); no convolution has a stride. Its CIFAR variant is `width=32`.
    `features` are the pooled activations, 8 times `width` of them.

    Reference: J.-H. Kim et al., "Dataset Condensation via Efficient Synthetic-Data
    Parameterization", ICML 2022, https://arxiv.org/abs/2205.14959.
    """

    num_classes: int
    width: int = 64
    stem: str = "auto"  # "small", "mid", "large" or "auto"
    norm: str = "instance"  # "instance" (the reference's default) or "batch"

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        layers.check_choice("stem", self.stem, ("auto", "small", "mid", "large"))
        layers.check_choice("norm", self.norm, ("instance", "batch"))
        stem = self._stem(shape)
        smallest = {"small": 8, "mid": 16, "large": 32}[stem]
        if min(shape[:2]) < smallest:
            raise ValueError(
                f"ResNetAP-10 with stem {stem} needs images of at least {smallest} "
                f"pixels; got {shape[0]}x{shape[1]}."
            )

    def _stem(self, shape):
        if self.stem != "auto":
            return self.stem
        if layers.is_small(shape):
            return "small"
        return "mid" if min(shape[:2]) <= 128 else "large"

    @nn.compact
    def __call__(self, x, train: bool):
        size, pool = {"small": (3, 1), "mid": (3, 2), "large": (7, 4)}[
            self._stem(x.shape[1:])
        ]
        x, reports = layers.conv_norm(
            x,
            train,
            ("layer0.conv1", "layer0.bn1"),
            self.norm,
            features=self.width,
            size=size,
        )
        x = layers.avg_pool(nn.relu(x), pool)
        for stage in range(4):
            block = PooledBlock(
                self.width * 2**stage,
                stage > 0,
                self.norm,
                name=f"layer{stage + 1}.0",
            )
            x, more = block(x, train)
            reports += more
        features = layers.pooled(x)
        head = layers.dense(self.num_classes, features.shape[-1], name="fc")
        return head(features), norms.outputs(features, reports)

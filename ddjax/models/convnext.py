"""ConvNeXt-T with torchvision's topology, names and initialisation."""

from functools import partial

import flax.linen as nn

from ddjax.models import layers, norms

__all__ = ["ConvNeXtTiny"]

_conv = partial(layers.conv, padding=0, use_bias=True, init=0.02)


class Block(nn.Module):
    """A depthwise 7x7 convolution, LayerNorm and a perceptron, scaled and added."""

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        dense = partial(layers.dense, init=0.02)
        y = _conv(width, 7, padding=3, groups=width, name="block.0")(x)
        y, report = norms.LayerNorm(name="block.2")(y)
        y = nn.gelu(dense(4 * width, name="block.3")(y), approximate=False)
        y = dense(width, name="block.5")(y)
        scale = self.param("layer_scale", nn.initializers.constant(1e-6), (width,))
        return x + (scale * y).astype(x.dtype), report


class ConvNeXtTiny(nn.Module):
    """Z. Liu et al., "A ConvNet for the 2020s", CVPR 2022, arxiv.org/abs/2201.03545.

    As torchvision's `convnext_tiny`. `patch` is the side of the stem's convolution and
    its stride, where not given 4 beyond 64 pixels, 2 from 32 to 64 and 1 below.
    `features` are the pooled activations behind the last LayerNorm, 8 times `width` of
    them. There is no BatchNorm: `moments` are those of what the LayerNorms read, over
    the pixels of an image (the last reads one), and `running` is empty (ours).
    Stochastic depth is left out.
    """

    num_classes: int
    width: int = 96
    blocks: tuple[int, ...] = (3, 3, 9, 3)  # of each stage
    patch: int = 0  # pixels; 0 chooses by the size of the image

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        patch = self.patch or layers.patch(shape)
        layers.check_patch(patch, shape)
        smallest = patch * 2 ** (len(self.blocks) - 1)
        if min(shape[:2]) < smallest:
            raise ValueError(
                f"ConvNeXt with patch {patch} needs images of at least {smallest} "
                f"pixels; got {shape[0]}x{shape[1]}: set a smaller patch."
            )

    @nn.compact
    def __call__(self, x, train: bool):
        del train  # nothing differs
        patch = self.patch or layers.patch(x.shape[1:])
        x = _conv(self.width, patch, patch, name="features.0.0")(x)
        x, report = norms.LayerNorm(name="features.0.1")(x)
        reports = [report]
        for stage, count in enumerate(self.blocks):
            if stage > 0:
                name = f"features.{2 * stage}"
                x, report = norms.LayerNorm(name=f"{name}.0")(x)
                x = _conv(2 * x.shape[-1], 2, 2, name=f"{name}.1")(x)
                reports.append(report)
            for index in range(count):
                x, report = Block(name=f"features.{2 * stage + 1}.{index}")(x)
                reports.append(report)
        features, report = norms.LayerNorm(name="classifier.0")(layers.pooled(x))
        logits = layers.dense(self.num_classes, init=0.02, name="classifier.2")(
            features
        )
        return logits, norms.outputs(features, [*reports, report])

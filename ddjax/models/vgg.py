"""VGG-11: torchvision's, and the condensation field's for small images."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ddjax.models import layers, norms

__all__ = ["VGG11"]

_CHANNELS = (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0)  # times width; 0 is a max pooling
_BINS = 7  # the large head reads 7x7 averages, whatever the size of the image


class VGG11(nn.Module):
    """Eight 3x3 convolutions, five max poolings, and one of two heads.

    The head "mlp" is torchvision's: 7x7 averages, two hidden layers of 64 times
    `width` units (its dropout is left out), and `features` are the second's; "linear"
    is the field's for small images: the averages of the last 8 times `width` channels
    are the `features`. "auto" takes "linear" up to 64 pixels. Images of 28 to 31
    pixels are padded to at least 32 by the first convolution, as the field does for
    MNIST.

    torchvision's `vgg11` is `norm="none"`, its `vgg11_bn` "batch". Without norms
    `moments` are those of the convolutions' outputs (ours).

    References: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks",
    ICLR 2015, https://arxiv.org/abs/1409.1556; the small head is that of B. Zhao et
    al.'s code, https://arxiv.org/abs/2006.05929.
    """

    num_classes: int
    width: int = 64
    norm: str = "batch"  # "batch", "instance" or "none"
    head: str = "auto"  # "mlp", "linear" or "auto"

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        layers.check_choice("norm", self.norm, ("batch", "instance", "none"))
        layers.check_choice("head", self.head, ("auto", "mlp", "linear"))
        if min(shape[:2]) < 28:
            raise ValueError(
                f"VGG-11 halves images five times and needs at least 28 pixels; got "
                f"{shape[0]}x{shape[1]}: use a convnet, or larger images."
            )

    @nn.compact
    def __call__(self, x, train: bool):
        small = layers.is_small(x.shape[1:])
        padding = 3 if min(x.shape[1:3]) < 32 else 1
        reports, layer = [], 0
        for factor in _CHANNELS:
            if not factor:
                x = nn.max_pool(x, (2, 2), (2, 2))
                layer += 1
                continue
            x, more = layers.conv_norm(
                x,
                train,
                (f"features.{layer}", f"features.{layer + 1}"),
                self.norm,
                features=self.width * factor,
                size=3,
                padding=padding,
                use_bias=True,
            )
            x, padding = nn.relu(x), 1
            reports += more
            layer += 2 if self.norm == "none" else 3  # ReLU counts too
        if self.head == "linear" or (self.head == "auto" and small):
            features = layers.pooled(x)
            head = layers.dense(self.num_classes, x.shape[-1], name="classifier")
        else:
            features = norms.widened(self._hidden(x))
            head = layers.dense(self.num_classes, init=0.01, name="classifier.6")
        return head(features), norms.outputs(features, reports)

    def _hidden(self, x):
        x = adaptive_average(x)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # torch: channels first
        for name in ("classifier.0", "classifier.3"):
            x = nn.relu(layers.dense(64 * self.width, init=0.01, name=name)(x))
        return x


def adaptive_average(x):
    """`AdaptiveAvgPool2d(7)`: means of 7x7 bins, which may overlap; [N, 7, 7, c]."""
    return _average(_average(x, 1), 2)


def _average(x, axis):
    size = x.shape[axis]
    starts = np.arange(_BINS) * size // _BINS
    ends = -(-np.arange(1, _BINS + 1) * size // _BINS)
    pixels = np.arange(size)
    inside = (pixels >= starts[:, None]) & (pixels < ends[:, None])
    weights = inside / inside.sum(1, keepdims=True)
    averaged = jnp.tensordot(x, jnp.asarray(weights, x.dtype), (axis, 1))
    return jnp.moveaxis(averaged, -1, axis)

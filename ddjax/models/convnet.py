"""ConvNet-D, the small network of dataset condensation."""

import flax.linen as nn

from ddjax.models import layers, norms

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, normalisation, ReLU and 2x2 average pooling.

    The features are what the linear layer reads, flattened as the reference flattens
    them (channels first), so that PyTorch's weights carry over.

    Reference: B. Zhao, K. R. Mopuri and H. Bilen, "Dataset Condensation with Gradient
    Matching", ICLR 2021, https://arxiv.org/abs/2006.05929 (ConvNet of its code).
    """

    num_classes: int
    width: int = 128
    depth: int = 3
    norm: str = "batch"  # "batch" or "instance"
    initializer: str = "torch"  # "torch" (the reference's default) or "he"

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        layers.check_choice("norm", self.norm, ("batch", "instance"))
        layers.check_choice("initializer", self.initializer, ("torch", "he"))
        deepest = min(shape[:2]).bit_length() - 1
        if self.depth > deepest:
            raise ValueError(
                f"depth {self.depth} halves an image of {shape[0]}x{shape[1]} pixels "
                f"to nothing; use depth {deepest} or less."
            )

    @nn.compact
    def __call__(self, x, train: bool):
        reports = []
        for block in range(self.depth):
            x, more = layers.conv_norm(
                x,
                train,
                # A block of the reference has four layers: ReLU and pooling count too.
                (f"features.{4 * block}", f"features.{4 * block + 1}"),
                self.norm,
                features=self.width,
                size=3,
                use_bias=True,
                init=self.initializer,
                in_features=x.shape[-1],
            )
            reports += more
            x = layers.avg_pool(nn.relu(x))
        features = norms.widened(x.transpose(0, 3, 1, 2).reshape(len(x), -1))
        head = layers.dense(self.num_classes, features.shape[-1], name="classifier")
        return head(features), norms.outputs(features, reports)

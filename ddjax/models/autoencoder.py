"""The autoencoder of latent diffusion: images to small latents, and back."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ddjax.models import layers

__all__ = ["Autoencoder"]


class _Parts(NamedTuple):
    """Makes the layers, the same way everywhere."""

    groups: int
    remat: bool

    def convolve(self, width, size, inputs, **options):
        """A convolution with PyTorch's fresh weights, which depend on the inputs."""
        options |= {"use_bias": True, "init": "torch", "in_features": inputs}
        return layers.conv(width, size, **options)

    def norm(self, width, name):
        # The fast variance, E[x^2] - E[x]^2, cancels where the mean is large.
        groups, exact = min(self.groups, width), {"use_fast_variance": False}
        return nn.GroupNorm(groups, epsilon=1e-6, name=name, **exact)

    def resnet(self, width, name):
        block = nn.remat(Resnet) if self.remat else Resnet
        return block(self, width, name=name)


class Autoencoder(nn.Module):
    """R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models".

    Stable Diffusion's autoencoder with a KL penalty, as Diffusers' `AutoencoderKL`,
    with its names. The encoder gives each place of the latent a normal distribution,
    of which `encode` takes the mean:

        z = scale * mean(images),    images ~ decoder(z / scale)

    Images are in [-1, 1], latents of scale about 1. Each step from one width to the
    next halves the sides. The defaults are those of the published weights
    (83.65 million numbers, 8 pixels a side become one place); a short `widths` makes a
    small one to be trained. `scale` is one over the standard deviation of the means over
    the images trained on. `conv` stands in for `jax.lax.conv_general_dilated`; `remat`
    computes each pair of convolutions anew in the backward pass, to hold less memory.

    Reference: https://arxiv.org/abs/2112.10752, appendix G.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2  # for each width; the decoder has one more
    channels: int = 4  # of a latent
    image_channels: int = 3
    groups: int = 32  # of GroupNorm, or as many as channels if there are fewer
    scale: float = 0.18215
    remat: bool = False

    def check(self, shape):
        """ValueError if the options do not suit images of this shape (H, W, ch)."""
        for width in self.widths:
            if width % min(self.groups, width):
                raise ValueError(
                    f"width {width} is not a multiple of groups {self.groups}, nor "
                    "smaller; change widths or groups."
                )
        factor = self._factor()
        if shape[0] % factor or shape[1] % factor:
            raise ValueError(
                f"{len(self.widths)} widths halve an image {len(self.widths) - 1} times, "
                f"and {shape[0]}x{shape[1]} pixels are not multiples of {factor}; give "
                "fewer widths, or resize the images."
            )
        if shape[2] != self.image_channels:
            raise ValueError(
                f"images have {shape[2]} channels instead of {self.image_channels}; set "
                f"image_channels={shape[2]}."
            )

    def latent_shape(self, shape):
        """(h, w, c) of the latents of images (H, W, ch)."""
        self.check(shape)
        return shape[0] // self._factor(), shape[1] // self._factor(), self.channels

    def _factor(self):
        return 2 ** (len(self.widths) - 1)

    def setup(self):
        parts = _Parts(self.groups, self.remat)
        self.encoder = Encoder(parts, self.widths, self.blocks, 2 * self.channels)
        self.decoder = Decoder(parts, self.widths, self.blocks, self.image_channels)
        self.quant_conv = parts.convolve(2 * self.channels, 1, 2 * self.channels)
        self.post_quant_conv = parts.convolve(self.channels, 1, self.channels)

    def moments(self, images):
        """The distribution of each latent, before the scale.

        Args:
          images: [N, H, W, ch] in [-1, 1].

        Returns:
          Mean and log variance, both [N, h, w, c]; the latter clipped to [-30, 20].
        """
        self.check(images.shape[1:])
        mean, logvar = jnp.split(self.quant_conv(self.encoder(images)), 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def encode(self, images):
        """Latents z [N, h, w, c], the means times `scale`, of images in [-1, 1]."""
        return self.moments(images)[0] * self.scale

    def decode(self, z):
        """Images [N, H, W, ch], about [-1, 1] and not clipped, of z [N, h, w, c]."""
        return self.decoder(self.post_quant_conv(z / self.scale))

    def __call__(self, images, draw=0.0):
        """What training needs: the images again, by way of a drawn latent.

        Args:
          images: [N, H, W, ch] in [-1, 1].
          draw: [N, h, w, c] from the standard normal; 0 takes the mean.

        Returns:
          Images [N, H, W, ch], and mean and log variance as of `moments`.
        """
        mean, logvar = self.moments(images)
        drawn = mean + jnp.exp(0.5 * logvar) * draw
        return self.decode(drawn * self.scale), mean, logvar


class Encoder(nn.Module):
    """Images to maps of `outputs` channels, their sides halved between the widths."""

    parts: _Parts
    widths: tuple[int, ...]
    blocks: int
    outputs: int

    @nn.compact
    def __call__(self, x):
        parts = self.parts
        x = parts.convolve(self.widths[0], 3, x.shape[-1], name="conv_in")(x)
        for stage, width in enumerate(self.widths):
            name = f"down_blocks.{stage}"
            for index in range(self.blocks):
                x = parts.resnet(width, f"{name}.resnets.{index}")(x)
            if stage + 1 < len(self.widths):
                x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
                down = {
                    "stride": 2,
                    "padding": 0,
                    "name": f"{name}.downsamplers.0.conv",
                }
                x = parts.convolve(width, 3, width, **down)(x)
        x = _middle(parts, x)
        x = nn.silu(parts.norm(x.shape[-1], "conv_norm_out")(x))
        return parts.convolve(self.outputs, 3, x.shape[-1], name="conv_out")(x)


class Decoder(nn.Module):
    """Latents to maps of `outputs` channels, their sides doubled between the widths."""

    parts: _Parts
    widths: tuple[int, ...]
    blocks: int
    outputs: int

    @nn.compact
    def __call__(self, x):
        parts = self.parts
        x = parts.convolve(self.widths[-1], 3, x.shape[-1], name="conv_in")(x)
        x = _middle(parts, x)
        for stage, width in enumerate(reversed(self.widths)):
            name = f"up_blocks.{stage}"
            for index in range(self.blocks + 1):
                x = parts.resnet(width, f"{name}.resnets.{index}")(x)
            if stage + 1 < len(self.widths):
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                up = f"{name}.upsamplers.0.conv"
                x = parts.convolve(width, 3, width, name=up)(x)
        x = nn.silu(parts.norm(x.shape[-1], "conv_norm_out")(x))
        return parts.convolve(self.outputs, 3, x.shape[-1], name="conv_out")(x)


class Resnet(nn.Module):
    """Two convolutions, each behind a GroupNorm, beside a shortcut."""

    parts: _Parts
    width: int

    @nn.compact
    def __call__(self, x):
        parts, inputs = self.parts, x.shape[-1]
        y = nn.silu(parts.norm(inputs, "norm1")(x))
        y = parts.convolve(self.width, 3, inputs, name="conv1")(y)
        y = nn.silu(parts.norm(self.width, "norm2")(y))
        y = parts.convolve(self.width, 3, self.width, name="conv2")(y)
        if inputs != self.width:
            x = parts.convolve(self.width, 1, inputs, name="conv_shortcut")(x)
        return x + y


class Attention(nn.Module):
    """Every place looks at all places, with one head, beside a shortcut."""

    parts: _Parts

    @nn.compact
    def __call__(self, x):
        n, h, w, width = x.shape
        y = self.parts.norm(width, "group_norm")(x).reshape(n, h * w, width)
        queries, keys, values = (
            layers.dense(width, width, name=name)(y)[..., None, :]
            for name in ("to_q", "to_k", "to_v")
        )
        y = layers.attention(queries, keys, values).reshape(n, h * w, width)
        y = layers.dense(width, width, name="to_out.0")(y)
        return x + y.reshape(x.shape)


def _middle(parts, x):
    """Where the maps are smallest; to be called inside of a compact method."""
    x = parts.resnet(x.shape[-1], "mid_block.resnets.0")(x)
    x = Attention(parts, name="mid_block.attentions.0")(x)
    return parts.resnet(x.shape[-1], "mid_block.resnets.1")(x)

"""Vision transformers with timm's topology, names and initialisation."""

import math
from functools import partial

import flax.linen as nn
import jax.numpy as jnp

from ddjax.models import layers, norms

__all__ = ["ViT", "ViTSmall", "ViTTiny"]


class Block(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and beside a shortcut."""

    heads: int

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        dense = partial(layers.dense, init=0.02)
        y, first = norms.LayerNorm(name="norm1")(x)
        packed = dense(3 * width, name="attn.qkv")(y)
        packed = packed.reshape(*packed.shape[:2], 3, self.heads, -1)
        y = layers.attention(*jnp.moveaxis(packed, 2, 0)).reshape(x.shape)
        x += dense(width, name="attn.proj")(y)
        y, second = norms.LayerNorm(name="norm2")(x)
        y = nn.gelu(dense(4 * width, name="mlp.fc1")(y), approximate=False)
        x += dense(width, name="mlp.fc2")(y)
        return x, [first, second]


class ViT(nn.Module):
    """A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021.

    As timm's `vit_tiny_patch16_224` and `vit_small_patch16_224`. `patch` pixels a side
    become one token: 16 beyond 64 pixels; up to 64, the smallest that divides the
    image into at most 16x16 tokens (64 pixels: 4, 32: 2, 28: 2, 8: 1). `features` are the
    class token behind the last LayerNorm, `width` of them. There is no BatchNorm:
    `moments` are those of what the LayerNorms read, over the tokens of an image, and
    `running` is empty (ours).

    References: https://arxiv.org/abs/2010.11929; the sizes Ti and S are those of
    H. Touvron et al., https://arxiv.org/abs/2012.12877.
    """

    num_classes: int
    width: int = 192
    heads: int = 3
    depth: int = 12
    patch: int = 0  # pixels; 0 chooses by the size of the image

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}."
            )
        layers.check_patch(self._patch(shape), shape)

    def _patch(self, shape):
        if self.patch or not layers.is_small(shape):
            return self.patch or 16
        side = min(shape[:2])
        finest = -(-side // 16)
        fits = (p for p in range(finest, side // 8 + 1) if not math.gcd(*shape[:2]) % p)
        return next(fits, finest)

    @nn.compact
    def __call__(self, x, train: bool):
        del train  # nothing differs
        patch, normal = self._patch(x.shape[1:]), nn.initializers.normal
        embed = layers.conv(
            self.width,
            patch,
            patch,
            padding=0,
            use_bias=True,
            init="torch",
            in_features=x.shape[-1],
            name="patch_embed.proj",
        )
        x = embed(x).reshape(len(x), -1, self.width)
        first = self.param("cls_token", normal(1e-6), (1, 1, self.width))
        x = jnp.concatenate([jnp.tile(first.astype(x.dtype), (len(x), 1, 1)), x], 1)
        x += self.param("pos_embed", normal(0.02), (1, x.shape[1], self.width))
        reports = []
        for index in range(self.depth):
            x, more = Block(self.heads, name=f"blocks.{index}")(x)
            reports += more
        x, last = norms.LayerNorm(name="norm")(x)
        features = norms.widened(x[:, 0])
        logits = layers.dense(self.num_classes, init=0.02, name="head")(features)
        return logits, norms.outputs(features, [*reports, last])


ViTTiny = partial(ViT, width=192, heads=3)
ViTSmall = partial(ViT, width=384, heads=6)

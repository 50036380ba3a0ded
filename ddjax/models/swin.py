"""Swin-T with torchvision's topology, names and initialisation."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ddjax.models import layers, norms

__all__ = ["SwinTiny"]

_norm = partial(norms.LayerNorm, epsilon=1e-5)
_dense = partial(layers.dense, init=0.02)


class WindowAttention(nn.Module):
    """Attention within windows, of a map that was rolled by `shift` before.

    A map [N, H, W, c] whose sides the window does not divide is padded with zeros
    behind, which take part in the attention, as they do in torchvision.
    """

    heads: int
    window: int
    shift: int

    @nn.compact
    def __call__(self, x):
        size, (height, width, channels) = self.window, x.shape[1:]
        x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
        # A side of one window stays: rolling it would change nothing but the mask.
        shift = [self.shift if size < side else 0 for side in x.shape[1:3]]
        x = jnp.roll(x, [-s for s in shift], (1, 2))
        packed = _dense(3 * channels, name="qkv")(_split(x, size))
        packed = packed.reshape(*packed.shape[:3], 3, self.heads, -1)
        bias = self._position() + _mask(x.shape[1:3], size, shift)
        y = layers.attention(*jnp.moveaxis(packed, 3, 0), bias)
        y = _dense(channels, name="proj")(y.reshape(*y.shape[:3], channels))
        y = jnp.roll(_join(y, x.shape, size), shift, (1, 2))
        return y[:, :height, :width]

    def _position(self):
        """The learned bias of each pair in a window, [heads, size^2, size^2]."""
        rows = 2 * self.window - 1  # differences along a side
        table = self.param(
            "relative_position_bias_table",
            nn.initializers.normal(0.02),
            (rows**2, self.heads),
        )
        place = np.indices((self.window, self.window)).reshape(2, -1)
        apart = place[:, :, None] - place[:, None] + self.window - 1
        return jnp.moveaxis(table[rows * apart[0] + apart[1]], -1, 0)


def _split(x, size):
    """[N, H, W, c] to [N, windows, size^2, c]."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // size, size, width // size, size, channels)
    return x.swapaxes(2, 3).reshape(count, -1, size * size, channels)


def _join(x, shape, size):
    """The inverse of `_split`."""
    count, height, width, channels = shape
    x = x.reshape(count, height // size, width // size, size, size, channels)
    return x.swapaxes(2, 3).reshape(shape)


def _mask(sides, size, shift):
    """-100 between places that only the roll made neighbours, [windows, 1, s^2, s^2]."""
    if not any(shift):
        return 0.0
    region = np.zeros((1, *sides, 1))
    for axis, (side, moved) in enumerate(zip(sides, shift), 1):
        place = np.arange(side)
        part = (place >= side - size).astype(int) + (place >= side - moved)
        region = 3 * region + np.expand_dims(part, [a for a in range(4) if a != axis])
    region = _split(region, size)[0, :, :, 0]
    return np.where(region[:, None, :, None] == region[:, None, None], 0.0, -100.0)


class Block(nn.Module):
    """Window attention and a perceptron, each behind a LayerNorm."""

    heads: int
    window: int
    shift: int

    @nn.compact
    def __call__(self, x):
        y, first = _norm(name="norm1")(x)
        x += WindowAttention(self.heads, self.window, self.shift, name="attn")(y)
        y, second = _norm(name="norm2")(x)
        y = nn.gelu(_dense(4 * x.shape[-1], name="mlp.0")(y), approximate=False)
        x += _dense(x.shape[-1], name="mlp.3")(y)
        return x, [first, second]


class SwinTiny(nn.Module):
    """Z. Liu et al., "Swin Transformer", ICCV 2021, https://arxiv.org/abs/2103.14030.

    As torchvision's `swin_t`. Where they are not given, `patch` is 4 pixels and
    `window` 7 patches beyond 64 pixels; up to 64, `window` is 4, and `patch` 2 from 32
    pixels on and 1 below. Windows that do not divide a map are padded. `features` are
    the pooled activations behind the last LayerNorm, 8 times `width` of them. There is
    no BatchNorm: `moments` are those of what the LayerNorms read, over the patches of
    an image, and `running` is empty (ours). Stochastic depth is left out.
    """

    num_classes: int
    width: int = 96
    heads: tuple[int, ...] = (3, 6, 12, 24)  # of each stage
    blocks: tuple[int, ...] = (2, 2, 6, 2)
    patch: int = 0  # pixels; 0 chooses by the size of the image
    window: int = 0  # patches; 0 chooses

    def check(self, shape):
        """ValueError if the options do not suit images of this shape."""
        if len(self.heads) != len(self.blocks):
            raise ValueError(
                f"{len(self.heads)} numbers of heads for {len(self.blocks)} stages."
            )
        for stage, heads in enumerate(self.heads):
            if self.width * 2**stage % heads:
                raise ValueError(
                    f"stage {stage} has {self.width * 2**stage} channels, not a "
                    f"multiple of its {heads} heads; set width or heads."
                )
        layers.check_patch(self.patch or layers.patch(shape), shape)

    @nn.compact
    def __call__(self, x, train: bool):
        del train  # nothing differs
        patch = self.patch or layers.patch(x.shape[1:])
        window = self.window or (4 if layers.is_small(x.shape[1:]) else 7)
        embed = layers.conv(
            self.width,
            patch,
            patch,
            padding=0,
            use_bias=True,
            init="torch",
            in_features=x.shape[-1],
            name="features.0.0",
        )
        x, report = _norm(name="features.0.2")(embed(x))
        reports = [report]
        for stage, (count, heads) in enumerate(zip(self.blocks, self.heads)):
            if stage > 0:
                name = f"features.{2 * stage}"
                x, report = _norm(name=f"{name}.norm")(_merge(x))
                x = _dense(x.shape[-1] // 2, use_bias=False, name=f"{name}.reduction")(
                    x
                )
                reports.append(report)
            for index in range(count):
                shift = window // 2 if index % 2 else 0
                name = f"features.{2 * stage + 1}.{index}"
                x, more = Block(heads, window, shift, name=name)(x)
                reports += more
        x, report = _norm(name="norm")(x)
        features = layers.pooled(x)
        logits = _dense(self.num_classes, name="head")(features)
        return logits, norms.outputs(features, [*reports, report])


def _merge(x):
    """Four neighbours side by side, [N, H, W, c] to [N, H/2, W/2, 4 c]; odd ones pad."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]  # down, then right
    return jnp.concatenate(parts, -1)

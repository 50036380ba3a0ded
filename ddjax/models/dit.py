"""Diffusion transformers: the noise in a latent, given its time and its class."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddjax.models import layers

__all__ = ["SIZES", "DiT", "positions", "time_embedding"]

_FREQUENCIES = 128  # of the time; fixed in the published networks
_DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}  # None: the parameters' own


class DiT(nn.Module):
    """W. Peebles and S. Xie, "Scalable Diffusion Models with Transformers", ICCV 2023.

    With x the tokens of z, and c = MLP(embedding of t) + row of the label,

        shift1, scale1, gate1, shift2, scale2, gate2 = Linear(SiLU(c))
        x += gate1 * Attention(LN(x) (1 + scale1) + shift1)
        x += gate2 * MLP(LN(x) (1 + scale2) + shift2)

    `depth` times, and one more modulated LayerNorm and a linear layer, which makes of
    each token `patch` x `patch` places of the output. Every gate is 0 at the start, and
    so is the last layer: the network predicts no noise until it is trained. Leaves have
    the names of the published weights. All layers are matrix products, as a
    convolution is slow inside of loops on a CPU.

    The label `num_classes` is the null label, for classifier-free guidance. With
    dtype "bfloat16" the blocks' matrix products are in bfloat16; the parameters, the
    tokens between the layers, LayerNorm, softmax and the last layer stay in float32.
    `remat` computes the blocks anew in the backward pass, to hold less memory. `scan`
    compiles one block instead of `depth` of them, for a copy of their weights at
    each call (XLA moves it out of a loop of calls); the variables stay as they are.

    Reference: https://arxiv.org/abs/2212.09748. The published code multiplies in the
    type of its parameters throughout (ours: bfloat16 beside float32).
    """

    num_classes: int
    width: int
    depth: int
    heads: int
    patch: int  # places of the latent a side
    learn_sigma: bool = False
    dtype: str = "float32"
    remat: bool = False
    scan: bool = False

    def check(self, shape):
        """ValueError if the options do not suit latents of this shape (h, w, c)."""
        layers.check_choice("dtype", self.dtype, list(_DTYPES))
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}."
            )
        if self.width % 4:
            raise ValueError(
                f"width {self.width} is not a multiple of 4: a token's place is sines "
                "and cosines of its row and its column."
            )
        layers.check_patch(self.patch, shape)

    @nn.compact
    def __call__(self, z, t, labels):
        """The network's estimate of the noise in z.

        Args:
          z: [N, h, w, c] latents, of scale about 1.
          t: [N] times of the process that the network was trained on, 0 to 999.
          labels: [N] classes; `num_classes` is the null label.

        Returns:
          The noise, [N, h, w, c] float32, and with `learn_sigma` [N, h, w, c], where
          between the two bounds of the log variance a step's lies (-1 is the lower,
          1 the upper); without it None.
        """
        self.check(z.shape[1:])
        _, h, w, channels = z.shape
        rows, columns = h // self.patch, w // self.patch
        dtype = _DTYPES[self.dtype]
        x = PatchEmbed(self.width, self.patch, dtype, name="x_embedder.proj")(z)
        x += jnp.asarray(positions(rows, columns, self.width), x.dtype)
        c = self._condition(t, labels)
        x = self._blocks(x, c, dtype)
        shift, scale = _modulation(c, 2, dtype, "final_layer.adaLN_modulation.1")
        outputs = (2 if self.learn_sigma else 1) * channels
        last = nn.Dense(
            self.patch**2 * outputs,
            kernel_init=nn.initializers.zeros,
            name="final_layer.linear",
        )
        y = _image(last(_modulate(x, shift, scale)), rows, columns, self.patch)
        return y[..., :channels], y[..., channels:] if self.learn_sigma else None

    def _blocks(self, x, c, dtype):
        names = [f"blocks.{index}" for index in range(self.depth)]
        if not self.scan or self.is_initializing():
            kind = nn.remat(Block) if self.remat else Block
            for name in names:
                x = kind(self.heads, dtype, name=name)(x, c)
            return x
        block = Block(self.heads, dtype, parent=None)

        def step(x, params):
            return block.apply({"params": params}, x, c), None

        params = [self.variables["params"][name] for name in names]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        return jax.lax.scan(jax.checkpoint(step) if self.remat else step, x, stacked)[0]

    def _condition(self, t, labels):
        """What the time and the label say to every block, [N, width]."""
        small = nn.initializers.normal(0.02)
        dense = partial(nn.Dense, self.width, kernel_init=small)
        y = dense(name="t_embedder.mlp.0")(time_embedding(t, 2 * _FREQUENCIES))
        y = dense(name="t_embedder.mlp.2")(nn.silu(y))
        rows, name = self.num_classes + 1, "y_embedder.embedding_table"
        table = nn.Embed(rows, self.width, embedding_init=small, name=name)
        return y + table(labels)


class Block(nn.Module):
    """Attention and a perceptron, both under the command of c [N, width]."""

    heads: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x, c):
        dense = partial(_dense, dtype=self.dtype)
        width = x.shape[-1]
        modulation = _modulation(c, 6, self.dtype, "adaLN_modulation.1")
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        packed = dense(3 * width, name="attn.qkv")(_modulate(x, shift1, scale1))
        packed = packed.reshape(*packed.shape[:2], 3, self.heads, -1)
        y = layers.attention(*jnp.moveaxis(packed, 2, 0)).reshape(x.shape)
        x += gate1 * dense(width, name="attn.proj")(y)
        y = dense(4 * width, name="mlp.fc1")(_modulate(x, shift2, scale2))
        y = nn.gelu(y, approximate=True)
        return x + gate2 * dense(width, name="mlp.fc2")(y)


class PatchEmbed(nn.Module):
    """Tokens [N, T, width] of z [N, h, w, c], row by row: a convolution's, as a product.

    The kernel [patch, patch, c, width] is a convolution's, so that published ones fit.
    """

    width: int
    patch: int
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, z):
        n, h, w, c = z.shape
        p = self.patch
        kernel = self.param("kernel", _xavier, (p, p, c, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x = z.reshape(n, h // p, p, w // p, p, c).swapaxes(2, 3)
        x = x.reshape(n, -1, p * p * c).astype(self.dtype or z.dtype)
        x = x @ kernel.reshape(p * p * c, self.width).astype(x.dtype)
        return x.astype(bias.dtype) + bias


def time_embedding(t, width: int):
    """[cos | sin] of t exp(-i ln(10^4) / half), i = 0 ... half - 1, half = width / 2.

    Args:
      t: [N] times.
      width: of the embedding, even.

    Returns:
      [N, width], float32 unless t is float64. Diffusers divides by half - 1 and has
      other frequencies; these are those that the published networks were trained with.
    """
    half = width // 2
    t = jnp.asarray(t)
    t = t.astype(jnp.promote_types(t.dtype, jnp.float32))
    frequencies = np.exp(-np.log(1e4) * np.arange(half) / half)
    angles = t[:, None] * jnp.asarray(frequencies, t.dtype)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def positions(rows: int, columns: int, width: int) -> np.ndarray:
    """The fixed code of each token's place, [rows * columns, width], row by row.

    The first half of the width is [sin | cos] of column * omega, the second half of
    row * omega; omega = 10^(-4 i / quarter), i = 0 ... quarter - 1, quarter = width / 4.
    """
    quarter = width // 4
    omega = 1e4 ** (-np.arange(quarter) / quarter)
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(place, omega) for place in (column, row)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)


def _modulation(c, count, dtype, name):
    """`count` arrays [N, 1, width] of c [N, width], all 0 at the start."""
    zeros = nn.initializers.zeros
    dense = nn.Dense(count * c.shape[-1], kernel_init=zeros, dtype=dtype, name=name)
    # Back in c's type: 1 + scale would lose bits in bfloat16.
    return jnp.split(dense(nn.silu(c)).astype(c.dtype)[:, None], count, axis=-1)


def _modulate(x, shift, scale):
    """LayerNorm of x [N, T, width], scaled and shifted."""
    mean = x.mean(-1, keepdims=True)
    x = (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * (1 + scale) + shift


def _image(y, rows, columns, patch):
    """Tokens [N, rows * columns, patch * patch * c] as [N, h, w, c]."""
    y = y.reshape(len(y), rows, columns, patch, patch, -1).swapaxes(2, 3)
    return y.reshape(len(y), rows * patch, columns * patch, -1)


def _xavier(key, shape, dtype=jnp.float32):
    """Xavier's uniform of a kernel seen as a matrix: its window counts as inputs."""
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.xavier_uniform()(key, matrix, dtype).reshape(shape)


_dense = partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())

SIZES = {
    "S": partial(DiT, width=384, depth=12, heads=6),
    "B": partial(DiT, width=768, depth=12, heads=12),
    "L": partial(DiT, width=1024, depth=24, heads=16),
    "XL": partial(DiT, width=1152, depth=28, heads=16),
}

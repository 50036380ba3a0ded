"""Layers shared by the networks, with PyTorch's paddings and defaults."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddjax.models import convolution, norms

__all__ = [
    "attention",
    "avg_pool",
    "check_choice",
    "check_patch",
    "check_stages",
    "conv",
    "conv_norm",
    "dense",
    "is_small",
    "max_pool",
    "patch",
    "pooled",
]


def _uniform_fan_in(gain_squared: float, fan_in: int | None = None):
    """Uniform on +-sqrt(3 gain^2 / fan_in), PyTorch's default for kernels and biases."""

    def init(key, shape, dtype=jnp.float32):
        inputs = fan_in or math.prod(shape[:-1])
        bound = math.sqrt(3 * gain_squared / inputs)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# torch.nn's reset_parameters: kaiming_uniform(a=sqrt(5)) has gain^2 = 2 / (1 + 5),
# so the bound is 1 / sqrt(fan_in), for the bias too.
_TORCH = 1 / 3


class _Conv(nn.Module):
    """A square convolution; see `conv`."""

    features: int
    size: int
    stride: int
    padding: int
    groups: int
    use_bias: bool
    initializer: str | float
    in_features: int

    def __call__(self, x):
        y, bias = self.apart(x)
        return y if bias is None else y + bias

    @nn.compact
    def apart(self, x):
        """The convolution alone, and the bias that is still to be added, or None."""
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", _kernel_init(self.initializer), shape)
        y = convolution.convolve(
            *nn.dtypes.promote_dtype(x, kernel),
            (self.stride,) * 2,
            ((self.padding,) * 2,) * 2,
            groups=self.groups,
        )
        if not self.use_bias:
            return y, None
        init = _bias_init(self.initializer, self.size**2 * self.in_features)
        return y, self.param("bias", init, (self.features,))


def conv(
    features: int,
    size: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    groups: int = 1,
    use_bias: bool = False,
    init: str | float = "he",
    in_features: int = 0,
    name: str | None = None,
) -> _Conv:
    """A square convolution with the same explicit padding on both sides.

    (Flax's "SAME" pads a strided convolution on one side only; PyTorch does not.)

    Args:
      features: output channels.
      size: of the kernel.
      stride: in both directions.
      padding: on each side; size // 2 where None.
      groups: of channels that do not see one another; `features` for a depthwise one.
      use_bias: adds one number per output channel.
      init: "he" (normal, fan out: torchvision's convolutional networks), "torch"
        (`nn.Conv2d`'s), or the standard deviation of a normal.
      in_features: input channels, which the bias of "torch" depends on.
      name: of the layer in PyTorch's network.
    """
    padding = size // 2 if padding is None else padding
    return _Conv(
        features,
        size,
        stride,
        padding,
        groups,
        use_bias,
        init,
        in_features,
        name=name,
    )


def dense(
    features: int,
    in_features: int = 0,
    *,
    use_bias: bool = True,
    init: str | float = "torch",
    name: str | None = None,
) -> nn.Dense:
    """A linear layer, by default with `torch.nn.Linear`'s initialisation.

    Args:
      features: outputs.
      in_features: inputs, which the bias of "torch" depends on.
      use_bias: adds one number per output.
      init: "torch", "he", or the standard deviation of a normal.
      name: of the layer in PyTorch's network.
    """
    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=_kernel_init(init),
        bias_init=_bias_init(init, in_features),
        name=name,
    )


def _kernel_init(init):
    if isinstance(init, str):
        return {
            "he": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            "torch": _uniform_fan_in(_TORCH),
        }[init]
    # trunc_normal_ of torch and timm cuts at +-2, a hundred deviations: not at all.
    return nn.initializers.normal(init)


def _bias_init(init, fan_in):
    if init == "torch":
        return _uniform_fan_in(_TORCH, fan_in)
    return nn.initializers.zeros


def conv_norm(x, train: bool, names: tuple[str, str], kind: str = "batch", **options):
    """A convolution (`options` are `conv`'s) and its `norms.norm`: `(y, reports)`."""
    x, bias = conv(name=names[0], **options).apart(x)
    return norms.norm(x, kind, train, bias, name=names[1])


def attention(query, key, value, bias=0.0):
    """softmax(q k^T / sqrt(d) + bias) v.

    Args:
      query, key, value: [..., tokens, heads, d].
      bias: what broadcasts to [..., heads, tokens, tokens].

    Returns:
      [..., tokens, heads, d]; the weights are float32 within.
    """
    scores = jnp.einsum("...qhd,...khd->...hqk", query, key)
    scores = scores.astype(jnp.float32) / math.sqrt(query.shape[-1]) + bias
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


def avg_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """The mean of each size x size pixels of x [N, H, W, c]; what is over is left out.

    A sum of slices: next to ReLU, XLA's windows first write out arrays of constants, as
    large as x, on a CPU.
    """
    count, height, width, channels = x.shape
    height, width = height // size, width // size
    x = x[:, : height * size, : width * size]
    x = x.reshape(count, height, size, width, size, channels)
    corners = [x[:, :, i, :, j] for i in range(size) for j in range(size)]
    return sum(corners) / size**2


def pooled(x: jax.Array) -> jax.Array:
    """Features [N, c]: the mean over the pixels of x [N, H, W, c], float32 at least.

    So the last layer's logits are, too: of eight bits, some would be equal.
    """
    return jnp.mean(norms.widened(x), (1, 2))


def max_pool(x: jax.Array) -> jax.Array:
    """The 3x3 max pooling of stride 2 of torchvision's stems."""
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def is_small(shape: Sequence[int]) -> bool:
    """Whether images [H, W, ch] get the small form of a network: up to 64 pixels."""
    return min(shape[:2]) <= 64


def patch(shape: Sequence[int]) -> int:
    """The patch, in pixels, of Swin and ConvNeXt for images [H, W, ch]."""
    if not is_small(shape):
        return 4
    return 2 if min(shape[:2]) >= 32 else 1


def check_patch(size: int, shape: Sequence[int]):
    """ValueError if patches of `size` pixels would leave out a part of the image."""
    if shape[0] % size or shape[1] % size:
        common = math.gcd(*shape[:2])
        fits = [p for p in range(1, common + 1) if not common % p]
        raise ValueError(
            f"patch {size} does not divide images of {shape[0]}x{shape[1]} pixels; "
            f"set patch to one of {', '.join(map(str, fits))}, or resize the images."
        )


def check_choice(what: str, got: str, known: Sequence[str]):
    """ValueError that lists what is known, if `got` is not."""
    if got not in known:
        raise ValueError(f"unknown {what} {got!r}; known: {', '.join(known)}.")


def check_stages(blocks: Sequence[int], count: int):
    """ValueError if `blocks` does not give each of `count` stages at least one."""
    if len(blocks) != count or min(blocks) < 1:
        raise ValueError(
            f"blocks {tuple(blocks)} should be {count} numbers of at least 1, one for "
            "each stage."
        )

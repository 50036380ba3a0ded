"""Layers shared by the networks, with PyTorch's paddings, updates and defaults."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddjax.types import Moments

__all__ = ["BatchNorm", "conv", "dense", "instance_norm", "patches_conv"]


def patches_conv(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    precision=None,
    **_,
):
    """A convolution as shifted copies and one matrix product; exact, NHWC.

    On a CPU, XLA's convolution is slow for small images, and its backward pass 40
    times slower still inside `lax.scan`; this form is not. It holds kh * kw copies of
    the input, so it is meant for small images.
    """
    if feature_group_count != 1 or any(
        d not in (None, 1, (1, 1)) for d in (lhs_dilation, rhs_dilation)
    ):
        raise ValueError("patches_conv knows neither groups nor dilation.")
    del dimension_numbers  # flax always asks for NHWC, HWIO
    kh, kw, channels, width = rhs.shape
    x = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    sh, sw = window_strides
    height = (x.shape[1] - kh) // sh + 1
    columns = (x.shape[2] - kw) // sw + 1
    shifted = [
        x[:, i : i + (height - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    kernel = rhs.reshape(kh * kw * channels, width)
    return jnp.matmul(patches, kernel, precision=precision)


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


def conv(
    features: int,
    size: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    use_bias: bool = False,
    init: str = "he",
    in_features: int = 0,
    hook: Callable | None = None,
    name: str | None = None,
) -> nn.Conv:
    """A square convolution with the same explicit padding on both sides.

    (Flax's "SAME" pads a strided convolution on one side only; PyTorch does not.)

    Args:
      features: output channels.
      size: of the kernel.
      stride: in both directions.
      padding: on each side; size // 2 where None.
      use_bias: adds one number per output channel.
      init: "he" (normal, fan out: torchvision's ResNets) or "torch" (`nn.Conv2d`'s).
      in_features: input channels, which the bias of "torch" depends on.
      hook: stands in for `jax.lax.conv_general_dilated`.
      name: of the layer in PyTorch's network.
    """
    padding = size // 2 if padding is None else padding
    kernel_init = {
        "he": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        "torch": _uniform_fan_in(_TORCH),
    }[init]
    bias_init = nn.initializers.zeros
    if use_bias and init == "torch":
        bias_init = _uniform_fan_in(_TORCH, size * size * in_features)
    return nn.Conv(
        features,
        (size, size),
        stride,
        padding=((padding, padding), (padding, padding)),
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        conv_general_dilated=hook,
        name=name,
    )


def dense(features: int, in_features: int, *, name: str | None = None) -> nn.Dense:
    """A linear layer with `torch.nn.Linear`'s default initialisation."""
    return nn.Dense(
        features,
        kernel_init=_uniform_fan_in(_TORCH),
        bias_init=_uniform_fan_in(_TORCH, in_features),
        name=name,
    )


class BatchNorm(nn.Module):
    """BatchNorm as PyTorch has it, which also tells what it saw.

    Differs from `flax.linen.BatchNorm` in two ways: the running variance is updated
    with the *unbiased* variance of the batch (PyTorch), and the call returns
    `(y, moments, running)`, where `moments` are those of each image of the input and
    `running` the layer's statistics before the call. From the per-image moments the
    statistics of any group of images follow by the law of total variance, without
    the cancellation of E[x^2] - E[x]^2.
    """

    momentum: float = 0.9  # PyTorch's 0.1, counted from the other side
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, train: bool):
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running = Moments(
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        )
        before = Moments(running.mean.value, running.var.value)
        # Statistics in float32, also when the convolutions run in bfloat16.
        wide = x.astype(jnp.float32)
        moments = Moments(wide.mean((1, 2)), wide.var((1, 2)))
        used = before
        if train:
            used = Moments(wide.mean((0, 1, 2)), wide.var((0, 1, 2)))
            count = math.prod(x.shape[:-1])
            unbiased = used.var * (count / max(count - 1, 1))
            keep = self.momentum
            running.mean.value = keep * before.mean + (1 - keep) * used.mean
            running.var.value = keep * before.var + (1 - keep) * unbiased
        factor = scale * jax.lax.rsqrt(used.var + self.epsilon)
        y = (wide - used.mean) * factor + bias
        return y.astype(x.dtype), moments, before


def instance_norm(*, name: str | None = None) -> nn.GroupNorm:
    """InstanceNorm with learned scale and bias: one group per channel."""
    return nn.GroupNorm(
        num_groups=None,
        group_size=1,
        epsilon=1e-5,
        # The fast variance, E[x^2] - E[x]^2, cancels where the mean is large.
        use_fast_variance=False,
        name=name,
    )

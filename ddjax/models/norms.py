"""Normalisation as PyTorch has it; each layer also tells what it saw.

A network collects `reports`: pairs (moments, running) of each layer it passes, where
`running` is None for layers that keep no statistics. `outputs` sorts them.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddjax.types import Moments

__all__ = [
    "BatchNorm",
    "LayerNorm",
    "image_moments",
    "instance_norm",
    "norm",
    "outputs",
    "widened",
]


class BatchNorm(nn.Module):
    """BatchNorm as PyTorch has it, which also tells what it saw.

    Differs from `flax.linen.BatchNorm` in two ways: the running variance is updated
    with the *unbiased* variance of the batch (PyTorch), and the call returns
    `(y, moments, running)`, where `moments` are those of each image of the input and
    `running` the layer's statistics before the call. From the per-image moments the
    statistics of any group of images follow by the law of total variance, without
    the cancellation of E[x^2] - E[x]^2.

    A convolution's bias may come as `shift`, [c], what is still to be added to x. It
    moves the means and nothing else, so the pass over x that adds it, and in training
    the one that sums its gradient (zero, but for rounding), are saved.
    """

    momentum: float = 0.9  # PyTorch's 0.1, counted from the other side
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, train: bool, shift=0.0):
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running = Moments(
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", jnp.ones, shape),
        )
        before = Moments(running.mean.value, running.var.value)
        # Statistics in float32, also when the convolutions run in bfloat16.
        wide = widened(x)
        moments = _moved(image_moments(wide), shift)
        if train:
            y, used = _standardised(wide, scale, bias, self.epsilon)
            used = _moved(used, shift)
            count = math.prod(x.shape[:-1])
            unbiased = used.var * (count / max(count - 1, 1))
            keep = self.momentum
            running.mean.value = keep * before.mean + (1 - keep) * used.mean
            running.var.value = keep * before.var + (1 - keep) * unbiased
        else:
            factor = scale * jax.lax.rsqrt(before.var + self.epsilon)
            y = (wide - (before.mean - shift)) * factor + bias
        return y.astype(x.dtype), moments, before


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _standardised(x, scale, bias, epsilon):
    """`(scale (x - mean) / sqrt(var + epsilon) + bias, (mean, var))` of a batch x."""
    moments = Moments(x.mean((0, 1, 2)), x.var((0, 1, 2)))
    factor = scale * jax.lax.rsqrt(moments.var + epsilon)
    return (x - moments.mean) * factor + bias, moments


@_standardised.defjvp
def _(epsilon, given, tangents):
    """The derivative, so written that its transpose sums over the batch twice.

    JAX's own sums more often, which a small network feels.
    """
    (x, scale, bias), (dx, dscale, dbias) = given, tangents
    y, moments = _standardised(x, scale, bias, epsilon)
    centred = x - moments.mean
    inverse = jax.lax.rsqrt(moments.var + epsilon)
    factor = scale * inverse
    dmean, half_dvar = dx.mean((0, 1, 2)), (centred * dx).mean((0, 1, 2))
    dfactor = dscale * inverse - factor * inverse**2 * half_dvar
    dy = dx * factor + (dbias - factor * dmean) + centred * dfactor
    return (y, moments), (dy, Moments(dmean, 2 * half_dvar))


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


class LayerNorm(nn.Module):
    """LayerNorm over the last axis, which also tells what it saw.

    Returns `(y, report)`. The moments in the report are those of each image over its tokens or
    pixels, channel by channel, as `BatchNorm` reports them. LayerNorm itself does not
    use them: they give networks without BatchNorm statistics to match (ours).
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x):
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        wide = widened(x)
        centred = wide - wide.mean(-1, keepdims=True)
        factor = jax.lax.rsqrt(wide.var(-1, keepdims=True) + self.epsilon)
        y = centred * factor * scale + bias
        return y.astype(x.dtype), (image_moments(wide), None)


def image_moments(x: jax.Array) -> Moments:
    """Moments [N, c] of each image of x [N, ..., c], over pixels or tokens."""
    wide = widened(x)
    inside = tuple(range(1, x.ndim - 1))
    return Moments(wide.mean(inside), wide.var(inside))


def widened(x: jax.Array) -> jax.Array:
    """In float32 at least: what is summed, and what the last layer reads."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _moved(moments, shift):
    return moments._replace(mean=moments.mean + shift)


def norm(x, kind: str, train: bool, bias=None, *, name: str):
    """Normalises x [N, H, W, c] + bias [c] by "batch", "instance" or "none".

    Returns:
      `(y, reports)`: pairs (moments, running), none or one. InstanceNorm makes the
      moments of all images the same, so there is nothing to report; "none" reports
      those of what BatchNorm would read, without running statistics (ours).
    """
    bias = 0.0 if bias is None else bias
    if kind == "batch":
        y, *report = BatchNorm(name=name)(x, train, bias)
        return y, [report]
    if kind == "instance":
        # Whatever the bias; it computes in float32.
        return instance_norm(name=name)(x).astype(x.dtype), []
    x = x + bias
    return x, [(image_moments(x), None)]


def outputs(features: jax.Array, reports: Sequence) -> dict:
    """What a network returns beside the logits, from the `reports` of its norms."""
    return {
        "features": features,
        "moments": tuple(moments for moments, _ in reports),
        "running": tuple(running for _, running in reports if running is not None),
    }

"""The one convolution behind all networks, in the form that is faster here."""

import jax
import jax.numpy as jnp

from ddjax import parallel

__all__ = ["convolve", "patches"]

_BLOCK = 2**19  # bytes of patches: what stays in a core's cache


def convolve(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    precision=None,
    **options,
):
    """`jax.lax.conv_general_dilated` as flax calls it: NHWC, HWIO.

    On a CPU products of matrices (`patches`), where there are neither groups nor
    dilation: XLA's gradient in the kernel is up to forty times slower there, and so is,
    inside of loops, every gradient of its convolutions. Elsewhere, and while
    `parallel.cost` counts operations, XLA's own.
    """
    dilated = any(d not in (None, 1, (1, 1)) for d in (lhs_dilation, rhs_dilation))
    counted = parallel.counting.value
    if parallel.is_cpu() and not counted and feature_group_count == 1 and not dilated:
        return patches(lhs, rhs, window_strides, padding, precision=precision)
    return jax.lax.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        precision=precision,
        **options,
    )


def patches(
    lhs: jax.Array, rhs: jax.Array, window_strides, padding, *, precision=None
) -> jax.Array:
    """A convolution as shifted copies and a product of matrices, a few images at a time.

    The copies take kh kw times the memory of the images. Half a megabyte of them stays
    in the cache from the copying to the product; all of them together would go out to
    memory and back. They are made again for the backward pass, which is cheaper than
    keeping them.

    Args:
      lhs: [N, H, W, ch].
      rhs: [kh, kw, ch, features].
      window_strides: (rows, columns).
      padding: ((top, bottom), (left, right)) zeros.
      precision: of the product.

    Returns:
      [N, H', W', features], as `jax.lax.conv_general_dilated` but for rounding (1e-5).
    """
    kh, kw, channels, width = rhs.shape
    sh, sw = window_strides
    count = len(lhs)
    x = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    height = (x.shape[1] - kh) // sh + 1
    columns = (x.shape[2] - kw) // sw + 1
    kernel = rhs.reshape(kh * kw * channels, width)

    def product(x):
        copies = [
            x[
                :,
                i : i + (height - 1) * sh + 1 : sh,
                j : j + (columns - 1) * sw + 1 : sw,
            ]
            for i in range(kh)
            for j in range(kw)
        ]
        return jnp.matmul(jnp.concatenate(copies, -1), kernel, precision=precision)

    image = height * columns * len(kernel) * lhs.dtype.itemsize
    blocks = -(-count * image // _BLOCK)
    if kh * kw == 1 or blocks < 2 or count < 2:
        return product(x)
    size = -(-count // min(blocks, count))
    blocks = -(-count // size)
    # Equal blocks: zeros fill the last one.
    x = jnp.pad(x, ((0, blocks * size - count), (0, 0), (0, 0), (0, 0)))
    x = x.reshape(blocks, size, *x.shape[1:])
    y = jax.lax.map(jax.checkpoint(product), x)
    return y.reshape(blocks * size, height, columns, width)[:count]

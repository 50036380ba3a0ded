"""The one convolution behind all networks, in the form that is faster here."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from ddjax import parallel

__all__ = ["convolve", "kernel_gradient", "patches"]

_BLOCK = 2**20  # bytes of copies: what stays in a core's cache
# Below so many channels, or pixels a side, products are faster than XLA's convolution.
_FEW, _SMALL = 16, 4
_NUMBERS = ("NHWC", "HWIO", "NHWC")  # dimensions of images, kernel and result


def convolve(
    lhs: jax.Array, rhs: jax.Array, strides, padding, *, groups: int = 1
) -> jax.Array:
    """The convolution of [N, H, W, ch] with [kh, kw, ch / groups, features].

    On a CPU, where there are no groups, it is what is fastest there. XLA convolves
    images well; its gradients are slower, and inside of loops many times slower. So
    with stride 1 both gradients are ours (`_conv`), and with others, or where
    `jax.shard_map` checks what varies, all is products of matrices (`patches`).
    Elsewhere, and while `parallel.cost` counts operations, XLA's own.

    Args:
      lhs: [N, H, W, ch].
      rhs: [kh, kw, ch / groups, features].
      strides: (rows, columns).
      padding: ((top, bottom), (left, right)) zeros.
      groups: of channels that do not see one another.

    Returns:
      [N, H', W', features], the same in all forms but for rounding (1e-5).
    """
    if parallel.is_cpu() and not parallel.counting.value and groups == 1:
        return _on_cpu(lhs, rhs, tuple(strides), padding)
    return jax.lax.conv_general_dilated(
        lhs,
        rhs,
        strides,
        padding,
        dimension_numbers=_NUMBERS,
        feature_group_count=groups,
    )


def _on_cpu(lhs, rhs, strides, padding):
    size = rhs.shape[:2]
    # The gradient's padding is what the kernel's size leaves of this one.
    fits = all(max(pair) < k for pair, k in zip(padding, size))
    if strides == (1, 1) and math.prod(size) > 1 and fits and not _followed(lhs, rhs):
        return _conv_p.bind(lhs, rhs, padding=tuple(map(tuple, padding)))
    return patches(lhs, rhs, strides, padding)


def _followed(*arrays):
    """Whether JAX notes which devices differ in these, as `jax.shard_map` asks it to.

    It does so through its own primitives alone.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return False
    return any(jax.typeof(x).manual_axis_type.varying for x in arrays)


def patches(lhs: jax.Array, rhs: jax.Array, strides, padding) -> jax.Array:
    """A convolution as shifted copies and a product of matrices, a few images at a time.

    The copies take kh kw times the memory of the images. A megabyte of them stays in
    the cache from the copying to the product; all of them together would go out to
    memory and back. They are made again for the backward pass, which is cheaper than
    keeping them.

    Args:
      lhs: [N, H, W, ch].
      rhs: [kh, kw, ch, features].
      strides: (rows, columns).
      padding: ((top, bottom), (left, right)) zeros.

    Returns:
      [N, H', W', features].
    """
    kh, kw, channels, width = rhs.shape
    kernel = rhs.reshape(kh * kw * channels, width)

    def product(x):
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        return jnp.matmul(_shifted(x, (kh, kw), strides), kernel)

    count, height, columns, _ = jax.eval_shape(product, lhs).shape

    size = _block(count, height * columns * lhs.dtype.itemsize, len(kernel), width)
    if kh * kw == 1 or size == count:
        return product(lhs)
    y = jax.lax.map(jax.checkpoint(product), _blocks(lhs, size))
    return y.reshape(-1, height, columns, width)[:count]


def kernel_gradient(
    lhs: jax.Array, out: jax.Array, *, size: tuple[int, int], padding
) -> jax.Array:
    """The gradient of a convolution of stride 1 in its kernel, by products of matrices.

    Either the copies of the images are shifted in both directions, or, where that takes
    less memory, those of the images along the rows and those of `out` down the columns.

    Args:
      lhs: [N, H, W, ch], what was convolved.
      out: [N, H', W', features], the gradient in the result.
      size: (kh, kw) of the kernel.
      padding: ((top, bottom), (left, right)) zeros round `lhs`.

    Returns:
      [kh, kw, ch, features].
    """
    (kh, kw), channels, features = size, lhs.shape[-1], out.shape[-1]
    (top, bottom), sides = padding
    count, height, columns = out.shape[:3]
    wide = jnp.promote_types(lhs.dtype, jnp.float32)  # what is summed
    split = kw * channels + kh * features < kh * kw * channels

    def product(x, out):
        if split:
            # Row r of the images meets row r + top - i of the result under the
            # kernel's i.
            rows = (kh - 1 - top, kh - 1 - bottom)
            x = _shifted(jnp.pad(x, ((0, 0), (0, 0), sides, (0, 0))), (1, kw))
            out = _shifted(jnp.pad(out, ((0, 0), rows, (0, 0), (0, 0))), (kh, 1))
        else:
            x = _shifted(jnp.pad(x, ((0, 0), *padding, (0, 0))), size)
        x, out = x.reshape(-1, x.shape[-1]), out.reshape(-1, out.shape[-1])
        return jnp.matmul(x.T, out, preferred_element_type=wide)

    place = height * columns * lhs.dtype.itemsize
    copies = kw * channels + kh * features if split else kh * kw * channels
    block = _block(count, place, copies, features)
    if block == count:
        found = product(lhs, out)
    else:
        pairs = _blocks(lhs, block), _blocks(out, block)
        zeros = jnp.zeros_like(jax.eval_shape(product, lhs, out))
        found, _ = jax.lax.scan(lambda a, b: (a + product(*b), None), zeros, pairs)
    found = found.astype(lhs.dtype)
    if split:
        # The last copy of the result is that of the kernel's first row.
        found = found.reshape(kw, channels, kh, features)[:, :, ::-1]
        return found.transpose(2, 0, 1, 3)
    return found.reshape(kh, kw, channels, features)


def _shifted(x, size, strides=(1, 1)):
    """For each place what the kernel sees there: [n, H', W', kh * kw * ch]."""
    (kh, kw), (sh, sw) = size, strides
    height, columns = ((n - k) // s + 1 for n, k, s in zip(x.shape[1:], size, strides))
    copies = [
        x[:, i : i + (height - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]
        for i in range(kh)
        for j in range(kw)
    ]
    return jnp.concatenate(copies, -1)


def _block(count, place, copies, features):
    """Images at a time, of `count`.

    All, where the copies take no more memory than the result, or as many as stay in the
    cache: an image has `place` bytes in a channel, and so many channels of either.
    """
    if copies <= features:
        return count
    blocks = min(-(-count * place * copies // _BLOCK), count)
    return -(-count // max(blocks, 1))


def _blocks(x, size):
    """[blocks, size, ...]: equal ones, zeros fill the last."""
    blocks = -(-len(x) // size)
    x = jnp.pad(x, ((0, blocks * size - len(x)), *[(0, 0)] * (x.ndim - 1)))
    return x.reshape(blocks, size, *x.shape[1:])


# A convolution of stride 1 is linear in the images and in the kernel. Its gradient in
# the images is such a convolution again, with the kernel turned round, and the one in
# the kernel is linear in the images and in the result. So the two operations below are
# closed under differentiation, forwards, backwards, and again.


def _conv(lhs, rhs, *, padding):
    """[N, H, W, ch] and [kh, kw, ch, features] to [N, H', W', features]."""
    if lhs.shape[-1] < _FEW or min(lhs.shape[1:3]) < _SMALL:
        return patches(lhs, rhs, (1, 1), padding)
    return jax.lax.conv_general_dilated(
        lhs, rhs, (1, 1), padding, dimension_numbers=_NUMBERS
    )


def _images_gradient(out, rhs, padding):
    """The gradient in the images: each pixel collects from where it was seen."""
    padding = tuple(
        (k - 1 - low, k - 1 - high) for k, (low, high) in zip(rhs.shape, padding)
    )
    turned = rhs[::-1, ::-1].swapaxes(2, 3)
    return _conv_p.bind(out, turned, padding=padding)


def _as_images(x, axis):
    """A batch along an axis as more images, or whatever comes first."""
    x = jnp.moveaxis(x, axis, 0)
    return x.reshape(-1, *x.shape[2:])


def _as_features(x, axis):
    """A batch along an axis as more features, those of each together."""
    x = jnp.moveaxis(x, axis, -2)
    return x.reshape(*x.shape[:-2], -1)


def _batched_conv(arguments, axes, *, padding):
    """Batches of images are more images; those of kernels more features, or products."""
    (lhs, rhs), (lhs_axis, rhs_axis) = arguments, axes
    if rhs_axis is None:
        out = _conv_p.bind(_as_images(lhs, lhs_axis), rhs, padding=padding)
        return out.reshape(lhs.shape[lhs_axis], -1, *out.shape[1:]), 0
    if lhs_axis is None:
        out = _conv_p.bind(lhs, _as_features(rhs, rhs_axis), padding=padding)
        return out.reshape(*out.shape[:-1], rhs.shape[rhs_axis], -1), out.ndim - 1
    one = functools.partial(patches, strides=(1, 1), padding=padding)
    return jax.vmap(one, axes)(lhs, rhs), 0


def _batched_kernel(arguments, axes, *, size, padding):
    (lhs, out), (lhs_axis, out_axis) = arguments, axes
    options = {"size": size, "padding": padding}
    if lhs_axis is None:
        found = _kernel_p.bind(lhs, _as_features(out, out_axis), **options)
        return found.reshape(*found.shape[:-1], out.shape[out_axis], -1), 3
    return jax.vmap(functools.partial(kernel_gradient, **options), axes)(lhs, out), 0


def _primitive(name, function, static):
    """A JAX primitive of a function; how it is differentiated and batched comes after."""
    primitive = core.Primitive(name)
    primitive.def_impl(jax.jit(function, static_argnames=static))

    def shaped(*arguments, **options):
        found = jax.eval_shape(functools.partial(function, **options), *arguments)
        return jax.core.ShapedArray(found.shape, found.dtype)

    primitive.def_abstract_eval(shaped)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    return primitive


_conv_p = _primitive("convolve", _conv, ("padding",))
ad.defbilinear(
    _conv_p,
    lambda out, lhs, rhs, *, padding: _images_gradient(out, rhs, padding),
    lambda out, lhs, rhs, *, padding: _kernel_p.bind(
        lhs, out, size=rhs.aval.shape[:2], padding=padding
    ),
)
batching.primitive_batchers[_conv_p] = _batched_conv

_kernel_p = _primitive("kernel_gradient", kernel_gradient, ("size", "padding"))
ad.defbilinear(
    _kernel_p,
    lambda kernel, lhs, out, *, size, padding: _images_gradient(out, kernel, padding),
    lambda kernel, lhs, out, *, size, padding: _conv_p.bind(
        lhs, kernel, padding=padding
    ),
)
batching.primitive_batchers[_kernel_p] = _batched_kernel

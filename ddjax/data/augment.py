"""Augmentation on the device: keyed, differentiable in the images, one shape.

The crop is torchvision's RandomResizedCrop (area uniform in `scale`, log-uniform
aspect ratio, ten tries, then a central crop), resized bilinearly with half-pixel
centres; where the crop is larger than the output, with torchvision's antialiasing.
Colours are in `color`, CutMix and MixUp in `mixing`; all are callable from here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.data.color import color_jitter, lighting
from ddjax.data.mixing import Mixed, cutmix, cutmix_box, mixup

__all__ = [
    "CropFlipRoll",
    "Mixed",
    "color_jitter",
    "crop_resize",
    "cutmix",
    "cutmix_box",
    "lighting",
    "mixup",
    "pad_crop",
    "patch_shuffle",
    "random_crop",
    "random_crop_pad",
    "random_flip",
    "random_roll",
    "sample_crop",
]

_TRIES = 10  # torchvision's


def crop_resize(images: jax.Array, box: jax.Array, size=None) -> jax.Array:
    """Cuts one box out of all images and resizes it, as torchvision's resized_crop.

    Args:
      images: [N, H, W, ch], floating point.
      box: [4], (top, left, height, width) in pixels; may be traced.
      size: (height, width) of the output, or one number for both; None for the
        images' own. A side of the box that is longer than the output's is shrunk with
        antialiasing.

    Returns:
      [N, height, width, ch]. Pixels outside the box are never mixed in: the resize
      clamps at the box's edges, as cropping first would.
    """
    top, left, box_height, box_width = box
    height, width = _pair(images.shape[1:3] if size is None else size)
    rows = _resize_matrix(images.shape[1], height, top, box_height)
    columns = _resize_matrix(images.shape[2], width, left, box_width)
    rows, columns = rows.astype(images.dtype), columns.astype(images.dtype)
    highest = jax.lax.Precision.HIGHEST
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision=highest)
    return jnp.einsum("jw,niwc->nijc", columns, images, precision=highest)


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _resize_matrix(size: int, out: int, start, length) -> jax.Array:
    """[out, size] weights of linear interpolation from `length` pixels to `out`."""
    centres = (jnp.arange(out) + 0.5) * length / out - 0.5
    pixels = jnp.arange(size)
    clamped = start + jnp.clip(centres, 0, length - 1)
    enlarging = jnp.maximum(0.0, 1.0 - jnp.abs(clamped[:, None] - pixels))
    if out >= size:  # no box is longer than the image
        return enlarging
    # The triangle widens with the step from pixel to pixel, and is cut at the box.
    inside = (pixels >= start) & (pixels < start + length)
    distance = jnp.abs(start + centres[:, None] - pixels) * out / length
    shrinking = jnp.where(inside, jnp.maximum(0.0, 1.0 - distance), 0.0)
    # Not 0/0 in the branch that is thrown away: a short box may lie between centres.
    total = shrinking.sum(1, keepdims=True)
    shrinking /= jnp.where(total > 0, total, 1.0)
    return jnp.where(length > out, shrinking, enlarging)


def sample_crop(key, height: int, width: int, scale, ratio=(3 / 4, 4 / 3)):
    """Draws the box of a RandomResizedCrop.

    Args:
      key: consumed.
      height: of the image, pixels.
      width: of the image, pixels.
      scale: (lowest, highest) share of the area; the bounds may be traced.
      ratio: (lowest, highest) aspect ratio, width over height.

    Returns:
      [4] float32, (top, left, height, width), whole pixels.
    """
    key_area, key_ratio, key_top, key_left = jax.random.split(key, 4)
    low, high = scale
    area = height * width * (low + (high - low) * jax.random.uniform(key_area, _TRIES))
    log_ratio = jnp.log(jnp.array(ratio))
    aspect = jnp.exp(
        jax.random.uniform(key_ratio, _TRIES, minval=log_ratio[0], maxval=log_ratio[1])
    )
    w = jnp.round(jnp.sqrt(area * aspect))
    h = jnp.round(jnp.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = jnp.argmax(fits)
    # No try fits: the largest central crop whose aspect ratio is allowed.
    central_w = min(width, round(height * ratio[1]))
    central_h = min(height, round(width / ratio[0]))
    h = jnp.where(fits.any(), h[first], central_h)
    w = jnp.where(fits.any(), w[first], central_w)
    top = jnp.floor(jax.random.uniform(key_top) * (height - h + 1))
    left = jnp.floor(jax.random.uniform(key_left) * (width - w + 1))
    top = jnp.where(fits.any(), top, (height - h) // 2)
    left = jnp.where(fits.any(), left, (width - w) // 2)
    return jnp.stack([top, left, h, w])


def random_crop(key, images: jax.Array, scale, *, shared: bool, size=None) -> jax.Array:
    """RandomResizedCrop of a batch.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      scale: (lowest, highest) share of the area kept.
      shared: one box for the whole batch (recovering images), or one for each image.
      size: of the output, as for `crop_resize`.
    """
    height, width = images.shape[1:3]
    if shared:
        return crop_resize(images, sample_crop(key, height, width, scale), size)

    def one(key, image):
        box = sample_crop(key, height, width, scale)
        return crop_resize(image[None], box, size)[0]

    return jax.vmap(one)(jax.random.split(key, len(images)), images)


def random_crop_pad(
    key, images: jax.Array, padding: int, *, shared: bool = False
) -> jax.Array:
    """Shifts by up to `padding` pixels each way, zeros moving in: CIFAR's usual crop.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      padding: largest shift, pixels, inclusive.
      shared: one shift for the whole batch, or one for each image.
    """
    count = 1 if shared else len(images)
    start = jax.random.randint(key, (count, 2), 0, 2 * padding + 1)
    return pad_crop(images, start, (padding, padding))


def pad_crop(images: jax.Array, start: jax.Array, padding) -> jax.Array:
    """Cuts images of the same size out of zero-padded ones.

    Args:
      images: [N, H, W, ch].
      start: [1, 2] for all images, or [N, 2], int: (row, column) of the padded image
        at which the cut begins; 0 .. 2 * padding.
      padding: (rows, columns) of zeros on each side.
    """
    edges = [(0, 0), *((width, width) for width in padding), (0, 0)]
    padded = jnp.pad(images, edges)

    def cut(image, start):
        return jax.lax.dynamic_slice(image, (*start, 0), images.shape[1:])

    if len(start) == 1:
        return jax.vmap(lambda image: cut(image, start[0]))(padded)
    return jax.vmap(cut)(padded, start)


def random_flip(key, images: jax.Array, *, shared: bool) -> jax.Array:
    """Mirrors left to right with probability one half.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      shared: one coin for the whole batch, or one for each image.
    """
    coin = jax.random.bernoulli(key, shape=(1 if shared else len(images), 1, 1, 1))
    return jnp.where(coin, images[:, :, ::-1], images)


def patch_shuffle(key, images: jax.Array, factor: int) -> jax.Array:
    """Cuts each image into factor x factor patches and puts them back in any order.

    Args:
      key: consumed; every image has its own order.
      images: [N, H, W, ch].
      factor: patches a side; it divides H and W.

    Raises:
      ValueError: it does not.

    Reference: P. Sun et al., "On the Diversity and Realism of Distilled Dataset",
    CVPR 2024, https://arxiv.org/abs/2312.03526.
    """
    count, height, width, channels = images.shape
    if height % factor or width % factor:
        raise ValueError(
            f"patch_shuffle {factor} does not divide images of {height}x{width}; "
            "1 leaves them whole."
        )
    cut = images.reshape(
        count, factor, height // factor, factor, width // factor, channels
    )
    patches = cut.swapaxes(2, 3).reshape(
        count, factor**2, height // factor, width // factor, channels
    )
    shuffled = jax.vmap(jax.random.permutation)(jax.random.split(key, count), patches)
    back = shuffled.reshape(
        count, factor, factor, height // factor, width // factor, channels
    )
    return back.swapaxes(2, 3).reshape(images.shape)


def random_roll(key, images: jax.Array, jitter: int) -> jax.Array:
    """Circular shift of the whole batch down and right by 0..jitter pixels each.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      jitter: largest shift, pixels, inclusive.
    """
    shift = jax.random.randint(key, (2,), 0, jitter + 1)
    return jnp.roll(images, (shift[0], shift[1]), axis=(1, 2))


class CropFlipRoll(NamedTuple):
    """How a recover step looks at its images: one crop, flip and roll for the chunk.

    Call it with (key, images [N, H, W, ch], count), the number of steps made so far.
    """

    scale: tuple[float, float] = (0.08, 1.0)  # share of the area kept; (1, 1): no crop
    flip: bool = True
    jitter: int = 32  # largest roll, pixels
    lowest: Callable | None = (
        None  # count -> lower bound of the area, replaces scale[0]
    )

    def __call__(self, key, images, count):
        key_crop, key_flip, key_roll = jax.random.split(key, 3)
        low, high = self.scale
        if self.lowest is not None:
            low = self.lowest(count)
        if self.lowest is not None or self.scale != (1.0, 1.0):
            images = random_crop(key_crop, images, (low, high), shared=True)
        if self.flip:
            images = random_flip(key_flip, images, shared=True)
        return random_roll(key_roll, images, self.jitter)

"""Augmentation on the device: keyed, differentiable in the images, one shape.

The crop is torchvision's RandomResizedCrop (area uniform in `scale`, log-uniform
aspect ratio, ten tries, then a central crop), resized bilinearly with half-pixel
centres. A crop is never larger than the image, so nothing is shrunk and antialiasing
would change nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "CropFlipRoll",
    "CutMix",
    "crop_resize",
    "cutmix",
    "cutmix_box",
    "random_crop",
    "random_flip",
    "random_roll",
    "sample_crop",
]

_TRIES = 10  # torchvision's


def crop_resize(images: jax.Array, box: jax.Array) -> jax.Array:
    """Cuts one box out of all images and stretches it to their full size.

    Args:
      images: [N, H, W, ch], floating point.
      box: [4], (top, left, height, width) in pixels; may be traced.

    Returns:
      [N, H, W, ch]. Pixels outside the box are never mixed in: the resize clamps at
      the box's edges, as cropping first would.
    """
    top, left, height, width = box
    rows = _resize_matrix(images.shape[1], top, height).astype(images.dtype)
    columns = _resize_matrix(images.shape[2], left, width).astype(images.dtype)
    highest = jax.lax.Precision.HIGHEST
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision=highest)
    return jnp.einsum("jw,niwc->nijc", columns, images, precision=highest)


def _resize_matrix(size: int, start, length) -> jax.Array:
    """[size, size] weights of linear interpolation from `length` pixels to `size`."""
    centres = (jnp.arange(size) + 0.5) * length / size - 0.5
    centres = start + jnp.clip(centres, 0, length - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(centres[:, None] - jnp.arange(size)))


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


def random_crop(key, images: jax.Array, scale, *, shared: bool) -> jax.Array:
    """RandomResizedCrop of a batch.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      scale: (lowest, highest) share of the area kept.
      shared: one box for the whole batch (recovering images), or one for each image.
    """
    height, width = images.shape[1:3]
    if shared:
        return crop_resize(images, sample_crop(key, height, width, scale))

    def one(key, image):
        return crop_resize(image[None], sample_crop(key, height, width, scale))[0]

    return jax.vmap(one)(jax.random.split(key, len(images)), images)


def random_flip(key, images: jax.Array, *, shared: bool) -> jax.Array:
    """Mirrors left to right with probability one half.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      shared: one coin for the whole batch, or one for each image.
    """
    coin = jax.random.bernoulli(key, shape=(1 if shared else len(images), 1, 1, 1))
    return jnp.where(coin, images[:, :, ::-1], images)


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


class CutMix(NamedTuple):
    """A batch of images, each with a box of another one pasted in."""

    images: jax.Array  # [N, H, W, ch]
    partner: jax.Array  # [N] int32, row whose pixels fill the box
    share: jax.Array  # scalar, share of the area that is the image's own


def cutmix_box(height: int, width: int, ratio, centre) -> jax.Array:
    """[4] int32 (top, left, bottom, right) of CutMix's box, clipped to the image.

    Args:
      height: of the image, pixels.
      width: of the image, pixels.
      ratio: share of the area to keep, before clipping; scalar in [0, 1].
      centre: [2] int32, (row, column) of the box's centre.
    """
    side = jnp.sqrt(1.0 - ratio)
    size = jnp.array([height, width])
    half = (jnp.floor(size * side) // 2).astype(jnp.int32)
    top_left = jnp.clip(centre - half, 0, size)
    bottom_right = jnp.clip(centre + half, 0, size)
    return jnp.concatenate([top_left, bottom_right])


def cutmix(key, images: jax.Array) -> CutMix:
    """CutMix with Beta(1, 1), one box and one permutation for the whole batch.

    Reference: S. Yun et al., "CutMix: Regularization Strategy to Train Strong
    Classifiers with Localizable Features", ICCV 2019, https://arxiv.org/abs/1905.04899.

    Args:
      key: consumed.
      images: [N, H, W, ch].
    """
    key_order, key_ratio, key_centre = jax.random.split(key, 3)
    count, height, width, _ = images.shape
    partner = jax.random.permutation(key_order, count)
    centre = jax.random.randint(key_centre, (2,), 0, jnp.array([height, width]))
    # Beta(1, 1) is the uniform distribution.
    box = cutmix_box(height, width, jax.random.uniform(key_ratio), centre)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= box[0]) & (rows < box[2])
    inside &= (columns >= box[1]) & (columns < box[3])
    mixed = jnp.where(inside[None, :, :, None], images[partner], images)
    return CutMix(mixed, partner, 1.0 - inside.mean())

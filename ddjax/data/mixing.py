"""Two images in one: CutMix and MixUp, one permutation for the whole batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Mixed", "cutmix", "cutmix_box", "mixup"]


class Mixed(NamedTuple):
    """A batch of images, each with another one of the batch in it."""

    images: jax.Array  # [N, H, W, ch]
    partner: jax.Array  # [N] int32, row of the other image
    share: jax.Array  # scalar, share of the image that is its own


def cutmix(key, images: jax.Array, alpha: float = 1.0) -> Mixed:
    """CutMix: a box of the partner, the same for the whole batch, is pasted in.

    Args:
      key: consumed.
      images: [N, H, W, ch].
      alpha: the share kept is Beta(alpha, alpha), before the box is clipped to the
        image; positive. 1, the paper's, is the uniform distribution.

    Returns:
      Mixed; `share` is the area that was really kept.

    Raises:
      ValueError: alpha is not positive.

    Reference: S. Yun et al., "CutMix: Regularization Strategy to Train Strong
    Classifiers with Localizable Features", ICCV 2019, https://arxiv.org/abs/1905.04899.
    """
    key_order, key_ratio, key_centre = jax.random.split(key, 3)
    count, height, width, _ = images.shape
    partner = jax.random.permutation(key_order, count)
    centre = jax.random.randint(key_centre, (2,), 0, jnp.array([height, width]))
    box = cutmix_box(height, width, _beta(key_ratio, alpha), centre)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= box[0]) & (rows < box[2])
    inside &= (columns >= box[1]) & (columns < box[3])
    mixed = jnp.where(inside[None, :, :, None], images[partner], images)
    return Mixed(mixed, partner, 1.0 - inside.mean())


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


def mixup(key, images: jax.Array, alpha: float = 0.8) -> Mixed:
    """MixUp: `share * image + (1 - share) * partner`, one share for the whole batch.

    Args:
      key: consumed.
      images: [N, H, W, ch], floating point.
      alpha: the share is Beta(alpha, alpha); positive. 0.8 is what the field's
        on-line distillation on CIFAR uses.

    Raises:
      ValueError: alpha is not positive.

    Reference: H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
    https://arxiv.org/abs/1710.09412.
    """
    key_order, key_share = jax.random.split(key)
    partner = jax.random.permutation(key_order, len(images))
    share = _beta(key_share, alpha)
    mixed = share * images + (1.0 - share) * images[partner]
    return Mixed(mixed.astype(images.dtype), partner, share)


def _beta(key, alpha: float) -> jax.Array:
    """A draw from Beta(alpha, alpha)."""
    if alpha <= 0:
        raise ValueError(
            f"alpha must be positive; got {alpha}. For no mixing, leave the call out."
        )
    if alpha == 1.0:  # no gamma sampler to compile
        return jax.random.uniform(key)
    return jax.random.beta(key, alpha, alpha)

"""ZCA whitening, kept with its inverse: the pixel space of trajectory matching.

As kornia's `ZCAWhitening`, which the field uses on normalised images: with the mean m
and the covariance V diag(s) V' (N - 1 in the denominator) of the flattened images,

    apply(x) = W (x - m),   W = V diag(s + r)^(-1/2) V',   invert(z) = W^(-1) z + m.

W is symmetric: of all whitening maps the one that changes the images least. Directions
of a variance far below the regularisation r are not blown up.

Reference: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
appendix A.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Zca", "apply", "fit", "invert"]

_LARGEST = 64 * 64 * 3  # values of an image: three matrices of 1.2 GB while fitting
_CHUNK = 1024  # images in float64 at a time


class Zca(NamedTuple):
    """The map and its inverse, of images flattened to D = H * W * ch values."""

    mean: jax.Array  # [D]
    whiten: jax.Array  # [D, D]
    restore: jax.Array  # [D, D]


def fit(images, *, mean=0.0, std=1.0, regularisation: float = 0.1) -> Zca:
    """Whitens a training split; computed in float64 on the host.

    Args:
      images: [N, H, W, ch] in [0, 1], or uint8, which is divided by 255.
      mean: number, or one for each channel; `(images - mean) / std` is whitened, and
        the result applied to images that are *not* normalised. The `info` of a Dataset
        has both. The defaults are for images that are normalised already.
      std: likewise.
      regularisation: added to the variances, in units of the normalised images; 0.1
        in the field, positive.

    Returns:
      Zca, float32.

    Raises:
      ValueError: images too large, fewer than two, or no positive regularisation.
    """
    count, size = len(images), int(np.prod(images.shape[1:]))
    if size > _LARGEST:
        raise ValueError(
            f"ZCA of {'x'.join(map(str, images.shape[1:]))} images needs matrices of "
            f"{size:,}^2 entries; the largest images it takes have {_LARGEST:,} "
            "values. Use smaller images, or none of it."
        )
    if count < 2 or regularisation <= 0:
        raise ValueError(
            "ZCA needs two images or more and a positive regularisation; got "
            f"{count} and {regularisation}."
        )
    starts = range(0, count, _CHUNK)
    chunks = (_normalised(images[i : i + _CHUNK], mean, std) for i in starts)
    centre = sum(chunk.sum(0) for chunk in chunks) / count
    covariance = np.zeros((size, size))
    for i in starts:
        chunk = _normalised(images[i : i + _CHUNK], mean, std) - centre
        covariance += chunk.T @ chunk
    variances, directions = np.linalg.eigh(covariance / (count - 1))
    # A singular covariance has eigenvalues a little below zero.
    scale = np.sqrt(np.maximum(variances, 0) + regularisation)
    whiten = directions / scale @ directions.T
    restore = directions * scale @ directions.T
    # From the normalised images to those given.
    pixels = np.ones(images.shape[1:])
    std, mean = (pixels * std).ravel(), (pixels * mean).ravel()
    return Zca(
        *(
            jnp.asarray(x, jnp.float32)
            for x in (centre * std + mean, whiten / std, restore * std[:, None])
        )
    )


def apply(zca: Zca, images: jax.Array) -> jax.Array:
    """Whitened images [N, H, W, ch] float32; of images as `fit` was given them."""
    flat = _unit(images).reshape(len(images), -1) - zca.mean
    whitened = jnp.matmul(flat, zca.whiten.T, precision=jax.lax.Precision.HIGHEST)
    return whitened.reshape(images.shape)


def invert(zca: Zca, images: jax.Array) -> jax.Array:
    """The images [N, H, W, ch] that `apply` makes these of."""
    flat = images.reshape(len(images), -1)
    flat = jnp.matmul(flat, zca.restore.T, precision=jax.lax.Precision.HIGHEST)
    return (flat + zca.mean).reshape(images.shape)


def _unit(images):
    return images / jnp.float32(255) if images.dtype == jnp.uint8 else images


def _normalised(images, mean, std):
    """Flattened, [n, D] float64."""
    images = np.asarray(images)
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    images = (images / np.float64(scale) - mean) / std
    return images.reshape(len(images), -1)

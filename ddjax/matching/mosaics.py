"""Images that hold several smaller ones: factor x factor of them, in the same bytes.

J.-H. Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization",
ICML 2022, https://arxiv.org/abs/2205.14959 (IDC); so have IDM and NCFM theirs. What is
stored and moved is the mosaic; networks, of the distillation and of students alike, see
its parts, each enlarged to the size of an image.

Unlike in IDC's code the parts of an image stay beside one another, so that sets stay
class-major; sides that the factor does not divide are refused, where IDC fills them up
with grey; and real images that a mosaic starts from are shrunk by means, where IDC takes
the nearest pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.types import DistilledSet

__all__ = ["check", "decode", "decoded", "encode"]


def check(factor: int, shape) -> None:
    """Refuses a factor that images cannot have.

    Args:
      factor: parts along one side.
      shape: (H, W, ...) of an image.

    Raises:
      ValueError: it is below 1, or does not divide a side.
    """
    height, width = shape[:2]
    if factor < 1 or height % factor or width % factor:
        raise ValueError(
            f"factor {factor}: images of {height} x {width} pixels cannot be divided "
            "into as many parts along each side; choose one that divides both, or 1."
        )


def decode(images: jax.Array, factor: int) -> jax.Array:
    """The parts of mosaics, each enlarged to a whole image; differentiable.

    Args:
      images: [N, H, W, ch], pixels.
      factor: parts along one side; 1 for images that are no mosaics.

    Returns:
      [N * factor^2, H, W, ch]: the parts of the first image row by row, then those of
      the next. Between pixels it is bilinear, as PyTorch's without aligned corners.

    Raises:
      ValueError: see `check`.

    Example:
      >>> import numpy as np
      >>> from ddjax.matching import mosaics
      >>> mosaics.decode(np.zeros((5, 8, 8, 3), np.float32), 2).shape
      (20, 8, 8, 3)
    """
    check(factor, images.shape[1:])
    if factor == 1:
        return images
    count, height, width, channels = images.shape
    parts = images.reshape(
        count, factor, height // factor, factor, width // factor, channels
    )
    parts = parts.swapaxes(2, 3).reshape(
        -1, height // factor, width // factor, channels
    )
    shape = (len(parts), height, width, channels)
    return jax.image.resize(jnp.asarray(parts), shape, "bilinear")


def encode(images, factor: int):
    """Mosaics of images, each shrunk to a part by means: where `decode` is undone.

    Args:
      images: [N * factor^2, H, W, ch]; the first factor^2 fill the first mosaic.
      factor: parts along one side.

    Returns:
      [N, H, W, ch].

    Raises:
      ValueError: see `check`; or the last mosaic would not be full.
    """
    check(factor, images.shape[1:])
    total, height, width, channels = images.shape
    if total % factor**2:
        raise ValueError(
            f"{total} images fill no mosaics of {factor} x {factor} parts; expected a "
            f"multiple of {factor**2}."
        )
    if factor == 1:
        return images
    h, w = height // factor, width // factor
    parts = images.reshape(total, h, factor, w, factor, channels).mean((2, 4))
    parts = parts.reshape(-1, factor, factor, h, w, channels)
    return parts.swapaxes(2, 3).reshape(-1, height, width, channels)


def decoded(distilled: DistilledSet, factor: int) -> DistilledSet:
    """A stored set as networks see it: factor^2 images in the place of each.

    Args:
      distilled: uint8 images, on the host.
      factor: parts along one side.

    Returns:
      DistilledSet, class-major: uint8 images, rounded; the parts share the label of
      their image, and its weight.

    Raises:
      ValueError: see `check`.
    """
    if factor == 1:
        return distilled
    pixels = decode(np.asarray(distilled.images, np.float32), factor)
    many = factor**2
    return DistilledSet(
        np.rint(np.asarray(pixels)).astype(np.uint8),
        np.repeat(distilled.labels, many),
        np.repeat(distilled.weights / np.float32(many), many),
    )

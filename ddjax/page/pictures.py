"""Pictures that a page holds in its own text."""

import base64
import io

import numpy as np

__all__ = ["area", "picture", "small", "strip", "visible"]


def picture(pixels: np.ndarray) -> str:
    """The address of a picture that holds its own PNG.

    Args:
      pixels: [H, W, ch] uint8; one, two (with opacity), three or four channels.
    """
    from PIL import Image  # slow to import

    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def strip(images: np.ndarray, columns: int) -> np.ndarray:
    """[n, H, W, ch] to one picture of rows, with clear lines between the images."""
    images = visible(images)
    gap = max(1, images.shape[1] // 16)
    missing = -len(images) % columns
    images = np.pad(images, ((0, missing), (0, gap), (0, gap), (0, 0)))
    _, height, width, channels = images.shape
    tiled = images.reshape(-1, columns, height, width, channels)
    return tiled.transpose(0, 2, 1, 3, 4).reshape(-1, columns * width, channels)


def small(images: np.ndarray, side: int) -> np.ndarray:
    """[n, H, W, ch] at most `side` pixels high and wide, by averaging."""
    from PIL import Image  # slow to import

    if max(images.shape[1:3]) <= side:
        return images
    share = side / max(images.shape[1:3])
    size = [max(1, round(images.shape[axis] * share)) for axis in (2, 1)]
    grey = images.shape[-1] < 3
    shown = images[..., 0] if grey else images[..., :3]
    made = [Image.fromarray(x).resize(size, Image.Resampling.BOX) for x in shown]
    return np.stack(made)[..., None] if grey else np.stack(made)


def area(images, side: int) -> int:
    """Pixels of an image as it is shown."""
    height, width = images.shape[1:3]
    return int(height * width * min(1, side / max(height, width)) ** 2)


def visible(images: np.ndarray) -> np.ndarray:
    """Grey or red, green and blue; and opacity."""
    images = images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
    return np.concatenate([images, np.full_like(images[..., :1], 255)], axis=-1)

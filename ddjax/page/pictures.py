"""Pictures that a page holds in its own text."""

import base64
import io

import numpy as np

__all__ = ["area", "bands", "picture", "small", "strip", "visible"]

# From low to high; told apart on light and dark paper, and in grey.
_HEAT = ((49, 46, 110), (38, 110, 142), (44, 162, 126), (160, 205, 82), (250, 228, 110))
_BANDS = 12


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


def bands(values: np.ndarray, low: float, high: float, size) -> np.ndarray:
    """A map of numbers as twelve colours with clear borders: lines of equal height.

    Args:
      values: [h, w], a number for each point of a grid that reaches the edges.
      low: the number of the lowest colour.
      high: that of the highest.
      size: (height, width) in pixels; between points numbers are linear.

    Returns:
      [height, width, 3] uint8.
    """
    for axis in (0, 1):
        values = _stretch(values, axis, size[axis])
    share = (values - low) / max(high - low, 1e-12)
    band = np.clip(np.floor(share * _BANDS), 0, _BANDS - 1) / (_BANDS - 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colors = [np.interp(band, stops, channel) for channel in zip(*_HEAT)]
    return np.stack(colors, -1).round().astype(np.uint8)


def _stretch(values, axis: int, count: int) -> np.ndarray:
    places = np.linspace(0, values.shape[axis] - 1, count)
    old = np.arange(values.shape[axis])
    return np.apply_along_axis(lambda v: np.interp(places, old, v), axis, values)

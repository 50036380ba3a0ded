"""Encoded images to pixels, and to the size that a network takes, by Pillow.

The pixels are torchvision's: its folders of images are read by Pillow too, and its
`Resize` and `CenterCrop` of a Pillow image are the functions below. Two habits of
faster readers are therefore left alone: the EXIF orientation is not applied (the image
stays as it is stored, as in torchvision), and a large JPEG is not decoded at a fraction
of its size.

OpenCV decodes JPEGs to the same pixels, in a quarter of the time at 32 pixels and in a
bit more than half of it at 224; but its resizing, most of the work, is not torchvision's
(up to 4 of 255 apart), and with Pillow's 1.2 times is gained (benchmarks/decode.py).
"""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np

__all__ = ["Seen", "crop_and_resize", "decode", "encode", "inspect", "measure"]
__all__ += ["resize_and_crop"]

# What Pillow and its plugins raise at bytes that are not an image.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError)
_BROKEN += (TypeError, AttributeError, struct.error, zlib.error)
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")  # Pillow's grey modes of 16 bits
_SHORT_SIDE = 256 / 224  # of the resized image, to the side of the crop


def decode(data: bytes, channels: int) -> np.ndarray:
    """The pixels of an encoded image, whatever its mode.

    A palette is looked up, CMYK becomes RGB by Pillow's formula, transparency is
    dropped, of 16 bits the higher 8 are kept, and of an animation the first frame.

    Args:
      data: a whole JPEG, PNG, ... file.
      channels: 3 for RGB, 1 for grey (ITU-R 601 luma of a colour image).

    Returns:
      [h, w, channels] uint8.

    Raises:
      ValueError: not an image, or a damaged one; the reason is Pillow's.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB); got {channels}.")
    with _opened(data) as image:
        pixels = np.asarray(_plain(image, "L" if channels == 1 else "RGB"))
    return pixels[..., None] if channels == 1 else pixels


def measure(data: bytes) -> tuple[int, int]:
    """(height, width) of an encoded image, from its header alone.

    Raises:
      ValueError: not an image.
    """
    with _opened(data) as image:
        return image.height, image.width


class Seen(NamedTuple):
    """What there is to know of an encoded image before it is stored."""

    height: int  # pixels
    width: int
    grey: bool  # has no colours
    plain: bool  # a JPEG or PNG, 8 bits, grey or RGB: every reader's pixels are equal


def inspect(data: bytes) -> Seen:
    """Decodes an image as a check, and says what it is.

    Raises:
      ValueError: as `decode`.
    """
    with _opened(data) as image:
        kind, mode = image.format, image.mode
        _plain(image, "RGB")
        # MPO: a camera's JPEG with a preview behind it. Byte 24 of a PNG: its bits.
        common = kind in ("JPEG", "MPO") or (kind == "PNG" and data[24] == 8)
        grey = mode in ("1", "L", "LA", *_DEEP)
        return Seen(image.height, image.width, grey, common and mode in ("L", "RGB"))


def encode(image: np.ndarray) -> bytes:
    """A PNG of [h, w, ch] uint8, ch 1 or 3."""
    buffer = io.BytesIO()
    _picture(image).save(buffer, format="PNG")
    return buffer.getvalue()


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle of an image, as networks are tested on it.

    torchvision's Resize (bilinear, antialiased) to a short side of size * 256 / 224,
    and CenterCrop; its roundings are kept. An image that has the size is returned as
    it is, so that a set can be stored at the size it is used at.

    Args:
      image: [h, w, ch] uint8, ch 1 or 3.
      size: of the result, pixels.

    Returns:
      [size, size, ch] uint8.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    short = round(size * _SHORT_SIDE)
    if height <= width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    top, left = round((height - size) / 2), round((width - size) / 2)
    return _resize(image, height, width)[top : top + size, left : left + size]


def crop_and_resize(image: np.ndarray, box, size: int) -> np.ndarray:
    """A box of an image, stretched to a square, as torchvision's resized_crop.

    Args:
      image: [h, w, ch] uint8, ch 1 or 3.
      box: (top, left, height, width), whole pixels inside the image.
      size: of the result, pixels.

    Returns:
      [size, size, ch] uint8.
    """
    top, left, height, width = (int(x) for x in box)
    return _resize(image[top : top + height, left : left + width], size, size)


def _resize(image, height, width):
    from PIL import Image  # slow to import

    resized = _picture(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, image.shape[-1])


def _picture(image):
    from PIL import Image  # slow to import

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _opened(data):
    """A Pillow image, whose pixels are not decoded yet."""
    from PIL import Image  # slow to import

    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except _BROKEN as error:
        told = "not an image." if data else "no bytes (an empty or unreadable file)."
        raise ValueError(told) from error


def _plain(image, mode):
    """A decoded image of mode L or RGB.

    Raises:
      ValueError: the data are damaged, or have no defined range of values.
    """
    from PIL import Image  # slow to import

    try:
        image.load()
    except _BROKEN as error:
        raise ValueError(f"damaged: {error}.") from error
    if image.mode in _DEEP:
        # Pillow's own conversion clips at 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode} (32 bits) have no defined white; convert the "
            "image to 8 or 16 bits."
        )
    elif image.mode in ("P", "PA"):
        # By way of RGBA: a palette may have transparent entries.
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)

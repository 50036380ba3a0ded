"""How fast images are decoded: measured on a prepared set, or as it was on record."""

import math
import time

from ddjax.data import decode, published, sets

# Pillow's decoding and resizing of an ImageNette JPEG of 224 x 224 pixels, on one core:
# benchmarks/results/decode.json.
RECORD_US, RECORD_PIXELS = 973.3, 224 * 224
_PROBE = 64  # images


def rate(section, shape) -> tuple[float, str]:
    """Images a second that one core decodes and resizes, and where that is from.

    Args:
      section: the config's `data`.
      shape: (H, W, ch) that they are resized to.

    Raises:
      ValueError: the set is neither prepared nor well known, or an image is damaged.
    """
    try:
        prepared = sets.find(section.name, section.folder)
    except ValueError:
        if section.name not in published.SIZES:
            raise
        pixels = stored_pixels(published.SIZES[section.name])
        seconds = 1e-6 * RECORD_US * pixels / RECORD_PIXELS
        return 1 / seconds, "from benchmarks/results/decode.json, by the pixels stored"
    reader = sets.Reader(prepared, prepared.split("train"))
    count = min(_PROBE, sum(prepared.lengths[prepared.split("train")]))
    encoded = [image for image, _ in reader.read(range(count))]
    began = time.process_time()
    for image in encoded:
        pixels = decode.decode(image, shape[-1])
        if section.size:
            decode.resize_and_crop(pixels, section.size)
    return count / (time.process_time() - began), f"measured here on {count} images"


def stored_pixels(size: published.Size) -> int:
    """Of an image as it is stored, on average."""
    return math.prod(size.stored or size.shape[:2])

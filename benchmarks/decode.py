"""Pillow beside OpenCV at decoding JPEGs, as ratios of one run.

    python -m benchmarks.decode --folder=PATH imagenette224 cifar10_jpeg

The sets are prepared ones under PATH (see launch/prepare.py); OpenCV is needed too
(`pip install opencv-python-headless`). Timed are decoding alone, and decoding with
`resize_and_crop`: all by Pillow; all by OpenCV (the same shapes by its area
interpolation, its only antialiased one); decoded by OpenCV and resized by Pillow. One
thread, seconds of the processor; the order is A B A B, ratios are of medians. Beside them
stands how far the pixels are from Pillow's, which are torchvision's. Record:
benchmarks/results/decode.json.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import time

import numpy as np

from ddjax.data import decode, sets

RESULT = pathlib.Path(__file__).parent / "results" / "decode.json"
IMAGES = 256
CROP = {32: 28, 224: 192}  # a size that asks for a resize, for images of each size


def compare(name: str, folder: str, rounds: int = 9):
    """Records for decoding, and for decoding with the resize."""
    prepared = sets.find(name, folder)
    reader = sets.Reader(prepared, prepared.split("train"))
    encoded = [image for image, _ in reader.read(range(IMAGES))]
    size = CROP[prepared.shape[0]]
    alone = {"Pillow": by_pillow, "OpenCV": by_opencv}
    resized = {
        "Pillow": lambda data: decode.resize_and_crop(by_pillow(data), size),
        "OpenCV": lambda data: opencv_resize(by_opencv(data), size),
        "OpenCV, Pillow": lambda data: decode.resize_and_crop(by_opencv(data), size),
    }
    for part, sides in (("decode", alone), ("decode, resize_and_crop", resized)):
        seconds = alternate(encoded, rounds, sides)
        pillow = sides.pop("Pillow")
        for by, side in sides.items():
            away = [np.abs(pillow(x).astype(int) - side(x)) for x in encoded]
            yield {
                "set": name,
                "part": part,
                "by": by,
                "images": len(encoded),
                "us": 1e6 * seconds[by],
                "pillow_us": 1e6 * seconds["Pillow"],
                "ratio": seconds["Pillow"] / seconds[by],
                "largest_difference": int(max(x.max() for x in away)),
                "mean_difference": float(np.mean([x.mean() for x in away])),
            }


def alternate(encoded, rounds, sides) -> dict[str, float]:
    """Median seconds an image of each side, run in turns; the first turn warms up."""
    seconds = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            began = time.process_time()
            for data in encoded:
                side(data)
            if turn:
                seconds[name].append((time.process_time() - began) / len(encoded))
    return {name: statistics.median(x) for name, x in seconds.items()}


def by_pillow(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8 RGB."""
    return decode.decode(data, 3)


def by_opencv(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8 RGB, as it is stored (OpenCV applies EXIF by default)."""
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def opencv_resize(image: np.ndarray, size: int) -> np.ndarray:
    """[size, size, 3]: a square image to the short side, and its middle."""
    import cv2

    short = round(size * 256 / 224)
    smaller = cv2.INTER_AREA if short < len(image) else cv2.INTER_LINEAR
    first = round((short - size) / 2)
    resized = cv2.resize(image, (short, short), interpolation=smaller)
    return resized[first : first + size, first : first + size]


def _line(record):
    return (
        f"{record['set']:>14} {record['part']:<23} by {record['by']:<14} "
        f"{record['us']:6.1f} us, by Pillow {record['pillow_us']:6.1f}, "
        f"{record['ratio']:5.2f} x  apart by up to {record['largest_difference']}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="prepared sets of square JPEGs")
    parser.add_argument("--folder", default="", help="where sets are kept")
    options = parser.parse_args()
    import cv2
    import PIL

    cv2.setNumThreads(1)  # as Pillow
    records = []
    for name in options.names:
        for record in compare(name, options.folder):
            print(_line(record), flush=True)
            records.append(record)
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
    }
    text = json.dumps({"machine": machine, "records": records}, indent=1)
    RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

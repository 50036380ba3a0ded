"""Writes fixtures/decode.npz: what torchvision makes of small JPEGs.

Run `python tests/data/make_decode_fixtures.py` with torchvision installed. In the file:
the bytes of each JPEG end to end and their lengths, the pixels of torchvision's
`Resize`, `CenterCrop` and `resized_crop` of the Pillow images, and the boxes.
"""

import io
import pathlib

import numpy as np
from PIL import Image

PATH = pathlib.Path(__file__).parent / "fixtures" / "decode.npz"
SIZE, CROP = 28, 20
# (height, width); odd and even differences, taller and wider, smaller than the result.
SHAPES = [
    (28, 28),
    (32, 32),
    (33, 32),
    (32, 35),
    (29, 61),
    (64, 37),
    (90, 41),
    (20, 31),
]
SHAPES += [(17, 17), (48, 80), (81, 47), (56, 57), (57, 56), (75, 100), (100, 67)]
SHAPES += [(40, 39), (39, 40), (31, 95), (66, 66), (25, 24)]
MODES = {3: "L", 7: "CMYK", 12: "L"}  # the others are RGB


def main():
    from torchvision.transforms import functional  # only this script needs it

    random = np.random.default_rng(0)
    files, boxes, wanted = [], [], {"resized": [], "cropped": []}
    for number, shape in enumerate(SHAPES):
        files.append(jpeg(random, shape, MODES.get(number, "RGB")))
        with Image.open(io.BytesIO(files[-1])) as image:
            image = image.convert("RGB")
        short = functional.resize(image, 32)  # 28 * 256 / 224
        wanted["resized"].append(np.asarray(functional.center_crop(short, SIZE)))
        h, w = (int(random.integers(5, side + 1)) for side in shape)
        top, left = (int(random.integers(0, s - x + 1)) for s, x in zip(shape, (h, w)))
        boxes.append((top, left, h, w))
        crop = functional.resized_crop(image, *boxes[-1], [CROP, CROP])
        wanted["cropped"].append(np.asarray(crop))
    np.savez_compressed(
        PATH,
        bytes=np.frombuffer(b"".join(files), np.uint8),
        lengths=np.array([len(file) for file in files]),
        boxes=np.array(boxes),
        **{name: np.stack(images) for name, images in wanted.items()},
    )


def jpeg(random, shape, mode):
    """A few colours that change smoothly, some edges and some noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] / 10
    waves = [np.sin(rows * a + columns * b) for a, b in random.normal(size=(3, 2))]
    pixels = 127 + 90 * np.stack(waves, axis=-1) + random.normal(0, 10, (*shape, 3))
    pixels[shape[0] // 3 :, shape[1] // 2] = random.integers(0, 256, 3)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    main()

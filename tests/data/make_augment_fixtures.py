"""Writes fixtures/{augment,dsa}.npz: what torch and torchvision compute, in float64.

Run `python tests/data/make_augment_fixtures.py` with torch and torchvision installed.
Images are uint8, or normalised ones exact in float16; results are float32. The
operators of DSA are written again here, with torch's own affine sampling.
"""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "fixtures"

# (top, left, height, width), and the size of the output: both sides smaller, one of
# them, a shrink by less than two, by nine, to one pixel, and none.
CROPS = (
    ((0, 0, 30, 40), (12, 10)),
    ((3, 5, 20, 9), (12, 10)),
    ((7, 2, 13, 37), (12, 10)),
    ((1, 4, 27, 36), (3, 4)),
    ((2, 3, 11, 17), (1, 1)),
    ((9, 20, 4, 3), (12, 10)),
)
FACTORS = (0.0, 0.6, 1.0, 1.7)
SHIFTS = (-0.5, -0.13, 0.0, 0.31)
CUTOUT, SHIFT = 0.5, 0.125


def main():
    FOLDER.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    save("augment", crops(random) | colors(random))
    small = dsa(random, "small", (4, 10, 13, 3), OPERATORS)
    large = dsa(random, "large", (2, 32, 32, 1), ("scale", "rotate"))
    save("dsa", small | large)


def save(name, arrays):
    small = {
        key: value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in arrays.items()
    }
    np.savez_compressed(FOLDER / f"{name}.npz", **small)


def crops(random):
    """torchvision's resized_crop of two noisy images, with antialiasing."""
    import torch
    from torchvision.transforms.v2 import functional

    images = random.integers(0, 256, (2, 30, 40, 3)).astype(np.uint8)
    x = torch.tensor(images).double().permute(0, 3, 1, 2)
    out = {"crop_images": images}
    for case, (box, size) in enumerate(CROPS):
        resized = functional.resized_crop(x, *box, size=list(size), antialias=True)
        out[f"crop_{case}"] = resized.permute(0, 2, 3, 1).numpy()
    out["crop_boxes"] = np.array([box for box, _ in CROPS])
    out["crop_sizes"] = np.array([size for _, size in CROPS])
    return out


def colors(random):
    """torchvision's adjust_*, of an image with all kinds of hues, greys, and ties."""
    import torch
    from torchvision.transforms import functional

    images = random.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    images[0] = images[0, :, :1]
    images[1, :, 1] = images[1, :, 0]
    images[2, :, 2] = images[2, :, 1]
    images[3, :, 0] = images[3, :, 2]
    images[4, :3], images[4, 3:] = 0, 255
    x = torch.tensor(images).double().permute(2, 0, 1) / 255
    out = {"color_image": images, "factors": np.array(FACTORS)}
    out["shifts"] = np.array(SHIFTS)
    for name in ("brightness", "contrast", "saturation", "hue"):
        adjust = getattr(functional, f"adjust_{name}")
        values = SHIFTS if name == "hue" else FACTORS
        out[name] = np.stack([adjust(x, v).permute(1, 2, 0).numpy() for v in values])
    return out


# Siamese augmentation -----------------------------------------------------------------


def dsa(random, case, shape, names):
    """Some operators on normalised images, each image with parameters of its own."""
    import torch

    count, height, width, _ = shape
    images = random.normal(size=shape).astype(np.float16)
    sides = np.array([height, width])
    most = np.floor(SHIFT * sides + 0.5).astype(int)
    squares = np.floor(CUTOUT * sides + 0.5).astype(int)
    params = {
        "brightness": random.uniform(-0.5, 0.5, count),
        "saturation": random.uniform(0, 2, count),
        "contrast": random.uniform(0.5, 1.5, count),
        "shift": random.integers(-most, most + 1, (count, 2)),
        "centre": random.integers(0, sides + 1 - squares % 2, (count, 2)),
        "mirrored": np.arange(count) % 2 == 0,
        "scale": random.uniform(1 / 1.2, 1.2, (count, 2)),
        "angle": np.deg2rad(random.uniform(-15, 15, count)),
    }
    # Both ends of what is truncated.
    params["shift"][:2] = -most, most
    params["centre"][:2] = [0, 0], sides - squares % 2
    x = torch.tensor(images.astype(np.float64)).permute(0, 3, 1, 2)
    out = {f"{case}_images": images}
    out |= {f"{case}_param_{name}": value for name, value in params.items()}
    # float32, as the library is given them.
    params = {
        name: value.astype(np.float32).astype(np.float64)
        if value.dtype == np.float64
        else value
        for name, value in params.items()
    }
    for name in names:
        rows = [OPERATORS[name](x[i : i + 1], params, i) for i in range(count)]
        out[f"{case}_{name}"] = torch.cat(rows).permute(0, 2, 3, 1).numpy()
    return out


def color(x, params, i):
    x = x + params["brightness"][i]
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * params["saturation"][i]
    return x.mean() + (x - x.mean()) * params["contrast"][i]


def crop(x, params, i):
    import torch

    out = torch.zeros_like(x)
    height, width = x.shape[2:]
    down, right = params["shift"][i]
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                out[:, :, row, column] = x[:, :, row + down, column + right]
    return out


def cutout(x, params, i):
    x = x.clone()
    spans = []
    for centre, side in zip(params["centre"][i], x.shape[2:]):
        square = int(CUTOUT * side + 0.5)
        start = centre - square // 2
        spans.append(slice(max(start, 0), max(start + square, 0)))
    x[:, :, spans[0], spans[1]] = 0
    return x


def flip(x, params, i):
    return x.flip(3) if params["mirrored"][i] else x


def scale(x, params, i):
    down, across = params["scale"][i]
    return affine(x, [[across, 0, 0], [0, down, 0]])


def rotate(x, params, i):
    cos, sin = np.cos(params["angle"][i]), np.sin(params["angle"][i])
    return affine(x, [[cos, -sin, 0], [sin, cos, 0]])


def affine(x, theta):
    import torch
    from torch.nn import functional

    theta = torch.tensor([theta], dtype=x.dtype)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


OPERATORS = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


if __name__ == "__main__":
    main()

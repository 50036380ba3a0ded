"""Differentiable Siamese Augmentation: one random operator for a batch, or for two.

A draw names one operator of the strategy and its parameters; it may be applied to
batches of any length, so that real and synthetic images are seen alike (Siamese).
Images are *normalised* ones (zero mean, unit variance): the colours' strengths are in
these units, nothing is clipped, and the zeros that fill an edge are the mean colour.

Reference: B. Zhao and H. Bilen, "Dataset Condensation with Differentiable Siamese
Augmentation", ICML 2021, https://arxiv.org/abs/2102.08259; the numbers are those of
https://github.com/VICO-UoE/DatasetCondensation (`aug_mode` "S").
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.data import augment

__all__ = ["OPERATORS", "STRATEGY", "Params", "apply", "parse", "sample"]

STRATEGY = "color_crop_cutout_flip_scale_rotate"  # not "flip" where sides matter
_BRIGHTNESS, _SATURATION = 1.0, 2.0  # widths of the ranges
_CONTRAST = (0.5, 1.5)
_SHIFT, _CUTOUT = 0.125, 0.5  # of a side
_SCALE = 1.2
_ANGLE = 15.0  # degrees


class Params(NamedTuple):
    """An operator and what it needs; `k` is 1 (for all images alike) or their number.

    All operators' parameters are drawn, so that every draw has one shape.
    """

    operator: jax.Array  # scalar int32, place in OPERATORS
    brightness: jax.Array  # [k], added
    saturation: jax.Array  # [k], factor
    contrast: jax.Array  # [k], factor
    shift: jax.Array  # [k, 2] int32, (rows, columns) from which the crop starts
    centre: jax.Array  # [k, 2] int32, (row, column) of the cutout
    mirrored: jax.Array  # [k] bool
    scale: jax.Array  # [k, 2], of (rows, columns) sampled; above 1 shrinks
    angle: jax.Array  # [k], radians


def parse(strategy: str) -> tuple[int, ...]:
    """Places in OPERATORS of the operators that "color_crop_..." names.

    Raises:
      ValueError: an unknown operator, or none.
    """
    names = list(OPERATORS)
    unknown = [name for name in strategy.split("_") if name not in names]
    if unknown:
        raise ValueError(
            f"unknown DSA operator {unknown[0]!r} in {strategy!r}; known: "
            f"{', '.join(names)}, joined by '_'. For no augmentation, leave DSA out."
        )
    return tuple(names.index(name) for name in strategy.split("_"))


def sample(
    key, height: int, width: int, strategy: str = STRATEGY, *, count: int | None = None
) -> Params:
    """Draws an operator, each of the strategy equally often, and its parameters.

    Args:
      key: consumed.
      height: of the images, pixels.
      width: of the images, pixels.
      strategy: operators joined by "_".
      count: None for one draw for all images of any batch (Siamese; matching), or the
        number of images, for parameters of each image (training on the distilled set).

    Raises:
      ValueError: an unknown operator, or none.
    """
    places = jnp.array(parse(strategy), jnp.int32)
    k = 1 if count is None else count
    keys = iter(jax.random.split(key, 9))

    def uniform(low, high, *shape):
        return jax.random.uniform(next(keys), (k, *shape), minval=low, maxval=high)

    def whole(low, high):
        return jax.random.randint(next(keys), (k, 2), jnp.array(low), jnp.array(high))

    sides = (height, width)
    shift = [_part(_SHIFT, side) for side in sides]
    # An even square has its centre between pixels: one place more.
    ends = [side + 1 - _part(_CUTOUT, side) % 2 for side in sides]
    return Params(
        operator=jax.random.choice(next(keys), places),
        brightness=uniform(-_BRIGHTNESS / 2, _BRIGHTNESS / 2),
        saturation=uniform(0.0, _SATURATION),
        contrast=uniform(*_CONTRAST),
        shift=whole([-most for most in shift], [most + 1 for most in shift]),
        centre=whole([0, 0], ends),
        mirrored=jax.random.bernoulli(next(keys), shape=(k,)),
        scale=uniform(1 / _SCALE, _SCALE, 2),
        angle=jnp.deg2rad(uniform(-_ANGLE, _ANGLE)),
    )


def apply(params: Params, images: jax.Array) -> jax.Array:
    """The drawn operator on images [N, H, W, ch], normalised, floating point.

    Under `vmap` over draws all six operators are computed; `lax.map` computes one.

    Args:
      params: of one draw for all images, or of N.
      images: any N, where the draw is one for all.
    """
    branches = [
        lambda params, images, operator=operator: operator(params, images).astype(
            images.dtype
        )
        for operator in OPERATORS.values()
    ]
    return jax.lax.switch(params.operator, branches, params, images)


def _part(ratio: float, side: int) -> int:
    return int(side * ratio + 0.5)


def _color(params, images):
    """Brightness, saturation, contrast; in this order."""
    strengths = (params.brightness, params.saturation, params.contrast)
    b, s, c = (strength[:, None, None, None] for strength in strengths)
    images = images + b
    grey = images.mean(-1, keepdims=True)
    images = (images - grey) * s + grey
    mean = images.mean((1, 2, 3), keepdims=True)
    return (images - mean) * c + mean


def _crop(params, images):
    padding = [_part(_SHIFT, side) for side in images.shape[1:3]]
    return augment.pad_crop(images, params.shift + jnp.array(padding), padding)


def _cutout(params, images):
    def covered(centre, side):
        """[k, side]: which of the rows, or columns, the square covers."""
        first, length = centre - _part(_CUTOUT, side) // 2, _part(_CUTOUT, side)
        place = jnp.arange(side) - first[:, None]
        return (place >= 0) & (place < length)

    _, height, width, _ = images.shape
    rows = covered(params.centre[:, 0], height)[:, :, None, None]
    columns = covered(params.centre[:, 1], width)[:, None, :, None]
    return jnp.where(rows & columns, 0.0, images)


def _flip(params, images):
    return jnp.where(params.mirrored[:, None, None, None], images[:, :, ::-1], images)


def _scale(params, images):
    """Bilinear, zeros outside; the coordinates are scaled about the middle."""
    diagonal = params.scale[:, :, None] * jnp.eye(2)
    return _affine(diagonal, images)


def _rotate(params, images):
    """Bilinear, zeros outside; in coordinates in which both sides have length 2."""
    cos, sin = jnp.cos(params.angle), jnp.sin(params.angle)
    turn = jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)
    return _affine(turn, images)


def _affine(matrix, images):
    """Samples images where `matrix` [k, 2, 2] sends (row, column) in [-1, 1]^2."""
    _, height, width, _ = images.shape
    half = jnp.array([height, width]) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    middle = half - 0.5
    grid = (grid - middle[:, None, None]) / half[:, None, None]

    def sample_image(matrix, image):
        # Written out: a product of matrices would be rounded on some devices.
        places = (matrix[:, :, None, None] * grid).sum(1)
        places = places * half[:, None, None] + middle[:, None, None]
        planes = jax.vmap(
            lambda plane: jax.scipy.ndimage.map_coordinates(plane, places, order=1),
            in_axes=-1,
            out_axes=-1,
        )
        return planes(image)

    shared = len(matrix) == 1
    return jax.vmap(sample_image, in_axes=(None if shared else 0, 0))(
        matrix[0] if shared else matrix, images
    )


OPERATORS = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}

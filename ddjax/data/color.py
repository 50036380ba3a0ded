"""Colour jitter and lighting, as torchvision's and AlexNet's: of pixels in [0, 1].

Each `adjust_*` takes one factor for all images, or one for each; results are clipped to
[0, 1], as torchvision clips them.
"""

import jax
import jax.numpy as jnp

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "color_jitter",
    "lighting",
]

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision rounds it
# Principal components of ImageNet's pixels: variances, and directions as columns.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def color_jitter(
    key,
    images: jax.Array,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float = 0.0,
    *,
    shared: bool = False,
) -> jax.Array:
    """torchvision's ColorJitter: the adjustments in random order, random factors.

    Args:
      key: consumed.
      images: [N, H, W, ch] in [0, 1], of 3 channels or 1.
      brightness: factors are uniform in [max(0, 1 - b), 1 + b]; 0 for none.
      contrast: likewise.
      saturation: likewise.
      hue: shifts are uniform in [-h, h] turns, h at most 1/2; 0 for none.
      shared: one order and one set of factors for the batch, or for each image.

    Raises:
      ValueError: a negative strength, a hue above 1/2, or other channels.
    """
    strengths = (brightness, contrast, saturation, hue)
    if min(strengths) < 0 or hue > 0.5:
        raise ValueError(
            "strengths must not be negative, nor hue above 0.5; got brightness, "
            f"contrast, saturation and hue of {strengths}."
        )
    _check_channels(images)
    adjustments = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    low = [max(0.0, 1.0 - strength) for strength in strengths[:3]] + [-hue]
    high = [1.0 + strength for strength in strengths[:3]] + [hue]
    used = [place for place, strength in enumerate(strengths) if strength > 0]

    def jitter(key, images):
        key_order, key_factors = jax.random.split(key)
        factors = jax.random.uniform(
            key_factors, 4, minval=jnp.array(low), maxval=jnp.array(high)
        )
        # Only those used: a branch under vmap costs as much as a call.
        branches = [
            lambda images, place=place: adjustments[place](images, factors[place])
            for place in used
        ]
        for place in jax.random.permutation(key_order, len(used)):
            images = jax.lax.switch(place, branches, images)
        return images

    if not used:
        return images
    if shared:
        return jitter(key, images)
    return jax.vmap(jitter)(jax.random.split(key, len(images)), images)


def adjust_brightness(images: jax.Array, factor) -> jax.Array:
    """Images [..., H, W, ch] times a factor [...] or scalar; 1 changes nothing."""
    return _blend(images, jnp.zeros_like(images), factor)


def adjust_contrast(images: jax.Array, factor) -> jax.Array:
    """Moves images [..., H, W, ch] from their mean grey by a factor [...] or scalar."""
    return _blend(images, _grey(images).mean((-3, -2, -1), keepdims=True), factor)


def adjust_saturation(images: jax.Array, factor) -> jax.Array:
    """Moves images [..., H, W, ch] from their grey by a factor [...] or scalar."""
    if images.shape[-1] == 1:
        return images
    return _blend(images, _grey(images), factor)


def adjust_hue(images: jax.Array, shift) -> jax.Array:
    """Turns the hue of images [..., H, W, ch] by a shift [...] or scalar, in turns."""
    if images.shape[-1] == 1:
        return images
    _check_channels(images)
    high, low = images.max(-1, keepdims=True), images.min(-1, keepdims=True)
    spread = high - low
    # From the largest channel, whose place gives the sextant; greys have hue 0.
    red, green, blue = jnp.split(images, 3, axis=-1)
    sextant = jnp.where(
        red == high,
        green - blue,
        jnp.where(green == high, blue - red, red - green),
    ) / jnp.where(spread == 0, 1.0, spread)
    sextant += jnp.where(red == high, 0.0, jnp.where(green == high, 2.0, 4.0))
    hue = sextant / 6 + _per_image(shift, images.dtype)
    # Each channel is a trapezoid of the hue, a third of a turn from the next.
    distance = (jnp.array([5.0, 3.0, 1.0], images.dtype) + 6 * hue) % 6
    return high - spread * jnp.clip(jnp.minimum(distance, 4 - distance), 0.0, 1.0)


def lighting(
    key, images: jax.Array, std: float = 0.1, *, shared: bool = False
) -> jax.Array:
    """PCA noise: one random colour along ImageNet's components added to each image.

    Args:
      key: consumed.
      images: [N, H, W, 3] in [0, 1]; the result is not clipped, as in the field.
      std: of the three standard normal coordinates, before the component's variance.
      shared: one colour for the batch, or for each image.

    Raises:
      ValueError: images of other than 3 channels.

    Reference: A. Krizhevsky et al., "ImageNet Classification with Deep Convolutional
    Neural Networks", NeurIPS 2012, section 4.1.
    """
    if images.shape[-1] != 3:
        raise ValueError(
            f"lighting is of colour images; got {images.shape[-1]} channels."
        )
    count = 1 if shared else len(images)
    noise = std * jax.random.normal(key, (count, 3), images.dtype)
    noise *= jnp.array(_EIGENVALUES, images.dtype)
    # Sums of three; a product of matrices would be rounded to bf16 on some devices.
    color = (noise[:, None, :] * jnp.array(_EIGENVECTORS, images.dtype)).sum(-1)
    return images + color[:, None, None, :]


def _blend(images, other, factor):
    factor = _per_image(factor, images.dtype)
    return jnp.clip(factor * images + (1.0 - factor) * other, 0.0, 1.0)


def _grey(images):
    """[..., H, W, 1]."""
    _check_channels(images)
    if images.shape[-1] == 1:
        return images
    return (images * jnp.array(_LUMA, images.dtype)).sum(-1, keepdims=True)


def _per_image(factor, dtype):
    """A factor [...] shaped for images [..., H, W, ch]; a scalar stays a scalar."""
    factor = jnp.asarray(factor, dtype)
    return factor[..., None, None, None] if factor.ndim else factor


def _check_channels(images):
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"colours are of 3 channels, or 1 for grey; got {images.shape[-1]}."
        )

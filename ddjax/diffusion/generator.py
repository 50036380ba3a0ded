"""A generator of images: a network that takes noise away, and the space it works in."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.diffusion import schedule
from ddjax.diffusion.schedule import Schedule
from ddjax.models import dit
from ddjax.models.autoencoder import Autoencoder
from ddjax.types import DataInfo

__all__ = ["Generator", "build_autoencoder", "create"]

_FLAXS = {"parent", "name"}
_GIVEN = {"num_classes", "image_channels"}  # by `create`


class Generator(NamedTuple):
    """Pure functions of one generator on one data set.

    Attributes:
      init: `key -> variables`, a dict {"denoiser": {"params"}, "autoencoder":
        {"params"}, or {} in pixel space}.
      denoise: `(variables, z, t, labels) -> (noise, variance)`: what a network predicts
        of the noise in `z [N, h, w, c]` at timesteps `t [N]` (of the schedule it was
        trained with) for `labels [N]`, where `num_classes` is the null label. `noise
        [N, h, w, c]`; `variance` alike, where it learns one (see `steps.log_variance`),
        or None.
      encode: `(variables, images) -> z`, of `images [N, H, W, ch]` in [0, 1].
      decode: `(variables, z) -> images`, not clipped to [0, 1].
      latent_shape: (h, w, c).
      num_classes: C.
      noise: the schedule it is trained with, see `schedule.named`.
    """

    init: Callable
    denoise: Callable
    encode: Callable
    decode: Callable
    latent_shape: tuple[int, int, int]
    num_classes: int
    noise: tuple[str, int] = ("linear", 1000)

    @property
    def schedule(self) -> Schedule:
        """The noise of all timesteps that it is trained with."""
        return schedule.named(*self.noise)


def create(
    info: DataInfo,
    *,
    model: Mapping,
    autoencoder: Mapping | None = None,
    noise: tuple[str, int] = ("linear", 1000),
) -> Generator:
    """A diffusion transformer for the images and classes of a data set.

    In pixel space, z = 2 x - 1 of pixels x in [0, 1]; in the space of an autoencoder,
    its mean for 2 x - 1, times its scale. The same object for equal options, so that a
    program compiles its functions once.

    Args:
      info: gives the shape of the images and the number of classes.
      model: options of `ddjax.models.dit.DiT`: "width", "depth", "heads", "patch",
        "learn_sigma" ...
      autoencoder: those of `ddjax.models.autoencoder.Autoencoder`; None for pixels.
      noise: the schedule it is trained with, see `schedule.named`.

    Raises:
      ValueError: an unknown option, or one that does not suit the images.

    Example:
      >>> import jax
      >>> from ddjax import data, diffusion
      >>> options = {"width": 16, "depth": 1, "heads": 2, "patch": 2}
      >>> generator = diffusion.create(data.load("digits").info, model=options)
      >>> variables = generator.init(jax.random.key(0))
      >>> z = generator.encode(variables, jax.numpy.ones((3, 8, 8, 1)))
      >>> noise, variance = generator.denoise(
      ...     variables, z, jax.numpy.arange(3), jax.numpy.arange(3)
      ... )
      >>> noise.shape, variance, float(z.max()), generator.latent_shape
      ((3, 8, 8, 1), None, 1.0, (8, 8, 1))
    """
    frozen = None if autoencoder is None else _frozen(autoencoder)
    schedule.named(*noise)  # refuses
    return _create(info, _frozen(model), frozen, tuple(noise))


def build_autoencoder(info: DataInfo, options: Mapping) -> Autoencoder:
    """The autoencoder of `create`, as the module that its training needs.

    Args:
      info: gives the shape of the images.
      options: fields of `ddjax.models.autoencoder.Autoencoder`.

    Raises:
      ValueError: an unknown option, or one that does not suit the images.
    """
    options = dict(_frozen(options))
    channels = {"image_channels": info.shape[-1]}
    return _module(Autoencoder, "autoencoder", {**channels, **options}, info.shape)


def _frozen(options: Mapping) -> tuple:
    """The same for equal options, and a key of a cache."""
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return tuple(sorted(plain.items()))


@functools.cache
def _create(info, model, autoencoder, noise) -> Generator:
    between = _pixels(info)
    if autoencoder is not None:
        between = _latents(build_autoencoder(info, dict(autoencoder)), info)
    init_space, encode, decode, latent_shape = between
    options = {"num_classes": info.num_classes, **dict(model)}
    module = _module(dit.DiT, "denoiser", options, latent_shape)

    @jax.jit
    def init(key):
        key_denoiser, key_space = jax.random.split(key)
        z, zeros = jnp.zeros((1, *latent_shape)), jnp.zeros(1, jnp.int32)
        fresh = module.init(key_denoiser, z, zeros, zeros)
        return {"denoiser": fresh, "autoencoder": init_space(key_space)}

    def denoise(variables, z, t, labels):
        return module.apply(variables["denoiser"], z, t, labels)

    return Generator(
        init, denoise, encode, decode, latent_shape, info.num_classes, noise
    )


def _pixels(info):
    """`init, encode, decode` and the shape of z, where z are pixels."""

    def encode(variables, images):
        del variables
        return 2 * images - 1

    def decode(variables, z):
        del variables
        return (z + 1) / 2

    return lambda key: {}, encode, decode, info.shape


def _latents(module, info):
    """The same, where z are an autoencoder's."""

    def init(key):
        return module.init(key, jnp.zeros((1, *info.shape)))

    def encode(variables, images):
        images = 2 * images - 1
        return module.apply(variables["autoencoder"], images, method="encode")

    def decode(variables, z):
        images = module.apply(variables["autoencoder"], z, method="decode")
        return (images + 1) / 2

    return init, encode, decode, module.latent_shape(info.shape)


def _module(kind, name, options, shape):
    """A module, if it has the options and they suit the shape."""
    known = [field for field in kind.__dataclass_fields__ if field not in _FLAXS]
    unknown = sorted(set(options) - set(known))
    if unknown:
        known = ", ".join(sorted(set(known) - _GIVEN))
        raise ValueError(f"the {name} has no option {unknown[0]!r}; known: {known}.")
    module = kind(**options)
    module.check(shape)
    return module

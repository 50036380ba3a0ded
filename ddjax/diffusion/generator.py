"""A generator of images: a network that takes noise away, and the space it works in."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.diffusion import schedule
from ddjax.diffusion.schedule import Schedule
from ddjax.models import dit
from ddjax.types import DataInfo

__all__ = ["Generator", "create"]

_NOT_OPTIONS = {"num_classes", "parent", "name"}  # given by `create`, or flax's own


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


def create(info: DataInfo, *, model: Mapping) -> Generator:
    """A diffusion transformer for the images and classes of a data set.

    In pixel space, z = 2 x - 1 of pixels x in [0, 1]. The same object for equal
    options, so that a program compiles its functions once.

    Args:
      info: gives the shape of the images and the number of classes.
      model: options of `ddjax.models.dit.DiT`: "width", "depth", "heads", "patch",
        "learn_sigma" ...

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
    return _create(info, tuple(sorted(model.items())))


@functools.cache
def _create(info, model) -> Generator:
    latent_shape = info.shape
    module = _denoiser(dict(model), info.num_classes, latent_shape)

    @jax.jit
    def init(key):
        z, zeros = jnp.zeros((1, *latent_shape)), jnp.zeros(1, jnp.int32)
        return {"denoiser": module.init(key, z, zeros, zeros), "autoencoder": {}}

    def denoise(variables, z, t, labels):
        return module.apply(variables["denoiser"], z, t, labels)

    def encode(variables, images):
        del variables
        return 2 * images - 1

    def decode(variables, z):
        del variables
        return (z + 1) / 2

    return Generator(init, denoise, encode, decode, latent_shape, info.num_classes)


def _denoiser(options, num_classes, latent_shape):
    fields = dit.DiT.__dataclass_fields__
    known = [name for name in fields if name not in _NOT_OPTIONS]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"the denoiser has no option {unknown[0]!r}; known: {', '.join(known)}."
        )
    module = dit.DiT(num_classes=num_classes, **options)
    module.check(latent_shape)
    return module

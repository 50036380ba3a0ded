"""Training of a small autoencoder, for a generator that works in its latents."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import optimizers, parallel, training
from ddjax.data import augment, batches
from ddjax.models.autoencoder import Autoencoder

__all__ = ["Recipe", "init", "make_step", "normalised", "variables"]


class Recipe(NamedTuple):
    """How an autoencoder is trained."""

    num_steps: int = 20_000
    batch_size: int = 128
    learning_rate: float = 1e-4  # of AdamW without decay; by cosine to 0
    kl_weight: float = 1e-6
    flip: bool = True

    def check(self) -> None:
        """ValueError for what cannot be."""
        if min(self.num_steps, self.batch_size) < 1 or self.kl_weight < 0:
            raise ValueError(
                f"num_steps {self.num_steps} and batch_size {self.batch_size} of an "
                f"autoencoder must be at least 1, and kl_weight {self.kl_weight} 0."
            )


def init(key: jax.Array, module: Autoencoder, recipe: Recipe, shape):
    """TrainState at step 0, for images of `shape` (H, W, ch); `key` is consumed."""
    params = jax.jit(module.init)(key, jnp.zeros((1, *shape)))["params"]
    return training.TrainState(params, {}, _optimizer(recipe).init(params))


def variables(state: training.TrainState) -> dict:
    """What the module takes."""
    return {"params": state.params}


@functools.cache
def make_step(module: Autoencoder, recipe: Recipe, num_examples: int):
    """One step of training on images in memory, for `loop.run`.

        mean |x - x_hat| + kl_weight * KL(N(mean, variance) | N(0, 1)) / pixels

    with pixels in [-1, 1] and the divergence of a whole latent, as in latent diffusion.
    There is no perceptual and no adversarial term, which that has beside these: at a
    few pixels for each place of the latent little is lost, at eight images get soft.

    Args:
      module: to train.
      recipe: numbers only.
      num_examples: N.

    Returns:
      `step(state, index, (images [N, H, W, ch] uint8,), key)`
      `-> (state, {"loss", "difference", "divergence"})`.

    Raises:
      ValueError: see `Recipe.check`.

    Reference: R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion
      Models", CVPR 2022, https://arxiv.org/abs/2112.10752, appendix G.
    """
    recipe.check()
    optimizer = _optimizer(recipe)

    def step(state, index, shared, key):
        (images,) = shared
        key_order, key_batch = jax.random.split(key)
        rows = batches.indices(key_order, index, num_examples, recipe.batch_size)
        rows = parallel.divide(rows)
        key_flip, key_draw = jax.random.split(jax.random.fold_in(key_batch, index))
        batch = images[rows] / jnp.float32(255)
        if recipe.flip:
            batch = augment.random_flip(key_flip, batch, shared=False)
        pixels = 2 * batch - 1
        latents = (len(rows), *module.latent_shape(pixels.shape[1:]))
        draw = jax.random.normal(key_draw, latents)

        def loss(found):
            again, mean, logvar = module.apply(
                {"params": found["params"]}, pixels, draw
            )
            divergence = 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1 - logvar)
            weight = recipe.kl_weight / pixels.size
            terms = {
                "difference": jnp.mean(jnp.abs(again - pixels)),
                "divergence": weight * divergence,
            }
            return terms, {}

        return training.update_terms(state, loss, optimizer)

    return step


def normalised(module: Autoencoder, found: dict, images) -> dict:
    """The same autoencoder, but for latents of standard deviation 1 over the images.

    The module's `scale` stays what it is; its first and last layer of a latent change.

    Args:
      module: of the variables.
      found: {"params"}.
      images: [N, H, W, ch] uint8, some of those trained on.

    Returns:
      {"params"}, on the host.
    """
    encode = jax.jit(lambda v, x: module.apply(v, x, method="encode"))
    size = 100
    parts = [
        encode(found, images[i : i + size] / jnp.float32(127.5) - 1)
        for i in range(0, len(images), size)
    ]
    factor = float(1 / jnp.concatenate(parts).std())
    means, params = module.channels, dict(found["params"])
    into, out = params["quant_conv"], params["post_quant_conv"]
    scales = jnp.where(jnp.arange(2 * means) < means, factor, 1.0)
    shifts = jnp.where(jnp.arange(2 * means) < means, 0.0, 2 * jnp.log(factor))
    params["quant_conv"] = {
        "kernel": into["kernel"] * scales,
        "bias": into["bias"] * scales + shifts,
    }
    params["post_quant_conv"] = {**out, "kernel": out["kernel"] / factor}
    return jax.device_get({"params": params})


@functools.cache
def _optimizer(recipe: Recipe):
    rate = optimizers.cosine_by_epoch(recipe.learning_rate, recipe.num_steps, 1)
    return optimizers.adamw(rate, weight_decay=0.0)

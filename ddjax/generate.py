"""Training of a generator, which methods then sample distilled images from."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import optimizers, parallel, training
from ddjax.data import augment, batches
from ddjax.diffusion import Generator, objective

__all__ = ["Recipe", "init", "make_step", "variables"]


class Recipe(NamedTuple):
    """How a generator is trained. The defaults are DiT's, but for its 400,000 steps."""

    num_steps: int = 20_000
    batch_size: int = 256
    learning_rate: float = 1e-4  # of AdamW
    warmup: int = 0  # steps over which the rate rises from 0
    decay: str = "constant"  # then; or "cosine", to 0 at the end
    weight_decay: float = 0.0
    ema: float = 0.9999  # of the parameters that are kept; see `optimizers.averaged`
    label_dropout: float = 0.1  # share of the images that are shown without a class
    flip: bool = True

    def check(self) -> None:
        """ValueError for what cannot be."""
        if self.num_steps < 1 or self.batch_size < 1 or self.warmup < 0:
            raise ValueError(
                f"num_steps {self.num_steps} and batch_size {self.batch_size} must be "
                f"at least 1, and warmup {self.warmup} at least 0."
            )
        if not 0 <= self.ema < 1 or not 0 <= self.label_dropout < 1:
            raise ValueError(
                f"ema {self.ema} and label_dropout {self.label_dropout} must be at "
                "least 0 and below 1."
            )
        if self.decay not in ("constant", "cosine"):
            raise ValueError(f"unknown decay {self.decay!r}; known: constant, cosine.")


def init(key: jax.Array, generator: Generator, recipe: Recipe) -> training.TrainState:
    """State at step 0, of the denoiser alone; `key` is consumed."""
    params = generator.init(key)["denoiser"]["params"]
    opt_state = _optimizer(recipe).init(jax.tree.map(jnp.copy, params))  # donated too
    return training.TrainState(params, {}, opt_state)


def variables(state: training.TrainState, autoencoder=()) -> dict:
    """What `Generator` takes: the averaged parameters, and a given autoencoder."""
    return {
        "denoiser": {"params": state.opt_state.params},
        "autoencoder": dict(autoencoder),
    }


@functools.cache
def make_step(generator: Generator, recipe: Recipe, num_examples: int):
    """One step of training on images in memory, for `loop.run`.

    The noise of a random timestep is predicted, from images that are flipped at random
    and, now and then, without their class; see `diffusion.objective`.

    Args:
      generator: whose denoiser is trained; its autoencoder stays as it is.
      recipe: numbers only.
      num_examples: N.

    Returns:
      `step(state, index, (images [N, H, W, ch] uint8, labels [N], autoencoder), key)`
      `-> (state, {"loss", "noise"})`, with "bound" where a variance is learned.

    Raises:
      ValueError: see `Recipe.check`.
    """
    recipe.check()
    optimizer, schedule = _optimizer(recipe), generator.schedule

    def step(state, index, shared, key):
        images, labels, autoencoder = shared
        key_order, key_batch = jax.random.split(key)
        rows = batches.indices(key_order, index, num_examples, recipe.batch_size)
        rows = parallel.divide(rows)
        keys = jax.random.split(jax.random.fold_in(key_batch, index), 4)
        key_flip, key_time, key_noise, key_drop = keys
        batch = images[rows] / jnp.float32(255)
        if recipe.flip:
            batch = augment.random_flip(key_flip, batch, shared=False)
        z0 = generator.encode({"autoencoder": autoencoder}, batch)
        z0 = jax.lax.stop_gradient(z0)
        times = jax.random.randint(key_time, rows.shape, 0, schedule.num_steps)
        noise = jax.random.normal(key_noise, z0.shape)
        shown = objective.dropped(
            key_drop, labels[rows], recipe.label_dropout, generator.num_classes
        )

        def loss(found):
            def denoise(z, t):
                return generator.denoise({"denoiser": found}, z, t, shown)

            return objective.terms(denoise, schedule, times, z0, noise), {}

        return training.update_terms(state, loss, optimizer)

    return step


@functools.cache
def _optimizer(recipe: Recipe):
    """AdamW, and the average of what it makes."""
    rate, steps = recipe.learning_rate, max(recipe.warmup, 1)
    length = max(recipe.num_steps - recipe.warmup, 1)

    def schedule(count):
        rise = jnp.minimum((count + 1) / steps, 1.0)
        if recipe.decay == "constant":
            return rate * rise
        share = jnp.clip((count - recipe.warmup) / length, 0.0, 1.0)
        return rate * rise * 0.5 * (1 + jnp.cos(jnp.pi * share))

    adamw = optimizers.adamw(schedule, weight_decay=recipe.weight_decay)
    return optimizers.averaged(adamw, recipe.ema)

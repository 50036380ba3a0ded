"""Squeeze: train the teacher, or what the field calls the squeezed model."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import losses, optimizers, parallel, training
from ddjax.data import augment, batches
from ddjax.models import Network

__all__ = ["Recipe", "init", "make_step", "make_streamed_step", "num_steps"]


class Recipe(NamedTuple):
    """How a teacher is trained. The defaults are WMDD's (`pretrain/` of its code)."""

    optimizer: str = "sgd"  # "sgd" or "adamw"
    learning_rate: float = 0.025
    momentum: float = 0.9  # of sgd
    weight_decay: float = 1e-4
    batch_size: int = 32
    epochs: int = 50
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the area; (1, 1) for none
    flip: bool = True


def num_steps(recipe: Recipe, num_examples: int) -> int:
    """Length of the training."""
    return recipe.epochs * batches.steps_per_epoch(num_examples, recipe.batch_size)


def init(key: jax.Array, network: Network, recipe: Recipe, num_examples: int):
    """TrainState at step 0; `key` is consumed."""
    return training.init(key, network, _optimizer(recipe, num_examples))


@functools.cache
def make_step(network: Network, recipe: Recipe, num_examples: int):
    """One step of training on images in memory, for `loop.run`.

    Cross entropy on randomly cropped and flipped images, learning rate by cosine from
    epoch to epoch.

    Args:
      network: the teacher.
      recipe: numbers only.
      num_examples: N.

    Returns:
      `step(state, index, (images [N, H, W, ch] uint8, labels [N]), key)`
      `-> (state, {"loss"})`.

    Raises:
      ValueError: unknown optimiser.
    """
    learn = _learner(network, recipe, num_examples)

    def step(state, index, shared, key):
        images, labels = shared
        key_order, key_view = jax.random.split(key)
        rows = batches.indices(key_order, index, num_examples, recipe.batch_size)
        rows = parallel.divide(rows)
        key_crop, key_flip = jax.random.split(jax.random.fold_in(key_view, index))
        batch = images[rows] / jnp.float32(255)
        if recipe.crop_scale != (1.0, 1.0):
            batch = augment.random_crop(
                key_crop, batch, recipe.crop_scale, shared=False
            )
        return learn(state, key_flip, batch, labels[rows])

    return step


@functools.cache
def make_streamed_step(network: Network, recipe: Recipe, num_examples: int):
    """The same on batches that `loop.run` is fed, cropped already.

    Args:
      network: the teacher.
      recipe: numbers only.
      num_examples: N.

    Returns:
      `step(state, index, (), (key, (images [B, H, W, ch] uint8, labels [B])))`
      `-> (state, {"loss"})`.

    Raises:
      ValueError: unknown optimiser.
    """
    learn = _learner(network, recipe, num_examples)

    def step(state, index, shared, private):
        del shared
        key, (images, labels) = private
        batch = images / jnp.float32(255)
        return learn(state, jax.random.fold_in(key, index), batch, labels)

    return step


def _learner(network: Network, recipe: Recipe, num_examples: int):
    """`(state, key, images [B, H, W, ch], labels [B]) -> (state, {"loss"})`."""
    optimizer = _optimizer(recipe, num_examples)

    def learn(state, key_flip, images, labels):
        if recipe.flip:
            images = augment.random_flip(key_flip, images, shared=False)

        def loss(variables):
            logits, batch_stats = network.apply_train(variables, images)
            return losses.cross_entropy(logits, labels), batch_stats

        state, value = training.update(state, loss, optimizer)
        return state, {"loss": value}

    return learn


def _optimizer(recipe: Recipe, num_examples: int):
    per_epoch = batches.steps_per_epoch(num_examples, recipe.batch_size)
    schedule = optimizers.cosine_by_epoch(
        recipe.learning_rate, recipe.epochs, per_epoch
    )
    if recipe.optimizer == "sgd":
        return optimizers.sgd(
            schedule, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    if recipe.optimizer == "adamw":
        return optimizers.adamw(schedule, weight_decay=recipe.weight_decay)
    raise ValueError(f"unknown optimizer {recipe.optimizer!r}; known: sgd, adamw.")

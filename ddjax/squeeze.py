"""Squeeze: train the teacher, or what the field calls the squeezed model.

A teacher is made robust by a penalty on the curvature of its loss (GUARD), or by
training on adversarial images; what is distilled from it is to inherit that.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import losses, optimizers, parallel, training
from ddjax.attacks import base as attacks
from ddjax.data import augment, batches
from ddjax.models import Network, norms

__all__ = [
    "SCHEDULES",
    "Adversarial",
    "Recipe",
    "adversarial_images",
    "init",
    "make_step",
    "make_streamed_step",
    "num_steps",
]

SCHEDULES = ("cosine", "constant")


class Adversarial(NamedTuple):
    """Training on the images of a PGD attack; a radius of 0 leaves it out."""

    eps: float = 0.0  # L-inf radius, in pixels of [0, 1]
    num_steps: int = 3  # each costs about two thirds of a plain step
    step_size: float | None = None  # None: 2.5 eps / num_steps, Madry et al.'s

    @property
    def acts(self) -> bool:
        """Whether images are attacked."""
        return self.eps != 0

    def check(self) -> None:
        """ValueError for what cannot be."""
        step = self.step_size
        if self.eps < 0 or self.num_steps < 1 or (step is not None and step <= 0):
            raise ValueError(
                f"adversarial training has eps {self.eps}, num_steps {self.num_steps} "
                f"and step_size {step}; it needs eps of 0 or more, in pixels of [0, 1], "
                "1 step or more, and a step_size above 0, or None."
            )


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
    curvature: losses.Curvature = losses.Curvature()
    adversarial: Adversarial = Adversarial()
    schedule: str = "cosine"  # of the learning rate, from epoch to epoch; or "constant"


def num_steps(recipe: Recipe, num_examples: int) -> int:
    """Length of the training."""
    return recipe.epochs * batches.steps_per_epoch(num_examples, recipe.batch_size)


def init(key: jax.Array, network: Network, recipe: Recipe, num_examples: int):
    """TrainState at step 0; `key` is consumed."""
    return training.init(key, network, _optimizer(recipe, num_examples))


@functools.cache
def make_step(network: Network, recipe: Recipe, num_examples: int):
    """One step of training on images in memory, for `loop.run`.

    Cross entropy on randomly cropped and flipped images. A penalty on curvature is taken on the same images, with the running
    statistics of BatchNorm as they were before the step, or with the batch's, which
    cross entropy sees: see `losses.Curvature`.

    Args:
      network: the teacher.
      recipe: numbers only.
      num_examples: N.

    Returns:
      `step(state, index, (images [N, H, W, ch] uint8, labels [N]), key)`
      `-> (state, {"loss"})`; with a penalty also "cross_entropy" and "curvature", the
      terms as they are summed.

    Raises:
      ValueError: unknown optimiser or schedule; see `Curvature.check` and `Adversarial.check`.
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
      `-> (state, {"loss"})`, or the terms too, as `make_step` has them.

    Raises:
      ValueError: see `make_step`.
    """
    learn = _learner(network, recipe, num_examples)

    def step(state, index, shared, private):
        del shared
        key, (images, labels) = private
        batch = images / jnp.float32(255)
        return learn(state, jax.random.fold_in(key, index), batch, labels)

    return step


def adversarial_images(
    key: jax.Array,
    logits_fn,
    images: jax.Array,
    labels: jax.Array,
    options: Adversarial,
) -> jax.Array:
    """Images that the network finds hard, within eps of the given ones and in [0, 1].

    Ascends the cross entropy by the sign of its gradient, from a random point of the
    ball. The network should have the running statistics of BatchNorm, as it will when
    it is attacked: then images do not help each other, and making them leaves no trace
    in the statistics. Training on them uses the statistics of the batch.

    Args:
      key: consumed.
      logits_fn: `images -> logits [B, C]`.
      images: [B, H, W, ch] in [0, 1].
      labels: [B] integers.
      options: numbers only.

    Returns:
      [B, H, W, ch]; not differentiated.

    Reference: A. Madry, A. Makelov, L. Schmidt, D. Tsipras and A. Vladu, "Towards Deep
      Learning Models Resistant to Adversarial Attacks", ICLR 2018,
      https://arxiv.org/abs/1706.06083. (GUARD's code clamps *normalised* images to
      [0, 1] in the adversarial training that it is compared with.)
    """
    eps, step = options.eps, options.step_size
    step = 2.5 * eps / options.num_steps if step is None else step

    def within(moved):
        return attacks.project(moved, images, eps, "linf")

    noise = jax.random.uniform(key, images.shape, images.dtype, -eps, eps)
    attacked = within(images + noise)
    for _ in range(options.num_steps):  # not scanned: few, and slow so on a CPU
        gradient = losses.input_gradient(logits_fn, attacked, labels)
        attacked = within(attacked + step * jnp.sign(gradient))
    return jax.lax.stop_gradient(attacked)


def _learner(network: Network, recipe: Recipe, num_examples: int):
    """`(state, key, images [B, H, W, ch], labels [B]) -> (state, metrics)`."""
    optimizer = _optimizer(recipe, num_examples)
    recipe.curvature.check()
    recipe.adversarial.check()

    def learn(state, key, images, labels):
        if recipe.adversarial.acts:
            key, key_attack = jax.random.split(key)
        if recipe.flip:
            images = augment.random_flip(key, images, shared=False)
        seen = images
        if recipe.adversarial.acts:
            frozen = _frozen(network, training.variables(state))
            seen = adversarial_images(
                key_attack, frozen, images, labels, recipe.adversarial
            )

        def loss(variables):
            logits, batch_stats = network.apply_train(variables, seen)
            return losses.cross_entropy(logits, labels), batch_stats

        def terms(variables):
            cross_entropy, batch_stats = loss(variables)
            if recipe.curvature.statistics == "batch":
                variables = _as_in_batch(variables, batch_stats)
            frozen = _frozen(network, variables)
            curved = losses.curvature(
                frozen, images, labels, recipe.curvature, network.std
            )
            weighted = recipe.curvature.weight * curved
            return {"cross_entropy": cross_entropy, "curvature": weighted}, batch_stats

        if recipe.curvature.acts:
            return training.update_terms(state, terms, optimizer)
        state, value = training.update(state, loss, optimizer)
        return state, {"loss": value}

    return learn


def _frozen(network: Network, variables):
    """`images -> logits` with the running statistics."""
    return lambda images: network.apply(variables, images)[0]


def _as_in_batch(variables, updated):
    """Variables whose running statistics are those of the batch that updated them."""
    keep = norms.BatchNorm.momentum
    seen = jax.tree.map(
        lambda before, after: (after - keep * before) / (1 - keep),
        variables["batch_stats"],
        updated,
    )
    return {**variables, "batch_stats": seen}


def _optimizer(recipe: Recipe, num_examples: int):
    per_epoch = batches.steps_per_epoch(num_examples, recipe.batch_size)
    if recipe.schedule not in SCHEDULES:
        raise ValueError(
            f"unknown schedule {recipe.schedule!r}; known: {', '.join(SCHEDULES)}."
        )
    schedule = optimizers.cosine_by_epoch(
        recipe.learning_rate, recipe.epochs, per_epoch
    )
    if recipe.schedule == "constant":
        schedule = recipe.learning_rate
    if recipe.optimizer == "sgd":
        return optimizers.sgd(
            schedule, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    if recipe.optimizer == "adamw":
        return optimizers.adamw(schedule, weight_decay=recipe.weight_decay)
    raise ValueError(f"unknown optimizer {recipe.optimizer!r}; known: sgd, adamw.")

"""Student: train a fresh network on a distilled set, to see what it is worth."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import loop, losses, optimizers, parallel, training
from ddjax.data import batches
from ddjax.models import Network
from ddjax.relabel import Views, view
from ddjax.types import DistilledSet

__all__ = ["LABELS", "Recipe", "initial_state", "make_step", "num_steps", "train"]

LABELS = ("hard", "soft")


class Recipe(NamedTuple):
    """How students are trained. The defaults are WMDD's (`train/` of its code)."""

    views: Views = Views()
    epochs: int = 300
    learning_rate: float = 1e-3
    weight_decay: float = 0.01  # AdamW, kernels only
    temperature: float = 20.0  # of soft labels


def num_steps(recipe: Recipe, num_images: int) -> int:
    """Length of the training."""
    return recipe.epochs * batches.steps_per_epoch(num_images, recipe.views.batch_size)


@functools.cache
def make_step(
    network: Network,
    recipe: Recipe,
    num_images: int,
    labels: str,
    teacher_fn: Callable | None = None,
):
    """One training step of a student, for `loop.run`.

    Hard labels: cross entropy, of the image's class and of the pasted one's by their
    shares of the area. Soft labels: divergence from the teacher's logits on the same
    view. In both, images count by their weights (the barycenter's masses).

    Args:
      network: the student.
      recipe: numbers only.
      num_images: N of the distilled set.
      labels: "hard" or "soft".
      teacher_fn: None where `soft` below holds stored logits; the teacher's `apply`
        where it holds the teacher's variables, which then labels every view anew.

    Returns:
      `step(state, index, (images, labels, weights, soft), key_views)`
      `-> (state, {"loss"})` with images [N, H, W, ch] uint8, labels [N], weights [N],
      and soft [steps, B, C], a tree of variables, or ().

    Raises:
      ValueError: unknown kind of labels.
    """
    if labels not in LABELS:
        raise ValueError(f"unknown labels {labels!r}; known: {', '.join(LABELS)}.")
    optimizer = _optimizer(recipe, num_images)

    def step(state, index, shared, key_views):
        images, hard, weights, soft = shared
        seen = view(recipe.views, key_views, index, images)
        weight = weights[seen.rows]
        if labels == "soft" and teacher_fn is None:
            targets = soft[index]
        elif labels == "soft":
            # The same rounding as the stored labels: replay and store agree.
            targets = teacher_fn(soft, seen.images)[0].astype(jnp.float16)

        def loss(variables):
            logits, batch_stats = network.apply_train(variables, seen.images)
            if labels == "soft":
                value = losses.soft_label_divergence(
                    logits, targets, temperature=recipe.temperature, weights=weight
                )
            else:
                own = losses.cross_entropy(logits, hard[seen.rows], weight)
                pasted = hard[seen.rows[seen.partner]]
                other = losses.cross_entropy(logits, pasted, weight)
                value = seen.share * own + (1 - seen.share) * other
            return value, batch_stats

        state, value = training.update(state, loss, optimizer)
        return state, {"loss": value}

    return step


def train(
    keys: jax.Array,
    network: Network,
    recipe: Recipe,
    distilled: DistilledSet,
    key_views: jax.Array,
    *,
    labels: str,
    soft=(),
    teacher_fn: Callable | None = None,
    state: training.TrainState | None = None,
    done: int = 0,
    observe: Callable | None = None,
) -> list:
    """Trains a student for each key, side by side under `vmap`.

    (On a CPU call it with one key at a time: see `parallel.groups`.)

    Args:
      keys: [s], one for each student; they draw the initial parameters.
      network: see `make_step`.
      recipe: see `make_step`.
      distilled: DistilledSet whose images are uint8, as stored.
      key_views: the views' key; the one the soft labels were made with.
      labels: see `make_step`.
      soft: see `make_step`.
      teacher_fn: see `make_step`.
      state: as `observe` saw it after `done` steps; None to begin.
      done: steps already made.
      observe: see `loop.run`.

    Returns:
      The students' variables after the last step.
    """
    count, many = len(distilled.labels), len(keys) > 1
    if state is None:
        state = initial_state(keys, network, recipe, count)
    state = loop.run(
        make_step(network, recipe, count, labels, teacher_fn),
        state,
        (*distilled, soft),
        jnp.broadcast_to(key_views, keys.shape) if many else key_views,
        range(done, num_steps(recipe, count)),
        spread=parallel.stacked if many else parallel.single,
        observe=observe,
    )
    trained = training.variables(state)
    if not many:
        return [trained]
    return [jax.tree.map(lambda x, i=i: x[i], trained) for i in range(len(keys))]


def initial_state(keys, network: Network, recipe: Recipe, num_images: int):
    """TrainState of one student, or, for several keys, of a stack of them."""
    start = _initialiser(network, recipe, num_images)
    return start(keys[0]) if len(keys) == 1 else jax.vmap(start)(keys)


@functools.cache
def _initialiser(network: Network, recipe: Recipe, num_images: int):
    optimizer = _optimizer(recipe, num_images)
    return jax.jit(lambda key: training.init(key, network, optimizer))


def _optimizer(recipe: Recipe, num_images: int):
    per_epoch = batches.steps_per_epoch(num_images, recipe.views.batch_size)
    schedule = optimizers.cosine_by_epoch(
        recipe.learning_rate, recipe.epochs, per_epoch
    )
    return optimizers.adamw(schedule, weight_decay=recipe.weight_decay)

"""The contract of an attack, and what all of them share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "NORMS",
    "Attack",
    "cross_entropy",
    "distance",
    "margin",
    "per_sample",
    "project",
    "uniform",
]

NORMS = ("linf", "l2")


class Attack(NamedTuple):
    """An attack, as pure functions on one batch.

    `model` maps images [B, H, W, ch] in [0, 1] to logits [B, C]: pixels are normalised
    within it, and its statistics are frozen, so that no image sees another. `keys` [B]
    are one for each image, and every random number of an image comes from its own: what
    is found does not depend on batches or devices.

    Attributes:
      name: for records.
      rounds: restarts or targets; images broken in a round are left out of the next.
      num_steps: of a round.
      init: `(model, images, labels, keys, round) -> state`; each leaf leads with B.
      step: `(model, state, index, images, labels, keys) -> state`; `index` counts the
        steps of the round from 0.
      result: `state -> images [B, H, W, ch]`, within the ball and in [0, 1]; they need
        not fool the model.
      gradients: gradient evaluations of a round, for each image.
      forwards: forward passes of a round besides those, for each image.
    """

    name: str
    rounds: int
    num_steps: int
    init: Callable
    step: Callable
    result: Callable
    gradients: int
    forwards: int


def per_sample(values: jax.Array, like: jax.Array) -> jax.Array:
    """[B] as [B, 1, 1, 1], to meet images."""
    return values.reshape((-1,) + (1,) * (like.ndim - 1))


def distance(moved: jax.Array, norm: str) -> jax.Array:
    """[B] norms of what was added to images, "linf" or "l2"."""
    flat = moved.reshape(len(moved), -1)
    if norm == "linf":
        return jnp.abs(flat).max(1)
    return jnp.sqrt(jnp.sum(flat**2, 1))


def project(moved: jax.Array, images: jax.Array, eps, norm: str) -> jax.Array:
    """The nearest point of the ball around `images`, then of the box [0, 1].

    Args:
      moved: [B, H, W, ch].
      images: [B, H, W, ch], the centres.
      eps: radius, in pixels of [0, 1].
      norm: "linf" or "l2".
    """
    added = moved - images
    if norm == "linf":
        added = jnp.clip(added, -eps, eps)
    else:
        length = distance(added, norm)
        scale = jnp.minimum(1.0, eps / jnp.maximum(length, 1e-12))
        added = added * per_sample(scale, added)
    return jnp.clip(images + added, 0.0, 1.0)


def uniform(keys: jax.Array, images: jax.Array) -> jax.Array:
    """[B, H, W, ch] in [-1, 1], each image's from its own key."""

    def draw(key):
        return jax.random.uniform(
            key, images.shape[1:], images.dtype, minval=-1.0, maxval=1.0
        )

    return jax.vmap(draw)(keys)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B], for logits [B, C] and labels [B]."""
    return -jnp.take_along_axis(
        jax.nn.log_softmax(logits), labels[:, None].astype(jnp.int32), 1
    )[:, 0]


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B], the class's logit above the best other one: positive where correct."""
    classes = jnp.arange(logits.shape[1])
    own = jnp.take_along_axis(logits, labels[:, None].astype(jnp.int32), 1)[:, 0]
    others = jnp.where(classes == labels[:, None], -jnp.inf, logits)
    return own - others.max(1)

"""Relabel: the teacher's soft labels on augmented views of the distilled images.

A view is a pure function of a key and a step, so that the student's loop replays what
the teacher saw without a stored crop, flip or box (Z. Shen and E. Xing, "A Fast
Knowledge Distillation Framework", ECCV 2022, stores them). The labels are either
stored, step by step, or computed again by the teacher inside the student's loop.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.data import augment, batches

__all__ = ["View", "Views", "make_labeller", "soft_labels", "view"]


class Views(NamedTuple):
    """How students, and the teacher for them, look at the distilled images."""

    batch_size: int = 100
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the area; (1, 1) for none
    flip: bool = True
    cutmix: bool = True  # Beta(1, 1), every batch


class View(NamedTuple):
    """One batch of a student."""

    rows: jax.Array  # [B], of the distilled set
    images: jax.Array  # [B, H, W, ch] in [0, 1], augmented and mixed
    partner: jax.Array  # [B], position in the batch of what was pasted in
    share: jax.Array  # scalar, share of the area that is the image's own


def view(views: Views, key: jax.Array, step, images: jax.Array) -> View:
    """The batch of a step: order, crop, flip and CutMix from the key alone.

    Args:
      views: numbers only.
      key: fixes all steps; not consumed.
      step: scalar int, may be traced.
      images: [N, H, W, ch] uint8, the distilled set.
    """
    key_order, key_view = jax.random.split(key)
    rows = batches.indices(key_order, step, len(images), views.batch_size)
    key_crop, key_flip, key_mix = jax.random.split(
        jax.random.fold_in(key_view, step), 3
    )
    batch = images[rows] / jnp.float32(255)
    if views.crop_scale != (1.0, 1.0):
        batch = augment.random_crop(key_crop, batch, views.crop_scale, shared=False)
    if views.flip:
        batch = augment.random_flip(key_flip, batch, shared=False)
    if not views.cutmix:
        return View(rows, batch, jnp.arange(len(rows)), jnp.float32(1))
    mixed = augment.cutmix(key_mix, batch)
    return View(rows, mixed.images, mixed.partner, mixed.share)


@functools.cache
def make_labeller(apply_fn: Callable, views: Views):
    """`(teacher, key, step, images) -> logits [B, C] float16` of one step, compiled."""

    @jax.jit
    def label(teacher, key, step, images):
        seen = view(views, key, step, images)
        return apply_fn(teacher, seen.images)[0].astype(jnp.float16)

    return label


def soft_labels(
    apply_fn: Callable,
    teacher,
    views: Views,
    key: jax.Array,
    images,
    steps: range,
    *,
    observe: Callable | None = None,
) -> np.ndarray:
    """Stored soft labels: the teacher's logits for every step of a student.

    Args:
      apply_fn: the teacher, `(variables, images) -> (logits, out)`.
      teacher: its variables.
      views: see `Views`.
      key: the one the student will use.
      images: [N, H, W, ch] uint8.
      steps: which.
      observe: called with the number of steps done.

    Returns:
      [len(steps), B, C] float16 logits (FKD's precision).
    """
    label, rows = make_labeller(apply_fn, views), []
    teacher, images = jax.device_put((teacher, images))  # once, not at every step
    for step in steps:
        rows.append(label(teacher, key, np.int32(step), images))
        if observe is not None:
            observe(step + 1)
    return np.stack(jax.device_get(rows))

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

from ddjax import parallel
from ddjax.data import augment, batches, dsa

__all__ = [
    "MIXES",
    "View",
    "Views",
    "look",
    "make_labeller",
    "plain_labels",
    "soft_labels",
    "view",
]

MIXES = ("cutmix", "none")


class Views(NamedTuple):
    """How students, and the teacher for them, look at the distilled images."""

    batch_size: int = 100
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the area; (1, 1) for none
    flip: bool = True
    mix: str = "cutmix"  # Beta(1, 1), every batch; or "none"
    patch_shuffle: int = 1  # patches a side, put in any order before the crop
    dsa: str = ""  # operators of `data.dsa`, one a batch; "" for none
    mean: tuple[float, ...] = ()  # of pixels in [0, 1]: DSA works on normalised ones
    std: tuple[float, ...] = ()


class View(NamedTuple):
    """One batch of a student."""

    rows: jax.Array  # [B], of the distilled set
    images: jax.Array  # [B, H, W, ch] in [0, 1] (beyond it by DSA), augmented and mixed
    partner: jax.Array  # [B], position in the batch of what was pasted in
    share: jax.Array  # scalar, share of the area that is the image's own


def view(views: Views, key: jax.Array, step, images: jax.Array) -> View:
    """The batch of a step: order, patches, crop, flip, DSA, CutMix from the key alone.

    Args:
      views: numbers only.
      key: fixes all steps; not consumed.
      step: scalar int, may be traced.
      images: [N, H, W, ch] uint8, the distilled set.
    """
    key_order, key_view = jax.random.split(key)
    rows = batches.indices(key_order, step, len(images), views.batch_size)
    rows = parallel.divide(rows)
    key_step = jax.random.fold_in(key_view, step)
    key_crop, key_flip, key_mix = jax.random.split(key_step, 3)
    # Beside the three: what earlier records drew stays as it was.
    key_patches, key_dsa = (jax.random.fold_in(key_step, i) for i in (3, 4))
    batch = images[rows] / jnp.float32(255)
    if views.patch_shuffle > 1:
        batch = augment.patch_shuffle(key_patches, batch, views.patch_shuffle)
    if views.crop_scale != (1.0, 1.0):
        batch = augment.random_crop(key_crop, batch, views.crop_scale, shared=False)
    if views.flip:
        batch = augment.random_flip(key_flip, batch, shared=False)
    if views.dsa:
        batch = _with_dsa(views, key_dsa, batch)
    if views.mix == "none":
        return View(rows, batch, jnp.arange(len(rows)), jnp.float32(1))
    mixed = augment.cutmix(key_mix, batch)
    return View(rows, mixed.images, mixed.partner, mixed.share)


@functools.partial(jax.jit, static_argnums=0)
def look(views: Views, key: jax.Array, step, images: jax.Array) -> View:
    """`view` as a program of its own, for a CPU.

    The crops and orders take as long to compile as a small network with its gradients:
    there labels of all kinds, and students of all kinds, share this one.

    Args:
      views: as for `view`; the program is compiled for its numbers.
      key: as for `view`.
      step: scalar int.
      images: [N, H, W, ch] uint8. On the device, or they are sent there in every call.
    """
    return view(views, key, step, images)


def _with_dsa(views, key, images):
    """One operator for the batch, with parameters of each image."""
    mean, std = jnp.array(views.mean or 0.0), jnp.array(views.std or 1.0)
    count, height, width, _ = images.shape
    drawn = dsa.sample(key, height, width, views.dsa, count=count)
    return dsa.apply(drawn, (images - mean) / std) * std + mean


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

    Each device labels a step of its own.

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
    rows = []
    if parallel.is_cpu():
        images = jax.device_put(images)
        calls = ((look(views, key, step, images).images,) for step in steps)
        found = parallel.in_turn(_of_images(apply_fn), teacher, calls)
    else:
        calls = ((np.int32(step),) for step in steps)
        shared = teacher, key, images
        found = parallel.in_turn(_of_step(apply_fn, views), shared, calls)
    for step, logits in zip(steps, found):
        rows.append(logits)
        if observe is not None:
            observe(step + 1)
    return np.stack(rows)


@functools.cache
def _of_step(apply_fn, views):
    label = make_labeller(apply_fn, views)

    def of_step(shared, step):
        teacher, key, images = shared
        return label(teacher, key, step, images)

    return of_step


def plain_labels(apply_fn: Callable, teacher, images, *, batch_size: int = 100):
    """One soft label an image: the teacher's logits on it as it is.

    Args:
      apply_fn: the teacher, `(variables, images) -> (logits, out)`.
      teacher: its variables.
      images: [N, H, W, ch] uint8.
      batch_size: images at a time; the last batch is filled up, so that one program is
        compiled.

    Returns:
      [N, C] float16 logits, a NumPy array.
    """
    count, images = len(images), np.asarray(images)
    batch_size = min(batch_size, count)
    starts = range(0, count, batch_size)
    places = (np.arange(start, start + batch_size) % count for start in starts)
    calls = ((images[rows] / np.float32(255),) for rows in places)
    found = parallel.in_turn(_of_images(apply_fn), teacher, calls)
    return np.concatenate(list(found))[:count]


@functools.cache
def _of_images(apply_fn):
    def of_images(teacher, images):
        return apply_fn(teacher, images)[0].astype(jnp.float16)

    return of_images

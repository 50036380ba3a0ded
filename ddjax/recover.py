"""Recover: synthesise the images, chunk by chunk."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import data, loop, matching, parallel, selection
from ddjax.methods import Method
from ddjax.types import (
    Barycenter,
    ClassStats,
    Context,
    DataInfo,
    Dataset,
    DistilledSet,
    Moments,
    Targets,
)

__all__ = [
    "Wave",
    "chunks",
    "image_keys",
    "initial_state",
    "make_step",
    "nearest",
    "noise",
    "recover",
    "run_wave",
    "spread",
    "targets",
    "waves",
]


class Wave(NamedTuple):
    """Chunks of one shape that run at the same time, one on each device."""

    rows: np.ndarray  # [k, n], rows of the distilled set
    offset: int  # steps made by the waves before it
    done: int = 0  # steps already made of its own
    state: Any = None  # of all its chunks after these; None to begin


def chunks(num_classes: int, ipc: int, batch_size: int, layout: str) -> list:
    """Cuts a distilled set into chunks of at most `batch_size` images.

    Args:
      num_classes: C.
      ipc: images per class.
      batch_size: images a device takes at a time; whole classes are never cut, so
        with layout "classes" a chunk has at least `ipc`.
      layout: "classes" (whole classes with all their images: what per-class
        statistics need; WMDD), "images" (one image of each class: SRe2L), or "whole"
        (all in one chunk, whatever its size: what learns from all classes, as DC's
        network and GeoDM's curvatures do).

    Returns:
      List of [n] int arrays, rows of the class-major set; together they are all rows.
      The last chunk may be smaller: nothing needs to divide anything.

    Raises:
      ValueError: unknown layout.

    Example:
      >>> from ddjax import recover
      >>> [len(rows) for rows in recover.chunks(5, 3, 6, "classes")]
      [6, 6, 3]
    """
    if layout not in ("classes", "images", "whole"):
        raise ValueError(f"unknown layout {layout!r}; known: classes, images, whole.")
    rows = np.arange(num_classes * ipc).reshape(num_classes, ipc)
    if layout == "whole":
        return [rows.ravel()]
    if layout == "classes":
        width = max(1, batch_size // ipc)
        return [rows[k : k + width].ravel() for k in range(0, num_classes, width)]
    return [
        rows[k : k + batch_size, j]
        for j in range(ipc)
        for k in range(0, num_classes, batch_size)
    ]


def waves(cuts: list, num_steps: int, devices: int) -> list[Wave]:
    """Groups neighbouring chunks of equal size, one for each device.

    Args:
      cuts: as `chunks` gives them.
      num_steps: optimiser steps of each chunk.
      devices: how many run at the same time.
    """
    groups: list[list] = []
    for rows in cuts:
        last = groups[-1] if groups else []
        if last and len(last) < devices and len(last[0]) == len(rows):
            last.append(rows)
        else:
            groups.append([rows])
    return [Wave(np.stack(rows), i * num_steps) for i, rows in enumerate(groups)]


def noise(key: jax.Array, rows: np.ndarray, info: DataInfo) -> np.ndarray:
    """Images to start from as the papers do: normal, in normalised pixels.

    Args:
      key: not consumed: each image is drawn by the key and its row alone, so that
        neither devices nor chunks matter.
      rows: [n], of the distilled set.
      info: of the data.

    Returns:
      [n, H, W, ch] float32, not clipped to [0, 1]; the first step does that.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
    drawn = jax.vmap(lambda k: jax.random.normal(k, info.shape))(keys)
    return np.asarray(drawn * jnp.array(info.std) + jnp.array(info.mean))


def image_keys(key: jax.Array, rows: np.ndarray, ipc: int) -> np.ndarray:
    """Data of a key for each image, by its class and its number in the class.

    Args:
      key: not consumed, but for nothing else.
      rows: [n], of the distilled set.
      ipc: images per class; the first ones have the same keys whatever it is.

    Returns:
      [n, 2] uint32, see `Targets.keys`.
    """

    def of_image(label, number):
        return jax.random.fold_in(jax.random.fold_in(key, label), number)

    return np.asarray(jax.random.key_data(jax.vmap(of_image)(*np.divmod(rows, ipc))))


def nearest(
    dataset: Dataset,
    features: np.ndarray,
    atoms: np.ndarray,
    cost: Callable | None = None,
) -> np.ndarray:
    """Real images to start from: for each atom the nearest one of its class.

    No image stands for two atoms; the total squared distance is the least.

    Args:
      dataset: the real images, N of them.
      features: [N, D], theirs.
      atoms: [C, ipc, D].
      cost: see `selection.nearest`.

    Returns:
      [C * ipc] rows of the data set, class-major.
    """
    chosen = [
        place.start + selection.nearest(features[place], atoms[k], cost)
        for k, place in enumerate(data.class_slices(dataset))
    ]
    return np.concatenate(chosen)


def targets(
    rows: np.ndarray,
    images: np.ndarray,
    ipc: int,
    *,
    barycenter: Barycenter | None = None,
    class_stats: ClassStats | None = None,
    real: tuple = (),
    keys: tuple = (),
) -> Targets:
    """What one chunk starts from and is matched to.

    Args:
      rows: [n], of the distilled set.
      images: [n, H, W, ch], to start from; pixels.
      ipc: images per class.
      barycenter: of the classes; its atoms and weights are given to the images.
      class_stats: of the classes.
      real: see `Targets`; of the chunk's classes.
      keys: see `Targets`; of its images.
    """
    labels = (rows // ipc).astype(np.int32)
    weights, features, layers = np.full(len(rows), 1 / ipc, np.float32), (), ()
    present = np.unique(labels)
    if barycenter is not None:
        weights = barycenter.weights.reshape(-1)[rows]
        features = barycenter.points.reshape(-1, barycenter.points.shape[-1])[rows]
    if class_stats is not None:
        layers = tuple(Moments(m.mean[present], m.var[present]) for m in class_stats[0])
    return Targets(images, labels, weights, features, layers, present, real, keys)


def run_wave(
    key: jax.Array,
    method: Method,
    context: Context,
    wave: Wave,
    targets: list[Targets],
    num_steps: int,
    *,
    observe: Callable | None = None,
) -> list[DistilledSet]:
    """Recovers the chunks of one wave, from the start or from a saved state.

    The randomness of a chunk comes from the key, its first row and the step, so the
    images do not depend on how many devices there are. A single chunk of a method that
    draws real images has these divided over the devices, and differs by rounding.

    Args:
      key: of the whole recovery.
      method: what to do in a step.
      context: arrays all chunks share.
      wave: which chunks.
      targets: one for each chunk of the wave.
      num_steps: optimiser steps of each chunk.
      observe: see `loop.run`; its step numbers go through all waves.

    Returns:
      One DistilledSet per chunk, on the host.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(wave.rows[:, 0])
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *targets)
    state = wave.state
    if state is None:
        state = initial_state(method, context, stacked, keys)

    def watch(step, state, metrics):
        if observe is not None:
            observe(wave.offset + step, state, metrics)

    state = loop.run(
        make_step(method),
        state,
        context,
        (keys, stacked),
        range(wave.done, num_steps),
        spread=spread(method, context, len(targets)),
        observe=watch,
    )
    return [
        jax.device_get(
            method.finalize(jax.tree.map(lambda x, i=i: x[i], state), context, target)
        )
        for i, target in enumerate(targets)
    ]


def spread(method: Method, context: Context, count: int) -> parallel.Spread:
    """How a wave of so many chunks runs: one on each device, or one on all."""
    if count > 1 or not method.real_batch:
        return parallel.over_devices(count)
    return parallel.together(min(method.real_batch, context.real.rows.shape[1]))


def initial_state(method: Method, context: Context, stacked: Targets, keys):
    """The method's state for a stack of chunks."""
    return jax.vmap(method.init, in_axes=(0, None, 0))(keys, context, stacked)


@functools.cache
def make_step(method: Method):
    """The method's step on one chunk, as `loop.run` takes it.

    Returns:
      `step(state, index, context, (key, targets)) -> (state, metrics)`.
    """

    def step(state, index, context, private):
        key, targets = private
        key, batch = jax.random.fold_in(key, index), ()
        if method.real_batch:
            key, key_batch = jax.random.split(key)
            batch = matching.draw(
                key_batch, context.real, targets.classes, method.real_batch
            )
        return method.step(key, state, context, targets, batch)

    return step


def recover(
    key: jax.Array,
    method: Method,
    context: Context,
    targets_of: Callable,
    cuts: list,
    num_steps: int,
    *,
    observe: Callable | None = None,
) -> DistilledSet:
    """Recovers a whole distilled set, all in memory.

    `launch.recover` does the same and keeps what it has on disk.

    Args:
      key: consumed.
      method: see `ddjax.methods`.
      context: the teacher, and what else the method reads.
      targets_of: `rows [n] -> Targets`, such as a partial of `targets`.
      cuts: as `chunks` gives them.
      num_steps: optimiser steps for each chunk.
      observe: see `loop.run`.

    Returns:
      DistilledSet, class-major, on the host.
    """
    order = np.argsort(np.concatenate(cuts))
    parts = []
    for wave in waves(cuts, num_steps, parallel.device_count()):
        goals = [targets_of(rows) for rows in wave.rows]
        parts += run_wave(key, method, context, wave, goals, num_steps, observe=observe)
    return jax.tree.map(lambda *part: np.concatenate(part)[order], *parts)

"""The pipeline in memory, one call a stage: for a notebook, and to read.

The programs of `launch/` do the same with files, progress, resumption and the
comparison with baselines; here are the calls they are made of, in their order.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from ddjax import (
    data,
    generate,
    loop,
    matching,
    methods,
    metrics,
    optimizers,
    ot,
    parallel,
    recover,
    selection,
    squeeze,
    stats,
    student,
    training,
)
from ddjax.diffusion import Generator
from ddjax.matching.frame import Space, costs, place_all
from ddjax.models import Network
from ddjax.types import Context, Dataset, DistilledSet

__all__ = ["choose", "distill", "evaluate", "teach", "teach_generator"]

_PLAIN = data.augment.CropFlipRoll((1.0, 1.0), False, 0)


def teach(
    key: jax.Array,
    network: Network,
    train: Dataset,
    recipe: squeeze.Recipe,
    observe: Callable | None = None,
) -> dict:
    """Trains a teacher.

    Args:
      key: consumed.
      network: see `models.create`.
      train: real images, in memory.
      recipe: numbers only.
      observe: see `loop.run`.

    Returns:
      Its variables, {"params", "batch_stats"}.
    """
    key_init, key_train = jax.random.split(key)
    count = len(train.labels)
    state = loop.run(
        squeeze.make_step(network, recipe, count),
        squeeze.init(key_init, network, recipe, count),
        (train.images, train.labels),
        key_train,
        range(squeeze.num_steps(recipe, count)),
        observe=observe,
    )
    return training.variables(state)


def teach_generator(
    key: jax.Array,
    generator: Generator,
    train: Dataset,
    recipe: generate.Recipe,
    autoencoder: dict | None = None,
    observe: Callable | None = None,
) -> dict:
    """Trains a generator, and returns its variables.

    Args:
      key: consumed.
      generator: `diffusion.create` makes one.
      train: real images, class-major.
      recipe: how; see `generate.Recipe`.
      autoencoder: variables of its autoencoder, where it works on latents.
      observe: see `loop.run`.
    """
    key_init, key_train = jax.random.split(key)
    state = loop.run(
        generate.make_step(generator, recipe, len(train.labels)),
        generate.init(key_init, generator, recipe),
        (train.images, train.labels, autoencoder or {}),
        key_train,
        range(recipe.num_steps),
        observe=observe,
    )
    return generate.variables(state, autoencoder or {})


def distill(
    key: jax.Array,
    network: Network,
    teacher: dict,
    train: Dataset,
    ipc: int,
    *,
    method: str = "wmdd",
    start: str = "real",
    num_steps: int = 500,
    optimizer: str = "adam",
    learning_rate: float = 0.1,
    batch_size: int = 100,
    augment: Callable = _PLAIN,
    pool: tuple = (),
    sampled_from: tuple = (None, ()),
    observe: Callable | None = None,
    **options,
) -> DistilledSet:
    """Distils a few images per class.

    Args:
      key: consumed.
      network: of the teacher, or of the networks that images are matched through.
      teacher: its variables; () for a method and a start that ask for none.
      train: real images, class-major.
      ipc: images per class.
      method: a module of `ddjax.methods`.
      start: "real", the training image nearest to each atom of the class's barycenter;
        "random", any; or "noise".
      num_steps: optimiser steps for each chunk of images; those of a sampler, for each
        image.
      optimizer: "adam", whose rate falls to 0 by a cosine; or "sgd" with momentum, as
        DC, DSA and DM have it.
      learning_rate: in normalised pixels.
      batch_size: images a device takes at a time, at most.
      augment: how a step looks at the images; as they are by default.
      pool: (first, last) variables of networks, stacked, for networks="pool".
      sampled_from: (`diffusion.Generator`, its variables), for methods that sample.
      observe: see `loop.run`.
      **options: of the method's loss, such as `bn_weight`; with the `space` of
        `methods.wmdd`, atoms and the nearest images are those of that product space.

    Returns:
      DistilledSet, class-major, with uint8 images, as programs store it. With a
      `factor` these are mosaics: evaluate what `matching.mosaics.decoded` makes of it.

    Raises:
      ValueError: unknown method, start or option; a class has fewer images; no pool.
    """
    info, factor = train.info, options.get("factor", 1)
    drawn = ipc * factor**2 if start == "random" else ipc
    _check_start(start, factor)
    if options.get("influence_weight"):
        raise ValueError("influence guidance needs surrogates: see launch.surrogates.")
    stats.check_ipc(drawn, info, stats.class_counts(train))
    chosen = methods.create(
        method,
        network,
        optimizers.pixels(optimizer, learning_rate, num_steps, info.std),
        num_steps=num_steps,
        augment=augment,
        generator=sampled_from[0],
        options=tuple(sorted(options.items())),
    )
    if "pool" in chosen.requires and not pool:
        raise ValueError(f"{method} with networks='pool' needs pool=(first, last).")
    key_atoms, key_start, key_steps, key_images, key_real = jax.random.split(key, 5)
    matched = "barycenter" in chosen.requires
    per_class = "class_stats" in chosen.requires
    atoms, seen, rows, frame = None, None, None, ()
    space = options.get("space")
    if matched or per_class or start == "real":
        features, seen = stats.collect(network.apply, teacher, train)
        frame, points = place_all(space, features)
        atoms = stats.barycenters(key_atoms, points, train, ipc, find=_finder(space))
    if start == "real":
        rows = recover.nearest(train, points, atoms.points, costs(space))
    elif start == "random":
        rows = _drawn(key_start, train, drawn)

    beside = np.zeros((info.num_classes, 0), int)
    if size := min(chosen.real_set, *stats.class_counts(train)):
        beside = _drawn(key_real, train, size).reshape(-1, size)

    def given(places):
        """What methods that sample are told besides."""
        if not size:
            return {}
        mine = beside[np.unique(places // ipc)]
        return {
            "real": train.images[mine.ravel()].reshape(*mine.shape, *info.shape),
            "keys": recover.image_keys(key_images, places, ipc),
        }

    def goals(places):
        if rows is None:
            images = recover.noise(key_start, places, info)
        else:
            parts = train.images[rows.reshape(-1, factor**2)[places].ravel()]
            images = matching.mosaics.encode(parts / np.float32(255), factor)
        return recover.targets(
            places,
            images,
            ipc,
            barycenter=atoms if matched else None,
            class_stats=seen if per_class else None,
            **given(places),
        )

    context = Context(
        teacher=teacher if "teacher" in chosen.requires else (),
        real=matching.table(train) if chosen.real_batch else (),
        pool=pool if "pool" in chosen.requires else (),
        frame=frame,
        generator=sampled_from[1],
    )
    made = recover.recover(
        key_steps,
        chosen,
        context,
        goals,
        recover.chunks(info.num_classes, ipc, batch_size, _layout(chosen)),
        chosen.length(num_steps, ipc),
        observe=observe,
    )
    return made._replace(images=np.rint(made.images * 255).astype(np.uint8))


def _layout(method) -> str:
    """How images are cut into chunks, see `recover.chunks`."""
    if method.real_batch:
        return "whole"
    together = {"barycenter", "class_stats", "generator"} & set(method.requires)
    return "classes" if together else "images"


def _check_start(start, factor):
    if start not in ("real", "random", "noise"):
        raise ValueError(f"unknown start {start!r}; known: real, random, noise.")
    if factor > 1 and start == "real":
        raise ValueError(
            f"with a factor of {factor} images are mosaics, which start from 'random' "
            "images or 'noise'; got 'real', one image for each atom."
        )


@functools.lru_cache(maxsize=8)  # one object for one space, so that it compiles once
def _finder(space: Space | None):
    """What finds the atoms of a class."""
    if space is None:
        return ot.barycenter
    return functools.partial(
        ot.geodesic_barycenter, product=space.product, dims=space.dims
    )


def _drawn(key, train, ipc):
    """Rows of random images, class after class."""
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    return np.concatenate(
        [
            place.start + selection.random(train.labels[place], ipc, (seed + k) % 2**32)
            for k, place in enumerate(data.class_slices(train))
        ]
    )


def choose(
    name: str, network: Network, teacher: dict, train: Dataset, ipc: int, seed: int = 0
) -> DistilledSet:
    """Real images instead, chosen class by class in the teacher's feature space.

    Args:
      name: of a baseline, see `selection.select`.
      network: of the teacher.
      teacher: its variables.
      train: real images, class-major.
      ipc: images per class.
      seed: of the draw.

    Returns:
      DistilledSet, class-major, with uint8 images and equal weights.

    Raises:
      ValueError: unknown baseline, or a class has fewer images.
    """
    features, _ = stats.collect(network.apply, teacher, train)
    pick = functools.partial(selection.select, name, size=ipc)
    rows = np.concatenate(
        [
            place.start + pick(features[place], seed=1000 * seed + k)
            for k, place in enumerate(data.class_slices(train))
        ]
    )
    weights = np.full(len(rows), 1 / ipc, np.float32)
    return DistilledSet(train.images[rows], train.labels[rows], weights)


def evaluate(
    key: jax.Array,
    network: Network,
    distilled: DistilledSet,
    test: Dataset,
    recipe: student.Recipe,
    *,
    students: int = 3,
    labels: str = "hard",
    teacher: dict | None = None,
    teacher_fn: Callable | None = None,
) -> np.ndarray:
    """Trains fresh students on a distilled set and scores them after the last epoch.

    Args:
      key: consumed.
      network: of the students.
      distilled: uint8 images.
      test: real images that nobody trained on or chose anything by.
      recipe: see `recipes.create`.
      students: how many; they differ in their initial parameters alone.
      labels: "hard", or "online": the teacher labels every view anew.
      teacher: its variables, for "online".
      teacher_fn: its `apply`, for "online".

    Returns:
      [students] top-1 accuracies in [0, 1]; see `metrics.mean_and_std`.

    Raises:
      ValueError: other labels, or no teacher for those that need one.
    """
    if labels not in ("hard", "online"):
        raise ValueError(f"unknown labels {labels!r}; known here: hard, online.")
    if labels == "online" and (teacher is None or teacher_fn is None):
        raise ValueError(f"labels {labels!r} need teacher and teacher_fn.")
    key_views, key_students = jax.random.split(key)
    keys = jax.random.split(key_students, students)
    trained = []
    for group in parallel.groups(students):
        trained += student.train(
            keys[np.array(group)],
            network,
            recipe,
            distilled,
            key_views,
            labels=labels,
            soft=() if teacher is None else teacher,
            teacher_fn=teacher_fn,
        )
    return np.array(
        [metrics.accuracy(network.apply, v, test.images, test.labels) for v in trained]
    )

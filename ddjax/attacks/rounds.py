"""One round of an attack: batches of many students, one on each device at a time."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import loop, parallel
from ddjax.attacks import base

__all__ = ["UNTOUCHED", "Found", "attack_round", "make_step", "wave_count"]

_SIZES = (1, 4, 16)  # what batch_size is divided by; each size is a program to compile


class Found(NamedTuple):
    """What one round of an attack found against one student, on the host."""

    attacked: np.ndarray  # [N] bool
    broken: np.ndarray  # [N] bool: of these, misclassified when looked at again
    distance: np.ndarray  # [N] float32, L-inf in pixels of [0, 1]; 0 if not attacked
    finite: np.ndarray  # [N] bool: the image returned and its logits


def attack_round(
    attack: base.Attack,
    *,
    apply_fn: Callable,
    variables: Sequence,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    attacked: Sequence[np.ndarray],
    place: tuple[int, int] = (0, 0),
    batch_size: int = 256,
    keep: Callable | None = None,
    observe: Callable | None = None,
) -> list[Found]:
    """One round of one attack, on the points of each student that are named.

    Batches of all students are spread over the devices, one on each at a time.

    Args:
      attack: see `base.Attack`.
      apply_fn: see `run`.
      variables: see `run`.
      images: see `run`.
      labels: [N] int32.
      key: not consumed.
      attacked: [N] bool for each student.
      place: the attack's index in its suite, and the round; both go into the keys.
      batch_size: see `run`.
      keep: called as `(student, rows [n], images [n, H, W, ch] float32)` with what was
        broken.
      observe: called with the steps done and their number, of all batches.

    Returns:
      A Found for each student.
    """
    lanes = parallel.device_count()
    spread = parallel.over_devices(lanes)
    waves = _waves(attacked, batch_size, lanes)
    founds = [_nothing(mask) for mask in attacked]
    for number, wave in enumerate(waves):

        def watch(done, state, metrics, number=number):
            if observe is not None:
                steps = attack.num_steps
                observe(number * steps + done, len(waves) * steps)

        # A wave that is short repeats its end, so that one program serves all.
        full = wave + wave[-1:] * (lanes - len(wave))
        rows = np.stack([job.rows for job in full])
        own = [variables[job.student] for job in full]
        with jax.default_matmul_precision("highest"):
            adversarial, looks = _attack_wave(
                attack,
                apply_fn,
                spread,
                (
                    jax.tree.map(lambda *x: np.stack(x), *own),
                    images[rows],
                    labels[rows],
                    _keys(key, rows, *place),
                ),
                (place[1], watch),
            )
        for lane, job in enumerate(wave):
            _enter(founds[job.student], job, [look[lane] for look in looks])
            if keep is not None:
                broken = looks[0][lane][: job.count]
                pixels = np.asarray(adversarial[lane])[: job.count]
                keep(job.student, job.rows[: job.count][broken], pixels[broken])
    return founds


def _nothing(mask):
    count = len(mask)
    none, zeros = np.zeros(count, bool), np.zeros(count, np.float32)
    return Found(mask, none, zeros, np.ones(count, bool))


def _enter(found, job, looks):
    rows = job.rows[: job.count]
    for where, look in zip((found.broken, found.distance, found.finite), looks):
        where[rows] = look[: job.count]


# Batches ------------------------------------------------------------------------------


class _Job(NamedTuple):
    student: int
    rows: np.ndarray  # [size], filled up by repeats
    count: int  # of them that are meant


def _waves(masks, batch_size, lanes):
    """Lists of at most `lanes` jobs of one size, the largest first."""
    by_size = {}
    for student, mask in enumerate(masks):
        rows = np.flatnonzero(mask)
        while len(rows):
            size = _size(len(rows), batch_size)
            part, rows = rows[:size], rows[size:]
            job = _Job(student, np.resize(part, size), len(part))
            by_size.setdefault(size, []).append(job)
    return [
        jobs[i : i + lanes]
        for size, jobs in sorted(by_size.items(), reverse=True)
        for i in range(0, len(jobs), lanes)
    ]


def _size(count, batch_size):
    """The smallest of a few sizes that holds so many in two batches, or the largest.

    Two quarters of a batch cost less than a whole one that is half empty.
    """
    sizes = [max(1, batch_size // part) for part in _SIZES]
    return min([size for size in sizes if 2 * size >= count], default=batch_size)


def wave_count(masks: Sequence[np.ndarray], batch_size: int) -> int:
    """How many batches, one on each device, a round over these points takes."""
    return len(_waves(masks, batch_size, parallel.device_count()))


def _attack_wave(attack, apply_fn, spread, private, about):
    """Images [lanes, size, ...] on the devices, and what is seen of them on the host."""
    round, watch = about
    round = np.int32(round)
    private = spread.place((private, (), ()))[0]
    state = _begin(attack, apply_fn, spread)((), round, (), private)
    state = loop.run(
        make_step(attack, apply_fn),
        state,
        (),
        private,
        range(attack.num_steps),
        spread=spread,
        observe=watch,
    )
    look = _look(attack, apply_fn, spread)
    adversarial, *looks = look((), round, (), (state, private))
    return adversarial, jax.device_get(looks)


@jax.jit
def _keys(key, rows, stage, round):
    """One for each of `rows`, of any shape."""

    def draw(row):
        return jax.random.fold_in(
            jax.random.fold_in(jax.random.fold_in(key, row), stage), round
        )

    return jax.vmap(draw)(rows.ravel()).reshape(rows.shape)


# Programs -----------------------------------------------------------------------------


@functools.cache
def make_step(attack: base.Attack, apply_fn: Callable):
    """The attack's step on one batch of one student, as `loop.run` takes it.

    Returns:
      `step(state, index, (), (variables, images, labels, keys)) -> (state, ())`.
    """

    def step(state, index, shared, private):
        del shared
        model, images, labels, keys = _unpacked(apply_fn, private)
        return attack.step(model, state, index, images, labels, keys), ()

    return step


@functools.cache
def _begin(attack, apply_fn, spread):
    def begin(state, round, shared, private):
        del state, shared
        model, images, labels, keys = _unpacked(apply_fn, private)
        state = attack.init(model, images, labels, keys, round)
        # Copies: the loop donates its state, which must not be the images themselves.
        return jax.tree.map(jnp.copy, state)

    return spread.compile(begin)


@functools.cache
def _look(attack, apply_fn, spread):
    def look(nothing, round, shared, private):
        del nothing, round, shared
        state, private = private
        model, images, labels, _ = _unpacked(apply_fn, private)
        adversarial = attack.result(state)
        logits = model(adversarial)
        inside = (adversarial >= 0) & (adversarial <= 1)  # so it has no NaN
        broken = inside.all((1, 2, 3)) & (jnp.argmax(logits, -1) != labels)
        moved = base.distance(adversarial - images, "linf")
        finite = jnp.isfinite(logits).all(-1) & jnp.isfinite(moved)
        return adversarial, broken, moved, finite

    return spread.compile(look)


def _unpacked(apply_fn, private):
    variables, images, labels, keys = private

    def model(images):
        return apply_fn(variables, images)[0]

    return model, _pixels(images), labels, keys


def _pixels(images):
    if images.dtype == jnp.uint8:
        return images / jnp.float32(255)
    return jnp.clip(images, 0, 1)  # the check lets rounding errors pass


UNTOUCHED = base.Attack(
    name="clean",
    rounds=1,
    num_steps=0,
    init=lambda model, images, labels, keys, round: images,
    step=lambda model, state, index, images, labels, keys: state,
    result=lambda state: state,
    gradients=0,
    forwards=0,
)
"""Finds the points that are wrong without attack."""

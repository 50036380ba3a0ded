"""The driver of attacks: what one leaves, the next attacks."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ddjax.attacks.rounds import UNTOUCHED, attack_round, wave_count

__all__ = ["Outcome", "check_images", "run"]

_ROUNDING = 1e-6  # what normalising and back may leave


class Outcome(NamedTuple):
    """What a suite did to one student.

    Attributes:
      images: [N, H, W, ch] float32, adversarial where an attack broke the point and the
        original elsewhere; None unless asked for.
      clean: [N] bool, classified correctly without attack.
      robust: [N] bool, and against every attack.
      broken_by: [N], index of the first attack in the suite that broke the point; -1
        where none did, -2 where it was wrong before.
      left: [A, N] bool, robust after each attack; with `in_turn=False`, against it
        alone.
      stages: a dict for each attack: "name", "robust" (points left), "attacked"
        (points), "gradients" and "forwards" (spent on them over all rounds; padding and
        the last look are not counted), "seconds" (of all students together),
        "max_distance" (L-inf in pixels of [0, 1], of what it broke) and "not_finite"
        (images or logits, over all rounds).
    """

    images: np.ndarray | None
    clean: np.ndarray
    robust: np.ndarray
    broken_by: np.ndarray
    left: np.ndarray
    stages: tuple


def run(
    suite: tuple,
    apply_fn: Callable,
    variables: Sequence,
    images: np.ndarray,
    labels: np.ndarray,
    key: jax.Array,
    *,
    batch_size: int = 256,
    in_turn: bool = True,
    keep_images: bool = False,
    remember: Callable | None = None,
    observe: Callable | None = None,
) -> list[Outcome]:
    """Attacks students with every attack of a suite.

    As in AutoAttack, points that are wrong without attack are never attacked, and what
    one attack, restart or target has broken is left out of the next. A point counts as
    broken only if logits computed anew from the image that the attack returned disagree
    with the label, and that image lies in [0, 1].

    The randomness of an image comes from `key`, its row, the attack's index and the
    round alone: not from batches, other students or devices. All is computed at the
    highest precision of matrix products: TF32 turns the signs of gradients around.

    Args:
      suite: of `Attack`s, such as `autoattack` gives.
      apply_fn: `(variables, images [n, H, W, ch] in [0, 1]) -> (logits [n, C], out)`;
        the `apply` of a network. The same object again compiles nothing again.
      variables: a sequence, of one network's for each student.
      images: [N, H, W, ch], uint8 or float in [0, 1].
      labels: [N] integers.
      key: not consumed.
      batch_size: images that a device takes at a time.
      in_turn: whether an attack sees only what those before it left. Otherwise each
        begins with all points that are right without attack, as papers report them,
        and `robust` is the worst case over all.
      keep_images: whether to return adversarial images: 4 bytes for each number of each
        student.
      remember: `(stage, round, make) -> make()`, or what `make()` gave, a list of
        `Found`, when this round was made before: so that a program can go on.
      observe: called as `(done, total)` after each block of steps; the total is an
        estimate, since later attacks have fewer points.

    Returns:
      An Outcome for each student.

    Raises:
      ValueError: no attack or no image, labels that do not fit, images outside [0, 1];
        images asked for of rounds that are only remembered.

    Reference: F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with
      an Ensemble of Diverse Parameter-free Attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690; the driver of its code, which reuses one seed
      for every attack and batch, where ours gives each image its own.
    """
    if not suite or batch_size < 1:
        raise ValueError(
            f"{len(suite)} attacks and batch_size={batch_size}; give at least 1 of each."
        )
    check_images(images, labels)
    batch_size = min(batch_size, len(labels))
    if keep_images and remember is not None:
        raise ValueError(
            "images of remembered rounds are gone; give either keep_images or remember."
        )
    one_round = functools.partial(
        attack_round,
        apply_fn=apply_fn,
        variables=jax.device_get(variables),
        images=images,
        labels=np.asarray(labels, np.int32),
        key=key,
        batch_size=batch_size,
    )
    every = [np.ones(len(labels), bool)] * len(variables)
    clean = [~found.broken for found in one_round(UNTOUCHED, attacked=every)]
    kept = [_float(images) for _ in variables] if keep_images else None
    robust, history, seconds, progress = clean, [], [], _Progress(observe, suite)
    for stage, attack in enumerate(suite):
        standing, rounds, began = robust if in_turn else clean, [], time.perf_counter()
        for round in range(attack.rounds):
            make = functools.partial(
                one_round,
                attack,
                attacked=standing,
                place=(stage, round),
                keep=_keeper(kept, robust),
                observe=progress.of(stage, round, wave_count(standing, batch_size)),
            )
            found = make() if remember is None else remember(stage, round, make)
            standing = _less(standing, found)
            robust = _less(robust, found)
            rounds.append(found)
        history.append(rounds)
        seconds.append(time.perf_counter() - began)
    return [
        _outcome(suite, clean[i], _of_student(history, i), seconds, kept and kept[i])
        for i in range(len(variables))
    ]


# Records ------------------------------------------------------------------------------


class _Progress:
    """Steps done of a suite, for people."""

    def __init__(self, observe, suite):
        self._observe, self._done = observe, 0
        self._steps = [(attack.rounds, attack.num_steps) for attack in suite]

    def of(self, stage, round, waves):
        """What a round of so many waves is to call, if anything."""
        if self._observe is None:
            return None
        rounds, steps = self._steps[stage]
        later = sum(r * s for r, s in self._steps[stage + 1 :])
        before, self._done = self._done, self._done + waves * steps
        total = before + waves * ((rounds - round) * steps + later)
        return lambda done, steps: self._observe(before + done, total)


def _less(masks, founds):
    return [mask & ~found.broken for mask, found in zip(masks, founds)]


def _keeper(kept, robust):
    """Stores images of points that nothing has broken before."""
    if kept is None:
        return None

    def keep(student, rows, images):
        new = robust[student][rows]
        kept[student][rows[new]] = images[new]

    return keep


def _of_student(history, i):
    return [[found[i] for found in rounds] for rounds in history]


def _outcome(suite, clean, history, seconds, images):
    """The Outcome of one student, from its rounds of each attack."""
    robust, broken_by = clean, np.where(clean, -1, -2)
    left, stages = [], []
    for stage, (attack, rounds) in enumerate(zip(suite, history)):
        broken = np.any([found.broken for found in rounds], 0)
        broken_by = np.where(robust & broken, stage, broken_by)
        robust = robust & ~broken
        left.append(rounds[0].attacked & ~broken)
        stages.append(_record(attack, rounds, left[-1], seconds[stage]))
    return Outcome(images, clean, robust, broken_by, np.stack(left), tuple(stages))


def _record(attack, rounds, left, seconds):
    spent = int(sum(found.attacked.sum() for found in rounds))
    reached = [found.distance[found.broken].max(initial=0) for found in rounds]
    return {
        "name": attack.name,
        "robust": int(left.sum()),
        "attacked": int(rounds[0].attacked.sum()),
        "gradients": spent * attack.gradients,
        "forwards": spent * attack.forwards,
        "seconds": seconds,
        "max_distance": float(max(reached)),
        "not_finite": int(sum((~found.finite).sum() for found in rounds)),
    }


# Misuse -------------------------------------------------------------------------------


def _float(images):
    if images.dtype == np.uint8:
        return images / np.float32(255)
    return np.clip(images, 0, 1).astype(np.float32)


def check_images(images: np.ndarray, labels: np.ndarray) -> None:
    """ValueError for images and labels that do not fit, or pixels outside [0, 1]."""
    if images.ndim != 4 or len(images) == 0 or np.shape(labels) != images.shape[:1]:
        raise ValueError(
            f"images of shape {images.shape} and labels of shape {np.shape(labels)}; "
            "expected [N, H, W, ch] and [N], with N at least 1."
        )
    if images.dtype == np.uint8:
        return
    least, most = float(np.min(images)), float(np.max(images))
    if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):
        raise ValueError(
            f"pixels from {least:g} to {most:g}; attacks take uint8, or floats in "
            "[0, 1]. Leave the normalisation to the network, which does it inside."
        )

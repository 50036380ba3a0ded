"""Scores.

Accuracies are fractions in [0, 1]: the scores below put differences of them into an
exponential, where percentages would give numbers that look like scores and are none.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np

from ddjax import parallel

__all__ = ["accuracy", "ars", "hlr", "ior", "lrs", "mean_and_std"]


def accuracy(apply_fn, variables, images, labels, *, batch_size: int = 500) -> float:
    """Share of images whose largest logit is their label's.

    Args:
      apply_fn: `(variables, images [n, H, W, ch] in [0, 1]) -> (logits [n, C], out)`.
      variables: of the network.
      images: [N, H, W, ch] uint8.
      labels: [N] integers.
      batch_size: images at a time; the last batch is padded, so one program is made.

    Returns:
      In [0, 1].
    """

    def padded(start):
        batch = np.asarray(images[start : start + batch_size])
        rows = [(0, batch_size - len(batch))] + [(0, 0)] * (batch.ndim - 1)
        return (np.pad(batch, rows),)

    calls = (padded(start) for start in range(0, len(labels), batch_size))
    guesses = list(parallel.in_turn(_guess(apply_fn), variables, calls))
    return float(np.mean(np.concatenate(guesses)[: len(labels)] == np.asarray(labels)))


@functools.lru_cache(maxsize=32)
def _guess(apply_fn):
    def guess(variables, images):
        logits, _ = apply_fn(variables, images / jnp.float32(255))
        return jnp.argmax(logits, -1)

    return guess


def mean_and_std(values) -> tuple[float, float, int]:
    """Mean, sample standard deviation (n - 1; NaN for one value) and n."""
    values = np.asarray(values, np.float64)
    std = values.std(ddof=1) if len(values) > 1 else math.nan
    return float(values.mean()), float(std), len(values)


# Scores beside the accuracy ----------------------------------------------------------
#
# Z. Li et al., "DD-Ranking: Rethinking the Evaluation of Dataset Distillation", 2025,
# https://arxiv.org/abs/2505.13300. Its package (ddranking 0.2.0) computes `lrs` and
# `ars` from percentages: whoever is ten points short gets about -0.157 there, and a
# lead of twenty points 2e8.


def hlr(whole: float, distilled: float) -> float:
    """Hard label recovery: what students with hard labels lose to the whole data.

        HLR = acc(whole, hard) - acc(distilled, hard)

    Args:
      whole: accuracy of students on all training images, in [0, 1].
      distilled: of students of the distilled images with their classes, in [0, 1].

    Returns:
      In [-1, 1]; smaller is better.

    Raises:
      ValueError: a percentage.

    Example:
      >>> round(hlr(whole=0.84, distilled=0.45), 4)
      0.39
    """
    _check(0, whole=whole, distilled=distilled)
    return whole - distilled


def ior(distilled: float, random: float) -> float:
    """Improvement over random: what distilled images add to labels and recipe.

        IOR = acc(distilled) - acc(random), the same labels, recipe and size

    Args:
      distilled: accuracy of students of the distilled images, in [0, 1].
      random: of as many real ones, drawn at random.

    Returns:
      In [-1, 1]; larger is better.

    Raises:
      ValueError: a percentage.

    Example:
      >>> round(ior(distilled=0.60, random=0.50), 4)
      0.1
    """
    _check(0, distilled=distilled, random=random)
    return distilled - random


def lrs(hlr: float, ior: float, *, weight: float = 0.5) -> float:
    """Label robust score: both in one number, which is worth less than the two.

        LRS = (exp(a) - exp(-1)) / (exp(1) - exp(-1)),  a = w IOR - (1 - w) HLR

    Args:
      hlr: see `hlr`, a fraction.
      ior: see `ior`, a fraction.
      weight: w, in [0, 1].

    Returns:
      In [0, 1]; 0.2689 for no better than random and no worse than the whole data.

    Raises:
      ValueError: percentages.

    Example:
      >>> round(lrs(hlr(0.84, 0.45), ior(0.60, 0.50)), 4)
      0.2115
    """
    _check(-1, hlr=hlr, ior=ior)
    _check(0, weight=weight)
    return _squash(weight * ior - (1 - weight) * hlr)


def ars(augmented: float, plain: float, *, weight: float = 0.5) -> float:
    """Augmentation robust score: the lead over random, with and without augmentation.

        ARS = (exp(b) - exp(-1)) / (exp(1) - exp(-1)),  b = w IOR_aug + (1 - w) IOR_plain

    Args:
      augmented: `ior` of students that see augmented images, a fraction.
      plain: `ior` under the same recipe without augmentation.
      weight: w, in [0, 1].

    Returns:
      In [0, 1]; 0.2689 for no better than random.

    Raises:
      ValueError: percentages.

    Example:
      >>> round(ars(0.20, 0.20), 4)
      0.3631
    """
    _check(-1, augmented=augmented, plain=plain)
    _check(0, weight=weight)
    return _squash(weight * augmented + (1 - weight) * plain)


def _squash(x: float) -> float:
    return (math.exp(x) - math.exp(-1)) / (math.exp(1) - math.exp(-1))


def _check(least: float, **values: float) -> None:
    """ValueError unless all values are in [least, 1]."""
    for name, value in values.items():
        if not least <= value <= 1:
            raise ValueError(
                f"{name} is {value}, which is not in [{least}, 1]: accuracies are "
                "fractions here. Divide percentages by 100."
            )

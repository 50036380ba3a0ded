"""What makes robust accuracies meaningless, or should make one doubt them."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.attacks import base
from ddjax.attacks.run import check_images

__all__ = ["alarms", "check", "square_alarm"]

_LOOKED_AT = 64  # images; enough to see any of the faults
_SAME = 1e-4  # of the largest logit: what a change of the batch may do by rounding
_ROUNDING = 1e-5  # of probabilities, as in AutoAttack's check
_LEAST_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}

_SLACK = 0.002  # of accuracies: what random starts change; AutoAttack's own threshold
_LARGE = 8 / 255 - 1e-9  # an L-inf radius no plainly trained network withstands
_NEAR_ZERO = 0.05  # of accuracies


# Before attacks -----------------------------------------------------------------------


def check(
    apply_fn: Callable, variables, images, num_classes: int, suite: tuple
) -> list[str]:
    """Looks at a network and some images before they are attacked.

    Args:
      apply_fn: see `run`.
      variables: of one network.
      images: [N, H, W, ch], uint8 or float in [0, 1]; at least two. The network sees
        the first 64.
      num_classes: C.
      suite: of `Attack`s, that are to be run.

    Returns:
      A sentence for each reason to doubt the results: a network that varies from call
      to call, images whose gradient is zero, or nothing but rounding.

    Raises:
      ValueError: for what makes them meaningless: images outside [0, 1], such as
        normalised ones; logits that are not finite, are probabilities, or depend on
        other images of the batch (BatchNorm in training); fewer classes than a loss of
        the suite compares.
    """
    images = np.asarray(images)
    check_images(images, np.zeros(len(images)))
    for attack in suite:
        least = _LEAST_CLASSES.get(attack.name, 2)
        if num_classes < least:
            raise ValueError(
                f"{attack.name} compares {least} logits, but there are {num_classes} "
                "classes; use pgd100 and square."
            )
    few = images[:_LOOKED_AT]
    few = few / np.float32(255) if few.dtype == np.uint8 else few
    with jax.default_matmul_precision("highest"):
        # Not jitted: a network that draws random numbers in Python must draw them anew.
        first, second = (np.array(apply_fn(variables, few)[0]) for _ in range(2))
        half = np.array(apply_fn(variables, few[: max(1, len(few) // 2)])[0])
        flat = np.array(_flat(apply_fn)(variables, few))
    _check_logits(first, num_classes)
    dead = np.mean(flat | _saturated(first))
    words, scale = [], _SAME * np.abs(first).max()
    if np.abs(first - second).max() > scale:
        words.append(
            "the network's logits vary from call to call: use autoattack_rand, and "
            "expect other attacks to look weaker than they are."
        )
    elif np.abs(first[: len(half)] - half).max() > scale:
        raise ValueError(
            "the logits of an image depend on the others of its batch, as with BatchNorm "
            "in training; attack the network's `apply`, whose statistics are frozen."
        )
    if dead > 0:
        words.append(
            f"{100 * dead:.1f} % of the images have no gradient beyond rounding: attacks "
            "by the cross entropy hardly move them; look at apgd_dlr and square."
        )
    return words


def _check_logits(logits, num_classes):
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(
            f"logits of shape {logits.shape}; expected [N, {num_classes}]."
        )
    if not np.isfinite(logits).all():
        raise ValueError("the network gives logits that are not finite.")
    sums = np.abs(logits.sum(1) - 1)
    if logits.min() > -_ROUNDING and sums.max() < _ROUNDING:
        raise ValueError(
            "the network gives probabilities; attack the logits, before the softmax."
        )


def _saturated(logits):
    """[N] bool: in float32 the most likely class has all the probability.

    The gradient of the cross entropy is then what rounding left of it, which need not
    be 0.
    """
    below = np.sort(logits, axis=1)[:, :-1] - logits.max(1, keepdims=True)
    return np.exp(below).sum(1) < np.finfo(np.float32).epsneg


@functools.lru_cache(maxsize=32)
def _flat(apply_fn):
    """[N] bool: no pixel changes the cross entropy of the class the network sees."""

    @jax.jit
    def flat(variables, images):
        def loss(images):
            logits = apply_fn(variables, images)[0]
            return base.cross_entropy(logits, jnp.argmax(logits, -1)).sum()

        return (jax.grad(loss)(images) == 0).all((1, 2, 3))

    return flat


# After attacks ------------------------------------------------------------------------


def alarms(clean: float, results: dict[str, dict[float, float]]) -> list[str]:
    """Signs that gradients are masked, so that a network only looks robust.

    Args:
      clean: accuracy without attack, in [0, 1].
      results: `{attack: {eps: accuracy}}`, with names as `named` knows them; names that
        end in "_l2" are compared with one another.

    Returns:
      A sentence for each sign, with the numbers; differences up to 0.2 points are not
      told, except where more steps should help.

    Reference: A. Athalye, N. Carlini and D. Wagner, "Obfuscated Gradients Give a False
      Sense of Security", ICML 2018, https://arxiv.org/abs/1802.00420, section 3.1; the
      check on Square is AutoAttack's.

    Example:
      >>> from ddjax import attacks
      >>> attacks.alarms(0.9, {"pgd100": {1 / 255: 0.5}, "square": {1 / 255: 0.4}})
      ['square reaches 40.0 % at 1/255, below the 50.0 % of pgd100: gradients may be \
masked.']
    """
    l2 = {name: found for name, found in results.items() if name.endswith("_l2")}
    linf = {name: found for name, found in results.items() if name not in l2}
    words = []
    for name, found in results.items():
        words += _along_radii(name, clean, found)
    for group, unit in ((linf, _in_255ths), (l2, "{:g}".format)):
        for eps in sorted({eps for found in group.values() for eps in found}):
            at = {name: found[eps] for name, found in group.items() if eps in found}
            words += _between_attacks(at, unit(eps))
    return words + _at_the_largest(linf)


def square_alarm(stages: tuple, num_images: int) -> list[str]:
    """What the end of a suite says of its beginning: AutoAttack's own check.

    Args:
      stages: of an `Outcome`.
      num_images: N, all that were there.

    Returns:
      A sentence if Square, which needs no gradient, broke more than 0.2 % of the images
      after attacks by the gradient had left them.
    """
    names = [stage["name"] for stage in stages]
    if len(names) < 2 or names[-1] != "square":
        return []
    before, after = (stage["robust"] for stage in stages[-2:])
    if before - after <= _SLACK * num_images:
        return []
    left, there = (_percent(count / num_images) for count in (after, before))
    words = (
        f"square leaves {left} of the {there} that withstood attacks by the gradient: "
        "gradients may be masked."
    )
    return [words]


def _between_attacks(at, eps):
    """Alarms of one radius, from accuracies by attack."""
    words = []
    steps = {name: at[name] for name in at if name.startswith(("pgd", "apgd", "mim"))}
    if not steps:
        return words
    best = min(steps, key=steps.get)
    for name in at:
        if name.startswith(("square", "fgsm")) and at[name] < at[best] - _SLACK:
            words.append(
                f"{name} reaches {_percent(at[name])} at {eps}, below the "
                f"{_percent(at[best])} of {best}: gradients may be masked."
            )
        suite = name.startswith(("autoattack", "torchattacks10"))
        if suite and at[name] > at[best] + _SLACK:
            words.append(
                f"{name} leaves {_percent(at[name])} at {eps}, more than {best} with "
                f"{_percent(at[best])}: the worst case is at most the lower."
            )
    for suffix in ("", "_l2"):
        long, short = (at.get(f"pgd{n}{suffix}", math.nan) for n in (100, 10))
        if long >= short > 0:
            words.append(
                f"pgd100{suffix} leaves {_percent(long)} at {eps}, no less than "
                f"pgd10{suffix} with {_percent(short)}: it has converged, or has no "
                "gradient to follow."
            )
    return words


def _along_radii(name, clean, found):
    unit = "{:g}".format if name.endswith("_l2") else _in_255ths
    words, low, where = [], clean, "without attack"
    for eps in sorted(found):
        if found[eps] > low + _SLACK:
            words.append(
                f"{name} leaves {_percent(found[eps])} at {unit(eps)}, more than "
                f"{_percent(low)} {where}: a larger ball cannot be safer."
            )
        if found[eps] < low:
            low, where = found[eps], f"at {unit(eps)}"
    return words


def _at_the_largest(linf):
    radii = [eps for found in linf.values() for eps in found]
    if not radii or max(radii) < _LARGE:
        return []
    eps = max(radii)
    left = min(found[eps] for found in linf.values() if eps in found)
    if left <= _NEAR_ZERO:
        return []
    words = (
        f"{_percent(left)} are left at {_in_255ths(eps)}, the largest radius, after the "
        "strongest attack: try a larger one, for at some radius nothing may be left."
    )
    return [words]


def _percent(share):
    return f"{100 * share:.1f} %"


def _in_255ths(eps):
    return f"{255 * eps:.3g}/255"

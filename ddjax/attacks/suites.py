"""Attacks by the words of a config, and the suites that benchmarks are made of."""

import re

from ddjax.attacks import base
from ddjax.attacks.apgd import apgd
from ddjax.attacks.carlini_wagner import carlini_wagner
from ddjax.attacks.fab import MAX_CLASSES, fab
from ddjax.attacks.gradient import fgsm, pgd
from ddjax.attacks.momentum import mi_fgsm, vmi_fgsm
from ddjax.attacks.square import square

__all__ = [
    "COUPLED",
    "UNBOUNDED",
    "VERSIONS",
    "autoattack",
    "named",
    "torchattacks10",
]

VERSIONS = ("standard", "plus", "rand")
UNBOUNDED = ("cw_torchattacks",)  # words of attacks that have no radius
COUPLED = ("cw_torchattacks",)  # of those whose result depends on the batch

_MOST_TARGETS = 9  # the authors', also of data with a thousand classes
_GRADIENT_COPIES = 20  # of "rand", to average a random model's gradient over
_PGD = re.compile(r"pgd([1-9][0-9]*)(_margin)?(_l2)?")


def autoattack(
    eps: float, *, num_classes: int, norm: str = "linf", version: str = "standard"
) -> tuple[base.Attack, ...]:
    """AutoAttack, as its authors' code has it.

    "standard" is APGD on the cross entropy, targeted APGD and FAB against the nine
    likeliest other classes, and Square with 5,000 queries. "plus" has five restarts of
    APGD on both losses and of untargeted FAB first. "rand", for networks that draw
    random numbers, averages gradients over 20 copies.

    Args:
      eps: radius, in pixels of [0, 1].
      num_classes: C; with fewer than ten, all others are targets.
      norm: "linf".
      version: one of `VERSIONS`.

    Raises:
      ValueError: unknown version; another norm; fewer classes than its losses compare,
        or for "plus" more than ten.

    Reference: F. Croce and M. Hein, "Reliable Evaluation of Adversarial Robustness with
      an Ensemble of Diverse Parameter-free Attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690.

    Example:
      >>> from ddjax import attacks
      >>> suite = attacks.autoattack(1 / 255, num_classes=10)
      >>> [attack.name for attack in suite]
      ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """
    if version not in VERSIONS:
        raise ValueError(f"unknown version {version!r}; known: {', '.join(VERSIONS)}.")
    if norm != "linf":
        raise ValueError(
            f"AutoAttack in {norm!r}: FAB and Square are for linf alone; use apgd_ce_l2 "
            "and apgd_t_l2."
        )
    _check_classes(num_classes, 3 if version == "rand" else 4)
    if version == "plus" and num_classes > MAX_CLASSES:
        raise ValueError(
            f"{num_classes} classes, but the untargeted FAB of AutoAttack plus takes a "
            f"gradient for each of {MAX_CLASSES} at most; use autoattack."
        )
    if version == "rand":
        return tuple(
            apgd(eps, loss=loss, samples=_GRADIENT_COPIES) for loss in ("ce", "dlr")
        )
    targets = min(_MOST_TARGETS, num_classes - 1)
    targeted = (
        apgd(eps, loss="dlr_targeted", targets=targets),
        fab(eps, targets=targets),
    )
    if version == "standard":
        return (apgd(eps, loss="ce"), *targeted, square(eps=eps))
    return (
        apgd(eps, loss="ce", restarts=5),
        apgd(eps, loss="dlr", restarts=5),
        fab(eps, targets=None, restarts=5),
        square(eps=eps),
        *targeted,
    )


def torchattacks10(eps: float, *, num_classes: int) -> tuple[base.Attack, ...]:
    """What torchattacks calls AutoAttack since its version 3.3: weaker, for comparison.

    APGD and FAB make 10 steps, not 100, and Square's windows shrink twice as fast. The
    tables of GUARD, BEARD and DD-RobustBench were made with this package.

    Args:
      eps: L-inf radius, in pixels of [0, 1].
      num_classes: C; at most nine others are targets, as those benchmarks have it. (The
        package itself takes C - 1 if it is told C.)

    Raises:
      ValueError: fewer than four classes.
    """
    _check_classes(num_classes, 4)
    targets = min(_MOST_TARGETS, num_classes - 1)
    return (
        apgd(eps, loss="ce", num_steps=10),
        apgd(eps, loss="dlr_targeted", num_steps=10, targets=targets),
        fab(eps, num_steps=10, targets=targets),
        square(eps=eps, rescale=True),
    )


def named(name: str, eps: float, num_classes: int) -> tuple[base.Attack, ...]:
    """The attacks that a word of a config stands for.

    Args:
      name: one of

        fgsm               one step
        pgd<N>             N steps of eps / 4 from a random start; pgd100 is GUARD's
        pgd<N>_margin      the same on the margin; cw is pgd100_margin
        mim                momentum, 20 steps of eps, as GUARD, but normalised by image
        vmi_fgsm           momentum and variance, torchattacks' defaults
        cw_torchattacks    CW with c = 1e-4, as GUARD ran it: no radius, hardly an attack
        square             5,000 queries
        apgd_ce, apgd_dlr, apgd_t, fab_t     parts of AutoAttack
        autoattack, autoattack_plus, autoattack_rand, torchattacks10     suites

        of which pgd<N>, pgd<N>_margin and the three of apgd take the suffix "_l2".
      eps: radius, in pixels of [0, 1]; an L2 length with that suffix.
      num_classes: C.

    Raises:
      ValueError: unknown name, with those that are known; too few classes.
    """
    if match := _PGD.fullmatch(name):
        steps, margin, l2 = match.groups()
        attack = pgd(
            eps=eps,
            num_steps=int(steps),
            loss="margin" if margin else "ce",
            norm="l2" if l2 else "linf",
        )
        return (attack,)
    makers = _makers(eps, num_classes)
    if name not in makers:
        known = ["pgd<N>", "pgd<N>_l2", "pgd<N>_margin", "pgd<N>_margin_l2", *makers]
        raise ValueError(f"unknown attack {name!r}; known: {', '.join(sorted(known))}.")
    made = makers[name]()
    return (made,) if isinstance(made, base.Attack) else made


def _makers(eps, num_classes):
    targets = min(_MOST_TARGETS, num_classes - 1)

    # Called with the same words as in the suites, an attack is the same object there,
    # and compiled once.
    def ascent(loss, classes, **more):
        def make():
            _check_classes(num_classes, classes)
            return apgd(eps, loss=loss, **more)

        return make

    def suite(version):
        return lambda: autoattack(eps, num_classes=num_classes, version=version)

    makers = {
        "fgsm": lambda: fgsm(eps=eps),
        "cw": lambda: named("pgd100_margin", eps, num_classes),
        "mim": lambda: mi_fgsm(eps=eps, num_steps=20, step_size=eps),
        "vmi_fgsm": lambda: vmi_fgsm(eps=eps),
        "cw_torchattacks": lambda: carlini_wagner(c=1e-4),
        "square": lambda: square(eps=eps),
        "fab_t": lambda: fab(eps, targets=targets),
        "autoattack": suite("standard"),
        "autoattack_plus": suite("plus"),
        "autoattack_rand": suite("rand"),
        "torchattacks10": lambda: torchattacks10(eps, num_classes=num_classes),
    }
    for suffix, norm in (("", {}), ("_l2", {"norm": "l2"})):
        makers["apgd_ce" + suffix] = ascent("ce", 2, **norm)
        makers["apgd_dlr" + suffix] = ascent("dlr", 3, **norm)
        makers["apgd_t" + suffix] = ascent("dlr_targeted", 4, targets=targets, **norm)
    return makers


def _check_classes(num_classes, least):
    if num_classes < least:
        raise ValueError(
            f"{num_classes} classes, but the loss compares {least} logits; use pgd100 "
            "and square."
        )

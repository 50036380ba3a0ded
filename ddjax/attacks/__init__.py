"""Adversarial attacks: pure functions on images in [0, 1], run to the end by `run`."""

from ddjax.attacks.alarms import alarms, check, square_alarm
from ddjax.attacks.apgd import apgd
from ddjax.attacks.base import Attack
from ddjax.attacks.carlini_wagner import carlini_wagner
from ddjax.attacks.fab import fab
from ddjax.attacks.gradient import fgsm, pgd
from ddjax.attacks.momentum import mi_fgsm, vmi_fgsm
from ddjax.attacks.rounds import Found, attack_round
from ddjax.attacks.run import Outcome, run
from ddjax.attacks.square import square
from ddjax.attacks.suites import (
    COUPLED,
    UNBOUNDED,
    autoattack,
    named,
    torchattacks10,
)

__all__ = [
    "COUPLED",
    "UNBOUNDED",
    "Attack",
    "Found",
    "Outcome",
    "alarms",
    "apgd",
    "attack_round",
    "autoattack",
    "carlini_wagner",
    "check",
    "fab",
    "fgsm",
    "mi_fgsm",
    "named",
    "pgd",
    "run",
    "square",
    "square_alarm",
    "torchattacks10",
    "vmi_fgsm",
]

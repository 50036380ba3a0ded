"""Adversarial attacks: pure functions on images in [0, 1], run to the end by `run`."""

from ddjax.attacks.apgd import apgd
from ddjax.attacks.base import Attack
from ddjax.attacks.carlini_wagner import carlini_wagner
from ddjax.attacks.fab import fab
from ddjax.attacks.gradient import fgsm, pgd
from ddjax.attacks.momentum import mi_fgsm, vmi_fgsm
from ddjax.attacks.rounds import Found, attack_round
from ddjax.attacks.run import Outcome, run
from ddjax.attacks.square import square

__all__ = [
    "Attack",
    "Found",
    "Outcome",
    "apgd",
    "attack_round",
    "carlini_wagner",
    "fab",
    "fgsm",
    "mi_fgsm",
    "pgd",
    "run",
    "square",
    "vmi_fgsm",
]

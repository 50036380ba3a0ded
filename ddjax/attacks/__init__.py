"""Adversarial attacks: pure functions on images in [0, 1], run to the end by `run`."""

from ddjax.attacks.base import Attack
from ddjax.attacks.carlini_wagner import carlini_wagner
from ddjax.attacks.gradient import fgsm, pgd
from ddjax.attacks.momentum import mi_fgsm, vmi_fgsm

__all__ = ["Attack", "carlini_wagner", "fgsm", "mi_fgsm", "pgd", "vmi_fgsm"]

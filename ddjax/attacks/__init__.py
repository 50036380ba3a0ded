"""Adversarial attacks: pure functions on images in [0, 1], run to the end by `run`."""

from ddjax.attacks.apgd import apgd
from ddjax.attacks.base import Attack
from ddjax.attacks.fab import fab

__all__ = ["Attack", "apgd", "fab"]

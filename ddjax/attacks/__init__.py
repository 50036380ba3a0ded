"""Adversarial attacks: pure functions on images in [0, 1], run to the end by `run`."""

from ddjax.attacks.base import Attack

__all__ = ["Attack"]

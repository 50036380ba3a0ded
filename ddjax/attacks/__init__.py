"""Adversarial attacks: pure functions on images in [0, 1], run to the end by `run`."""

from ddjax.attacks.base import Attack
from ddjax.attacks.rounds import Found, attack_round
from ddjax.attacks.run import Outcome, run

__all__ = ["Attack", "Found", "Outcome", "attack_round", "run"]

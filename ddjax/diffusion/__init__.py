"""Diffusion: images from noise, by a network that was trained to take it away.

`schedule` says how much noise there is at each step, `steps` are the equations of one
step.
"""

from ddjax.diffusion import schedule, steps
from ddjax.diffusion.schedule import Schedule

__all__ = ["Schedule", "schedule", "steps"]

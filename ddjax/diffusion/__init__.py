"""Diffusion: images from noise, by a network that was trained to take it away.

`schedule` says how much noise there is at each step, `steps` are the equations of one
step, `objective` is what a network learns from. A `Generator` is the network and the
space it works in, `sampling` makes images with it. It is trained by `ddjax.generate`.
"""

from ddjax.diffusion import objective, sampling, schedule, steps
from ddjax.diffusion.generator import Generator, build_autoencoder, create
from ddjax.diffusion.sampling import predict, sample
from ddjax.diffusion.schedule import Schedule

__all__ = [
    "Generator",
    "Schedule",
    "build_autoencoder",
    "create",
    "objective",
    "predict",
    "sample",
    "sampling",
    "schedule",
    "steps",
]

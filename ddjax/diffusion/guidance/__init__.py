"""What bends the sampling of a class towards a better set: three terms, and their step.

Each term is a pure function of the arrays of one class, `(...) -> (value, gradient)`,
with gradients that are always finite, to be vmapped over classes:

    influence   images that a network learns from as from real ones      (pixels)
    deviation   away from the finished latent that looks most alike      (z_t)
    transport   all that is sampled so far, towards the real latents     (z_t or z_0)
    step        how far they move a latent, and at which steps
"""

from ddjax.diffusion.guidance import deviation, influence, step, transport

__all__ = ["deviation", "influence", "step", "transport"]

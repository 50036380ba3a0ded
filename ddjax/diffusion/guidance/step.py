"""How far each term of the guidance moves a latent, and at which steps."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["WINDOW", "normalised", "rms", "window"]

WINDOW = (1.6e-4, 2.5e-2)  # of alpha_bar: steps 30 to 45 of 50 of the linear schedule


def normalised(
    gradient: jax.Array, noise: jax.Array, alpha_bar, share: float
) -> jax.Array:
    """The gradient at a length that is a share of the noise; 0 where it is 0.

        share sqrt(1 - alpha_bar) rms(noise) gradient / rms(gradient)

    IGD's rule for its influence, with share = 0.0015 k, whatever the gradient's length.
    Ours for transport, whose gradient falls as 1 / n with the points of a class; and a
    clean estimate magnifies both by 1 / sqrt(alpha_bar), 7 to 70 in the window.

    Args:
      gradient: [h, w, c], in the *input* of the step.
      noise: [h, w, c], what the network predicts at the input, guided by the class.
      alpha_bar: scalar, of the input.
      share: scalar.

    Returns:
      [h, w, c], of root mean square share sqrt(1 - alpha_bar) rms(noise).

    Reference: M. Chen et al., "Influence-Guided Diffusion for Dataset Distillation"
      (IGD), ICLR 2025, https://openreview.net/forum?id=0whx8MhysK, and its code.
    """
    largest = jnp.max(jnp.abs(gradient))
    # Squares of a mean over many numbers may be too small for a float.
    gradient = gradient / jnp.where(largest > 0, largest, 1.0)
    length = share * jnp.sqrt(1 - alpha_bar) * rms(noise)
    return length * gradient / jnp.where(largest > 0, rms(gradient), 1.0)


def window(schedule, bounds: tuple[float, float] = WINDOW) -> range:
    """The steps that are guided: those with alpha_bar within the bounds.

    Of 50 steps of the linear schedule these are 30 to 45 (alpha_bar 0.022 to 0.000198),
    IGD's and DMGD's, with bounds half way to their neighbours. The papers say so by
    index; a bound on the noise means the same for any number of steps. Small images
    keep less at the same alpha_bar: guide them later, up to 0.2 or so.

    Args:
      schedule: what has a table `alpha_bar` [S], descending, of NumPy.
      bounds: lowest and highest alpha_bar.

    Returns:
      Indices into the table, consecutive; empty where no step is between the bounds.

    Raises:
      ValueError: bounds that are none.
    """
    lowest, highest = bounds
    if not 0 <= lowest < highest <= 1:
        raise ValueError(
            f"the window of guidance has alpha_bar from {lowest} to {highest}; it needs "
            "0 <= lowest < highest <= 1."
        )
    table = np.asarray(schedule.alpha_bar)
    (there,) = np.nonzero((table >= lowest) & (table <= highest))
    return range(int(there[0]), int(there[-1]) + 1) if len(there) else range(0)


def rms(x: jax.Array) -> jax.Array:
    """The root mean square, a scalar."""
    return jnp.sqrt(jnp.mean(x * x))

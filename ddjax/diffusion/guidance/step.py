"""How far each term of the guidance moves a latent, and at which steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Gradients", "Strengths", "displacement", "normalised", "window"]

_INFLUENCE = 0.0015  # of IGD's code, beside its k


class Gradients(NamedTuple):
    """In one latent [h, w, c] at its noise level; None for a term that is left out."""

    influence: Any = None
    deviation: Any = None
    transport: Any = None


class Strengths(NamedTuple):
    """Of the terms. IGD's for ImageNette and 10 images a class; transport's is ours."""

    influence: float = 5.0  # k
    deviation: float = 50.0  # gamma; 120 for 50 images a class
    transport: float = 0.02  # beta_1, share of the noise; or as it is, where literal
    literal: bool = False  # transport moves by beta_1 times its gradient

    def check(self) -> None:
        """ValueError for what cannot be."""
        for name in Gradients._fields:
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(
                    f"the strength of {name} guidance is {getattr(self, name)}; it must "
                    "be 0 or more (leave the term out, rather than turn it round)."
                )


def displacement(
    gradients: Gradients, noise: jax.Array, alpha_bar, strengths: Strengths
) -> jax.Array:
    """What is subtracted from the latent of the next step.

        rho grad G_I + gamma grad G_D + beta grad G_W
        rho  = 0.0015 k sqrt(1 - alpha_bar) rms(noise) / rms(grad G_I)
        beta = beta_1 sqrt(1 - alpha_bar) rms(noise) / rms(grad G_W)

    so G_I and G_W move a latent by a fixed share of its noise, whatever their
    gradients' length: that of G_W falls as 1 / n with the points of a class, and a
    clean estimate magnifies both by 1 / sqrt(alpha_bar), 7 to 70 in the window. gamma
    is used as it is. None is multiplied by the variance of the step.

    Args:
      gradients: in the *input* of the step, [h, w, c] each.
      noise: [h, w, c], what the network predicts at the input, guided by the class.
      alpha_bar: scalar, of the input; may be traced.
      strengths: numbers only.

    Returns:
      [h, w, c]; 0 where all terms are left out.

    Reference: M. Chen et al., "Influence-Guided Diffusion for Dataset Distillation"
      (IGD), ICLR 2025, https://openreview.net/forum?id=0whx8MhysK, and its code. X. Cui
      et al., NeurIPS 2025, https://arxiv.org/abs/2512.00308, has beta_1 times the
      gradient (`literal`), for a beta_1 that we do not know.
    """
    total = jnp.zeros_like(noise)
    if gradients.influence is not None:
        share = _INFLUENCE * strengths.influence
        total += normalised(gradients.influence, noise, alpha_bar, share)
    if gradients.deviation is not None:
        total += strengths.deviation * gradients.deviation
    if gradients.transport is not None:
        if strengths.literal:
            total += strengths.transport * gradients.transport
        else:
            share = strengths.transport
            total += normalised(gradients.transport, noise, alpha_bar, share)
    return total


def normalised(
    gradient: jax.Array, noise: jax.Array, alpha_bar, share: float
) -> jax.Array:
    """The gradient at a length that is a share of the noise; 0 where it is 0.

        share sqrt(1 - alpha_bar) rms(noise) gradient / rms(gradient)

    Args:
      gradient: [h, w, c].
      noise: [h, w, c], of unit scale.
      alpha_bar: scalar.
      share: number.

    Returns:
      [h, w, c], of root mean square share sqrt(1 - alpha_bar) rms(noise).
    """
    largest = jnp.max(jnp.abs(gradient))
    # Squares of a mean over many numbers may be too small for a float.
    gradient = gradient / jnp.where(largest > 0, largest, 1.0)
    length = share * jnp.sqrt(1 - alpha_bar) * _rms(noise)
    return length * gradient / jnp.where(largest > 0, _rms(gradient), 1.0)


def window(schedule, lowest: float = 1.6e-4, highest: float = 2.5e-2) -> range:
    """The steps that are guided: those with alpha_bar from `lowest` to `highest`.

    Of 50 steps of the linear schedule these are 30 to 45 (alpha_bar 0.022 to 0.000198),
    IGD's and DMGD's, with bounds half way to their neighbours. The papers say so by
    index; a bound on the noise means the same for any number of steps. Small images
    keep less at the same alpha_bar: guide them later, up to 0.2 or so.

    Args:
      schedule: what has a table `alpha_bar` [S], descending, of NumPy.
      lowest: of alpha_bar.
      highest: of alpha_bar.

    Returns:
      Indices into the table, consecutive; empty where no step is between the bounds.

    Raises:
      ValueError: bounds that are none.
    """
    if not 0 <= lowest < highest <= 1:
        raise ValueError(
            f"the window of guidance has alpha_bar from {lowest} to {highest}; it needs "
            "0 <= lowest < highest <= 1."
        )
    table = np.asarray(schedule.alpha_bar)
    (there,) = np.nonzero((table >= lowest) & (table <= highest))
    return range(int(there[0]), int(there[-1]) + 1) if len(there) else range(0)


def _rms(x):
    return jnp.sqrt(jnp.mean(x * x))

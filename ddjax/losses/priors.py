"""What natural images look like, without a network."""

import jax
import jax.numpy as jnp

from ddjax.losses.norm import safe_norm

__all__ = ["total_variation"]


def total_variation(images: jax.Array, *, squared: bool = False) -> jax.Array:
    """Differences of neighbouring pixels in four directions.

        un-squared (SRe2L's code):  sum of || d ||_2, one norm per direction
        squared:                    mean over images of the sum of || d ||_2^2

    with d the vertical, horizontal and both diagonal differences of the whole batch.

    Args:
      images: [N, H, W, ch].
      squared: squared differences, averaged over images.

    Returns:
      Scalar, pixel units (squared if `squared`).

    Reference: H. Yin et al., "Dreaming to Distill", CVPR 2020,
      https://arxiv.org/abs/1912.08795, whose code SRe2L's follows.
    """
    differences = (
        images[:, 1:] - images[:, :-1],
        images[:, :, 1:] - images[:, :, :-1],
        images[:, 1:, 1:] - images[:, :-1, :-1],
        images[:, 1:, :-1] - images[:, :-1, 1:],
    )
    if squared:
        return sum(jnp.sum(d**2) for d in differences) / len(images)
    return sum(safe_norm(d) for d in differences)

"""Distances between the means of real and synthetic features, class by class."""

import jax
import jax.numpy as jnp

__all__ = ["mean_matching"]


def mean_matching(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array
) -> jax.Array:
    """The squared distance between the mean features of each class, summed.

        sum_k || sum_i w_ki F_ki - mean_j S_kj ||^2

    Args:
      real: [q, n, D].
      synthetic: [q, m, D].
      weights: [q, n] of the real ones, sum 1 over n.

    Returns:
      Scalar, squared feature units; the sum over classes, not their mean, which the
      published learning rates of DM expect.

    Reference: B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching",
      WACV 2023, https://arxiv.org/abs/2110.04181, equation 6.
    """
    centre = jnp.sum(weights[..., None] * real, axis=1)
    return jnp.sum((centre - synthetic.mean(1)) ** 2)

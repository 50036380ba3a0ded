"""Distances between distributions through their characteristic functions."""

import jax
import jax.numpy as jnp

__all__ = ["characteristic_matching"]

_SCALE = 300.0  # NCFM's, of the loss
_LEAST = 1e-12  # below which NCFM's code clamps the phase and what is under the root


def characteristic_matching(
    real: jax.Array, synthetic: jax.Array, weights: jax.Array, frequencies: jax.Array
) -> jax.Array:
    """NCFM's loss, summed over the classes.

        phi_x(t) = mean_i exp(i t.x_i)
        A = (|phi_x| - |phi_s|)^2,  P = 2 (|phi_x| |phi_s| - Re(phi_x conj phi_s))
        L = 300 sum_k mean_t sqrt(A / 2 + P / 2)

    Args:
      real: [q, n, D], of length 1 in NCFM.
      synthetic: [q, m, D].
      weights: [q, n] of the real ones, sum 1 over n.
      frequencies: [F, D].

    Returns:
      Scalar.

    Reference: S. Wang et al., "Dataset Distillation with Neural Characteristic Function:
      A Minmax Perspective", CVPR 2025, https://arxiv.org/abs/2502.20653; the clamps
      are its code's. Its frequencies may come from a network that is trained against
      the images; ours are given (its shipped configs draw them from N(0, 1)).
    """
    uniform = jnp.full(synthetic.shape[:2], 1 / synthetic.shape[1], synthetic.dtype)
    cos_x, sin_x = _function(real, weights, frequencies)
    cos_s, sin_s = _function(synthetic, uniform, frequencies)
    size_x, size_s = _size(cos_x, sin_x), _size(cos_s, sin_s)
    amplitude = (size_x - size_s) ** 2
    phase = 2 * (size_x * size_s - cos_x * cos_s - sin_x * sin_s)
    square = (amplitude + jnp.maximum(phase, _LEAST)) / 2
    return _SCALE * jnp.sqrt(square).mean(1).sum()


def _function(features, weights, frequencies):
    """Real and imaginary part, [q, F]."""
    angles = features @ frequencies.T
    return tuple(
        jnp.einsum("qn,qnf->qf", weights, f(angles)) for f in (jnp.cos, jnp.sin)
    )


def _size(cos, sin):
    """The modulus; its slope at 0 is 0."""
    square = cos**2 + sin**2
    there = square > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, square, 1.0)), 0.0)

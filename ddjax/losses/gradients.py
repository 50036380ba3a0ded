"""How far two gradients of a network point apart."""

import jax
import jax.numpy as jnp

__all__ = ["gradient_distance"]

_OFFSET = 1e-6  # of DC's code, added to the product of the norms


def gradient_distance(real, synthetic) -> jax.Array:
    """DC's distance of two gradients, layer by layer and output by output.

        D = sum_layers sum_outputs ( 1 - <g, s> / (|g| |s| + 1e-6) )

    over the weights that lead to one output channel or neuron: of a flax kernel all but
    its last axis. Biases, and scales of normalisations, do not count.

    Args:
      real: gradient, a pytree of parameters with kernels [..., in, out].
      synthetic: the same; differentiable, also where an output has no gradient.

    Reference: B. Zhao, K. R. Mopuri and H. Bilen, "Dataset Condensation with Gradient
      Matching", ICLR 2021, https://arxiv.org/abs/2006.05929, equation 10, and its code.
    """
    pairs = zip(jax.tree.leaves(real), jax.tree.leaves(synthetic), strict=True)
    return sum(_by_output(g, s) for g, s in pairs if g.ndim > 1)


def _by_output(g, s):
    g, s = (x.reshape(-1, x.shape[-1]) for x in (g, s))
    product = jnp.sum(g * s, 0)
    return jnp.sum(1 - product / (_norms(g) * _norms(s) + _OFFSET))


def _norms(g):
    """Of the columns; the slope at 0 is 0, as PyTorch's."""
    square = jnp.sum(g * g, 0)
    there = square > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, square, 1.0)), 0.0)

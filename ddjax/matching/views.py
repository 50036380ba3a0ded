"""How real and synthetic images of a class are seen alike."""

import jax
import jax.numpy as jnp

from ddjax.data import dsa

__all__ = ["siamese"]


def siamese(key, strategy: str, network, real: jax.Array, synthetic: jax.Array):
    """One random operator and its parameters for both batches of a class.

    Args:
      key: consumed; each class has a draw of its own.
      strategy: operators of `data.dsa` joined by "_"; "" for none.
      network: `models.Network`, whose mean and std make pixels of zero mean: the
        operators work on these.
      real: [q, n, H, W, ch] in [0, 1].
      synthetic: [q, m, H, W, ch], pixels.

    Returns:
      Both, of the same shapes, as pixels again.

    Reference: B. Zhao and H. Bilen, ICML 2021, https://arxiv.org/abs/2102.08259; see
      `data.dsa`.
    """
    if not strategy:
        return real, synthetic
    mean, std = jnp.array(network.mean), jnp.array(network.std)
    height, width = real.shape[2:4]

    def of_class(arguments):
        key, *both = arguments
        drawn = dsa.sample(key, height, width, strategy)
        return tuple(
            dsa.apply(drawn, (images - mean) / std) * std + mean for images in both
        )

    # One class after another: under `vmap` all six operators would be computed.
    keys = jax.random.split(key, len(real))
    return jax.lax.map(of_class, (keys, real, synthetic))

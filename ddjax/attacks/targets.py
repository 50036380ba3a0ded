"""Which class a round of a targeted attack aims at, and the logits of one class."""

import jax
import jax.numpy as jnp

__all__ = ["logit_of", "target_of_round"]


def target_of_round(
    logits: jax.Array, round: jax.Array, *, targets: int, restarts: int
) -> jax.Array:
    """[B] int32, the class that is `round // restarts + 2`nd by the clean logits.

    The most likely class of an image that is classified correctly is its label, so the
    first round aims at the runner-up, the next (after the restarts) at the third.

    Args:
      logits: [B, C], of the clean images.
      round: scalar int32, may be traced: one program serves all targets.
      targets: how many classes are aimed at.
      restarts: rounds for each of them.

    Raises:
      ValueError: more targets than other classes.

    Reference: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness
      with an ensemble of diverse parameter-free attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690.
    """
    classes = logits.shape[1]
    if targets > classes - 1:
        raise ValueError(
            f"{targets} targets, but {classes} classes leave {classes - 1} to aim at; "
            f"use targets={classes - 1} or fewer."
        )
    rank = round // restarts + 2
    ascending = jnp.argsort(logits, axis=1)
    return jnp.take(ascending, classes - rank, axis=1).astype(jnp.int32)


def logit_of(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """[B], for logits [B, C] the one of each image's class, [B]."""
    index = classes[:, None].astype(jnp.int32)
    return jnp.take_along_axis(logits, index, 1)[:, 0]

"""Losses on labels, hard and soft."""

import chex
import jax
import jax.numpy as jnp
import optax

__all__ = [
    "cross_entropy",
    "mixed_logits",
    "soft_label_distance",
    "soft_label_divergence",
]


def cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Mean cross entropy of integer labels.

    Args:
      logits: [N, C].
      labels: [N] integers.
      weights: [N] of the images, divided by their mean; None where equal.

    Returns:
      Scalar, nats.
    """
    chex.assert_rank([logits, labels], [2, 1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return _weighted_mean(losses, weights)


def soft_label_divergence(
    logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    temperature: float = 20.0,
    weights: jax.Array | None = None,
) -> jax.Array:
    """Kullback-Leibler divergence of softened predictions, teacher to student.

        l_i = sum_c p_ic (ln p_ic - ln q_ic),  p = softmax(t / T),  q = softmax(s / T)

    The mean over images is weighted by w_i / mean(w), and, as in SRe2L's and WMDD's
    code, not multiplied by T^2.

    Args:
      logits: [N, C], the student's, s.
      teacher_logits: [N, C], t; not differentiated.
      temperature: T; 20 in both papers.
      weights: [N], the barycenter's weight of each image, or None where equal.

    Returns:
      Scalar, nats.

    Reference: H. Liu et al., ICCV 2025, https://arxiv.org/abs/2311.18531; Z. Shen and
      E. Xing, "A Fast Knowledge Distillation Framework", ECCV 2022.
    """
    chex.assert_equal_shape([logits, teacher_logits])
    teacher_logits = jax.lax.stop_gradient(teacher_logits.astype(logits.dtype))
    log_p = jax.nn.log_softmax(teacher_logits / temperature)
    log_q = jax.nn.log_softmax(logits / temperature)
    losses = jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)
    return _weighted_mean(losses, weights)


def soft_label_distance(
    logits: jax.Array, teacher_logits: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Mean square of the differences of logits, over classes and images.

    Args:
      logits: [N, C], the student's.
      teacher_logits: [N, C]; not differentiated.
      weights: [N] of the images, divided by their mean; None where equal.

    Returns:
      Scalar.
    """
    chex.assert_equal_shape([logits, teacher_logits])
    teacher_logits = jax.lax.stop_gradient(teacher_logits.astype(logits.dtype))
    return _weighted_mean(jnp.square(logits - teacher_logits).mean(-1), weights)


def mixed_logits(
    own: jax.Array, other: jax.Array, share, temperature: float
) -> jax.Array:
    """Logits whose softened probabilities are those of two images, mixed.

        softmax(result / T) = share softmax(own / T) + (1 - share) softmax(other / T)

    Args:
      own: [N, C] logits.
      other: [N, C] logits of what was mixed in.
      share: scalar in [0, 1], of the image's own.
      temperature: T.
    """
    first = jnp.log(share) + jax.nn.log_softmax(own / temperature)
    second = jnp.log1p(-share) + jax.nn.log_softmax(other / temperature)
    return temperature * jnp.logaddexp(first, second)


def _weighted_mean(losses, weights):
    return (
        losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
    )

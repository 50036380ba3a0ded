"""Losses on labels, hard and soft."""

import chex
import jax
import jax.numpy as jnp
import optax

__all__ = ["cross_entropy", "soft_label_divergence"]


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


def _weighted_mean(losses, weights):
    return (
        losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
    )

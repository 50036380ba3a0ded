"""Optimal transport between a batch's predictions and its teacher's: OTM."""

import chex
import jax
import jax.numpy as jnp

from ddjax import ot

__all__ = ["TRANSPORTED", "logit_transport"]

TRANSPORTED = ("probabilities", "logits")


def logit_transport(
    logits: jax.Array,
    teacher_logits: jax.Array,
    *,
    temperature: float = 2.0,
    epsilon: float = 0.1,
    iterations: int = 50,
    gradient: str = "unrolled",
    on: str = "probabilities",
    weights: jax.Array | None = None,
) -> jax.Array:
    """Cost of moving a batch of predictions onto the teacher's, whoever is whose.

        p = softmax(s / T),  q = softmax(t / T),  C_ij = sum_c |p_ic - q_jc|
        P = argmin <P, C> + eps KL(P | a a'),  P 1 = P' 1 = a,     L = <P, C>

    Args:
      logits: [N, C], the student's, s.
      teacher_logits: [N, C], t, of any precision; not differentiated.
      temperature: T, positive; of "probabilities" alone.
      epsilon: positive, strength of the entropy: that of C, which lies in [0, 2], or
        ("logits") in units of the mean of C.
      iterations: at most, of Sinkhorn's, each of both marginals; "unrolled" makes all.
      gradient: "unrolled", through the iterations; or "envelope", of C alone under a
        plan that is held fixed. They differ (at eps 0.1 by a fifth of their length):
        <P, C> is not what the plan minimises.
      on: "probabilities", or "logits": C_ij is then mean_c |s_ic - t_jc|.
      weights: [N] of the images, a before it is divided by its sum; None where equal.

    Returns:
      Scalar: in [0, 2] for "probabilities", else in units of the logits. The plan has
      mass 1, so that it does not grow with the batch.

    Raises:
      ValueError: unknown `on`, or `gradient`; `temperature` or `epsilon` not positive.

    Reference: X. Cui et al., NeurIPS 2025, https://arxiv.org/abs/2512.00308, whose OTM
      trains students with it and does not say how; what is here is X. Cui et al.,
      "Sinkhorn Distance Minimization for Knowledge Distillation", COLING 2024,
      https://arxiv.org/abs/2402.17110 (SinKD). Its code divides the rows and columns of
      exp(-C / eps) by their sums, 20 times: a plan of mass N, and a loss that is a sum
      over the batch, N times ours; its weight, 8e-4 of the sum, is 0.08 here at batches
      of 100. Ours works on logarithms, and begins with the columns. "logits" is
      "logit matching" read literally: our reading.

    Example:
      >>> import jax.numpy as jnp
      >>> teacher = jnp.array([[9.0, 0.0], [0.0, 9.0]])
      >>> swapped = logit_transport(teacher[::-1], teacher)
      >>> wrong = logit_transport(jnp.array([[9.0, 0.0], [9.0, 0.0]]), teacher)
      >>> round(float(swapped), 3), round(float(wrong), 3)
      (0.0, 0.978)
    """
    chex.assert_rank(logits, 2)
    chex.assert_equal_shape([logits, teacher_logits])
    teacher = jax.lax.stop_gradient(teacher_logits.astype(logits.dtype))
    if on not in TRANSPORTED:
        raise ValueError(f"unknown on {on!r}; known: {', '.join(TRANSPORTED)}.")
    if not temperature > 0:
        raise ValueError(f"logit_transport needs a temperature > 0; got {temperature}.")
    if on == "logits":
        cost, unit = ot.l1(logits, teacher) / logits.shape[1], "mean"
    else:
        ours, theirs = (jax.nn.softmax(x / temperature) for x in (logits, teacher))
        cost, unit = ot.l1(ours, theirs), "absolute"
    mass = jnp.ones(len(logits), logits.dtype) if weights is None else weights
    mass = mass.astype(logits.dtype) / mass.sum()
    return ot.sinkhorn(
        cost.T,  # the last sums to be right are the teacher's, as in SinKD's code
        mass,
        mass,
        epsilon=epsilon,
        unit=unit,
        gradient=gradient,
        threshold=1e-4,
        max_iterations=iterations,
    ).cost

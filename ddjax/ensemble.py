"""Ensemble: several teachers that label as one, and how sure such labels are: LIA.

    labels = ensemble.create((first.apply, second.apply))
    relabel.soft_labels(labels, (first_variables, second_variables), views, ...)

X. Cui et al., NeurIPS 2025, https://arxiv.org/abs/2512.00308, label a set by few
teachers where it has few images per class, and by more where it has many: the labels'
entropy grows with the teachers.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

__all__ = ["AVERAGES", "combine", "create", "entropy"]

AVERAGES = ("logits", "probs")


@functools.cache  # the same object every time: jit compiles what it is in once
def create(
    apply_fns: tuple[Callable, ...],
    average: str = "logits",
    temperature: float = 1.0,
    standardise: bool = False,
) -> Callable:
    """A teacher that is the mean of several, as `relabel` and `student` take one.

    Args:
      apply_fns: of the teachers, each `(variables, images) -> (logits, out)`.
      average: see `combine`, as are the other two.
      temperature: of "probs".
      standardise: whether all count alike.

    Returns:
      `(variables of each, a tuple, images) -> (logits [B, C], {})`. One teacher's are
      its own, bit for bit.

    Raises:
      ValueError: no teacher, or an unknown `average`.

    Example:
      >>> import jax.numpy as jnp
      >>> double = create((lambda v, x: (v * x, {}), lambda v, x: (x + v, {})))
      >>> double((jnp.array(2.0), jnp.array(4.0)), jnp.ones((1, 2)))[0].tolist()
      [[3.5, 3.5]]
    """
    if not apply_fns:
        raise ValueError("an ensemble needs a teacher; got none.")
    _check(average)

    def apply(variables, images):
        logits = [f(v, images)[0] for f, v in zip(apply_fns, variables, strict=True)]
        if len(logits) == 1:
            return logits[0], {}
        return combine(jnp.stack(logits), average, temperature, standardise), {}

    return apply


def combine(
    logits: jax.Array,
    average: str = "logits",
    temperature: float = 1.0,
    standardise: bool = False,
) -> jax.Array:
    """The mean of what teachers say of the same images.

        "logits": t = mean_k t_k
        "probs":  softmax(t / T) = mean_k softmax(t_k / T),  mean_c t = mean_kc t_k

    Args:
      logits: [K, ..., C], of K teachers.
      average: "logits", the mean that EDC's squares are taken from; or "probs", the one
        of probabilities, as logits again. The constant that no softmax sees is then
        that of the mean logits.
      temperature: T of "probs": that of the loss which reads them.
      standardise: first scales each teacher's logits around their mean over classes, in
        every image, to the norm that the teachers have there on average: who is surer
        then counts no more than the others.

    Returns:
      [..., C] logits, float32 or better.

    Raises:
      ValueError: unknown `average`.

    Reference: S. Shao et al., "Elucidating the Design Space of Dataset Condensation",
      NeurIPS 2024, https://arxiv.org/abs/2404.13733 (EDC), whose code takes the plain
      mean of raw logits. "probs" and `standardise` are ours.
    """
    _check(average)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if standardise:
        logits = _standardised(logits)
    mean = logits.mean(0)
    if average == "logits":
        return mean
    shares = jax.nn.log_softmax(logits / temperature)
    mixed = jax.nn.logsumexp(shares, axis=0) - jnp.log(len(logits))
    mixed = temperature * mixed
    constant = mean.mean(-1, keepdims=True) - mixed.mean(-1, keepdims=True)
    return mixed + constant


def _standardised(logits):
    """The same spread over classes for every teacher, image by image."""
    middle = logits.mean(-1, keepdims=True)
    norm = jnp.linalg.norm(logits - middle, axis=-1, keepdims=True)
    scale = norm.mean(0) / jnp.maximum(norm, jnp.finfo(logits.dtype).tiny)
    return middle + scale * (logits - middle)


def entropy(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Mean entropy of soft labels.

        mean_i -sum_c p_ic ln p_ic,  p = softmax(t / T)

    Args:
      logits: [..., C].
      temperature: T.

    Returns:
      Scalar, nats: between 0, for classes, and ln C.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    return -jnp.sum(jnp.exp(log_p) * log_p, -1).mean()


def _check(average):
    if average not in AVERAGES:
        raise ValueError(f"unknown average {average!r}; known: {', '.join(AVERAGES)}.")

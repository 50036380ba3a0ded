"""Scores."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["accuracy", "mean_and_std"]


def accuracy(apply_fn, variables, images, labels, *, batch_size: int = 500) -> float:
    """Share of images whose largest logit is their label's.

    Args:
      apply_fn: `(variables, images [n, H, W, ch] in [0, 1]) -> (logits [n, C], out)`.
      variables: of the network.
      images: [N, H, W, ch] uint8.
      labels: [N] integers.
      batch_size: images at a time; the last batch is padded, so one program is made.

    Returns:
      In [0, 1].
    """
    correct, variables = 0, jax.device_put(variables)
    for start in range(0, len(labels), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        real = len(batch)
        padding = [(0, batch_size - real)] + [(0, 0)] * (batch.ndim - 1)
        guesses = _guess(apply_fn)(variables, np.pad(batch, padding))
        correct += int(np.sum(np.asarray(guesses)[:real] == labels[start:][:real]))
    return correct / len(labels)


@functools.lru_cache(maxsize=32)
def _guess(apply_fn):
    def guess(variables, images):
        logits, _ = apply_fn(variables, images / jnp.float32(255))
        return jnp.argmax(logits, -1)

    return jax.jit(guess)


def mean_and_std(values) -> tuple[float, float, int]:
    """Mean, sample standard deviation (n - 1; NaN for one value) and n."""
    values = np.asarray(values, np.float64)
    std = values.std(ddof=1) if len(values) > 1 else math.nan
    return float(values.mean()), float(std), len(values)

"""Which images make the batch of a step: a pure function of key and step."""

import jax
import jax.numpy as jnp

__all__ = ["indices", "steps_per_epoch"]


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Steps that show every example at least once."""
    return -(-num_examples // min(batch_size, num_examples))


def indices(key, step, num_examples: int, batch_size: int) -> jax.Array:
    """Rows of the batch at `step`, from a fresh permutation for every epoch.

    Nothing is carried from step to step, so training resumes anywhere. Every batch is
    full: where the batch size does not divide the set, the last batch of an epoch is
    filled up from the front of its permutation (PyTorch's loader gives a smaller one,
    which would compile a second program and give BatchNorm poor statistics).

    Args:
      key: fixes the order of all epochs.
      step: scalar int, may be traced.
      num_examples: size of the set.
      batch_size: rows wanted; a larger one than the set is cut to it.

    Returns:
      [min(batch_size, num_examples)] int32 rows, without repeats.
    """
    batch_size = min(batch_size, num_examples)
    epoch, slot = jnp.divmod(step, steps_per_epoch(num_examples, batch_size))
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)
    places = slot * batch_size + jnp.arange(batch_size)
    return order[places % num_examples]

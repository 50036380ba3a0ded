"""The loop of every stage: one step, compiled once, called many times."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import parallel

__all__ = ["run"]

_BLOCK = 50  # steps fused into one program on an accelerator, to hide its dispatch


def run(
    step: Callable,
    state,
    shared,
    private,
    steps: range,
    *,
    spread: parallel.Spread = parallel.single,
    feed: Callable | None = None,
    observe: Callable | None = None,
):
    """Runs `state, metrics = step(state, index, shared, private)` for every index.

    On a CPU a Python loop over the jitted step; on an accelerator blocks of steps
    under `lax.scan`. Nothing is read back from the device here: an observer that wants
    numbers decides how often to wait for them. Nothing but what is fed goes there
    after the start: the index counts on the devices, for sending one costs more than a
    small step.

    Args:
      step: pure function; draws its randomness from keys in `private` and the index.
        Pass the same object again and it is not compiled again.
      state: where to start; **donated**, do not use it afterwards.
      shared: arrays that all chunks or students have in common.
      private: arrays of this one (or a stack of them, see `spread`).
      steps: indices still to run, consecutive.
      spread: `parallel.single`, or what `over_devices` or `sharded` gives.
      feed: `index -> arrays` from the host, for data too large to be `shared`. Then the
        step takes `(private, arrays)` for `private`, and steps are not fused.
      observe: called as `(done, state, metrics)` after each block; `metrics` has
        shape [..., steps in the block]. It must not keep `state`.

    Returns:
      The last state.
    """
    block = 1 if parallel.is_cpu() or feed else _BLOCK
    first = steps.start
    # The index lies where `shared` does, on every device that reads it.
    shared = (shared, np.int32(first))
    state, (shared, index), private = spread.place((state, shared, private))
    while first < steps.stop:
        length = min(block, steps.stop - first)
        program = _compiled(step, spread, length)
        own = (private, spread.feed(feed(first))) if feed else private
        state, metrics = program(state, index, shared, own)
        first, index = first + length, _advance(index, length)
        if observe is not None:
            observe(first, state, metrics)
    return state


@functools.partial(jax.jit, static_argnums=1)
def _advance(index, length):
    return index + length


@functools.lru_cache(maxsize=128)
def _compiled(step, spread, length):
    if length == 1:

        def block(state, first, shared, private):
            state, metrics = step(state, first, shared, private)
            return state, jax.tree.map(lambda x: x[None], metrics)

    else:

        def block(state, first, shared, private):
            def body(state, offset):
                return step(state, first + offset, shared, private)

            return jax.lax.scan(body, state, jnp.arange(length))

    return spread.compile(block)

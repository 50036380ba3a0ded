"""Every word about devices: how a step is spread over them.

A stage writes its step for one chunk, or one student:

    step(state, index, shared, private) -> (state, metrics)

with `shared` the arrays all have in common and `private` what is its own. The
functions here turn it into a compiled program for one, or for a stack of several
(states, private values and metrics then have a leading axis).
"""

import jax

__all__ = ["device_count", "groups", "is_cpu", "over_devices", "single", "stacked"]

_AXES = (0, None, None, 0)  # state, index, shared, private


def is_cpu() -> bool:
    """Whether programs run on a CPU, where fused loops and vmapped networks lose.

    Measured: a convolution's backward pass is 40 times slower inside `lax.scan`, and
    four networks under `vmap` take longer than the four one after another.
    """
    return jax.default_backend() == "cpu"


def device_count() -> int:
    """How many chunks can run at the same time."""
    return jax.local_device_count()


def groups(count: int) -> list[list[int]]:
    """Which of `count` students train side by side: all, or, on a CPU, one by one."""
    return [[i] for i in range(count)] if is_cpu() else [list(range(count))]


def single(step):
    """One chunk on one device. The state's memory is reused."""
    return jax.jit(step, donate_argnums=0)


def stacked(step):
    """Several on one device, side by side: students that differ in their seed."""
    return jax.jit(jax.vmap(step, in_axes=_AXES), donate_argnums=0)


def over_devices(count: int):
    """A stack of `count` independent chunks, one per device, by `jax.pmap`.

    The stack may be smaller than the number of devices: then the first ones are used.
    A stack of one is a plain `jit` that takes the axis off inside.
    """
    return _pmapped if count > 1 else _alone


def _pmapped(step):
    program = jax.pmap(step, in_axes=_AXES, donate_argnums=0)
    scatter = jax.pmap(lambda state: state)

    def run(state, index, shared, private):
        # A fresh state lies on one device, a returned one on all: two compilations,
        # unless the fresh one is spread first.
        some = jax.tree.leaves(state)[0]
        if not isinstance(some, jax.Array) or len(some.devices()) == 1:
            state = scatter(state)
        return program(state, index, shared, private)

    return run


def _alone(step):
    def unstacked(state, index, shared, private):
        state, private = jax.tree.map(lambda x: x[0], (state, private))
        new = step(state, index, shared, private)
        return jax.tree.map(lambda x: x[None], new)

    return jax.jit(unstacked, donate_argnums=0)

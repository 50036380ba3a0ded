"""Every word about devices: how a step is spread over them.

A stage writes its step for one chunk, or one student:

    step(state, index, shared, private) -> (state, metrics)

with `shared` the arrays all have in common and `private` what is its own. The
functions here turn it into a compiled program for one, or for a stack of several
(states, private values and metrics then have a leading axis).
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = [
    "Cost",
    "Spread",
    "cost",
    "describe",
    "device_count",
    "groups",
    "is_cpu",
    "mapped",
    "memory_limit",
    "over_devices",
    "peak_bytes",
    "single",
    "stacked",
]

_AXES = (0, None, None, 0)  # state, index, shared, private
_SPLIT, _WHOLE = PartitionSpec("stack"), PartitionSpec()
_SIDE_BY_SIDE = 100  # 1,300 points of 512 features in each are then 266 MB


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


def mapped(
    function: Callable, load: Callable, count: int, observe: Callable | None = None
) -> Any:
    """`function(*load(i))` for every i below `count`, stacked, on the host.

    For many small problems of one shape that have nothing to do with each other. An
    accelerator solves them side by side under `vmap`. On a CPU, where a loop under
    `vmap` waits for its slowest member, one runs on each core.

    Args:
      function: arrays to a pytree of arrays; compiled once, if it is the same object.
      load: i to a tuple of arrays, the same shapes for all i. Called when it is time.
      count: how many.
      observe: called with how many are done.

    Returns:
      The pytree of `function`, with a leading axis of `count`, as NumPy arrays.
    """
    workers, width = (os.cpu_count(), 1) if is_cpu() else (1, min(count, _SIDE_BY_SIDE))

    def solve(first):
        if width == 1:
            found = jax.device_get(_alone_program(function)(*load(first)))
            return jax.tree.map(lambda x: x[None], found)
        # The last group repeats its end, so that one program serves all.
        rows = [load(min(i, count - 1)) for i in range(first, first + width)]
        stack = jax.tree.map(lambda *x: np.stack(x), *rows)
        return jax.device_get(_stacked_program(function)(*stack))

    parts = []

    def keep(part):
        parts.append(part)
        if observe is not None:
            observe(min(width * len(parts), count))

    keep(solve(0))  # alone, so that nobody compiles twice
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for part in pool.map(solve, range(width, count, width)):
            keep(part)
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


_alone_program = functools.lru_cache(maxsize=8)(jax.jit)


@functools.lru_cache(maxsize=8)
def _stacked_program(function):
    return jax.jit(jax.vmap(function))


class Spread(NamedTuple):
    """A way to run a step for one, or for a stack of several.

    Attributes:
      compile: `step -> program`, of the same arguments; the state's memory is reused.
      place: `(state, shared, private) -> the same`, put where the program wants them,
        once, so that no call transfers or compiles anything again.
    """

    compile: Callable
    place: Callable


single = Spread(lambda step: jax.jit(step, donate_argnums=0), jax.device_put)
"""One chunk, or one student, on one device."""


def _stack_mesh(stack):
    """As many devices as divide the stack."""
    count = len(jax.tree.leaves(stack)[0])
    used = max(n for n in range(1, device_count() + 1) if count % n == 0)
    return Mesh(np.array(jax.local_devices()[:used]), ("stack",))


def _side_by_side(arguments):
    """As many of the stack on each device."""
    state, shared, private = arguments
    mesh = _stack_mesh(state)
    state, private = jax.device_put((state, private), NamedSharding(mesh, _SPLIT))
    return state, jax.device_put(shared, NamedSharding(mesh, _WHOLE)), private


def _stack_program(step):
    """One program for each device.

    Left to itself, XLA makes one grouped convolution of those of the stack, gathers it
    on every device and computes the whole there.
    """
    many = jax.vmap(step, in_axes=_AXES)

    @functools.wraps(step)  # its name tells profiles what runs
    def program(state, index, shared, private):
        each = jax.shard_map(
            many,
            mesh=_stack_mesh(state),
            in_specs=(_SPLIT, _WHOLE, _WHOLE, _SPLIT),
            out_specs=_SPLIT,
        )
        return each(state, index, shared, private)

    return jax.jit(program, donate_argnums=0)


stacked = Spread(_stack_program, _side_by_side)
"""Several side by side, over all devices: students that differ in their seed."""


def over_devices(count: int) -> Spread:
    """A stack of `count` independent chunks, one per device, by `jax.pmap`.

    The stack may be smaller than the number of devices: then the first ones are used.
    A stack of one is a plain `jit` that takes the axis off inside.

    Raises:
      ValueError: more chunks than devices.
    """
    if count > device_count():
        raise ValueError(f"{count} chunks for {device_count()} devices.")
    return _one_each if count > 1 else _alone


def _unstacked(step):
    def alone(state, index, shared, private):
        state, private = jax.tree.map(lambda x: x[0], (state, private))
        new = step(state, index, shared, private)
        return jax.tree.map(lambda x: x[None], new)

    return jax.jit(alone, donate_argnums=0)


def _scatter(arguments):
    state, shared, private = arguments
    state, private = _scatterer()((state, private))
    devices = np.array(jax.local_devices()[: len(jax.tree.leaves(state)[0])])
    everywhere = NamedSharding(Mesh(devices, ("chunks",)), PartitionSpec())
    return state, jax.device_put(shared, everywhere), private


@functools.cache  # one object, or each wave would compile it again
def _scatterer():
    return jax.pmap(lambda x: x)


_alone = Spread(_unstacked, jax.device_put)
_one_each = Spread(
    lambda step: jax.pmap(step, in_axes=_AXES, donate_argnums=0), _scatter
)


class Cost(NamedTuple):
    """What one call of a program takes on each device, as its compiler sees it."""

    flops: float  # of one iteration where it loops
    memory: int  # bytes: arguments, results and all between them


def cost(program: Callable, *arguments) -> Cost:
    """Compiles a program, without running it.

    Args:
      program: jitted, or what a `Spread` has compiled.
      *arguments: arrays, or their shapes.
    """
    compiled = program.lower(*arguments).compile()
    sizes = compiled.memory_analysis()
    memory = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
    memory += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return Cost(float(compiled.cost_analysis().get("flops", 0)), int(memory))


def memory_limit() -> int:
    """Bytes that programs may take on one device; on a CPU, the machine's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(stats.get("bytes_limit", machine))


def peak_bytes() -> int | None:
    """The most that one device's programs have held since the process began.

    None where the devices do not count: a CPU's programs have the process's memory.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((s.get("peak_bytes_in_use", 0) for s in stats), default=0) or None


def describe() -> str:
    """The devices, for people."""
    return f"{device_count()} x {jax.local_devices()[0].device_kind}"

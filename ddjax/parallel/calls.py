"""Work that is no loop: many calls that have nothing to do with each other."""

import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ddjax.parallel import devices, spread

__all__ = ["in_turn", "mapped"]

_SIDE_BY_SIDE = 100  # 1,300 points of 512 features in each are then 266 MB


def in_turn(function: Callable, shared, calls: Iterable[tuple]) -> Iterator:
    """The results of `function(shared, *call)` for every call, in order, on the host.

    Each device works on a call of its own, with a program that is compiled once, so
    that a result does not depend on how many devices there are. While they work, the
    next calls are made.

    Args:
      function: arrays to a pytree of arrays; compiled once, if it is the same object.
      shared: arrays that all calls have in common; go to every device once.
      calls: tuples of arrays, the same shapes in all; taken when it is time.

    Yields:
      The pytree of each call, as NumPy arrays.
    """
    lanes, calls, running = devices.device_count(), iter(calls), ()
    run = _lane(function, lanes)
    shared = spread.everywhere(shared, lanes)
    while group := list(itertools.islice(calls, lanes)):
        # A group that is short repeats its end, so that one program serves all.
        full = group + group[-1:] * (lanes - len(group))
        found = run(shared, jax.tree.map(lambda *x: np.stack(x), *full))
        yield from _each(*running)
        running = found, len(group)
    yield from _each(*running)


def _each(found=None, count=0):
    found = jax.device_get(found)
    for i in range(count):
        yield jax.tree.map(lambda x, i=i: x[i], found)


@functools.lru_cache(maxsize=64)
def _lane(function, lanes):
    """`(shared, *stacks [lanes, ...])`, one call of the stack on each device."""

    @functools.wraps(function)  # its name tells profiles what runs
    def one(shared, call):
        return function(shared, *call)

    @functools.wraps(function)
    def alone(shared, stacks):
        found = one(shared, jax.tree.map(lambda x: x[0], stacks))
        return jax.tree.map(lambda x: x[None], found)

    return jax.jit(alone) if lanes == 1 else jax.pmap(one, in_axes=(None, 0))


def mapped(
    function: Callable, load: Callable, count: int, observe: Callable | None = None
) -> Any:
    """`function(*load(i))` for every i below `count`, stacked, on the host.

    For many small problems of one shape that have nothing to do with each other. An
    accelerator solves them side by side under `vmap`, as many on each device. On a CPU,
    where a loop under `vmap` waits for its slowest member, one runs on each core.

    Args:
      function: arrays to a pytree of arrays; compiled once, if it is the same object.
      load: i to a tuple of arrays, the same shapes for all i. Called when it is time.
      count: how many.
      observe: called with how many are done.

    Returns:
      The pytree of `function`, with a leading axis of `count`, as NumPy arrays.
    """
    if devices.is_cpu():
        workers, lanes, width = os.cpu_count(), 1, 1
    else:
        lanes = min(count, devices.device_count())
        workers, width = 1, min(-(-count // lanes), _SIDE_BY_SIDE)
    together = lanes * width

    def solve(first):
        if together == 1:
            found = jax.device_get(_alone_program(function)(*load(first)))
            return jax.tree.map(lambda x: x[None], found)
        # The last group repeats its end, so that one program serves all.
        rows = [load(min(i, count - 1)) for i in range(first, first + together)]
        shape = (lanes, width)
        stack = jax.tree.map(
            lambda *x: np.stack(x).reshape(*shape, *np.shape(x[0])), *rows
        )
        found = jax.device_get(_stacked_program(function, lanes)(*stack))
        return jax.tree.map(lambda x: x.reshape(together, *x.shape[2:]), found)

    parts = []

    def keep(part):
        parts.append(part)
        if observe is not None:
            observe(min(together * len(parts), count))

    keep(solve(0))  # alone, so that nobody compiles twice
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for part in pool.map(solve, range(together, count, together)):
            keep(part)
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


_alone_program = functools.lru_cache(maxsize=8)(jax.jit)


@functools.lru_cache(maxsize=8)
def _stacked_program(function, lanes):
    """Takes [lanes, width, ...]: a width on each device."""
    side_by_side = jax.vmap(function)
    return jax.pmap(side_by_side) if lanes > 1 else jax.jit(jax.vmap(side_by_side))

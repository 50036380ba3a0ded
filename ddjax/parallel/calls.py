"""Work that is no loop: many calls that have nothing to do with each other."""

import collections
import concurrent.futures
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from ddjax.parallel import devices, spread

__all__ = ["beside", "in_turn", "mapped"]

_SIDE_BY_SIDE = 100  # 1,300 points of 512 features in each are then 266 MB


def in_turn(function: Callable, shared, calls: Iterable[tuple]) -> Iterator:
    """The results of `function(shared, *call)` for every call, in order, on the host.

    Each device, or thread of a CPU, works on a call of its own, with a program that is
    compiled once, so that a result does not depend on how many there are. While they
    work, the next calls are made.

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
    if devices.threads() > 1:
        yield from _by_threads(functools.partial(run, shared), calls)
        return
    while group := list(itertools.islice(calls, lanes)):
        # A group that is short repeats its end, so that one program serves all.
        full = group + group[-1:] * (lanes - len(group))
        found = run(shared, jax.tree.map(lambda *x: np.stack(x), *full))
        yield from _each(*running)
        running = found, len(group)
    yield from _each(*running)


def _by_threads(run, calls):
    """What one thread begins, XLA's CPU works off in order: so there are several."""

    def found(call):
        (only,) = _each(run(jax.tree.map(lambda x: np.asarray(x)[None], call)), 1)
        return only

    for first in itertools.islice(calls, 1):
        yield found(first)  # alone, so that nobody compiles twice
    workers, running = devices.threads(), collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for call in calls:
            running.append(pool.submit(found, call))
            if len(running) > workers:  # one waits for the first that is free
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


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


def beside(function: Callable, items: Iterable, *, alone: bool = False) -> None:
    """`function(item, begun)` for every item, several at a time on a CPU.

    There one thread does not fill the cores; elsewhere, and for one device of several,
    one item follows the other. Each calls `begun()` when its programs are compiled, and
    only then the next one begins, which finds those that are the same.

    Args:
      function: works on an item; what it returns is lost.
      items: begun in this order.
      alone: whether each has the machine for itself, on a CPU too.

    Raises:
      Exception: the first that an item has raised; no other begins then, and those
        that are under way end first.
    """
    workers, running = 1 if alone else devices.threads(), set()
    if workers == 1:
        for item in items:
            function(item, lambda: None)
        return
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for item in items:
            begun = threading.Event()
            newest = pool.submit(function, item, begun.set)
            newest.add_done_callback(lambda _, begun=begun: begun.set())
            begun.wait()
            running.add(newest)
            if len(running) == workers:
                running = _first_ended(running)
        while running:
            running = _first_ended(running)


def _first_ended(running: set) -> set:
    """Those that still run when one has ended, well."""
    ended, running = concurrent.futures.wait(
        running, return_when=concurrent.futures.FIRST_COMPLETED
    )
    for each in ended:
        each.result()
    return running

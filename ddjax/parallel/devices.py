"""The devices of this host: how many, how large, and what a program takes of them."""

import os
from collections.abc import Callable
from typing import NamedTuple

import jax

from ddjax.parallel import hosts

__all__ = [
    "Cost",
    "cost",
    "counting",
    "describe",
    "device_count",
    "groups",
    "is_cpu",
    "memory_limit",
    "peak_bytes",
    "threads",
]

_MOST_THREADS = 4  # each holds a step's memory, and large steps fill the cores alone


# True while `cost` counts: what then chooses its form by speed should not, since the
# compiler counts the operations of a loop once, however often it runs.
counting = jax.make_user_context(False)


def is_cpu() -> bool:
    """Whether programs run on a CPU, where fused loops lose, and vmapped networks may.

    Measured (`benchmarks.students`): five or ten networks under `vmap` take from 0.8 to
    1.4 times as long as one after another.
    """
    return jax.default_backend() == "cpu"


def device_count() -> int:
    """How many chunks can run at the same time on this host."""
    return jax.local_device_count()


def threads() -> int:
    """How many calls, or small networks, a CPU works on at a time: 1 on other devices.

    A step of a small network leaves cores idle: two in two threads take less than twice as
    long as one. Devices that share a CPU have a call each instead.
    """
    alone = is_cpu() and device_count() == 1
    return min(os.cpu_count(), _MOST_THREADS) if alone else 1


def groups(count: int) -> list[list[int]]:
    """Which of `count` students train side by side: all, or, on a CPU, one by one."""
    return [[i] for i in range(count)] if is_cpu() else [list(range(count))]


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
    counted = compiled = program.lower(*arguments).compile()  # the one that will run
    if is_cpu():
        with counting(True):
            counted = program.lower(*arguments)
        if device_count() > 1:  # not compiled, it counts for all of them together
            counted = counted.compile()
    sizes = compiled.memory_analysis()
    memory = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
    memory += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return Cost(float(counted.cost_analysis().get("flops", 0)), int(memory))


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
    here = f"{device_count()} x {jax.local_devices()[0].device_kind}"
    return here if hosts.host_count() == 1 else f"{hosts.host_count()} hosts of {here}"

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
]


# True while `cost` compiles: what then chooses its form by speed should not, since the
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
    with counting(True):
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
    here = f"{device_count()} x {jax.local_devices()[0].device_kind}"
    return here if hosts.host_count() == 1 else f"{hosts.host_count()} hosts of {here}"

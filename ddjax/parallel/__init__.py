"""Every word about devices and hosts: how work is spread over them.

A stage writes its step for one chunk, or one network in training:

    step(state, index, shared, private) -> (state, metrics)

with `shared` the arrays all have in common and `private` what is its own. A `Spread`
turns it into a compiled program, for independent chunks one on each device
(`over_devices`, by `jax.pmap`), for networks side by side (`stacked`), or for one whose
batches are divided over all devices (`sharded` and `together`, by `jax.jit` over a
mesh). `in_turn` and `mapped` do the same for work that is no loop, `beside` for whole
loops. Hosts share out what is independent (`share`), and tell each other what they must
know (`agree`, `gather`).
"""

from ddjax.parallel.calls import beside, in_turn, mapped
from ddjax.parallel.devices import (
    Cost,
    cost,
    counting,
    describe,
    device_count,
    groups,
    is_cpu,
    memory_limit,
    peak_bytes,
    threads,
)
from ddjax.parallel.hosts import (
    agree,
    alone,
    await_news,
    connect,
    fail,
    gather,
    host_count,
    host_index,
    is_primary,
    leave,
    part,
    release,
    share,
)
from ddjax.parallel.spread import (
    Spread,
    divide,
    over_devices,
    sharded,
    single,
    stacked,
    together,
)
from ddjax.parallel.watch import Stops

__all__ = [
    "Cost",
    "Spread",
    "Stops",
    "agree",
    "alone",
    "await_news",
    "beside",
    "connect",
    "cost",
    "counting",
    "describe",
    "device_count",
    "divide",
    "fail",
    "gather",
    "groups",
    "host_count",
    "host_index",
    "in_turn",
    "is_cpu",
    "is_primary",
    "leave",
    "mapped",
    "memory_limit",
    "over_devices",
    "part",
    "peak_bytes",
    "release",
    "sharded",
    "share",
    "single",
    "stacked",
    "threads",
    "together",
]

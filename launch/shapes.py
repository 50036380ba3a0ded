"""What the rows of a plan are made of: shapes of arrays, and compiled programs."""

import math
from collections.abc import Callable, Hashable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax import models, parallel
from launch import arms, inputs, sections
from launch.pod import Machine

HALF, FLOAT = 2, 4  # bytes of a float16 and of a float32


class Row(NamedTuple):
    """One kind of work."""

    stage: str
    what: str
    calls: int  # of its program, that one device makes; of all students
    flops: float  # of a call, on one device
    memory: int  # bytes on each device, while it runs
    disk: int  # bytes it leaves
    seconds: float  # of all calls
    host: int = 0  # bytes on each host, the images that are kept in memory apart
    least: float = 0.0  # seconds of its longest part, which no number of hosts divides
    note: str = ""  # what the config must change for it


class Plan(NamedTuple):
    """What the rows are made of."""

    config: object
    outline: inputs.Outline
    teacher: models.Network
    pupils: dict  # networks of the students, by name
    variables: dict  # shapes of the teacher's
    features: int  # D
    machine: Machine
    decoding: float  # images a second, of one core
    known: dict  # what has been compiled or timed, for other machines too


def once(plan: Plan, key: Hashable, make: Callable):
    """`make()`, the first time that a plan asks for the key."""
    if key not in plan.known:
        plan.known[key] = make()
    return plan.known[key]


def row(plan, stage, what, calls, cost, disk, host=0) -> Row:
    """A row of equal calls, one after another."""
    seconds = calls * cost.flops / plan.machine.rate
    return Row(stage, what, calls, cost.flops, cost.memory, disk, seconds, host)


def in_turn(plan, cost: parallel.Cost) -> parallel.Cost:
    """Of calls of `parallel.in_turn`: each thread has one under way."""
    return cost._replace(memory=plan.machine.threads * cost.memory)


def divisor(count: int, most: int) -> int:
    """The largest number, `most` at the most, that divides a count."""
    return max(n for n in range(1, min(count, most) + 1) if count % n == 0)


def decoded(plan, what: str, count: int, hosts: float | None = None) -> list[Row]:
    """A row for decoding so many images, of a set that stays on disk.

    Args:
      plan: of the config.
      what: they are decoded for.
      count: images, of all hosts together.
      hosts: how many share the work; all where None.
    """
    if not plan.outline.streamed or not count:
        return []
    hosts = plan.machine.hosts if hosts is None else hosts
    seconds = count / (hosts * plan.machine.cores * plan.decoding)
    told = f"{count:,} images, {what}"
    return [Row("input", told, 0, 0.0, 0, 0, seconds)]


def step_cost(step, state, shared, private, spread=parallel.single) -> parallel.Cost:
    return parallel.cost(spread.compile(step), state, index(), shared, private)


def ours_and_others(plan) -> list[str]:
    """The arms of a config."""
    return list(dict.fromkeys((*plan.config.evaluate.against, arms.ours(plan.config))))


def by_parts(plan, ipc: int) -> dict[int, list[str]]:
    """The arms of a config, by how many images each of theirs holds: mostly 1."""
    found = {}
    for arm in ours_and_others(plan):
        parts = sections.factor(plan.config, arm, ipc) ** 2
        found.setdefault(parts, []).append(arm)
    return found


def told(ipc: int, parts: int) -> str:
    """How large a set is, for people."""
    return f"ipc {ipc}" if parts == 1 else f"ipc {ipc} of {parts} parts"


def image_bytes(plan) -> int:
    """Of one decoded image."""
    return math.prod(plan.outline.info.shape)


def size(tree) -> int:
    """Bytes of all arrays, or shapes of arrays."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def images(count, info):
    return jax.ShapeDtypeStruct((count, *info.shape), jnp.uint8)


def floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def index():
    return integers()


def key():
    return jax.eval_shape(lambda: jax.random.key(0))

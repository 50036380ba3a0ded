"""How a step is compiled and placed: alone, one chunk a device, or batches divided."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddjax.parallel import devices, hosts

__all__ = [
    "Spread",
    "divide",
    "everywhere",
    "over_devices",
    "sharded",
    "single",
    "stacked",
    "together",
]

_AXES = (0, None, None, 0)  # state, index, shared, private
_SPLIT, _WHOLE = PartitionSpec("stack"), PartitionSpec()


class Spread(NamedTuple):
    """A way to run a step for one, or for a stack of several.

    Attributes:
      compile: `step -> program`, of the same arguments; the state's memory is reused.
      place: `(state, shared, private) -> the same`, put where the program wants them,
        once, so that no call transfers or compiles anything again.
      feed: `batch -> the same`, put where the program wants what it is fed; of several
        hosts, each gives its own rows.
    """

    compile: Callable
    place: Callable
    feed: Callable = jax.device_put


single = Spread(lambda step: jax.jit(step, donate_argnums=0), jax.device_put)
"""One chunk, or one network, on one device."""


# Independent chunks ------------------------------------------------------------------


def over_devices(count: int) -> Spread:
    """A stack of `count` independent chunks, one per device, by `jax.pmap`.

    The stack may be smaller than the number of devices: then the first ones are used.
    A stack of one is a plain `jit` that takes the axis off inside.

    Raises:
      ValueError: more chunks than devices.
    """
    if count > devices.device_count():
        raise ValueError(f"{count} chunks for {devices.device_count()} devices.")
    return _one_each if count > 1 else _alone


def _first(step):
    """The step on a stack of one."""

    def alone(state, index, shared, private):
        state, private = jax.tree.map(lambda x: x[0], (state, private))
        new = step(state, index, shared, private)
        return jax.tree.map(lambda x: x[None], new)

    return alone


def _unstacked(step):
    return jax.jit(_first(step), donate_argnums=0)


def _scatter(arguments):
    state, shared, private = arguments
    state, private = _scatterer()((state, private))
    return state, everywhere(shared, len(jax.tree.leaves(state)[0])), private


@functools.cache  # one object, or each wave would compile it again
def _scatterer():
    return jax.pmap(lambda x: x)


def everywhere(shared, count: int):
    """Arrays on the first `count` devices of this host, whole on each."""
    mesh = Mesh(np.array(jax.local_devices()[:count]), ("chunks",))
    return jax.device_put(shared, NamedSharding(mesh, PartitionSpec()))


_alone = Spread(_unstacked, jax.device_put)
_one_each = Spread(
    lambda step: jax.pmap(step, in_axes=_AXES, donate_argnums=0), _scatter
)


# Networks side by side ---------------------------------------------------------------


def _stack_mesh(stack):
    """As many devices as divide the stack."""
    used = _divisor(len(jax.tree.leaves(stack)[0]), devices.device_count())
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
        mesh = _stack_mesh(state)
        if mesh.size == 1:
            return many(state, index, shared, private)
        each = jax.shard_map(
            many,
            mesh=mesh,
            in_specs=(_SPLIT, _WHOLE, _WHOLE, _SPLIT),
            out_specs=_SPLIT,
        )
        return each(state, index, shared, private)

    return jax.jit(program, donate_argnums=0)


stacked = Spread(_stack_program, _side_by_side)
"""Several side by side, over all devices: students that differ in their seed."""


# Batches divided ---------------------------------------------------------------------


def divide(rows: jax.Array, axis: int = 0) -> jax.Array:
    """In a step: an axis divided over the devices that share a batch.

    The compiler divides what follows from it, sums the gradients, and takes the
    statistics of BatchNorm over the whole batch. Outside of `sharded` and `together`
    it is `rows`.
    """
    if "batch" not in jax.sharding.get_abstract_mesh().axis_names:
        return rows
    return jax.lax.with_sharding_constraint(
        rows, PartitionSpec(*(None,) * axis, "batch")
    )


def sharded(batch_size: int) -> Spread:
    """Training of one network with batches divided over all devices, of all hosts.

    As many devices are used as divide the batch.

    Args:
      batch_size: images, of all devices and hosts together.

    Raises:
      ValueError: of several hosts, some would have nothing to do.
    """
    found = jax.devices() if hosts.host_count() > 1 else jax.local_devices()
    used = _divisor(batch_size, len(found))
    if hosts.host_count() > 1 and used < len(found):
        raise ValueError(
            f"a batch of {batch_size} images cannot be divided over {len(found)} "
            f"devices of {hosts.host_count()} hosts. Choose a batch_size that is a "
            f"multiple of {len(found)}, such as "
            f"{len(found) * max(1, round(batch_size / len(found)))}."
        )
    return single if used == 1 else _over_mesh(tuple(found[:used]))


def together(batch_size: int) -> Spread:
    """A stack of one chunk, whose real images are divided over this host's devices.

    For a chunk whose step draws so many images of each class that it takes all devices
    better than one; see `divide`. As many are used as divide the batch.

    Args:
      batch_size: images of each class.
    """
    found = jax.local_devices()
    used = _divisor(batch_size, len(found))
    return _alone if used == 1 else _over_mesh(tuple(found[:used]), _first)


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number up to `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)


@functools.cache  # the same object for the same devices: programs are kept by it
def _over_mesh(found, of=lambda step: step):
    mesh = Mesh(np.array(found), ("batch",))
    whole = NamedSharding(mesh, PartitionSpec())
    batch = NamedSharding(mesh, PartitionSpec("batch"))

    def program(step):
        return _Within(mesh, jax.jit(of(step), donate_argnums=0, out_shardings=whole))

    def feed(rows):
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(batch, x), rows
        )

    return Spread(program, functools.partial(_put, sharding=whole), feed)


class _Within:
    """A jitted step that sees the mesh it is to be divided over; see `divide`."""

    def __init__(self, mesh, program):
        self._mesh, self._program = mesh, program

    def __call__(self, *arguments):
        with jax.set_mesh(self._mesh):
            return self._program(*arguments)

    def lower(self, *arguments):
        with jax.set_mesh(self._mesh):
            return self._program.lower(*arguments)


def _put(tree, sharding):
    """Arrays that all hosts have alike, as they lie over the devices of all."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: _put_globally(x, sharding), tree)


def _put_globally(x, sharding):
    if jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key):
        data = _put_globally(jax.random.key_data(x), sharding)
        return jax.jit(jax.random.wrap_key_data, out_shardings=sharding)(data)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda place: x[place])

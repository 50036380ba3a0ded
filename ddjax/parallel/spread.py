"""How a step is compiled and placed: alone, one chunk a device, or batches divided."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddjax.parallel import devices, hosts

__all__ = ["Spread", "divide", "everywhere", "over_devices", "sharded", "single"]

_AXES = (0, None, None, 0)  # state, index, shared, private


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


def _unstacked(step):
    def alone(state, index, shared, private):
        state, private = jax.tree.map(lambda x: x[0], (state, private))
        new = step(state, index, shared, private)
        return jax.tree.map(lambda x: x[None], new)

    return jax.jit(alone, donate_argnums=0)


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


# Training ----------------------------------------------------------------------------


def divide(rows: jax.Array) -> jax.Array:
    """In a step: the leading axis divided over the devices that share a batch.

    The compiler divides what follows from it, sums the gradients, and takes the
    statistics of BatchNorm over the whole batch. Outside of `sharded` it is `rows`.
    """
    if "batch" not in jax.sharding.get_abstract_mesh().axis_names:
        return rows
    return jax.lax.with_sharding_constraint(rows, PartitionSpec("batch"))


def sharded(batch_size: int, stack: int = 0) -> Spread:
    """Training with batches divided over all devices, of all hosts.

    A stack of networks is spread first, over as many devices as divide their number;
    then each network's batch over as many of the devices left as divide it.

    Args:
      batch_size: images, of all devices and hosts together.
      stack: how many networks train side by side, under `vmap`; 0 for one, whose
        arrays have no such axis.

    Raises:
      ValueError: of several hosts, some would have nothing to do.
    """
    found = jax.devices() if hosts.host_count() > 1 else jax.local_devices()
    wide = _divisor(stack or 1, len(found))
    deep = _divisor(batch_size, len(found) // wide)
    if hosts.host_count() > 1 and wide * deep < len(found):
        raise ValueError(
            f"a batch of {batch_size} images cannot be divided over {len(found)} "
            f"devices of {hosts.host_count()} hosts. Choose a batch_size that is a "
            f"multiple of {len(found)}, such as "
            f"{len(found) * max(1, round(batch_size / len(found)))}."
        )
    if wide * deep == 1 and not stack:
        return single
    return _over_mesh(tuple(found[: wide * deep]), wide, stack > 0)


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number up to `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)


@functools.cache  # the same object for the same devices: programs are kept by it
def _over_mesh(found, wide, stacked):
    mesh = Mesh(np.array(found).reshape(wide, -1), ("stack", "batch"))
    whole = NamedSharding(mesh, PartitionSpec())
    own = NamedSharding(mesh, PartitionSpec("stack")) if stacked else whole
    batch = NamedSharding(mesh, PartitionSpec("batch"))

    def program(step):
        if stacked:
            step = jax.vmap(step, in_axes=_AXES, spmd_axis_name="stack")
        return _Within(mesh, jax.jit(step, donate_argnums=0, out_shardings=own))

    def place(arguments):
        state, shared, private = arguments
        return _put(state, own), _put(shared, whole), _put(private, own)

    def feed(rows):
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(batch, x), rows
        )

    return Spread(program, place, feed)


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

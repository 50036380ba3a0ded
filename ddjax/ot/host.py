"""NumPy functions in the middle of a JAX program."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

__all__ = ["on_host"]


def on_host(
    function: Callable, result: tuple[jax.ShapeDtypeStruct, ...], *operands: jax.Array
) -> tuple[jax.Array, ...]:
    """Calls `function(*arrays) -> arrays`, which knows only NumPy.

    Works under `jit`, `vmap` (the function gets all problems, along leading axes) and
    `pmap`. Not differentiable.

    On a CPU `pure_callback` hands its operands over as JAX arrays, copied by the very
    threads that wait in callbacks: two programs on two cores block each other for ever
    (jax issues 24255 and 25861). Buffers need no copy; TPUs do not have them.

    Args:
      function: pure; never calls JAX.
      result: shapes and types of what it returns.
      operands: what it is called with.

    Returns:
      Arrays as in `result`, with the leading axes of `vmap`.
    """

    def called(*operands):
        values = function(*map(np.asarray, operands))
        return tuple(np.asarray(x, s.dtype) for x, s in zip(values, result))

    def in_place(_, out, *operands):
        for place, x in zip(out, called(*operands)):
            np.asarray(place)[...] = x

    options = {"vmap_method": "broadcast_all"}
    on_cpu = buffer_callback(in_place, result, **options)
    elsewhere = functools.partial(jax.pure_callback, called, result, **options)
    return jax.lax.platform_dependent(*operands, cpu=on_cpu, default=elsewhere)

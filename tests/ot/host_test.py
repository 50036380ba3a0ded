"""NumPy functions inside JAX programs, and that they never wait for each other."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.ot.host import on_host

RESULT = (
    jax.ShapeDtypeStruct((), np.float32),
    jax.ShapeDtypeStruct((), np.int32),
)


def _largest(x):
    """The largest entry and its place, along the last axis, in other types."""
    return np.max(x, -1).astype(np.float64), np.argmax(x, -1).astype(np.int64)


def largest(x):
    return on_host(_largest, RESULT, x)


X = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


class HostVariants(chex.TestCase):
    """With and without jit and pmap, with its two fake devices."""

    @chex.all_variants
    def test_gives_what_numpy_gives(self):
        value, place = self.variant(largest)(X[0, 0])
        np.testing.assert_array_equal(value, X[0, 0].max())
        np.testing.assert_array_equal(place, X[0, 0].argmax())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: jax.vmap(jax.vmap(f)),
        lambda f: jax.jit(jax.vmap(jax.vmap(f))),
        lambda f: jax.pmap(jax.vmap(f)),
        lambda f: lambda x: jax.lax.map(jax.vmap(f), x),
    ],
    ids=["vmap", "jit", "pmap", "map"],
)
def test_solves_a_batch(wrap):
    value, place = wrap(largest)(X)
    np.testing.assert_array_equal(value, X.max(-1))
    np.testing.assert_array_equal(place, X.argmax(-1))


def test_result_has_the_declared_types():
    value, place = jax.jit(largest)(X[0, 0])
    assert value.dtype == np.float32 and place.dtype == np.int32


def test_vmap_calls_once_with_all_operands_as_numpy():
    seen = []

    def add(x, y):
        seen.append([(type(z), z.shape) for z in (x, y)])
        return (x + y,)

    shape = (jax.ShapeDtypeStruct((5,), np.float32),)
    program = jax.jit(jax.vmap(lambda x, y: on_host(add, shape, x, y), (0, None)))
    (found,) = program(X[0], X[1, 0])
    np.testing.assert_array_equal(found, X[0] + X[1, 0])
    assert seen == [[(np.ndarray, (3, 5))] * 2]


def test_gradient_passes_beside_it_and_is_refused_through_it():
    def beside(x):
        return jnp.sum(x**2) * largest(jax.lax.stop_gradient(x))[0]

    x = jnp.asarray(X[0, 0])
    expected = 2 * x * x.max()
    np.testing.assert_allclose(jax.jit(jax.grad(beside))(x), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="do not support JVP"):
        jax.grad(lambda x: largest(x)[0])(x)


# What `pure_callback` never came back from: operands too large to be copied at once,
# made by programs that run at the same time on the threads that would copy them.
CROWD = """
import concurrent.futures
import jax, jax.numpy as jnp, numpy as np
from ddjax.ot.lp import lp

cost = np.random.default_rng(0).random((6, 1300, 100), np.float32)
a, b = np.full(1300, 1 / 1300, np.float32), np.full(100, 1 / 100, np.float32)
program = jax.jit(lambda cost: lp(jnp.sin(cost), a, b).cost)
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    together = list(pool.map(lambda c: float(program(c)), cost))
assert together == [float(program(c)) for c in cost]
print("done")
"""


def test_programs_on_many_threads_do_not_block_each_other():
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    ran = subprocess.run(
        [sys.executable, "-c", CROWD],
        check=False,
        env=environment,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "done\n", ran.stderr

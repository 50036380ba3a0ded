"""Calls that have nothing to do with each other, on all cores or devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import parallel
from ddjax.ot.host import on_host
from ddjax.parallel import calls


@pytest.fixture(params=["cpu", "accelerator"])
def place(request, monkeypatch):
    """One at a time on each core, or two side by side on each of two devices."""
    if request.param == "accelerator":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(calls, "_SIDE_BY_SIDE", 2)
    return request.param


class TestMapped:
    def load(self, i):
        return np.full(2, i, np.float32), np.int32(i + 1)

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
    def test_is_a_loop(self, place, count):
        def solve(x, y):
            return {"sum": x.sum() * y, "both": (x, jnp.sin(y))}

        found = parallel.mapped(solve, self.load, count)
        rows = [solve(*map(jnp.asarray, self.load(i))) for i in range(count)]
        wanted = jax.tree.map(lambda *x: np.stack(x), *rows)
        chex.assert_trees_all_close(found, wanted, rtol=1e-6)
        chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
        assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(found))

    def test_compiles_once(self, place):
        traces = []

        def solve(x, y):
            traces.append(1)
            return x * y

        for _ in range(2):
            parallel.mapped(solve, self.load, 7)
        assert len(traces) == 1

    def test_tells_how_many_are_done(self, place):
        seen = []
        parallel.mapped(lambda x, y: x * y, self.load, 7, seen.append)
        assert seen == ([4, 7] if place == "accelerator" else [*range(1, 8)])

    def test_loads_each_once_on_a_cpu(self):
        seen = []

        def load(i):
            seen.append(i)
            return self.load(i)

        parallel.mapped(lambda x, y: x * y, load, 7)
        assert seen[0] == 0 and sorted(seen) == [*range(7)]

    @pytest.mark.parametrize("broken", [0, 4])
    def test_what_goes_wrong_in_a_load_is_raised(self, place, broken):
        def load(i):
            if i == broken:
                raise OSError(f"no file {i}")
            return self.load(i)

        with pytest.raises(OSError, match=f"no file {broken}"):
            parallel.mapped(lambda x, y: x * y, load, 7)

    def test_host_functions_run_on_all_threads(self, place):
        """As the exact transport does: none waits for another."""

        def solve(x, y):
            shape = jax.ShapeDtypeStruct((200, 200), np.float32)
            large = jnp.zeros((200, 200)) + x[0] * y
            return on_host(lambda z: (z + 1,), (shape,), large)[0].mean()

        found = parallel.mapped(solve, self.load, 12)
        np.testing.assert_allclose(found, [i * (i + 1) + 1 for i in range(12)])


class TestInTurn:
    """One program, its calls on all devices, in order."""

    def function(self, shared, x, y):
        return {"sum": shared["a"] * x.sum() + y, "x": jnp.sin(x)}

    def calls(self, count):
        rng = np.random.default_rng(0)
        for i in range(count):
            yield rng.normal(size=3).astype(np.float32), np.int32(i)

    @pytest.fixture(params=[1, 2])
    def lanes(self, request, monkeypatch):
        monkeypatch.setattr(jax, "local_device_count", lambda: request.param)
        return request.param

    @pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
    def test_is_a_loop(self, count, lanes):
        shared = {"a": np.float32(2)}
        found = list(parallel.in_turn(self.function, shared, self.calls(count)))
        wanted = [jax.jit(self.function)(shared, *c) for c in self.calls(count)]
        assert len(found) == count
        chex.assert_trees_all_equal(found, wanted)
        assert all(
            isinstance(x, (np.ndarray, np.generic)) for x in jax.tree.leaves(found)
        )

    def test_devices_do_not_matter(self, monkeypatch):
        """Bit by bit, for something with sums in it."""

        def function(shared, x):
            return jnp.tanh(x @ shared).sum(0)

        rng = np.random.default_rng(0)
        shared = rng.normal(size=(64, 32)).astype(np.float32)
        calls = [(rng.normal(size=(50, 64)).astype(np.float32),) for _ in range(5)]
        two = list(parallel.in_turn(function, shared, calls))
        monkeypatch.setattr(jax, "local_device_count", lambda: 1)
        chex.assert_trees_all_equal(
            list(parallel.in_turn(function, shared, calls)), two
        )

    def test_compiles_once(self, lanes):
        traces = []

        def function(shared, x, y):
            traces.append(1)
            return x * y

        for _ in range(2):
            list(parallel.in_turn(function, (), self.calls(5)))
        assert len(traces) == 1

    def test_calls_are_made_when_it_is_time(self, lanes):
        """Not more than two groups are in memory."""
        made = []

        def calls():
            for i, call in enumerate(self.calls(9)):
                made.append(i)
                yield call

        results = parallel.in_turn(self.function, {"a": np.float32(1)}, calls())
        next(results)
        assert len(made) == 2 * lanes

"""Calls that have nothing to do with each other, on all cores or devices."""

import threading
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import parallel
from ddjax.ot.host import on_host
from ddjax.parallel import calls, devices


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

    @pytest.mark.parametrize("threads", [1, 3])
    def test_calls_are_made_when_it_is_time(self, lanes, threads, monkeypatch):
        """Not more than two groups are in memory, or one call more than threads."""
        if lanes == 1:
            monkeypatch.setattr(devices, "threads", lambda: threads)
        made = []

        def calls():
            for i, call in enumerate(self.calls(9)):
                made.append(i)
                yield call

        results = parallel.in_turn(self.function, {"a": np.float32(1)}, calls())
        for taken in range(1, 5):
            next(results)
            groups = -(-taken // lanes)
            ahead = lanes * (groups + 1) if threads == 1 or lanes > 1 else taken + 3
            assert len(made) <= ahead
        assert len(made) < 9


class TestBeside:
    """Items on several threads, the first call of each by itself."""

    @pytest.fixture(params=[1, 2, 3])
    def workers(self, request, monkeypatch):
        monkeypatch.setattr(devices, "threads", lambda: request.param)
        return request.param

    def test_is_a_loop(self, workers):
        begun, done = [], []

        def work(item, ready):
            begun.append(item)
            ready()
            done.append(item)

        parallel.beside(work, range(7))
        assert begun == [*range(7)] and sorted(done) == begun

    def test_so_many_at_a_time(self, workers):
        """They meet in the middle, which fewer would wait for for ever."""
        meeting, threads = threading.Barrier(workers), set()

        def work(item, ready):
            ready()
            meeting.wait(timeout=60)
            threads.add(threading.get_ident())

        parallel.beside(work, range(2 * workers))
        assert len(threads) == workers

    def test_alone_is_on_this_thread(self, workers):
        threads = []
        parallel.beside(
            lambda *_: threads.append(threading.get_ident()), range(3), alone=True
        )
        assert threads == 3 * [threading.get_ident()]

    def test_the_next_begins_when_the_last_has_compiled(self, workers):
        """Or else both would compile what they share."""
        traces = []

        @jax.jit
        def program(x):
            traces.append(1)
            time.sleep(0.2)  # a second thread would be there by then
            return x + 1

        def work(item, ready):
            program(jnp.ones(3)).block_until_ready()
            ready()

        parallel.beside(work, range(3))
        assert len(traces) == 1

    @pytest.mark.parametrize("before", [True, False])
    def test_an_error_is_raised_when_the_others_have_ended(self, workers, before):
        begun, done = [], []

        def work(item, ready):
            begun.append(item)
            if item == 1 and before:
                raise ValueError("no item 1")
            ready()
            if item == 1:
                raise ValueError("no item 1")
            time.sleep(0.2)
            done.append(item)

        with pytest.raises(ValueError, match="no item 1"):
            parallel.beside(work, range(9))
        assert sorted(done) == [x for x in begun if x != 1]
        assert len(begun) <= 1 + workers

"""Spreading a step over a stack, or over devices, changes no result."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import parallel
from ddjax.ot.host import on_host


def step(state, index, shared, private):
    x = state["x"] * shared["a"] + private["b"] + index
    return {"x": x}, {"norm": jnp.sqrt((x**2).sum())}


def arguments(count):
    """States and private values of `count` chunks, [count, ...], and shared ones."""
    keys = jax.random.split(jax.random.key(0), 2)
    state = {"x": jax.random.normal(keys[0], (count, 4))}
    private = {"b": jax.random.normal(keys[1], (count, 4))}
    return state, jnp.int32(3), {"a": jnp.float32(0.5)}, private


def run(spread, state, index, shared, private):
    """One call, with the arguments placed as `loop.run` places them."""
    state, shared, private = spread.place((state, shared, private))
    return spread.compile(step)(state, index, shared, private)


def one_by_one(count):
    state, index, shared, private = arguments(count)
    results = [
        step(
            jax.tree.map(lambda x, i=i: x[i], state),
            index,
            shared,
            jax.tree.map(lambda x, i=i: x[i], private),
        )
        for i in range(count)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *results)


class TestSpread:
    def test_single(self):
        state, index, shared, private = arguments(1)
        state, private, wanted = jax.tree.map(
            lambda x: x[0], (state, private, one_by_one(1))
        )
        got = run(parallel.single, state, index, shared, private)
        chex.assert_trees_all_close(got, wanted, rtol=1e-6)

    @pytest.mark.parametrize("count, devices", [(3, 1), (4, 2)])
    def test_stack_is_spread_over_devices_that_divide_it(self, count, devices):
        state, _, shared, private = arguments(count)
        placed = parallel.stacked.place((state, shared, private))
        used = {len(x.sharding.device_set) for x in jax.tree.leaves(placed)}
        assert used == {devices}

    @pytest.mark.parametrize("count", [1, 3])
    def test_stacked(self, count):
        got = run(parallel.stacked, *arguments(count))
        chex.assert_trees_all_close(got, one_by_one(count), rtol=1e-6)

    @pytest.mark.parametrize("count", [1, 2])
    def test_over_devices(self, count):
        """Also for fewer chunks than devices: the last group of a run."""
        got = run(parallel.over_devices(count), *arguments(count))
        chex.assert_trees_all_close(got, one_by_one(count), rtol=1e-6)
        assert len(got[0]["x"].devices()) == count

    @pytest.mark.parametrize("count", [1, 2])
    def test_over_devices_compiles_once(self, count):
        """The first state is placed where those that come back lie."""
        chex.clear_trace_counter()

        def fresh(state, index, shared, private):
            return step(state, index, shared, private)

        counted = chex.assert_max_traces(fresh, n=1)
        spread = parallel.over_devices(count)
        program = spread.compile(counted)
        state, index, *others = arguments(count)
        state, *others = spread.place((state, *others))
        for _ in range(3):
            state, _ = program(state, index, *others)

    @pytest.mark.parametrize("spread", [parallel.stacked, parallel.over_devices(2)])
    def test_no_device_waits_for_another(self, spread):
        """Not even where each of the stack has kernels of its own."""

        def train(state, index, shared, private):
            def loss(kernels):
                images = jax.lax.conv(shared + index, kernels[0], (1, 1), "SAME")
                images = jax.lax.conv(jnp.sin(images), kernels[1], (1, 1), "SAME")
                return (images**2 * private).mean()

            value, gradient = jax.value_and_grad(loss)(state)
            return jax.tree.map(jnp.subtract, state, gradient), {"loss": value}

        kernels = jnp.ones((2, 8, 3, 3, 3)), jnp.ones((2, 8, 8, 3, 3))
        images = jnp.ones((4, 3, 6, 6))
        state, shared, private = spread.place((kernels, images, jnp.ones(2)))
        program = spread.compile(train).lower(state, 0, shared, private)
        text = program.compile().as_text()
        assert "convolution" in text or "dot" in text
        assert not re.search(
            "all-(gather|reduce|to-all)|collective|reduce-scatter", text
        )

    def test_more_chunks_than_devices_raise(self):
        with pytest.raises(ValueError, match="3 chunks for 2 devices"):
            parallel.over_devices(3)

    @pytest.mark.parametrize("spread", [parallel.single, parallel.stacked])
    def test_memory_of_the_state_is_reused_and_nothing_else(self, spread):
        state, index, shared, private = arguments(2)
        state, shared, private = spread.place((state, shared, private))
        spread.compile(step)(state, index, shared, private)
        assert state["x"].is_deleted()
        assert not private["b"].is_deleted() and not shared["a"].is_deleted()


class TestGroups:
    def test_one_by_one_on_a_cpu(self):
        assert parallel.is_cpu()
        assert parallel.groups(3) == [[0], [1], [2]]

    def test_all_together_on_an_accelerator(self, monkeypatch):
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert not parallel.is_cpu()
        assert parallel.groups(3) == [[0, 1, 2]]


def test_device_count_is_the_fake_one():
    assert parallel.device_count() == 2


@pytest.fixture(params=["cpu", "accelerator"])
def place(request, monkeypatch):
    """One at a time on each core, or three side by side."""
    if request.param == "accelerator":
        monkeypatch.setattr(parallel, "is_cpu", lambda: False)
        monkeypatch.setattr(parallel, "_SIDE_BY_SIDE", 3)
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
        assert seen == ([3, 6, 7] if place == "accelerator" else [*range(1, 8)])

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

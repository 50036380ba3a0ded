"""Spreading a step over a stack, or over devices, changes no result."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import parallel


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

    def test_more_chunks_than_devices_raise(self):
        with pytest.raises(ValueError, match="3 chunks for 2 devices"):
            parallel.over_devices(3)

    @pytest.mark.parametrize("spread", [parallel.single, parallel.stacked])
    def test_memory_of_the_state_is_reused_and_nothing_else(self, spread):
        state, index, shared, private = arguments(2)
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

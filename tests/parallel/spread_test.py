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

    @pytest.mark.parametrize("count, devices", [(3, 1), (4, 2)])
    def test_stack_is_spread_over_devices_that_divide_it(self, count, devices):
        state, _, shared, private = arguments(count)
        placed = parallel.sharded(1, count).place((state, shared, private))
        used = {len(x.sharding.device_set) for x in jax.tree.leaves(placed)}
        assert used == {devices}

    @pytest.mark.parametrize("count", [1, 3])
    def test_stacked(self, count):
        got = run(parallel.sharded(1, count), *arguments(count))
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

    @pytest.mark.parametrize("spread", [parallel.single, parallel.sharded(1, 2)])
    def test_memory_of_the_state_is_reused_and_nothing_else(self, spread):
        state, index, shared, private = arguments(2)
        state, shared, private = spread.place((state, shared, private))
        spread.compile(step)(state, index, shared, private)
        assert state["x"].is_deleted()
        assert not private["b"].is_deleted() and not shared["a"].is_deleted()


def train(state, index, shared, private):
    """A step of gradient descent with statistics of the whole batch."""
    images, rows = shared, jax.random.permutation(private, len(shared))[:8]
    batch = images[parallel.divide(rows)] + index

    def loss(w):
        out = batch @ w
        out = (out - out.mean(0)) / jnp.sqrt(out.var(0) + 1e-5)
        return (jnp.tanh(out) ** 2 * jnp.arange(8.0)[:, None]).mean()

    value, gradient = jax.value_and_grad(loss)(state)
    return state - 0.1 * gradient, {"loss": value}


class TestTraining:
    """A divided batch has the gradient of the whole one."""

    def problem(self, stack=0):
        keys = jax.random.split(jax.random.key(0), 2)
        images = jax.random.normal(keys[0], (30, 5))
        state = jax.random.normal(keys[1], (max(stack, 1), 5, 3))
        private = jax.random.split(jax.random.key(1), max(stack, 1))
        if not stack:
            state, private = state[0], private[0]
        return state, images, private

    def losses(self, spread, stack=0):
        state, shared, private = spread.place(self.problem(stack))
        program, seen = spread.compile(train), []
        for index in range(3):
            state, metrics = program(state, jnp.int32(index), shared, private)
            seen.append(metrics["loss"])
        return np.asarray(state), np.stack(jax.device_get(seen))

    def test_two_devices_do_what_one_does(self):
        wanted = self.losses(parallel.single)
        found = self.losses(parallel.sharded(8))
        chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-6)

    def test_stacks_whose_number_devices_do_not_divide_share_batches(self):
        found = self.losses(parallel.sharded(8, 3), 3)
        state, shared, private = self.problem(3)
        for i in range(3):
            alone = state[i]
            for index in range(3):
                alone, _ = train(alone, index, shared, private[i])
            np.testing.assert_allclose(found[0][i], alone, rtol=1e-5, atol=1e-6)

    def test_work_is_divided(self):
        """Each device holds half of the batch, and the gradients are summed."""
        spread = parallel.sharded(8)
        state, shared, private = spread.place(self.problem())
        program = spread.compile(train).lower(state, jnp.int32(0), shared, private)
        text = program.compile().as_text()
        assert "all-reduce" in text and "f32[4,3]" in text and "f32[8,3]" not in text

    @pytest.mark.parametrize(
        "batch, stack, devices", [(8, 0, 2), (7, 0, 1), (7, 2, 2), (8, 3, 2), (7, 3, 1)]
    )
    def test_as_many_devices_as_divide(self, batch, stack, devices):
        state, _, _ = parallel.sharded(batch, stack).place(self.problem(stack))
        assert len(state.sharding.device_set) == devices

    def test_the_same_object_for_the_same_devices(self):
        """Programs are kept by it: a second stage compiles nothing."""
        assert parallel.sharded(8) is parallel.sharded(16)
        assert parallel.sharded(7) is parallel.single

    def test_batches_are_fed_where_they_are_used(self):
        spread = parallel.sharded(8)
        rows, labels = spread.feed((np.zeros((8, 2)), np.arange(8)))
        assert [s.data.shape for s in rows.addressable_shards] == [(4, 2)] * 2
        np.testing.assert_array_equal(labels, np.arange(8))

    def test_outside_a_mesh_rows_are_left_as_they_are(self):
        rows = jnp.arange(4)
        assert parallel.divide(rows) is rows

"""The loop: whatever runs the steps, the result is that of a plain Python loop."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import loop, parallel

NUM_STEPS = 123  # two blocks of 50 steps, and a rest


def step(state, index, shared, private):
    """Depends on everything a step may see, and on the order of the steps."""
    noise = jax.random.normal(jax.random.fold_in(private, index), state["x"].shape)
    x = 0.9 * state["x"] + shared * noise + 0.01 * index
    return {"x": x, "count": state["count"] + 1}, {"sum": x.sum(), "index": index}


def start(seed=0):
    x = jax.random.normal(jax.random.key(seed), (3,))
    return {"x": x, "count": jnp.int32(0)}


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


SHARED = 0.1


@functools.cache
def reference(seed):
    """States after 0, 1, ... steps, and the metrics: numpy and a Python loop."""
    x = np.asarray(start(seed)["x"], np.float64)
    states, sums = [x], []
    for index in range(NUM_STEPS):
        key = jax.random.fold_in(jax.random.key(seed), index)
        x = 0.9 * x + SHARED * np.asarray(jax.random.normal(key, (3,))) + 0.01 * index
        states.append(x)
        sums.append(x.sum())
    return np.stack(states), np.array(sums)


class Observer:
    """Keeps what it was told, as numbers."""

    def __init__(self):
        self.done, self.metrics = [], []

    def __call__(self, done, state, metrics):
        np.testing.assert_array_equal(state["count"], self.base + done)
        self.done.append(done)
        self.metrics.append(jax.device_get(metrics))

    base = 0  # steps done minus the state's own count

    def joined(self, name):
        return np.concatenate([m[name] for m in self.metrics], axis=-1)


@pytest.fixture(params=["python loop", "blocks of a scan"])
def is_cpu(request, monkeypatch):
    """Both ways of running steps, the second as on an accelerator."""
    cpu = request.param == "python loop"
    monkeypatch.setattr(parallel, "is_cpu", lambda: cpu)
    return cpu


class TestRun:
    def test_one_chunk(self, is_cpu):
        observer = Observer()
        key, steps = jax.random.key(0), range(NUM_STEPS)
        state = loop.run(step, start(), SHARED, key, steps, observe=observer)
        states, sums = reference(0)
        np.testing.assert_allclose(state["x"], states[-1], rtol=1e-4, atol=1e-5)
        assert int(state["count"]) == NUM_STEPS
        np.testing.assert_allclose(observer.joined("sum"), sums, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(observer.joined("index"), np.arange(NUM_STEPS))
        wanted = list(range(1, NUM_STEPS + 1)) if is_cpu else [50, 100, 123]
        assert observer.done == wanted

    @pytest.mark.parametrize(
        "spread", [parallel.sharded(1, 2), parallel.over_devices(2)]
    )
    def test_a_stack_equals_one_by_one(self, is_cpu, spread):
        observer = Observer()
        keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
        state = loop.run(
            step,
            stack([start(0), start(1)]),
            SHARED,
            keys,
            range(NUM_STEPS),
            spread=spread,
            observe=observer,
        )
        assert observer.joined("sum").shape == (2, NUM_STEPS)
        for seed in (0, 1):
            states, sums = reference(seed)
            got = state["x"][seed]
            np.testing.assert_allclose(got, states[-1], rtol=1e-4, atol=1e-5)
            got = observer.joined("sum")[seed]
            np.testing.assert_allclose(got, sums, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("done", [1, 49, 50, 73, 122])
    def test_resuming_at_any_step_gives_the_same(self, is_cpu, done):
        key = jax.random.key(0)
        state = loop.run(step, start(), SHARED, key, range(done))
        np.testing.assert_allclose(state["x"], reference(0)[0][done], rtol=1e-4)
        observer = Observer()
        state = loop.run(
            step, state, SHARED, key, range(done, NUM_STEPS), observe=observer
        )
        np.testing.assert_allclose(state["x"], reference(0)[0][-1], rtol=1e-4)
        wanted = np.arange(done, NUM_STEPS)
        np.testing.assert_array_equal(observer.joined("index"), wanted)
        assert observer.done[-1] == NUM_STEPS

    def test_resumed_run_is_bitwise_the_same(self, monkeypatch):
        """On an accelerator checkpoints lie between blocks: the programs are equal."""
        monkeypatch.setattr(parallel, "is_cpu", lambda: False)
        key = jax.random.key(0)
        whole = loop.run(step, start(), SHARED, key, range(NUM_STEPS))
        half = loop.run(step, start(), SHARED, key, range(50))
        resumed = loop.run(step, half, SHARED, key, range(50, NUM_STEPS))
        chex.assert_trees_all_equal(resumed, whole)

    @pytest.mark.parametrize("done", [0, 41])
    def test_fed_arrays_are_those_of_the_step(self, is_cpu, done):
        """As if they had been shared, and each step had taken its own row."""
        rows = np.random.default_rng(0).normal(size=(NUM_STEPS, 3)).astype(np.float32)
        asked = []

        def feed(index):
            asked.append(index)
            return rows[index]

        def fed(state, index, shared, private):
            key, row = private
            return step(state, index, shared * row, key)

        def taking(state, index, shared, private):
            return step(state, index, SHARED * shared[index], private)

        steps = range(done, NUM_STEPS)
        key = jax.random.key(0)
        got = loop.run(fed, start(), SHARED, key, steps, feed=feed)
        wanted = loop.run(taking, start(), rows, key, steps)
        np.testing.assert_allclose(got["x"], wanted["x"], rtol=1e-5, atol=1e-6)
        assert asked == list(steps)

    def test_no_steps_give_the_start_back(self, is_cpu):
        observer = Observer()
        state = loop.run(
            step, start(), SHARED, jax.random.key(0), range(7, 7), observe=observer
        )
        chex.assert_trees_all_equal(state, start())
        assert observer.done == []

    def test_other_shared_values_are_not_baked_in(self, is_cpu):
        """The same step with other arrays: nothing was closed over."""
        key = jax.random.key(0)
        loop.run(step, start(), SHARED, key, range(1))
        calm = loop.run(step, start(), 0.0, key, range(1))
        np.testing.assert_allclose(calm["x"], 0.9 * start()["x"], rtol=1e-6)


class TestTracing:
    """Compiled once: a second trace means seconds lost in every run."""

    @pytest.mark.parametrize(
        ("cpu", "traces"),
        [(True, 1), (False, 2)],  # one for the blocks, one for the rest
    )
    def test_one_trace_per_program(self, monkeypatch, cpu, traces):
        monkeypatch.setattr(parallel, "is_cpu", lambda: cpu)
        chex.clear_trace_counter()

        def fresh(state, index, shared, private):
            return step(state, index, shared, private)

        counted = chex.assert_max_traces(fresh, n=traces)
        for seed in (0, 1):  # the second run compiles nothing
            key = jax.random.key(seed)
            loop.run(counted, start(seed), SHARED + seed, key, range(NUM_STEPS))
            loop.run(counted, start(seed), SHARED, key, range(23, NUM_STEPS))

    def test_a_stack_is_traced_once(self):
        chex.clear_trace_counter()

        def fresh(state, index, shared, private):
            return step(state, index, shared, private)

        counted = chex.assert_max_traces(fresh, n=1)
        keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
        for _ in range(2):
            state = stack([start(0), start(1)])
            spread = parallel.sharded(1, 2)
            loop.run(counted, state, SHARED, keys, range(5), spread=spread)

    def test_the_counter_counts(self):
        """The tests above can fail: a state of another shape is another program."""
        chex.clear_trace_counter()

        def fresh(state, index, shared, private):
            return step(state, index, shared, private)

        counted = chex.assert_max_traces(fresh, n=1)
        key = jax.random.key(0)
        loop.run(counted, start(), SHARED, key, range(2))
        longer = {"x": jnp.zeros(4), "count": jnp.int32(0)}
        with pytest.raises(AssertionError, match="traced"):
            loop.run(counted, longer, SHARED, key, range(2))


def test_the_start_is_donated():
    """Its memory is reused: a big batch of images is not held twice."""
    state = start()
    loop.run(step, state, SHARED, jax.random.key(0), range(1))
    assert state["x"].is_deleted()

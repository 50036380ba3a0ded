"""Between observers nothing crosses from host to device or back, and nobody waits.

On a CPU a device's memory is the host's: JAX's transfer guard sees what is sent, and
not what is read. So the loops here begin with a state that the devices are still busy
with, and whoever reads, or waits, is late.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import (
    checkpoint,
    loop,
    methods,
    optimizers,
    parallel,
    recover,
    relabel,
    squeeze,
    student,
)
from ddjax.data import augment
from ddjax.types import Context
from launch import progress

NUM_STEPS = 6  # at 32 programs in flight a CPU makes the host wait
SHORT, LONG = 20_000, 200_000  # rounds of `later`: 0.3 s and 3 s of an idle core
VIEWS = relabel.Views(batch_size=8, crop_scale=(0.5, 1.0))
TEACHER = squeeze.Recipe(batch_size=8, crop_scale=(0.5, 1.0))


@jax.jit
def later(tree, rounds):
    """The tree when the devices come to it, and an array to ask whether they have."""
    noise = jax.lax.fori_loop(
        0, rounds, lambda _, x: jnp.sin(x @ x), jnp.zeros((64, 64))
    )[0, 0]
    return jax.tree.map(lambda x: x + noise.astype(x.dtype), tree), noise


def waits(
    step, state, shared, private, spread=parallel.single, longest=LONG, **options
) -> bool:
    """Whether a loop waits for its devices; what is sent is an error of JAX's guard.

    The delay is tried short first, and long where the machine has other work.
    """

    def place(arguments):
        with jax.transfer_guard("allow"):
            state, *others = spread.place(arguments)
            state, asked[0] = later(state, rounds)
            return state, *others

    asked = [None]
    for rounds in (1, SHORT, longest):  # the first compiles
        start = jax.tree.map(jnp.array, state)
        with jax.transfer_guard("disallow"):
            end = loop.run(
                step,
                start,
                shared,
                private,
                range(NUM_STEPS),
                spread=spread._replace(place=place),
                **options,
            )
        was_late = asked[0].is_ready()
        jax.block_until_ready(end)
        if rounds > 1 and not was_late:
            return False
    return True


@pytest.fixture
def teaching(tiny_network, tiny_data):
    """A loop of squeeze: what `waits` takes."""
    step = squeeze.make_step(tiny_network, TEACHER, 15)
    state = squeeze.init(jax.random.key(0), tiny_network, TEACHER, 15)
    return step, state, tiny_data[:2], jax.random.key(1)


class TestLoops:
    def test_squeeze(self, teaching):
        assert not waits(*teaching)

    def test_squeeze_with_the_monitor_of_the_programs(
        self, teaching, tmp_path, monkeypatch
    ):
        """Between its looks, which are seconds apart."""
        monkeypatch.setattr(progress, "_LOOK_EVERY_S", 1000)
        stage = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        bar = progress.bar("squeeze", 100)
        monitor = progress.Monitor(stage, bar, 100, 0, save_every_s=1000)
        assert not waits(*teaching, observe=monitor)

    def test_squeeze_that_is_fed(self, tiny_network, tiny_data, teaching):
        """What is fed is sent, as it must be; nobody waits for it."""
        step = squeeze.make_streamed_step(tiny_network, TEACHER, 15)
        batch = tiny_data.images[:8], tiny_data.labels[:8]
        _, state, _, key = teaching
        assert not waits(step, state, (), key, feed=lambda _: batch)

    @pytest.mark.parametrize("chunks", [1, 2])
    def test_recover(self, chunks, tiny_network, tiny_info, tiny_variables):
        method = methods.create(
            "sre2l",
            tiny_network,
            optimizers.pixel_adam(0.2, NUM_STEPS, tiny_info.std),
            num_steps=NUM_STEPS,
            augment=augment.CropFlipRoll((0.5, 1.0), True, 1),
        )
        context, rows = Context(tiny_variables), np.arange(3)
        goal = recover.targets(
            rows, recover.noise(jax.random.key(0), rows, tiny_info), 1
        )
        goals = jax.tree.map(lambda x: np.stack([x] * chunks), goal)
        keys = jax.random.split(jax.random.key(1), chunks)
        state = recover.initial_state(method, context, goals, keys)
        spread = parallel.over_devices(chunks)
        step = recover.make_step(method)
        assert not waits(step, state, context, (keys, goals), spread)

    @pytest.mark.parametrize("students", [1, 2])
    def test_student(self, students, tiny_network, tiny_data):
        recipe = student.Recipe(VIEWS, epochs=3)
        step = student.make_step(tiny_network, recipe, 15, "hard")
        keys = jax.random.split(jax.random.key(0), students)
        state = student.initial_state(keys, tiny_network, recipe, 15)
        images, labels, _ = tiny_data
        shared = jax.random.key(1), images, labels, np.ones(15, np.float32), ()
        spread = parallel.single if students == 1 else parallel.stacked
        assert not waits(step, state, shared, (), spread)


class TestTheTestsAbove:
    """They can fail."""

    @pytest.mark.parametrize(
        "observe",
        [
            lambda done, state, metrics: float(metrics["loss"][0]),
            lambda done, state, metrics: np.asarray(metrics["loss"]),
            lambda done, state, metrics: jax.device_get(metrics),
            lambda done, state, metrics: jax.block_until_ready(state),
        ],
        ids=["float", "asarray", "device_get", "block_until_ready"],
    )
    def test_who_reads_is_late(self, teaching, observe):
        assert waits(*teaching, observe=observe, longest=SHORT)

    def test_numpy_in_a_step_is_refused(self, teaching):
        """As a batch that was forgotten, or an index that is counted by the host."""
        step, state, shared, key = teaching

        def fed(state, index, shared, private):
            return step(state, index + private[1], shared, private[0])

        with pytest.raises(jax.errors.JaxRuntimeError, match="host-to-device"):
            spread = parallel.single._replace(feed=lambda rows: rows)
            waits(fed, state, shared, key, spread, feed=np.int32)

"""States of an unfinished stage: what is saved comes back, whatever else happened."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import checkpoint, loop
from ddjax.training import TrainState


def make(folder):
    return checkpoint.Stage(folder, "squeeze", "toy", {"lr": 0.1, "steps": 3})


def state_at(step):
    """A state such as stages have: named tuples, dictionaries, counters."""
    x = jnp.full((2, 3), float(step))
    return TrainState({"w": x}, {}, (jnp.int32(step), {"m": -x.astype(jnp.float16)}))


class TestStates:
    def test_state_comes_back_with_its_types(self, tmp_path):
        stage = make(tmp_path)
        stage.save(7, state_at(7))
        stage.close()
        step, state = make(tmp_path).restore(state_at(0))
        assert step == 7 and isinstance(state, TrainState)
        chex.assert_trees_all_equal_structs(state, state_at(7))
        chex.assert_trees_all_equal(state, state_at(7))
        chex.assert_trees_all_equal_dtypes(state, state_at(7))

    def test_shapes_are_enough_to_restore(self, tmp_path):
        stage = make(tmp_path)
        stage.save(1, state_at(1))
        stage.close()
        like = jax.eval_shape(lambda: state_at(0))
        _, state = make(tmp_path).restore(like)
        chex.assert_trees_all_equal(state, state_at(1))

    def test_nothing_saved_is_none(self, tmp_path):
        assert make(tmp_path).restore(state_at(0)) is None

    def test_newest_is_restored_and_two_are_kept(self, tmp_path):
        stage = make(tmp_path)
        for step in (1, 2, 10):
            stage.save(step, state_at(step))
        stage.close()
        stage = make(tmp_path)
        step, state = stage.restore(state_at(0))
        assert step == 10
        chex.assert_trees_all_equal(state, state_at(10))
        kept = {p.name for p in (stage.folder / "checkpoints").iterdir() if p.is_dir()}
        assert kept == {"2", "10"}

    def test_saved_state_survives_donated_updates(self, tmp_path):
        """Saving is in the background, and the loop reuses the state's memory."""
        stage, saved = make(tmp_path), {}
        big = jnp.arange(1 << 20, dtype=jnp.float32)

        def step(state, index, shared, private):
            return {"x": state["x"] * 1.5 + shared + private}, {}

        def observe(done, state, metrics):
            del metrics
            if done in (4, 8):
                saved[done] = np.array(state["x"], copy=True)
                stage.save(done, state)

        loop.run(step, {"x": big}, 1.0, 2.0, range(30), observe=observe)
        stage.close()
        done, state = make(tmp_path).restore({"x": saved[8]})
        assert done == 8
        np.testing.assert_array_equal(state["x"], saved[8])

    def test_damaged_state_gives_the_one_before(self, tmp_path, caplog):
        stage = make(tmp_path)
        for step in (3, 6):
            stage.save(step, state_at(step))
        stage.close()
        for path in (stage.folder / "checkpoints" / "6").rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
        stage = make(tmp_path)
        with caplog.at_level("WARNING"):
            step, state = stage.restore(state_at(0))
        assert step == 3 and "cannot be read" in caplog.text
        chex.assert_trees_all_equal(state, state_at(3))
        stage.save(6, state_at(6))  # the damaged one is not in the way
        stage.close()
        assert make(tmp_path).restore(state_at(0))[0] == 6

    @pytest.mark.parametrize(
        "like",
        [
            state_at(0)._replace(params={"w": jnp.zeros((3, 2))}),
            state_at(0)._replace(params={"v": jnp.zeros((2, 3))}),
            state_at(0)._replace(params={}),
        ],
        ids=["shape", "name", "missing"],
    )
    def test_state_of_another_program_is_not_restored_and_not_lost(
        self, tmp_path, like
    ):
        stage = make(tmp_path)
        stage.save(5, state_at(5))
        stage.close()
        stage = make(tmp_path)
        assert stage.restore(like) is None
        stage.save(5, like)  # the other state is not in the way
        stage.close()
        assert stage.restore(like)[0] == 5
        kept = [
            p for p in (stage.folder / "unreadable" / "5").rglob("*") if p.is_file()
        ]
        assert kept

    def test_dropped_states_make_room_for_earlier_ones(self, tmp_path):
        stage = make(tmp_path)
        stage.save(9, state_at(9))
        stage.drop_states()
        assert stage.restore(state_at(0)) is None
        stage.save(2, state_at(2))
        stage.close()
        assert make(tmp_path).restore(state_at(0))[0] == 2

    def test_restored_state_can_be_saved_further(self, tmp_path):
        stage = make(tmp_path)
        stage.save(1, state_at(1))
        step, state = stage.restore(state_at(0))
        stage.save(step + 1, state)
        stage.close()
        assert make(tmp_path).restore(state_at(0))[0] == 2

"""States of an unfinished stage: what is saved comes back, whatever else happened."""

import concurrent.futures
import os
import shutil
import socket
import subprocess
import sys
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import checkpoint, loop
from ddjax.checkpoint import files
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

    def test_threads_do_not_wait_for_each_other_for_ever(self, tmp_path):
        """Each saves its own, as students that train beside each other do."""

        def save(i):
            stage = make(tmp_path / str(i))
            for step in range(1, 9):
                stage.save(step, state_at(step))
            stage.close()
            return make(tmp_path / str(i)).restore(state_at(0))

        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for step, state in pool.map(save, range(3)):
                chex.assert_trees_all_equal(state, state_at(8))
                assert step == 8
        assert time.monotonic() - began < 150  # orbax gives up after 300 s

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

    def test_damaged_state_that_another_host_sets_aside(self, tmp_path, monkeypatch):
        """Two hosts that look at the states of a third find the same damage."""
        stage = make(tmp_path)
        stage.save(3, state_at(3))
        stage.close()

        def read(directory):
            shutil.rmtree(directory.parent)
            raise ValueError("its checksum is wrong")

        monkeypatch.setattr(files, "read", read)
        assert make(tmp_path).restore() is None

    @pytest.mark.parametrize(
        "like",
        [
            state_at(0)._replace(params={"w": jnp.zeros((3, 2))}),
            state_at(0)._replace(params={"v": jnp.zeros((2, 3))}),
            state_at(0)._replace(params={}),
            state_at(0)._replace(params={"w": jnp.zeros((2, 3), jnp.bfloat16)}),
        ],
        ids=["shape", "name", "missing", "type"],
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

    def test_without_shapes_the_arrays_come_by_name(self, tmp_path, recwarn):
        stage = make(tmp_path)
        state = {"b": jnp.ones(3, jnp.bfloat16), "a": (np.int64(7), np.zeros((0, 2)))}
        stage.save(4, state)
        stage.close()
        step, found = make(tmp_path).restore()
        assert step == 4 and list(found) == ["a/0", "a/1", "b"]
        for name, wanted in checkpoint.flatten(state).items():
            np.testing.assert_array_equal(found[name], wanted)
            assert found[name].dtype == wanted.dtype
        found["b"][:] = 0  # they are the caller's
        assert not recwarn.list

    def test_a_state_written_in_part_is_none(self, tmp_path):
        """What orbax leaves when the process is killed, and what is removed next."""
        stage = make(tmp_path)
        stage.save(1, state_at(1))
        stage.close()
        folder = stage.folder / "checkpoints"
        shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
        stage = make(tmp_path)
        assert stage.restore(state_at(0))[0] == 1
        stage.save(3, state_at(3))
        stage.close()
        assert sorted(os.listdir(folder)) == ["1", "3"]


class TestNames:
    """Several hosts keep their own states in one folder."""

    def test_each_name_has_its_own(self, tmp_path):
        stage = make(tmp_path)
        assert stage.states() == []
        for name in ("host1", "host0"):
            for step in (1, 2, 3):
                stage.save(step, state_at(10 * step), name)
        stage.close()
        stage = make(tmp_path)
        assert stage.states() == ["host0", "host1"]
        assert stage.restore(state_at(0)) is None
        for name in stage.states():
            step, state = stage.restore(state_at(0), name)
            assert step == 3
            chex.assert_trees_all_equal(state, state_at(30))
            kept = os.listdir(stage.folder / "checkpoints" / name)
            assert sorted(kept) == ["2", "3"]

    def test_without_a_name_is_a_name_too(self, tmp_path):
        stage = make(tmp_path)
        stage.save(1, state_at(1))
        stage.save(2, state_at(2), "host1")
        stage.close()
        assert stage.states() == ["", "host1"]
        stage.drop_states()
        assert stage.states() == ["host1"]
        stage.drop_states("host1")
        assert stage.states() == []

    def test_damage_to_one_is_none_to_the_others(self, tmp_path):
        stage = make(tmp_path)
        for name in ("host0", "host1"):
            stage.save(1, state_at(1), name)
        stage.close()
        (
            stage.folder / "checkpoints" / "host0" / "1" / "default" / "index.json"
        ).unlink()
        assert stage.restore(state_at(0), "host0") is None
        assert stage.states() == ["host1"]
        assert (stage.folder / "unreadable" / "host0" / "1").exists()

    @pytest.mark.parametrize("name", ["7", "a/b", "..", "host 1"])
    def test_a_name_that_would_be_a_step_or_a_path_is_refused(self, name, tmp_path):
        with pytest.raises(ValueError, match="letters and digits"):
            make(tmp_path).save(1, state_at(1), name)

    def test_a_process_saves_alone(self, tmp_path):
        """Here the second of two, while the first does nothing at all."""
        host = """
import sys, time, jax, numpy as np
from ddjax import checkpoint
address, process, folder = sys.argv[1:]
jax.distributed.initialize(address, 2, int(process))
jax.devices()
if process == "1":
    stage = checkpoint.Stage(folder, "squeeze", "toy", {"lr": 0.1, "steps": 3})
    stage.save(5, {"x": np.arange(7)}, "host1")
    stage.close()
    print(stage.restore(name="host1")[1]["x"].sum())
"""
        address = f"localhost:{free_port()}"
        hosts = [
            subprocess.Popen(
                [sys.executable, "-c", host, address, str(process), str(tmp_path)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for process in range(2)
        ]
        try:
            said = [host.communicate(timeout=60)[0] for host in hosts]
        finally:
            for host in hosts:
                host.kill()
        assert [host.returncode for host in hosts] == [0, 0], said
        assert "21\n" in said[1]
        _, state = make(tmp_path).restore(name="host1")
        np.testing.assert_array_equal(state["x"], np.arange(7))


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


class TestDamage:
    """Any damage to the files of a state is found, and the one before is used."""

    @pytest.fixture(scope="class")
    @classmethod
    def saved(cls, tmp_path_factory):
        """A folder with states of the steps 3 and 6; not to be changed."""
        folder = tmp_path_factory.mktemp("saved")
        stage = make(folder)
        for step in (3, 6):
            stage.save(step, state_at(step))
        stage.close()
        return folder

    @pytest.mark.parametrize("file", ["index.json", "arrays.bin"])
    def test_every_flipped_bit_is_found(self, saved, file, tmp_path):
        whole = make(saved).folder / "checkpoints" / "6" / "default"
        folder = shutil.copytree(whole, tmp_path / "copy")
        content = (whole / file).read_bytes()
        for position in range(8 * len(content)):
            damaged = bytearray(content)
            damaged[position // 8] ^= 1 << position % 8
            (folder / file).write_bytes(damaged)
            with pytest.raises(ValueError, match="checksum"):
                files.read(folder)
        (folder / file).write_bytes(content)
        arrays = checkpoint.flatten(state_at(6))
        chex.assert_trees_all_equal(files.read(folder), arrays)

    @pytest.mark.parametrize("file", ["index.json", "arrays.bin"])
    @pytest.mark.parametrize("damage", ["bit", "cut", "longer", "empty", "gone"])
    def test_state_before_is_used(self, saved, file, damage, tmp_path, caplog):
        shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
        stage = make(tmp_path)
        path = stage.folder / "checkpoints" / "6" / "default" / file
        content = path.read_bytes()
        path.unlink()
        if damage != "gone":
            middle = len(content) // 2
            flipped = bytes([content[middle] ^ 16])
            damaged = {
                "bit": content[:middle] + flipped + content[middle + 1 :],
                "cut": content[:-1],
                "longer": content + b"x",
                "empty": b"",
            }
            path.write_bytes(damaged[damage])
        step, state = stage.restore(state_at(0))
        assert step == 3
        chex.assert_trees_all_equal(state, state_at(3))
        (warning,) = [record.getMessage() for record in caplog.records]
        reason = "No such file" if damage == "gone" else "its checksum is wrong"
        assert warning.startswith(f"checkpoint 6 in {stage.folder} cannot be read")
        assert reason in warning and "trying the one before" in warning
        assert (stage.folder / "unreadable" / "6" / "default").exists()

    def test_damage_to_what_orbax_adds_costs_no_state(self, saved, tmp_path):
        """Its own files hold no numbers: times and versions."""
        shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
        stage = make(tmp_path)
        folder = stage.folder / "checkpoints" / "6"
        others = [
            path
            for path in folder.rglob("*")
            if path.is_file() and path.name not in ("index.json", "arrays.bin")
        ]
        assert others
        for path in others:
            path.write_bytes(b"\xff" + path.read_bytes()[1:])
        step, state = stage.restore(state_at(0))
        assert step == 6
        chex.assert_trees_all_equal(state, state_at(6))
        stage.save(7, state_at(7))  # orbax does not read them either
        stage.close()
        assert make(tmp_path).restore(state_at(0))[0] == 7

"""What is on disk: names, hashes, damage, and states of unfinished stages."""

import errno
import json
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import checkpoint, loop, models
from ddjax.training import TrainState


def make(folder, made_from=None, **changed):
    made_from = {"lr": 0.1, "steps": 3} if made_from is None else made_from
    names = {"stage": "squeeze", "name": "toy"} | changed
    return checkpoint.Stage(folder, names["stage"], names["name"], made_from)


ARRAYS = {
    "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "params/Conv_0/kernel": np.linspace(-1, 1, 5, dtype=np.float32),
    "logits": np.array([[0.5, -3.25]], np.float16),
    "empty": np.zeros((0, 3), np.int32),
}


class TestFlatten:
    def test_names_are_paths(self):
        tree = {"b": (1, 2), "a": {"Conv_0": {"kernel": 3}}}
        flat = checkpoint.flatten(jax.tree.map(np.array, tree))
        assert {k: int(v) for k, v in flat.items()} == {
            "a/Conv_0/kernel": 3,
            "b/0": 1,
            "b/1": 2,
        }

    def test_fields_of_named_tuples_have_names(self):
        flat = checkpoint.flatten(TrainState({"x": 1}, {}, (2,)))
        assert sorted(flat) == ["opt_state/0", "params/x"]

    def test_round_trip_through_a_file(self, tmp_path, tiny_network, tiny_variables):
        stage = make(tmp_path)
        stage.finish(checkpoint.flatten(tiny_variables), {})
        like = jax.eval_shape(tiny_network.init, jax.random.key(0))
        back = checkpoint.unflatten(stage.load(), like)
        chex.assert_trees_all_equal(back, tiny_variables)

    def test_empty_collections_come_back(self):
        tree = {"params": {"w": np.ones(2)}, "batch_stats": {}}
        back = checkpoint.unflatten(checkpoint.flatten(tree), tree)
        assert back["batch_stats"] == {}

    def test_order_of_the_arrays_does_not_matter(self):
        tree = {"a": np.zeros(2), "b": np.ones(2)}
        flat = checkpoint.flatten(tree)
        turned = dict(reversed(flat.items()))
        chex.assert_trees_all_equal(checkpoint.unflatten(turned, tree), tree)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda flat: flat.pop("a"), r"missing \['a'\], extra \[\]"),
            (lambda flat: flat.update(c=np.ones(1)), r"missing \[\], extra \['c'\]"),
            (
                lambda flat: flat.update(b=np.ones((3, 2))),
                r"another shape \['b \(3, 2\) instead of \(2, 3\)'\]",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, change, message):
        tree = {"a": np.zeros(2), "b": np.ones((2, 3))}
        flat = checkpoint.flatten(tree)
        change(flat)
        with pytest.raises(ValueError, match=message):
            checkpoint.unflatten(flat, tree)

    def test_another_network_does_not_fit(self, tiny_info, tiny_variables):
        other = models.create("convnet", tiny_info, width=5, depth=2)
        like = jax.eval_shape(other.init, jax.random.key(0))
        with pytest.raises(ValueError, match="made for another network"):
            checkpoint.unflatten(checkpoint.flatten(tiny_variables), like)


class TestHash:
    def test_does_not_depend_on_the_order(self, tmp_path):
        first = make(tmp_path, {"a": 1, "b": {"c": 2, "d": 3}})
        again = make(tmp_path, {"b": {"d": 3, "c": 2}, "a": 1})
        assert first.hash == again.hash and first.folder == again.folder

    def test_tuples_are_lists(self, tmp_path):
        """As they come back from JSON, where there are no tuples."""
        assert make(tmp_path, {"s": (1, 2)}).hash == make(tmp_path, {"s": [1, 2]}).hash

    @pytest.mark.parametrize(
        "other",
        [
            {"lr": 0.10000001, "steps": 3},
            {"lr": 0.1, "steps": 4},
            {"lr": 0.1},
            {"lr": 0.1, "steps": 3, "seed": 0},
            {"lr": 0.1, "steps": "3"},
            {"lr": 0.1, "Steps": 3},
        ],
    )
    def test_depends_on_everything_it_was_made_from(self, tmp_path, other):
        assert make(tmp_path).hash != make(tmp_path, other).hash

    def test_folder_is_stage_name_and_hash(self, tmp_path):
        stage = make(tmp_path, stage="recover", name="wmdd-ipc10")
        assert stage.folder == tmp_path / "recover" / f"wmdd-ipc10-{stage.hash}"
        assert stage.folder.is_dir() and not any(stage.folder.iterdir())

    def test_same_hash_in_another_process(self):
        """A constant: what is on disk must be found again by a newer version."""
        assert checkpoint.canonical({"b": (1, 2.5), "a": None}) == (
            '{"a":null,"b":[1,2.5]}'
        )
        # printf '[{"lr":0.1}]' | sha256sum | cut -c1-12
        assert checkpoint.fingerprint({"lr": 0.1}) == "8ddb6555a738"

    def test_fingerprint_keeps_values_apart(self):
        assert checkpoint.fingerprint("a", "b") != checkpoint.fingerprint("ab")
        assert checkpoint.fingerprint("a", "b") != checkpoint.fingerprint("b", "a")


class TestArtifact:
    def test_finished_arrays_and_record_come_back(self, tmp_path):
        make(tmp_path).finish(ARRAYS, {"top1": 0.5, "classes": ["a"]})
        stage = make(tmp_path)
        assert stage.complete
        loaded = stage.load()
        assert set(loaded) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(loaded[name], array)
            assert loaded[name].dtype == array.dtype
        assert stage.record() == {"top1": 0.5, "classes": ["a"]}

    def test_record_of_a_folder_tells_what_it_was_made_from(self, tmp_path):
        stage = make(tmp_path, {"scale": (0.08, 1)})
        stage.finish(ARRAYS, {"top1": 0.5})
        assert checkpoint.record(stage.folder) == {
            "top1": 0.5,
            "made_from": {"scale": [0.08, 1]},
        }
        np.testing.assert_array_equal(
            checkpoint.load(str(stage.folder))["images"], ARRAYS["images"]
        )

    def test_other_ingredients_are_another_artifact(self, tmp_path):
        make(tmp_path).finish(ARRAYS, {})
        assert not make(tmp_path, {"lr": 0.2}).complete

    def test_unfinished_raises(self, tmp_path):
        stage = make(tmp_path)
        assert not stage.complete
        with pytest.raises(ValueError, match="no finished artifact"):
            stage.load()
        with pytest.raises(ValueError, match="no finished artifact"):
            stage.record()

    def test_arrays_without_manifest_are_not_complete(self, tmp_path):
        """The manifest is written last."""
        stage = make(tmp_path)
        stage.finish(ARRAYS, {})
        (stage.folder / "manifest.json").unlink()
        assert not stage.complete

    @pytest.mark.parametrize("damage", ["one byte", "cut", "gone", "other file"])
    def test_damaged_arrays_raise(self, tmp_path, damage):
        stage = make(tmp_path)
        stage.finish(ARRAYS, {})
        path = stage.folder / "artifact.npz"
        content = bytearray(path.read_bytes())
        if damage == "one byte":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        elif damage == "cut":
            path.write_bytes(content[:-1])
        elif damage == "gone":
            path.unlink()
        else:
            np.savez(path, images=ARRAYS["images"])
        with pytest.raises(ValueError, match=r"artifact\.npz is damaged"):
            stage.load()

    def test_damaged_manifest_raises(self, tmp_path):
        stage = make(tmp_path)
        stage.finish(ARRAYS, {})
        path = stage.folder / "manifest.json"
        path.write_text(path.read_text()[:-3])
        with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
            stage.load()

    def test_finishing_drops_what_was_unfinished(self, tmp_path):
        stage = make(tmp_path)
        stage.save(1, {"x": jnp.zeros(2)})
        stage.save_part("0", ARRAYS)
        # What a process that was killed has left behind.
        (stage.folder / ".artifact.npz.12345").write_bytes(b"half")
        stage.finish(ARRAYS, {})
        assert sorted(p.name for p in stage.folder.iterdir()) == [
            "artifact.npz",
            "manifest.json",
        ]
        assert stage.restore({"x": jnp.zeros(2)}) is None

    def test_folder_that_cannot_be_made_raises(self, tmp_path):
        (tmp_path / "squeeze").write_text("a file where a folder should be")
        with pytest.raises(ValueError, match="cannot write to the work folder"):
            make(tmp_path)


class TestWriteAtomically:
    def test_writes_and_leaves_nothing_else(self, tmp_path):
        path = tmp_path / "file"
        checkpoint.write_atomically(path, lambda file: file.write(b"new"))
        assert path.read_bytes() == b"new"
        assert os.listdir(tmp_path) == ["file"]

    def test_full_disk_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def write(file):
            file.write(b"half of the n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(ValueError, match="No space left on device"):
            checkpoint.write_atomically(path, write)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, TypeError])
    def test_any_interruption_leaves_the_old_file_alone(self, tmp_path, error):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def write(file):
            file.write(b"half of the n")
            raise error

        with pytest.raises(error):
            checkpoint.write_atomically(path, write)
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["file"]

    def test_interrupted_finish_is_not_complete(self, tmp_path, monkeypatch):
        stage, real = make(tmp_path), os.replace

        def replace(source, target):
            if str(target).endswith("manifest.json"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(ValueError, match="Nothing was overwritten"):
            stage.finish(ARRAYS, {})
        assert not stage.complete


class TestParts:
    def test_parts_come_back(self, tmp_path):
        make(tmp_path).save_part("0-3", ARRAYS)
        loaded = make(tmp_path).load_part("0-3")
        chex.assert_trees_all_equal(loaded, ARRAYS)
        assert not make(tmp_path).complete

    def test_a_part_that_was_not_saved_is_none(self, tmp_path):
        stage = make(tmp_path)
        assert stage.load_part("0") is None
        stage.save_part("1", ARRAYS)
        assert stage.load_part("0") is None

    @pytest.mark.parametrize("keep", [0, 1, 100, -1])
    def test_a_damaged_part_is_none_and_can_be_saved_again(self, tmp_path, keep):
        stage = make(tmp_path)
        stage.save_part("0", ARRAYS)
        (path,) = (stage.folder / "parts").iterdir()
        path.write_bytes(path.read_bytes()[:keep])
        assert stage.load_part("0") is None
        stage.save_part("0", ARRAYS)
        chex.assert_trees_all_equal(stage.load_part("0"), ARRAYS)


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


def test_manifest_is_plain_json(tmp_path):
    stage = make(tmp_path)
    stage.finish(ARRAYS, {"top1": 0.25})
    manifest = json.loads((stage.folder / "manifest.json").read_text())
    assert manifest["record"] == {"top1": 0.25}
    assert manifest["made_from"] == {"lr": 0.1, "steps": 3}

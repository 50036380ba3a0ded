"""The folder of a stage: its name, its artifact, damage to it, and its parts."""

import errno
import json
import os
import pathlib
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import checkpoint


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


class TestFolder:
    def test_may_be_tidied_while_another_looks_whether_it_can_write(
        self, tmp_path, monkeypatch
    ):
        """The primary removes what a kill left, also what another host has just made."""
        touch = pathlib.Path.touch

        def touched(path):
            touch(path)
            path.unlink()

        monkeypatch.setattr(pathlib.Path, "touch", touched)
        assert make(tmp_path).folder.is_dir()

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

    def test_every_flipped_bit_of_a_manifest_is_found(self, tmp_path):
        """Or it does no harm: white space is not in the checksum."""
        stage = make(tmp_path)
        stage.finish(ARRAYS, {"top1": 0.25, "classes": ["a", "b"]})
        path = stage.folder / "manifest.json"
        content, whole, found = path.read_bytes(), checkpoint.record(stage.folder), 0
        for position in range(8 * len(content)):
            damaged = bytearray(content)
            damaged[position // 8] ^= 1 << position % 8
            path.write_bytes(damaged)
            try:
                assert checkpoint.record(stage.folder) == whole
            except ValueError as error:
                assert "manifest.json is damaged" in str(error)
                found += 1
        assert found > 0.8 * 8 * len(content)

    def test_old_manifest_without_a_checksum_is_read(self, tmp_path):
        stage = make(tmp_path)
        stage.finish(ARRAYS, {"top1": 0.25})
        path = stage.folder / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["own_sha256"]
        path.write_text(json.dumps(manifest))
        assert make(tmp_path).record() == {"top1": 0.25}

    def test_what_a_kill_after_the_last_word_left_is_removed(self, tmp_path):
        stage = make(tmp_path)
        stage.finish(ARRAYS, {})
        (stage.folder / "checkpoints" / "7").mkdir(parents=True)
        (stage.folder / "parts").mkdir()
        (stage.folder / ".artifact.npz.12345").write_bytes(b"half")
        assert make(tmp_path).complete
        assert sorted(p.name for p in stage.folder.iterdir()) == [
            "artifact.npz",
            "manifest.json",
        ]

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

    def test_round_trip_through_a_file(self, tmp_path, tiny_network, tiny_variables):
        stage = make(tmp_path)
        stage.finish(checkpoint.flatten(tiny_variables), {})
        like = jax.eval_shape(tiny_network.init, jax.random.key(0))
        back = checkpoint.unflatten(stage.load(), like)
        chex.assert_trees_all_equal(back, tiny_variables)

    def test_state_that_another_host_cannot_read_stays(self, tmp_path, monkeypatch):
        """The primary, which saved it, has just read it."""
        stage = make(tmp_path)
        stage.save(3, ARRAYS)
        stage.close()
        path = stage.folder / "checkpoints" / "3" / "default" / "arrays.bin"
        hidden = path.rename(path.with_suffix(".late"))
        parallel = checkpoint.stage.parallel
        monkeypatch.setattr(parallel, "host_count", lambda: 2)
        monkeypatch.setattr(parallel, "is_primary", lambda: False)
        monkeypatch.setattr(parallel, "agree", lambda about, value=None: 3)
        with pytest.raises(ValueError, match="does not see the state of step 3"):
            make(tmp_path).restore(ARRAYS)
        hidden.rename(path)
        assert make(tmp_path).restore(ARRAYS)[0] == 3

    def test_record_of_another_host_may_come_late(self, tmp_path, monkeypatch):
        """As on a network, which keeps for a while that a file is not there."""
        make(tmp_path).finish({}, {"top1": 0.5})
        path = make(tmp_path).folder / "manifest.json"
        late = path.rename(path.with_suffix(".late"))
        monkeypatch.setattr(checkpoint.stage.parallel, "host_count", lambda: 2)
        timer = threading.Timer(0.3, late.rename, [path])
        timer.start()
        assert make(tmp_path).record() == {"top1": 0.5}
        timer.join()

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

    def test_manifest_is_plain_json(self, tmp_path):
        stage = make(tmp_path)
        stage.finish(ARRAYS, {"top1": 0.25})
        manifest = json.loads((stage.folder / "manifest.json").read_text())
        assert manifest["record"] == {"top1": 0.25}
        assert manifest["made_from"] == {"lr": 0.1, "steps": 3}


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

    def test_every_flipped_bit_is_found(self, tmp_path, caplog):
        """Or it does no harm: a date in the zip file."""
        stage, arrays = make(tmp_path), {"x": np.arange(5), "y": np.float32([1, 2])}
        stage.save_part("0", arrays)
        path = stage.folder / "parts" / "0.npz"
        content, found = path.read_bytes(), 0
        for position in range(0, 8 * len(content), 3):
            damaged = bytearray(content)
            damaged[position // 8] ^= 1 << position % 8
            path.write_bytes(damaged)
            part = stage.load_part("0")
            found += part is None
            if part is not None:
                chex.assert_trees_all_equal(part, arrays)
                chex.assert_trees_all_equal_dtypes(part, arrays)
        assert found > len(content)
        assert "is damaged; making it again" in caplog.text


class TestOthers:
    """An unfinished folder of another config is neither read nor touched."""

    def test_is_named_once_and_left_alone(self, tmp_path, caplog):
        caplog.set_level("INFO")
        first = make(tmp_path)
        first.save_part("0", ARRAYS)
        make(tmp_path, name="other").save_part("0", ARRAYS)
        make(tmp_path, {"lr": 1}).finish(ARRAYS, {})  # tells of it
        make(tmp_path, {"lr": 2})
        make(tmp_path, {"lr": 2})
        told = [record.getMessage() for record in caplog.records]
        wanted = f"{first.folder} is unfinished, of another config; it is left alone."
        assert told == [wanted, wanted]
        chex.assert_trees_all_equal(first.load_part("0"), ARRAYS)

    def test_goes_on_when_its_config_comes_back(self, tmp_path):
        first = make(tmp_path)
        first.save(3, {"x": np.ones(2)})
        first.close()
        other = make(tmp_path, {"lr": 2})
        assert other.restore() is None
        other.finish(ARRAYS, {})
        assert make(tmp_path).restore()[0] == 3

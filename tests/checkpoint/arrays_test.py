"""Names of arrays in a tree, hashes that must not change, and files written at once."""

import errno
import os

import chex
import jax
import numpy as np
import pytest

from ddjax import checkpoint, models
from ddjax.training import TrainState


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

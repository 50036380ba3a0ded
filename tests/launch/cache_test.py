"""The compile cache stays small, and loses what was read longest ago."""

import os

import jax
import pytest

from launch import cache


def _filled(folder):
    """Four programs of 100 bytes: "b" was read last, though it is the oldest."""
    for i, name in enumerate("bacd"):
        path = folder / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (9000 if name == "b" else 1000 + i, 1000 + i))
    (folder / "notes.txt").write_bytes(bytes(500))
    return folder


@pytest.mark.parametrize(
    ("most", "left"), [(400, "abcd"), (399, "bcd"), (200, "bd"), (50, "")]
)
def test_prune_deletes_what_was_read_longest_ago(most, left, tmp_path):
    cache.prune(_filled(tmp_path), most)
    assert sorted(p.name for p in tmp_path.glob("*-cache")) == [
        f"{name}-cache" for name in left
    ]
    assert (tmp_path / "notes.txt").exists()


def test_prune_without_a_folder(tmp_path):
    cache.prune(tmp_path / "none", 0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def settings():
    """JAX's settings of the cache, as they were afterwards."""
    names = [
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_enable_bounds_our_folder_alone(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 200)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "ddjax").mkdir()
    ours = _filled(tmp_path / "ddjax")
    cache.enable()
    assert len(list(ours.glob("*-cache"))) == 2
    assert jax.config.jax_compilation_cache_dir == str(ours)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(_filled(theirs)))
    cache.enable()
    assert len(list(theirs.glob("*-cache"))) == 4

"""Programs are freed before a process has no memory maps left."""

import jax
import jax.numpy as jnp

from launch import crowding


def compiled(monkeypatch, maps, limit, tmp_path):
    """How many programs of a function are left after a process had so many maps."""
    (tmp_path / "limit").write_text(f"{limit}\n")
    (tmp_path / "maps").write_text("0-1 r\n" * maps)
    monkeypatch.setattr(crowding, "_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(crowding, "_MAPS", tmp_path / "maps")
    double = jax.jit(lambda x: 2 * x)
    double(jnp.ones(3))
    crowding.ease()
    return double._cache_size()


def test_a_crowded_process_forgets_its_programs(monkeypatch, tmp_path, caplog):
    with caplog.at_level("INFO"):
        assert compiled(monkeypatch, 60, 100, tmp_path) == 0
    assert "60 of 100 memory maps: compiled programs are freed." in caplog.text


def test_others_keep_them(monkeypatch, tmp_path):
    assert compiled(monkeypatch, 40, 100, tmp_path) == 1


def test_where_nothing_is_known_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.setattr(crowding, "_LIMIT", tmp_path / "none")
    crowding.ease()

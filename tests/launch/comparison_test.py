"""What is compared, each of it once."""

import types

from configs import default
from launch import comparison, recover


def test_baselines_beside_two_imported_sets_are_made_once(monkeypatch):
    """Hosts would train the same student at the same time, in one folder."""
    config = default.get_config("quick")
    config.evaluate.against = ("random",)
    config.evaluate.sets = ("one", "two")
    assert 7 not in config.recover.ipc

    def made(config, workdir, teacher, seen, arm, ipc, seed):
        return recover.Distilled(None, f"{arm} {ipc} {seed}", {"arm": arm, "ipc": ipc})

    monkeypatch.setattr(comparison.recover, "make", made)
    monkeypatch.setattr(
        comparison,
        "imported",
        lambda path, info: recover.Distilled(None, path, {"arm": path, "ipc": 7}),
    )
    train = types.SimpleNamespace(info=None)
    teacher = types.SimpleNamespace(train=train)
    monkeypatch.setattr(comparison, "_whole", lambda teacher: made(*[None] * 7))
    entries = list(comparison.entries(config, "", lambda *_: (teacher, None)))
    found = [(e.distilled.hash, e.seed) for e in entries]
    assert len(set(found)) == len(found)
    assert {"one", "two", "random 7 0"} <= {name for name, _ in found}

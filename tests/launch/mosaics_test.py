"""Sets of mosaics and pools from end to end: bytes, students, cards, resumption."""

import re

import jax
import numpy as np
import pytest

import ddjax
from configs import common, default
from ddjax import checkpoint, data, export
from ddjax.matching import mosaics
from launch import (
    arms,
    comparison,
    evaluate,
    image_costs,
    jobs,
    plan,
    pool,
    progress,
    recover,
    shapes,
    sources,
    teacher_costs,
)


def config_with(**changes):
    """The quick config about DM with mosaics, matched through a pool."""
    config = default.get_config("quick")
    with config.unlocked():
        config.methods.dm = {
            **common.matching(dsa=common.WITHOUT_FLIP)["dm"],
            "num_steps": 5,
            "real_batch": 20,
            "learning_rate": 1.0,
            "factor": 2,
            "networks": "pool",
            **changes,
        }
        config.recover.method, config.recover.start = "dm", "random"
        config.recipes.dm.epochs = 3
        config.evaluate.recipes = ("dm",)
        config.evaluate.labels = ("hard", "single")
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The config, its records, and where they are."""
    workdir, config = tmp_path_factory.mktemp("mosaics"), config_with()
    return config, evaluate.run(config, workdir), workdir


@pytest.fixture(scope="module")
def folder(run):
    (found,) = (run[2] / "recover").glob("dm-*")
    return found


def test_students_see_the_parts_and_pay_for_the_mosaics(run):
    rows = {(row["arm"], row["labels"]): row for row in run[1]}
    ours, plain = rows["dm/random", "hard"], rows["random", "hard"]
    assert (ours["num_images"], plain["num_images"]) == (80, 20)
    assert ours["image_bytes"] == plain["image_bytes"] == 20 * 64
    assert ours["label_bytes"] == plain["label_bytes"] == 20
    assert rows["dm/random", "single"]["label_bytes"] == 80 * 10 * 2


def test_the_page_and_the_costs_are_of_all_that_was_made(run):
    report = run[2] / "report"
    assert (report / "index.html").exists()
    records = (report / "records.json").read_text()
    assert records.count('"stage": "pool"') == run[0].pool.size
    (looked,) = (run[2] / "quality").glob("dm-*")
    record, stored = checkpoint.record(looked), checkpoint.load(looked)
    assert record["num_images"] == 80 and stored["features"].shape[0] == 80


def test_a_set_is_stored_as_mosaics_and_loaded_as_parts(run, folder):
    stored = ddjax.load_distilled(folder, decode=False)
    assert stored.factor == 2 and stored.ipc == 2
    seen = ddjax.load_distilled(folder)
    assert seen.factor == 1 and seen.about["decoded_factor"] == 2 and seen.ipc == 8
    whole = mosaics.decode(stored.images.astype(np.float32), 2)
    np.testing.assert_array_equal(seen.images, np.rint(whole))


def test_an_exported_set_says_how_to_take_it_apart(run, folder, tmp_path, monkeypatch):
    """By its own card, without us; and it is the same arm when it is brought back."""
    stored = ddjax.load_distilled(folder, decode=False)
    out = export.save_distilled(stored, tmp_path / "out", "folder")
    card = (out / "README.md").read_text()
    loading, taking = re.findall("```python\n(.*?)\n```", card, re.DOTALL)[:2]
    got = {}
    monkeypatch.chdir(out)
    exec(f"{loading}\n{taking}", got)  # noqa: S102
    wanted = ddjax.load_distilled(out)
    for name in ("images", "labels", "weights"):
        np.testing.assert_array_equal(got[name], getattr(wanted, name))
    found = comparison.imported(str(out), stored.info)
    assert found.record["ipc"] == 2 and found.record["image_bytes"] == 20 * 64
    np.testing.assert_array_equal(found.images.images, wanted.images)
    np.testing.assert_array_equal(found.stored, stored.images)


def test_soft_labels_of_mosaics_are_refused(run, folder):
    stored = ddjax.load_distilled(folder, decode=False)
    with pytest.raises(ValueError, match="soft labels of mosaics: each image holds 4"):
        export.checked(stored._replace(soft_labels=np.zeros((20, 10))), "it")


def test_an_interrupted_recovery_goes_on(run, folder, tmp_path, monkeypatch):
    """From the state of step 3: the same set, bit for bit."""
    call = progress.Monitor.__call__

    def ended(self, done, state, metrics):
        call(self, done, state, metrics)
        if self._stage.folder.parent.name == "recover" and done == 3:
            self._save(state)
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.Monitor, "__call__", ended)
    with pytest.raises(KeyboardInterrupt):
        recover.run(run[0], tmp_path)
    monkeypatch.setattr(progress.Monitor, "__call__", call)
    (again,) = recover.run(run[0], tmp_path)
    np.testing.assert_array_equal(again.stored, checkpoint.load(folder)["images"])


def test_another_pool_makes_other_sets(run, folder, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.pool.epochs = 2
    (made,) = recover.run(config, tmp_path)
    assert made.hash != folder.name.rpartition("-")[2]
    assert np.any(made.stored != checkpoint.load(folder)["images"])


def test_a_mosaic_begins_with_as_many_real_images(tmp_path):
    """Without a step, its parts are real images, shrunk: none is there twice."""
    config = config_with(networks="random", learning_rate=0.0)
    source = sources.finder(config, tmp_path)
    teacher, seen = source(arms.ours(config), 2)
    job = jobs.prepare(config, tmp_path, teacher, seen, "dm/random", 2, 0)
    start = np.asarray(job.goals(job.cuts[0]).images)
    small = data.load("digits").images.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4)) / 255
    parts = start.reshape(20, 2, 4, 2, 4, 1).swapaxes(2, 3).reshape(80, 4, 4, 1)
    far = np.abs(parts[:, None] - small[None]).max((2, 3, 4))
    assert far.min(1).max() < 1e-6 and len(np.unique(far.argmin(1))) == 80


def test_what_cannot_be_a_mosaic_is_refused():
    for changes, wanted in (
        ({"factor": 3}, "factor 3: images of 8 x 8 pixels"),
        ({"factor": 0}, "factor 0"),
    ):
        with pytest.raises(ValueError, match=wanted):
            arms.check(config_with(**changes))
    config = config_with()
    config.recover.start = "real"
    with pytest.raises(ValueError, match='each image holds 4, and its start "real"'):
        arms.check(config)
    config = config_with()
    config.recover.ipc = (50,)
    with pytest.raises(ValueError, match="200"):
        arms.check(config)


def test_a_plan_counts_the_pool_and_the_parts(run):
    found = plan.outlined(run[0])
    (row,) = teacher_costs.pool_rows(found)
    (made,) = image_costs.recover_rows(found)  # compiled with the pool
    assert made.calls == 5 and made.disk == 20 * 64
    count = sum(found.outline.counts)
    assert row.stage == "squeeze" and row.calls == 2 * -(-count // 128)
    networks = jax.tree.leaves(pool.run(run[0], run[2]))
    assert row.disk == sum(x.nbytes for x in networks)
    assert shapes.by_parts(found, 2) == {1: ["random"], 4: ["dm/random"]}

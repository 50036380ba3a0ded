"""The referee: nothing is chosen on the test images, and every arm gets the same."""

import jax
import numpy as np
import pytest

from configs import default
from ddjax import metrics
from launch import cells, comparison, evaluate, inputs, rates, report


def quick(**changes):
    """The quick config, with hard labels, and fields of `evaluate` changed."""
    config = default.get_config("quick")
    with config.unlocked():
        config.evaluate.labels = ("hard",)
        config.recipes.wmdd.epochs = 40  # so that students know something
        config.evaluate.update(changes)
    return config


def leak(monkeypatch):
    """Puts the training images in the place of the test images."""
    load = inputs.load_data

    def leaked(config):
        train, test = load(config)
        few = slice(0, None, 4)
        return train, test._replace(images=train.images[few], labels=train.labels[few])

    monkeypatch.setattr(inputs, "load_data", leaked)


def test_students_do_not_depend_on_the_test_images(tmp_path, monkeypatch):
    before = evaluate.run(quick(), tmp_path / "a")
    leak(monkeypatch)
    after = evaluate.run(quick(), tmp_path / "b")
    assert [r["students"] for r in before] == [r["students"] for r in after]
    assert [r["top1"] for r in before] != [r["top1"] for r in after]
    sets = report.records(tmp_path / "b")["sets"]
    assert next(r for r in sets if r["arm"] == "random")["test_copies"] > 0


def test_a_student_is_scored_once_after_its_last_step(tmp_path, monkeypatch):
    evaluate.run(quick(), tmp_path)  # so that the teacher is there
    steps, scored = [], []
    train, score = cells.student.train, metrics.accuracy

    def watched(*arguments, observe, **options):
        def note(done, state, values):
            steps.append(done)
            observe(done, state, values)

        return train(*arguments, observe=note, **options)

    def counted(apply_fn, variables, images, labels):
        scored.append(steps[-1])
        # A student that was better before: the score must still be the last one's.
        return 0.9 if len(scored) == 1 else score(apply_fn, variables, images, labels)

    monkeypatch.setattr(cells.student, "train", watched)
    monkeypatch.setattr(metrics, "accuracy", counted)
    config = quick(against=("random", "herding"))
    found = evaluate.run(config, tmp_path)
    assert scored == [40]  # herding's student: as many epochs of one step
    assert [r["top1"] for r in found if r["arm"] == "herding"] == [0.9]


def test_rates_are_chosen_on_training_images(tmp_path, monkeypatch):
    config = quick(learning_rates=(1e-5, 5e-3))
    before = evaluate.run(config, tmp_path / "a")
    rate = {(r["arm"], r["set"]): r["recipe_fields"]["learning_rate"] for r in before}
    assert set(rate.values()) == {5e-3}
    assert {tuple(r["searched"]) for r in before} == {(1e-5, 5e-3)}
    leak(monkeypatch)
    after = evaluate.run(config, tmp_path / "b")
    assert [r["students"] for r in before] == [r["students"] for r in after]


def test_every_arm_searches_the_same_rates():
    seen = []

    def train(config, workdir):
        rate = config.recipes.wmdd.learning_rate
        seen.append((rate, config.data.holdout, config.evaluate.learning_rates))
        best = {"random": 0.1, "herding": 0.01}
        return [
            {"arm": arm, "ipc": 1, "labels": "hard", "recipe": "wmdd", "model": "m"}
            | {"top1": 1 - abs(rate - best[arm])}
            for arm in best
        ]

    config = quick(learning_rates=(0.1, 0.01, 0.001))
    chosen = rates.search(config, "", train)
    assert seen == [(r, 0.2, ()) for r in (0.1, 0.01, 0.001)]
    assert chosen == {
        ("random", 1, "hard", "wmdd", "m"): 0.1,
        ("herding", 1, "hard", "wmdd", "m"): 0.01,
    }
    assert config.data.holdout == 0.0
    with config.unlocked():
        config.data.holdout = 0.1
    with pytest.raises(ValueError, match="set one of them"):
        rates.search(config, "", train)


def test_as_many_bytes(tmp_path):
    """Random images cost what ours cost with their labels, and no more."""
    config = quick(labels=("stored",), whole_epochs=1)
    found = evaluate.run(config, tmp_path)
    rows = {r["arm"]: r for r in found}
    ours, equal = rows["wmdd/real"], rows[comparison.EQUAL]
    paid = ours["image_bytes"] + ours["label_bytes"] + ours["other_bytes"]
    spent = equal["image_bytes"] + equal["label_bytes"]
    one_more = spent + 10 * (64 + 1)
    assert spent <= paid < one_more
    assert equal["labels"] == "stored" and equal["ipc"] == ours["ipc"]
    assert equal["num_images"] > ours["num_images"]


def test_recipes_networks_and_labels_are_crossed(tmp_path):
    config = quick(
        labels=("hard", "online"),
        recipes=("wmdd", "dm", "wmdd+plain"),
        models=("convnet", "vit_tiny"),
        against=("random",),
    )
    with config.unlocked():
        config.student.models.vit_tiny.update(width=12, depth=1)
    found = evaluate.run(config, tmp_path)
    assert len(found) == 2 * 2 * 3 * 2
    cells = {(r["arm"], r["labels"], r["recipe"], r["model"]) for r in found}
    assert len(cells) == len(found)
    assert {r["recipe_fields"]["optimizer"] for r in found} == {"adamw", "sgd"}
    needed = {r["labels"]: r["other_bytes"] for r in found if r["arm"] == "random"}
    assert needed["hard"] == 0 < needed["online"]


def test_an_imported_set_is_an_arm(tmp_path):
    import ddjax

    train, _ = inputs.load_data(quick())
    rows = np.concatenate([np.flatnonzero(train.labels == k)[:3] for k in range(10)])
    about = {"source": "a test"}
    stored = ddjax.export.StoredSet(
        train.images[rows],
        train.labels[rows],
        np.full(30, 1 / 3, np.float32),
        (),
        train.info,
        about,
    )
    ddjax.save_distilled(stored, tmp_path / "theirs", "npz")
    config = quick(sets=(str(tmp_path / "theirs"),))
    found = evaluate.run(config, tmp_path / "run")
    mine = [r for r in found if r["arm"] == "theirs"]
    assert [(r["ipc"], r["num_images"]) for r in mine] == [(3, 30)]
    assert [r["arm"] for r in found if r["ipc"] == 3] == ["theirs", "random"]

    other = train.info._replace(classes=train.info.classes[::-1])
    ddjax.save_distilled(stored._replace(info=other), tmp_path / "mixed", "npz")
    with pytest.raises(ValueError, match="other classes than they learnt"):
        evaluate.run(quick(sets=(str(tmp_path / "mixed"),)), tmp_path / "new")
    assert not (tmp_path / "new").exists()  # before anything is made


def test_keys_of_students_differ():
    """Students of a cell start from different parameters, the arms from the same."""
    config = quick()
    keys = [evaluate.program.key(config, "student", seed) for seed in range(3)]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 3

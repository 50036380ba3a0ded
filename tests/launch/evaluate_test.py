"""What is trained for a comparison, and what its records say."""

import json

import jax
import numpy as np
import pytest

from configs import default
from ddjax import checkpoint, recipes
from launch import cells, evaluate, inputs, students

RECIPES = ("wmdd", "wmdd+plain", "edc")


@pytest.fixture(scope="module")
def config():
    """Two images a class of one arm; all labels, three recipes, two networks."""
    config = default.get_config("quick")
    with config.unlocked():
        config.student.models.small = {"name": "convnet", "width": 4, "depth": 1}
    config.evaluate.labels = ("hard", "single", "stored", "online")
    config.evaluate.recipes = RECIPES
    config.evaluate.models = ("convnet", "small")
    config.evaluate.against = ()
    config.recover.start = "noise"
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """The folders of a comparison whose students are left as they were drawn.

    What they learn is tested in student_test.py and recipes_test.py.
    """
    workdir = tmp_path_factory.mktemp("run")

    def untrained(keys, network, *arguments, observe, **options):
        del arguments, options, observe
        return [network.init(key) for key in keys]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells.student, "train", untrained)
        evaluate.run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def records(config, workdir):
    """As a second run finds them, without training."""
    return evaluate.run(config, workdir)


def test_every_combination_is_there_once(records):
    found = [(r["labels"], r["recipe"], r["model"]) for r in records]
    assert len(set(found)) == len(found) == 4 * 3 * 2
    for record in records:
        assert (record["arm"], record["ipc"]) == ("wmdd/noise", 2)
        assert (record["set"], record["student"], record["num_images"]) == (0, 0, 20)
        assert 0 <= record["top1"] <= 1 and record["image_bytes"] == 20 * 64


def test_fields_make_the_recipe_again(config, records):
    info = inputs.load_data(config)[0].info
    for record in records:
        name, model = record["recipe"], record["model"]
        recipe = students.recipe(config, name, model, 20, info)
        fields = json.loads(json.dumps(recipes.fields(recipe)))
        assert record["recipe_fields"] == fields
        assert record["recipe_fields"]["epochs"] == 3
        assert record["model_fields"] == config.student.models[model].to_dict()


def test_bytes_are_those_of_the_labels(records, workdir):
    """What is stored, or else the teacher; EDC's loss reads the class too."""
    teacher = checkpoint.load(next((workdir / "squeeze").glob("*")))
    size = sum(array.nbytes for array in teacher.values())
    stored = {
        kind: {
            checkpoint.load(folder)["logits"].nbytes
            for folder in (workdir / "relabel").glob(f"*-{kind}-*")
        }
        for kind in ("single", "stored")
    }
    assert stored == {"single": {20 * 10 * 2}, "stored": {3 * 20 * 10 * 2}}
    for record in records:
        kind, hard = record["labels"], 20 * (record["recipe"] == "edc")
        wanted = {"hard": 20, "single": 400 + hard, "stored": 1200 + hard}
        assert record["label_bytes"] == wanted.get(kind, hard)
        assert record["other_bytes"] == (size if kind == "online" else 0)


def test_recipes_of_the_same_views_share_their_labels(workdir):
    """On digits EDC's are WMDD's; without crops and boxes they are others."""
    assert len(list((workdir / "relabel").glob("*-stored-*"))) == 2
    assert len(list((workdir / "relabel").glob("*-single-*"))) == 1


def test_training_never_reads_the_test_images(config, tmp_path, monkeypatch):
    """Another test split, the same students: only their score may differ."""
    load, trained = inputs.load_data, []
    train = cells.student.train

    def watch(*arguments, **options):
        trained.append(jax.device_get(train(*arguments, **options)))
        return trained[-1]

    monkeypatch.setattr(cells.student, "train", watch)
    few = config.copy_and_resolve_references()
    with few.unlocked():
        few.evaluate.update(labels=("stored",), recipes=("edc",))
        few.evaluate.models = ("small",)
    first = evaluate.run(few, tmp_path / "one")

    def other(config):
        found, test = load(config)
        wrong = np.zeros_like(test.images)[:100]
        return found, test._replace(images=wrong, labels=test.labels[:100])

    monkeypatch.setattr(inputs, "load_data", other)
    second = evaluate.run(few, tmp_path / "two")
    assert len(trained) == 2
    jax.tree.map(np.testing.assert_array_equal, *trained)
    assert [r["images"] for r in first] == [r["images"] for r in second]


def test_whole_data_is_trained_by_its_own_epochs(config):
    info = inputs.load_data(config)[0].info
    recipe = students.recipe(config, "rded", "convnet", 1437, info, epochs=7)
    assert recipe.epochs == 7
    config = default.get_config()
    assert (
        students.recipe(config, "rded", "convnet", 1437, info).views.batch_size == 100
    )
    assert students.recipe(config, "rded", "convnet", 10, info).views.batch_size == 10


def test_dsa_gets_the_pixels_of_the_data(config):
    info = inputs.load_data(config)[0].info
    views = students.recipe(config, "dm", "convnet", 20, info).views
    assert (views.mean, views.std) == (tuple(info.mean), tuple(info.std))

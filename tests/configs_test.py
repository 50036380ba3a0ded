"""Every config builds, is locked and documented, and its :quick variant runs."""

import importlib
import pathlib

import pytest

from ddjax import recipes, relabel, student
from ddjax.types import DataInfo
from launch import arms, inputs, recover, students

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py"))
NAMES = [name for name in NAMES if name not in ("__init__", "common")]


def load(name):
    return importlib.import_module(f"configs.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_builds_locked_and_documented(name):
    config = load(name).get_config()
    assert config.is_locked and config.name == name
    with pytest.raises(AttributeError):
        config.recover.ipcs = 1
    for word in ("Method:", "Command:", "Hardware:", "Expected:", "https://arxiv.org"):
        assert word in load(name).__doc__
    method, _ = arms.split(arms.ours(config))
    for section in (method, "wmdd", "sre2l", "cda"):
        assert section in config.methods


@pytest.mark.parametrize("name", NAMES)
def test_refuses_an_unknown_argument(name):
    with pytest.raises(
        ValueError, match="unknown config argument 'fast'; known: quick"
    ):
        load(name).get_config("fast")


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_quick(name, tmp_path):
    config = load(name).get_config("quick")
    config.methods[arms.split(arms.ours(config))[0]].num_steps = 1
    (distilled,) = recover.run(config, tmp_path)
    assert distilled.images.images.shape == (20, 8, 8, 1)
    assert distilled.images.images.dtype == "uint8"
    assert distilled.images.labels.tolist() == sorted(distilled.images.labels)
    (folder,) = (tmp_path / "recover").glob(f"{config.recover.method}-*")
    assert (folder / "grid.png").stat().st_size > 1000
    assert "dataset-distillation" in (folder / "README.md").read_text()
    assert (folder / "curves.png").stat().st_size > 1000


def test_values_are_those_of_the_paper():
    """Specification of WMDD on ImageNette (its code's `run.sh` and tables)."""
    config = load("wmdd_imagenette").get_config()
    wmdd, sre2l = config.methods.wmdd, config.methods.sre2l
    assert (wmdd.num_steps, wmdd.learning_rate, wmdd.bn_weight) == (2000, 0.25, 10.0)
    assert (wmdd.ce_weight, wmdd.jitter, wmdd.crop_scale) == (1.0, 32, (0.08, 1.0))
    assert (sre2l.num_steps, sre2l.bn_weight, sre2l.first_bn_weight) == (4000, 0.01, 10)
    squeeze = config.squeeze
    assert (squeeze.learning_rate, squeeze.batch_size, squeeze.epochs) == (
        0.025,
        32,
        50,
    )
    assert (squeeze.momentum, squeeze.weight_decay) == (0.9, 1e-4)
    info = DataInfo("nette", tuple("abcdefghij"), (224, 224, 3), (0.5,) * 3, (0.2,) * 3)
    recipe = students.recipe(config, "wmdd", "resnet18", 100, info)
    assert recipe == student.Recipe(relabel.Views(100, (0.08, 1.0), flip=True))
    assert (recipe.epochs, recipe.learning_rate, recipe.weight_decay) == (
        300,
        1e-3,
        0.01,
    )
    assert (recipe.optimizer, recipe.temperature, recipe.ema) == ("adamw", 20.0, 0.0)


@pytest.mark.parametrize("name", recipes.names())
def test_digits_and_quick_are_never_mirrored(name):
    for config in (
        load("default").get_config(),
        load("cda_imagenette").get_config("quick"),
    ):
        train, _ = inputs.load_data(config)
        model = config.evaluate.models[0]
        views = students.recipe(config, name, model, 100, train.info).views
        assert not views.flip and "flip" not in views.dsa

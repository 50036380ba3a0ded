"""Arms with a teacher of their own."""

import pytest

from configs import default
from launch import arms, variants


@pytest.fixture(name="config")
def _config():
    config = default.base()
    config.teachers.long = {"epochs": 7, "model": {"name": "vit_tiny"}}
    return config


def test_an_arm_names_its_teacher():
    assert variants.name_of("sre2l+guard/noise") == "guard"
    assert variants.name_of("random+guard") == "guard"
    assert variants.name_of("wmdd/real") == variants.name_of("random") == ""
    assert arms.split("sre2l+guard/noise") == ("sre2l", "noise")
    assert arms.split("random+guard") == ("random", "real")


def test_a_teacher_changes_what_it_names_and_nothing_else(config):
    found = variants.config_of(config, "sre2l+long/noise", 1)
    assert found.squeeze.epochs == 7
    assert found.squeeze.model.to_dict() == {"name": "vit_tiny"}, (
        "no width of a convnet"
    )
    assert found.squeeze.batch_size == config.squeeze.batch_size
    assert config.squeeze.epochs == 50, "the config itself stays as it was"
    assert variants.config_of(config, "sre2l/noise", 1) is config


def test_a_teacher_of_its_own_is_trained_where_the_main_one_is_restored(config):
    config.squeeze.restore = "resnet18.pth"
    assert variants.config_of(config, "sre2l+long/noise", 1).squeeze.restore == ""
    config.teachers.long.restore = "robust.pth"
    found = variants.config_of(config, "sre2l+long/noise", 1)
    assert found.squeeze.restore == "robust.pth"


def test_each_other_teacher_is_there_once(config):
    """The same network for every ipc, unless its strength depends on it."""
    config.recover.ipc = (1, 10, 100)
    config.teachers.flat = {"curvature": {"weight": ((1, 1.0), (10, 0.1))}}
    arms = ("random", "sre2l+long/noise", "random+long")
    assert len(variants.others(config, arms)) == 1
    weights = [
        c.squeeze.curvature.weight for c in variants.others(config, ("random+flat",))
    ]
    assert weights == [1.0, 0.1]


def test_unknown_teachers_and_fields_are_named(config):
    with pytest.raises(ValueError, match="'short'; config.teachers has long"):
        variants.config_of(config, "sre2l+short/noise", 1)
    config.teachers.three = 3
    with pytest.raises(ValueError, match="'three'; config.teachers has long"):
        variants.config_of(config, "random+three", 1)
    with pytest.raises(ValueError, match="teacher ''"):
        variants.config_of(config, "sre2l+/noise", 1)
    config.teachers.wrong = {"epoch": 7}
    with pytest.raises(ValueError, match="teachers.wrong .*epoch"):
        variants.config_of(config, "wmdd+wrong/real", 1)


def test_strengths_follow_the_images_per_class():
    assert variants.weight_at(0.3, 50) == 0.3
    schedule = ((1, 4.0), (100, 0.04))
    assert variants.weight_at(schedule, 1) == 4
    assert variants.weight_at(schedule, 10) == 0.4  # the mean of the logarithms
    assert variants.weight_at(schedule, 1000) == 0.04


@pytest.mark.parametrize(
    "weight", [(), (1, 2.0), ((10, 1.0), (1, 2.0)), ((1, 0.0), (10, 1.0))]
)
def test_strengths_that_are_none_are_refused(weight):
    with pytest.raises(ValueError, match=r"such as \(\(1, 1.0\), \(10, 0.1\)\)"):
        variants.weight_at(weight, 10)

"""Arms and the sections that say how they recover."""

import numpy as np
import pytest

from configs import default
from ddjax.types import DataInfo
from launch import arms, history, recover


def test_an_arm_is_a_method_with_a_start_or_a_baseline():
    assert arms.split("wmdd/noise") == ("wmdd", "noise")
    assert arms.split("herding") == ("herding", "real")
    assert arms.split("rded") == ("rded", "real")
    for wrong in ("wmdd", "herding/noise", "wmdd/zeros", "dm/noise"):
        with pytest.raises(
            ValueError, match=f"unknown arm {wrong!r}; known: .*cda/START"
        ):
            arms.split(wrong)


def test_a_section_that_is_missing_or_short_is_refused():
    config = default.get_config()
    with config.unlocked():
        del config.methods.cda
        del config.methods.wmdd.layout
        del config.methods.wmdd.jitter
    with pytest.raises(ValueError, match="no section methods.cda; it has sre2l, wmdd"):
        arms.section(config, "cda")
    with pytest.raises(ValueError, match="methods.wmdd lacks layout, jitter"):
        arms.section(config, "wmdd")


def test_rded_needs_four_images_for_each_large_one():
    config = default.get_config("quick")
    config.recover.ipc, config.evaluate.against = (1, 2), ("rded",)
    info = DataInfo("large", ("a", "b"), (66, 66, 3), (0.5,) * 3, (0.2,) * 3)
    arms.check_with(config, info, np.array([8, 9]), streamed=False)
    with pytest.raises(ValueError, match="for each of its 2, and class 'a' has 7"):
        arms.check_with(config, info, np.array([7, 9]), streamed=False)


class TestTeachersWithoutBatchNorm:
    def config(self, **model):
        config = default.get_config("quick")
        config.squeeze.model = model
        return config

    def test_what_layer_norms_read_is_matched_instead(self, tmp_path, caplog):
        config = self.config(name="vit_tiny", width=12, depth=1, heads=2)
        with caplog.at_level("INFO"):
            (distilled,) = recover.run(config, tmp_path)
        assert "vit_tiny has no BatchNorm: matched are" in caplog.text
        assert "what its 3 other normalisations read" in caplog.text
        (folder,) = tmp_path.glob("recover/*")
        assert history.read(folder)[-1]["batch_norm"] > 0
        assert distilled.images.images.shape == (20, 8, 8, 1)

    def test_instance_norm_leaves_nothing_to_match(self, tmp_path, caplog):
        config = self.config(name="convnet", width=4, depth=2, norm="instance")
        recover.run(config, tmp_path)
        assert "convnet reports no statistics" in caplog.text
        (folder,) = tmp_path.glob("recover/*")
        assert set(history.read(folder)[-1]) == {
            "step",
            "loss",
            "feature",
            "cross_entropy",
        }

    @pytest.mark.parametrize("method", ["sre2l", "cda"])
    def test_running_statistics_that_are_not_there_are_refused(self, method):
        config = self.config(name="vit_tiny", width=12, depth=1, heads=2)
        config.recover.method = method
        with pytest.raises(
            ValueError, match=f"{method}/real matches the running .*vit"
        ):
            arms.check(config)

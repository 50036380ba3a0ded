"""Arms and the sections that say how they recover."""

import numpy as np
import pytest

from configs import common, default, otg_digits
from ddjax import data
from ddjax.types import DataInfo
from launch import arms, history, recover, sections

INFO = DataInfo("two", ("a", "b"), (8, 8, 1), (0.5,), (0.2,))


def test_an_arm_is_a_method_with_a_start_or_a_baseline():
    assert arms.split("wmdd/noise") == ("wmdd", "noise")
    assert arms.split("herding") == ("herding", "real")
    assert arms.split("rded") == ("rded", "real")
    for wrong in ("wmdd", "herding/noise", "wmdd/zeros", "mtt/noise"):
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
        sections.of(config, "cda/real", 1)
    with pytest.raises(ValueError, match="methods.wmdd lacks layout;"):
        sections.of(config, "wmdd/real", 1)
    with config.unlocked():
        config.methods.wmdd.layout = "classes"
        config.evaluate.against = ()
    with pytest.raises(ValueError, match="methods.wmdd lacks jitter;"):
        arms.check_with(config, INFO, np.array([18, 19]), streamed=False)


class TestSettings:
    def config(self):
        config = default.get_config("quick")
        with config.unlocked():
            config.changes.long = {"num_steps": ((1, 7), (10, 9)), "bn_weight": 2.0}
            config.recover.method = "wmdd.long"
        return config

    def test_a_change_stands_in_the_place_of_the_section(self):
        config = self.config()
        assert sections.of(config, "wmdd/real", 1)["num_steps"] == 5
        assert sections.of(config, "wmdd.long+guard/real", 2)["num_steps"] == 7
        changed = sections.of(config, "wmdd.long/noise", 10)
        assert (changed["num_steps"], changed["bn_weight"]) == (9, 2.0)
        assert arms.split("wmdd.long+guard/real") == ("wmdd", "real")

    def test_it_is_recovered_and_named_so(self, tmp_path):
        (distilled,) = recover.run(self.config(), tmp_path)
        assert distilled.record["arm"] == "wmdd.long/real"
        (folder,) = (tmp_path / "recover").glob("wmdd.long-real-ipc2-*")
        assert history.read(folder)[-1]["step"] == 7

    def test_what_is_not_there_is_refused(self):
        config = self.config()
        for arm in ("wmdd.short/real", "wmdd./real"):
            with pytest.raises(ValueError, match="config.changes has long"):
                sections.of(config, arm, 1)
        config.changes.long.num_steps = ((2, 7), (10, 9))
        with pytest.raises(ValueError, match="num_steps is .* begin at 1 or below"):
            sections.of(config, "wmdd.long/real", 1)
        with pytest.raises(ValueError, match="unknown arm 'random.long'"):
            arms.split("random.long")


class TestSampled:
    """Methods whose images are made one after another."""

    def test_a_start_that_is_not_read_is_refused(self):
        config = otg_digits.get_config("quick")
        arms.check(config)
        config.recover.start = "real"
        with pytest.raises(ValueError, match="otg/real has a start.*/noise"):
            arms.check(config)

    def test_chunks_that_part_a_class_are_refused(self):
        config = otg_digits.get_config("quick")
        config.methods.otg.layout = "images"
        with pytest.raises(ValueError, match='otg/noise makes.*layout to "classes"'):
            arms.check(config)


class TestRealImages:
    """Methods that draw real images, and starts that are some."""

    def config(self, **fields):
        config = default.get_config("quick")
        with config.unlocked():
            config.methods.update(common.matching(dsa="crop"))
            config.methods.dm.update(num_steps=3, real_batch=4, **fields)
            config.recover.method, config.recover.start = "dm", "random"
        return config

    def test_pixels_move_away_from_random_images(self, tmp_path):
        still, moved = (
            recover.run(self.config(learning_rate=(rate,)), tmp_path)[0].images.images
            for rate in (0.0, 10.0)
        )
        train = data.load("digits").images
        assert all((image == train).all((1, 2, 3)).any() for image in still)
        assert (moved != still).any()

    def test_images_on_disk_are_refused_before_anything_is_made(self):
        with pytest.raises(ValueError, match="dm/random draws real images at every"):
            arms.check_with(self.config(), INFO, np.array([8, 9]), streamed=True)

    def test_another_optimiser_is_refused(self):
        with pytest.raises(ValueError, match="unknown optimizer 'lion' of pixels"):
            arms.check(self.config(optimizer="lion"))

    def test_a_view_is_no_field_of_theirs(self):
        with pytest.raises(ValueError, match="'dm' has no option 'jitter'"):
            arms.check(self.config(jitter=1))


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

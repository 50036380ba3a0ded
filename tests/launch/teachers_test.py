"""Teachers from elsewhere: published weights, whose classes and pixels must be ours."""

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors

from configs import default
from ddjax import checkpoint, models
from launch import inputs, recover, squeeze, teachers


def quick(**changes):
    """The quick config; `squeeze_restore=...` changes `config.squeeze.restore`."""
    config = default.get_config("quick")
    with config.unlocked():
        for field, value in changes.items():
            section, _, name = field.partition("_")
            config[section][name] = value
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A teacher of three epochs on the digits: well above chance."""
    return squeeze.run(quick(squeeze_epochs=3), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def weights(trained, tmp_path_factory):
    """The same as a file under PyTorch's names, with no word on its classes."""
    path = tmp_path_factory.mktemp("weights") / "convnet.safetensors"
    safetensors.save_file(models.to_torch(trained.variables), path)
    return str(path)


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(squeeze, "_teach", lambda *_: pytest.fail("training began"))


def classes_in(tmp_path, names):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(names) + "\n\n")
    return str(path)


class TestWeights:
    @pytest.mark.parametrize("how", ["sorted", "file"])
    def test_are_the_teacher(self, how, trained, weights, untrained, tmp_path):
        """Its numbers, its accuracy, and it is read once."""
        order = "sorted" if how == "sorted" else classes_in(tmp_path, "0123456789")
        config = quick(squeeze_restore=weights, squeeze_restore_classes=order)
        found = squeeze.run(config, tmp_path)
        wanted = checkpoint.flatten(trained.variables)
        for name, array in checkpoint.flatten(found.variables).items():
            np.testing.assert_array_equal(array, wanted[name])
        for name in ("accuracy", "classes", "mean", "std", "parameters"):
            assert found.record[name] == trained.record[name]
        assert found.record["accuracy"]["test"] > 0.2  # so the order is no accident
        again = squeeze.run(config, tmp_path)
        assert again.hash == found.hash
        assert len(list((tmp_path / "squeeze").iterdir())) == 1

    def test_serve_the_whole_pipeline(self, weights, untrained, tmp_path):
        config = quick(squeeze_restore=weights, squeeze_restore_classes="sorted")
        (distilled,) = recover.run(config, tmp_path)
        assert distilled.images.images.shape == (20, 8, 8, 1)

    def test_hardly_above_chance_are_told_of(self, trained, tmp_path, caplog):
        """As where the classes are in another order than the user says."""
        shuffled = jax.tree.map(lambda x: x, trained.variables)
        head = shuffled["params"]["classifier"]
        head["kernel"] = np.roll(head["kernel"], 1, axis=1)
        head["bias"] = np.roll(head["bias"], 1)
        path = str(tmp_path / "shuffled.safetensors")
        safetensors.save_file(models.to_torch(shuffled), path)
        config = quick(squeeze_restore=path, squeeze_restore_classes="sorted")
        with caplog.at_level("WARNING"):
            squeeze.run(config, tmp_path)
        assert "hardly above chance" in caplog.text
        assert "restore_classes" in caplog.text

    @pytest.mark.parametrize(
        ("order", "match"),
        [
            ("", r"name no classes\. Set squeeze.restore_classes to a file .*sorted"),
            ("missing.txt", "restore_classes: cannot read missing.txt"),
            ("1023456789", "the same classes in another order: label 0 is"),
            ("01234", "5 other classes: label 5 is"),
            ("abcdefghij", "10 other classes: label 0 is"),
        ],
    )
    def test_of_other_classes_are_refused(
        self, order, match, weights, untrained, tmp_path
    ):
        if order.isalnum():
            order = classes_in(tmp_path, order)
        config = quick(squeeze_restore=weights, squeeze_restore_classes=order)
        with pytest.raises(ValueError, match=match):
            squeeze.run(config, tmp_path)
        assert not list(tmp_path.glob("squeeze/*/manifest.json"))

    def test_of_another_network_are_refused(self, weights, untrained, tmp_path):
        config = quick(squeeze_restore=weights, squeeze_restore_classes="sorted")
        config.squeeze.model.width = 4
        with pytest.raises(ValueError, match="not those of this network"):
            squeeze.run(config, tmp_path)

    def test_that_are_not_there_are_refused(self, untrained, tmp_path):
        config = quick(squeeze_restore="no.pth", squeeze_restore_classes="sorted")
        with pytest.raises(ValueError, match=r"cannot read no\.pth: No such file"):
            squeeze.run(config, tmp_path)


class TestPixels:
    def test_teacher_of_other_pixels_is_refused(self, trained, tmp_path, untrained):
        """A folder says how its network normalised, and that must be said here too."""
        squeeze_folder = tmp_path / "teacher"
        stage = checkpoint.Stage(squeeze_folder, "squeeze", "teacher", {})
        stage.finish(checkpoint.flatten(trained.variables), trained.record)
        other = quick(
            squeeze_restore=str(stage.folder), data_mean=(0.5,), data_std=(0.5,)
        )
        with pytest.raises(
            ValueError, match=r"pixels with mean \[0\.3.*Set data\.mean"
        ):
            squeeze.run(other, tmp_path)
        same = quick(
            squeeze_restore=str(stage.folder),
            data_mean=tuple(trained.record["mean"]),
            data_std=tuple(trained.record["std"]),
        )
        assert squeeze.run(same, tmp_path).record["accuracy"]

    def test_given_mean_and_std_are_what_the_network_uses(self):
        train, test = inputs.load_data(quick(data_mean=(0.1,), data_std=(0.2,)))
        assert train.info.mean == test.info.mean == (0.1,)
        assert train.info.std == test.info.std == (0.2,)

    @pytest.mark.parametrize(
        ("mean", "std"), [((0.5,), ()), ((0.5, 0.5), (0.2, 0.2)), ((0.5,), (0.0,))]
    )
    def test_that_do_not_fit_are_refused(self, mean, std):
        with pytest.raises(ValueError, match="must have 1 numbers each"):
            inputs.load_data(quick(data_mean=mean, data_std=std))

    def test_another_normalisation_is_another_teacher(self, tmp_path):
        first = squeeze.run(quick(), tmp_path)
        second = squeeze.run(quick(data_mean=(0.5,), data_std=(0.5,)), tmp_path)
        assert first.hash != second.hash


def test_record_names_what_it_depends_on(trained):
    assert {"accuracy", "classes", "data", "mean", "std"} <= set(trained.record)
    assert trained.record["classes"] == list("0123456789")
    assert isinstance(trained, teachers.Teacher)

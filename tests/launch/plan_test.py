"""The plan of a config against what a run of it then takes."""

import numpy as np
import pytest

from configs import default, wmdd_imagenet1k
from ddjax import checkpoint
from launch import costs, evaluate, history, inputs, plan, pod


@pytest.fixture(scope="module")
def config():
    config = default.get_config("quick")
    config.evaluate.against = ("random", "sre2l/noise")
    config.evaluate.labels = ("hard", "single", "stored")
    config.evaluate.whole_epochs = 1
    config.recover.ipc = (2,)
    config.recover.sets = 2
    return config


@pytest.fixture(scope="module")
def rows(config):
    return costs.work(plan.outlined(config))


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    evaluate.run(config, workdir)
    return workdir


def steps_made(workdir, stage, pattern="*"):
    """Of all loops of a stage, from their histories."""
    histories = workdir.glob(f"{stage}/{pattern}/metrics.jsonl")
    return sum(history.read(path.parent)[-1]["step"] for path in histories)


def bytes_left(workdir, stage, array, pattern="*"):
    folders = [p.parent for p in workdir.glob(f"{stage}/{pattern}/manifest.json")]
    return sum(checkpoint.load(folder)[array].nbytes for folder in folders)


def planned(rows, field, stage, part=""):
    chosen = [r for r in rows if r.stage == stage and r.what.startswith(part)]
    assert chosen
    return sum(getattr(row, field) for row in chosen)


class TestAgainstARun:
    def test_steps(self, rows, workdir):
        assert planned(rows, "calls", "squeeze") == steps_made(workdir, "squeeze")
        for arm in ("wmdd/real", "sre2l/noise"):
            made = steps_made(workdir, "recover", f"{arm.replace('/', '-')}*")
            assert planned(rows, "calls", "recover", arm) == made
        assert planned(rows, "calls", "evaluate") == steps_made(workdir, "evaluate")

    def test_bytes_on_disk(self, rows, workdir):
        arrays = checkpoint.load(next(workdir.glob("squeeze/*")))
        size = sum(array.nbytes for array in arrays.values())
        assert planned(rows, "disk", "squeeze") == size
        features = bytes_left(workdir, "stats", "features", "teacher*")
        assert planned(rows, "disk", "stats", "features") == features
        atoms = bytes_left(workdir, "stats", "points", "barycenter*")
        assert planned(rows, "disk", "stats", "atoms") == atoms
        for arm in ("wmdd/real", "sre2l/noise"):
            pattern = f"{arm.replace('/', '-')}*"
            left = bytes_left(workdir, "recover", "images", pattern)
            assert planned(rows, "disk", "recover", arm) == left
        whole = bytes_left(workdir, "relabel", "logits", "whole*")
        labels = bytes_left(workdir, "relabel", "logits")
        assert planned(rows, "disk", "relabel") == labels - whole

    def test_memory_holds_at_least_the_arguments(self, rows):
        images = 1437 * 64
        assert planned(rows, "memory", "squeeze") > images
        whole = [r for r in rows if "whole data" in r.what]
        assert len(whole) == 3 and min(r.memory for r in whole) > images

    def test_time_is_operations_at_the_measured_rate(self, config, rows):
        row = next(row for row in rows if row.stage == "squeeze")
        assert row.flops > 0 and row.seconds > 0
        rate = row.calls * row.flops / row.seconds
        same = next(row for row in rows if row.stage == "recover")
        assert same.calls * same.flops / same.seconds == pytest.approx(rate)


class TestShow:
    def test_nothing_is_made(self, config, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        plan.show(config)
        told = capsys.readouterr().out
        assert "digits (embedded): 1,437 + 360 images of 8x8x1, 92 kB" in told
        for stage in ("squeeze", "stats", "recover", "relabel", "evaluate"):
            assert f"| {stage}" in told
        assert "in all about" in told
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("part", ["memory", "host_memory"])
    def test_what_does_not_fit_is_told(self, rows, part):
        machine = pod.here(1e9)
        assert "do not fit" not in plan.verdict(rows, machine)
        small = machine._replace(**{part: 1000})
        where = {"memory": "a device", "host_memory": "a host"}[part]
        told = plan.verdict(rows, small)
        assert f"do not fit into 1 kB of {where}. Lower" in told
        assert f"First bottleneck: memory of {where}" in told

    def test_a_full_disk_is_told(self, rows):
        assert "on disk are more than the 10 B here" in plan.verdict(
            rows, pod.here(1e9), 10
        )

    def test_impossible_config_is_refused(self, config):
        with config.unlocked():
            other = config.copy_and_resolve_references()
            other.recover.ipc = (10_000,)
        with pytest.raises(ValueError, match="ipc must lie in"):
            plan.show(other)


class TestOutline:
    def test_imagenet_is_known_before_it_is_there(self, tmp_path):
        config = wmdd_imagenet1k.get_config()
        config.data.folder = str(tmp_path)
        outline = inputs.outline(config)
        assert outline.info.num_classes == 1000
        assert outline.info.shape == (224, 224, 3)
        assert outline.test == 50_000 and outline.streamed
        np.testing.assert_allclose(outline.counts.sum(), 1_281_167, rtol=1e-3)
        assert "not prepared yet" in outline.origin

    def test_unknown_sets_are_refused(self, tmp_path):
        config = wmdd_imagenet1k.get_config()
        config.data.update(name="mine", folder=str(tmp_path))
        with pytest.raises(ValueError, match=r"launch.prepare --source=PATH"):
            inputs.outline(config)

    def test_sizes_must_be_said(self, tmp_path):
        config = wmdd_imagenet1k.get_config()
        config.data.update(folder=str(tmp_path), size=0)
        with pytest.raises(ValueError, match=r"several sizes; set data\.size"):
            inputs.outline(config)

    def test_held_out_images_are_the_test(self):
        config = default.get_config("quick")
        config.data.holdout = 0.2
        outline = inputs.outline(config)
        train, test = inputs.load_data(config)
        assert outline.counts.sum() == len(train.labels)
        assert outline.test == len(test.labels)

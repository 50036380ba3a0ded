"""What a plan counts, against counting by hand, and how it changes with the devices."""

import json
import math
import pathlib

import numpy as np
import pytest

from configs import default, wmdd_imagenet1k, wmdd_imagenet21k
from ddjax.data import published
from launch import costs, decoding, inputs, plan, pod
from launch.image_costs import quality_rows, recover_rows
from launch.shapes import divisor
from launch.student_costs import evaluate_rows, relabel_rows
from launch.teacher_costs import squeeze_rows, stats_rows

ROOT = pathlib.Path(__file__).parents[2]
WIDTH = 64


@pytest.fixture(scope="module")
def planned():
    """The quick config with a wide teacher, 5 chunks, and all kinds of rows."""
    config = default.get_config("quick")
    with config.unlocked():
        config.squeeze.model.width = WIDTH
        config.squeeze.batch_size = 120
        config.recover.batch_size = 4
        config.evaluate.against = ("random", "rded")
        config.evaluate.labels = ("single", "stored")
        config.evaluate.students = 4
    return plan.outlined(config)


def at(planned, make, devices, **told):
    """The rows of a stage for so many devices."""
    (machine,) = pod.machines({"devices": [devices], "tflops": 1e-3, **told}, 1.0)
    return make(planned._replace(machine=machine))


def chosen(rows, stage, part=""):
    (row,) = (r for r in rows if r.stage == stage and part in r.what)
    return row


class TestOperations:
    def test_forward_pass_of_a_convnet(self, planned):
        row = chosen(at(planned, stats_rows, 1), "stats", "features")
        # Of three rows of a kernel at 8 (and 4) places, two lie outside of the image,
        # and the compiler does not count them.
        first = 2 * (3 * 8 - 2) ** 2 * 1 * WIDTH
        second = 2 * (3 * 4 - 2) ** 2 * WIDTH * WIDTH
        batch = planned.config.stats.batch_size
        assert row.flops == pytest.approx(batch * (first + second), rel=0.15)

    def test_training_takes_three_passes(self, planned):
        forward = chosen(at(planned, stats_rows, 1), "stats").flops / 100
        row = chosen(at(planned, squeeze_rows, 1), "squeeze")
        assert row.flops / 120 == pytest.approx(3 * forward, rel=0.2)

    def test_rded_looks_at_every_crop(self, planned):
        row = chosen(at(planned, recover_rows, 1), "recover", "rded")
        counts = planned.outline.counts
        assert row.calls == sum(math.ceil(min(n, 300) / 20) for n in counts)
        forward = chosen(at(planned, stats_rows, 1), "stats").flops / 100
        assert row.flops == pytest.approx(20 * 5 * forward, rel=0.2)

    def test_every_set_is_held_against_all_images(self, planned):
        row = chosen(at(planned, quality_rows, 1), "quality", "3 sets")
        total = int(planned.outline.counts.sum())
        assert row.calls == 3 * math.ceil(total / 1000)
        width = 64 + planned.features
        assert row.flops == pytest.approx(2 * 1000 * 1000 * width, rel=0.05)


class TestDevices:
    def test_squeeze_divides_its_batch(self, planned):
        one, four = (chosen(at(planned, squeeze_rows, n), "squeeze") for n in (1, 4))
        assert four.memory < one.memory and four.calls == one.calls
        assert four.seconds == pytest.approx(one.seconds / 4, rel=0.05)

    @pytest.mark.parametrize(("devices", "used"), [(7, 6), (16, 15), (500, 120)])
    def test_a_batch_goes_to_devices_that_divide_it(self, devices, used):
        assert divisor(120, devices) == used

    def test_hosts_refuse_a_batch_that_they_cannot_divide(self, planned):
        row = chosen(at(planned, squeeze_rows, 16), "squeeze")
        assert "squeeze.batch_size 120 cannot be divided over 16" in row.note
        assert "batches of 128" in row.what and row.note.endswith("128: set it.")
        assert row.calls == math.ceil(1437 / 128)
        told = plan.verdict([row], planned.machine)
        assert told.endswith(row.note)

    @pytest.mark.parametrize(
        ("students", "devices", "steps"), [(1, 1, 1), (1, 8, 5), (3, 4, 3)]
    )
    def test_what_students_do_not_take_goes_to_their_batch(
        self, planned, students, devices, steps
    ):
        config = planned.config.copy_and_resolve_references()
        config.evaluate.students = students
        made = planned._replace(config=config, known={})
        one = chosen(at(made, evaluate_rows, 1), "evaluate", "stored")
        many = chosen(at(made, evaluate_rows, devices), "evaluate", "stored")
        assert one.seconds / many.seconds == pytest.approx(steps, rel=0.15)

    def test_idle_devices_are_told(self, planned):
        row = chosen(at(planned, squeeze_rows, 7, devices_per_host=7), "squeeze")
        assert "a batch of 120 on 6 of 7 devices" in row.what

    @pytest.mark.parametrize(("devices", "waves"), [(1, 5), (2, 3), (4, 2), (8, 1)])
    def test_recover_has_as_many_waves_as_its_chunks_need(
        self, planned, devices, waves
    ):
        row = chosen(at(planned, recover_rows, devices), "recover", "wmdd")
        assert "5 chunks" in row.what
        steps = planned.config.methods.wmdd.num_steps
        assert row.calls == waves * steps
        assert row.seconds == pytest.approx(row.calls * row.flops / 1e9)

    def test_labels_and_stats_are_divided(self, planned):
        for make, part in ((relabel_rows, "stored"), (stats_rows, "features")):
            one, eight = at(planned, make, 1), at(planned, make, 8)
            (alone,) = (row for row in one if part in row.what)
            (shared,) = (row for row in eight if part in row.what)
            assert 1 < alone.calls / shared.calls <= 8
            assert shared.disk == alone.disk and shared.flops == alone.flops

    def test_students_of_a_cell_share_a_host(self, planned):
        one, host, hosts = (
            chosen(at(planned, evaluate_rows, n, devices_per_host=k), "evaluate", "sto")
            for n, k in ((1, 1), (4, 4), (8, 4))
        )
        assert one.calls == host.calls == hosts.calls
        assert host.seconds == pytest.approx(one.seconds / 4)
        assert hosts.seconds == pytest.approx(host.seconds / 2)
        assert one.least == pytest.approx(4 * hosts.least)  # side by side, or not
        assert host.memory < one.memory

    def test_no_number_of_hosts_trains_a_student_faster(self, planned):
        rows = at(planned, evaluate_rows, 8000)
        longest = max(row.least for row in rows)
        assert costs.seconds(rows, "evaluate") == pytest.approx(longest)

    @pytest.mark.parametrize("make", [squeeze_rows, recover_rows, evaluate_rows])
    def test_everything_is_in_proportion_to_the_rate(self, planned, make):
        slow, fast = at(planned, make, 4), at(planned, make, 4, tflops=2e-3)
        for one, other in zip(slow, fast, strict=True):
            assert one.seconds == pytest.approx(2 * other.seconds)


class TestInput:
    def test_the_constant_is_the_record(self):
        file = ROOT / "benchmarks" / "results" / "decode.json"
        (record,) = (
            r
            for r in json.loads(file.read_text())["records"]
            if r["set"] == "imagenette224"
            and (r["part"], r["by"]) == ("decode, resize_and_crop", "OpenCV")
        )
        assert record["pillow_us"] == pytest.approx(decoding.RECORD_US, rel=1e-4)

    def test_larger_files_take_longer(self, tmp_path):
        section = wmdd_imagenet1k.get_config().data
        section.folder = str(tmp_path)
        rate, source = decoding.rate(section, (224, 224, 3))
        assert rate == pytest.approx(1e6 / 973.3 * 224**2 / (387 * 469))
        assert "benchmarks/results/decode.json" in source
        section.name = "imagenet21k_p"
        assert decoding.rate(section, (224, 224, 3))[0] == pytest.approx(1e6 / 973.3)

    def test_time_is_images_over_cores(self, planned):
        machine = pod.here(1.0)._replace(devices=4, per_host=2, cores=3)
        streamed = planned._replace(
            machine=machine,
            decoding=10.0,
            outline=planned.outline._replace(streamed=True),
        )
        read = int(planned.outline.counts.sum())
        row = chosen(stats_rows(streamed), "input")
        assert row.seconds == pytest.approx(read / (3 * 10))  # ten classes: one host
        assert f"{read:,} images, for stats" in row.what
        assert not [r for r in stats_rows(planned) if r.stage == "input"]


class TestWholes:
    def test_squeeze_waits_for_the_slower_of_two(self):
        def row(stage, what, seconds):
            return costs.Row(stage, what, 1, 0.0, 0, 0, seconds)

        rows = [row("squeeze", "", 5.0), row("input", "9 images, for squeeze", 3.0)]
        rows += [row("stats", "", 1.0), row("input", "9 images, for stats", 2.0)]
        assert costs.total(rows) == 5 + 1 + 2
        rows[1] = rows[1]._replace(seconds=7.0)
        assert costs.total(rows) == 7 + 1 + 2
        assert costs.limit(rows, pod.here(1.0)) == "input, 60%"

    def test_memory_comes_before_time(self):
        rows = [costs.Row("recover", "", 1, 0.0, 900, 0, 1.0, host=200)]
        machine = pod.here(1.0)._replace(memory=1000, host_memory=100)
        assert costs.limit(rows, machine) == "memory of a host (recover)"
        machine = machine._replace(memory=10)
        assert costs.limit(rows, machine) == "memory of a device (recover)"

    def test_a_search_makes_all_but_students_once(self, planned, monkeypatch):
        config = planned.config.copy_and_resolve_references()
        config.evaluate.learning_rates = (1e-3, 1e-2, 1e-1)

        def work(made):
            held, images = made.config.data.holdout, int(made.outline.counts.sum())
            assert not held or not made.config.evaluate.learning_rates
            row = costs.Row("squeeze", f"{held}", images, 0.0, 0, 0, 1.0)
            stages = ("squeeze", "recover", "evaluate", "quality")
            return [row._replace(stage=stage, least=2.0) for stage in stages]

        monkeypatch.setattr(plan.costs, "work", work)
        rows = plan.everything(planned._replace(config=config))
        assert [row.stage for row in rows] == [
            *("squeeze", "recover", "evaluate"),  # and no look at the images
            *("squeeze", "recover", "evaluate", "quality"),
        ]
        images = int(planned.outline.counts.sum())
        held = sum(math.ceil(round(0.2 * n, 9)) for n in planned.outline.counts)
        assert [row.what for row in rows[:1]] == ["search of 3 rates: 0.2"]
        assert [row.calls for row in rows[1:4]] == [
            images - held,
            3 * (images - held),
            images,
        ]
        assert [row.seconds for row in rows[1:4]] == [1, 3, 1]
        assert rows[2].least == 6


class TestImageNet21K:
    @pytest.fixture
    def config(self, tmp_path):
        """With a tiny teacher and small images."""
        config = wmdd_imagenet21k.get_config()
        tiny = {"name": "convnet", "width": 4, "depth": 2, "norm": "batch"}
        with config.unlocked():
            config.data.folder = str(tmp_path)
            config.data.size = 16
            config.data.memory_gb = 1.0
            config.squeeze.model = dict(tiny)
            config.student.models.resnet18 = dict(tiny)
            config.evaluate.against = ("random",)
            config.evaluate.labels = ("online",)
        return config

    def test_published_size(self):
        size = published.SIZES["imagenet21k_p"]
        assert (size.classes, size.train, size.test) == (10_450, 11_060_223, 522_500)

    def test_stored_labels_are_too_many(self, config):
        with config.unlocked():
            config.evaluate.labels = ("stored",)
        made = plan.outlined(config)
        (machine,) = pod.machines({"devices": [256]}, made.machine.rate)
        made = made._replace(machine=machine)
        rows = relabel_rows(made) + evaluate_rows(made)
        # CDA's and others' tables have 643 GB for IPC 10, half of this.
        each = chosen(rows, "relabel").disk / 2
        assert each == 20 * 10_450 * 300 * 10_450 * 2
        assert each / 2 == pytest.approx(643e9, rel=0.03)
        row = chosen(rows, "evaluate", "stored")
        assert row.memory > each and costs.limit(rows, machine).startswith("memory of")

    def test_shown_for_pods(self, config, capsys):
        told = {"devices": [8, 256], "tflops": 10.0, "device_memory_gb": 80}
        plan.show(config, {**told, "host_memory_gb": 200})
        text = capsys.readouterr().out
        assert "10,450 classes" in text and "streamed from disk" in text
        assert "8, 256 devices of 10 TFLOP/s (as told) and 80 GB (as told)" in text
        assert "2 cores" not in text or "cores (as here) and 200 GB (as told)" in text
        table = [line for line in text.splitlines() if line.startswith("| ")]
        assert [line.split()[1] for line in table] == ["devices", "-------", "8", "256"]
        assert text.count("First bottleneck: input") == 2  # a tiny network waits


def test_shape_of_a_fixed_set_is_what_is_stored():
    assert decoding.stored_pixels(published.SIZES["cifar10"]) == 32 * 32
    assert inputs.outline(default.get_config("quick")).counts.sum() == 1437
    assert np.prod(published.SIZES["imagenet2012"].stored) == 387 * 469

"""The machines of a plan: what is told, what is as here, and what makes no sense."""

import os

import pytest
from absl.testing import flagsaver

from launch import pod


class TestMachines:
    def test_nothing_told_is_this_machine(self):
        (found,) = pod.machines({}, 5e9)
        assert found == pod.here(5e9)
        assert found.hosts == 1 and found.cores == os.cpu_count()

    def test_what_is_told_and_the_rest_as_here(self):
        told = {"devices": [4, 8, 256], "tflops": 13.5, "device_memory_gb": 24}
        small, one, large = pod.machines(told, 5e9)
        assert [m.hosts for m in (small, one, large)] == [1, 1, 32]
        assert [m.per_host for m in (small, one, large)] == [4, 8, 8]
        assert large.rate == 13.5e12 and large.memory == 24 * 10**9
        assert large.cores == os.cpu_count()
        assert large.host_memory == pytest.approx(pod.here(1.0).host_memory)
        assert large.side_by_side

    def test_hosts_of_another_size(self):
        told = {"devices": [16], "devices_per_host": 4, "cores_per_host": 100}
        (found,) = pod.machines(told, 5e9)
        assert found.hosts == 4 and found.cores == 100

    @pytest.mark.parametrize(
        ("told", "match"),
        [
            ({"devices": [12]}, r"--devices=12 are not of whole hosts with 8"),
            ({"devices": [8, 0]}, r"--devices must be above 0; got \[8, 0\]"),
            ({"tflops": -1.0}, r"--tflops must be above 0; got -1.0"),
            ({"devices_per_host": 4}, "--devices_per_host needs --devices"),
        ],
    )
    def test_impossible_machines_are_refused(self, told, match):
        with pytest.raises(ValueError, match=match):
            pod.machines(told, 5e9)


class TestFlags:
    def test_only_those_given(self):
        assert pod.told() == {}
        with flagsaver.flagsaver(devices=["8", "256"], tflops=2.5):
            assert pod.told() == {"devices": [8, 256], "tflops": 2.5}

    def test_devices_are_numbers(self):
        with (
            flagsaver.flagsaver(devices=["8", "many"]),
            pytest.raises(ValueError, match=r"--devices=8,many must be whole numbers"),
        ):
            pod.told()

    def test_useless_without_the_dry_run(self):
        pod.refuse()
        with (
            flagsaver.flagsaver(cores_per_host=3),
            pytest.raises(ValueError, match="--cores_per_host is only of --dry_run"),
        ):
            pod.refuse()

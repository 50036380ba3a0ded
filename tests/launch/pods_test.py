"""Two hosts of two devices make what one host makes, and end together."""

import os
import pathlib
import random
import shutil
import signal
import time

import numpy as np
import pytest

from configs import default
from ddjax import checkpoint
from launch import evaluate, squeeze
from tests.launch.resume_test import artifacts, only, scores, states

# Long enough to be disturbed; seven chunks for four devices, the last one ragged.
CHANGES = {
    "squeeze.epochs": 15,
    "methods.wmdd.num_steps": 600,
    "recover.ipc": (3,),
    "recover.batch_size": 3,
    "recipes.wmdd.epochs": 10,
    "evaluate.students": 2,
    "evaluate.against": ("random",),
    "evaluate.attacks": ("pgd10",),
    "evaluate.radii": (4.0,),
    "evaluate.attack_images": 50,
}
MADE = ("stats", "recover", "relabel")


def config_of(changes):
    config = default.get_config("quick")
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def pod(hosts, tmp_path_factory):
    """The workdir of two hosts that nothing disturbed; not to be changed."""
    folder = tmp_path_factory.mktemp("pod")
    hosts.start(folder / "work", folder / "log", CHANGES)
    codes = hosts.end()
    logs = [(folder / f"log{i}").read_text() for i in range(2)]
    assert codes == [0, 0], "\n".join(logs)
    return folder / "work", logs


class TestTogether:
    """What two hosts make."""

    def test_one_host_makes_the_same(self, pod, tmp_path):
        """Bit by bit, from the same teacher: all but students, and these' scores."""
        workdir, _ = pod
        shutil.copytree(workdir / "squeeze", tmp_path / "squeeze")
        evaluate.run(config_of(CHANGES), tmp_path)
        found = artifacts(workdir, *MADE)
        assert {stage for stage, _ in found} == set(MADE)
        assert found == artifacts(tmp_path, *MADE)
        assert scores(workdir) == scores(tmp_path) != {}
        attacked = artifacts(workdir, "attack")
        assert attacked == artifacts(tmp_path, "attack") and len(attacked) == 4

    @pytest.mark.parametrize("count", [1, 3, 8])
    def test_devices_do_not_matter(self, count, pod, lives, tmp_path):
        """Bit by bit, on one host with so many."""
        workdir, _ = pod
        shutil.copytree(workdir / "squeeze", tmp_path / "squeeze")
        options = {"module": "relabel", "hook": ("devices", count)}
        assert lives.run(tmp_path, tmp_path / "log", CHANGES, **options) == 0
        found = artifacts(tmp_path, *MADE)
        assert len(found) == 4 and found.items() <= artifacts(workdir, *MADE).items()

    def test_slurm_says_who_the_others_are(self, hosts, pod, tmp_path):
        """By its variables alone, on a node with two tasks; nothing is left to do."""
        job = str(random.randrange(1 << 12))
        told = {
            "SLURM_JOB_ID": job,
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NUM_NODES": "1",
        }
        own = [{**told, "SLURM_PROCID": f"{i}", "SLURM_LOCALID": f"{i}"} for i in "01"]
        shutil.copytree(pod[0], tmp_path / "work")
        hosts.start_in(own, tmp_path / "work", tmp_path / "log", CHANGES)
        assert hosts.end() == [0, 0], (tmp_path / "log0").read_text()
        assert "report: " in (tmp_path / "log0").read_text()

    @pytest.mark.parametrize("streamed", [False, True])
    def test_teacher_is_that_of_one_host_but_for_rounding(
        self, streamed, hosts, kept, tmp_path
    ):
        """A few steps whose batches lie on four devices, or two; kept, or streamed."""
        few = {"squeeze.epochs": 1, "squeeze.batch_size": 480}
        if streamed:  # each host decodes its own half of every batch
            few = {"squeeze.epochs": 2, "squeeze.batch_size": 20, "data.name": "mine"}
            few |= {"data.folder": kept, "data.size": 8, "data.memory_gb": 0.0}
        hosts.start(tmp_path / "pod", tmp_path / "log", few, module="squeeze")
        assert hosts.end() == [0, 0]
        squeeze.run(config_of(few), tmp_path / "one")
        wanted = checkpoint.load(only(tmp_path / "one", "squeeze"))
        found = checkpoint.load(only(tmp_path / "pod", "squeeze"))
        for name in wanted:
            np.testing.assert_allclose(
                found[name], wanted[name], rtol=1e-5, atol=1e-5, err_msg=name
            )

    def test_each_has_done_its_part(self, pod):
        """The second host too has trained students; only the first tells and reports."""
        workdir, logs = pod
        assert "report: " in logs[0] and "report: " not in logs[1]
        assert (workdir / "report" / "index.html").exists()
        assert list(workdir.glob("*/*/checkpoints")) == []
        assert list(workdir.glob("*/*/parts")) == []


class TestStopped:
    """One of them is killed or stopped: the other ends too, and nothing is lost."""

    @pytest.fixture(scope="class")
    @staticmethod
    def disturbed(hosts, tmp_path_factory):
        """A workdir that went through all this, and what happened on the way."""
        folder = tmp_path_factory.mktemp("disturbed")
        workdir, told = folder / "work", {}
        disturbances = [
            ("killed", signal.SIGKILL, 1, "squeeze", ""),
            ("coordinator", signal.SIGKILL, 0, "squeeze", ""),
            ("stopped early", signal.SIGTERM, 1, "squeeze", ""),
            ("stopped late", signal.SIGTERM, 1, "recover", "host1"),
            ("killed late", signal.SIGKILL, 1, "recover", "host0"),
        ]
        for name, number, whom, stage, whose in disturbances:
            often = {**CHANGES, "save_every_s": 0.2}
            before = newest(workdir, stage, whose)
            processes = hosts.start(workdir, folder / name, often)
            deadline = time.monotonic() + 400  # seconds, of a busy machine
            while newest(workdir, stage, whose) <= before:
                assert time.monotonic() < deadline, f"{name}: it came to nothing"
                time.sleep(0.01)
            os.kill(processes[whom], number)
            began = time.monotonic()
            codes = hosts.end()
            log = [(folder / f"{name}{i}").read_text() for i in range(2)]
            told[name] = codes, log, time.monotonic() - began
        hosts.start(workdir, folder / "log", CHANGES)
        assert hosts.end() == [0, 0], (folder / "log0").read_text()
        return workdir, told

    def test_result_is_that_of_an_undisturbed_run(self, disturbed, pod):
        """Bit by bit: teacher, statistics, images, labels, students."""
        workdir, _ = disturbed
        stages = ("squeeze", *MADE)
        assert artifacts(workdir, *stages) == artifacts(pod[0], *stages)
        assert scores(workdir) == scores(pod[0])

    @pytest.mark.parametrize("name", ["killed", "killed late"])
    def test_survivor_says_who_is_gone(self, name, disturbed):
        codes, log, seconds = disturbed[1][name]
        assert codes == [1, -signal.SIGKILL]
        assert "error: host 1 of 2 has given no sign of life for 5 s" in log[0]
        assert "it goes on from its last checkpoint" in log[0]
        assert seconds < 40

    def test_without_the_coordinator_the_other_ends_at_once(self, disturbed):
        codes, log, seconds = disturbed[1]["coordinator"]
        assert codes[0] == -signal.SIGKILL and codes[1] not in (0, None)
        assert "another task died" in log[1] or "host 0" in log[1]
        assert seconds < 40

    @pytest.mark.parametrize("name", ["stopped early", "stopped late"])
    def test_signal_to_one_stops_both(self, name, disturbed):
        """Each with its state saved, and with the code of a stopped program."""
        codes, log, seconds = disturbed[1][name]
        assert codes == [143, 143], log
        assert "goes on from step" in log[0] and seconds < 40


def newest(workdir, stage, whose):
    """The newest state of a host in a stage's unfinished folders; 0 without any."""
    folders = (workdir / stage).glob("*")
    unfinished = [f for f in folders if not (f / "manifest.json").exists()]
    steps = [step for f in unfinished for step in states(f, whose or "host0")]
    return max(steps, default=0)


class TestRefused:
    """What cannot work ends on both, and says why."""

    def test_batch_that_cannot_be_divided(self, hosts, tmp_path):
        changes = {"squeeze.batch_size": 30}
        hosts.start(tmp_path / "work", tmp_path / "log", changes, module="squeeze")
        assert hosts.end() == [1, 1]
        for i in range(2):
            log = pathlib.Path(f"{tmp_path / 'log'}{i}").read_text()
            assert "cannot be divided over 4 devices of 2 hosts" in log
            assert "such as 32" in log or "such as 28" in log

    def test_what_goes_wrong_on_one_is_said_by_all(self, hosts, tmp_path):
        """And in seconds, whatever the others are waiting for."""
        broken = ("fail_in", "launch.teachers", "read", "an image is damaged.")
        own = [{}, {"hook": broken}]
        hosts.start_each(own, tmp_path / "work", tmp_path / "log", module="squeeze")
        assert hosts.end() == [1, 1]
        logs = [(tmp_path / f"log{i}").read_text() for i in range(2)]
        assert "error: an image is damaged." in logs[1]
        assert "error: host 1 ended with: an image is damaged." in logs[0]

    def test_different_configs(self, hosts, tmp_path):
        own = [{}, {"flags": ["--config.seed=1"]}]
        hosts.start_each(own, tmp_path / "work", tmp_path / "log", module="stats")
        assert hosts.end() == [1, 1]
        assert "has another config" in (tmp_path / "log0").read_text()

    def test_different_folders(self, hosts, tmp_path):
        """Which looks like a late file at first."""
        late = ("set_in", "ddjax.checkpoint.late", "SECONDS", 1.0)
        own = [{}, {"hook": late, "flags": [f"--workdir={tmp_path / 'other'}"]}]
        hosts.start_each(own, tmp_path / "work", tmp_path / "log", module="stats")
        assert hosts.end() == [1, 1]
        assert "must share one work folder" in (tmp_path / "log0").read_text()

    @pytest.mark.parametrize(
        "flags",
        [
            ["--coordinator=127.0.0.1:1"],
            ["--num_processes=2", "--process_id=0"],
            ["--coordinator=127.0.0.1:1", "--num_processes=2"],
        ],
    )
    def test_flags_that_do_not_go_together(self, flags, lives, tmp_path):
        log = tmp_path / "log"
        assert lives.run(tmp_path / "work", log, module="squeeze", flags=flags) == 1
        assert "go together" in log.read_text()

    def test_no_cluster_to_be_found(self, lives, tmp_path):
        log = tmp_path / "log"
        flags = ["--distributed"]
        assert lives.run(tmp_path / "work", log, module="squeeze", flags=flags) == 1
        assert "error: cannot join the other hosts" in log.read_text()

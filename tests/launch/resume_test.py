"""An interrupted run goes on from where it was, and ends as if nothing had happened."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import signal
import time

import numpy as np
import pytest

from configs import default
from ddjax import checkpoint, loop
from ddjax import relabel as labels
from ddjax import stats as statistics
from launch import (
    evaluate,
    pictures,
    progress,
    recover,
    report,
    runs,
    squeeze,
    stats,
)
from launch import history as losses

STAGES = ("squeeze", "stats", "recover", "relabel", "evaluate")

# A few seconds for each stage; recover has two waves of chunks, of different sizes.
LONGER = {
    "squeeze.epochs": 40,
    "methods.wmdd.num_steps": 600,
    "recover.batch_size": 8,
    "recipes.wmdd.epochs": 900,
    "evaluate.against": ("wmdd/real",),
}
SHORTER = {
    "methods.wmdd.num_steps": 3,
    "recover.batch_size": 8,
    "evaluate.against": ("wmdd/real",),
}


def quick(changes):
    """The quick config with some fields changed."""
    config = default.get_config("quick")
    config.update_from_flattened_dict(changes)
    return config


def artifacts(workdir, *stages):
    """Checksum of every finished artifact by stage and folder."""
    return {
        (stage, path.parent.name): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in stages or STAGES
        for path in (workdir / stage).glob("*/artifact.npz")
    }


def scores(workdir):
    """Top-1 of every student by folder."""
    return {
        path.parent.name: json.loads(path.read_text())["record"]["top1"]
        for path in (workdir / "evaluate").glob("*/manifest.json")
    }


def states(folder, whose="host0"):
    """Steps of the states that were completely written to a stage's folder."""
    found = *folder.glob("checkpoints/*"), *folder.glob(f"checkpoints/{whose}/*")
    names = [path.name for path in found]
    return sorted(int(name) for name in names if name.isdecimal())


def history(workdir, stage):
    """The losses of the one folder of a stage."""
    return losses.read(only(workdir, stage))


def only(workdir, stage):
    """The one folder of a stage, or None."""
    return next((workdir / stage).glob("*"), None)


def until(condition, lives, seconds=400):
    """Waits for a condition, as long as the program runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert not lives.ended(), "it ended before it was due"
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


# Killed ------------------------------------------------------------------------------


def has_state(stage, after):
    """Whether a stage has a state beyond a step."""

    def reached(workdir):
        folder = only(workdir, stage)
        return folder is not None and max(states(folder), default=0) > after

    return reached


def has_begun(stage):
    """Whether a stage has a folder."""
    return lambda workdir: only(workdir, stage) is not None


MOMENTS = [
    ("squeeze", has_state("squeeze", 0)),
    ("squeeze", has_state("squeeze", 100)),
    ("recover", has_state("recover", 0)),
    ("recover", has_state("recover", 600)),  # in the second wave
    ("relabel", has_begun("relabel")),
    ("evaluate", has_state("evaluate", 0)),
    ("evaluate", has_state("evaluate", 300)),
]


@pytest.fixture(scope="module")
def uninterrupted(module_lives, tmp_path_factory):
    """The workdir of a run that nothing disturbed; not to be changed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    code = module_lives.run(folder / "work", folder / "log", LONGER)
    assert code == 0, (folder / "log").read_text()
    return folder / "work"


@pytest.fixture(scope="module")
def killed(module_lives, tmp_path_factory):
    """The workdir of a run that was killed at each of `MOMENTS`, and what it said.

    Returns:
      (workdir, the newest state at each kill, the log of the start after it).
    """
    folder = tmp_path_factory.mktemp("killed")
    workdir, newest, logs = folder / "work", [], []
    often = LONGER | {"save_every_s": 0.1}
    for number, (stage, reached) in enumerate(MOMENTS):
        logs.append(folder / f"log{number}")
        process = module_lives.start(workdir, logs[-1], often)
        try:
            until(functools.partial(reached, workdir), module_lives)
        finally:
            os.kill(process, signal.SIGKILL)
            module_lives.end()
        place = only(workdir, stage)
        assert not (place / "manifest.json").exists(), "killed too late"
        newest.append(max(states(place), default=0))
    logs.append(folder / "log")
    assert module_lives.run(workdir, logs[-1], LONGER) == 0, logs[-1].read_text()
    return workdir, newest, [log.read_text() for log in logs[1:]]


class TestKilled:
    """`kill -9` in the middle of every stage costs nothing but time."""

    def test_artifacts_are_those_of_an_uninterrupted_run(self, killed, uninterrupted):
        """Bit by bit: teacher, statistics, images and labels."""
        found = artifacts(killed[0], "squeeze", "stats", "recover", "relabel")
        assert {stage for stage, _ in found} == set(STAGES) - {"evaluate"}
        assert found == artifacts(
            uninterrupted, "squeeze", "stats", "recover", "relabel"
        )

    def test_scores_are_those_of_an_uninterrupted_run(self, killed, uninterrupted):
        """The same students, to the last digit."""
        assert scores(killed[0]) == scores(uninterrupted) != {}

    def test_history_has_no_gap(self, killed, uninterrupted):
        """The losses of all steps, those before the kill too."""
        for stage in ("squeeze", "recover"):
            assert history(killed[0], stage) == history(uninterrupted, stage)

    def test_run_goes_on_from_the_newest_state(self, killed):
        """Every start after a kill says from which step, and it is the last saved."""
        _, newest, logs = killed
        for (stage, _), step, log in zip(MOMENTS, newest, logs):
            assert (step > 0) == (stage != "relabel")  # it takes seconds: no states
            if stage in ("squeeze", "recover"):
                assert f"{stage} goes on from step {step}." in log

    def test_log_is_for_people(self, killed):
        """What orbax tells its developers is not in it."""
        for log in killed[2]:
            assert "orbax" not in log
            assert "CheckpointManager" not in log

    def test_nothing_temporary_is_left(self, killed):
        """No states, no parts, no half-written files."""
        workdir, _, _ = killed
        assert list(workdir.glob("*/*/checkpoints")) == []
        assert list(workdir.glob("*/*/parts")) == []
        assert list(workdir.glob("**/.*")) == [workdir / ".lock"]


class TestFinished:
    """What is finished is not made again."""

    def test_finished_stages_are_only_read(self, uninterrupted, monkeypatch):
        """The same config, here built in Python, finds all of a command's artifacts."""

        def forbidden(*arguments, **options):
            pytest.fail("a finished stage ran again")

        monkeypatch.setattr(loop, "run", forbidden)
        monkeypatch.setattr(labels, "soft_labels", forbidden)
        monkeypatch.setattr(statistics, "collect", forbidden)
        monkeypatch.setattr(statistics, "barycenters", forbidden)

        def written():
            paths = [p for stage in STAGES for p in (uninterrupted / stage).rglob("*")]
            return {p: p.stat().st_mtime_ns for p in paths if p.is_file()}

        before = written()
        records = evaluate.run(quick(LONGER), uninterrupted)
        assert [r["top1"] for r in records] == list(scores(uninterrupted).values())
        assert written() == before

    def test_leftovers_of_a_killed_write_are_removed(self, tmp_path):
        """A file that was being written when its process was killed."""
        stage = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        (stage.folder / ".metrics.jsonl.1").touch()
        stage.finish({"x": np.zeros(1)}, {})
        assert list(stage.folder.glob(".*")) == []


# Changed -----------------------------------------------------------------------------


class TestChanged:
    """Nothing stale is read, and nothing is overwritten."""

    @pytest.fixture(scope="class")
    @classmethod
    def two_teachers(cls, tmp_path_factory):
        """(workdir, artifacts of the first config, records of the second)."""
        workdir = tmp_path_factory.mktemp("two")
        evaluate.run(quick(SHORTER), workdir)
        first = artifacts(workdir)
        changed = quick({**SHORTER, "squeeze.weight_decay": 0.01})
        return workdir, first, evaluate.run(changed, workdir), changed

    def test_changed_teacher_gives_new_folders_downstream(self, two_teachers):
        """One more of everything, and the old ones as they were."""
        workdir, first, _, _ = two_teachers
        both = artifacts(workdir)
        assert {stage for stage, _ in first} == set(STAGES)
        assert first.items() <= both.items()
        for stage in STAGES:
            old = [name for where, name in first if where == stage]
            assert len([n for where, n in both if where == stage]) == 2 * len(old)

    def test_report_is_of_this_config_only(self, two_teachers):
        """Students of the other teacher are not pooled with this one's."""
        workdir, _, records, changed = two_teachers
        report.run(changed, workdir)
        written = report.records(workdir)["students"]
        once = [{k: v for k, v in r.items() if k not in runs.SHARED} for r in records]
        assert written == json.loads(json.dumps(once))

    def test_restored_teacher_sees_the_data_of_this_config(self, tmp_path):
        """Features of all images are not those of what a holdout leaves."""
        squeeze.run(quick({}), tmp_path)
        restore = {"squeeze.restore": str(only(tmp_path, "squeeze"))}
        for holdout in (0.0, 0.5):
            config = quick({**restore, "data.holdout": holdout})
            teacher = squeeze.run(config, tmp_path)
            seen = stats.collect(config, tmp_path, teacher)
            assert len(seen.features) == len(teacher.train.labels)


# Interrupted, in this process --------------------------------------------------------


@contextlib.contextmanager
def stopped_after(step):
    """Within, Ctrl-C comes as soon as a loop has made this many steps."""
    observe = progress.Monitor.__call__

    def watch(monitor, done, state, metrics):
        observe(monitor, done, state, metrics)
        if done == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(progress.Monitor, "__call__", watch)
        yield


class TestDamagedState:
    """A state that cannot be read is replaced by the one before."""

    @pytest.mark.parametrize("damaged", [1, 2])
    def test_damaged_state_is_passed_over(self, damaged, tmp_path, caplog):
        """With a warning; with no good state left, from the start. Same result."""
        caplog.set_level(logging.INFO, logger="absl")
        config = quick({"squeeze.epochs": 2, "save_every_s": 0.0})
        with stopped_after(9):
            squeeze.run(config, tmp_path / "stopped")
        folder = only(tmp_path / "stopped", "squeeze")
        assert states(folder) == [8, 9]
        for step in (9, 8)[:damaged]:
            for path in (folder / "checkpoints" / str(step)).rglob("*"):
                if path.is_file():
                    os.truncate(path, path.stat().st_size // 2)
        squeeze.run(config, tmp_path / "stopped")
        said = [record.getMessage() for record in caplog.records]
        warnings = [text for text in said if "cannot be read" in text]
        assert len(warnings) == damaged
        assert warnings[0].startswith(f"checkpoint 9 in {folder} cannot be read")
        assert "trying the one before" in warnings[0]
        assert ("squeeze goes on from step 8." in said) == (damaged == 1)
        squeeze.run(config, tmp_path / "whole")
        assert artifacts(tmp_path / "stopped") == artifacts(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a recovery that nothing disturbed; not to be changed."""
    workdir = tmp_path_factory.mktemp("whole")
    recover.run(quick(SHORTER), workdir)
    return workdir


class TestStudents:
    """A student that was stopped goes on, not from the start."""

    def test_student_goes_on_from_its_state(self, whole, tmp_path, monkeypatch):
        """The loop's first step is the one after the newest state."""
        workdir = tmp_path / "stopped"
        shutil.copytree(whole, workdir)
        config = quick({**SHORTER, "recipes.wmdd.epochs": 9, "save_every_s": 0.0})
        with stopped_after(5):
            evaluate.run(config, workdir)
        assert states(only(workdir, "evaluate")) == [4, 5]
        run, ranges = loop.run, []

        def watch(step, state, shared, private, steps, **options):
            ranges.append(steps)
            return run(step, state, shared, private, steps, **options)

        monkeypatch.setattr(loop, "run", watch)
        evaluate.run(config, workdir)
        assert ranges == [range(5, 9)]

    def test_another_number_of_students_goes_on(self, whole, tmp_path, monkeypatch):
        """A state of two students side by side is none of one alone."""
        config = quick({**SHORTER, "recipes.wmdd.epochs": 9, "save_every_s": 0.0})
        shutil.copytree(whole, tmp_path / "one")
        evaluate.run(config, tmp_path / "one")
        shutil.copytree(whole, tmp_path / "stopped")
        two = config.copy_and_resolve_references()
        two.evaluate.students = 2
        with monkeypatch.context() as patch, stopped_after(5):
            patch.setattr(evaluate.parallel, "groups", lambda count: [[*range(count)]])
            evaluate.run(two, tmp_path / "stopped")
        folder = (
            tmp_path / "stopped" / "evaluate" / only(tmp_path / "one", "evaluate").name
        )
        assert 5 in states(folder)
        evaluate.run(config, tmp_path / "stopped")
        found = scores(tmp_path / "stopped")
        assert scores(tmp_path / "one").items() <= found.items()


class TestWaves:
    """A recovery of several waves keeps those that are finished."""

    @pytest.fixture
    def stopped(self, whole, tmp_path):
        """A workdir with teacher and statistics, but no images yet."""
        workdir = tmp_path / "stopped"
        shutil.copytree(whole, workdir, ignore=shutil.ignore_patterns("recover"))
        return workdir

    @pytest.mark.parametrize("size", [8, 4], ids=lambda size: f"{size} images")
    @pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
    def test_another_number_of_devices_goes_on(
        self, before, after, size, stopped, tmp_path, monkeypatch
    ):
        """The images of an interrupted run do not depend on the devices of either.

        Chunks of 8 images leave a smaller one at the end; chunks of 4 are all alike,
        so that a state of one fits any other.
        """
        options = {"recover.batch_size": size, "save_every_s": 0.0}
        config, last = quick({**SHORTER, **options}), 4 if size == 8 else 7
        shutil.copytree(stopped, tmp_path / "whole")
        recover.run(config, tmp_path / "whole")
        monkeypatch.setattr(recover.parallel, "device_count", lambda: before)
        with stopped_after(last):  # the first step of the last wave
            recover.run(config, stopped)
        assert states(only(stopped, "recover")) == [last - 1, last]
        monkeypatch.setattr(recover.parallel, "device_count", lambda: after)
        recover.run(config, stopped)
        wanted = checkpoint.load(only(tmp_path / "whole", "recover"))
        found = checkpoint.load(only(stopped, "recover"))
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)

    def test_stop_while_drawing_costs_no_wave(self, whole, stopped, monkeypatch):
        """All waves are there: not a step is made again."""
        config = quick(SHORTER)

        def stop(*arguments):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pictures, "draw", stop)
            recover.run(config, stopped)

        def forbidden(*arguments, **options):
            pytest.fail("a finished wave ran again")

        monkeypatch.setattr(loop, "run", forbidden)
        recover.run(config, stopped)
        assert artifacts(stopped, "recover") == artifacts(whole, "recover")
        assert history(stopped, "recover") == history(whole, "recover")
        assert (only(stopped, "recover") / "curves.png").exists()

    def test_finished_wave_keeps_its_history(self, whole, stopped):
        """Also where it took less time than there is between two states."""
        with stopped_after(4):  # the first step of the second wave
            recover.run(quick(SHORTER), stopped)
        recover.run(quick(SHORTER), stopped)
        assert artifacts(stopped, "recover") == artifacts(whole, "recover")
        assert history(stopped, "recover") == history(whole, "recover")

    def test_damaged_wave_is_made_again(self, whole, stopped):
        """A wave's file that cannot be read is no better than none."""
        config = quick(SHORTER)
        with stopped_after(4):  # the first step of the second wave
            recover.run(config, stopped)
        path = next(only(stopped, "recover").rglob("rows*.npz"))
        os.truncate(path, path.stat().st_size // 2)
        recover.run(config, stopped)
        assert artifacts(stopped, "recover") == artifacts(whole, "recover")

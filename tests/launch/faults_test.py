"""Whatever ends a run, the same command goes on, to the same images and scores."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import time

import chex
import pytest

from ddjax import checkpoint
from launch import history

STAGES = ("squeeze", "stats", "recover", "relabel", "evaluate")
QUICK = {
    "methods.wmdd.num_steps": 3,
    "recover.batch_size": 8,
    "squeeze.epochs": 2,
    "recipes.wmdd.epochs": 3,
    "evaluate.against": "('wmdd/real',)",
    "evaluate.quality": False,
}
# Seconds for each stage that has a loop; recover has two waves, of different sizes.
SECONDS = QUICK | {
    "squeeze.epochs": 20,
    "methods.wmdd.num_steps": 100,
    "recipes.wmdd.epochs": 500,
}
KILLS = [*["squeeze"] * 6, *["stats"] * 2, *["recover"] * 7, *["relabel"] * 2]
KILLS += ["evaluate"] * 5


def results(workdir):
    """Checksums of all arrays by stage and folder, and the scores of the students."""
    arrays = {
        (stage, path.parent.name): hashlib.sha256(path.read_bytes()).hexdigest()
        for stage in STAGES
        for path in (workdir / stage).glob("*/artifact.npz")
    }
    records = {
        path.parent.name: json.loads(path.read_text())["record"]
        for path in (workdir / "evaluate").glob("*/manifest.json")
    }
    scores = {name: (r["top1"], r["students"]) for name, r in records.items()}
    return arrays, scores


def losses(workdir):
    """The histories of the loops by folder."""
    folders = [p.parent for p in workdir.glob(f"*/*/{history.FILE}")]
    return {folder.name: history.read(folder) for folder in folders}


def same(workdir, whole):
    """Whether what is finished in one workdir is what is in the other; not nothing."""
    found = [results(workdir)[0], results(workdir)[1], losses(workdir)]
    wanted = [results(whole)[0], results(whole)[1], losses(whole)]
    return found[0] != {} and all(a.items() <= b.items() for a, b in zip(found, wanted))


def leftovers(workdir):
    """What is not there when all stages are finished."""
    unfinished = ("checkpoints", "parts", "unreadable")
    found = [p for name in unfinished for p in workdir.glob(f"*/*/{name}")]
    return found + list(workdir.glob("*/*/.*"))


def only(workdir, stage):
    """The one folder of a stage."""
    (folder,) = (workdir / stage).iterdir()
    return folder


def states(folder, whose="host0"):
    """Steps of the states in a stage's folder."""
    found = *folder.glob("checkpoints/*"), *folder.glob(f"checkpoints/{whose}/*")
    names = [path.name for path in found]
    return sorted(int(name) for name in names if name.isdecimal())


def until(condition, lives=None, seconds=400):
    """Waits for a condition; False if the program has ended before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if lives is not None and lives.ended():
            return False
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
    return True


@pytest.fixture(scope="module")
def undisturbed(module_lives, tmp_path_factory):
    """Makes a run that nothing disturbs: (changes) -> workdir; not to be changed."""
    made = {}

    def run(changes):
        key = json.dumps(changes)
        if key not in made:
            workdir = made[key] = tmp_path_factory.mktemp("undisturbed") / "work"
            log = workdir.parent / "log"
            assert module_lives.run(workdir, log, changes) == 0, log.read_text()
        return made[key]

    return run


# Killed ------------------------------------------------------------------------------


def test_kills_at_random_moments_cost_nothing_but_time(lives, undisturbed, tmp_path):
    """Twenty and more, in all stages: images, labels, scores and losses are equal."""
    rng, workdir, log = random.Random(6), tmp_path / "work", tmp_path / "log"
    kills = 0
    for stage in KILLS:
        later = STAGES[STAGES.index(stage) :]

        def seen(later=later):
            return {
                (str(path), path.stat().st_mtime_ns)
                for name in later
                for path in (workdir / name).glob("*")
            }

        before = seen()
        process = lives.start(workdir, log, SECONDS | {"save_every_s": 0.02})
        if not until(lambda before=before, seen=seen: seen() != before, lives):
            break
        time.sleep(rng.choice([rng.uniform(0, 0.05), rng.uniform(0.05, 0.3)]))
        if lives.ended():
            break
        os.kill(process, signal.SIGKILL)
        assert lives.end() == -signal.SIGKILL
        kills += 1
    assert kills >= 20, f"the run was finished after {kills} kills"
    assert lives.run(workdir, log, SECONDS) == 0, log.read_text()
    whole = undisturbed(SECONDS)
    assert results(workdir) == results(whole)
    assert losses(workdir) == losses(whole)
    assert leftovers(workdir) == []
    assert "cannot be read" not in log.read_text()


def test_kill_at_any_write_costs_nothing_but_time(lives, tmp_path):
    """Before each call that makes a file last, appear or go: part, state, artifact."""

    def made(workdir):
        return checkpoint.load(only(workdir, "toy")), losses(workdir)

    log, code, count = tmp_path / "log", None, 0
    assert lives.run(tmp_path / "0", log, module="toy") == 0, log.read_text()
    while code != 0:
        count += 1
        workdir = tmp_path / str(count)
        code = lives.run(workdir, log, module="toy", hook=("die_at", count))
        assert code in (0, -signal.SIGKILL), log.read_text()
        assert lives.run(workdir, log, module="toy") == 0, log.read_text()
        chex.assert_trees_all_equal(made(workdir), made(tmp_path / "0"))
        assert leftovers(workdir) == []
    assert count > 20
    assert "cannot be read" not in log.read_text()


def test_kills_at_many_writes_cost_nothing_but_time(lives, undisturbed, tmp_path):
    """The same for the whole pipeline, in one folder, ever later."""
    workdir, log, count, code = tmp_path / "work", tmp_path / "log", 0, None
    changes = QUICK | {"save_every_s": 0.0}
    while code != 0:
        count += 29
        code = lives.run(workdir, log, changes, hook=("die_at", count))
        assert code in (0, -signal.SIGKILL), log.read_text()
    assert count > 50
    whole = undisturbed(QUICK)
    assert results(workdir) == results(whole)
    assert losses(workdir) == losses(whole)
    assert leftovers(workdir) == []


# No room -----------------------------------------------------------------------------


class TestDisk:
    """A full or read-only disk is one line of error, and nothing finished is lost."""

    @pytest.fixture
    def disk(self, lives, tmp_path):
        """A workdir that is a disk of 16 MiB; seen by `lives` alone."""
        workdir = tmp_path / "work"
        workdir.mkdir()
        lives.unshare()
        lives.shell(f"mount -t tmpfs -o size=16m tmpfs {workdir}")
        return workdir

    def leave(self, lives, disk, kilobytes):
        """Fills the disk but for some room."""
        free = int(lives.shell(f"df --output=avail -k {disk} | tail -1"))
        count = free - kilobytes
        lives.shell(f"dd if=/dev/zero of={disk}/ballast bs=1k count={count}")

    def error(self, log):
        """The one line of error at the end of a log."""
        lines = log.read_text().strip().splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        assert "Traceback" not in log.read_text()
        return lines[-1]

    @pytest.mark.parametrize(
        "save_every_s, message",
        [(0.0, "cannot write a state to .*No space left"), (60, "cannot write .*npz")],
        ids=["state", "artifact"],
    )
    def test_full_disk(self, save_every_s, message, lives, disk, undisturbed, tmp_path):
        """Also after more room was made: by a larger disk."""
        changes, log = QUICK | {"save_every_s": save_every_s}, tmp_path / "log"
        self.leave(lives, disk, 12)
        assert lives.run(disk, log, changes, module="squeeze") == 1
        error = self.error(log)
        assert re.search(message, error) and "ake room" in error
        lives.shell(f"mount -o remount,size=64m {disk}")
        assert lives.run(disk, log, changes, module="squeeze") == 0, log.read_text()
        self.compare(lives, disk, undisturbed, tmp_path)

    def test_what_was_finished_is_kept(self, lives, disk, undisturbed, tmp_path):
        log = tmp_path / "log"
        assert lives.run(disk, log, QUICK, module="squeeze") == 0
        self.leave(lives, disk, 8)
        assert lives.run(disk, log, QUICK, module="recover") == 1
        assert "cannot write" in self.error(log) and "stats" in self.error(log)
        lives.shell(f"rm {disk}/ballast")
        log.unlink()
        assert lives.run(disk, log, QUICK, module="recover") == 0, log.read_text()
        assert "teacher: " not in log.read_text()  # it was not trained again
        self.compare(lives, disk, undisturbed, tmp_path)

    def compare(self, lives, disk, undisturbed, tmp_path):
        lives.shell(f"cp -a {disk} {tmp_path}/copy")
        assert same(tmp_path / "copy", undisturbed(QUICK))
        assert leftovers(tmp_path / "copy") == []

    def test_read_only_disk_is_refused_before_any_work(self, lives, disk, tmp_path):
        lives.shell(f"mount -o remount,ro {disk}")
        assert lives.run(disk, tmp_path / "log", QUICK) == 1
        text = (tmp_path / "log").read_text()
        assert text == (
            f"error: cannot write to the work folder {disk}: Read-only file system. "
            "Choose another one with --workdir=PATH.\n"
        )


# Signals -----------------------------------------------------------------------------


class TestSignals:
    """A stop that was asked for saves the state first."""

    @pytest.mark.parametrize(
        "stage, number, code",
        [
            ("squeeze", signal.SIGTERM, 143),
            ("recover", signal.SIGINT, 130),
            ("evaluate", signal.SIGTERM, 143),
        ],
    )
    def test_loop_saves_its_state(
        self, stage, number, code, lives, undisturbed, tmp_path
    ):
        """And goes on from there, to the same result."""
        workdir, log = tmp_path / "work", tmp_path / "log"
        shutil.copytree(undisturbed(SECONDS), workdir)
        for later in STAGES[STAGES.index(stage) :]:
            shutil.rmtree(workdir / later)
        process = lives.start(workdir, log, SECONDS, module=stage)
        assert until(
            lambda: any(p.read_text() for p in workdir.glob(f"{stage}/*/*.jsonl")),
            lives,
        )
        os.kill(process, number)
        assert lives.end() == code
        (step,) = states(only(workdir, stage))
        last = log.read_text().splitlines()[-1]
        assert last == (
            f"stopped by {number.name}. {stage} goes on from step {step} with the same "
            "command."
        )
        log.unlink()
        assert lives.run(workdir, log, SECONDS, module=stage) == 0, log.read_text()
        if stage != "evaluate":
            assert f"{stage} goes on from step {step}." in log.read_text()
        assert same(workdir, undisturbed(SECONDS))

    def test_students_beside_each_other_save_theirs(self, lives, tmp_path):
        """Both go on from there, to what they are one after another."""
        changes = SECONDS | {"evaluate.against": "('random', 'herding')"}
        changes |= {"recipes.wmdd.epochs": 700}
        alone, both = tmp_path / "alone", tmp_path / "both"
        log, hook = tmp_path / "log", ("threads", 2)
        assert lives.run(alone, log, changes, hook=("threads", 1)) == 0, log.read_text()
        shutil.copytree(alone, both)
        shutil.rmtree(both / "evaluate")

        def training():
            kept = (path.stat().st_size > 0 for path in both.glob("evaluate/*/*.jsonl"))
            return sum(kept) == 2

        process = lives.start(both, log, changes, hook=hook)
        assert until(training, lives), log.read_text()
        os.kill(process, signal.SIGTERM)
        assert lives.end() == 143, log.read_text()
        saved = [len(states(x)) for x in (both / "evaluate").iterdir()]
        assert saved.count(1) == 2  # the third may have ended before, or not have begun
        assert "evaluate goes on from step" in log.read_text().splitlines()[-1]
        assert lives.run(both, log, changes, hook=hook) == 0, log.read_text()
        assert same(both, alone)
        assert len(results(both)[1]) == 3 and not leftovers(both)

    @pytest.mark.parametrize(
        "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
    )
    def test_without_a_loop_it_ends_at_once(self, number, code, lives, tmp_path):
        workdir, log, flag = tmp_path / "work", tmp_path / "log", tmp_path / "flag"
        hook = ("sleep_in", "launch.squeeze", "run", str(flag))
        process = lives.start(workdir, log, QUICK, hook=hook)
        until(flag.exists)
        os.kill(process, number)
        assert lives.end() == code
        assert log.read_text().strip() == (
            f"stopped by {number.name}. The same command goes on from the last "
            "checkpoint."
        )

    def test_a_second_signal_ends_it_at_once(self, lives, tmp_path):
        """Here in a step that never ends, to which the first cannot come."""
        workdir, log, flag = tmp_path / "work", tmp_path / "log", tmp_path / "flag"
        hook = ("sleep_in", "launch.progress", "Monitor.__call__", str(flag))
        process = lives.start(workdir, log, QUICK, hook=hook)
        until(flag.exists)
        os.kill(process, signal.SIGINT)
        time.sleep(0.2)
        assert not lives.ended()
        os.kill(process, signal.SIGTERM)
        assert lives.end() == -signal.SIGTERM


# Two runs ----------------------------------------------------------------------------


def test_second_run_in_a_workdir_is_refused(lives, more_lives, tmp_path):
    """It says who is there; a killed one is nobody."""
    workdir, log, other = tmp_path / "work", tmp_path / "log", tmp_path / "other"
    flag = tmp_path / "flag"
    hook = ("sleep_in", "launch.squeeze", "run", str(flag))
    process = lives.start(workdir, log, QUICK, hook=hook)
    until(flag.exists)
    assert more_lives.run(workdir, other, QUICK) == 1
    (line,) = other.read_text().splitlines()
    assert line.startswith(f"error: another program runs in {workdir}: ")
    assert f"process {process}, since 20" in line and "launch.evaluate" in line
    assert line.endswith("choose another folder with --workdir=PATH.")
    assert more_lives.run(tmp_path / "another", other, QUICK, module="squeeze") == 0
    os.kill(process, signal.SIGKILL)
    lives.end()
    assert more_lives.run(workdir, other, QUICK, module="squeeze") == 0


def test_dry_run_needs_no_lock(lives, more_lives, tmp_path):
    """It writes nothing."""
    workdir, log, flags = tmp_path / "work", tmp_path / "log", ["--dry_run"]
    runs, plans = tmp_path / "runs", tmp_path / "plans"
    hook = ("sleep_in", "launch.squeeze", "run", str(runs))
    process = lives.start(workdir, log, hook=hook)
    until(runs.exists)
    hook = ("sleep_in", "launch.plan", "show", str(plans))
    other = more_lives.start(workdir, log, hook=hook, flags=flags)
    until(plans.exists)
    for each in (process, other):
        os.kill(each, signal.SIGKILL)
    assert {lives.end(), more_lives.end()} == {-signal.SIGKILL}


def test_changed_config_is_a_new_run(lives, undisturbed, tmp_path):
    """The unfinished one is named, and as it was when its config comes back."""
    workdir, log = tmp_path / "work", tmp_path / "log"
    often = SECONDS | {"save_every_s": 0.0}
    process = lives.start(workdir, log, often, module="squeeze")
    assert until(lambda: len(list(workdir.glob("squeeze/*/checkpoints/*"))) > 1, lives)
    os.kill(process, signal.SIGTERM)
    assert lives.end() == 143
    folder = only(workdir, "squeeze")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    log.unlink()
    assert lives.run(workdir, log, QUICK, module="squeeze") == 0
    told = f"{folder} is unfinished, of another config; it is left alone.\n"
    assert log.read_text().count(told) == 1
    assert "goes on from" not in log.read_text()
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    shutil.rmtree(folder)
    assert same(workdir, undisturbed(QUICK))

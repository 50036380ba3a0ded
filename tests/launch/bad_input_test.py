"""Bad input ends in one line that says what came, what is known, and what to do."""

import contextlib
import errno
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs import default
from ddjax import checkpoint, data
from launch import (
    command,
    evaluate,
    program,
    progress,
    recover,
    relabel,
    squeeze,
    stats,
)

ROOT = pathlib.Path(__file__).parents[2]


def quick(changes=None):
    """The quick config with some fields changed, or added."""
    config = default.get_config("quick")
    with config.unlocked():
        for field, value in (changes or {}).items():
            section, _, name = field.rpartition(".")
            part = config
            for step in filter(None, section.split(".")):
                part = part[step]
            part[name] = value
    return config


def refused(call, *arguments, match):
    """The message of the ValueError that `call` must raise: one line, like `match`."""
    with pytest.raises(ValueError, match=match) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leftovers(folder):
    """Temporary files."""
    return sorted(path.name for path in pathlib.Path(folder).rglob(".*"))


@contextlib.contextmanager
def limited_files():
    """Within, no file of this process can grow beyond 256 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def untrained(monkeypatch):
    """Fails the test as soon as a teacher is trained."""

    def train(*arguments):
        pytest.fail("training began before the config was checked")

    monkeypatch.setattr(squeeze, "_teach", train)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a finished teacher of the quick config; not to be changed."""
    workdir = tmp_path_factory.mktemp("teacher")
    squeeze.run(quick(), workdir)
    return next((workdir / "squeeze").iterdir())


@pytest.fixture
def own_teacher(teacher, tmp_path):
    """A copy of the teacher's folder, in <tmp_path>/work, to be damaged."""
    return shutil.copytree(teacher, tmp_path / "work" / "squeeze" / teacher.name)


class TestConfig:
    """Every mistake in a config is found before anything is trained."""

    @pytest.mark.parametrize("stage", [stats, recover, relabel, evaluate])
    @pytest.mark.parametrize("ipc", [0, 10_000])
    def test_impossible_ipc_is_refused(self, stage, ipc, untrained, tmp_path):
        """More images than the smallest class has, or none at all."""
        config = quick({"recover.ipc": (2, ipc)})
        message = refused(
            stage.run, config, tmp_path, match=rf"ipc must lie in 1..\d+; got {ipc}\."
        )
        assert "smallest class of digits" in message

    @pytest.mark.parametrize("stage", [recover, evaluate])
    @pytest.mark.parametrize(
        "changes, came, known",
        [
            ({"recover.method": "wmd"}, "unknown arm 'wmd/real'", "sre2l.*wmdd"),
            (
                {"recover.start": "nois"},
                "unknown arm 'wmdd/nois'",
                "noise, real, random",
            ),
            ({"data.name": "digit"}, "unknown data set 'digit'", "known: digits"),
            (
                {"squeeze.model.name": "resnet19"},
                "unknown model 'resnet19'",
                "known: convnet, resnet18",
            ),
            (
                {"student.models.convnet.name": "conv"},
                "unknown model 'conv'",
                "known: convnet, resnet18",
            ),
            (
                {"squeeze.model.widht": 8},
                "model 'convnet' has no option 'widht'",
                "known: .*width",
            ),
            (
                {"methods.wmdd.bn_wieght": 1.0},
                "method 'wmdd' has no option 'bn_wieght'",
                "known: .*bn_weight",
            ),
            (
                {"methods.wmdd.layout": "class"},
                "unknown layout 'class'",
                "known: classes, images",
            ),
            ({"stats.solver": "lpp"}, "unknown stats.solver 'lpp'", "lp, sinkhorn"),
            ({"stats.weights": "unifrm"}, "'unifrm'", "uniform.*learned.*voronoi"),
            ({"squeeze.optimizer": "sdg"}, "optimizer 'sdg'", "known: sgd, adamw"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_unknown_name_is_refused(
        self, stage, changes, came, known, untrained, tmp_path
    ):
        """The message names what came and what is known."""
        refused(stage.run, quick(changes), tmp_path, match=f"{came}.*{known}")

    @pytest.mark.parametrize(
        "changes, came, known",
        [
            (
                {"evaluate.against": ("random", "herdin")},
                "unknown arm 'herdin'",
                "random, herding, kcenter, kmeans, rded",
            ),
            (
                {"evaluate.against": ("random/noise",)},
                "unknown arm 'random/noise'",
                "random, herding, kcenter, kmeans, rded",
            ),
            ({"evaluate.labels": ("sot",)}, "labels 'sot'", "hard, single, .*stored"),
            ({"evaluate.recipes": ("wmd",)}, "recipe 'wmd'", "wmdd, rded"),
            ({"evaluate.models": ("resnet",)}, "models 'resnet'", "convnet"),
            ({"recipes.wmdd.optimizer": "lars"}, "optimizer 'lars'", "adamw, adam"),
            ({"recipes.wmdd.mix": "mixed"}, "mix 'mixed'", "cutmix, none"),
            ({"recipes.wmdd.dsa": "colour"}, "operator 'colour'", "color, crop"),
            ({"recipes.wmdd.patch_shuffle": 3}, "patch_shuffle 3", "8x8; 1 leaves"),
            (
                {"evaluate.attacks": ("pdg100",)},
                "attack 'pdg100'",
                "autoattack.*square",
            ),
            ({"evaluate.against": ("random+flat",)}, "teacher 'flat'", "teachers has"),
            ({"squeeze.curvature.form": "bent"}, "curvature 'bent'", "hessian_norm"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_unknown_comparison_is_refused(
        self, changes, came, known, untrained, tmp_path
    ):
        """An arm or a kind of labels that there is not."""
        refused(evaluate.run, quick(changes), tmp_path, match=f"{came}.*{known}")

    @pytest.mark.parametrize("fraction", [1.5, -0.5])
    def test_impossible_holdout_is_refused(self, fraction, untrained, tmp_path):
        """A share that is none."""
        config = quick({"data.holdout": fraction})
        refused(recover.run, config, tmp_path, match=rf"\(0, 1\); got {fraction}")

    @pytest.mark.parametrize("stage", [squeeze, recover, evaluate])
    def test_workdir_that_cannot_be_written_is_refused(
        self, stage, untrained, tmp_path
    ):
        """The message names the folder and the flag."""
        file = tmp_path / "file"
        file.touch()
        message = refused(
            stage.run,
            quick(),
            file / "sub",
            match=f"cannot write to the work folder {file}/sub.*: Not a directory",
        )
        assert message.endswith("Choose another one with --workdir=PATH.")


class TestData:
    """A data set with holes does not get past the door."""

    def test_class_without_images_is_refused(self, tiny_info):
        """The message counts and names the classes."""
        refused(
            data.class_major,
            np.zeros((4, 8, 8, 3), np.uint8),
            [0, 0, 2, 2],
            tiny_info,
            match=r"tiny: 1 of 3 classes have no images: 1 \(b\)\. Add images, or",
        )

    @pytest.mark.parametrize("label", [-1, 3])
    def test_label_out_of_range_is_refused(self, label, tiny_info):
        """The message says which label, and the range."""
        refused(
            data.class_major,
            np.zeros((4, 8, 8, 3), np.uint8),
            [0, 1, 2, label],
            tiny_info,
            match=rf"tiny: label {label} is out of range; 3 classes .* in 0\.\.2",
        )

    def test_unknown_split_is_refused(self):
        """There are two."""
        refused(data.load, "digits", "val", match="'val'; known: train, test")


class TestTeacher:
    """A teacher from elsewhere is used only where it fits."""

    def restored(self, folder, tmp_path, changes=None):
        return quick({"squeeze.restore": str(folder), **(changes or {})}), tmp_path

    def rename_classes(self, folder, names):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["record"]["classes"] = names
        del manifest["own_sha256"]  # as if it were an old one
        path.write_text(json.dumps(manifest))

    def test_finished_teacher_is_taken(self, teacher, untrained, tmp_path):
        """Its variables are those that were stored."""
        found = squeeze.run(*self.restored(teacher, tmp_path))
        stored = checkpoint.load(teacher)
        got = checkpoint.flatten(found.variables)
        assert set(got) == set(stored)
        for name, array in stored.items():
            np.testing.assert_array_equal(got[name], array)

    @pytest.mark.parametrize(
        "names, match",
        [
            (list("abcdefghij"), r"10 other classes: label 0 is \['a'\] there and"),
            (list("01234"), r"5 other classes: label 5 is \[\] there and \['5'\]"),
            (list("0213456789"), r"same classes in another order: label 1 is \['2'\]"),
        ],
        ids=["other", "fewer", "order"],
    )
    def test_teacher_of_other_classes_is_refused(
        self, names, match, own_teacher, untrained, tmp_path
    ):
        """The message names the first difference and says how to go on."""
        self.rename_classes(own_teacher, names)
        message = refused(
            squeeze.run, *self.restored(own_teacher, tmp_path), match=match
        )
        assert str(own_teacher) in message
        assert "leave squeeze.restore empty" in message

    def test_teacher_of_another_network_is_refused(self, teacher, untrained, tmp_path):
        """The message names the arrays that do not fit."""
        changes = {"squeeze.model.width": 4}
        refused(
            squeeze.run,
            *self.restored(teacher, tmp_path, changes),
            match=r"arrays do not fit: .*\(.*8.*\) instead of \(.*4.*\)",
        )

    @pytest.mark.parametrize("kind", ["missing", "unfinished", "file"])
    def test_folder_without_teacher_is_refused(
        self, kind, own_teacher, untrained, tmp_path
    ):
        """No such folder, a stage that was not finished, or no folder at all."""
        folder = {"missing": tmp_path / "nothing", "unfinished": own_teacher}.get(
            kind, own_teacher / "manifest.json"
        )
        if kind == "unfinished":
            (own_teacher / "manifest.json").unlink()
        refused(
            squeeze.run,
            *self.restored(folder, tmp_path),
            match=f"no finished artifact in {folder}",
        )

    def test_artifact_of_another_stage_is_refused(
        self, own_teacher, untrained, tmp_path
    ):
        """What names no classes is no teacher."""
        stage = checkpoint.Stage(tmp_path, "relabel", "some", {})
        stage.finish({"logits": np.zeros(3)}, {"seconds": 0})
        refused(
            squeeze.run,
            *self.restored(stage.folder, tmp_path),
            match=f"{stage.folder} holds no teacher",
        )


class TestLoss:
    """A loss that is not finite stops the run; what is good stays."""

    def test_bad_loss_names_the_step_and_keeps_the_state(self, tmp_path):
        """Step 4 is bad, so step 3 is what can be restored."""
        stage = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        with progress.bar("test", 9) as bar:
            monitor = progress.Monitor(stage, bar, 9, 0, save_every_s=0)
            for step in (1, 2, 3):
                state = {"x": np.full(2, step, np.float32)}
                monitor(step, state, {"loss": np.array([0.5]), "term": np.array([1.0])})
            bad = {"loss": np.array([0.5]), "term": np.array([np.inf])}
            message = refused(
                monitor,
                4,
                {"x": np.zeros(2, np.float32)},
                bad,
                match=r"not finite at step 4 \(loss 0\.5, term inf\)",
            )
        stage.close()
        assert str(stage.folder) in message
        assert "lower the learning rate" in message
        again = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        done, state = again.restore({"x": np.zeros(2, np.float32)})
        again.close()
        assert done == 3
        np.testing.assert_array_equal(state["x"], [3, 3])

    def test_one_bad_student_of_several_is_found(self, tmp_path):
        """Losses of students side by side, or of chunks, are [k, steps]."""
        stage = checkpoint.Stage(tmp_path, "evaluate", "student", {})
        losses = np.ones((2, 3))
        losses[1, 1] = np.nan
        with progress.bar("test", 6) as bar:
            monitor = progress.Monitor(stage, bar, 6, 3, save_every_s=60)
            refused(
                monitor, 6, {}, {"loss": losses}, match=r"not finite at step 5 \(loss"
            )

    @pytest.mark.parametrize("rate", [1e30, float("nan")])
    def test_training_that_diverges_leaves_no_bad_state(
        self, rate, tmp_path, monkeypatch
    ):
        """A step whose loss is finite may still spoil the parameters."""
        states = {}
        save = checkpoint.Stage.save

        def keep(stage, step, state, name):
            leaves = checkpoint.flatten(state).values()
            states[step] = all(np.isfinite(x).all() for x in leaves)
            save(stage, step, state, name)
            stage.close()

        monkeypatch.setattr(checkpoint.Stage, "save", keep)
        config = quick({"squeeze.learning_rate": rate, "save_every_s": 0.0})
        message = refused(
            squeeze.run, config, tmp_path, match=r"not finite at step \d+ \(loss"
        )
        bad = int(re.search(r"at step (\d+)", message)[1])
        folder = next((tmp_path / "squeeze").iterdir())
        assert str(folder) in message
        assert all(step < bad for step in states)
        assert all(states.values())
        assert not (folder / "manifest.json").exists()


class TestDisk:
    """What is damaged is named, and nothing is overwritten."""

    def test_truncated_artifact_is_refused(self, own_teacher, untrained):
        """The message names file and folder; the file is left as it is."""
        path = own_teacher / "artifact.npz"
        os.truncate(path, path.stat().st_size // 2)
        before = path.read_bytes()
        message = refused(
            squeeze.run,
            quick(),
            own_teacher.parents[1],
            match=f"{path} is damaged .*Put back a copy, or remove the folder",
        )
        assert f"folder {own_teacher} " in message
        assert path.read_bytes() == before

    def test_missing_artifact_is_refused(self, own_teacher, untrained):
        """A manifest alone is not enough."""
        (own_teacher / "artifact.npz").unlink()
        refused(
            squeeze.run,
            quick(),
            own_teacher.parents[1],
            match="artifact.npz is damaged .*remove the folder",
        )

    @pytest.mark.parametrize("kept", [0, 0.5])
    def test_truncated_manifest_is_refused(self, kept, own_teacher, untrained):
        """Cut in the middle, or empty; the file is left as it is."""
        path = own_teacher / "manifest.json"
        os.truncate(path, int(kept * path.stat().st_size))
        before = path.read_bytes()
        refused(
            squeeze.run,
            quick(),
            own_teacher.parents[1],
            match=f"{path} is damaged.*remove the folder {own_teacher} ",
        )
        assert path.read_bytes() == before

    def test_manifest_without_its_fields_is_refused(self, own_teacher, untrained):
        """JSON, but not what `finish` writes."""
        (own_teacher / "manifest.json").write_text("{}")
        workdir = own_teacher.parents[1]
        refused(squeeze.run, quick(), workdir, match="manifest.json is damaged")

    @pytest.mark.parametrize("file", ["artifact.npz", "manifest.json"])
    def test_full_disk_at_the_rename_keeps_the_old(self, file, tmp_path, monkeypatch):
        """The old artifact survives, and no temporary file is left."""
        stage = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        stage.finish({"x": np.arange(3)}, {"old": True})
        replace = os.replace

        def full(source, target):
            if pathlib.Path(target).name == file:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        monkeypatch.setattr(os, "replace", full)
        refused(
            stage.finish,
            {"x": np.arange(3)},
            {"old": False},
            match=f"cannot write {stage.folder / file}: No space left on device.*room",
        )
        monkeypatch.undo()
        np.testing.assert_array_equal(stage.load()["x"], np.arange(3))
        assert stage.record() == {"old": True}
        assert leftovers(tmp_path) == []

    def test_full_disk_in_the_middle_of_a_file_keeps_the_old(self, tmp_path):
        """As above; here the system itself refuses to write."""
        stage = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        stage.finish({"x": np.arange(3)}, {"old": True})
        with limited_files():
            refused(
                stage.finish,
                {"x": np.zeros(1_000_000)},
                {"old": False},
                match=f"cannot write {stage.folder}.artifact.npz: .*make room",
            )
        np.testing.assert_array_equal(stage.load()["x"], np.arange(3))
        assert leftovers(tmp_path) == []

    def test_full_disk_while_a_state_is_saved(self, tmp_path):
        """A state that cannot be kept stops the run in the same way."""
        stage = checkpoint.Stage(tmp_path, "squeeze", "teacher", {})
        noise = np.random.default_rng(0).random(1_000_000)

        def save():
            stage.save(1, {"x": noise})
            stage.close()

        with limited_files():
            refused(save, match=f"cannot write .*{stage.folder}.*room")

    def test_full_disk_ends_a_stage_and_it_can_be_run_again(
        self, teacher, tmp_path, monkeypatch
    ):
        """Nothing half written is taken for a finished teacher."""

        def full(source, target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        refused(squeeze.run, quick(), tmp_path, match="cannot write .*No space left")
        assert leftovers(tmp_path) == []
        monkeypatch.undo()
        squeeze.run(quick(), tmp_path)
        folder = tmp_path / "squeeze" / teacher.name
        assert (folder / "artifact.npz").read_bytes() == (
            teacher / "artifact.npz"
        ).read_bytes()


COMMANDS = {
    "field": ("configs/default.py:quick", "--config.recover.ipcs=3"),
    "value": ("configs/default.py:quick", "--config.squeeze.epochs=many"),
    "argument": ("configs/default.py:quik",),
    "file": ("configs/nothing.py",),
    "method": ("configs/default.py:quick", "--config.recover.method=wmd"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(exit status, stderr) of every command; all run at the same time."""
    # Imports are twice as fast where Python may keep what it compiled.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    running = {}
    for name, (config, *flags) in COMMANDS.items():
        workdir = tmp_path_factory.mktemp(name)
        running[name] = subprocess.Popen(
            [sys.executable, "-m", "launch.recover", f"--config={config}"]
            + [*flags, f"--workdir={workdir}"],
            cwd=ROOT,
            env=kept,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    ended = {name: (p.communicate()[1], p.returncode) for name, p in running.items()}
    return {name: (status, stderr) for name, (stderr, status) in ended.items()}


class TestCommandLine:
    """A mistyped command ends in one line, not in a traceback."""

    @pytest.mark.parametrize(
        "name, match",
        [
            ("field", r"ipcs\b.*[Dd]id you mean .*ipc\b"),
            ("value", r"--config\.squeeze\.epochs=many"),
            ("argument", "unknown config argument 'quik'; known: quick"),
            ("file", r"No such file .*configs/nothing\.py"),
            ("method", r"unknown (arm|method) 'wmd.*known: .*wmdd"),
        ],
    )
    def test_mistake_ends_in_one_line(self, name, match, answers):
        """Status 1, a single line with "error:" at the end, and no traceback."""
        status, stderr = answers[name]
        lines = stderr.strip().splitlines()
        assert "Traceback" not in stderr
        assert [line for line in lines if "error:" in line] == lines[-1:]
        assert lines[-1].startswith("error: ")
        assert re.search(match, lines[-1]), lines[-1]
        assert r"\n" not in lines[-1]
        assert status == 1

    def test_bug_is_not_taken_for_a_mistake(self, monkeypatch):
        """A KeyError from inside a stage keeps its traceback."""
        monkeypatch.setattr(command, "_log_plainly", lambda: None)
        monkeypatch.setattr(command.app, "run", lambda run, **_: run(["program"]))

        def run(config, workdir):
            return {}["bug"]

        with pytest.raises(KeyError, match="bug"):
            program.main(run)

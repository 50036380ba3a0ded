"""The programs that write a set for elsewhere, and bring one in."""

import inspect
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import ddjax
from ddjax import data
from ddjax.export import StoredSet
from ddjax.types import DataInfo, Dataset
from launch import export, import_set

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "export" / "fixtures"
# What a command line without flags would give.
BRING = {name: more[0] for _, name, *more in import_set._FLAGS}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """An exported set: the first image of every digit."""
    train = data.load("digits")
    rows = np.array([s.start for s in data.class_slices(train)])
    images, labels = train.images[rows], train.labels[rows]
    about = {"arm": "random", "seed": 0, "ipc": 1}
    stored = StoredSet(images, labels, np.ones(10, np.float32), (), train.info, about)
    folder = tmp_path_factory.mktemp("digits") / "set"
    return ddjax.save_distilled(stored, folder, "npz")


@pytest.fixture
def names(tmp_path):
    (tmp_path / "names.txt").write_text("x\na\nm\n")
    return str(tmp_path / "names.txt")


def run(module, *arguments):
    command = [sys.executable, "-m", f"launch.{module}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_export_says_what_it_wrote(digits, tmp_path, capsys):
    export.main(str(digits), str(tmp_path / "out"), "folder")
    said = capsys.readouterr().out
    assert "images   10 of 8x8x1, 1 per class, hard labels" in said
    assert "classes  10, the first" in said
    got, wanted = map(ddjax.load_distilled, (tmp_path / "out", digits))
    np.testing.assert_array_equal(got.images, wanted.images)
    assert got.info == wanted.info and got.about == wanted.about


def test_both_as_commands(digits, tmp_path):
    out = tmp_path / "out"
    done = run("export", f"--set={digits}", "--to=parquet", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert len(ddjax.load_distilled(out).images) == 10
    again = run("export", f"--set={digits}", "--to=parquet", f"--out={out}")
    assert again.returncode == 1
    told = f"error: {out} exists already; remove it, or choose another one."
    assert again.stderr.strip() == told
    arguments = (
        f"--source={FIXTURES / 'dc.pt'}",
        "--name=dm",
        f"--out={tmp_path / 'x'}",
    )
    done = run("import_set", *arguments)
    assert done.returncode == 1 and "the transform is not known" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_flags_are_the_arguments():
    for program in (export, import_set):
        names = [name for _, name, *_ in program._FLAGS]
        inspect.signature(program.main).bind(**dict.fromkeys(names))  # or TypeError


class TestImport:
    def bring(self, tmp_path, **changes):
        out = str(tmp_path / "out")
        import_set.main(**BRING | {"name": "mine", "out": out} | changes)
        return ddjax.load_distilled(out)

    def test_tensors(self, names, tmp_path, capsys):
        got = self.bring(
            tmp_path,
            source=str(FIXTURES / "dc.pt"),
            classes=names,
            mean=["0.5", "0.4", "0.3"],
            std=["0.25", "0.2", "0.3"],
            which=1,
        )
        wanted = np.load(FIXTURES / "public.npz")["pixels"][1].transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(got.images, wanted)
        assert (
            got.info.std == (0.25, 0.2, 0.3) and got.about["undone"] == "normalisation"
        )
        assert "Clipped" not in capsys.readouterr().out

    def test_clipping_is_told(self, names, tmp_path, capsys):
        numbers = {"mean": ["0.5"] * 3, "std": ["2.0"] * 3}
        source = str(FIXTURES / "dc.pt")
        got = self.bring(tmp_path, source=source, classes=names, **numbers)
        assert (
            f"Clipped were {got.about['clipped']:,} values" in capsys.readouterr().out
        )

    def test_a_whitened_set(self, names, tmp_path, monkeypatch):
        train = np.load(FIXTURES / "public.npz")["train"].transpose(0, 2, 3, 1)
        info = DataInfo("some", ("x", "a", "m"), (4, 4, 3), (0.1,) * 3, (0.9,) * 3)
        known = Dataset(train, np.zeros(len(train), np.int32), info)
        monkeypatch.setattr(data, "load", lambda name, **_: {"some": known}[name])
        got = self.bring(
            tmp_path,
            source=str(FIXTURES / "whitened.pt"),
            labels=str(FIXTURES / "labels_best.pt"),
            classes=names,
            mean=["0.5", "0.4", "0.3"],
            std=["0.25", "0.2", "0.3"],
            zca="some",
        )
        assert {x.tobytes() for x in got.images} == {x.tobytes() for x in train[:6]}

    def test_folders_of_a_known_data_set(self, tmp_path, capsys):
        for label in range(10):
            (tmp_path / "in" / f"new{label:03d}").mkdir(parents=True)
            image = np.full((8, 8, 3), 20 * label, np.uint8)
            Image.fromarray(image).save(tmp_path / "in" / f"new{label:03d}" / "a.jpg")
        got = self.bring(tmp_path, source=str(tmp_path / "in"), classes="digits")
        assert got.images[:, 0, 0, 0].tolist() == [20 * label for label in range(10)]
        assert got.info == data.load("digits").info
        assert "1 per class" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"source": ""}, "no --source given"),
            ({"source": "nowhere"}, "does not exist"),
            ({}, "the transform is not known"),
            ({"pixels": "unit"}, "the class order is not known"),
            ({"pixels": "unit", "zca": "digits"}, "exclude one another"),
            ({"mean": ["x"], "std": ["1"]}, "must be numbers with commas"),
            ({"source": str(FIXTURES), "zca": "digits"}, "are for tensors"),
            ({"classes": "digits", "pixels": "unit"}, "images of 3 channels"),
        ],
    )
    def test_what_is_refused(self, changes, told, tmp_path):
        with pytest.raises(ValueError, match=told):
            self.bring(tmp_path, **{"source": str(FIXTURES / "dc.pt")} | changes)
        assert not (tmp_path / "out").exists()

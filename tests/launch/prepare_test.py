"""The command that prepares sets: what it prints, and what it refuses."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from ddjax import data
from ddjax.data import prepare as preparing
from launch import prepare

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes, six images each; one of them is none."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("dog", "cat"):
        (folder / name).mkdir()
        for number in range(6):
            image = random.integers(0, 256, (20, 16 + number, 3), dtype=np.uint8)
            Image.fromarray(image).save(folder / name / f"{number}.bmp")
    (folder / "cat" / "5.bmp").write_bytes(b"?")
    return folder


@pytest.fixture(scope="module")
def answers(images, tmp_path_factory):
    """What the commands say; they run at the same time."""
    kept = tmp_path_factory.mktemp("kept")
    asked = {
        "skip": ("--on_error=skip", "--name=mine"),
        "stop": ("--name=other",),
        "unknown": ("--name=x", "--sise=3"),
    }
    environment = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", "launch.prepare", f"--source={images}"]
            + [f"--folder={kept}", *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, flags in asked.items()
    }
    said = {name: process.communicate() for name, process in running.items()}
    return kept, {name: (running[name].returncode, *said[name]) for name in said}


class TestCommand:
    def test_set_is_made_and_described(self, answers, images):
        kept, said = answers
        status, printed, shown = said["skip"]
        assert status == 0, shown
        assert "%" not in shown  # no bars in a file
        use = f"--config.data.name=mine --config.data.folder={kept}"
        assert printed.splitlines() == [
            f"mine lies in {kept}/mine/1.0.0",
            "  images   train 9, test 2, drawn from the only split",
            "  classes  2: cat, dog",
            "  pixels   20x16 to 20x21 (height x width), RGB",
            printed.splitlines()[4],
            "  as PNG   11 images",
            "  skipped  1 images that cannot be decoded:",
            f"    {images}/cat/5.bmp: not an image.",
            f"Use it with {use} --config.data.size=224",
        ]
        assert data.load("mine", folder=kept, size=8).images.shape == (9, 8, 8, 3)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("stop", "cat/5.bmp: not an image. Mend or remove it, .*--on_error=skip"),
            ("unknown", "Unknown command line flag 'sise'. Did you mean: size"),
        ],
    )
    def test_mistake_ends_in_one_line(self, answers, name, told):
        status, printed, shown = answers[1][name]
        assert status == 1 and not printed and "Traceback" not in shown
        last = shown.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert re.search(told, last), last

    def test_mistakes_leave_nothing(self, answers):
        assert [path.name for path in answers[0].iterdir()] == ["mine"]


class TestHere:
    """In this process, with flags set by hand."""

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"source": "x"}, "no --name given"),
            ({"source": "x", "name": "x", "manual": "x"}, "--manual is for a named"),
            ({"name": "x", "size": "8"}, "--size is for your own images"),
        ],
    )
    def test_flags_that_do_not_go_together(self, given, told):
        with flagsaver.as_parsed(**given), pytest.raises(ValueError, match=told):
            prepare.main()

    def test_again_there_is_nothing_to_do(self, answers, images, capsys):
        kept, _ = answers
        with flagsaver.flagsaver(source=str(images), name="mine", folder=str(kept)):
            prepare.main()
        assert "mine lies in" in capsys.readouterr().out

    def test_named_set(self, answers, monkeypatch, capsys):
        kept, asked = answers[0], []

        def named(*arguments):
            asked.append(arguments[:3])
            return kept / "mine" / "1.0.0"

        monkeypatch.setattr(preparing, "by_name", named)
        with flagsaver.flagsaver(name="zoo", manual="m"):
            monkeypatch.setenv("TFDS_DATA_DIR", str(kept))
            prepare.main()
        assert asked == [("zoo", str(kept), "m")]
        assert capsys.readouterr().out.endswith(
            "Use it with --config.data.name=zoo --config.data.size=224\n"
        )

    def test_one_size_needs_no_size(self, images, tmp_path, capsys):
        folder = preparing.from_source(
            images, "small", tmp_path, size=8, on_error="skip"
        )
        lines = prepare.summary(folder, "small", str(tmp_path))
        assert "  pixels   8x8, RGB" in lines
        assert lines[-1].endswith(f"--config.data.folder={tmp_path}")

"""A run's records read, written again, joined and compared."""

import copy
import csv
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from ddjax import checkpoint
from launch import report

ROOT = pathlib.Path(__file__).parent.parent.parent


def students():
    """Two recipes (one also without augmentation), two sizes, three arms, two sets."""
    accuracies = {"random": 0.5, "wmdd/noise": 0.6, "sets/theirs": 0.4}
    rows = []
    for recipe in ("wmdd", "wmdd+plain", "dm"):
        for ipc in (1, 10):
            for i, (arm, base) in enumerate(accuracies.items()):
                for s in (0, 1):
                    for labels in ("hard",) if recipe == "dm" else ("hard", "stored"):
                        top1 = base + 0.03 * s + 0.02 * (ipc == 10)
                        rows.append(_student(arm, ipc, labels, recipe, s, top1, i))
        rows.append(_student("whole data", 0, "hard", recipe, 0, 0.9, 9))
    return rows


def _student(arm, ipc, labels, recipe, s, top1, number):
    count = 3 * ipc or 600
    return {
        "arm": arm,
        "ipc": ipc,
        "labels": labels,
        "recipe": recipe,
        "recipe_fields": {"epochs": 300},
        "model": "convnet",
        "model_fields": {"name": "convnet", "width": 8},
        "set": s,
        "student": 0,
        "top1": top1,
        "num_images": count,
        "image_bytes": 64 * count,
        "label_bytes": count if labels == "hard" else 600 * count,
        "other_bytes": 0,
        "seconds": 1.5,
        "compile_seconds": 0.5,
        "peak_bytes": 1 << 20,
        "images": f"{number}{ipc}{s}".ljust(12, "0"),
        "teacher": "t" * 12,
        "seed": 0,
        "holdout": 0.0,
    }


def _set(arm, ipc, s, number):
    row = {
        "arm": arm,
        "ipc": ipc,
        "set": s,
        "images": f"{number}{ipc}{s}".ljust(12, "0"),
    }
    row |= {"redundancy": None if ipc == 1 else 0.75, "copies": 0, "test_copies": 0}
    for space in ("pixels", "features"):
        row |= {f"nearest_{space}": 1.25, f"real_nearest_{space}": 1.5}
    return {**row, "w2": 2.5, "png_bytes": 200 * ipc}


def made(name="default", better=0.0):
    """A run's records as the file holds them."""
    rows = [{**row, "top1": row["top1"] + better} for row in students()]
    return {
        "version": 2,
        "name": name,
        "config": {"name": name, "seed": 0},
        "environment": {"commit": "abc", "versions": {"jax": "0"}, "device": "cpu"},
        "data": {"name": "digits", "hash": "d" * 16},
        "students": rows,
        "sets": [
            _set(arm, ipc, s, i)
            for i, arm in enumerate(("random", "wmdd/noise"))
            for ipc in (1, 10)
            for s in (0, 1)
        ],
        "stages": [
            {
                "stage": "squeeze",
                "name": "teacher",
                "seconds": 3.0,
                "compile_seconds": 1.0,
                "peak_bytes": 1 << 20,
            }
        ],
    }


def attacked(better=0.0):
    """A run whose students with the recipe dm were attacked by two attacks and CW."""
    run, left = made("attacked", better), {"pgd100": 0.5, "square": 0.6, "worst": 0.5}
    identity = ("arm", "ipc", "labels", "recipe", "model", "set", "student")
    run["attacks"] = [
        {
            **{field: row[field] for field in identity},
            "attack": name,
            "eps": eps,
            "norm": norm,
            "clean": row["top1"],
            "robust": row["top1"] * share / (eps or 1),
            "num_images": 500,
        }
        for row in run["students"]
        if row["recipe"] == "dm"
        for name, share, eps, norm in (
            *(
                (name, share, eps, "linf")
                for name, share in left.items()
                for eps in (1.0, 2.0)
            ),
            ("cw_torchattacks", 0.25, None, "l2"),
        )
    ]
    run["alarms"] = ["random: Square is stronger than PGD-100"]
    run["landscapes"] = [
        {
            "name": name,
            "gradient_norm": 0.5,
            "rayleigh": 20.0,
            "cosine": 0.9,
            "top_eigenvalue": 25.0,
            "surface": {"radius": 8.0, "loss": loss},
        }
        for name, loss in (("teacher", [[0, 1], [2, 3]]), ("guard", [[1, 1], [1, 1]]))
    ]
    return run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A work folder with the report of a run and one of its distilled sets."""
    workdir = tmp_path_factory.mktemp("run")
    stage = checkpoint.Stage(workdir, "recover", "wmdd-noise-ipc10-seed0", {"arm": 1})
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    about = {"arm": "wmdd/noise", "ipc": 10, "classes": ["a", "b", "c"]}
    labels, weights = np.repeat(np.arange(3), 10), np.full(30, 0.1)
    stage.finish({"images": images, "labels": labels, "weights": weights}, about)
    run = made()
    for row in run["students"]:
        if (row["arm"], row["ipc"], row["set"]) == ("wmdd/noise", 10, 0):
            row["images"] = stage.hash
    report.write(workdir, run)
    return workdir


class TestWrite:
    def test_all_files_are_there(self, workdir):
        names = {path.name for path in (workdir / "report").iterdir()}
        pictures = {
            f"{what}-{recipe}-convnet.png"
            for what in ("accuracy", "bytes")
            for recipe in ("wmdd", "wmdd+plain", "dm")
        }
        texts = {"records.json", "table.md", "table.tex", "table.csv", "scores.csv"}
        assert names == texts | pictures | {"sets.csv", "grid.png", "index.html"}
        for picture in pictures:
            start = (workdir / "report" / picture).read_bytes()[:4]
            assert start == b"\x89PNG"

    def test_records_come_back_as_they_were(self, workdir):
        wanted, found = made(), report.records(workdir)
        for run in (wanted, found):
            for row in run["students"]:
                del row["images"]  # the fixture changes it
        assert found == wanted

    def test_written_again_nothing_differs(self, workdir):
        def texts():
            folder = workdir / "report"
            return {p.name: p.read_bytes() for p in folder.iterdir()}

        first = texts()
        (workdir / "report" / "table.md").write_text("lost")
        report.run(None, workdir)
        assert texts() == first

    def test_one_table_for_each_recipe_then_scores_then_images(self, workdir):
        lines = (workdir / "report" / "table.md").read_text().splitlines()
        said = [line for line in lines if line and not line.startswith("|")]
        assert [line.partition(" Top-1")[0] for line in said[:3]] == [
            "Students: convnet, recipe wmdd.",
            "Students: convnet, recipe wmdd+plain.",
            "Students: convnet, recipe dm.",
        ]
        assert said[3].startswith("Scores") and said[4].startswith("Images")
        assert len(said) == 5
        cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
        assert cells[2] == [
            *("IPC", "images", "hard labels", "stored labels", "n"),
            *("bytes of images", "with hard labels", "with stored labels"),
        ]
        ours = [*["61.5 ± 2.1"] * 2, "2", "192", "195", "1,992"]
        assert ["1", "WMDD, from noise", *ours] in cells
        assert ["10", "theirs", *["43.5 ± 2.1"] * 2] in [c[:4] for c in cells]

    def test_latex_has_the_same_tables(self, workdir):
        text = (workdir / "report" / "table.tex").read_text()
        assert text.count(r"\toprule") == text.count(r"\end{tabular}") == 5
        assert "1 & WMDD, from noise & 61.5 $\\pm$ 2.1 & 61.5 $\\pm$ 2.1 & 2" in text

    def test_scores_can_be_read_back(self, workdir):
        text = (workdir / "report" / "scores.csv").read_text()
        rows = list(csv.DictReader(io.StringIO(text)))
        (row,) = [
            row
            for row in rows
            if row["recipe"] == "wmdd"
            and (row["images"], row["IPC"], row["labels"])
            == ("wmdd/noise", "1", "stored")
        ]
        # 0.9 - 0.615, and 0.615 - 0.515 with and without augmentation.
        assert (row["HLR"], row["IOR"]) == ("0.285", "0.100")
        assert (row["LRS"], row["ARS"]) == ("0.231", "0.314")

    def test_run_without_sets_has_no_table_of_them(self, tmp_path):
        run = {**made(), "sets": []}
        report.write(tmp_path, run)
        assert "Images, means" not in (tmp_path / "report" / "table.md").read_text()
        assert not (tmp_path / "report" / "grid.png").exists()

    def test_what_cannot_be_read_is_not_written(self, tmp_path):
        with pytest.raises(ValueError, match="'stages' is missing"):
            report.write(tmp_path, {**made(), "stages": None})
        assert not (tmp_path / "report").exists()


@pytest.fixture(scope="module")
def under_attack(tmp_path_factory):
    """A work folder with the report of attacked students."""
    folder = tmp_path_factory.mktemp("attacked")
    report.write(folder, attacked())
    return folder


class TestAttacks:
    def test_files_are_there(self, under_attack):
        names = {path.name for path in (under_attack / "report").iterdir()}
        assert names >= {"robust.csv", "robust-dm-convnet-hard.png", "surfaces.png"}
        assert "robust-wmdd-convnet-hard.png" not in names

    def test_table_stands_behind_those_of_students(self, under_attack):
        lines = (under_attack / "report" / "table.md").read_text().splitlines()
        said = [line for line in lines if line and line[0] not in "|-"]
        assert [line.partition(":")[0].partition(",")[0] for line in said] == [
            *["Students"] * 3,
            *("Under attack", "Scores", "Images", "Loss around test images"),
            "What looks wrong with the attacks.",
        ]
        cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
        header = ["IPC", "images", "eps", "clean", "PGD-100", "Square"]
        header += ["CW of torchattacks", "worst", "robust / clean", "n"]
        header += ["images attacked"]
        assert header in cells
        ours = ["1", "WMDD, from noise", "2/255", "61.5 ± 2.1", "15.4 ± 0.5"]
        ours += ["18.4 ± 0.6", "", "15.4 ± 0.5", "25.0 ± 0.0", "2", "500"]
        assert ours in cells
        assert ["teacher", "0.5", "20", "25", "0.9"] in cells
        assert lines[-1] == "- random: Square is stronger than PGD-100"

    def test_latex_has_the_same_tables(self, under_attack):
        text = (under_attack / "report" / "table.tex").read_text()
        assert text.count(r"\toprule") == 7
        assert "WMDD, from noise & 2/255 & 61.5 $\\pm$ 2.1 & 15.4" in text

    def test_numbers_can_be_read_back(self, under_attack):
        text = (under_attack / "report" / "robust.csv").read_text()
        rows = list(csv.DictReader(io.StringIO(text)))
        (row,) = [
            row
            for row in rows
            if (row["arm"], row["ipc"]) == ("random", "10")
            and (row["attack"], row["eps"]) == ("worst", "2.0")
        ]
        assert float(row["robust"]) == pytest.approx(0.535 / 4)

    def test_records_come_back_as_they_were(self, under_attack):
        assert report.records(under_attack) == attacked()

    def test_several_runs_are_one_table(self, under_attack, workdir):
        both = report.joined([under_attack, workdir])
        assert {row["run"] for row in both["attacks"]} == {"attacked"}
        assert both["alarms"] == ["attacked: random: Square is stronger than PGD-100"]
        cells = [
            [c.strip() for c in line.split("|")[1:-1]]
            for line in report.markdown(both).splitlines()
        ]
        assert ["attacked", "teacher", "0.5", "20", "25", "0.9"] in cells
        assert next(row[:5] for row in cells if row[3:4] == ["2/255"]) == [
            *("attacked", "1", "random", "2/255", "51.5 ± 2.1"),
        ]

    def test_difference_of_two_arms_under_attack(self, under_attack):
        joined = report.joined([under_attack])
        lines = report.between(joined, "wmdd/noise", "random").splitlines()
        # Clean ones first; then three at two radii and CW, at two sizes.
        assert len(lines) == 10 + 2 * 7
        assert lines[10] == (
            "dm, convnet, ipc 1, hard, PGD-100 at 1/255: 30.8 against 25.8, "
            "+5.0 ± 1.1 (+4.7 standard errors)"
        )
        assert any(
            "CW of torchattacks at any in L2: 15.4 against 12.9" in line
            for line in lines
        )

    def test_arm_that_was_not_attacked_has_only_clean_differences(self, under_attack):
        joined = report.joined([under_attack])
        joined["attacks"] = [r for r in joined["attacks"] if r["arm"] != "random"]
        assert len(report.between(joined, "wmdd/noise", "random").splitlines()) == 10

    @pytest.mark.parametrize(
        "change, told",
        [
            (lambda run: run.update(alarms=None), "'alarms' is no list"),
            (lambda run: run["attacks"][3].pop("eps"), "attack 3 has no 'eps'"),
            (lambda run: run["attacks"][1].update(eps=0), "eps of attack 1 is 0, no n"),
            (lambda run: run["attacks"][1].update(norm="l1"), "unknown norm 'l1'"),
            (lambda run: run["attacks"][0].update(labels="soft"), "labels 'soft'"),
            (
                lambda run: run["attacks"][2].update(robust=45.0),
                "the robust of attack 2 is 45.0, no f",
            ),
            (lambda run: run["landscapes"][1].pop("cosine"), "1 has no 'cosine'"),
            (
                lambda run: run["landscapes"][0]["surface"].update(loss=[[1], [1, 2]]),
                "surface of landscape 0 is no table",
            ),
        ],
    )
    def test_what_is_wrong_with_a_file(self, tmp_path, change, told):
        run = attacked()
        change(run)
        (tmp_path / "records.json").write_text(json.dumps(run))
        with pytest.raises(ValueError, match=f"does not hold .*{told}"):
            report.records(tmp_path)


class TestRecords:
    def test_a_folder_of_results_and_the_file_itself(self, workdir, tmp_path):
        file = workdir / "report" / "records.json"
        (tmp_path / "records.json").write_bytes(file.read_bytes())
        found = [report.records(path) for path in (workdir, file, tmp_path)]
        assert found[0] == found[1] == found[2]

    def test_nothing_there_says_what_makes_it(self, tmp_path):
        with pytest.raises(ValueError, match="no records in .*; run launch.evaluate"):
            report.records(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "change, told",
        [
            (lambda run: run["students"], "of version 1, not 2"),
            (lambda run: {**run, "version": 3}, "of version 3, not 2"),
            (
                lambda run: {**run, "students": {}},
                "'students' is missing, or is no list",
            ),
            (lambda run: run["students"][4].pop("top1"), "student 4 has no 'top1'"),
            (
                lambda run: run["students"][1].update(top1=61.5),
                "student 1 is 61.5, no f",
            ),
            (
                lambda run: run["students"][1].update(top1=None),
                "student 1 is None, no f",
            ),
            (lambda run: run["students"][0].update(labels="soft"), "labels 'soft'"),
            (lambda run: run["sets"][2].pop("arm"), "set 2 has no 'arm'"),
        ],
    )
    def test_what_is_wrong_with_a_file(self, tmp_path, change, told):
        run = made()
        changed = change(run)
        whole = isinstance(changed, (list, dict))  # else the run was changed in place
        file = tmp_path / "records.json"
        file.write_text(json.dumps(changed if whole else run))
        with pytest.raises(ValueError, match=f"{file} does not hold .*{told}.*again"):
            report.records(file)

    def test_text_that_is_no_json(self, tmp_path):
        (tmp_path / "records.json").write_text('{"version": 2,')
        with pytest.raises(ValueError, match="cannot read the records in .*line 1"):
            report.records(tmp_path)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another run, five points better."""
    folder = tmp_path_factory.mktemp("other")
    report.write(folder, made("better", 0.05))
    return folder


def printed(*arguments, cwd):
    """What the program says, and its exit status."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.report", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    return done.stdout + done.stderr, done.returncode


class TestCompare:
    def test_several_runs_are_one_table(self, workdir, other):
        text = report.markdown(report.joined([workdir, other]))
        cells = [
            [c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()
        ]
        assert cells[2][:3] == ["run", "IPC", "images"]
        start = [row[:4] for row in cells[4:6]]
        assert start == [
            ["default", "1", "random", "51.5 ± 2.1"],
            ["better", "1", "random", "56.5 ± 2.1"],
        ]

    def test_runs_of_one_name_are_called_by_their_folders(self, workdir):
        both = report.joined([workdir, workdir / "report" / "records.json"])
        runs = {row["run"] for row in both["students"]}
        assert runs == {str(workdir), str(workdir / "report" / "records.json")}

    def test_difference_of_two_arms(self, workdir):
        lines = report.between(report.joined([workdir]), "wmdd/noise", "random")
        first = lines.splitlines()[0]
        assert first == (
            "wmdd, convnet, ipc 1, hard: 61.5 against 51.5, +10.0 ± 2.1 "
            "(+4.7 standard errors)"
        )
        assert len(lines.splitlines()) == 10  # two recipes with both labels, and dm

    def test_one_set_is_told(self, workdir):
        run = copy.deepcopy(report.joined([workdir]))
        run["students"] = [row for row in run["students"] if row["set"] == 0]
        lines = report.between(run, "wmdd/noise", "random").splitlines()
        assert lines[0].endswith("+10.0 (one set: no standard error)")

    def test_nothing_in_common(self, workdir):
        text = report.between(report.joined([workdir]), "whole data", "random")
        assert text == "whole data and random have no table in common."

    def test_on_the_command_line(self, workdir, other):
        """Positional runs with --between: each line says which run it is of."""
        text, status = printed(
            workdir, other, "--between=wmdd/noise, random", cwd=workdir
        )
        assert status == 0, text
        lines = [line for line in text.splitlines() if "standard errors" in line]
        assert lines[0].startswith("default: wmdd, convnet, ipc 1, hard: 61.5 against")
        assert lines[-1].startswith("better: dm, convnet, ipc 10, hard: 68.5 against")

    def test_a_mistake_is_one_line(self, workdir):
        text, status = printed(workdir / "nowhere", cwd=workdir)
        assert status == 1 and text.startswith("error: no records in ")
        assert "Traceback" not in text

    def test_only_this_program_has_the_flag(self):
        assert "between" not in flags.FLAGS

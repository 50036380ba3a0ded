"""The README's examples run, and its commands are the ones CI uses."""

import doctest
import json
import pathlib
import re

import numpy as np
import pytest

from benchmarks import convolution
from launch import report

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHORT, PIPELINE, GEOMETRY, TRANSPORT, ATTACKS = BLOCKS


def test_short_example_says_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a picture and a set
    example = doctest.DocTestParser().get_doctest(SHORT, {}, "README.md", None, 0)
    assert len(example.examples) >= 8
    assert doctest.DocTestRunner().run(example).failed == 0
    assert (tmp_path / "digits.png").exists()


def test_library_example_runs():
    names = {}
    exec(PIPELINE, names)  # noqa: S102
    assert set(names["metrics"]) == {"loss", "feature", "cross_entropy", "batch_norm"}
    assert np.isfinite(float(names["metrics"]["loss"]))
    assert names["state"].images.shape == (100, 8, 8, 1)


def test_geometry_example_runs():
    names = {}
    exec(GEOMETRY, names)  # noqa: S102
    assert names["bend"] < 0 and np.isfinite(names["pull"]).all()
    assert names["cost"].shape == (5, 5) and names["ball"].shape == (5, 3)


def test_transport_example_runs():
    names = {}
    exec(TRANSPORT, names)  # noqa: S102
    assert names["pull"].shape == (300, 64) and np.isfinite(names["pull"]).all()
    assert names["atoms"].points.shape == (10, 64)


def test_attacks_example_runs(capsys):
    exec(ATTACKS, {})  # noqa: S102
    assert capsys.readouterr().out.count("0.") >= 4


def test_commands_are_there():
    assert "    python -m pip install -e . && python -m launch.recover" in README
    assert '    python -m pip install -e ".[test]" && python -m pytest\n' in README


def test_every_file_it_names_exists():
    for name in re.findall(r"`((?:ddjax|launch|configs|tests)/[\w/.]*)`", README):
        if "<" not in name and "mine" not in name:
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "run", ["default", "default-6x3", "cifar10-cpu", "geodm-cifar10-cpu", "otg-digits"]
)
def test_tables_are_made_of_the_records(run):
    found = report.records(ROOT / "benchmarks" / "results" / run)
    table = report.markdown(found).split("\n\n")[1]
    assert table.startswith("| IPC") and table in README


@pytest.mark.parametrize("run", ["guard-digits", "guard-cifar10-cpu"])
def test_tables_of_attacks_are_made_of_the_records(run):
    """Every row that it shows is one of the records' tables."""
    found = report.records(ROOT / "benchmarks" / "results" / run)
    tables = [t for t in report.markdown(found).split("\n\n") if t.startswith("|")]
    for word in ("eps", "strength"):
        table = next(t for t in tables if word in t.partition("\n")[0]).splitlines()
        start = README.index("\n".join(table[:2]))
        shown = README[start:].partition("\n\n")[0].splitlines()
        assert len(shown) > 3 and set(shown) <= set(table)


def test_the_table_of_settings_is_made_of_the_records():
    found = report.records(ROOT / "benchmarks" / "results" / "geodm-digits")
    tables = report.markdown(found).split("\n\n")
    assert next(t for t in tables if "s a set, IPC 1" in t) in README


def test_differences_are_made_of_the_records():
    run = report.joined([ROOT / "benchmarks" / "results" / "default-6x3"])
    lines = report.between(run, "wmdd/noise", "sre2l/noise")
    for line in lines.splitlines() if isinstance(lines, str) else lines:
        assert f"    {line}\n" in README


def test_the_table_of_convolutions_is_made_of_the_records():
    records = json.loads(convolution.RESULTS.read_text())["records"]
    assert convolution.table(records) in README

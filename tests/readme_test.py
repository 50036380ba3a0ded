"""The README's examples run, and its commands are the ones CI uses."""

import pathlib
import re

import numpy as np

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
PIPELINE, TRANSPORT = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_library_example_runs():
    names = {}
    exec(PIPELINE, names)  # noqa: S102
    assert set(names["metrics"]) == {"loss", "feature", "cross_entropy", "batch_norm"}
    assert np.isfinite(float(names["metrics"]["loss"]))
    assert names["state"].images.shape == (100, 8, 8, 1)


def test_transport_example_runs():
    names = {}
    exec(TRANSPORT, names)  # noqa: S102
    assert names["pull"].shape == (300, 64) and np.isfinite(names["pull"]).all()
    assert names["atoms"].points.shape == (10, 64)


def test_commands_are_there():
    assert "    python -m pip install -e . && python -m launch.recover" in README
    assert '    python -m pip install -e ".[test]" && python -m pytest\n' in README


def test_every_file_it_names_exists():
    root = pathlib.Path(__file__).parent.parent
    for name in re.findall(r"`((?:ddjax|launch|configs|tests)/[\w/.]*)`", README):
        if "<" not in name and "mine" not in name:
            assert (root / name).exists(), name

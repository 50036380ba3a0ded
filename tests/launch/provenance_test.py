"""The commit of a checkout, and what else a record says of its origin."""

import json
import subprocess
import sys

import jax
import pytest

from launch import provenance


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    command = ["git", *who, *arguments]
    said = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return said.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with one committed file."""
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_commit_is_what_git_says(checkout):
    head = git(checkout, "log", "-1", "--format=%H")
    assert provenance.commit(checkout / "a.py") == head
    (checkout / "b.py").write_text("not tracked")
    assert provenance.commit(checkout / "a.py") == head


def test_changes_are_said(checkout):
    head = git(checkout, "log", "-1", "--format=%H")
    (checkout / "a.py").write_text("2")
    assert provenance.commit(checkout / "a.py") == f"{head}+changes"


def test_a_file_that_is_not_in_the_checkout_has_no_commit(checkout):
    """Such as a package installed into an environment below a checkout."""
    (checkout / "b.py").write_text("not tracked")
    assert provenance.commit(checkout / "b.py") is None


def test_without_a_checkout_or_git_there_is_none(tmp_path, checkout, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout))
    inside = tmp_path / "deeper"
    inside.mkdir()
    (inside / "c.py").touch()
    assert provenance.commit(inside / "c.py") is None
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(checkout / "a.py") is None


def test_environment_says_versions_and_device():
    found = json.loads(json.dumps(provenance.environment()))
    assert set(found) == {"commit", "versions", "device"}
    names = {"jax", "flax", "optax", "ott-jax", "numpy", "ddjax", "python"}
    assert set(found["versions"]) == names
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["device"] == "2 x cpu"  # of conftest

"""Which of XLA's flags commands choose, and that XLA takes them."""

import importlib
import os
import subprocess
import sys

import pytest

import launch
from launch import pages, xla

FLAG = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"


@pytest.fixture
def cpu(monkeypatch):
    """A machine without accelerators, whose XLA knows the flag."""
    monkeypatch.setattr(xla, "_has_accelerator", lambda: False)
    monkeypatch.setattr(xla, "knows", lambda flag: True)
    monkeypatch.delenv("XLA_FLAGS", raising=False)


class TestEnvironment:
    def test_on_a_cpu(self, cpu):
        assert xla.environment() == {"XLA_FLAGS": FLAG}

    def test_beside_what_was_said_before(self, cpu, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", "--xla_one=1")
        assert xla.environment() == {"XLA_FLAGS": f"--xla_one=1 {FLAG}"}

    def test_not_against_what_was_said_before(self, cpu, monkeypatch):
        monkeypatch.setenv("XLA_FLAGS", FLAG.split("=")[0] + "=")
        assert xla.environment() == {}

    def test_not_where_it_may_not_be_known(self, cpu, monkeypatch):
        monkeypatch.setattr(xla, "knows", lambda flag: False)
        assert xla.environment() == {}
        monkeypatch.setattr(xla, "knows", lambda flag: True)
        monkeypatch.setattr(xla, "_has_accelerator", lambda: True)
        assert xla.environment() == {}


class TestKnows:
    def test_what_there_is_and_is_not(self):
        assert xla.knows("xla_force_host_platform_device_count")
        assert not xla.knows("xla_nonsense")

    def test_without_jax(self, monkeypatch):
        monkeypatch.setattr(sys, "path", [])
        monkeypatch.delitem(sys.modules, "jaxlib")
        assert not xla.knows("xla_force_host_platform_device_count")


@pytest.mark.skipif(not xla.knows(FLAG[2:].split("=")[0]), reason="another jaxlib.")
def test_xla_takes_it():
    code = "import jax; print(jax.numpy.ones((2, 2)) @ jax.numpy.ones(2))"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAG}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environment) == b"[2. 2.]\n"


class TestCommands:
    """What `launch/__init__.py` does."""

    @pytest.fixture
    def begun(self, cpu, monkeypatch):
        began = []
        monkeypatch.setattr(pages, "begin_anew", lambda: began.append(dict(os.environ)))

        def begin(*argv):
            monkeypatch.setattr(sys, "argv", list(argv))
            importlib.reload(launch)
            return began

        return begin

    def test_flags_are_there_when_it_begins_anew(self, begun):
        [environment] = begun("-m", "--ipc=1")
        assert environment["XLA_FLAGS"] == FLAG

    @pytest.mark.parametrize("first", ["-c", "", "/somewhere/pytest"])
    def test_not_where_it_is_imported(self, begun, first):
        assert not begun(first)
        assert "XLA_FLAGS" not in os.environ

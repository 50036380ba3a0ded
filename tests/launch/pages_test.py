"""Which processes get large pages, and that a command begins anew to get them."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from launch import pages

WANTED = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine where asking for large pages helps; its parts can be changed."""
    kernel = tmp_path / "enabled"
    kernel.write_text("always [madvise] never\n")
    monkeypatch.setattr(pages, "_KERNEL", kernel)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return kernel


class TestEnvironment:
    def test_asks_where_it_helps(self, machine):
        assert pages.environment() == WANTED

    @pytest.mark.parametrize(
        "modes", ["[always] madvise never", "always madvise [never]"]
    )
    def test_kernel_that_does_not_wait_for_a_word(self, machine, modes):
        machine.write_text(modes)
        assert pages.environment() == {}

    def test_kernel_without_them(self, machine):
        machine.unlink()
        assert pages.environment() == {}

    @pytest.mark.parametrize("library", ["glibc 2.34", "musl", "glibc two"])
    def test_other_libraries(self, machine, monkeypatch, library):
        monkeypatch.setattr(os, "confstr", lambda name: library)
        assert pages.environment() == {}

    def test_no_library(self, machine, monkeypatch):
        monkeypatch.delattr(os, "confstr")
        assert pages.environment() == {}

    def test_what_was_said_before_stays(self, machine, monkeypatch):
        monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
        assert pages.environment() == {}
        monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
        assert pages.environment() == {
            "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
        }


class TestBeginAnew:
    @pytest.fixture
    def begun(self, monkeypatch):
        calls = []
        monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
        return calls

    def test_same_command(self, machine, monkeypatch, begun):
        monkeypatch.setattr(
            sys, "orig_argv", ["python", "-X", "dev", "-m", "launch.recover", "--ipc=1"]
        )
        pages.begin_anew()
        [(program, command, environment)] = begun
        assert program == sys.executable
        assert command == [sys.executable, *sys.orig_argv[1:]]
        assert environment == {**os.environ, **WANTED}

    def test_once(self, machine, monkeypatch, begun):
        monkeypatch.setenv(*next(iter(WANTED.items())))
        pages.begin_anew()
        assert not begun

    def test_a_command(self, monkeypatch):
        """Its process stays the same, and its words and its exit code are as ever."""
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        if not pages.environment():
            pytest.skip("large pages need no word here, or there are none.")
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.recover", "--nonsense"],
            stderr=subprocess.PIPE,
            text=True,
        )
        environment = pathlib.Path(f"/proc/{process.pid}/environ")
        while WANTED["GLIBC_TUNABLES"] not in environment.read_text():
            assert process.poll() is None  # else nothing more will come
            time.sleep(0.01)
        assert "nonsense" in process.communicate()[1]
        assert process.returncode == 1

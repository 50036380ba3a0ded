"""The lock of a workdir, against real processes and file systems without locks."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from launch import lock


def test_is_free_again_at_the_end(tmp_path):
    for _ in range(2):
        with lock.hold(tmp_path / "new" / "work"):
            assert (tmp_path / "new" / "work" / ".lock").exists()


def test_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), lock.hold(tmp_path):
        raise KeyError
    with lock.hold(tmp_path):
        pass


def test_another_process_is_refused(tmp_path):
    with lock.hold(tmp_path):
        code = "import sys; from launch import lock; lock.hold(sys.argv[1]).__enter__()"
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert other.returncode == 1
    assert f"another program runs in {tmp_path}" in other.stderr
    assert f"process {os.getpid()}, since" in other.stderr


@pytest.mark.parametrize("said", ["", "{", "[]", '{"host": "a"}'])
def test_who_holds_it_may_be_unknown(said, tmp_path):
    """It has the lock before it has written who it is."""
    with lock.hold(tmp_path):
        (tmp_path / ".lock").write_text(said)
        with (
            pytest.raises(ValueError, match="one that has just begun. Wait"),
            lock.hold(tmp_path),
        ):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_told_of(number, tmp_path, monkeypatch, caplog):
    def refuse(file, kind):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock.hold(tmp_path):
        assert "without locks" in caplog.text


def test_other_errors_are_not_hidden(tmp_path, monkeypatch):
    def refuse(file, kind):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"), lock.hold(tmp_path):
        pass


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="cannot write to the work folder"),
        lock.hold(tmp_path / "file" / "work"),
    ):
        pass

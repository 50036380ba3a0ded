"""One program at a time in a workdir."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shlex
import socket
import sys
import time

from absl import logging

FILE = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def hold(workdir):
    """Holds a workdir against other programs.

    The system lets go of it when this process ends, however it ends; the file `.lock`,
    which says whose it was, means nothing by itself.

    Args:
      workdir: of the pipeline; made if it is not there.

    Raises:
      ValueError: another program holds it, or it cannot be written to.
    """
    with _open(workdir) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another program runs in {workdir}: {_holder(file)}. Wait for its "
                "end, or choose another folder with --workdir=PATH."
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logging.warning(
                "%s is on a file system without locks: see to it yourself that no "
                "other program runs in it.",
                workdir,
            )
        _sign(file)
        yield


def _open(workdir):
    try:
        pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
        # Not emptied: it may tell of another.
        return open(pathlib.Path(workdir) / FILE, "a+")
    except OSError as error:
        raise ValueError(
            f"cannot write to the work folder {workdir}: {error.strerror}. Choose "
            "another one with --workdir=PATH."
        ) from error


def _sign(file) -> None:
    """Writes who holds the lock."""
    about = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": shlex.join(sys.orig_argv),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
    file.truncate(0)
    try:
        file.write(json.dumps(about))
        file.flush()
    except OSError as error:
        raise ValueError(
            f"cannot write {file.name}: {error.strerror}. Make room, or choose another "
            "--workdir, and run the same command again."
        ) from error


def _holder(file) -> str:
    """What the file says of the program that holds the lock."""
    file.seek(0)
    try:
        about = json.loads(file.read())
        return "{host}, process {pid}, since {since}: {command}".format(**about)
    except (KeyError, TypeError, ValueError):  # it has not signed yet
        return "one that has just begun"

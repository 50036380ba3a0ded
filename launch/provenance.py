"""What made the numbers, besides the config: the code, the libraries, the device."""

import functools
import importlib.metadata
import pathlib
import platform
import subprocess

import ddjax
from ddjax import parallel

_LIBRARIES = ("jax", "flax", "optax", "ott-jax", "numpy")


def environment() -> dict:
    """Plain values for a record.

    Returns:
      commit: the checkout's, with "+changes" behind it where tracked files differ from
        it; None where the package is not run from a checkout, or git is not there.
      versions: of Python, of this library and of those it computes with, by name.
      device: see `parallel.describe`.
    """
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    versions |= {"ddjax": ddjax.__version__, "python": platform.python_version()}
    device = parallel.describe()
    return {"commit": _commit(), "versions": versions, "device": device}


@functools.cache  # the code that runs was imported at the beginning
def _commit() -> str | None:
    return commit(pathlib.Path(ddjax.__file__))


def commit(path: pathlib.Path) -> str | None:
    """The commit of the checkout that a file belongs to; see `environment`."""
    # A package installed below somebody else's checkout is not one of its files.
    if _git(path, "ls-files", "--error-unmatch", path.name) is None:
        return None
    found = _git(path, "rev-parse", "HEAD")
    changes = _git(path, "status", "--porcelain", "--untracked-files=no")
    return f"{found}+changes" if found and changes else found


def _git(path, *arguments) -> str | None:
    """What git says in a file's folder, or None where it refuses or is not there."""
    try:
        said = subprocess.run(
            ["git", *arguments], cwd=path.parent, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.decode().strip()

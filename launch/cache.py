"""The compile cache: programs that earlier runs have compiled, of bounded size."""

import contextlib
import os
import pathlib

import jax

__all__ = ["MOST", "enable", "prune"]

MOST = 2 * 10**9  # bytes


def enable() -> None:
    """Keeps compiled programs in ~/.cache/ddjax between runs, small ones too.

    The folder is pruned to `MOST` before each run; one that JAX_COMPILATION_CACHE_DIR
    names is its owner's to bound.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        above = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        folder = os.path.join(above, "ddjax")
        prune(folder, MOST)
        jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def prune(folder, most: int) -> None:
    """Deletes the programs that were read longest ago, until the rest is small enough.

    (JAX's own bound looks at every file, under a lock, whenever it keeps one more, and
    refuses a folder that was filled without it.) Another process that was about to read
    one compiles it again.

    Args:
      folder: of JAX's compile cache; it need not exist.
      most: bytes that may stay.
    """
    found = []
    for path in pathlib.Path(folder).glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # deleted by another process
            told = path.stat()
            # Some systems do not note when a file was read.
            found.append((max(told.st_atime, told.st_mtime), told.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        path.unlink(missing_ok=True)
        total -= size

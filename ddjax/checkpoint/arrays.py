"""Trees of arrays by name, hashes of values and arrays, and files written at once."""

import hashlib
import json
import os
import pathlib
import socket
from typing import Any

import jax
import numpy as np

__all__ = [
    "canonical",
    "checksum",
    "digest",
    "fingerprint",
    "flatten",
    "unflatten",
    "write_atomically",
]


def write_atomically(path, write) -> None:
    """Calls `write(file)` on a temporary file and renames it to `path` at the end.

    Raises:
      ValueError: the disk is full, or refuses; what was at `path` is untouched.
    """
    path = pathlib.Path(path)
    # In containers hosts have the same process ids.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{socket.gethostname()}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(
            f"cannot write {path}: {error.strerror}. Nothing was overwritten; make "
            "room, or choose another --workdir, and run the same command again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def canonical(value) -> str:
    """One text for equal plain values, whatever their order."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def fingerprint(*values) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:12]


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their path, such as "params/Conv_0/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten(arrays: dict[str, np.ndarray], like: Any) -> Any:
    """Puts arrays back into a tree of the same structure as `like`.

    Raises:
      ValueError: names or shapes differ; says which.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {_name(path): tuple(leaf.shape) for path, leaf in leaves}
    found = {name: array.shape for name, array in arrays.items()}
    if wanted != found:
        missing = sorted(set(wanted) - set(found))
        extra = sorted(set(found) - set(wanted))
        other = sorted(
            f"{n} {found[n]} instead of {wanted[n]}"
            for n in set(wanted) & set(found)
            if wanted[n] != found[n]
        )
        raise ValueError(
            f"arrays do not fit: missing {missing[:3]}, extra {extra[:3]}, of another "
            f"shape {other[:3]}. Were they made for another network?"
        )
    return jax.tree_util.tree_unflatten(structure, [arrays[name] for name in wanted])


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def digest(*arrays) -> str:
    """A short hash of arrays: their types, shapes and bytes."""
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:12]


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of arrays: their names, types, shapes and bytes, in their order."""
    about = [[name, x.dtype.name, list(x.shape)] for name, x in arrays.items()]
    total = hashlib.sha256(canonical(about).encode())
    for array in arrays.values():
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()

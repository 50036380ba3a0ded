"""A state as two files, written by orbax in the background and checked when read.

    index.json    names, types and shapes of the arrays, and the checksum
    arrays.bin    their bytes, one after another

Orbax's own handlers have no checksum of the numbers (a flipped bit comes back as another
number), need the shapes beforehand, and let the first process alone write NumPy arrays.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.future import CommitFutureAwaitingContractedSignals

from ddjax.checkpoint.arrays import canonical

__all__ = ["Handler", "Save", "read"]

_INDEX, _ARRAYS = "index.json", "arrays.bin"


class Handler(ocp.AsyncCheckpointHandler):
    """What orbax calls to write the arrays of a state."""

    async def async_save(self, directory, args: "Save"):
        """Begins to write, as soon as orbax has made the folder."""

        async def write():
            _write(directory, args.arrays)

        return [CommitFutureAwaitingContractedSignals(write(), name="ddjax")]

    def save(self, directory, args: "Save") -> None:
        """The same, at once."""
        _write(directory, args.arrays)

    def restore(self, directory, args=None) -> dict[str, np.ndarray]:
        """See `read`."""
        del args
        return read(directory)


@ocp.args.register_with_handler(Handler, for_save=True, for_restore=True)
@dataclasses.dataclass
class Save(ocp.args.CheckpointArgs):
    """What is to be written: arrays by name."""

    arrays: dict[str, np.ndarray]


def read(directory) -> dict[str, np.ndarray]:
    """The arrays by name.

    Raises:
      OSError: a file is missing.
      ValueError: the files are not what was written.
    """
    directory = pathlib.Path(directory)
    content = (directory / _ARRAYS).read_bytes()
    try:
        index = json.loads((directory / _INDEX).read_text())
        total, about = hashlib.sha256(), index["arrays"]
        total.update(canonical(about).encode())
        total.update(content)
        if total.hexdigest() != index["sha256"]:
            raise ValueError("another sum")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its checksum is wrong") from error
    arrays, start = {}, 0
    for name, kind, shape in about:
        kind, count = jnp.dtype(kind), math.prod(shape)
        array = np.frombuffer(content, kind, count, start).reshape(shape)
        arrays[name], start = array.copy(), start + array.nbytes
    return arrays


def _write(directory, arrays) -> None:
    about = [[name, x.dtype.name, list(x.shape)] for name, x in arrays.items()]
    total = hashlib.sha256(canonical(about).encode())
    with open(directory / _ARRAYS, "wb") as file:
        for array in arrays.values():
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            total.update(content)
            file.write(content)
        _sync(file)
    index = canonical({"arrays": about, "sha256": total.hexdigest()})
    with open(directory / _INDEX, "w") as file:
        file.write(index)
        _sync(file)


def _sync(file) -> None:
    file.flush()
    os.fsync(file.fileno())

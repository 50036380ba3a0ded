"""What is on disk: finished artifacts, and the states of unfinished stages.

A stage's folder is `<workdir>/<stage>/<name>-<hash>/`, where the hash is of all the
artifact was made from (its part of the config, the data, the artifacts upstream). So a
changed teacher has another folder than the old one: nothing stale is ever read, and
nothing is overwritten. In the folder:

    artifact.npz     the arrays, present only when complete
    manifest.json    what they were made from, their checksum, and the stage's record
    checkpoints/     states of the unfinished stage (orbax), removed at the end
    parts/           finished parts of the unfinished artifact, removed at the end
    unreadable/      states that could not be read, kept until the end
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import zipfile
from typing import Any

import jax
import numpy as np
from absl import logging

__all__ = [
    "Stage",
    "canonical",
    "digest",
    "fingerprint",
    "flatten",
    "load",
    "record",
    "unflatten",
    "write_atomically",
]

_ARTIFACT, _MANIFEST = "artifact.npz", "manifest.json"


class Stage:
    """The folder of one artifact."""

    def __init__(self, workdir, stage: str, name: str, made_from: dict):
        """Finds the folder; makes it, and so shows early that it can be written to.

        Args:
          workdir: of the whole pipeline.
          stage: "squeeze", "stats", ...
          name: for people, such as "wmdd-ipc10".
          made_from: all the artifact depends on; plain values that JSON can hold.

        Raises:
          ValueError: the folder cannot be made or written to.
        """
        self.made_from = json.loads(canonical(made_from))
        self.hash = fingerprint(made_from)
        self.folder = pathlib.Path(workdir) / stage / f"{name}-{self.hash}"
        self._manager = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"cannot write to the work folder {self.folder}: {error.strerror}. "
                "Choose another one with --workdir=PATH."
            ) from error

    # Finished artifacts ------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether the artifact was finished."""
        return (self.folder / _MANIFEST).exists()

    def record(self) -> dict:
        """What `finish` was told."""
        return _read_manifest(self.folder)["record"]

    def load(self) -> dict[str, np.ndarray]:
        """The arrays by name.

        Raises:
          ValueError: they are not what was written.
        """
        return load(self.folder)

    def finish(self, arrays: dict[str, np.ndarray], record: dict) -> None:
        """Writes the artifact, all or nothing, and then drops the checkpoints.

        Args:
          arrays: by name; see `flatten`.
          record: plain values worth keeping: scores, seconds, class names.
        """
        path = self.folder / _ARTIFACT
        write_atomically(path, lambda file: np.savez(file, **arrays))
        manifest = {
            "made_from": self.made_from,
            "sha256": _checksum(path),
            "record": record,
        }
        text = json.dumps(manifest, indent=1).encode()
        write_atomically(self.folder / _MANIFEST, lambda file: file.write(text))
        self.close()
        for unfinished in ("checkpoints", "parts", "unreadable"):
            shutil.rmtree(self.folder / unfinished, ignore_errors=True)
        for path in self.folder.glob(".*.*.*"):  # what a killed process was writing
            path.unlink(missing_ok=True)

    # Finished parts of an unfinished artifact ---------------------------------------

    def save_part(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes a part, all or nothing."""
        path = self.folder / "parts" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def load_part(self, name: str) -> dict[str, np.ndarray] | None:
        """A part, or None where it was not finished."""
        path = self.folder / "parts" / f"{name}.npz"
        if not path.exists():
            return None
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (EOFError, OSError, ValueError, zipfile.BadZipFile):
            logging.warning("%s cannot be read; making it again.", path)
            return None

    # States of unfinished stages ---------------------------------------------------

    def save(self, step: int, state: Any) -> None:
        """Saves a state in the background. The last two are kept."""
        import orbax.checkpoint as ocp

        # A copy: on a CPU the arrays are views of memory that the loop reuses.
        host = jax.tree.map(lambda x: np.array(x, copy=True), state)
        with self._refused():
            self._checkpoints().save(step, args=ocp.args.StandardSave(host))

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest state that can be read, or None.

        Args:
          like: a tree of arrays, or shapes, as `save` was given.

        Returns:
          (step, state) or None.
        """
        if not (self.folder / "checkpoints").exists():
            return None
        import orbax.checkpoint as ocp

        target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        for step in sorted(self._checkpoints().all_steps(), reverse=True):
            try:
                args = ocp.args.StandardRestore(target)
                state = self._checkpoints().restore(step, args=args)
                jax.tree.map(_check_shape, state, target)  # orbax does not
                return step, state
            except Exception as error:  # noqa: BLE001  (orbax raises many kinds)
                logging.warning(
                    "checkpoint %d in %s cannot be read (%s); trying the one before.",
                    step,
                    self.folder,
                    str(error).splitlines()[0],
                )
                self._set_aside(step)  # else it could not be saved again
        return None

    def close(self) -> None:
        """Waits for saves in the background."""
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with self._refused():
                manager.close()

    def drop_states(self) -> None:
        """Removes all states: orbax saves none below the newest."""
        self.close()
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def _set_aside(self, step: int) -> None:
        self.close()
        aside = self.folder / "unreadable"
        aside.mkdir(exist_ok=True)
        shutil.rmtree(aside / str(step), ignore_errors=True)
        shutil.move(self.folder / "checkpoints" / str(step), aside / str(step))

    @contextlib.contextmanager
    def _refused(self):
        """What orbax raises as a ValueError that says what to do."""
        try:
            yield
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"cannot write a state to {self.folder}: {reason} Make room, or choose "
                "another --workdir, and run the same command again."
            ) from error

    def _checkpoints(self):
        if self._manager is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(
                max_to_keep=2, cleanup_tmp_directories=True
            )
            folder = (self.folder / "checkpoints").absolute()
            self._manager = ocp.CheckpointManager(folder, options=options)
        return self._manager


def load(folder) -> dict[str, np.ndarray]:
    """The arrays of a finished artifact, checked against their checksum.

    Raises:
      ValueError: there is no finished artifact, or its bytes are not what was written.
    """
    folder = pathlib.Path(folder)
    manifest, path = _read_manifest(folder), folder / _ARTIFACT
    if not path.exists() or _checksum(path) != manifest["sha256"]:
        raise ValueError(
            f"{path} is damaged (its bytes are not those that were written). Put back "
            f"a copy, or remove the folder {folder} to have it made again."
        )
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def record(folder) -> dict:
    """The record of a finished artifact, and under "made_from" what it came from."""
    manifest = _read_manifest(pathlib.Path(folder))
    return {**manifest["record"], "made_from": manifest["made_from"]}


def _read_manifest(folder: pathlib.Path) -> dict:
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if not {"made_from", "sha256", "record"} <= set(manifest):
            raise ValueError("a field is missing")
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"no finished artifact in {folder} (no {_MANIFEST})."
        ) from None
    except ValueError:
        raise ValueError(
            f"{path} is damaged. Put back a copy, or remove the folder {folder} to "
            "have it made again."
        ) from None


def _check_shape(found, wanted) -> None:
    if np.shape(found) != np.shape(wanted):
        raise ValueError(f"shape {np.shape(found)} instead of {np.shape(wanted)}")


def _checksum(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path, write) -> None:
    """Calls `write(file)` on a temporary file and renames it to `path` at the end.

    Raises:
      ValueError: the disk is full, or refuses; what was at `path` is untouched.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
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

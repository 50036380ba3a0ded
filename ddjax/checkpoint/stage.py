"""The folder of a stage: its artifact, and what there is of an unfinished one.

A stage's folder is `<workdir>/<stage>/<name>-<hash>/`, where the hash is of all the
artifact was made from (its part of the config, the data, the artifacts upstream). So a
changed teacher has another folder than the old one: nothing stale is ever read, and
nothing is overwritten. Of several hosts, which share the folder, the primary writes
the artifact, and each the parts and states that are its own. In the folder:

    artifact.npz     the arrays, present only when complete
    manifest.json    what they were made from, their checksum, the stage's record, and
                     a checksum of all that
    checkpoints/     states of the unfinished stage, removed at the end
    parts/           finished parts of the unfinished artifact, removed at the end
    unreadable/      states that could not be read, kept until the end
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import socket
from typing import Any

import numpy as np
from absl import logging

from ddjax import parallel
from ddjax.checkpoint import late
from ddjax.checkpoint.arrays import (
    canonical,
    checksum,
    fingerprint,
    write_atomically,
)
from ddjax.checkpoint.states import States, names

__all__ = ["Stage", "load", "record"]

_ARTIFACT, _MANIFEST = "artifact.npz", "manifest.json"
_UNFINISHED = ("checkpoints", "parts", "unreadable")
_SUM = "sha256"  # beside the arrays of a part


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
        self._states = {}  # by name
        begins = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".probe.{os.getpid()}.{socket.gethostname()}"
            probe.touch()
            probe.unlink(missing_ok=True)  # another host may have tidied up
        except OSError as error:
            raise ValueError(
                f"cannot write to the work folder {self.folder}: {error.strerror}. "
                "Choose another one with --workdir=PATH."
            ) from error
        if begins:
            self._tell_of_others()
        elif parallel.is_primary() and self._written() and self._has_leftovers():
            self._tidy()  # it was killed after its last word

    # Finished artifacts ------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether the artifact was finished; all hosts hear what the primary sees."""
        complete = parallel.agree(f"complete {self.folder.name}", self._written())
        if complete:
            self._await()
        return complete

    def record(self) -> dict:
        """What `finish` was told, perhaps on another host.

        Raises:
          ValueError: there is none, or it is damaged.
        """
        if parallel.host_count() > 1:
            self._await()
        return _read_manifest(self.folder)["record"]

    def load(self) -> dict[str, np.ndarray]:
        """The arrays by name.

        Raises:
          ValueError: they are not what was written.
        """
        return load(self.folder)

    def finish(self, arrays: dict[str, np.ndarray], record: dict) -> None:
        """Writes the artifact, all or nothing, and then drops the checkpoints.

        Of several hosts the primary does; the others wait for it.

        Args:
          arrays: by name; see `flatten`. Only the primary's are used.
          record: plain values worth keeping: scores, seconds, class names.
        """
        with contextlib.suppress(ValueError):  # a lost state does not matter any more
            self.close()
        if parallel.is_primary():
            self._write(arrays, record)
            self._tidy()
        parallel.agree(f"finished {self.folder.name}")
        self._await()

    def _write(self, arrays, record):
        path = self.folder / _ARTIFACT
        write_atomically(path, lambda file: np.savez(file, **arrays))
        manifest = {
            "made_from": self.made_from,
            "sha256": _checksum(path),
            "record": record,
        }
        manifest["own_sha256"] = _own_checksum(manifest)
        text = json.dumps(manifest, indent=1).encode()
        write_atomically(self.folder / _MANIFEST, lambda file: file.write(text))

    def _written(self) -> bool:
        return (self.folder / _MANIFEST).exists()

    def _await(self):
        """Waits for what another host has written: a network's files may come late.

        Raises:
          ValueError: it does not come.
        """
        if not late.seen(self._written):
            raise ValueError(
                f"host 0 has finished {self.folder}, and host "
                f"{parallel.host_index()} does not see it. The workdir must be one "
                "folder that all hosts share."
            )

    # Finished parts of an unfinished artifact ---------------------------------------

    def save_part(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes a part, all or nothing."""
        path = self.folder / "parts" / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        arrays[_SUM] = np.array(checksum(arrays))
        write_atomically(path, lambda file: np.savez(file, **arrays))

    def has_part(self, name: str) -> bool:
        """Whether a part was written."""
        return (self.folder / "parts" / f"{name}.npz").exists()

    def load_part(self, name: str) -> dict[str, np.ndarray] | None:
        """A part, or None where it was not finished."""
        if not self.has_part(name):
            return None
        path = self.folder / "parts" / f"{name}.npz"
        try:
            return _read_part(path)
        except Exception:  # noqa: BLE001  (damage makes zipfile raise many kinds)
            logging.warning("%s is damaged; making it again.", path)
            return None

    # States of the unfinished stage ---------------------------------------------------

    def save(self, step: int, state: Any, name: str = "") -> None:
        """Saves a state in the background; see `States`.

        Args:
          step: above all that were saved.
          state: a tree of arrays.
          name: whose it is, where several hosts keep their own; one that has no name is
            that of all hosts, and the primary saves it.
        """
        if name or parallel.is_primary():
            self._of(name).save(step, state)

    def restore(self, like: Any = None, name: str = "") -> tuple[int, Any] | None:
        """The newest state of a name that is whole, or None; see `States`.

        Args:
          like: a tree of arrays, or shapes, as `save` was given; None takes what comes.
          name: as `save` was given.

        Returns:
          (step, state) or None; with no `like` the state is arrays by name. All hosts
          get the same one where it has no name.
        """
        if name or parallel.host_count() == 1:
            return self._of(name).restore(like)
        found = self._of(name).restore(like) if parallel.is_primary() else None
        about = f"state of {self.folder.name}"
        step = parallel.agree(about, None if found is None else found[0])
        if step is not None and not parallel.is_primary():
            found = self._of(name).restore(like, mine=False)
            if found is None or found[0] != step:
                raise ValueError(
                    f"host {parallel.host_index()} does not see the state of step "
                    f"{step} in {self.folder}. The workdir must be one folder that all "
                    "hosts share."
                )
        return found

    def states(self) -> list[str]:
        """The names that there are states of, sorted."""
        return names(self.folder)

    def close(self) -> None:
        """Waits for saves in the background."""
        for found in self._states.values():
            found.close()

    def drop_states(self, name: str = "") -> None:
        """Removes all states of a name: orbax saves none below the newest."""
        self._of(name).drop()

    def _of(self, name) -> States:
        if name not in self._states:
            self._states[name] = States(self.folder, name)
        return self._states[name]

    def _has_leftovers(self) -> bool:
        return any((self.folder / kind).exists() for kind in _UNFINISHED)

    def _tidy(self) -> None:
        """Removes what an unfinished stage has; also what a kill has left of it."""
        for path in self.folder.glob(".*.*.*"):  # what a killed process was writing
            path.unlink(missing_ok=True)
        for unfinished in _UNFINISHED:
            shutil.rmtree(self.folder / unfinished, ignore_errors=True)

    def _tell_of_others(self) -> None:
        """Says that another config was not finished, lest it be looked for here."""
        title = self.folder.name[:-12]
        for path in self.folder.parent.glob(f"{title}*"):
            begun = any((path / kind).exists() for kind in _UNFINISHED)
            if begun and path.name[:-12] == title and not (path / _MANIFEST).exists():
                logging.info(
                    "%s is unfinished, of another config; it is left alone.", path
                )


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
        own = _own_checksum(manifest)
        if manifest.get("own_sha256", own) != own:  # which the first versions lack
            raise ValueError("another sum")
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


def _own_checksum(manifest: dict) -> str:
    plain = json.loads(json.dumps(manifest))  # as it comes back
    plain.pop("own_sha256", None)
    return hashlib.sha256(canonical(plain).encode()).hexdigest()


def _read_part(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a part, if they are what was written.

    The sums in a zip file are not enough: a bit in its directory hides an array.
    """
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
        arrays = dict(found)
    if str(arrays.pop(_SUM)) != checksum(arrays):
        raise ValueError("another sum")
    return arrays


def _checksum(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The states of an unfinished stage: saved in the background, checked when read."""

import contextlib
import pathlib
import shutil
import threading
from typing import Any

import jax
import numpy as np
from absl import logging

from ddjax.checkpoint.arrays import flatten, unflatten

__all__ = ["States", "names"]

_ONE_AT_A_TIME = threading.Lock()


class States:
    """States of one name, in `<stage>/checkpoints/<name>/<step>/`.

    Only this process writes them and no other is waited for, so that each of many hosts
    may keep its own.
    """

    def __init__(self, stage: pathlib.Path, name: str = ""):
        """Finds the folder; nothing is made before the first `save`.

        Args:
          stage: folder of the stage.
          name: whose states they are; begins with a letter, as steps do not.

        Raises:
          ValueError: the name is none.
        """
        if name and not name.isidentifier():
            raise ValueError(f"a state's name is letters and digits, not {name!r}.")
        self._stage, self._name, self._manager = stage, name, None
        self._folder = stage / "checkpoints" / name

    def save(self, step: int, state: Any) -> None:
        """Saves a state in the background. The last two are kept.

        Threads beside the main one wait for the end: orbax numbers the saves of a
        process, and one that others overtake waits for five minutes and fails.

        Args:
          step: above all that were saved.
          state: a tree of arrays; see `flatten` for the names they are kept by.

        Raises:
          ValueError: this one, or the one before, could not be written.
        """
        from ddjax.checkpoint import files  # slow to import

        # A copy: on a CPU the arrays are views of memory that the loop reuses.
        arrays = {k: np.array(x, copy=True) for k, x in flatten(state).items()}
        with self._refused(), _ONE_AT_A_TIME:
            self._open().save(step, args=files.Save(arrays))
            if threading.current_thread() is not threading.main_thread():
                self._manager.wait_until_finished()

    def restore(self, like: Any = None, *, mine: bool = True) -> tuple[int, Any] | None:
        """The newest state that is whole, or None; others are set aside.

        Args:
          like: a tree of arrays, or shapes, as `save` was given; None takes what comes.
          mine: whether this host saves them; what another saves is left where it is.

        Returns:
          (step, state) or None; with no `like` the state is arrays by name.
        """
        with self._refused():
            if self._manager is not None:
                self._manager.wait_until_finished()
        for step in sorted(_steps(self._folder), reverse=True):
            from ddjax.checkpoint import files  # slow to import

            try:
                arrays = files.read(self._folder / str(step) / "default")
                return step, arrays if like is None else _fitted(arrays, like)
            except (OSError, ValueError) as error:
                logging.warning(
                    "checkpoint %d in %s cannot be read (%s); trying the one before.",
                    step,
                    self._stage,
                    _first_line(error),
                )
                if mine:
                    self._set_aside(step)  # else it could not be saved again
        return None

    def close(self) -> None:
        """Waits for saves in the background.

        Raises:
          ValueError: one could not be written.
        """
        if self._manager is not None:
            manager, self._manager = self._manager, None
            with self._refused():
                manager.close()

    def drop(self) -> None:
        """Removes all states of this name: orbax saves none below the newest."""
        self.close()
        for step in _steps(self._folder):
            shutil.rmtree(self._folder / str(step), ignore_errors=True)

    def _set_aside(self, step: int) -> None:
        self.close()
        aside = self._stage / "unreadable" / self._name / str(step)
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another host has done it
            shutil.move(self._folder / str(step), aside)

    @contextlib.contextmanager
    def _refused(self):
        """What orbax raises as a ValueError that says what to do."""
        try:
            yield
        except Exception as error:
            raise ValueError(
                f"cannot write a state to {self._stage}: {_first_line(error)} Make "
                "room, or choose another --workdir, and run the same command again."
            ) from error

    def _open(self):
        if self._manager is None:
            import orbax.checkpoint as ocp  # slow to import

            self._folder.mkdir(parents=True, exist_ok=True)
            process = jax.process_index()
            alone = ocp.options.MultiprocessingOptions(
                primary_host=process,
                active_processes={process},
                barrier_sync_key_prefix=f"process{process}",
            )
            options = ocp.CheckpointManagerOptions(
                max_to_keep=2,
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=alone,
            )
            folder = self._folder.absolute()
            self._manager = ocp.CheckpointManager(folder, options=options)
        return self._manager


def names(stage: pathlib.Path) -> list[str]:
    """The names that there are states of; "" where they have none."""
    folder = stage / "checkpoints"
    if not folder.exists():
        return []
    named = sorted(p.name for p in folder.iterdir() if p.name.isidentifier())
    return [name for name in ["", *named] if _steps(folder / name)]


def _steps(folder: pathlib.Path) -> list[int]:
    """Steps of the states that were completely written."""
    if not folder.exists():
        return []
    return [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]


def _fitted(arrays, like):
    state = unflatten(arrays, like)
    for (name, found), wanted in zip(flatten(state).items(), jax.tree.leaves(like)):
        if found.dtype != wanted.dtype:
            raise ValueError(f"{name} is {found.dtype} instead of {wanted.dtype}")
    return state


def _first_line(error) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

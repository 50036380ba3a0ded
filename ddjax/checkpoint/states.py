"""The states of an unfinished stage, by orbax."""

import contextlib
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from absl import logging

__all__ = ["States"]


class States:
    """States in the folder of a stage, under `checkpoints/`."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self._manager = folder, None

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

    def drop(self) -> None:
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


def _check_shape(found, wanted) -> None:
    if np.shape(found) != np.shape(wanted):
        raise ValueError(f"shape {np.shape(found)} instead of {np.shape(wanted)}")

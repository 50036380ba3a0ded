"""The losses of a loop: in memory, as JSON lines on disk, and for TensorBoard."""

import json
import os
import pathlib
import shutil

from ddjax import checkpoint, parallel

FILE = "metrics.jsonl"  # in a stage's folder: a row in each line
_FLUSH_S = 2  # until a page of TensorBoard can show new rows
_WRITERS = []  # tensorboardX.SummaryWriter, once it is asked for


def enable_tensorboard() -> None:
    """From now on, histories are written for TensorBoard too.

    Raises:
      ValueError: the package for it is not there.
    """
    try:
        import tensorboardX  # optional, and slow to import
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs a package that is not installed; run: "
            'pip install "ddjax[tensorboard]"'
        ) from error
    _WRITERS[:] = [tensorboardX.SummaryWriter]


def read(folder) -> list[dict]:
    """The rows in a stage's folder: "step" and the losses; none if there is no file.

    A last line that was cut off, when the process was killed, is left out.
    """
    try:
        lines = (pathlib.Path(folder) / FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1]]


class History:
    """Rows of one loop, appended to <folder>/metrics.jsonl while it runs."""

    def __init__(self, folder: pathlib.Path, done: int):
        """Takes back what was written up to a step.

        Args:
          folder: of the stage.
          done: steps already made; rows beyond them are dropped, for the loop goes on
            from a state of that step and makes them again.
        """
        self.rows = [row for row in read(folder) if row["step"] <= done]
        self._path, self._board = folder / FILE, None
        self._mine = parallel.is_primary()  # other hosts keep theirs in memory
        if self._mine:
            text = _lines(self.rows)
            checkpoint.write_atomically(self._path, lambda file: file.write(text))
            self._board = _begin_board(folder / "tensorboard")
            self._show(self.rows)

    def append(self, rows: list[dict]) -> None:
        """Adds rows, on disk too.

        Raises:
          ValueError: the disk is full, or refuses.
        """
        self.rows += rows
        if not self._mine:
            return
        try:
            with open(self._path, "ab") as file:
                file.write(_lines(rows))
        except OSError as error:
            raise ValueError(
                f"cannot write {self._path}: {error.strerror}. Make room, or choose "
                "another --workdir, and run the same command again."
            ) from error
        self._show(rows)

    def sync(self) -> None:
        """Waits until the rows would outlive a crash of the machine."""
        if self._mine:
            with open(self._path, "rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Closes TensorBoard's file; the next rows begin another."""
        if self._board is not None:
            self._board.close()

    def _show(self, rows) -> None:
        if self._board is None:
            return
        for row in rows:
            for name in row.keys() - {"step"}:
                self._board.add_scalar(name, row[name], row["step"])


def _begin_board(folder):
    """TensorBoard's writer, if it was asked for; the files of an earlier run go."""
    if not _WRITERS:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    return _WRITERS[0](str(folder), flush_secs=_FLUSH_S)


def _lines(rows) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()

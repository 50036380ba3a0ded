"""A trace of a few steps of every loop, for --profile: where their time goes."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

import jax
from absl import logging

FOLDER = "profile"  # in a stage's folder
_BEFORE = 3  # calls of a loop's program, so that compiling it is not in the trace
_CALLS = 5  # in the trace: as many steps, or, where steps are fused, blocks of them
_IS_ON = [False]
_RUNNING = []  # the trace that is being made: JAX makes one at a time


@contextlib.contextmanager
def loops() -> Iterator[None]:
    """While it lasts, every loop with a monitor leaves a trace in its stage's folder.

    A trace that is under way when a run ends, well or not, is written then.
    """
    _IS_ON[0] = True
    try:
        yield
    finally:
        _IS_ON[0] = False
        while _RUNNING:
            _RUNNING[0].stop()


def is_on() -> bool:
    """Whether loops leave traces: then only one may run at a time."""
    return _IS_ON[0]


class Trace:
    """Of one loop; does nothing unless `loops` is on, nor on any host but the first.

    Results are the same with it. Its first and its last step wait for the devices, so
    that all their work is in it and none of the steps before.
    """

    def __init__(self, folder: pathlib.Path, total: int, done: int):
        """Prepares it.

        Args:
          folder: of the stage, whose kind ("recover") the steps are called by.
          total: steps of the loop.
          done: steps already made.
        """
        self._folder, self._total, self._done = folder, total, done
        self._calls, self._first, self._step = 0, None, None
        self._begin = self._end = None  # calls; known after the first
        self._ended = not _IS_ON[0] or jax.process_index() > 0

    def __call__(self, done: int, metrics) -> None:
        """Notes that the loop's program was called; begins or ends the trace.

        Args:
          done: steps made.
          metrics: of the call, to wait for.
        """
        if self._ended:
            return
        self._leave_step()
        block, self._done = done - self._done, done
        self._calls += 1
        if self._end is None:
            left = -(-(self._total - done) // block)  # calls
            self._begin = min(_BEFORE, max(1, 1 + left - _CALLS))  # earlier if short
            self._end = self._begin + min(_CALLS, left)
        if self._calls in (self._begin, self._end):
            jax.block_until_ready(metrics)
        if self._calls == self._end:
            self.stop()
        elif self._calls == self._begin:
            self._start()
        if self in _RUNNING:
            kind = self._folder.parent.name
            self._step = jax.profiler.StepTraceAnnotation(kind, step_num=done + 1)
            self._step.__enter__()

    def stop(self) -> None:
        """Writes what there is; a trace that cannot be written harms no run."""
        self._ended = True
        if self not in _RUNNING:
            return logging.info("%s: too few steps for a trace.", self._folder)
        self._leave_step()
        _RUNNING.remove(self)
        path = self._folder / FOLDER
        try:
            jax.profiler.stop_trace()
            (shown,) = path.rglob("perfetto_trace.json.gz")
        except (OSError, RuntimeError, ValueError) as error:
            _IS_ON[0] = False  # the profiler does not begin again after this
            return logging.warning("no trace in %s, and no other: %s", path, error)
        return logging.info(
            "trace of steps %d to %d: open %s at https://ui.perfetto.dev, or install "
            "xprof and run: xprof --logdir %s",
            self._first,
            self._done,
            shown,
            path,
        )

    def _start(self):
        while _RUNNING:  # of a loop that was left
            _RUNNING[0].stop()
        path, self._first = self._folder / FOLDER, self._done + 1
        shutil.rmtree(path, ignore_errors=True)  # of an earlier run
        jax.profiler.start_trace(path, create_perfetto_trace=True)
        _RUNNING.append(self)

    def _leave_step(self):
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

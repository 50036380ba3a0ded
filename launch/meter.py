"""What a stage costs: seconds, the compiler's apart, and memory.

A stage measures itself and writes the numbers into its record:

    with meter.watch("squeeze") as cost:
        ...
    stage.finish(arrays, {..., **cost.record()})
"""

import contextlib
import functools
import pathlib
import resource
import sys
import time
from collections.abc import Iterator

import jax
from absl import logging

from ddjax import parallel

_COMPILING = "/jax/core/compile/"  # tracing, lowering, and compiling or loading
_STATUS = pathlib.Path("/proc/self/status")  # of Linux, as is the next
_CLEAR = pathlib.Path("/proc/self/clear_refs")
_WATCHED = []  # costs that are being measured; the innermost is the last


class Cost:
    """What was measured, once the block of `watch` has ended.

    Attributes:
      seconds: on the wall, without `compile_seconds`.
      compile_seconds: while JAX traced, lowered and compiled, or took a program from
        the compile cache.
      peak_bytes: the most held on one accelerator since the process began, which
        alone its allocator counts; or resident in the process, on a CPU: during the
        block where the system is Linux, elsewhere since the process began.
    """

    def __init__(self):
        self.seconds = self.compile_seconds = 0.0
        self.peak_bytes = 0
        self._spans, self._elsewhere = [], 0.0
        self._began = time.monotonic()

    def record(self) -> dict:
        """The three numbers, for a stage's record."""
        return {
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
            "peak_bytes": self.peak_bytes,
        }

    def __str__(self):
        return (
            f"{self.seconds:.1f} s, and {self.compile_seconds:.1f} s to compile; at "
            f"most {self.peak_bytes / 1e6:,.0f} MB"
        )

    def _close(self) -> float:
        """Fills in the seconds; gives those of the whole block."""
        whole = time.monotonic() - self._began
        self.compile_seconds = _covered(self._spans)
        self.seconds = max(0.0, whole - self._elsewhere - self.compile_seconds)
        return whole


@contextlib.contextmanager
def watch(title: str = "", *, beside: bool = False) -> Iterator[Cost]:
    """Measures a block.

    A stage inside another counts for itself alone: its seconds are not the outer
    one's, so that the stages of a run can be summed. Its memory is in both.

    Args:
      title: said in the log with the numbers, if the block ends well; "" for silence.
      beside: others may be measured at the same time, in other threads, none inside
        another. What is compiled counts for the one that began last.
    """
    _listen()
    _note_peak()
    _reset_peak()
    cost = Cost()
    outer = _WATCHED[-1] if _WATCHED and not beside else None
    _WATCHED.append(cost)
    try:
        yield cost
    finally:
        _note_peak()
        _WATCHED.remove(cost)
        whole = cost._close()
        if outer is not None:
            outer._elsewhere += whole
    if title:
        logging.info("%s: %s.", title, cost)


@functools.cache  # a listener stays as long as the process
def _listen():
    jax.monitoring.register_event_time_span_listener(_heard)


def _heard(event: str, start: float, end: float, **about) -> None:
    del about
    if _WATCHED and event.startswith(_COMPILING):
        _WATCHED[-1]._spans.append((start, end))


def _covered(spans) -> float:
    """Seconds in at least one span: threads compile at once, and tracings nest."""
    total, reached = 0.0, -float("inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _note_peak() -> None:
    """Tells all that is being measured of the peak since the last reset."""
    peak = parallel.peak_bytes() or _resident_peak()
    for cost in _WATCHED:
        cost.peak_bytes = max(cost.peak_bytes, peak)


def _reset_peak() -> None:
    with contextlib.suppress(OSError):  # not Linux, or a container forbids it
        _CLEAR.write_text("5")


def _resident_peak() -> int:
    """Bytes: since the last reset on Linux, else since the process began."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""Looks after the other hosts, so that none waits for ever for one that is gone.

Each host gives a sign of life every second. When one has been silent for too long, or
has told what went wrong with it, the others end, with words that say so; JAX's own
heartbeat would end them too, later and with less to read. A stop that was asked of one
host is asked of all; the primary, whose end is everybody's, goes last.
"""

import contextlib
import os
import sys
import threading
import time

import jax

from ddjax.parallel import board

__all__ = ["PULSE_S", "Stops", "Watch", "end"]

PULSE_S = 1.0
_GRACE_S = 60.0  # for the others to save what they have, when all are to stop


class Stops:
    """How a program is asked to stop; one that is never asked."""

    code = 143  # that it ends with

    def asked(self) -> bool:
        """Whether this host was."""
        return False

    def ask(self) -> bool:
        """Asks it, because another was; whether it will see to its own end."""
        return False


class Watch(threading.Thread):
    """A thread: the program itself may be waiting inside a device."""

    def __init__(self, silence_s: float, stops: Stops):
        """Looks at nothing yet; see `start`.

        Args:
          silence_s: seconds after which a silent host counts as dead.
          stops: of this host's program.
        """
        super().__init__(daemon=True, name="watch")
        self.silence_s, self._stops = silence_s, stops
        self._index, self._count = jax.process_index(), jax.process_count()
        self._ended, self._pulses = threading.Event(), {}

    def run(self):
        while not self._ended.wait(PULSE_S):
            try:
                self._pulse()
                self._hear()
                self._listen()
            except jax.errors.JaxRuntimeError:
                self._die("host 0, which all the others need, cannot be reached")

    def finish(self) -> bool:
        """Ends the watch; whether it was on until now."""
        was_on = not self._ended.is_set()
        self._ended.set()
        return was_on

    def _pulse(self):
        board.post(f"alive/{self._index}", time.monotonic())

    def _hear(self):
        """What the others have told."""
        if (failed := board.seen("failed")) is not None:
            board.post(f"heard/{self._index}", True)
            self._die(f"host {failed[0]} ended with: {failed[1]}")
        if self._stops.asked():
            board.post("stop", True)
        if board.seen("stop") is None:
            return
        goes_by_itself = self._stops.ask()
        # The primary's loop may need this host until its state is saved.
        needed = self._index > 0 and not board.seen("parted/0")
        if board.seen("released") or not (goes_by_itself or needed):
            self.part("stopped with the other hosts.\n")

    def fail(self, message: str) -> None:
        """Tells the others why this host ends, and waits until they have heard.

        The primary's end is everybody's: it waits for busy ones, as long as for silent
        ones.
        """
        board.post("failed", [self._index, message])
        board.post(f"heard/{self._index}", True)
        deadline = time.monotonic() + self.silence_s
        while self._index == 0 and time.monotonic() < deadline:
            if all(board.seen(f"heard/{i}") for i in range(self._count)):
                break
            time.sleep(PULSE_S / 4)
        time.sleep(3 * PULSE_S)

    def part(self, words: str = "") -> None:
        """Ends this host's part of a program that was asked to stop, with these words."""
        if not self.finish():
            return
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # host 0 is gone already
            self._take_leave()
        end(words, self._stops.code)

    def _take_leave(self):
        """Waits, alive, for the others: JAX ends them once one is gone."""
        board.post("stop", True)
        board.post(f"parted/{self._index}", True)
        deadline = time.monotonic() + _GRACE_S
        while not all(board.seen(f"parted/{i}") for i in range(self._count)):
            if time.monotonic() > deadline:
                break
            self._pulse()
            time.sleep(PULSE_S / 4)
        if self._index == 0:
            time.sleep(PULSE_S)

    def _listen(self):
        """Whether they are alive, by this host's own clock."""
        now = time.monotonic()
        for i in range(self._count):
            pulse = board.seen(f"alive/{i}")
            last = self._pulses.setdefault(i, (pulse, now))
            if pulse != last[0]:
                self._pulses[i] = pulse, now
            elif now - last[1] > self.silence_s:
                self._die(
                    f"host {i} of {self._count} has given no sign of life for "
                    f"{self.silence_s:g} s"
                )

    def _die(self, reason):
        if not self.finish():
            return
        words = (
            f"error: {reason}. Start the program again on all hosts: it goes on from "
            "its last checkpoint.\n"
        )
        # The primary's end is everybody's: the others have words of their own.
        end(words, 1, 4 * PULSE_S if self._index == 0 else 0)


def end(message: str, code: int, after_s: float = 0):
    """Ends the process; what JAX does at the end would wait for the others.

    Args:
      message: said first.
      code: that it ends with.
      after_s: seconds to wait between the two.
    """
    sys.stderr.write(message)
    sys.stderr.flush()
    sys.stdout.flush()
    time.sleep(after_s)
    os._exit(code)

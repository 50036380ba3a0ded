"""A stop that was asked for: by a signal, by another thread, or by another host.

A running loop (see `progress.Monitor`) looks for it after each step, saves its state,
and ends the program. Where no loop runs, a signal ends the program at once.
"""

import contextlib
import signal
from typing import NamedTuple

_requests = []  # the first counts
_loops = []  # those that are running, and will look for it: whether each ends by itself
_at_once = [True]  # whether a signal ends the program where no loop runs


class Request(NamedTuple):
    """Why the program is to stop."""

    reason: str  # "SIGTERM", or who asked
    code: int  # that the program ends with


class Stopped(KeyboardInterrupt):
    """Ends the program because of a request."""

    def __init__(self, asked: Request, left: str = ""):
        """Says what is left, and what to do; nothing where `command.main` says it."""
        super().__init__(f"stopped by {asked.reason}. {left}")
        self.asked, self.left = asked, left


def listen(*, at_once: bool = True) -> None:
    """From now on, SIGTERM and Ctrl-C are requests; the second ends the program.

    To be called by the main thread, and after `jax.distributed.initialize`, which takes
    SIGTERM for itself.

    Args:
      at_once: whether the first ends it too where no loop runs; else another thread,
        such as the watch of a host that others may need, sees to its end.
    """
    _at_once[0] = at_once
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _receive)


def request(reason: str, code: int = 128 + signal.SIGTERM) -> None:
    """Asks the running loop, or the next one, to stop after its step."""
    _requests.append(Request(reason, code))


def requested() -> Request | None:
    """What was asked first, or None."""
    return _requests[0] if _requests else None


def is_awaited() -> bool:
    """Whether a loop runs that looks for requests and ends by itself."""
    return any(_loops)


@contextlib.contextmanager
def awaited(*, by_itself: bool = True):
    """A loop that looks for requests: within it, signals wait for that.

    Args:
      by_itself: whether it ends once it has seen one, or waits to be ended.

    Raises:
      Stopped: at the end, if there was one after the last look.
    """
    _loops.append(by_itself)
    try:
        yield
    finally:
        _loops.pop()
    if _requests and not _loops:
        raise Stopped(_requests[0])


def _receive(number, frame) -> None:
    del frame
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    request(signal.Signals(number).name, 128 + number)
    if _at_once[0] and not _loops:
        raise Stopped(_requests[0])

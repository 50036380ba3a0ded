"""The hosts of a pod: one process each, all running the same program.

All go through the same stages in the same order. What is independent they share out
(`share`); what one must know of another goes over JAX's coordination service (`agree`,
`gather`), which needs no device and works on any. Where hosts do different work, they
do it `alone`: within, each is by itself the only host there is. A host that dies is found out by `watch`.
"""

import contextlib
import itertools
import os
import threading
import time

import jax

from ddjax.parallel import board, watch

__all__ = [
    "agree",
    "alone",
    "await_news",
    "connect",
    "fail",
    "gather",
    "host_count",
    "host_index",
    "is_primary",
    "leave",
    "part",
    "release",
    "share",
]

_ALONE = []  # one entry for each `alone` that is open
_TURN = itertools.count()  # of agreements: the same on all hosts
_WATCH = []  # of the other hosts, where there are any


# Who is there ------------------------------------------------------------------------


def host_count() -> int:
    """How many hosts work together; 1 within `alone`."""
    return 1 if _ALONE or not jax.distributed.is_initialized() else jax.process_count()


def host_index() -> int:
    """Which of them this is, from 0; 0 within `alone`."""
    return 0 if host_count() == 1 else jax.process_index()


def is_primary() -> bool:
    """Whether this host writes what there is one of, such as a report."""
    return host_index() == 0


def share(items) -> list:
    """This host's part of a list: every n-th item. All of it where it is alone."""
    return list(items)[host_index() :: host_count()]


@contextlib.contextmanager
def alone():
    """Within, this host works for itself: it is the only one and the primary."""
    _ALONE.append(True)
    try:
        yield
    finally:
        _ALONE.pop()


# What they tell each other -----------------------------------------------------------


def agree(about: str, value=None):
    """The primary's value, on all hosts; they wait for it.

    Args:
      about: what it is about; the same on all hosts, or they have lost each other.
      value: plain, that JSON can hold.

    Raises:
      RuntimeError: the hosts are at different places of the program.
    """
    if host_count() == 1:
        return value
    turn = next(_TURN)
    if is_primary():
        board.post(f"turn{turn}/0", [about, value])
        return value
    return _answer(f"turn{turn}/0", about)


def gather(about: str, value=None) -> list:
    """The values of all hosts, in their order; nobody goes on before all are here.

    Args:
      about: see `agree`.
      value: plain, that JSON can hold.

    Raises:
      RuntimeError: the hosts are at different places of the program.
    """
    if host_count() == 1:
        return [value]
    turn = next(_TURN)
    # A host that agrees meanwhile finds host 0's words here, and that they are others.
    board.post(f"turn{turn}/{host_index()}", [about, value])
    return [_answer(f"turn{turn}/{i}", about) for i in range(host_count())]


def _answer(name, about):
    theirs, value = board.wait(name)
    if theirs != about:
        raise RuntimeError(
            f"hosts have lost each other: {about!r} here, {theirs!r} there."
        )
    return value


# Coming and going --------------------------------------------------------------------


def connect(
    coordinator: str = "",
    count: int = 0,
    index: int = -1,
    *,
    silence_s: float = 60.0,
    stops: watch.Stops | None = None,
) -> None:
    """Joins the hosts. To be called before JAX is asked for anything.

    Args:
      coordinator: "address:port" of host 0; "" where JAX finds it, and the two numbers
        below, by itself (Slurm, Open MPI, Kubernetes, Cloud TPU).
      count: hosts.
      index: of this one.
      silence_s: seconds after which a host that gives no sign of life counts as dead.
      stops: how this program is asked to stop; None: it is not.

    Raises:
      ValueError: there is nothing to join, or not all came.
    """
    by_hand = (coordinator, count, index) if coordinator else (None, None, None)
    try:
        jax.distributed.initialize(
            # Later than the watch, which has better words, has said them and is gone.
            *by_hand,
            heartbeat_timeout_seconds=int(2 * silence_s) + 20,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"cannot join the other hosts: {reason} On Slurm, Open MPI, Kubernetes and "
            "Cloud TPU the hosts are found without flags; elsewhere give --coordinator="
            "ADDRESS:PORT of host 0, --num_processes and --process_id, the same "
            "first two on every host."
        ) from error
    if _has_node(os.environ):
        for kind in ("cuda", "rocm"):
            jax.config.update(f"jax_{kind}_visible_devices", "all")
    if jax.process_count() > 1:
        _WATCH.append(watch.Watch(silence_s, stops or watch.Stops()))
        _WATCH[0].start()


def _has_node(environ) -> bool:
    """Whether Slurm or Open MPI has put this process alone on its node.

    JAX takes their processes for one to each device, and would see the first alone.
    """
    slurm = environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0]
    return "1" in (slurm, environ.get("OMPI_COMM_WORLD_LOCAL_SIZE"))


def leave() -> None:
    """Waits for the other hosts, at the end of a program that ends well."""
    if _WATCH:
        gather("end")
        ended = _WATCH.pop()
        ended.finish()
        ended.join()
        jax.distributed.shutdown()  # the primary must not be gone before the others


def fail(message: str) -> None:
    """Tells the other hosts why this one ends, and ends it; they end as it does.

    Returns where there are no others.
    """
    if not _WATCH:
        return
    if _WATCH[0].finish():
        _WATCH[0].fail(message)
    watch.end("", 1)


def await_news() -> None:
    """Waits for the watch to end this host, where the work with another has failed.

    It most likely knows who is gone; returns where it does not, or nobody is there.
    """
    if _WATCH:
        time.sleep(_WATCH[0].silence_s + 3 * watch.PULSE_S)


def release() -> None:
    """Lets all hosts go that were asked to stop: what they have alike is saved."""
    if host_count() > 1:
        board.post("released", True)


def part() -> None:
    """Ends this host after a stop, the primary last; returns where it is alone."""
    if _WATCH:
        _WATCH[0].part()
        threading.Event().wait()  # it is on its way

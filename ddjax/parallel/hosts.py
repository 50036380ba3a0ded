"""The hosts of a pod: one process each, all running the same program.

All go through the same stages in the same order. What is independent they share out
(`share`); what one must know of another goes over JAX's coordination service (`agree`,
`gather`), which needs no device and works on any. Where hosts do different work, they
do it `alone`: within, each is by itself the only host there is.

A host that dies must not leave the others waiting for ever. Each gives a sign of life
every few seconds, and ends with an error when another has been silent for too long, or
has told what went wrong with it. JAX's own heartbeat would end it too, later and with
less to read.
"""

import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable

import jax

__all__ = [
    "agree",
    "alone",
    "connect",
    "fail",
    "gather",
    "host_count",
    "host_index",
    "is_primary",
    "leave",
    "share",
]

_PULSE_S = 1.0
_WAIT_MS = 5000
_ALONE = []  # one entry for each `alone` that is open
_TURN = itertools.count()  # of agreements: the same on all hosts
_WATCH = []  # the thread that looks after the other hosts


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
        _post(f"turn{turn}", [about, value])
        return value
    return _answer(f"turn{turn}", about)


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
    _post(f"turn{turn}/{host_index()}", [about, value])
    return [_answer(f"turn{turn}/{i}", about) for i in range(host_count())]


def _answer(name, about):
    """What another host has posted, as soon as it has; the watch ends a vain wait."""
    while True:
        try:
            found = _client().blocking_key_value_get(_key(name), _WAIT_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            continue
        theirs, value = json.loads(found)
        if theirs != about:
            raise RuntimeError(
                f"hosts have lost each other: {about!r} here, {theirs!r} there."
            )
        return value


def _client():
    from jax._src import distributed  # no public door to it, as of jax 0.12

    return distributed.global_state.client


def _post(name, value) -> None:
    _client().key_value_set(_key(name), json.dumps(value), allow_overwrite=True)


def _seen(name):
    """What is posted now, or None."""
    try:
        return json.loads(_client().key_value_try_get(_key(name)))
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def _key(name) -> str:
    return f"ddjax/{name}"


# Coming and going --------------------------------------------------------------------


def connect(
    coordinator: str = "",
    count: int = 0,
    index: int = -1,
    *,
    silence_s: float = 60.0,
    on_stop: Callable | None = None,
) -> None:
    """Joins the hosts. To be called before JAX is asked for anything.

    Args:
      coordinator: "address:port" of host 0; "" where JAX finds it, and the two numbers
        below, by itself (Slurm, Open MPI, Kubernetes, Cloud TPU).
      count: hosts.
      index: of this one.
      silence_s: seconds after which a host that gives no sign of life counts as dead.
      on_stop: called, from another thread, when any host was told to stop.

    Raises:
      ValueError: there is nothing to join, or not all came.
    """
    by_hand = (coordinator, count, index) if coordinator else (None, None, None)
    try:
        jax.distributed.initialize(
            *by_hand, heartbeat_timeout_seconds=max(10, int(2 * silence_s))
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"cannot join the other hosts: {reason} On Slurm, Open MPI, Kubernetes and "
            "Cloud TPU the hosts are found without flags; elsewhere give --coordinator="
            "ADDRESS:PORT of host 0, --num_processes and --process_id, the same "
            "first two on every host."
        ) from error
    if jax.process_count() > 1:
        _WATCH.append(_Watch(silence_s, on_stop))
        _WATCH[0].start()


def leave() -> None:
    """Waits for the other hosts, at the end of a program that ends well."""
    if host_count() > 1:
        gather("end")
        _WATCH[0].ended.set()


def fail(message: str) -> None:
    """Tells the other hosts why this one ends; they end with the same words."""
    if not _WATCH or _WATCH[0].ended.is_set():
        return
    _WATCH[0].ended.set()
    _post("failed", [jax.process_index(), message])
    # The coordinator's end is everybody's: they must have read it before.
    time.sleep(3 * _PULSE_S)


class _Watch(threading.Thread):
    """Looks after the other hosts, whatever the program itself is waiting for."""

    def __init__(self, silence_s, on_stop):
        super().__init__(daemon=True, name="hosts")
        self.ended = threading.Event()
        self._silence_s, self._on_stop, self._others = silence_s, on_stop, {}
        self._index, self._count = jax.process_index(), jax.process_count()

    def run(self):
        pulse = itertools.count()
        while not self.ended.wait(_PULSE_S):
            try:
                _post(f"alive/{self._index}", next(pulse))
                self._look()
            except jax.errors.JaxRuntimeError:
                self._end("host 0, which all the others depend on, cannot be reached")

    def _look(self):
        now = time.monotonic()
        if (failed := _seen("failed")) is not None:
            self._end(f"host {failed[0]} ended with: {failed[1]}")
        if self._on_stop is not None and _seen("stop") is not None:
            self._on_stop()
        for i in range(self._count):
            pulse = _seen(f"alive/{i}")
            last = self._others.setdefault(i, (pulse, now))
            if pulse != last[0]:
                self._others[i] = pulse, now
            elif now - last[1] > self._silence_s:
                self._end(
                    f"host {i} of {self._count} has given no sign of life for "
                    f"{self._silence_s:g} s"
                )

    def _end(self, reason):
        """Ends the process: its main thread may be waiting inside a device."""
        if self.ended.is_set():
            return
        sys.stderr.write(
            f"error: {reason}. Start the program again on all hosts: it goes on from "
            "its last checkpoint.\n"
        )
        sys.stderr.flush()
        os._exit(1)

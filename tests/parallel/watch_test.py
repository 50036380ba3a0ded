"""When the watch ends a host, and how; the board is a dict, the end an exception."""

import itertools

import jax
import pytest

from ddjax.parallel import board, watch


class Ended(Exception):
    """In the place of the end of the process."""


class Stops(watch.Stops):
    def __init__(self, awaited):
        self._awaited = awaited

    def ask(self):
        return self._awaited


@pytest.fixture
def posted(monkeypatch):
    """The board; a second passes with each look at the clock."""
    posted, clock = {}, itertools.count()

    def end(message, code, after_s=0):
        raise Ended(message, code)

    monkeypatch.setattr(watch, "end", end)
    monkeypatch.setattr(board, "post", posted.__setitem__)
    monkeypatch.setattr(board, "seen", posted.get)
    monkeypatch.setattr(watch.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    return posted


@pytest.fixture
def host(posted, monkeypatch):
    """`host(index, awaited)`: its watch, that was not started."""

    def host(index, awaited=False):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        return watch.Watch(5.0, Stops(awaited))

    return host


def look(host, times):
    for _ in range(times):
        host._pulse()
        host._hear()
        host._listen()


def test_silent_host_ends_the_others(host):
    with pytest.raises(Ended, match="host 1 of 2 has given no sign of life"):
        look(host(0), 20)


def test_host_stays_until_the_primary_has_saved(host, posted):
    """It may not be in the loop yet whose steps need it."""
    posted["stop"] = True
    second = host(1)
    for pulse in range(5):
        posted["alive/0"] = pulse
        look(second, 1)
    posted["parted/0"] = True
    with pytest.raises(Ended) as ended:
        look(second, 1)
    assert ended.value.args[1] == 143


@pytest.mark.parametrize("index", [0, 1])
def test_host_that_parts_is_alive_until_all_do(index, host, posted, monkeypatch):
    """One may still save its state, and must not take another for dead."""
    pulses = []

    def sleep(seconds):
        del seconds
        pulses.append(posted[f"alive/{index}"])
        if len(pulses) == 10:
            posted[f"parted/{1 - index}"] = True

    monkeypatch.setattr(watch.time, "sleep", sleep)
    with pytest.raises(Ended) as ended:
        host(index).part()
    assert ended.value.args[1] == 143
    assert len(set(pulses)) == 10


def test_parting_does_not_wait_for_ever(host):
    with pytest.raises(Ended):
        host(0).part()


def test_parting_ends_though_nobody_hears_it(host, monkeypatch):
    def post(name, value):
        raise jax.errors.JaxRuntimeError("UNAVAILABLE")

    monkeypatch.setattr(board, "post", post)
    with pytest.raises(Ended) as ended:
        host(1).part()
    assert ended.value.args[1] == 143


def test_what_went_wrong_elsewhere_is_said_here(host, posted):
    posted["failed"] = [1, "the disk of host 1 is full."]
    with pytest.raises(Ended, match="host 1 ended with: the disk of host 1 is full"):
        look(host(0), 1)


def test_who_is_asked_asks_the_others(host, posted, monkeypatch):
    monkeypatch.setattr(Stops, "asked", lambda self: True)
    with pytest.raises(Ended) as ended:
        look(host(0), 1)
    assert posted["stop"] and posted["parted/0"] and ended.value.args[1] == 143


def test_loop_that_sees_to_its_end_is_left_to_it(host, posted):
    """Until the primary has saved what all have alike."""
    posted["stop"] = posted["parted/0"] = True
    second = host(1, awaited=True)
    for pulse in range(5):
        posted["alive/0"] = pulse
        look(second, 1)
    posted["released"] = True
    with pytest.raises(Ended):
        look(second, 1)


@pytest.mark.parametrize(
    ("index", "hears_after", "short_waits"), [(0, 2, 2), (0, 1000, 4), (1, 1000, 0)]
)
def test_primary_that_fails_waits_until_the_others_have_heard(
    index, hears_after, short_waits, host, posted, monkeypatch
):
    """No longer than for a silent one; the end of the others is their own affair."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == hears_after:
            posted["heard/1"] = True

    failing = host(index)
    monkeypatch.setattr(watch.time, "sleep", sleep)
    failing.fail("a full disk")
    assert posted["failed"] == [index, "a full disk"]
    assert len(slept) == short_waits + 1 and slept[-1] == 3 * watch.PULSE_S


def test_who_hears_of_a_failure_says_so(host, posted):
    posted["failed"] = [0, "a full disk"]
    with pytest.raises(Ended, match="host 0 ended with: a full disk"):
        look(host(1), 1)
    assert posted["heard/1"]

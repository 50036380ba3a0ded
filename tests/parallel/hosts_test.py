"""What hosts tell each other, and what becomes of those that lose each other.

Hosts are threads of this process, each with its own number and turns; the board is a
dict.
"""

import itertools
import threading
import time

import pytest

from ddjax.parallel import board, hosts

_ME = threading.local()


class _Turns:
    """Counts for each thread, as each process does."""

    def __next__(self):
        return next(_ME.turns)


@pytest.fixture
def pod(monkeypatch):
    """`pod(function, function)` runs each as a host; what they return or raise."""
    posted = {}

    def wait(name):
        deadline = time.monotonic() + 3
        while name not in posted:
            if time.monotonic() > deadline:
                return pytest.fail(f"it waits for {name} for ever")
            time.sleep(0.001)
        return posted[name]

    monkeypatch.setattr(board, "post", posted.__setitem__)
    monkeypatch.setattr(board, "wait", wait)
    monkeypatch.setattr(hosts, "_TURN", _Turns())
    monkeypatch.setattr(hosts, "host_index", lambda: _ME.index)

    def run(*programs):
        monkeypatch.setattr(hosts, "host_count", lambda: len(programs))
        found = [None] * len(programs)

        def host(i):
            _ME.index, _ME.turns = i, itertools.count()
            try:
                found[i] = programs[i]()
            except (RuntimeError, pytest.fail.Exception) as error:
                found[i] = error

        threads = [threading.Thread(target=host, args=(i,)) for i in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return run


def test_all_hear_the_primary(pod):
    found = pod(*[lambda i=i: hosts.agree("x", i) for i in range(3)])
    assert found == [0, 0, 0]


def test_all_hear_all(pod):
    found = pod(*[lambda i=i: hosts.gather("x", i) for i in range(3)])
    assert found == [[0, 1, 2]] * 3


@pytest.mark.parametrize("ours", [hosts.agree, hosts.gather])
@pytest.mark.parametrize("theirs", [hosts.agree, hosts.gather])
def test_a_host_at_another_place_is_found_out(ours, theirs, pod):
    """By one of them at least, which ends and so ends the others."""
    found = pod(lambda: ours("stats"), lambda: theirs("recover"))
    assert any("lost each other" in str(error) for error in found)

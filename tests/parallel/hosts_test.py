"""Hosts that share work out and talk: two threads that take themselves for hosts.

Real ones are in tests/launch/pods_test.py.
"""

import threading
import time

import jax
import pytest

from ddjax import parallel
from ddjax.parallel import board, hosts


class TestOneHost:
    """By itself a host is the primary, has all the work, and asks nobody."""

    def test_has_all(self):
        assert (parallel.host_count(), parallel.host_index()) == (1, 0)
        assert parallel.is_primary()
        assert parallel.share(range(5)) == [0, 1, 2, 3, 4]
        assert parallel.agree("anything", {"a": 1}) == {"a": 1}
        assert parallel.gather("anything", 7) == [7]
        for nothing in (parallel.leave, parallel.part, parallel.release):
            assert nothing() is None
        assert parallel.fail("nobody hears it") is None
        assert parallel.await_news() is None


@pytest.fixture
def pair(monkeypatch):
    """Runs a function on two hosts; their results or errors."""
    told, new, local = {}, threading.Condition(), threading.local()

    def post(name, value):
        with new:
            told[name] = value
            new.notify_all()

    def wait(name):
        with new:
            assert new.wait_for(lambda: name in told, 5), f"{name} never came"
            return told[name]

    monkeypatch.setattr(board, "post", post)
    monkeypatch.setattr(board, "seen", told.get)
    monkeypatch.setattr(board, "wait", wait)
    monkeypatch.setattr(jax, "process_index", lambda: local.index)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)

    class Turns:
        """Each host counts for itself."""

        def __next__(self):
            local.turn = getattr(local, "turn", -1) + 1
            return local.turn

    monkeypatch.setattr(hosts, "_TURN", Turns())

    def run(function):
        results = [None, None]

        def one(index):
            local.index = index
            try:
                results[index] = function(index)
            except Exception as error:  # noqa: BLE001  (the test looks at it)
                results[index] = error

        threads = [threading.Thread(target=one, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


class TestTwoHosts:
    def test_each_has_its_share(self, pair):
        assert pair(lambda i: parallel.share("abcde")) == [[*"ace"], [*"bd"]]
        assert pair(lambda i: parallel.share("a")) == [["a"], []]
        assert pair(lambda i: parallel.is_primary()) == [True, False]

    def test_all_hear_the_primary(self, pair):
        assert pair(lambda i: parallel.agree("who", f"host {i}")) == ["host 0"] * 2

    def test_all_hear_all_and_none_goes_on_before(self, pair):
        arrived = []

        def late(index):
            time.sleep(0.2 * index)
            arrived.append(index)
            found = parallel.gather("who", index)
            return found, len(arrived)

        assert pair(late) == [([0, 1], 2)] * 2

    @pytest.mark.parametrize("ours", [parallel.agree, parallel.gather])
    @pytest.mark.parametrize("theirs", [parallel.agree, parallel.gather])
    def test_a_host_at_another_place_is_found_out(self, ours, theirs, pair):
        """By one of them at least, which ends and so ends the others."""
        found = pair(lambda i: (ours, theirs)[i](f"place {i}"))
        assert any("lost each other" in str(error) for error in found)

    def test_alone_each_is_the_only_one(self, pair):
        def work(index):
            parallel.gather("before")
            if index:
                return None  # `alone` is of the process: here one of them at a time
            with parallel.alone():
                return parallel.share("abc"), parallel.is_primary(), parallel.agree("x")

        assert pair(work)[0] == ([*"abc"], True, None)


@pytest.mark.parametrize(
    "environ, wanted",
    [
        ({}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "1"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)"}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1(x3)"}, False),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, False),
    ],
)
def test_a_process_alone_on_its_node_has_all_devices(environ, wanted):
    assert hosts._has_node(environ) == wanted

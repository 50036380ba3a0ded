"""Hosts that share work out and talk: two threads that take themselves for hosts.

Real ones are in tests/launch/pods_test.py.
"""

import threading
import time

import jax
import pytest

from ddjax import parallel
from ddjax.parallel import board, hosts, watch


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

    def test_hosts_at_different_places_are_told_so(self, pair):
        """Rather than one taking the other's answer for its own."""
        found = pair(lambda i: parallel.gather(f"place {i}"))
        assert all("have lost each other" in str(error) for error in found)

    def test_alone_each_is_the_only_one(self, pair):
        def work(index):
            parallel.gather("before")
            if index:
                return None  # `alone` is of the process: here one of them at a time
            with parallel.alone():
                return parallel.share("abc"), parallel.is_primary(), parallel.agree("x")

        assert pair(work)[0] == ([*"abc"], True, None)


class TestWatch:
    """What ends a host, without a host that ends."""

    @pytest.fixture
    def seen(self, monkeypatch):
        told, ends = {}, []
        monkeypatch.setattr(board, "post", told.__setitem__)
        monkeypatch.setattr(board, "seen", told.get)
        monkeypatch.setattr(watch, "end", ends.append)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(watch, "PULSE_S", 0.01)
        monkeypatch.setattr(watch, "_GRACE_S", 0.05)
        return told, ends

    def test_silence_is_death(self, seen, capsys):
        told, ends = seen
        told["alive/1"] = 3
        begun = time.monotonic()
        watch.Watch(0.2, watch.Stops()).run()
        assert "1 of 2 has given no sign of life for 0.2 s" in capsys.readouterr().err
        assert ends == [1] and 0.2 < time.monotonic() - begun < 5
        assert "alive/0" in told

    def test_what_went_wrong_elsewhere_is_said_here(self, seen, capsys):
        told, ends = seen
        told["failed"] = [1, "the disk of host 1 is full."]
        watch.Watch(60, watch.Stops()).run()
        said = capsys.readouterr().err
        assert "host 1 ended with: the disk of host 1 is full." in said and ends == [1]

    def test_who_is_asked_asks_the_others(self, seen):
        told, ends = seen

        class Asked(watch.Stops):
            def asked(self):
                return True

        watch.Watch(60, Asked()).run()
        assert told["stop"] and told["parted/0"] and ends == [143]

    def test_a_loop_that_sees_to_it_is_left_to_itself(self, seen):
        """Until what all have alike is saved."""
        told, ends = seen
        told["stop"], asked = True, []

        class Looping(watch.Stops):
            def ask(self):
                asked.append(True)
                if len(asked) == 5:
                    told["released"] = True
                return True

        watch.Watch(60, Looping()).run()
        assert len(asked) == 5 and ends == [143]

    def test_the_primary_goes_last(self, seen, monkeypatch):
        told, ends = seen
        told["stop"] = True
        monkeypatch.setattr(watch, "_GRACE_S", 5.0)
        threading.Timer(0.3, told.__setitem__, ("parted/1", True)).start()
        begun = time.monotonic()
        watch.Watch(60, watch.Stops()).run()
        assert ends == [143] and 0.25 < time.monotonic() - begun < 4


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

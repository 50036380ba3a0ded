"""A stop that is asked for while a loop runs: what is saved, and what is not."""

import signal
import threading

import numpy as np
import pytest

from ddjax import checkpoint
from launch import progress, stopping


@pytest.fixture(autouse=True)
def _nothing_asked(monkeypatch):
    monkeypatch.setattr(stopping, "_requests", [])


@pytest.fixture
def stage(tmp_path):
    return checkpoint.Stage(tmp_path, "squeeze", "name", {})


def watch(stage, total=9, done=0, save_every_s=60.0):
    shown = progress.bar("loop", total, done)
    return progress.Monitor(stage, shown, total, done, save_every_s)


def step(monitor, done, value=1.0, loss=1.0):
    monitor(done, {"x": np.full(3, value)}, {"loss": np.array([loss])})


def test_another_thread_may_ask(stage):
    """The loop ends after its step, with the state of that step."""
    with pytest.raises(stopping.Stopped) as stopped, watch(stage) as monitor:
        step(monitor, 1)
        thread = threading.Thread(target=stopping.request, args=("host 3",))
        thread.start()
        thread.join()
        step(monitor, 2, 5.0)
        pytest.fail("it went on")
    assert stopped.value.asked == ("host 3", 143)
    assert stopped.value.left == "squeeze goes on from step 2 with the same command."
    done, state = stage.restore()
    assert done == 2
    np.testing.assert_array_equal(state["x"], np.full(3, 5.0))


def test_nothing_is_saved_twice(stage):
    with (
        pytest.raises(stopping.Stopped, match="from step 4"),
        watch(stage, done=4) as monitor,
    ):
        stopping.request("host 3")
        monitor(4, {"x": np.zeros(3)}, {"loss": np.zeros(0)})
    assert stage.restore() is None


def test_a_loss_that_is_not_finite_is_an_error_and_not_saved(stage):
    with (
        pytest.raises(ValueError, match="not finite at step 2"),
        watch(stage) as monitor,
    ):
        step(monitor, 1)
        stopping.request("host 3")
        step(monitor, 2, loss=np.nan)
    assert stage.restore() is None


def test_a_state_that_is_not_finite_is_not_saved(stage):
    with (
        pytest.raises(stopping.Stopped, match="goes on from step 1 "),
        watch(stage, save_every_s=-1) as monitor,
    ):
        step(monitor, 1)
        stopping.request("host 3")
        step(monitor, 2, value=np.nan)
    assert stage.restore()[0] == 1


def test_request_after_the_last_step_ends_the_program_after_the_loop(stage):
    with (
        pytest.raises(stopping.Stopped) as stopped,
        watch(stage, total=1) as monitor,
    ):
        step(monitor, 1)
        stopping.request("host 3")
        stage.save_part("0", {"x": np.zeros(2)})
    assert stopped.value.left == ""
    assert stage.load_part("0") is not None


def test_the_next_loop_hears_of_it_too(stage):
    stopping.request("host 3")
    with (
        pytest.raises(stopping.Stopped, match="from step 1 "),
        watch(stage) as monitor,
    ):
        step(monitor, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("no memory")])
def test_once_the_loop_is_left_nothing_is_written(error, stage, monkeypatch):
    """A program that goes on in this process finds whole states only."""
    closed = []
    close = checkpoint.Stage.close
    monkeypatch.setattr(
        checkpoint.Stage, "close", lambda stage: closed.append(close(stage))
    )
    with (
        pytest.raises(type(error) if isinstance(error, Exception) else error),
        watch(stage, save_every_s=-1) as monitor,
    ):
        for done in (1, 2, 3):
            step(monitor, done)
        raise error
    assert closed
    found = {p.name for p in (stage.folder / "checkpoints").iterdir()}
    assert found == {"2", "3"}


@pytest.fixture
def signals():
    """The handlers are put back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)
    stopping._at_once[:] = [True]


def test_a_host_that_others_may_need_is_not_ended_by_its_signal(signals):
    """Its watch sees to that, and does not leave it to a loop of all hosts."""
    stopping.listen(at_once=False)
    signal.raise_signal(signal.SIGTERM)
    assert stopping.requested() == ("SIGTERM", 143)
    with pytest.raises(stopping.Stopped), stopping.awaited(by_itself=False):
        assert not stopping.is_awaited()
    with pytest.raises(stopping.Stopped), stopping.awaited():
        assert stopping.is_awaited()


def test_loop_of_all_hosts_goes_on_until_the_primary_has_saved(stage, monkeypatch):
    monkeypatch.setattr(progress.parallel, "host_count", lambda: 2)
    monkeypatch.setattr(progress.parallel, "is_primary", lambda: False)
    stopping.request("SIGTERM")
    with pytest.raises(stopping.Stopped), watch(stage) as monitor:
        assert not stopping.is_awaited()
        for done in (1, 2, 3):
            step(monitor, done)
    assert monitor._done == 3 and stage.restore(name="host1") is None


def test_signals_are_requests(signals):
    """And once one has come, the next is the system's."""
    stopping.listen()
    with pytest.raises(stopping.Stopped), stopping.awaited():
        signal.raise_signal(signal.SIGINT)
        assert stopping.requested() == ("SIGINT", 130)
        numbers = (signal.SIGTERM, signal.SIGINT)
        assert all(signal.getsignal(n) == signal.SIG_DFL for n in numbers)
    stopping.listen()
    with pytest.raises(stopping.Stopped, match="SIGINT"):  # the first counts
        signal.raise_signal(signal.SIGTERM)

"""--profile: a trace for each loop, whole whatever happens, and the same results."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from ddjax import checkpoint, loop, parallel
from launch import profile, progress, recover


def traced(folder):
    """Of the trace in a stage's folder: the steps, and the names of all that ran."""
    (path,) = (folder / profile.FOLDER).rglob("perfetto_trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    kind = folder.parent.name
    steps = [int(e["args"]["step_num"]) for e in events if e.get("name") == kind]
    return sorted(steps), " ".join(event.get("name", "") for event in events)


def turn(state, index, shared, private):
    return jnp.sin(state @ state), {"loss": state.sum()}


def run(folder, total, done=0, fail_at=None):
    """A loop with a monitor, as a program has it; gives its last state."""
    stage = checkpoint.Stage(folder, "recover", "name", {"total": total})
    bar = progress.bar("loop", total, done)
    monitor = progress.Monitor(stage, bar, total, done, save_every_s=1000)

    def observe(done, state, metrics):
        if done == fail_at:
            raise KeyboardInterrupt
        monitor(done, state, metrics)

    start = jnp.full((8, 8), 0.1)
    loop.run(turn, start, (), (), range(done, total), observe=observe)
    return stage.folder


def traces(workdir):
    """Folders of the stages that have one."""
    return sorted(path.parent for path in workdir.glob("*/*/profile"))


def test_every_loop_has_a_trace_and_the_same_results(tmp_path):
    config = default.get_config("quick")
    config.recover.ipc = (2,)
    found = recover.run(config, tmp_path / "without")
    with profile.loops():
        again = recover.run(config, tmp_path / "with")
    for one, other in zip(found, again, strict=True):
        assert one.hash == other.hash
        np.testing.assert_array_equal(one.images.images, other.images.images)
    assert traces(tmp_path / "without") == []
    # The stages have finished, and the traces are kept.
    recovered, squeezed = traces(tmp_path / "with")
    assert (recovered.parent.name, squeezed.parent.name) == ("recover", "squeeze")
    for folder in (recovered, squeezed):
        steps, names = traced(folder)
        assert len(steps) > 2 and steps == list(range(steps[0], steps[-1] + 1))
        assert "PjitFunction(" in names and "fusion" in names  # the host, the device
        assert "compile" not in names.lower()


@pytest.mark.parametrize(
    ("total", "done", "steps"),
    [
        (100, 0, [4, 5, 6, 7, 8]),
        (100, 40, [44, 45, 46, 47, 48]),  # resumed
        (7, 0, [3, 4, 5, 6, 7]),  # short: begins earlier
        (3, 0, [2, 3]),
    ],
)
def test_which_steps(tmp_path, total, done, steps):
    with profile.loops():
        folder = run(tmp_path, total, done)
    assert traced(folder)[0] == steps


def test_blocks_of_fused_steps(tmp_path, monkeypatch):
    """As on an accelerator: each call of the program has fifty."""
    monkeypatch.setattr(parallel, "is_cpu", lambda: False)
    with profile.loops():
        folder = run(tmp_path, 500)
    assert traced(folder)[0] == [151, 201, 251, 301, 351]


def test_one_step_leaves_none(tmp_path):
    """It would show the compiler."""
    with profile.loops():
        folder = run(tmp_path, 1)
    assert not (folder / "profile").exists()


def test_interrupted_run_leaves_what_it_has(tmp_path):
    with pytest.raises(KeyboardInterrupt), profile.loops():
        run(tmp_path, 100, fail_at=7)
    (folder,) = traces(tmp_path)
    assert traced(folder)[0] == [4, 5, 6, 7]
    with profile.loops():  # the next command's is in its place
        run(tmp_path, 100, done=50)
    assert traced(folder)[0] == [54, 55, 56, 57, 58]


def test_a_loop_that_was_left_makes_room_for_the_next(tmp_path):
    with profile.loops():
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, 100, fail_at=6)
        run(tmp_path, 99)
    left, ended = sorted((traced(folder)[0] for folder in traces(tmp_path)), key=len)
    assert (left, ended) == ([4, 5, 6], [4, 5, 6, 7, 8])


def test_no_trace_where_nobody_asked(tmp_path):
    assert not (run(tmp_path, 20) / "profile").exists()


def test_only_the_first_host_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with profile.loops():
        assert not (run(tmp_path, 20) / "profile").exists()


def test_a_trace_that_cannot_be_written_harms_no_run(tmp_path, monkeypatch, caplog):
    stop = jax.profiler.stop_trace

    def full():
        stop()
        raise OSError("No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", full)
    with profile.loops():
        run(tmp_path, 20)
        run(tmp_path, 30)
    assert caplog.text.count("no trace in") == 1
    assert "No space left on device" in caplog.text


def test_says_where_it_is(tmp_path, caplog):
    caplog.set_level("INFO")
    with profile.loops():
        folder = run(tmp_path, 20)
    assert "trace of steps 4 to 8" in caplog.text
    assert f"xprof --logdir {folder / 'profile'}" in caplog.text
    (path,) = folder.rglob("perfetto_trace.json.gz")
    assert f"open {path} at" in caplog.text

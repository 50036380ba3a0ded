"""What a monitor keeps and refuses at the end of a loop, and what it prints."""

import json
import sys
import time

import numpy as np
import pytest

from ddjax import checkpoint
from launch import history, progress


def monitored(tmp_path, losses, done=0, total=0):
    """A monitor that has seen a loop with these losses, and its stage."""
    stage = checkpoint.Stage(tmp_path, "stage", "name", {})
    total = total or len(losses)
    shown = progress.bar("loop", total, done)
    monitor = progress.Monitor(stage, shown, total, done, save_every_s=60)
    for step, loss in enumerate(losses, done + 1):
        monitor(step, {}, {"loss": np.array([loss])})
    return monitor, stage


def written(stage):
    """The rows on disk, read by the rules of JSON lines."""
    text = (stage.folder / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_history_is_written_at_the_end(tmp_path):
    monitor, stage = monitored(tmp_path, [3.0, 2.0])
    monitor.finish({"x": np.ones(2)})
    assert written(stage) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
    assert monitor.history == written(stage) == history.read(stage.folder)


def test_history_is_written_while_the_loop_runs(tmp_path):
    monitor, stage = monitored(tmp_path, [3.0, 2.0], total=9)
    monitor.look()
    assert [row["step"] for row in written(stage)] == [1, 2]
    monitor(3, {}, {"loss": np.array([1.0])})
    monitor.look()
    assert [row["step"] for row in written(stage)] == [1, 2, 3]


def test_resumed_run_has_one_row_for_each_step(tmp_path):
    """Killed at step 5, in the middle of a line; the state is that of step 3."""
    monitor, stage = monitored(tmp_path, [5.0, 4.0, 3.0, 2.0, 1.0], total=6)
    monitor.look()
    path = stage.folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-4])
    assert [row["step"] for row in history.read(stage.folder)] == [1, 2, 3, 4]
    monitor, stage = monitored(tmp_path, [0.4, 0.5, 0.6], done=3, total=6)
    monitor.finish({})
    assert [row["step"] for row in written(stage)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in written(stage)] == [5.0, 4.0, 3.0, 0.4, 0.5, 0.6]
    assert monitor.history == written(stage)


def test_damaged_rows_are_left_out(tmp_path):
    monitor, stage = monitored(tmp_path, [5.0, 4.0, 3.0, 2.0, 1.0], total=6)
    monitor.look()
    path = stage.folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    lines[0] = lines[0].replace(b'"', b"\xff", 1)
    lines[1] = lines[1].replace(b"step", b"stup")
    lines[2] = b"[]"
    lines[3] = lines[3].replace(b"4", b'"4"', 1)
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert [row["step"] for row in history.read(stage.folder)] == [5]


def test_run_from_the_start_begins_a_new_file(tmp_path):
    monitored(tmp_path, [5.0, 4.0])[0].look()
    monitor, stage = monitored(tmp_path, [3.0])
    monitor.look()
    assert written(stage) == [{"step": 1, "loss": 3.0}]


def test_long_loops_keep_a_thousand_rows(tmp_path):
    stage = checkpoint.Stage(tmp_path, "stage", "name", {})
    monitor = progress.Monitor(stage, progress.bar("loop", 5000), 5000, 0, 60)
    monitor(5000, {}, {"loss": np.arange(5000.0)})
    assert [row["step"] for row in written(stage)] == [1, *range(5, 5001, 5)]


def test_a_last_step_that_spoils_the_result_is_refused(tmp_path):
    """Its loss was still finite: only the result tells."""
    monitor, stage = monitored(tmp_path, [3.0, 2.0])
    with pytest.raises(ValueError, match="result of step 2 is not finite. No state"):
        monitor.finish({"x": np.array([1.0, np.nan])})
    assert not stage.complete


def test_losses_up_to_a_bad_one_are_kept(tmp_path):
    monitor, stage = monitored(tmp_path, [3.0, 2.0, np.nan], total=9)
    with pytest.raises(ValueError, match="not finite at step 3"):
        monitor.look()
    assert [row["step"] for row in written(stage)] == [1, 2]


def test_losses_of_a_stack_are_averaged(tmp_path):
    stage = checkpoint.Stage(tmp_path, "stage", "name", {})
    monitor = progress.Monitor(stage, progress.bar("loop", 2), 2, 0, 60)
    monitor(2, {}, {"loss": np.array([[1.0, 2.0], [3.0, 6.0]])})  # [chunks, steps]
    monitor.look()
    assert [row["loss"] for row in monitor.history] == [2.0, 4.0]


class TestPrinted:
    @pytest.fixture
    def clock(self, monkeypatch):
        """A clock that the test moves."""
        now = [0.0]
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        return now

    def test_nothing_where_there_is_no_terminal(self, tmp_path, capfd):
        monitor, _ = monitored(tmp_path, [3.0, 2.0])
        monitor.finish({})
        assert capfd.readouterr() == ("", "")

    def test_a_line_every_ten_minutes_where_there_is_no_terminal(self, clock, caplog):
        with caplog.at_level("INFO"), progress.bar("teach", 5000, 1000) as shown:
            for minute in range(1, 26):
                clock[0] = 60.0 * minute
                shown.update(100)
                shown.set_postfix({"loss": f"{1 / minute:.2f}"})
        assert [line.getMessage() for line in caplog.records] == [
            "teach: step 2,100 of 5,000, loss 0.10; 29:00 left.",
            "teach: step 3,200 of 5,000, loss 0.05; 18:00 left.",
        ]

    def test_a_bar_where_there_is_one(self, capfd, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with progress.bar("teach", 10) as shown:
            shown.update(10)
        assert "teach 100% 10/10" in capfd.readouterr().err


class TestTensorBoard:
    @pytest.fixture
    def enabled(self, monkeypatch):
        monkeypatch.setattr(history, "_WRITERS", [])
        history.enable_tensorboard()

    def test_its_file_holds_the_rows_while_the_loop_runs(
        self, enabled, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(history, "_FLUSH_S", 0.05)
        monitor, stage = monitored(tmp_path, [5.0, 4.0, 3.0], total=4)
        monitor.look()
        deadline = time.monotonic() + 20
        while len(scalars(stage.folder)) < 3:  # it writes in the background
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert scalars(stage.folder) == [("loss", 1, 5), ("loss", 2, 4), ("loss", 3, 3)]

    def test_resumed_run_has_each_row_once(self, enabled, tmp_path):
        monitored(tmp_path, [5.0, 4.0, 3.0], total=4)[0].look()
        monitor, stage = monitored(tmp_path, [2.0, 1.0], done=2, total=4)
        monitor.finish({})
        expected = [("loss", row["step"], row["loss"]) for row in written(stage)]
        assert scalars(stage.folder) == expected
        assert len(expected) == 4

    def test_unasked_there_is_none(self, tmp_path):
        _, stage = monitored(tmp_path, [5.0])
        assert not (stage.folder / "tensorboard").exists()

    def test_without_the_package_the_error_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorboardX", None)
        with pytest.raises(ValueError, match=r'pip install "ddjax\[tensorboard\]"'):
            history.enable_tensorboard()


def scalars(folder):
    """(tag, step, value) of all events, by TFRecord's layout: length, CRC, data, CRC."""
    from tensorboardX.proto import event_pb2

    found = []
    for path in (folder / "tensorboard").iterdir():
        raw = path.read_bytes()
        while len(raw) >= 16 + int.from_bytes(raw[:8], "little"):
            size = int.from_bytes(raw[:8], "little")
            event = event_pb2.Event.FromString(raw[12 : 12 + size])
            found += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
            raw = raw[16 + size :]
    return sorted((tag, step, pytest.approx(value)) for tag, step, value in found)


class TestWatched:
    """Numbers whose names have a slash: no losses, but there are rails for them."""

    def watched(self, tmp_path, values):
        stage = checkpoint.Stage(tmp_path, "stage", "name", {})
        shown = progress.bar("loop", len(values))
        monitor = progress.Monitor(stage, shown, len(values) + 1, 0, 60)
        for step, value in enumerate(values, 1):
            metrics = {"loss": np.ones(1), "weights/spherical": np.array([value])}
            monitor(step, {}, metrics)
            monitor.look()
        return monitor, shown

    def test_each_is_warned_about_once(self, tmp_path, caplog):
        self.watched(tmp_path, [0.5, 0.99, 0.4, 0.995])
        (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert said.startswith("step 2, weights/spherical: the weight of the spherical")
        # Another loop is warned anew.
        self.watched(tmp_path, [0.99])
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 2

    def test_they_are_kept_and_not_shown(self, tmp_path):
        monitor, shown = self.watched(tmp_path, [0.5, 0.25])
        kept = [row["weights/spherical"] for row in monitor.history]
        assert kept == [0.5, 0.25]
        assert "loss 1" in str(shown) and "spherical" not in str(shown)

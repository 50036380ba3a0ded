"""What a monitor keeps and refuses at the end of a loop."""

import json

import numpy as np
import pytest

from ddjax import checkpoint
from launch import progress


def monitored(tmp_path, losses):
    """A monitor that has seen a loop with these losses, and its stage."""
    stage = checkpoint.Stage(tmp_path, "stage", "name", {})
    shown = progress.bar("loop", len(losses))
    monitor = progress.Monitor(stage, shown, len(losses), 0, save_every_s=60)
    for step, loss in enumerate(losses, 1):
        monitor(step, {}, {"loss": np.array([loss])})
    return monitor, stage


def test_history_is_written_at_the_end(tmp_path):
    monitor, stage = monitored(tmp_path, [3.0, 2.0])
    monitor.finish({"x": np.ones(2)})
    rows = json.loads((stage.folder / "history.json").read_text())
    assert rows == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]


def test_a_last_step_that_spoils_the_result_is_refused(tmp_path):
    """Its loss was still finite: only the result tells."""
    monitor, stage = monitored(tmp_path, [3.0, 2.0])
    with pytest.raises(ValueError, match="result of step 2 is not finite. No state"):
        monitor.finish({"x": np.array([1.0, np.nan])})
    assert not stage.complete


def test_losses_of_a_stack_are_averaged(tmp_path):
    stage = checkpoint.Stage(tmp_path, "stage", "name", {})
    monitor = progress.Monitor(stage, progress.bar("loop", 2), 2, 0, 60)
    monitor(2, {}, {"loss": np.array([[1.0, 2.0], [3.0, 6.0]])})  # [chunks, steps]
    monitor.look()
    assert [row["loss"] for row in monitor.history] == [2.0, 4.0]

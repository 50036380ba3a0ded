"""A prepared set through the pipeline: in memory, and streamed from disk."""

import time

import jax
import numpy as np
import pytest

from configs import default
from ddjax import data
from launch import arms, evaluate, inputs, progress, recover, squeeze, stats


def quick(kept, memory_gb):
    config = default.get_config("quick")
    config.data.update(name="mine", folder=kept, size=8, memory_gb=memory_gb)
    config.squeeze.update(epochs=20, batch_size=16, crop_scale=(0.5, 1.0))
    return config


@pytest.fixture(scope="module")
def streamed(kept, tmp_path_factory):
    """The teacher of an uninterrupted run that was fed from disk."""
    return squeeze.run(quick(kept, 0.0), tmp_path_factory.mktemp("streamed"))


def test_both_ways_see_the_same_images(kept):
    memory, disk = (inputs.load_data(quick(kept, gb))[0] for gb in (4.0, 0.0))
    assert isinstance(memory.images, np.ndarray)
    assert isinstance(disk.images, data.Records)
    np.testing.assert_array_equal(disk.images[:], memory.images)
    assert memory.info.shape[:2] == (8, 8) and memory.info.classes == ("a", "b", "c")


def test_streamed_teacher_learns(streamed):
    assert streamed.record["accuracy"]["train"] > 0.8  # chance is a third


def test_interrupted_in_an_epoch_it_ends_the_same(
    kept, streamed, tmp_path, monkeypatch
):
    """Stopped at step 6 of 80, after the second batch of the second epoch."""
    observe = progress.Monitor.__call__

    def watch(monitor, done, state, metrics):
        observe(monitor, done, state, metrics)
        if done == 6:
            raise KeyboardInterrupt

    config = quick(kept, 0.0)
    config.save_every_s = 0.0
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(progress.Monitor, "__call__", watch)
        squeeze.run(config, tmp_path)
    assert not list(tmp_path.glob("squeeze/*/manifest.json"))
    deadline = time.monotonic() + 30
    # In the background, one is saved, and the one before the last two is removed.
    while {path.name for path in tmp_path.glob("squeeze/*/checkpoints/*")} != {
        "5",
        "6",
    }:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    again = squeeze.run(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.variables, streamed.variables)


def test_whole_pipeline_is_that_of_a_set_in_memory(kept, streamed, tmp_path):
    """With one teacher: its statistics, the atoms, the starts, the images."""
    results = {}
    for memory_gb in (4.0, 0.0):
        config = quick(kept, memory_gb)
        workdir = tmp_path / str(memory_gb)
        teacher = streamed._replace(
            train=inputs.load_data(config)[0], test=inputs.load_data(config)[1]
        )
        seen = stats.collect(config, workdir, teacher)
        sets = [
            recover.make(config, workdir, teacher, seen, arm, 2, 0)
            for arm in ("wmdd/real", "herding", "kcenter", "rded")
        ]
        results[memory_gb] = seen[:2], [made.images for made in sets]
    jax.tree.map(np.testing.assert_array_equal, results[4.0], results[0.0])


def test_students_on_all_images_are_refused(kept, tmp_path):
    config = quick(kept, 0.0)
    config.evaluate.whole_epochs = 5
    with pytest.raises(
        ValueError, match=r"mine is larger .* set evaluate.whole_epochs"
    ):
        evaluate.run(config, tmp_path)
    config.evaluate.whole_epochs = 0
    arms.check(config)

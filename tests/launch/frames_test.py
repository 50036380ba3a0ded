"""The frames of a recovery: which steps, which images, and after an interruption."""

import shutil
import time

import jax
import numpy as np
import pytest

from configs import default
from ddjax import checkpoint, loop
from launch import frames, jobs, progress, recover, squeeze

STEPS = 24


@pytest.fixture(scope="module")
def config():
    """A recovery in two waves on two devices: chunks of 8 and 8 images, and of 4."""
    config = default.get_config("quick")
    changes = {"methods.wmdd.num_steps": STEPS, "recover.batch_size": 8}
    config.update_from_flattened_dict({**changes, "save_every_s": 0.0})
    return config


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The workdir of an undisturbed run; not to be changed."""
    workdir = tmp_path_factory.mktemp("whole")
    recover.run(config, workdir)
    return workdir


def only(workdir):
    (folder,) = (workdir / "recover").glob("*")
    return folder


def read(workdir):
    """frames.npz by name."""
    with np.load(only(workdir) / "frames.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def test_start_end_and_evenly_between(whole):
    """Twelve of 25 states; the last one is what the artifact holds."""
    found, artifact = read(whole), checkpoint.load(only(whole))
    assert found["steps"].tolist() == [0, 2, 4, 7, 9, 11, 13, 15, 17, 20, 22, 24]
    assert found["images"].dtype == np.uint8
    assert found["images"].shape == (12, 8, 8, 8, 1)
    assert found["rows"].tolist() == list(range(8))  # of the first chunk
    np.testing.assert_array_equal(found["images"][-1], artifact["images"][:8])


def test_first_frame_is_the_start(whole, config):
    """Real images where the run starts from them: no pixel was moved."""
    train = squeeze.run(config, whole).train
    known = {image.tobytes() for image in np.asarray(train.images)}
    assert {image.tobytes() for image in read(whole)["images"][0]} <= known


@pytest.mark.parametrize("step", [1, 8, STEPS, STEPS + 3])
def test_interrupted_run_has_the_same_frames(step, whole, config, tmp_path):
    """None lost, none twice; also where the first wave was finished."""
    workdir = tmp_path / "stopped"
    shutil.copytree(whole, workdir, ignore=shutil.ignore_patterns("recover"))
    observe = progress.Monitor.__call__

    def stop(monitor, done, state, metrics):
        observe(monitor, done, state, metrics)
        if done == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(progress.Monitor, "__call__", stop)
        recover.run(config, workdir)
    deadline = time.monotonic() + 20  # a state is saved in the background
    while not (only(workdir) / "checkpoints" / "host0" / str(step)).exists():
        assert time.monotonic() < deadline, "it was never saved"
        time.sleep(0.01)
    recover.run(config, workdir)
    wanted, found = read(whole), read(workdir)
    assert wanted.keys() == found.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


def test_blocks_of_steps_give_the_first_state_after_each(whole, config, tmp_path):
    """On an accelerator there is nothing to see within a block."""
    shutil.copytree(whole, tmp_path / "blocks", ignore=shutil.ignore_patterns("rec*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_BLOCK", 5)
        patch.setattr(loop.parallel, "is_cpu", lambda: False)
        recover.run(config, tmp_path / "blocks")
    assert read(tmp_path / "blocks")["steps"].tolist() == [0, 5, 10, 15, 20, 24]


@pytest.mark.parametrize(
    "classes, ipc, size, wanted",
    [
        (10, 10, 32, 100),
        (10, 50, 32, 100),
        (60, 10, 32, 60),  # one of each
        (200, 2, 32, 100),
        (10, 10, 224, 10),
    ],
)
def test_as_many_of_every_class(classes, ipc, size, wanted):
    labels = np.repeat(np.arange(classes), ipc)
    chosen = frames.choose(labels, (size, size))
    assert len(chosen) == wanted
    counts = np.bincount(labels[chosen])
    assert len(set(counts)) == 1 and np.all(np.diff(chosen) > 0)


def test_state_that_is_not_finite_is_no_frame(tmp_path):
    """The monitor stops the run; nothing is cast from NaN on the way."""

    class Spoilt:
        """A method whose images are lost."""

        def finalize(self, state, context, target):
            return target._replace(images=state * np.nan)

    start = jobs.recover.targets(np.arange(2), np.ones((2, 4, 4, 1)), 1)
    stage = checkpoint.Stage(tmp_path, "recover", "spoilt", {})
    job = jobs.Job(jax.random.key(0), Spoilt(), (), None, [np.arange(2)], 3)
    film = frames.Frames(stage, job)
    film._target = start
    film.look(1, np.ones((1, 2, 4, 4, 1), np.float32))
    film.write()
    assert not list(stage.folder.rglob("*.npz"))


def test_a_host_without_the_first_chunk_writes_none(tmp_path, monkeypatch):
    """It knows only the frames that an interrupted run has left."""
    stage = checkpoint.Stage(tmp_path, "recover", "stopped", {})
    frame = {"steps": np.array(0), "images": np.zeros((2, 4, 4, 1)), "rows": [0, 1]}
    stage.save_part("frame0", frame)
    job = jobs.Job(jax.random.key(0), None, (), None, [np.arange(2)], 3)
    film = frames.Frames(stage, job)
    with monkeypatch.context() as patch:
        patch.setattr(frames.parallel, "is_primary", lambda: False)
        film.write()
    assert not (stage.folder / "frames.npz").exists()
    film.write()
    assert (stage.folder / "frames.npz").exists()

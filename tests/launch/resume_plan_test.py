"""What `resume` makes of the states that it finds, of a method that only counts."""

import types

import jax
import numpy as np
import pytest

from ddjax import checkpoint, recover
from launch import resume
from launch.jobs import Job

CUTS = [np.arange(i, i + 2) for i in range(0, 8, 2)]
NAMES = [str(i) for i in range(len(CUTS))]
STEPS = 100


def goals(rows):
    return recover.targets(rows, np.zeros((len(rows), 1, 1, 1), np.float32), 1)


def init(key, context, target):
    del key, context
    return (target.images,)


JOB = Job(jax.random.key(0), types.SimpleNamespace(init=init), (), goals, CUTS, STEPS)


@pytest.fixture
def pod(monkeypatch):
    """`pod(index, count, devices, told)`: which host this is; what others gather."""

    def be(index, count, devices=1, told=()):
        monkeypatch.setattr(resume.parallel, "device_count", lambda: devices)
        monkeypatch.setattr(resume.parallel, "host_count", lambda: count)
        monkeypatch.setattr(resume.parallel, "host_index", lambda: index)
        monkeypatch.setattr(resume.parallel, "share", lambda x: list(x)[index::count])
        monkeypatch.setattr(resume.parallel, "gather", lambda _, x=None: [x, *told])

    return be


def plan(tmp_path):
    stage = checkpoint.Stage(tmp_path, "recover", "toy", {})
    return stage, resume.plan(JOB, stage, NAMES)


def run(tmp_path, *, save_after):
    """Makes steps of the first wave and saves twice, as then older states go."""
    stage, found = plan(tmp_path)
    wave = found.waves[0]
    chunks = (np.zeros((len(wave.rows), 2, 1, 1, 1), np.float32),)
    for step in (save_after - 1, save_after):
        state = resume.state(wave, step, chunks, found.waves[1:])
        stage.save(wave.offset + step, state, resume.whose())
    stage.close()


def begun(tmp_path):
    """Steps made of each chunk of this host, by its first row."""
    return {
        int(rows[0]): wave.done
        for wave in plan(tmp_path)[1].waves
        for rows in wave.rows
    }


def test_fewer_devices_lose_no_step_of_the_chunks_that_wait(pod, tmp_path):
    """Four chunks were side by side; stopped again while the first goes on alone."""
    pod(0, 1, devices=4)
    run(tmp_path, save_after=50)
    pod(0, 1, devices=1)
    run(tmp_path, save_after=60)
    assert begun(tmp_path) == {0: 60, 2: 50, 4: 50, 6: 50}


def test_each_of_more_hosts_goes_on_with_its_own(pod, tmp_path):
    pod(0, 1, devices=4)
    run(tmp_path, save_after=50)
    pod(1, 2)
    assert begun(tmp_path) == {2: 50, 6: 50}
    pod(0, 2)
    run(tmp_path, save_after=70)
    assert begun(tmp_path) == {0: 70, 4: 50}


def test_the_furthest_state_of_a_chunk_counts(pod, tmp_path):
    """A state of an earlier run, of as many hosts, is not all there is."""
    for index in (0, 1):
        pod(index, 2, devices=2)
        run(tmp_path, save_after=20)
    pod(0, 1, devices=4)
    run(tmp_path, save_after=50)
    pod(1, 2, told=[1])
    assert begun(tmp_path) == {2: 50, 6: 50}


def test_states_without_their_rows_are_passed_over(pod, tmp_path):
    """Earlier versions saved them so, under no name."""
    stage = checkpoint.Stage(tmp_path, "recover", "toy", {})
    stage.save(5, {"images": np.zeros(3)})
    stage.close()
    pod(0, 1)
    assert begun(tmp_path) == {0: 0, 2: 0, 4: 0, 6: 0}

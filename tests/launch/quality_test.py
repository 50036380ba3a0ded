"""Measures of a set through the stage, kept, and with leaks planted."""

import json

import jax
import numpy as np
import pytest
from absl import logging
from scipy import spatial

from configs import default
from ddjax import checkpoint, data, quality, stats
from ddjax.types import DistilledSet
from launch import inputs
from launch import quality as stage
from launch.recover import Distilled
from launch.stats import Stats
from launch.teachers import Teacher


@pytest.fixture(scope="module")
def config():
    return default.get_config("quick")


@pytest.fixture(scope="module")
def teacher(config):
    """A network that was never trained: its features are as good as any here."""
    train, test = inputs.load_data(config)
    network = inputs.build_network(config.squeeze.model, train.info)
    variables = network.init(jax.random.key(0))
    return Teacher(network, variables, train, test, "t" * 12, {})


@pytest.fixture(scope="module")
def seen(teacher):
    features, moments = stats.collect(
        teacher.network.apply, teacher.variables, teacher.train
    )
    return Stats(features, moments, "s" * 12)


def distilled(images, labels, arm="random"):
    images = np.asarray(images)
    weights = np.full(len(images), 0.5, np.float32)
    record = {"arm": arm, "ipc": 2, "seed": 0, "image_bytes": images.nbytes}
    chosen = DistilledSet(images, np.asarray(labels), weights)
    return Distilled(chosen, checkpoint.fingerprint(arm, images.tolist()), record)


def measured(config, workdir, teacher, seen, mine):
    """What is told of a set."""
    stage.measure(config, workdir, teacher, seen, mine)
    return stage.record(workdir, teacher, seen, mine)


@pytest.fixture(scope="module")
def real(teacher):
    """Two training images of each class."""
    rows = [r for s in data.class_slices(teacher.train) for r in (s.start, s.stop - 1)]
    return np.array(rows)


def test_real_images_are_copies_and_the_record_says_so(
    config, teacher, seen, real, tmp_path
):
    train = teacher.train
    mine = distilled(train.images[real], train.labels[real])
    record = measured(config, tmp_path, teacher, seen, mine)
    json.dumps(record, allow_nan=False)
    assert (record["arm"], record["ipc"], record["set"]) == ("random", 2, 0)
    assert record["images"] == mine.hash
    assert record["copies"] == record["num_images"] == len(real)
    assert record["nearest_pixels"] == 0
    assert record["nearest_features"] == pytest.approx(0, abs=1e-4)
    assert record["real_nearest_pixels"] > 0 < record["real_nearest_features"]
    assert record["png_bytes"] == quality.png_bytes(train.images[real])
    assert -1 < record["redundancy"] <= 1 and record["w2"] > 0
    (folder,) = (tmp_path / "quality").iterdir()
    assert folder.name.startswith("random-ipc2-seed0-")
    arrays = checkpoint.load(folder)
    np.testing.assert_array_equal(train.images[arrays["neighbour"]], mine.images.images)
    np.testing.assert_allclose(arrays["features"], seen.features[real], rtol=1e-5)
    np.testing.assert_array_equal(arrays["neighbour_rows"], np.arange(len(real)))
    np.testing.assert_array_equal(arrays["neighbour_images"], mine.images.images)


def test_noise_is_far_from_all(config, teacher, seen, real, tmp_path, monkeypatch):
    train, rng = teacher.train, np.random.default_rng(0)
    noise = rng.integers(0, 256, train.images[real].shape, dtype=np.uint8)
    mine = distilled(noise, train.labels[real], "sre2l/noise")
    record = measured(config, tmp_path, teacher, seen, mine)
    assert record["copies"] == record["test_copies"] == 0
    flat = [x.reshape(len(x), -1) / 255 for x in (noise, train.images)]
    wanted = spatial.distance.cdist(*flat).min(1).mean()
    assert record["nearest_pixels"] == pytest.approx(wanted, rel=1e-6)
    assert wanted > record["real_nearest_pixels"]
    # Asked again, it is read: nothing is measured any more.
    monkeypatch.setattr(quality, "nearest", None)
    assert measured(config, tmp_path, teacher, seen, mine) == record


def test_images_of_the_test_set_are_told(
    config, teacher, seen, real, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *v: said.append(text % v))
    train = teacher.train
    images = train.images[real].copy()
    images[3] = teacher.test.images[0]
    mine = distilled(images, train.labels[real], "leak")
    for _ in range(2):  # measured, and read
        record = measured(config, tmp_path, teacher, seen, mine)
    assert record["test_copies"] == 1
    assert len(said) == 2
    assert said[0].startswith(f"1 of the {len(real)} images of leak-ipc2-seed0 are")


def test_one_image_a_class_has_no_redundancy(config, teacher, seen, real, tmp_path):
    train = teacher.train
    mine = distilled(train.images[real[::2]], train.labels[real[::2]])
    record = measured(config, tmp_path, teacher, seen, mine)
    assert record["redundancy"] is None


def test_pixels_on_disk_give_the_same(config, teacher, seen, real, tmp_path):
    """As `data.Records`: rows come as arrays, and nothing else is there."""

    class OnDisk:
        dtype, shape = np.dtype(np.uint8), teacher.train.images.shape

        def __len__(self):
            return len(teacher.train.images)

        def __getitem__(self, rows):
            return teacher.train.images[rows]

    train = teacher.train
    mine = distilled(255 - train.images[real], train.labels[real])
    records = [
        measured(config, tmp_path / name, streaming, seen, mine)
        for name, streaming in (
            ("memory", teacher),
            ("disk", teacher._replace(train=train._replace(images=OnDisk()))),
        )
    ]
    for record in records:
        for cost in ("seconds", "compile_seconds", "peak_bytes"):
            del record[cost]
    assert records[0] == records[1]

"""Chunks, starts, targets, and that devices change nothing."""

import functools

import jax
import numpy as np
import pytest

from ddjax import matching, methods, models, optimizers, parallel, recover
from ddjax.data import augment
from ddjax.types import Barycenter, ClassStats, Context, Moments


@pytest.mark.parametrize("layout", ["classes", "images"])
@pytest.mark.parametrize("classes,ipc,batch_size", [(10, 3, 7), (5, 1, 100), (3, 8, 4)])
def test_chunks_are_all_rows_once(layout, classes, ipc, batch_size):
    cuts = recover.chunks(classes, ipc, batch_size, layout)
    rows = np.concatenate(cuts)
    assert sorted(rows) == list(range(classes * ipc))
    for cut in cuts:
        labels = cut // ipc
        assert list(labels) == sorted(labels)
        counts = np.unique(labels, return_counts=True)[1]
        if layout == "classes":
            assert set(counts) == {ipc} and len(cut) <= max(batch_size, ipc)
        else:
            assert set(counts) == {1} and len(cut) <= batch_size


def test_chunks_of_the_papers():
    """ImageNette at IPC 50: two classes; SRe2L: one image of each class."""
    assert [len(c) for c in recover.chunks(10, 50, 100, "classes")] == [100] * 5
    assert [len(c) for c in recover.chunks(10, 50, 100, "images")] == [10] * 50


def test_waves_hold_chunks_of_one_size():
    cuts = recover.chunks(7, 2, 4, "classes")  # 4, 4, 4, 2 images
    plan = recover.waves(cuts, 10, devices=2)
    assert [w.rows.shape for w in plan] == [(2, 4), (1, 4), (1, 2)]
    assert [w.offset for w in plan] == [0, 10, 20]


def test_noise_is_normal_in_normalised_pixels(tiny_info, key):
    images = recover.noise(key, np.arange(900), tiny_info)
    assert images.shape == (900, 8, 8, 3)
    z = (images - np.array(tiny_info.mean)) / np.array(tiny_info.std)
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01


def test_noise_of_an_image_depends_on_its_row_alone(tiny_info, key):
    some = recover.noise(key, np.array([2, 7]), tiny_info)
    many = recover.noise(key, np.arange(9), tiny_info)
    np.testing.assert_array_equal(some, many[[2, 7]])
    assert not np.array_equal(some[0], some[1])


def test_real_start_is_the_nearest_image_of_the_class(tiny_data):
    features = np.random.default_rng(0).normal(size=(15, 5))
    chosen = [2, 0, 8, 6, 14, 9]
    atoms = features[chosen].reshape(3, 2, 5) + 1e-6
    assert recover.nearest(tiny_data, features, atoms).tolist() == chosen


def test_real_start_never_takes_an_image_twice(tiny_data):
    features = np.random.default_rng(0).normal(size=(15, 5))
    atoms = np.repeat(features[[0, 4, 9]], 3, axis=0).reshape(3, 3, 5)
    chosen = recover.nearest(tiny_data, features, atoms)
    assert len(set(chosen)) == 9
    assert tiny_data.labels[chosen].tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_targets_follow_the_rows():
    points = np.arange(24.0).reshape(3, 2, 4)
    weights = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    barycenter = Barycenter(points, weights, np.zeros(3), np.ones(3, bool))
    layers = (Moments(np.arange(6.0).reshape(3, 2), np.ones((3, 2))),)
    images = np.arange(2.0, 6.0).reshape(4, 1, 1, 1)
    found = recover.targets(
        np.array([2, 3, 4, 5]),
        images,
        2,
        barycenter=barycenter,
        class_stats=ClassStats(layers, np.array([1, 1, 1])),
    )
    assert found.labels.tolist() == [1, 1, 2, 2]
    assert found.weights.tolist() == [0.2, 0.8, 0.3, 0.7]
    np.testing.assert_array_equal(found.features, points.reshape(6, 4)[2:])
    np.testing.assert_array_equal(found.class_stats[0].mean, [[2, 3], [4, 5]])
    assert found.images.ravel().tolist() == [2, 3, 4, 5]


@pytest.fixture(scope="module")
def setting(tiny_network, tiny_variables, tiny_info):
    """(method, context, targets of rows, chunks): four images of each of 3 classes."""
    method = methods.create(
        "sre2l",
        tiny_network,
        optimizers.pixel_adam(0.2, 6, tiny_info.std),
        num_steps=6,
        augment=augment.CropFlipRoll((0.5, 1.0), True, 1),
    )
    key = jax.random.key(5)

    def goals(rows):
        return recover.targets(rows, recover.noise(key, rows, tiny_info), 4)

    cuts = recover.chunks(3, 4, 3, "images")
    return method, Context(teacher=tiny_variables), goals, cuts


def _recover(setting, devices, monkeypatch, observe=None):
    method, context, goals, cuts = setting
    monkeypatch.setattr(parallel, "device_count", lambda: devices)
    return recover.recover(
        jax.random.key(7), method, context, goals, cuts, 6, observe=observe
    )


def test_devices_change_nothing(setting, monkeypatch):
    alone = _recover(setting, 1, monkeypatch)
    both = _recover(setting, 2, monkeypatch)
    np.testing.assert_array_equal(alone.images, both.images)
    assert alone.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert alone.images.min() >= 0 and alone.images.max() <= 1


def test_observer_counts_through_all_waves(setting, monkeypatch):
    seen = []
    _recover(setting, 1, monkeypatch, lambda done, *_: seen.append(done))
    assert seen == list(range(1, 25))  # four chunks, six steps


def test_a_wave_goes_on_from_a_saved_state(setting, monkeypatch):
    method, context, goals, cuts = setting
    (wave, *_) = recover.waves(cuts, 6, 2)
    targets, saved = [goals(rows) for rows in wave.rows], {}

    def keep(done, state, metrics):
        saved[done] = jax.tree.map(lambda x: np.array(x, copy=True), state)
        assert metrics["loss"].shape == (2, 1)

    whole = recover.run_wave(
        jax.random.key(7), method, context, wave, targets, 6, observe=keep
    )
    begun = wave._replace(done=4, state=saved[4])
    rest = recover.run_wave(jax.random.key(7), method, context, begun, targets, 6)
    for a, b in zip(whole, rest):
        np.testing.assert_array_equal(a.images, b.images)


class TestRealImages:
    """Methods that draw real images: one chunk, whose batch devices may divide."""

    @pytest.fixture(scope="class")
    @classmethod
    def matched(cls, tiny_data, tiny_info):
        network = models.create("convnet", tiny_info, width=4, depth=2, norm="instance")
        method = methods.create(
            "dm",
            network,
            optimizers.pixel_sgd(0.5, 0.5, tiny_info.std),
            num_steps=3,
            options=(("dsa", "color_crop"), ("real_batch", 4)),
        )
        context = Context(real=matching.table(tiny_data))
        goals = functools.partial(cls.goals, tiny_info)
        return method, context, goals, recover.chunks(3, 2, 1, "whole")

    @staticmethod
    def goals(info, rows):
        return recover.targets(rows, recover.noise(jax.random.key(5), rows, info), 2)

    def test_all_classes_are_one_chunk(self, matched):
        (rows,) = matched[3]
        assert rows.tolist() == [0, 1, 2, 3, 4, 5]

    def test_one_chunk_has_all_devices(self, matched, monkeypatch):
        method, context, goals, cuts = matched
        used = []

        def together(size):
            used.append(size)
            return parallel.spread.together(size)

        monkeypatch.setattr(parallel, "together", together)
        both = recover.recover(jax.random.key(7), method, context, goals, cuts, 3)
        assert used == [4]
        monkeypatch.setattr(parallel, "together", lambda size: parallel.over_devices(1))
        alone = recover.recover(jax.random.key(7), method, context, goals, cuts, 3)
        np.testing.assert_allclose(both.images, alone.images, atol=1e-5)
        start = np.clip(goals(cuts[0]).images, 0, 1)
        assert np.abs(alone.images - start).max() > 1e-3

    def test_the_batch_is_divided(self, matched):
        """The compiled step has both devices draw, and add up what they find."""
        method, context, goals, cuts = matched
        spread = recover.spread(method, context, 1)
        stacked = jax.tree.map(lambda x: np.asarray(x)[None], goals(cuts[0]))
        keys = jax.random.split(jax.random.key(0), 1)
        state = recover.initial_state(method, context, stacked, keys)
        state, shared, private = spread.place((state, context, (keys, stacked)))
        program = spread.compile(recover.make_step(method))
        text = program.lower(state, 0, shared, private).compile().as_text()
        assert "all-reduce" in text
        assert "f32[6,8,8,3]" in text  # a half of the four images of three classes

    def test_several_chunks_have_one_device_each(self, matched):
        method, context, _, _ = matched
        assert recover.spread(method, context, 2) is parallel.over_devices(2)

"""APGD: closed forms, checkpoints, invariants and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.attacks import base
from ddjax.attacks.apgd import LOSSES, apgd, checkpoint_windows, dlr, dlr_targeted

SHAPE, CLASSES = (4, 4, 3), 5


def _linear(classes=CLASSES, seed=0):
    """Kernel [48, C] and the model `images -> logits`."""
    kernel = jax.random.normal(jax.random.key(seed), (np.prod(SHAPE), classes))

    def model(images):
        return (images - 0.5).reshape(len(images), -1) @ kernel

    return np.asarray(kernel, np.float64), model


def _network(images):
    """Two layers, so that the boundary is bent."""
    keys = jax.random.split(jax.random.key(3), 2)
    hidden = 3 * (images - 0.5).reshape(len(images), -1)
    hidden = jax.nn.relu(hidden @ jax.random.normal(keys[0], (48, 32)))
    return hidden @ jax.random.normal(keys[1], (32, CLASSES))


def _images(count=12):
    """Far enough from 0 and 1 that the box stays out of it."""
    key = jax.random.key(1)
    return jax.random.uniform(key, (count, *SHAPE), minval=0.3, maxval=0.7)


def _keys(count):
    return jax.random.split(jax.random.key(2), count)


def _run(attack, model, images, labels, keys, round=0):
    state = jax.jit(functools.partial(attack.init, model))(images, labels, keys, round)
    step = jax.jit(functools.partial(attack.step, model))
    for index in range(attack.num_steps):
        state = step(state, index, images, labels, keys)
    return state


def _ends(num_steps):
    windows = checkpoint_windows(num_steps)
    return [index + 1 for index, window in enumerate(windows) if window]


def test_checkpoints_are_those_of_the_paper():
    assert _ends(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert _ends(20) == [4, 7, *range(9, 21)]
    assert _ends(10) == list(range(2, 11))
    assert checkpoint_windows(100)[21:41:19] == (22, 19)
    assert checkpoint_windows(1) == (1,)


@pytest.mark.parametrize("before", [False, True])
def test_a_checkpoint_halves_what_oscillates_or_stands(before):
    """The last has risen often but not past the best: enough if eta did not fall."""
    images, labels, keys = _images(4), jnp.zeros(4, jnp.int32), _keys(4)
    attack = apgd(0.1)
    state = jax.jit(functools.partial(attack.init, _network))(images, labels, keys, 0)
    step = jax.jit(functools.partial(attack.step, _network))
    assert np.all(state.halved) and np.all(state.checked_loss == state.best_loss)
    high = jnp.full(4, 1e3)  # no step beats it
    state = state._replace(
        increases=jnp.array([17, 16, 0, 17]),  # of 22; three quarters are 16.5
        checked_loss=jnp.array([0.0, 0.0, 0.0, 1e3]),
        best_loss=high,
        last_loss=high,
        halved=jnp.full(4, before),
    )
    within = step(state, 20, images, labels, keys)
    np.testing.assert_array_equal(within.step_size, state.step_size)
    np.testing.assert_array_equal(within.checked_loss, state.checked_loss)
    ended = step(state, 21, images, labels, keys)
    np.testing.assert_array_equal(ended.halved, [False, True, True, not before])
    fallen = np.where(ended.halved, 0.1, 0.2)
    np.testing.assert_allclose(ended.step_size, fallen, rtol=1e-6)
    np.testing.assert_array_equal(ended.checked_loss, high)
    np.testing.assert_array_equal(ended.increases, 0)
    back = jnp.all(ended.images == state.best, (1, 2, 3))
    np.testing.assert_array_equal(back, ended.halved)
    np.testing.assert_array_equal(ended.before, state.images)


def test_losses_at_hand():
    logits = jnp.array([[4.0, 1.0, 3.0, 0.0], [0.0, 2.0, 4.0, 1.0]])
    labels, target = jnp.array([0, 1]), jnp.array([1, 3])
    np.testing.assert_allclose(dlr(logits, labels), [-1 / 3, 2 / 3], rtol=1e-6)
    found = dlr_targeted(logits, labels, target)
    np.testing.assert_allclose(found, [-3 / 3.5, -1 / 3.5], rtol=1e-6)


def test_dlr_does_not_see_scale_and_shift():
    logits = jax.random.normal(jax.random.key(0), (6, 7))
    labels, target = jnp.arange(6), jnp.full(6, 6)
    for loss in (dlr, functools.partial(dlr_targeted, target=target)):
        scaled = loss(30 * logits + 5, labels)
        np.testing.assert_allclose(scaled, loss(logits, labels), rtol=1e-4, atol=1e-5)


def test_two_classes_fall_exactly_within_their_distance():
    """A linear model is robust iff margin > eps |w_y - w_k|_1, or the dual norm."""
    kernel, model = _linear(classes=2)
    images = _images(40)
    logits = np.asarray(model(images), np.float64)
    labels = jnp.asarray(logits.argmax(1))
    gap, normal = np.abs(logits[:, 0] - logits[:, 1]), kernel[:, 0] - kernel[:, 1]
    for norm, length in (
        ("linf", np.abs(normal).sum()),
        ("l2", np.sqrt(normal @ normal)),
    ):
        reach = gap / length
        eps = float(np.median(reach))  # between two images' distances
        attack = apgd(eps, norm=norm, num_steps=10)
        state = _run(attack, model, images, labels, _keys(40))
        broken = model(attack.result(state)).argmax(1) != labels
        np.testing.assert_array_equal(broken, reach < eps)


@pytest.mark.parametrize("loss", LOSSES)
def test_breaks_a_linear_model_where_it_can_be(loss):
    kernel, model = _linear()
    images = _images(40)
    labels = model(images).argmax(1)
    logits, rows = np.asarray(model(images), np.float64), np.arange(40)
    gaps = logits[rows, labels][:, None] - logits
    norms = np.abs(kernel[:, labels].T[:, :, None] - kernel).sum(1)
    norms[rows, labels] = 1e-9  # the label itself: endlessly far
    gaps[rows, labels] = 1
    reach = (gaps / norms).min(1)
    eps = float(np.median(reach))
    attack = apgd(eps, loss=loss, num_steps=20, targets=4)
    broken = np.zeros(40, bool)
    for round in range(attack.rounds):
        state = _run(attack, model, images, labels, _keys(40), round)
        broken |= np.asarray(model(attack.result(state)).argmax(1) != labels)
    if loss == "ce":  # its gradient is a mixture of classes, and misses some
        assert np.all(reach[broken] < eps) and broken.sum() >= 16
    else:
        np.testing.assert_array_equal(broken, reach < eps)


@pytest.mark.parametrize("norm", base.NORMS)
def test_stays_within_ball_and_box(norm):
    images = jax.random.uniform(jax.random.key(5), (8, *SHAPE)).round(1)
    labels = _network(images).argmax(1)
    eps = 0.2 if norm == "linf" else 1.0
    state = _run(apgd(eps, norm=norm, num_steps=8), _network, images, labels, _keys(8))
    for points in (state.images, state.best, state.found):
        assert float(base.distance(points - images, norm).max()) <= eps + 1e-6
        assert 0 <= float(points.min()) and float(points.max()) <= 1
    assert float(base.distance(state.found - images, norm).max()) > 0.9 * eps


@pytest.mark.parametrize("norm", base.NORMS)
def test_radius_of_zero_leaves_images(norm):
    images, labels = _images(), jnp.zeros(12, jnp.int32)
    attack = apgd(0.0, norm=norm, num_steps=5)
    state = _run(attack, _network, images, labels, _keys(12))
    np.testing.assert_array_equal(attack.result(state), images)
    np.testing.assert_array_equal(state.images, images)


def test_does_not_depend_on_the_batch():
    images, keys = _images(), _keys(12)
    labels = _network(images).argmax(1)
    attack = apgd(0.02, loss="dlr_targeted", num_steps=6, targets=2)
    together = _run(attack, _network, images, labels, keys, 1)
    for part in (slice(0, 4), slice(4, 12)):
        alone = _run(attack, _network, images[part], labels[part], keys[part], 1)
        ours = jax.tree.map(lambda leaf, part=part: leaf[part], together)
        np.testing.assert_array_equal(alone.target, ours.target)
        np.testing.assert_allclose(alone.found, ours.found, atol=1e-6)


def test_fewer_survive_a_larger_radius():
    images = _images(40)
    labels = _network(images).argmax(1)
    robust = []
    for eps in (0.0, 0.01, 0.03, 0.1, 0.3):
        state = _run(apgd(eps, num_steps=10), _network, images, labels, _keys(40))
        robust.append(int(np.sum(_network(state.found).argmax(1) == labels)))
    assert robust[0] == 40 and robust[-1] == 0
    assert robust == sorted(robust, reverse=True)


@pytest.mark.parametrize("norm", base.NORMS)
def test_state_keeps_its_types(norm):
    """Or an accelerator's scan of steps refuses it; weak types count."""
    images, labels = _images(), jnp.zeros(12, jnp.int32)
    attack = apgd(0.1, norm=norm)
    common = images, labels, _keys(12)
    state = jax.eval_shape(functools.partial(attack.init, _network), *common, 0)
    step = functools.partial(attack.step, _network)
    assert jax.eval_shape(step, state, jnp.int32(0), *common) == state
    assert all(leaf.shape[0] == 12 for leaf in state)


def test_restarts_and_rounds_start_elsewhere():
    images, labels = _images(), jnp.zeros(12, jnp.int32)
    attack = apgd(0.05, restarts=2, num_steps=1)
    init = jax.jit(functools.partial(attack.init, _network))
    starts = [init(images, labels, _keys(12), round).before for round in (0, 1)]
    assert float(jnp.abs(starts[0] - starts[1]).max()) > 0.05


def test_every_target_has_its_restarts():
    images = _images()
    logits = _network(images)
    attack = apgd(0.05, loss="dlr_targeted", targets=3, restarts=2, num_steps=1)
    assert (attack.rounds, attack.gradients, attack.forwards) == (6, 2, 1)
    init = jax.jit(functools.partial(attack.init, _network))  # one program for all
    ranks = np.argsort(-np.asarray(logits), 1)
    for round, place in enumerate((1, 1, 2, 2, 3, 3)):
        state = init(images, logits.argmax(1), _keys(12), jnp.int32(round))
        np.testing.assert_array_equal(state.target, ranks[:, place])
        assert all(len(leaf) == 12 for leaf in state)


def test_samples_average_the_gradients_of_a_random_model():
    noise = jax.random.normal(jax.random.key(9), (36, *SHAPE))

    def model(images):
        return _network(images + 0.3 * noise[: len(images)])

    def gradient(images, noise):
        logits = _network(images + 0.3 * noise)
        return base.cross_entropy(logits, labels).sum()

    images, labels = _images(), jnp.arange(12) % CLASSES
    state = apgd(0.0, samples=3).init(model, images, labels, _keys(12), 0)
    draws = [jax.grad(gradient)(images, noise[i : i + 12]) for i in (0, 12, 24)]
    np.testing.assert_allclose(state.gradients, sum(draws) / 3, atol=1e-4)
    assert float(jnp.abs(draws[0] - draws[1]).max()) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, "'hinge' is unknown; known: ce, dlr, dlr_targeted"),
        ({"norm": "l1"}, "'l1' is unknown; known: linf, l2"),
        ({"eps": -0.1}, "eps=-0.1"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"samples": 0}, "samples=0"),
    ],
)
def test_refuses_what_it_does_not_know(options, message):
    with pytest.raises(ValueError, match=message):
        apgd(**{"eps": 0.1} | options)


@pytest.mark.parametrize(
    ("classes", "loss", "targets", "message"),
    [
        (2, "dlr", 1, "3 largest logits, but there are 2 classes"),
        (3, "dlr_targeted", 2, "4 largest logits, but there are 3 classes"),
        (5, "dlr_targeted", 9, "9 targets, but 5 classes leave 4"),
    ],
)
def test_refuses_too_few_classes(classes, loss, targets, message):
    _, model = _linear(classes)
    attack = apgd(0.1, loss=loss, targets=targets)
    images, labels = _images(), jnp.zeros(12, jnp.int32)
    with pytest.raises(ValueError, match=message):
        attack.init(model, images, labels, _keys(12), 0)


def test_equal_attacks_are_one():
    assert apgd(0.1, loss="dlr") is apgd(0.1, loss="dlr")
    names = [apgd(0.1, loss=loss).name for loss in LOSSES]
    assert names == ["apgd-ce", "apgd-dlr", "apgd-t"]
    assert apgd(0.1, norm="l2").name == "apgd-ce-l2"

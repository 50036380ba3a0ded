"""FAB: a linear model's distances, invariants and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.attacks import base
from ddjax.attacks.fab import fab

SHAPE, CLASSES, BATCH = (4, 4, 3), 5, 12
KEYS = jax.random.split(jax.random.key(2), BATCH)


@pytest.fixture(scope="module")
def images():
    key = jax.random.key(1)
    return jax.random.uniform(key, (BATCH, *SHAPE), minval=0.3, maxval=0.7)


@pytest.fixture(scope="module")
def kernel():
    return jax.random.normal(jax.random.key(0), (48, CLASSES))


def _linear(kernel, images):
    return (images - 0.5).reshape(len(images), -1) @ kernel


def _network(images):
    """Two layers, so that the boundary is bent."""
    keys = jax.random.split(jax.random.key(3), 2)
    hidden = 3 * (images - 0.5).reshape(len(images), -1)
    hidden = jax.nn.relu(hidden @ jax.random.normal(keys[0], (48, 32)))
    return hidden @ jax.random.normal(keys[1], (32, CLASSES))


def _run(attack, model, images, labels, keys=KEYS, round=0):
    state = jax.jit(functools.partial(attack.init, model))(images, labels, keys, round)
    step = jax.jit(functools.partial(attack.step, model))
    for index in range(attack.num_steps):
        state = step(state, index, images, labels, keys)
    return state


def _distances(kernel, logits, labels):
    """[B, C], margin / |w_y - w_k|_1: how far each boundary is; inf for the label."""
    kernel, logits = np.asarray(kernel, np.float64), np.asarray(logits, np.float64)
    rows = np.arange(len(logits))
    gaps = logits[rows, labels][:, None] - logits
    norms = np.abs(kernel[:, labels].T[:, :, None] - kernel).sum(1)
    return np.where(norms > 0, gaps / np.where(norms > 0, norms, 1), np.inf)


@pytest.mark.parametrize("targets", [4, None])
def test_first_step_goes_five_percent_past_a_linear_boundary(kernel, images, targets):
    model = functools.partial(_linear, kernel)
    logits = model(images)
    labels = logits.argmax(1)
    state = _run(fab(1.0, targets=targets, num_steps=1), model, images, labels)
    distances = _distances(kernel, logits, labels)
    if targets is None:
        expected = distances.min(1)
    else:
        runner_up = np.argsort(np.asarray(logits), 1)[:, -2]
        np.testing.assert_array_equal(state.target, runner_up)
        expected = distances[np.arange(BATCH), runner_up]
    np.testing.assert_allclose(state.distance, 1.05 * expected, atol=1e-6)


def test_targets_together_find_the_nearest_boundary(kernel, images):
    """And later steps come closer to it than 1.05 of its distance."""
    model = functools.partial(_linear, kernel)
    labels = model(images).argmax(1)
    attack = fab(1.0, targets=4, num_steps=10)
    found = [_run(attack, model, images, labels, round=r).distance for r in range(4)]
    nearest = _distances(kernel, model(images), labels).min(1)
    ratio = np.min(found, 0) / nearest
    assert 1 <= ratio.min() and ratio.max() < 1.02


@pytest.mark.parametrize("targets", [2, None])
def test_gives_only_what_is_within_the_radius(images, targets):
    labels = _network(images).argmax(1)
    far = _run(fab(1.0, targets=targets, num_steps=8), _network, images, labels)
    eps = float(np.median(far.distance)) + 1e-6
    attack = fab(eps, targets=targets, num_steps=8)
    state = _run(attack, _network, images, labels)
    result = attack.result(state)
    np.testing.assert_allclose(state.distance, far.distance, atol=1e-6)
    moved = np.asarray(base.distance(result - images, "linf"))
    within = np.asarray(state.distance) <= eps
    assert 0 < within.sum() < BATCH
    np.testing.assert_allclose(moved, np.where(within, state.distance, 0), atol=1e-7)
    np.testing.assert_array_equal(_network(result).argmax(1) != labels, within)
    assert 0 <= float(result.min()) and float(result.max()) <= 1


def test_misclassified_images_stay(images):
    labels = (_network(images).argmax(1) + 1) % CLASSES
    attack = fab(0.1, targets=2, num_steps=3)
    state = _run(attack, _network, images, labels)
    np.testing.assert_array_equal(attack.result(state), images)
    np.testing.assert_array_equal(state.distance, 0)


def test_radius_of_zero_leaves_images(images):
    attack = fab(0.0, targets=2, num_steps=5, restarts=2)
    labels = _network(images).argmax(1)
    state = _run(attack, _network, images, labels, round=1)
    np.testing.assert_array_equal(attack.result(state), images)


def test_restarts_begin_within_half_the_radius(images):
    labels = _network(images).argmax(1)
    attack = fab(0.1, targets=2, num_steps=1, restarts=2)
    assert attack.rounds == 4
    init = jax.jit(functools.partial(attack.init, _network))
    states = [init(images, labels, KEYS, round) for round in range(4)]
    moved = [base.distance(state.images - images, "linf") for state in states]
    np.testing.assert_allclose(moved[0], 0)
    np.testing.assert_allclose(moved[1], 0.05, atol=1e-6)
    np.testing.assert_allclose(moved[2], 0)
    np.testing.assert_array_equal(states[0].target, states[1].target)
    assert np.all(states[0].target != states[2].target)


@pytest.mark.parametrize("targets", [2, None])
def test_state_keeps_its_types(images, targets):
    """Or an accelerator's scan of steps refuses it; weak types count."""
    attack = fab(0.1, targets=targets, restarts=2)
    common = images, jnp.zeros(BATCH, jnp.int32), KEYS
    state = jax.eval_shape(functools.partial(attack.init, _network), *common, 0)
    step = functools.partial(attack.step, _network)
    assert jax.eval_shape(step, state, jnp.int32(0), *common) == state
    assert all(leaf.shape[0] == BATCH for leaf in state)


@pytest.mark.parametrize("targets", [2, None])
def test_does_not_depend_on_the_batch(images, targets):
    """In double precision: whether a point is across the boundary hangs on rounding."""
    with jax.enable_x64(True):
        images = jnp.asarray(images, jnp.float64)
        labels = _network(images).argmax(1)
        attack = fab(0.1, targets=targets, num_steps=6, restarts=2)
        together = _run(attack, _network, images, labels, round=1)
        assert together.distance.dtype == jnp.float64
        for part in (slice(0, 4), slice(4, BATCH)):
            alone = _run(attack, _network, images[part], labels[part], KEYS[part], 1)
            for name in ("distance", "found"):
                wanted = getattr(together, name)[part]
                np.testing.assert_allclose(getattr(alone, name), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1.0}, "eps=-1.0"),
        ({"targets": 0}, "targets=0"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"restarts": 0}, "restarts=0"),
    ],
)
def test_refuses_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        fab(**{"eps": 0.1} | options)


@pytest.mark.parametrize(
    ("classes", "targets", "message"),
    [(11, None, "each of 11 classes"), (5, 5, "5 targets, but 5 classes leave 4")],
)
def test_refuses_numbers_of_classes(images, classes, targets, message):
    labels = jnp.zeros(BATCH, jnp.int32)
    with pytest.raises(ValueError, match=message):
        fab(0.1, targets=targets).init(
            lambda images: jnp.zeros((len(images), classes)), images, labels, KEYS, 0
        )


def test_counts_what_it_costs():
    found = fab(0.1), fab(0.1, targets=None, restarts=5)
    assert [attack.name for attack in found] == ["fab-t", "fab"]
    assert [attack.rounds for attack in found] == [9, 5]
    assert [attack.gradients for attack in found] == [100, 1000]
    assert fab(0.1) is found[0]

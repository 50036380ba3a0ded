"""APGD, FAB and the box projection against the authors' code, in float64.

What it gave is in fixtures/apgd.npz (make_apgd_fixtures.py), noise of starts included.
"""

import functools
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.attacks import base
from ddjax.attacks.apgd import apgd
from ddjax.attacks.fab import fab
from ddjax.attacks.projection import moves_to_plane

MODULE = importlib.import_module("ddjax.attacks.apgd")  # not its function
FILE = pathlib.Path(__file__).parent / "fixtures" / "apgd.npz"
EPS, EPS_L2 = 2 / 255, 0.1
ASCENTS = [(loss, "linf", n, 0) for loss in ("ce", "dlr") for n in (10, 20, 100)]
ASCENTS += [("dlr_targeted", "linf", 100, rank) for rank in (2, 5, 9)]
ASCENTS += [(loss, "l2", 20, 0) for loss in ("ce", "dlr")]


@pytest.fixture(scope="module")
def fixture():
    with np.load(FILE) as file:
        return dict(file)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def noise(fixture, monkeypatch):
    """Makes attacks start from the recorded noise."""
    drawn = _channels_last(fixture["noise"].astype(np.float64))

    def uniform(keys, images):
        return jnp.asarray(2 * (drawn / 255) - 1, images.dtype)

    def surface(keys, images, norm):
        if norm == "linf":
            return MODULE._unit(uniform(keys, images), norm)
        return MODULE._unit(jnp.asarray((drawn - 127.5) / 64, images.dtype), norm)

    monkeypatch.setattr(base, "uniform", uniform)
    monkeypatch.setattr(MODULE, "_surface", surface)


def _channels_last(images):
    return images.transpose(0, 2, 3, 1)


def _model(weights, images):
    """The network of the fixtures' script."""

    def convolve(x, name, stride):
        kernel = weights[name].transpose(2, 3, 1, 0)
        layout = ("NHWC", "HWIO", "NHWC")
        pads = ((1, 1), (1, 1))
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=layout
        )

    def norm(x, i):
        scale = weights[f"scale{i}"] / jnp.sqrt(weights[f"var{i}"] + 1e-5)
        return (x - weights[f"mean{i}"]) * scale + weights[f"bias{i}"]

    x = (images - 0.5) / 0.25
    x = jax.nn.relu(norm(convolve(x, "conv1", 1), 1))
    x = jax.nn.relu(norm(convolve(x, "conv2", 2), 2))
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ weights["linear"].T


@functools.partial(jax.jit, static_argnums=0)
def _step(step, weights, state, index, images, labels, keys):
    return step(functools.partial(_model, weights), state, index, images, labels, keys)


def _run(attack, fixture, round, dtype):
    weights = {
        name.removeprefix("weights/"): jnp.asarray(value, dtype)
        for name, value in fixture.items()
        if name.startswith("weights/")
    }
    images = jnp.asarray(_channels_last(fixture["pixels"] / 255.0), dtype)
    labels = jnp.asarray(fixture["labels"], jnp.int32)
    keys = jax.random.split(jax.random.key(0), len(images))
    model = functools.partial(_model, weights)
    state = attack.init(model, images, labels, keys, round)
    for index in range(attack.num_steps):
        state = _step(attack.step, weights, state, index, images, labels, keys)
    correct = model(attack.result(state)).argmax(1) == labels
    return state, np.asarray(correct), images


def _digests(images):
    flat = np.asarray(images).transpose(0, 3, 1, 2).reshape(len(images), -1)
    places = np.arange(flat.shape[1])
    return np.stack([flat @ np.cos(places), flat @ np.sin(1.7 * places)])


def _ascent(loss, norm, num_steps):
    eps = EPS if norm == "linf" else EPS_L2
    return apgd(eps, loss=loss, norm=norm, num_steps=num_steps)


def _expected(fixture, loss, norm, num_steps, rank):
    norm = {"linf": "Linf", "l2": "L2"}[norm]
    name = f"apgd/{loss.replace('_', '-')}/{norm}/{num_steps}/{rank}"
    return (fixture[f"{name}/{part}"] for part in ("correct", "best_loss", "digests"))


@pytest.mark.parametrize(("loss", "norm", "num_steps", "rank"), ASCENTS)
def test_climbs_as_the_reference(fixture, float64, noise, loss, norm, num_steps, rank):
    attack = _ascent(loss, norm, num_steps)
    state, correct, _ = _run(attack, fixture, max(rank - 2, 0), np.float64)
    masks, best_loss, digests = _expected(fixture, loss, norm, num_steps, rank)
    np.testing.assert_array_equal(correct, masks)
    # The reference divides by a length + 1e-12 when it projects onto an L2 ball.
    near = 1e-12 if norm == "linf" else 1e-8
    np.testing.assert_allclose(state.best_loss, best_loss, rtol=near, atol=near)
    broken = ~masks
    found = _digests(state.found)[:, broken]
    # Sums over 192 pixels; where DLR is flat an L2 direction is rounding's.
    near = 1e-11 if norm == "linf" else 1e-6
    np.testing.assert_allclose(found, digests[:, broken], rtol=0, atol=near)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_float32_breaks_the_same_images(fixture, noise, loss):
    """Pixels differ after some twenty steps, for one sign is enough."""
    state, correct, _ = _run(_ascent(loss, "linf", 20), fixture, 0, np.float32)
    masks, best_loss, _ = _expected(fixture, loss, "linf", 20, 0)
    np.testing.assert_array_equal(correct, masks)
    np.testing.assert_allclose(state.best_loss, best_loss, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 5, 9, 0])
def test_fab_finds_the_distances_of_the_reference(fixture, float64, rank):
    attack = fab(EPS, targets=9 if rank else None)
    state, _, _ = _run(attack, fixture, max(rank - 2, 0), np.float64)
    _check_boundary(fixture, f"fab/{rank}/100/0", state)


@pytest.mark.parametrize("rank", [3, 0])
def test_fab_restarts_as_the_reference(fixture, float64, noise, rank):
    attack = fab(EPS, targets=9 if rank else None, restarts=2, num_steps=20)
    round = 2 * (rank - 2) + 1 if rank else 1
    state, _, _ = _run(attack, fixture, round, np.float64)
    _check_boundary(fixture, f"fab/{rank}/20/1", state)


def _check_boundary(fixture, name, state):
    distance = fixture[f"{name}/distance"]
    assert np.isfinite(state.distance).sum() > 30
    # The reference gives the clean image, at distance 0, where it finds nothing.
    found = np.where(np.isfinite(state.distance), state.distance, 0.0)
    np.testing.assert_allclose(found, distance, rtol=0, atol=1e-12)
    within = (0 < distance) & (distance <= EPS)
    digests = fixture[f"{name}/digests"][:, within]
    np.testing.assert_allclose(_digests(state.found)[:, within], digests, atol=1e-11)


def test_projection_is_that_of_the_reference(fixture, float64):
    """With normals of zero, pixels at their walls and planes that miss the box."""
    points, normals, offsets, moves = (
        fixture[f"box/{name}"] for name in ("points", "normals", "offsets", "moves")
    )
    heights = np.sum(points * normals, 1) - offsets
    shape = (len(points), 5, 3, 2)
    found = moves_to_plane(points.reshape(shape), normals.reshape(shape), heights)
    missed = np.abs(np.sum((points + moves) * normals, 1) - offsets) > 1e-9
    assert 4 < missed.sum() < 12
    np.testing.assert_allclose(found.reshape(moves.shape), moves, rtol=0, atol=1e-12)

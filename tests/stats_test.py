"""Class statistics against direct computation and golden value C."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import data, ot, stats
from ddjax.ot.mmd import mmd_atoms
from ddjax.ot.sliced import sliced_barycenter
from ddjax.types import Moments


@pytest.fixture(scope="module")
def seven():
    """Per-image moments of golden C's formula for seven items."""
    n, c, h, w = np.meshgrid(*map(np.arange, (7, 3, 2, 2)), indexing="ij")
    a = np.sin(0.1 * (3 * n + 1) + 0.7 * c + 0.3 * h - 0.2 * w) + 0.05 * n
    return Moments(a.mean((2, 3)), a.var((2, 3)))


def test_exact_moments_are_golden(seven):
    found = stats.class_moments(seven)
    np.testing.assert_allclose(found.mean, [0.85765776, 0.95275150, 0.67029866], 1e-5)
    np.testing.assert_allclose(found.var, [0.16063794, 0.02961343, 0.12112706], 1e-5)


def test_reference_moments_are_golden(seven):
    """The released code averages variances within batches, here of 4 and 3."""
    found = stats.class_moments(seven, batch_size=4)
    np.testing.assert_allclose(found.mean, [0.85765776, 0.95275150, 0.67029866], 1e-5)
    np.testing.assert_allclose(found.var, [0.07194429, 0.02919486, 0.03796418], 1e-5)


@pytest.mark.parametrize("batch_size", [100, 33])
def test_batches_of_250_images(batch_size):
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(250, 4, 4, 5)) + rng.normal(size=(250, 1, 1, 5))
    images = Moments(pixels.mean((1, 2)), pixels.var((1, 2)))
    exact = stats.class_moments(images)
    np.testing.assert_allclose(exact.var, pixels.var((0, 1, 2)), rtol=1e-5)
    groups = [pixels[i : i + batch_size] for i in range(0, 250, batch_size)]
    sizes = [len(g) for g in groups]
    within = np.average([g.var((0, 1, 2)) for g in groups], 0, weights=sizes)
    reference = stats.class_moments(images, batch_size=batch_size)
    np.testing.assert_allclose(reference.var, within, rtol=1e-5)
    np.testing.assert_allclose(reference.mean, pixels.mean((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [4, 100])
def test_collect_is_the_direct_computation(
    tiny_data, tiny_network, tiny_variables, batch_size
):
    features, found = stats.collect(
        tiny_network.apply, tiny_variables, tiny_data, batch_size=batch_size
    )
    images = jnp.asarray(tiny_data.images / np.float32(255))
    _, out = tiny_network.apply(tiny_variables, images)
    np.testing.assert_allclose(features, out["features"], atol=1e-5)
    assert found.count.tolist() == [4, 5, 6]
    for k, rows in enumerate(data.class_slices(tiny_data)):
        for layer, seen in zip(found.layers, out["moments"]):
            mean, var = seen.mean[rows], seen.var[rows]
            np.testing.assert_allclose(layer.mean[k], mean.mean(0), atol=1e-5)
            expected = var.mean(0) + mean.var(0)
            np.testing.assert_allclose(layer.var[k], expected, atol=1e-5)


def test_barycenters_are_those_of_each_class(tiny_data):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(15, 6)).astype(np.float32)
    key = jax.random.key(0)
    found = stats.barycenters(key, features, tiny_data, 2)
    assert found.points.shape == (3, 2, 6) and found.converged.all()
    for k, rows in enumerate(data.class_slices(tiny_data)):
        x = features[rows]
        a = np.full(len(x), 1 / len(x), np.float32)
        w = np.full(2, 0.5, np.float32)
        cost = ot.squared_euclidean(x, found.points[k])
        transport = ot.lp(cost, a, w)
        assert float(found.cost[k]) == pytest.approx(float(transport.cost), rel=1e-4)
        moved = ot.newton_step(transport.plan, x, found.points[k])
        np.testing.assert_allclose(moved, found.points[k], atol=1e-3)


def test_one_atom_per_class_is_the_class_mean(tiny_data):
    features = np.random.default_rng(0).normal(size=(15, 6)).astype(np.float32)
    found = stats.barycenters(jax.random.key(0), features, tiny_data, 1)
    for k, rows in enumerate(data.class_slices(tiny_data)):
        np.testing.assert_allclose(
            found.points[k, 0], features[rows].mean(0), atol=1e-6
        )


FIND = {
    "barycenter": ot.barycenter,
    "k-means": functools.partial(ot.barycenter, weights="voronoi", init="k-means++"),
}


@pytest.mark.parametrize("name", FIND)
def test_atoms_are_those_found_for_each_class_alone(tiny_data, name):
    """With keys that are those of the labels."""
    features = np.random.default_rng(0).normal(size=(15, 6)).astype(np.float32)
    key = jax.random.key(0)
    found = stats.barycenters(key, features, tiny_data, 2, find=FIND[name])
    rows = data.class_slices(tiny_data)[2]  # the largest: it needs no padding
    x, a = features[rows], np.full(6, 1 / 6, np.float32)
    key = jax.random.fold_in(key, 2)
    alone = jax.jit(lambda key, x: FIND[name](key, x, 2, a=a))(key, x)
    np.testing.assert_allclose(found.points[2], alone.points, atol=1e-4)
    np.testing.assert_allclose(found.weights[2], alone.weights, atol=1e-5)


@pytest.mark.parametrize(
    "find",
    [
        functools.partial(sliced_barycenter, projections=6, iterations=5),
        functools.partial(mmd_atoms, iterations=2),
    ],
    ids=["sliced", "mmd"],
)
def test_other_functions_find_atoms_within_their_class_too(tiny_data, find):
    features = np.random.default_rng(0).random((15, 6), np.float32)
    features += 10 * tiny_data.labels[:, None]
    done = []
    found = stats.barycenters(
        jax.random.key(0), features, tiny_data, 2, find=find, observe=done.append
    )
    assert done == [1, 2, 3]
    assert found.points.shape == (3, 2, 6) and np.all(found.weights == 0.5)
    for k, rows in enumerate(data.class_slices(tiny_data)):
        assert (found.points[k] >= features[rows].min(0) - 0.2).all()
        assert (found.points[k] <= features[rows].max(0) + 0.2).all()


@pytest.mark.parametrize("name", ["barycenter", "k-means"])
def test_atoms_of_a_class_do_not_depend_on_the_others(tiny_data, name):
    """Not even by the padding, which is that of the largest."""
    features = np.random.default_rng(0).normal(size=(15, 6)).astype(np.float32)
    fewer = tiny_data._replace(
        images=tiny_data.images[:9],
        labels=tiny_data.labels[:9],
        info=tiny_data.info._replace(classes=("a", "b")),
    )
    key, find = jax.random.key(0), FIND[name]
    of_all = stats.barycenters(key, features, tiny_data, 2, find=find)
    of_two = stats.barycenters(key, features[:9], fewer, 2, find=find)
    np.testing.assert_allclose(of_two.points, of_all.points[:2], atol=1e-4)
    np.testing.assert_allclose(of_two.cost, of_all.cost[:2], rtol=1e-4)


def test_refuses_features_that_are_not_finite(tiny_data):
    features = np.zeros((15, 6), np.float32)
    features[5, 2] = np.inf
    with pytest.raises(ValueError, match="features of class 'b' have NaN or infinite"):
        stats.barycenters(jax.random.key(0), features, tiny_data, 2)


def test_refuses_more_images_than_the_smallest_class_has(tiny_data):
    with pytest.raises(ValueError, match="ipc must lie in 1..4; got 5.*'a', has 4"):
        stats.check_ipc(5, tiny_data.info, stats.class_counts(tiny_data))

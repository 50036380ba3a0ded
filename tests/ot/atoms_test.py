"""First atoms against the law they are drawn by, and scikit-learn."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import cluster

from ddjax import ot

DRAWS = {"sample": ot.sample, "k-means++": ot.k_means_plus_plus}
each_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@functools.partial(jax.jit, static_argnums=(0, 2, 4))
def _draws(draw, x, size, a, count):
    """[count, size, D], from as many keys."""
    keys = jax.random.split(jax.random.key(0), count)
    return jax.vmap(lambda key: draw(key, x, size, a))(keys)


@pytest.fixture(scope="module")
def clusters():
    """Four far clusters of ten points."""
    rng = np.random.default_rng(0)
    centres = 10 * np.eye(4).repeat(10, 0)
    return (centres + 0.1 * rng.normal(size=(40, 4))).astype(np.float32)


def _indices(x, y):
    """Which points of x [n, D] the drawn y [..., D] are."""
    same = (np.asarray(y)[..., None, :] == x).all(-1)
    assert (same.sum(-1) == 1).all()
    return same.argmax(-1)


@each_draw
def test_draws_different_points_of_the_cloud_and_no_padded_ones(draw, clusters):
    a = np.r_[np.zeros(5), np.ones(30), np.zeros(5)].astype(np.float32) / 30
    chosen = _indices(clusters, _draws(draw, clusters, 12, a, 50))
    assert (np.diff(np.sort(chosen), axis=1) > 0).all()
    assert chosen.min() >= 5 and chosen.max() < 35
    assert len({tuple(row) for row in chosen}) == 50


@each_draw
def test_all_points_can_be_drawn(draw, clusters):
    a = np.full(40, 1 / 40, np.float32)
    chosen = _indices(clusters, _draws(draw, clusters, 40, a, 3))
    np.testing.assert_array_equal(np.sort(chosen), np.tile(np.arange(40), (3, 1)))


@each_draw
def test_pairs_come_as_often_as_they_should(draw):
    """By mass without replacement; or the second by its cost to the first."""
    count, x = 20_000, np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    a = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
    chosen = _indices(x, _draws(draw, x, 2, a, count))
    for i, j in itertools.permutations(range(4), 2):
        second = a * (1 if draw is ot.sample else (x - x[i])[:, 0] ** 2)
        second[i] = 0
        expected = a[i] * second[j] / second.sum()
        seen = np.mean((chosen == [i, j]).all(1))
        deviation = np.sqrt(expected * (1 - expected) / count)
        assert abs(seen - expected) < 4 * deviation


def test_k_means_plus_plus_hits_each_cluster(clusters):
    a = np.full(40, 1 / 40, np.float32)
    hits = {}
    for name, draw in DRAWS.items():
        chosen = _indices(clusters, _draws(draw, clusters, 4, a, 500)) // 10
        hits[name] = np.mean(np.ptp(np.diff(np.sort(chosen), axis=1), axis=1) == 0)
    assert hits["k-means++"] > 0.99
    # Ten choices in each of four clusters, of all (40 choose 4) sets: 0.109.
    assert hits["sample"] == pytest.approx(0.109, abs=0.05)


def test_k_means_plus_plus_is_as_good_as_that_of_scikit_learn():
    x = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    a = np.full(60, 1 / 60, np.float32)
    ours = _draws(ot.k_means_plus_plus, x, 6, a, 300)
    theirs = [
        cluster.kmeans_plusplus(x, 6, n_local_trials=1, random_state=i)[0]
        for i in range(300)
    ]
    squares = [
        np.array([((x[:, None] - y) ** 2).sum(-1).min(1).mean() for y in np.asarray(z)])
        for z in (ours, theirs)
    ]
    spread = np.sqrt(sum(s.var() / len(s) for s in squares))
    assert abs(squares[0].mean() - squares[1].mean()) < 3 * spread


@each_draw
def test_equal_points_are_drawn_as_often_as_asked(draw):
    x = np.full((6, 2), 3.0, np.float32)
    found = _draws(draw, x, 4, np.full(6, 1 / 6, np.float32), 3)
    np.testing.assert_array_equal(found, np.full((3, 4, 2), 3.0))


def test_k_means_plus_plus_takes_every_different_point_first():
    """Ten copies of each of three points: no copy before the third point."""
    x = np.array([[0.0], [1.0], [5.0]], np.float32).repeat(10, 0)
    found = _draws(ot.k_means_plus_plus, x, 3, np.full(30, 1 / 30, np.float32), 200)
    expected = np.tile([0, 1, 5], (200, 1))
    np.testing.assert_array_equal(np.sort(found[..., 0]), expected)


def test_bfloat_cloud_gives_points_of_its_type(clusters):
    x = jnp.asarray(clusters, jnp.bfloat16)
    found = ot.k_means_plus_plus(jax.random.key(0), x, 3, jnp.full(40, 1 / 40))
    assert found.dtype == jnp.bfloat16 and found.shape == (3, 4)


@each_draw
def test_far_padding_is_not_drawn_where_all_points_are_equal(draw):
    """Not even when there is nothing else left to tell the points apart."""
    x = np.array([[9.0], [1.0], [1.0], [1.0]], np.float32)
    a = np.array([0, 1, 1, 1], np.float32) / 3
    np.testing.assert_array_equal(_draws(draw, x, 3, a, 20), np.ones((20, 3, 1)))

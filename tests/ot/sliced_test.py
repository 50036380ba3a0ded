"""Sliced transport against POT, closed forms and plain gradient descent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import ot as pot
import pytest

from ddjax.ot.barycenter import barycenter
from ddjax.ot.sliced import (
    directions,
    sliced_barycenter,
    sliced_wasserstein,
    wasserstein_1d,
)

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def pair():
    """Two weighted clouds [17, 4] and [9, 4] with their masses."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(17, 4)), rng.normal(size=(9, 4)) + 0.5
    a, b = rng.random(17), rng.random(9)
    return tuple(z.astype(np.float32) for z in (x, y, a / a.sum(), b / b.sum()))


@pytest.fixture(scope="module")
def cloud():
    rng = np.random.default_rng(1)
    return np.maximum(rng.normal(size=(60, 8)), 0).astype(np.float32)


def _pot_1d(x, y, a, b):
    x, y, a, b = (np.asarray(z, np.float64) for z in (x, y, a, b))
    return float(pot.wasserstein_1d(x, y, a / a.sum(), b / b.sum(), p=2))


def _pot_sliced(x, y, theta, a, b):
    x, y, a, b, theta = (np.asarray(z, np.float64) for z in (x, y, a, b, theta))
    a, b = a / a.sum(), b / b.sum()
    return pot.sliced_wasserstein_distance(x, y, a, b, projections=theta.T) ** 2


def _differences(function, z, h=1e-6):
    """Central differences of a function of one float64 array."""
    z = np.asarray(z, np.float64)
    slope = np.zeros(z.size)
    for i, unit in enumerate(np.eye(z.size) * h):
        unit = unit.reshape(z.shape)
        slope[i] = (function(z + unit) - function(z - unit)) / (2 * h)
    return slope.reshape(z.shape)


@pytest.mark.parametrize("n,m", [(1, 1), (1, 7), (6, 3), (12, 12), (31, 50)])
def test_line_is_that_of_pot(n, m):
    rng = np.random.default_rng(n + m)
    x, y = rng.normal(size=n), 2 * rng.normal(size=m)
    a, b = rng.random(n), rng.random(m)
    assert float(wasserstein_1d(x, y, a, b)) == pytest.approx(
        _pot_1d(x, y, a, b), rel=1e-5
    )
    equal = _pot_1d(x, y, np.ones(n), np.ones(m))
    assert float(wasserstein_1d(x, y)) == pytest.approx(equal, rel=1e-5)


def test_line_with_equal_masses_pairs_the_sorted_points():
    x, y = np.random.default_rng(2).normal(size=(2, 40)).astype(np.float32)
    expected = np.mean((np.sort(x) - np.sort(y)) ** 2)
    assert float(wasserstein_1d(x, y)) == pytest.approx(expected, rel=1e-5)
    assert float(wasserstein_1d(x, x[::-1])) == 0


def test_line_with_repeated_points():
    x, a = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 3.0, 3.0])
    assert float(wasserstein_1d(x, np.zeros(2), a)) == pytest.approx(0.5, rel=1e-6)


def test_rounding_of_many_masses_chooses_no_point_without_mass():
    """5,000 float32 masses do not sum to 1, nor do two orders of summing agree."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 5000)).astype(np.float32)
    a, b = rng.random((2, 5000)).astype(np.float32) * (rng.random((2, 5000)) < 0.5)
    expected = _pot_1d(x[a > 0], y[b > 0], a[a > 0], b[b > 0])
    x[a == 0], y[b == 0] = 1e6, -1e6
    assert float(wasserstein_1d(x, y, a, b)) == pytest.approx(expected, rel=1e-4)
    scaled = wasserstein_1d(x, y, 1e-3 * a, 1e4 * b)
    assert float(scaled) == pytest.approx(expected, rel=1e-4)


def test_slope_on_the_line_is_that_of_pot(pair):
    x, y, a, b = pair
    x, y = x[:, 0], y[:, 0]
    slopes = jax.grad(wasserstein_1d, (0, 1))(x, y, a, b)
    of_x = _differences(lambda x: _pot_1d(x, y, a, b), x)
    of_y = _differences(lambda y: _pot_1d(x, y, a, b), y)
    np.testing.assert_allclose(slopes[0], of_x, atol=1e-5)
    np.testing.assert_allclose(slopes[1], of_y, atol=1e-5)


def test_padding_of_the_line_is_free_and_has_no_slope(pair):
    x, y, a, b = pair
    x, y = x[:, 0], y[:, 0]
    plain, slope = jax.value_and_grad(wasserstein_1d)(x, y, a, b)
    padded = np.concatenate([[1e9, np.nan], x, [-np.inf]]).astype(np.float32)
    value, slopes = jax.jit(jax.value_and_grad(wasserstein_1d))(
        padded, y, np.pad(a, (2, 1)), b
    )
    assert float(value) == pytest.approx(float(plain), rel=1e-5)
    np.testing.assert_allclose(slopes, np.pad(slope, (2, 1)), atol=1e-6)


def test_line_under_vmap(pair):
    x, y, a, b = pair
    together = jax.vmap(wasserstein_1d, (1, 1, None, None))(x, y, a, b)
    expected = [_pot_1d(x[:, i], y[:, i], a, b) for i in range(4)]
    np.testing.assert_allclose(together, expected, rtol=1e-5)


@pytest.mark.parametrize("dimension", [1, 2, 5, 64])
def test_directions_are_whole_bases(dimension):
    theta = directions(KEY, 3 * dimension, dimension)
    outer = theta.T @ theta / len(theta)
    np.testing.assert_allclose(outer, np.eye(dimension) / dimension, atol=1e-6)
    first = theta[:dimension]
    np.testing.assert_allclose(first @ first.T, np.eye(dimension), atol=1e-5)
    assert not np.allclose(first, theta[dimension : 2 * dimension]) or dimension == 1


def test_directions_are_cut_and_uniform():
    assert directions(KEY, 7, 3).shape == (7, 3)
    theta = directions(KEY, 6000, 3)
    np.testing.assert_allclose(jnp.linalg.norm(theta, axis=1), 1, atol=1e-5)
    # On the sphere of R^3 every coordinate is uniform on [-1, 1].
    deciles = np.quantile(theta, np.linspace(0, 1, 11), axis=0)
    np.testing.assert_allclose(deciles.T, [np.linspace(-1, 1, 11)] * 3, atol=0.05)
    with pytest.raises(ValueError, match="at least 1; got 0 and 3"):
        directions(KEY, 0, 3)


def test_distance_is_that_of_pot(pair):
    theta = directions(KEY, 10, 4)
    x, y, a, b = pair
    found = jax.jit(sliced_wasserstein)(x, y, theta, a, b)
    assert float(found) == pytest.approx(_pot_sliced(x, y, theta, a, b), rel=1e-5)
    equal = _pot_sliced(x, y, theta, np.ones(17), np.ones(9))
    assert float(sliced_wasserstein(x, y, theta)) == pytest.approx(equal, rel=1e-5)


def test_slope_of_the_distance_is_that_of_pot(pair):
    theta = directions(KEY, 6, 4)
    x, y, a, b = pair
    slopes = jax.grad(sliced_wasserstein, (0, 1))(x, y, theta, a, b)
    of_x = _differences(lambda x: _pot_sliced(x, y, theta, a, b), x)
    of_y = _differences(lambda y: _pot_sliced(x, y, theta, a, b), y)
    np.testing.assert_allclose(slopes[0], of_x, atol=1e-5)
    np.testing.assert_allclose(slopes[1], of_y, atol=1e-5)


def test_distance_of_a_translation_is_exact_far_from_the_origin(cloud):
    theta, shift = directions(KEY, 16, 8), np.arange(8, dtype=np.float32)
    for x in (cloud, cloud + 1e5):
        found = sliced_wasserstein(x, x + shift, theta)
        assert float(found) == pytest.approx(shift @ shift / 8, rel=1e-5)


def test_distance_is_at_most_the_exact_one_over_the_dimension(pair):
    x, y, a, b = (z.astype(np.float64) for z in pair)
    exact = pot.emd2(a / a.sum(), b / b.sum(), pot.dist(x, y))
    found = sliced_wasserstein(x, y, directions(KEY, 40, 4), a, b)
    assert 0.2 * exact / 4 < float(found) < exact / 4


def test_padding_of_the_distance_is_free_and_has_no_slope(pair):
    x, y, a, b = pair
    theta = directions(KEY, 8, 4)
    plain, slope = jax.value_and_grad(sliced_wasserstein)(x, y, theta, a, b)
    poison = np.array([[1e9] * 4, [np.nan] * 4, [np.inf] * 4], np.float32)
    value, slopes = jax.jit(jax.value_and_grad(sliced_wasserstein))(
        np.concatenate([x, poison]), y, theta, np.pad(a, (0, 3)), b
    )
    assert float(value) == pytest.approx(float(plain), rel=1e-5)
    np.testing.assert_allclose(slopes, np.pad(slope, ((0, 3), (0, 0))), atol=1e-6)


def test_no_matrix_of_pairs_is_made():
    x = jax.ShapeDtypeStruct((4000, 2), jnp.float32)
    theta = jax.ShapeDtypeStruct((4, 2), jnp.float32)
    compiled = jax.jit(jax.grad(sliced_wasserstein)).lower(x, x, theta).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4000 * 4000 * 4 / 10


def test_refuses_what_is_no_pair_of_clouds(pair):
    x, y, a, b = pair
    with pytest.raises(ValueError, match=r"agree in D; got shapes \(17, 4\), \(9, 3\)"):
        sliced_wasserstein(x, y[:, :3], directions(KEY, 4, 4))
    with pytest.raises(ValueError, match="x has NaN"):
        sliced_wasserstein(x * np.nan, y, directions(KEY, 4, 4))
    with pytest.raises(ValueError, match="masses of y must be non-negative"):
        wasserstein_1d(x[:, 0], y[:, 0], a, -b)


def test_atoms_of_the_line_are_the_segment_means():
    x = np.random.default_rng(4).normal(size=(12, 1)).astype(np.float32)
    found = sliced_barycenter(KEY, x, 3)
    expected = np.sort(x[:, 0]).reshape(3, 4).mean(1)
    np.testing.assert_allclose(np.sort(found.points[:, 0]), expected, atol=1e-6)
    exact = np.mean((np.sort(x[:, 0]).reshape(3, 4) - expected[:, None]) ** 2)
    assert float(found.cost) == pytest.approx(exact, rel=1e-5)
    assert bool(found.converged)


def test_segments_cut_through_heavy_points():
    """Whole masses: the same line with each point repeated as often."""
    x, times = np.array([5.0, -1.0, 2.0, 7.0]), np.array([4, 1, 3, 7])
    found = sliced_barycenter(KEY, x[:, None].astype(np.float32), 3, a=times)
    expected = np.sort(np.repeat(x, times)).reshape(3, 5).mean(1)
    np.testing.assert_allclose(np.sort(found.points[:, 0]), expected, atol=1e-5)


def test_atoms_of_tight_groups_are_their_means():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4, 1, 3)) * 5 + 1e-3 * rng.normal(size=(4, 6, 3))
    x = x.astype(np.float32)
    found = sliced_barycenter(KEY, x.reshape(24, 3), 4, start=x[:, 0] + 0.5)
    np.testing.assert_allclose(found.points, x.mean(1), atol=2e-3)


def test_one_atom_is_the_mean(cloud):
    found = sliced_barycenter(KEY, cloud, 1)
    np.testing.assert_allclose(found.points[0], cloud.mean(0), atol=1e-6)
    variance = cloud.var(0).sum()
    assert float(found.cost) == pytest.approx(variance, rel=1e-5)


def test_no_step_raises_the_sliced_cost(cloud):
    theta = directions(jax.random.split(KEY)[1], 32, 8)  # those the key draws inside

    @jax.jit
    def after(steps):
        found = sliced_barycenter(KEY, cloud, 6, projections=26, iterations=steps)
        value = sliced_wasserstein(cloud, found.points, theta)
        return value, found.converged

    values, converged = zip(*map(after, range(12)))
    assert np.all(np.diff(values) < 1e-6)
    assert float(values[-1]) < 0.6 * float(values[0])
    assert not any(converged[:3]) and bool(after(100)[1])


def test_gradient_descent_reaches_no_lower(cloud):
    """Small steps end in the same kind of minimum; jumps overfit the directions."""
    start, theta = cloud[:6], directions(jax.random.split(KEY)[1], 256, 8)
    found = sliced_barycenter(KEY, cloud, 6, start=start, projections=256)
    first, ours = (sliced_wasserstein(cloud, y, theta) for y in (start, found.points))
    small = _descend(optax.sgd(0.2 * 8 * 6 / 2), cloud, start, theta)
    assert float(ours) < 1.01 * float(sliced_wasserstein(cloud, small, theta))
    assert float(ours) < 0.6 * float(first)

    jumping = optax.adam(optax.cosine_decay_schedule(0.1, 150))
    jumped = _descend(jumping, cloud, start, theta)
    fresh = directions(jax.random.key(1), 2048, 8)
    ours, theirs = (
        float(sliced_wasserstein(cloud, y, fresh)) for y in (found.points, jumped)
    )
    assert ours < 1.03 * theirs


def _descend(optimiser, x, y, theta, steps=150):
    def step(carry, _):
        y, state = carry
        slope = jax.grad(sliced_wasserstein, 1)(x, y, theta)
        change, state = optimiser.update(slope, state)
        return (y + change, state), None

    return jax.lax.scan(step, (y, optimiser.init(y)), None, length=steps)[0][0]


def test_cost_is_the_exact_one_near_that_of_the_exact_barycenter_in_the_plane():
    x = np.random.default_rng(6).normal(size=(60, 2)).astype(np.float32)
    sliced, exact = sliced_barycenter(KEY, x, 5), barycenter(KEY, x, 5)
    equal = np.full(5, 1 / 5), np.full(60, 1 / 60)
    cost = pot.emd2(*equal, pot.dist(np.asarray(sliced.points, np.float64), x))
    assert float(sliced.cost) == pytest.approx(cost, rel=1e-5)
    assert float(sliced.cost) < 1.15 * float(exact.cost)


def test_atoms_of_a_wide_cloud_cost_more_than_the_mean():
    """What the docstring warns of: eight copies of the mean cost the variance."""
    x = np.random.default_rng(7).normal(size=(200, 32)).astype(np.float32)
    found = sliced_barycenter(KEY, x, 8, projections=64)
    assert float(found.cost) > 1.1 * x.var(0).sum()


def test_translation_moves_the_atoms(cloud):
    solve = jax.jit(lambda x: sliced_barycenter(KEY, x, 4, projections=32).points)
    np.testing.assert_allclose(solve(cloud + 3.0), solve(cloud) + 3.0, atol=1e-4)


def test_padding_and_vmap_change_nothing(cloud):
    poison = np.array([[1e9] * 8, [np.nan] * 8, [np.inf] * 8], np.float32)
    padded = np.concatenate([cloud, poison])
    a = np.pad(np.ones(60, np.float32), (0, 3))

    def solve(x, a):
        return sliced_barycenter(KEY, x, 4, a=a, start=cloud[:4], projections=32)

    both = jax.jit(jax.vmap(solve))(
        np.stack([padded, padded + 1.0]), np.stack([a, 2 * a])
    )
    alone = jax.jit(solve)
    for i in range(2):
        one = alone(cloud + i, np.ones(60, np.float32))
        np.testing.assert_allclose(both.points[i], one.points, atol=1e-4)
        np.testing.assert_allclose(both.cost[i], one.cost, rtol=1e-4)


def test_no_atom_starts_at_a_row_without_mass(cloud):
    """Asked for more atoms than rows with mass, the rest start at the mean."""
    x = np.concatenate([cloud, np.full((3, 8), 1e9, np.float32)])
    a = np.pad(np.ones(60), (0, 3))
    found = sliced_barycenter(KEY, x, 62, a=a, projections=8, iterations=0)
    assert np.abs(found.points).max() < 10


def test_atoms_that_start_together_part(cloud):
    found = sliced_barycenter(KEY, cloud, 4, start=np.zeros((4, 8)), projections=32)
    gaps = pot.dist(np.asarray(found.points)) + 1e3 * np.eye(4)
    assert gaps.min() > 0.1


def test_refuses_more_atoms_than_points_and_bad_masses(cloud):
    with pytest.raises(ValueError, match="61 atoms for 60 points"):
        sliced_barycenter(KEY, cloud, 61)
    with pytest.raises(ValueError, match="masses of x must be non-negative"):
        sliced_barycenter(KEY, cloud, 2, a=np.zeros(60))

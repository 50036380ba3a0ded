"""MMD against scikit-learn, SciPy and closed forms; its atoms against support points."""

import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest
from scipy import stats
from scipy.spatial import distance
from sklearn.metrics import pairwise

from ddjax.ot.mmd import (
    energy,
    gaussian,
    linear,
    median_bandwidth,
    mmd_atoms,
    mmd_squared,
)

KEY = jax.random.key(0)
KERNELS = {"energy": energy, "gaussian": gaussian(1.5), "linear": linear}


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
    return np.maximum(rng.normal(size=(300, 16)), 0).astype(np.float32)


def _matrix(name, x, y):
    """The same kernels in float64, by others."""
    if name == "energy":
        return -distance.cdist(x, y)
    if name == "gaussian":
        return pairwise.rbf_kernel(x, y, gamma=1 / (2 * 1.5**2))
    return pairwise.linear_kernel(x, y)


def _expected(name, x, y, a=None, b=None):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    a = np.full(len(x), 1 / len(x)) if a is None else a / np.sum(a, dtype=np.float64)
    b = np.full(len(y), 1 / len(y)) if b is None else b / np.sum(b, dtype=np.float64)
    within = a @ _matrix(name, x, x) @ a + b @ _matrix(name, y, y) @ b
    return within - 2 * a @ _matrix(name, x, y) @ b


@pytest.mark.parametrize("name", KERNELS)
def test_value_is_that_of_the_kernel_matrices(name, pair):
    x, y, a, b = pair
    found = jax.jit(lambda *z: mmd_squared(*z, kernel=KERNELS[name]))
    expected = _expected(name, x, y, a, b)
    assert float(found(x, y, a, b)) == pytest.approx(expected, rel=1e-4)
    assert float(found(x, y, 7 * a, b)) == pytest.approx(expected, rel=1e-4)
    equal = _expected(name, x, y)
    assert float(found(x, y)) == pytest.approx(equal, rel=1e-4)


@pytest.mark.parametrize("name", KERNELS)
def test_slope_is_that_of_the_kernel_matrices(name, pair):
    x, y, a, b = pair

    def value(x, y):
        return mmd_squared(x, y, a, b, kernel=KERNELS[name])

    of_x, of_y = jax.grad(value, (0, 1))(x, y)
    rng = np.random.default_rng(2)
    for _ in range(5):
        u, v = rng.normal(size=x.shape), rng.normal(size=y.shape)
        h = 1e-6
        up = _expected(name, x + h * u, y + h * v, a, b)
        down = _expected(name, x - h * u, y - h * v, a, b)
        slope = float(np.sum(of_x * u) + np.sum(of_y * v))
        assert slope == pytest.approx((up - down) / (2 * h), abs=2e-5)


def test_linear_kernel_compares_the_means(pair):
    x, y, a, b = pair
    gap = a @ x - b @ y
    found = mmd_squared(x, y, a, b, kernel=linear)
    assert float(found) == pytest.approx(gap @ gap, rel=1e-4)


def test_gaussian_kernel_between_two_points():
    x, y = np.zeros((1, 2)), np.array([[3.0, 4.0]])
    found = mmd_squared(x, y, kernel=gaussian(5.0))
    assert float(found) == pytest.approx(2 - 2 * np.exp(-0.5), rel=1e-6)


def test_energy_kernel_is_the_energy_distance_of_scipy():
    x, y = np.random.default_rng(3).normal(size=(2, 30)) * [[1.0], [2.0]]
    a, b = np.random.default_rng(4).random((2, 30))
    expected = stats.energy_distance(x, y, a, b) ** 2
    found = mmd_squared(x[:, None], y[:, None], a, b, kernel=energy)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", KERNELS)
def test_a_cloud_is_at_distance_zero_from_itself(name, cloud):
    found = mmd_squared(cloud, cloud[::-1], kernel=KERNELS[name])
    assert abs(float(found)) < 1e-5


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_energy_of_equal_points_is_zero_with_slope_zero(cloud, offset):
    """The root of an expanded square is 1e-3 of the points' norm here, not 0."""
    wide = np.random.default_rng(5).normal(size=(50, 512)).astype(np.float32) + offset
    np.testing.assert_array_equal(np.diagonal(energy(wide, wide)), 0)
    expected = -distance.cdist(wide.astype(np.float64), wide.astype(np.float64))
    np.testing.assert_allclose(energy(wide, wide), expected, rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda y: energy(wide, y)[0, 0])(wide)
    np.testing.assert_array_equal(slope, 0)


def test_median_is_that_of_numpy():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(10, 3)).astype(np.float32)  # 45 pairs: one in the middle
    assert float(median_bandwidth(x)) == pytest.approx(
        np.median(distance.pdist(x)), rel=1e-5
    )
    a = rng.random(10)
    i, j = np.triu_indices(10, 1)
    expected = np.quantile(
        distance.pdist(x), 0.5, weights=a[i] * a[j], method="inverted_cdf"
    )
    assert float(median_bandwidth(x, a)) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.median(distance.pdist(x)), rel=1e-3)


def test_padding_is_free_and_has_no_slope(pair):
    x, y, a, b = pair
    poison = np.array([[1e9] * 4, [np.nan] * 4, [np.inf] * 4], np.float32)
    padded, masses = np.concatenate([x, poison]), np.pad(a, (0, 3))
    found = jax.jit(median_bandwidth)(padded, masses)
    assert float(found) == pytest.approx(float(median_bandwidth(x, a)), rel=1e-5)
    for kernel in KERNELS.values():

        def value(x, a, kernel=kernel):
            return mmd_squared(x, y, a, b, kernel=kernel)

        plain, slope = jax.value_and_grad(value)(x, a)
        found, slopes = jax.jit(jax.value_and_grad(value))(padded, masses)
        assert float(found) == pytest.approx(float(plain), rel=1e-4)
        np.testing.assert_allclose(slopes, np.pad(slope, ((0, 3), (0, 0))), atol=1e-5)


def test_refuses_what_has_no_value(pair):
    x, y, a, b = pair
    with pytest.raises(ValueError, match=r"agree in D; got \(17, 4\) and \(9, 3\)"):
        mmd_squared(x, y[:, :3], kernel=energy)
    with pytest.raises(ValueError, match="y has NaN"):
        mmd_squared(x, y * np.nan, kernel=energy)
    with pytest.raises(ValueError, match="masses of x must be non-negative"):
        mmd_squared(x, y, -a, b, kernel=energy)
    with pytest.raises(ValueError, match="at least two points; got one"):
        median_bandwidth(x[:1])
    with pytest.raises(ValueError, match="bandwidth > 0; got 0"):
        gaussian(0.0)
    with pytest.raises(ValueError, match="18 atoms for 17 points"):
        mmd_atoms(KEY, x, 18)


@pytest.fixture(scope="module")
def atoms():
    """Ten energy atoms of a cloud, compiled once."""
    return jax.jit(lambda x, start: mmd_atoms(KEY, x, 10, start=start))


def test_energy_atoms_are_support_points(atoms, cloud):
    """Those of Mak and Joseph's own iteration, from the same start."""
    found = atoms(cloud, cloud[:10])
    ours = _expected("energy", cloud, found.points)
    theirs = _expected("energy", cloud, _support_points(cloud, cloud[:10], 200))
    assert ours < 1.02 * theirs
    assert theirs < 0.6 * _expected("energy", cloud, cloud[:10])
    assert bool(found.converged)


def _support_points(x, y, steps):
    """Algorithm sp.ccp of their paper, in float64."""
    x, y = np.asarray(x, np.float64), np.array(y, np.float64)
    for _ in range(steps):
        near = 1 / np.maximum(distance.cdist(x, y), 1e-9)
        gaps = y[:, None] - y
        lengths = np.linalg.norm(gaps, axis=2, keepdims=True)
        apart = np.sum(gaps / np.where(lengths > 0, lengths, 1), 1)
        y = (len(x) / len(y) * apart + near.T @ x) / near.sum(0)[:, None]
    return y


def test_cost_is_the_exact_transport(atoms, cloud):
    found = atoms(cloud, cloud[-10:])
    costs = pot.dist(np.asarray(found.points, np.float64), cloud)
    exact = pot.emd2(np.full(10, 1 / 10), np.full(300, 1 / 300), costs)
    assert float(found.cost) == pytest.approx(exact, rel=1e-5)


def test_a_start_that_is_best_comes_back(atoms, cloud):
    found = atoms(cloud[:10], cloud[:10])
    assert float(found.cost) < 1e-4 * cloud.var(0).sum()
    flat = np.ones((10, 16), np.float32)
    np.testing.assert_allclose(atoms(flat, flat).points, 1, atol=1e-6)


def test_gaussian_atoms_at_any_scale(cloud):
    @jax.jit
    def solve(x):
        kernel = gaussian(median_bandwidth(x))

        def value(y):
            return mmd_squared(x, y, kernel=kernel)

        found = mmd_atoms(KEY, x, 8, start=x[:8], kernel=kernel)
        before, first = jax.value_and_grad(value)(x[:8])
        after, last = jax.value_and_grad(value)(found.points)
        ratio = jnp.linalg.norm(last) / jnp.linalg.norm(first)
        return after / before, ratio, found.converged

    for scale in (1e-3, 1.0, 1e3):
        share, ratio, converged = solve(scale * cloud)
        assert float(share) < 0.4
        assert float(ratio) < 6e-3 and bool(converged)


@pytest.mark.parametrize("size", [1, 5])
def test_linear_atoms_have_the_mean_of_the_cloud(size, cloud):
    found = mmd_atoms(KEY, cloud, size, kernel=linear, tolerance=1e-5)
    np.testing.assert_allclose(found.points.mean(0), cloud.mean(0), atol=1e-5)
    assert bool(found.converged)


def test_says_when_it_did_not_converge(cloud):
    assert not bool(mmd_atoms(KEY, cloud, 6, iterations=2).converged)


def test_a_kernel_without_values_leaves_the_start(cloud):
    def undefined(x, y):
        return jnp.log(-1 - linear(x, y) ** 2)

    found = mmd_atoms(KEY, cloud, 4, start=cloud[:4], kernel=undefined)
    np.testing.assert_array_equal(found.points, cloud[:4])
    assert not bool(found.converged)


def test_atoms_under_jit_and_vmap_ignore_padding(cloud):
    poison = np.array([[1e9] * 16, [np.nan] * 16], np.float32)
    padded = np.concatenate([cloud, poison])
    a = np.pad(np.ones(300, np.float32), (0, 2))

    def solve(x, a):  # few steps: rounding that differs grows with them
        return mmd_atoms(KEY, x, 5, a=a, start=cloud[:5], iterations=5)

    both = jax.jit(jax.vmap(solve))(
        np.stack([padded, padded + 1.0]), np.stack([a, 2 * a])
    )
    alone = jax.jit(solve)
    for i in range(2):
        one = alone(cloud + i, np.ones(300, np.float32))
        np.testing.assert_allclose(both.points[i], one.points, atol=1e-3)
        np.testing.assert_allclose(both.cost[i], one.cost, rtol=1e-3)

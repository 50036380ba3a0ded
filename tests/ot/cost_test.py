"""Ground costs against SciPy and POT, their derivatives, memory and sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest
from scipy.spatial import distance

from ddjax.ot import cost as costs

NAMES = {
    costs.squared_euclidean: "sqeuclidean",
    costs.euclidean: "euclidean",
    costs.l1: "cityblock",
}


def _clouds(n, m, dims):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, dims)), rng.normal(size=(m, dims))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.mark.parametrize("cost", NAMES, ids=NAMES.values())
@pytest.mark.parametrize("n,m", [(20, 7), (7, 20), (5, 1)])
def test_distances_are_those_of_scipy_and_pot(cost, n, m):
    x, y = _clouds(n, m, 11)
    found = np.asarray(cost(x, y))
    x, y = x.astype(np.float64), y.astype(np.float64)
    np.testing.assert_allclose(found, distance.cdist(x, y, NAMES[cost]), rtol=1e-5)
    np.testing.assert_allclose(found, pot.dist(x, y, NAMES[cost]), rtol=1e-5)


@pytest.mark.parametrize("cost", NAMES, ids=NAMES.values())
def test_gradient_is_that_of_finite_differences(cost):
    x, y = _clouds(6, 4, 3)
    rng = np.random.default_rng(1)
    weights, dx, dy = (rng.normal(size=s) for s in ((6, 4), x.shape, y.shape))
    x, y = x.astype(np.float64), y.astype(np.float64)

    def value(h):
        return np.sum(weights * distance.cdist(x + h * dx, y + h * dy, NAMES[cost]))

    with jax.enable_x64(True):
        gradients = jax.grad(lambda x, y: jnp.sum(weights * cost(x, y)), (0, 1))
        gx, gy = gradients(jnp.asarray(x), jnp.asarray(y))
        slope = np.sum(gx * dx) + np.sum(gy * dy)
    assert slope == pytest.approx((value(1e-6) - value(-1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("cost", [costs.euclidean, costs.l1])
def test_equal_points_have_distance_and_derivative_zero(cost):
    x, _ = _clouds(9, 1, 64)
    # Far from the origin, where an expanded square would have lost the small distances.
    x = x + 100
    assert float(jnp.abs(jnp.diag(cost(x, x))).max()) == 0
    gradient = jax.grad(lambda x, y: jnp.sum(cost(x, y)), (0, 1))(x[:1], x[:1])
    np.testing.assert_array_equal(np.concatenate(gradient), 0)


@pytest.mark.parametrize("cost", [costs.euclidean, costs.l1])
def test_the_differences_are_never_in_memory(cost):
    x, y = _clouds(200, 64, 512)
    weights = np.random.default_rng(1).normal(size=(200, 64)).astype(np.float32)

    def loss(x, y):
        return jnp.sum(weights * cost(x, y))

    cube = 200 * 64 * 512 * 4
    for function in (cost, jax.grad(loss, (0, 1))):
        for pair in ((x, y), (y, x)) if function is cost else ((x, y),):
            compiled = jax.jit(function).lower(*pair).compile()
            assert compiled.memory_analysis().temp_size_in_bytes < cube / 20

    def cubic(x, y):  # shows that the measure would see it
        return jnp.sum(weights * jnp.sum(jnp.abs(x[:, None] - y) ** 1.5, 2))

    compiled = jax.jit(jax.grad(cubic)).lower(x, y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes > cube / 2


def test_l1_under_jit_and_vmap():
    x, y = _clouds(8, 5, 3)
    together = jax.jit(jax.vmap(costs.l1))(np.stack([x, 2 * x]), np.stack([y, 2 * y]))
    np.testing.assert_allclose(together[1], 2 * costs.l1(x, y), rtol=1e-6)


def test_scale_is_the_weighted_moment_of_the_pairs_with_mass():
    rng = np.random.default_rng(0)
    cost, a, b = rng.random((6, 4)), rng.random(6), rng.random(4)
    a[2] = b[1] = 0
    weights = np.outer(a, b) / (a.sum() * b.sum())
    mean = np.sum(weights * cost)
    std = np.sqrt(np.cov(cost.ravel(), aweights=weights.ravel(), ddof=0))
    cost[2], cost[:, 1] = 1e30, -1e30  # must not count, nor overflow
    arrays = [jnp.asarray(z, jnp.float32) for z in (cost, a, b)]
    for unit, expected in (("absolute", 1), ("mean", mean), ("std", std)):
        assert float(costs.cost_scale(*arrays, unit)) == pytest.approx(expected, 1e-5)


def test_scale_of_a_constant_cost_is_its_size():
    for size in (0.0, 0.1, 12345.6):
        cost, mass = jnp.full((7, 3), size), (jnp.full(7, 1 / 7), jnp.full(3, 1 / 3))
        for unit in ("mean", "std"):
            found = float(costs.cost_scale(cost, *mass, unit))
            assert found == pytest.approx(size or 1.0, rel=1e-5)


def test_scale_is_a_constant_and_its_units_are_known():
    mass = jnp.array([0.5, 0.5])
    gradient = jax.grad(lambda c: costs.cost_scale(c, mass, mass, "std"))(jnp.eye(2))
    np.testing.assert_array_equal(gradient, 0)
    with pytest.raises(ValueError, match="cost unit 'max'; known: absolute, mean, std"):
        costs.cost_scale(jnp.eye(2), mass, mass, "max")

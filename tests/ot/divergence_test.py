"""The Sinkhorn divergence against POT, ott, and what is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest
from ott.geometry import pointcloud
from ott.tools import sinkhorn_divergence as ott_divergence
from scipy.spatial import distance

from ddjax.ot.cost import euclidean, l1
from ddjax.ot.divergence import sinkhorn_divergence

divergence = jax.jit(
    sinkhorn_divergence,
    static_argnames=("unit", "cost", "gradient", "threshold", "max_iterations"),
)


@pytest.fixture(scope="module")
def clouds():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(9, 3)) + 0.5
    a, b = rng.random(12), rng.random(9)
    return x, y, a / a.sum(), b / b.sum()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def _entropic(x, y, a, b, epsilon):
    """<C, P> + epsilon KL(P | a b') of POT's plan."""
    cost = distance.cdist(x, y, "sqeuclidean")
    options = {"method": "sinkhorn_log", "stopThr": 1e-9, "numItermax": 50_000}
    plan = pot.sinkhorn(a, b, cost, epsilon, **options)
    return np.sum(plan * cost) + epsilon * np.sum(plan * np.log(plan / np.outer(a, b)))


@pytest.mark.parametrize("epsilon", [1.0, 5.0])
def test_is_that_of_pot_and_ott(clouds, epsilon):
    x, y, a, b = clouds
    options = {"unit": "absolute", "threshold": 1e-5}
    ours = float(divergence(x, y, a, b, epsilon=epsilon, **options))
    pairs = (x, y, a, b), (x, x, a, a), (y, y, b, b)
    between, of_x, of_y = (_entropic(*pair, epsilon) for pair in pairs)
    assert ours == pytest.approx(between - (of_x + of_y) / 2, rel=1e-5)
    theirs = ott_divergence.sinkhorn_divergence(
        pointcloud.PointCloud,
        *map(jnp.asarray, (x, y)),
        epsilon=epsilon,
        a=jnp.asarray(a),
        b=jnp.asarray(b),
        solve_kwargs={"threshold": 1e-5},
    )
    assert ours == pytest.approx(float(theirs[0]), rel=1e-5)
    # POT's own function has the cost without the entropy: another number.
    sharp = pot.bregman.empirical_sinkhorn_divergence(x, y, epsilon, a=a, b=b)
    assert abs(ours / sharp - 1) > 0.005


def test_limits_are_the_transport_cost_and_the_distance_of_means(clouds):
    x, y, a, b = clouds
    exact = pot.emd2(a, b, distance.cdist(x, y, "sqeuclidean"))
    means = np.sum((a @ x - b @ y) ** 2)
    found = [float(divergence(x, y, a, b, epsilon=e)) for e in (0.002, 0.05, 1, 1000)]
    assert found[0] == pytest.approx(exact, rel=5e-3)
    assert found[-1] == pytest.approx(means, rel=5e-3)
    assert np.all(np.diff(found) < 0)


@pytest.mark.parametrize("epsilon", [0.02, 0.3, 3.0])
def test_a_translation_costs_its_square(clouds, epsilon):
    x, _, a, _ = clouds
    for shift in (np.array([0.3, -0.2, 0.1]), np.array([5.0, 0.0, 0.0])):
        found = float(divergence(x, x + shift, a, a, epsilon=epsilon))
        assert found == pytest.approx(np.sum(shift**2), rel=2e-3)


@pytest.mark.parametrize("cost", [None, euclidean, l1])
def test_zero_for_equal_clouds_and_positive_for_others(clouds, cost):
    x, _, a, _ = clouds
    options = {"epsilon": 0.1} | ({} if cost is None else {"cost": cost})
    size = float(divergence(x, x[::-1], a, a, **options))  # other masses, in effect
    assert size > 1e-2
    assert abs(float(divergence(x, x, a, a, **options))) < 1e-5 * size
    order = np.random.default_rng(1).permutation(12)
    assert abs(float(divergence(x, x[order], a, a[order], **options))) < 1e-5 * size
    back = float(divergence(x[::-1], x, a, a, **options))
    assert back == pytest.approx(size, rel=1e-3)


@pytest.mark.usefixtures("float64")
def test_gradients_are_those_of_finite_differences(clouds):
    rng = np.random.default_rng(2)
    directions = [rng.normal(size=z.shape) for z in clouds]
    for k in (2, 3):
        directions[k] -= directions[k].mean()

    def value(*clouds):
        options = {"unit": "absolute", "threshold": 1e-10, "max_iterations": 10_000}
        return divergence(*clouds, epsilon=0.5, **options)

    gradients = jax.jit(jax.grad(value, (0, 1, 2, 3)))(*map(jnp.asarray, clouds))
    for k, direction in enumerate(directions):
        moved = [
            [z + h * direction if i == k else z for i, z in enumerate(clouds)]
            for h in (1e-5, -1e-5)
        ]
        slope = (float(value(*moved[0])) - float(value(*moved[1]))) / 2e-5
        assert abs(slope) > 0.01
        assert float(jnp.sum(gradients[k] * direction)) == pytest.approx(slope, 1e-6)


def test_descent_finds_the_cloud_where_the_plain_objective_shrinks_it(clouds):
    _, y, _, _ = clouds
    y = jnp.asarray(y, jnp.float32)
    weight = 1 / len(y)
    step = jax.jit(jax.grad(lambda x: sinkhorn_divergence(x, y, epsilon=0.3)))
    x = y[::-1] + 0.3
    for _ in range(100):
        x = x - 0.5 / weight * step(x)
    nearest = jnp.sqrt(jnp.sum((x[:, None] - y) ** 2, 2)).min(1)
    assert float(nearest.max()) < 0.2
    assert float(jnp.var(x, 0).sum()) == pytest.approx(float(jnp.var(y, 0).sum()), 0.02)


def test_padding_changes_nothing(clouds):
    x, y, a, b = clouds
    padded = (
        np.pad(x, ((0, 4), (0, 0)), constant_values=9.0),
        np.pad(y, ((0, 2), (0, 0))),
        np.pad(a, (0, 4)),
        np.pad(b, (0, 2)),
    )
    loss = jax.jit(
        jax.value_and_grad(lambda *z: sinkhorn_divergence(*z, epsilon=0.2, unit="std"))
    )
    value, slope = loss(*padded)
    expected, plain = loss(x, y, a, b)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(slope[:12], plain, atol=1e-5)
    np.testing.assert_array_equal(slope[12:], 0)


def test_masses_are_equal_by_default_and_b_is_scaled(clouds):
    x, y, a, b = clouds
    equal = np.full(12, 1 / 12), np.full(9, 1 / 9)
    plain = float(divergence(x, y, epsilon=0.2))
    assert float(divergence(x, y, *equal, epsilon=0.2)) == pytest.approx(plain, 1e-5)
    scaled, same = (float(divergence(x, y, a, k * b, epsilon=0.2)) for k in (3, 1))
    assert scaled == pytest.approx(same, rel=1e-5)


def test_vmap_solves_each_problem(clouds):
    x, y, _, _ = clouds
    batch = np.stack([x, x + 1])
    together = jax.vmap(lambda x: divergence(x, y, epsilon=0.2))(batch)
    alone = [divergence(z, y, epsilon=0.2) for z in batch]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_refuses_what_is_no_cloud(clouds):
    x, y, a, b = clouds
    with pytest.raises(ValueError, match="y must be points"):
        sinkhorn_divergence(x, y[0], epsilon=0.1)
    with pytest.raises(ValueError, match="masses of y must be non-negative"):
        sinkhorn_divergence(x, y, a, -b, epsilon=0.1)
    with pytest.raises(ValueError, match="epsilon > 0"):
        sinkhorn_divergence(x, y, epsilon=-0.1)

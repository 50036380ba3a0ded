"""Transport guidance against POT, PyTorch and finite differences; what must hold."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest

from ddjax.diffusion.guidance import transport

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "guidance.npz"
PAPER = transport.PRESETS["paper"]
SHARP = PAPER._replace(
    epsilon=0.03, unit="absolute", threshold=1e-12, iterations=20_000
)
guided = jax.jit(transport.value_and_gradient, static_argnums=5)
row = jax.jit(transport.row, static_argnums=2)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def problem(n, m, d=5, n_max=None, weighted=False, options=SHARP):
    """Arguments of the function for n points, of which the last is the current one."""
    rng = np.random.default_rng(n + 10 * m)
    points, real = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    masses = rng.uniform(0.5, 1.5, m) if weighted else np.ones(m)
    if options.cost == "sphere":
        real /= np.linalg.norm(real, axis=1, keepdims=True)
    rows = np.full((n_max or n, m), np.nan)
    for i in range(n - 1):
        rows[i] = row(points[i], real, options)
    return points[-1], rows, n - 1, real, masses / masses.sum(), options, points


def mean_l1(x, y):
    return np.abs(x[:, None] - y).mean(2)


SIZES = {
    "one point": (1, 6, None, False),
    "square": (5, 5, None, False),
    "rectangular": (4, 9, None, False),
    "weighted": (4, 9, None, True),
    "padded": (3, 7, 8, True),
}


@pytest.mark.parametrize("n, m, n_max, weighted", SIZES.values(), ids=SIZES)
def test_value_and_gradient_are_those_of_pots_plan(float64, n, m, n_max, weighted):
    """sum_j P_nj sign(u - y_j) / d, and the entropic optimum with KL(P | a b')."""
    *arguments, points = problem(n, m, n_max=n_max, weighted=weighted)
    u, _, _, real, masses, options = arguments
    cost, a = mean_l1(points, real), np.full(n, 1 / n)
    plan = pot.sinkhorn(
        a, masses, cost, options.epsilon, "sinkhorn_log", 50_000, stopThr=1e-13
    )
    entropy = np.sum(plan * np.log(plan / np.outer(a, masses)))
    value, gradient = guided(*arguments)
    expected = np.sum(plan * cost) + options.epsilon * entropy
    np.testing.assert_allclose(value, expected, atol=1e-10)
    np.testing.assert_allclose(gradient, plan[-1] @ np.sign(u - real) / 5, atol=1e-10)


@pytest.mark.parametrize("first", ["keep", "capacity"])
@pytest.mark.parametrize("cost", ["l1", "sphere"])
@pytest.mark.parametrize("gradient", ["envelope", "unrolled"])
def test_the_gradient_is_that_of_the_value(float64, gradient, cost, first):
    """By finite differences: converged, and cut off after three iterations."""
    cut = {"gradient": gradient, "iterations": 3 if gradient == "unrolled" else 20_000}
    options = SHARP._replace(cost=cost, first=first, **cut)
    u, *rest, _ = problem(3, 6, n_max=5, weighted=True, options=options)
    found = guided(u, *rest)[1]
    for k, step in enumerate(1e-6 * np.eye(5)):
        ends = [float(guided(u + s * step, *rest)[0]) for s in (1, -1)]
        assert found[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=2e-8)


@pytest.mark.parametrize("iterations", [5, 20])
def test_the_unrolled_presets_are_pytorchs(float64, iterations):
    """Kernel iterations from v = 1 and autograd through them, on the sphere."""
    with np.load(FIXTURES) as found:
        points, real, masses = (
            found[f"sphere_{name}"] for name in ("points", "real", "masses")
        )
        expected = (
            found[f"sphere_value_{iterations}"],
            found[f"sphere_gradient_{iterations}"],
        )
    name = {5: "dmgd", 20: "sinkd"}[iterations]
    options = transport.PRESETS[name]._replace(clusters=0)
    assert options.iterations == iterations
    real, _ = transport.target(jax.random.key(0), real, options)
    rows = np.zeros((6, 7))
    for i, x in enumerate(points[:-1]):
        rows[i] = row(x, real, options)
    found = guided(points[-1], rows, 3, real, masses, options)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-11)


def test_without_entropy_it_is_the_exact_cost(float64):
    *arguments, points = problem(6, 11, weighted=True)
    _, _, _, real, masses, options = arguments
    cost, a = mean_l1(points, real), np.full(6, 1 / 6)
    value, _ = guided(*arguments[:-1], options._replace(epsilon=1e-3, threshold=1e-6))
    assert value == pytest.approx(pot.emd2(a, masses, cost), rel=0.01)


@pytest.mark.parametrize("gradient", ["envelope", "unrolled"])
@pytest.mark.parametrize("unit", ["std", "absolute"])
def test_rows_to_come_change_nothing(float64, unit, gradient):
    options = PAPER._replace(unit=unit, gradient=gradient, iterations=50)
    u, rows, count, *rest, _ = problem(4, 9, options=options)
    padded = np.concatenate([rows, np.full((6, 9), np.nan)])
    for one, other in zip(
        guided(u, rows, count, *rest), guided(u, padded, count, *rest)
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_real_points_without_mass_change_nothing(float64):
    for name in ("paper", "sinkd"):
        options = transport.PRESETS[name]
        u, rows, count, real, masses, *_ = problem(4, 9, options=options)
        more = np.concatenate([real, 7 * real[:2]])
        columns = np.pad(rows, ((0, 0), (0, 2)), constant_values=5.0)
        given = (u, columns, count, more, np.pad(masses, (0, 2)), options)
        for one, other in zip(
            guided(u, rows, count, real, masses, options), guided(*given)
        ):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("name", transport.PRESETS)
def test_the_order_of_finished_points_does_not_matter(float64, name):
    options = transport.PRESETS[name]
    u, rows, count, *rest, _ = problem(5, 9, options=options)
    turned = rows[[2, 0, 3, 1, 4]]
    for one, other in zip(
        guided(u, rows, count, *rest), guided(u, turned, count, *rest)
    ):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("name", transport.PRESETS)
def test_classes_side_by_side_are_each_alone(name):
    """In float32, at several counts, at the origin too; nothing is NaN."""
    options = transport.PRESETS[name]
    real = jax.random.normal(jax.random.key(0), (4, 12, 8))
    real = jnp.stack([transport.target(jax.random.key(1), x, options)[0] for x in real])
    masses = jnp.full(real.shape[:2], 1 / real.shape[1])
    u = jnp.stack([0 * real[0, 0], real[1, 0] + 0.1, real[2, 1] + 0.3, -real[3, 0]])
    rows = jnp.stack([jnp.stack([row(p, y, options) for p in y[:6]]) for y in real])
    counts = jnp.array([0, 1, 3, 5])
    together = jax.jit(
        jax.vmap(functools.partial(transport.value_and_gradient, options=options))
    )
    found = together(u, rows, counts, real, masses)
    for i in range(4):
        alone = guided(u[i], rows[i], counts[i], real[i], masses[i], options)
        for one, other in zip(alone, found):
            assert np.isfinite(one).all()
            np.testing.assert_allclose(one, other[i], atol=1e-5)


@pytest.mark.parametrize("name", transport.PRESETS)
def test_a_point_on_a_real_one_is_finite(name):
    options = transport.PRESETS[name]
    real, masses = transport.target(jax.random.key(0), jnp.eye(12, 8) + 0.1, options)
    rows = jnp.zeros((6, len(masses)))
    value, gradient = guided(real[1], rows, 0, real, masses, options)
    assert np.isfinite(value) and np.isfinite(gradient).all()


class TestTheFirstImage:
    """Of a class with two equal clusters, at -1 and 1, and three points in between."""

    real = jnp.array([-1.05, -1.0, -0.95, -0.9, -0.05, 0.0, 0.05, 0.9, 0.95, 1.0, 1.05])
    real, masses = real[:, None], jnp.full(11, 1 / 11)

    def gradient(self, u, **options):
        rows = jnp.zeros((10, 11))
        options = PAPER._replace(**options)
        return guided(jnp.array([u]), rows, 0, self.real, self.masses, options)[1][0]

    def test_goes_to_the_median_when_kept(self):
        for u in (-1.2, -0.8, 0.8, 1.2):
            assert np.sign(self.gradient(u)) == np.sign(u)
        assert self.gradient(-0.97) == pytest.approx(-7 / 11)  # 2 left, 9 right
        assert self.gradient(0.0) == pytest.approx(0, abs=1e-6)

    def test_is_left_alone_when_skipped(self):
        for u in (-1.2, 0.8):
            assert self.gradient(u, first="skip") == 0

    def test_goes_to_what_is_near_with_its_own_capacity(self):
        """-0.8 moves to its cluster, away from the median; and so does 0.8."""
        assert self.gradient(-0.8, first="capacity") > 0.05
        assert self.gradient(0.8, first="capacity") < -0.05
        assert abs(self.gradient(0.8, first="capacity")) <= 0.1 + 1e-5  # all it owns


def test_capacities_are_partial_transport(float64):
    """Against POT's exact one: three of eight points take 3/8 of the mass."""
    options = SHARP._replace(epsilon=1e-3, threshold=1e-7, first="capacity")
    *arguments, points = problem(3, 7, n_max=8, weighted=True, options=options)
    u, _, _, real, masses, _ = arguments
    cost = mean_l1(points, real)
    exact = pot.partial.partial_wasserstein(np.full(3, 1 / 8), masses, cost, m=3 / 8)
    value, gradient = guided(*arguments)
    assert value == pytest.approx(np.sum(exact * cost), rel=0.03)
    np.testing.assert_allclose(gradient, exact[-1] @ np.sign(u - real) / 5, atol=1e-3)


def test_the_last_image_is_the_same_with_capacities(float64):
    u, rows, *rest, _, _ = problem(5, 9, weighted=True)
    for one, other in zip(
        guided(u, rows, *rest, SHARP),
        guided(u, rows, *rest, SHARP._replace(first="capacity")),
    ):
        np.testing.assert_allclose(one, other, atol=1e-10)


class TestTargets:
    clouds = np.array([[4.0, 0, 0], [0, 5.0, 0], [0, 0, -6.0]])

    def sample(self):
        noise = np.random.default_rng(0).normal(size=(60, 3))
        return np.repeat(self.clouds, [10, 20, 30], axis=0) + 0.1 * noise

    def test_are_the_latents_themselves(self):
        real = jnp.asarray(self.sample(), jnp.float32)
        points, masses = transport.target(jax.random.key(0), real, PAPER)
        np.testing.assert_array_equal(points, real)
        np.testing.assert_allclose(masses, 1 / 60)

    def test_are_centroids_with_their_masses_on_the_sphere(self):
        options = transport.PRESETS["dmgd"]._replace(clusters=3)
        points, masses = transport.target(jax.random.key(0), self.sample(), options)
        order = np.argsort(masses)
        np.testing.assert_allclose(masses[order], [1 / 6, 2 / 6, 3 / 6], atol=1e-6)
        directions = self.clouds / np.abs(self.clouds).max(1, keepdims=True)
        np.testing.assert_allclose(points[order], directions, atol=0.02)
        np.testing.assert_allclose(jnp.linalg.norm(points, axis=1), 1, atol=1e-6)

    def test_of_few_latents_stay_as_they_are(self):
        options = transport.PRESETS["dmgd"]
        points, masses = transport.target(jax.random.key(0), self.sample()[:9], options)
        assert points.shape == (9, 3) and masses.shape == (9,)


def descended(options, key):
    """Eight points that descend in turn, each seeing those before it."""
    angles = 2 * jnp.pi * jnp.arange(8) / 8
    modes = 3 * jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
    key_real, key_start = jax.random.split(key)
    real = (modes[:, None] + 0.1 * jax.random.normal(key_real, (8, 8, 2))).reshape(
        -1, 2
    )
    masses, rows, points = jnp.full(64, 1 / 64), jnp.zeros((8, 64)), []
    starts = modes[jax.random.randint(key_start, (8,), 0, 8)]

    @jax.jit
    def descend(u, rows, count):
        def step(i, u):
            gradient = transport.value_and_gradient(
                u, rows, count, real, masses, options
            )[1]
            length = jnp.linalg.norm(gradient)
            return u - 0.3 * (1 - i / 60) * gradient / jnp.maximum(length, 1e-9)

        return jax.lax.fori_loop(0, 60, step, u)

    for n in range(8):
        points.append(descend(starts[n], rows, n))
        rows = rows.at[n].set(row(points[-1], real, options))
    distance = np.linalg.norm(np.asarray(points)[:, None] - modes, axis=2)
    return len(set(np.argmin(distance, 1)[distance.min(1) < 0.6])), starts


@pytest.mark.parametrize("seed", [0, 1])
def test_points_that_add_up_cover_the_modes(seed):
    """Eight samples of eight modes hit five or so; guided in turn, seven or more."""
    options = PAPER._replace(first="capacity", iterations=100)
    found, starts = descended(options, jax.random.key(seed))
    assert len(np.unique(starts, axis=0)) < 7
    assert found >= 7


def test_what_cannot_be_is_refused():
    u, rows, count, *rest, _, _ = problem(3, 5)
    for changes, words in (
        ({"cost": "l2"}, "unknown cost 'l2' of transport guidance; known: l1, sphere"),
        ({"first": "drop"}, "known: keep, skip, capacity"),
        ({"at": "x0"}, "known: z0, zt, z0_detached"),
        ({"epsilon": 0.0}, "epsilon 0.0"),
    ):
        with pytest.raises(ValueError, match=words):
            transport.value_and_gradient(
                u, rows, count, *rest, PAPER._replace(**changes)
            )
    with pytest.raises(ValueError, match="3 points are finished and there are rows"):
        transport.value_and_gradient(u, rows, 3, *rest, PAPER)

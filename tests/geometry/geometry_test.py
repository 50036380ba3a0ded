"""Spaces of constant curvature against geoopt, 60 digits, and what must hold."""

import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import geometry
from ddjax.geometry import series

with np.load(pathlib.Path(__file__).parent / "fixtures" / "geometry.npz") as arrays:
    GOLDEN = dict(arrays)
KAPPAS = [float(k) for k in GOLDEN["kappas"]]
SIGNS = (-1.0, -0.3, 0.0, 0.5, 1.0)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def golden(kappa):
    place = KAPPAS.index(kappa)
    return {
        k.partition("/")[2]: v for k, v in GOLDEN.items() if k.startswith(f"{place}/")
    }


def cloud(seed, count=7, dim=3, radius=1.0):
    v = np.random.default_rng(seed).normal(size=(count, dim))
    return jnp.array(radius * v / np.linalg.norm(v, axis=1).max())


@pytest.mark.parametrize("kappa", KAPPAS)
class TestAgainstOthers:
    def test_sixty_digits(self, kappa):
        known = golden(kappa)
        got = geometry.distance_squared(known["x"], known["y"], kappa)
        np.testing.assert_allclose(got, known["precise"], rtol=1e-11, atol=1e-30)

    def test_geoopt(self, kappa):
        known = golden(kappa)
        if "squared" not in known:
            pytest.skip("geoopt takes this curvature for 0")
        x, y = known["x"], known["y"]
        got = geometry.distance_squared(x, y, kappa)
        np.testing.assert_allclose(got, known["squared"], rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(
            geometry.to_ball(x, kappa), known["ball"], rtol=1e-12
        )
        np.testing.assert_allclose(
            geometry.centroid(x, kappa), known["midpoint"], atol=1e-10
        )
        logs = geometry.log(x[2:3], y, kappa)
        inner = jnp.sum(logs * jnp.roll(logs, 1, 0), 1)
        np.testing.assert_allclose(inner, known["inner"], rtol=1e-8, atol=1e-9)
        if "lorentz" in known:
            np.testing.assert_allclose(
                geometry.to_embedded(x, kappa), known["lorentz"], rtol=1e-12
            )

    def test_geoopts_gradients(self, kappa):
        known = golden(kappa)
        if "squared" not in known:
            pytest.skip("geoopt takes this curvature for 0")

        def total(x, y, kappa):
            return geometry.distance_squared(x, y, kappa)[1:].sum()

        gradients = jax.grad(total, (0, 1, 2))(known["x"], known["y"], kappa)
        for got, name in zip(gradients, ("x", "y", "kappa")):
            wanted = known[f"gradient_{name}"]
            # geoopt's own derivative in a small curvature is a short series.
            rough = name == "kappa" and abs(kappa) < 0.01
            np.testing.assert_allclose(
                got, wanted, rtol=1e-3 if rough else 1e-7, atol=1e-9
            )


@pytest.mark.parametrize("kappa", SIGNS)
class TestInvariants:
    def test_symmetry_and_triangles(self, kappa):
        x = cloud(0)
        d = jnp.stack([geometry.distance(x, p, kappa) for p in x])
        np.testing.assert_allclose(d, d.T, atol=1e-12)
        assert (d[:, :, None] <= d[:, None] + d.T[None] + 1e-9).all()

    def test_exp_is_the_inverse_of_log(self, kappa):
        x, y = cloud(0), cloud(1)
        u = geometry.log(x, y, kappa)
        np.testing.assert_allclose(
            geometry.norm(u), geometry.distance(x, y, kappa), atol=1e-12
        )
        np.testing.assert_allclose(geometry.exp(x, u, kappa), y, atol=1e-12)

    def test_angles_obey_the_law_of_cosines(self, kappa):
        """Inner products of logarithms are those of the triangle."""
        p, x, y = cloud(0), cloud(1), cloud(2)
        u, v = geometry.log(p, x, kappa), geometry.log(p, y, kappa)
        got = geometry.distance_squared(u, v, kappa)  # of the triangle at the origin
        np.testing.assert_allclose(
            got, geometry.distance_squared(x, y, kappa), rtol=1e-9
        )

    def test_rotations_are_isometries(self, kappa):
        x, y = cloud(0), cloud(1)
        turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
        np.testing.assert_allclose(
            geometry.distance_squared(x @ turn, y @ turn, kappa),
            geometry.distance_squared(x, y, kappa),
            rtol=1e-12,
        )

    def test_all_pairs(self, kappa):
        x, y = cloud(0), cloud(1, count=5)
        got = geometry.pairwise_squared(x, y, kappa)
        wanted = geometry.distance_squared(x[:, None], y[None], kappa)
        np.testing.assert_allclose(got, wanted, atol=1e-12)

    def test_frechet_mean_is_where_logarithms_balance(self, kappa):
        x, mass = cloud(0, radius=0.7), jnp.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
        mean = geometry.frechet_mean(x, kappa, mass, steps=30)
        np.testing.assert_allclose(mass @ geometry.log(mean, x, kappa), 0, atol=1e-12)

        def cost(point):
            return jnp.sum(mass * geometry.distance_squared(point, x, kappa))

        np.testing.assert_allclose(jax.grad(cost)(mean), 0, atol=1e-10)
        few = geometry.frechet_mean(x, kappa, mass)
        np.testing.assert_allclose(few, mean, atol=1e-5)

    def test_charts_come_back(self, kappa):
        x = cloud(0)
        ball = geometry.to_ball(x, kappa)
        np.testing.assert_allclose(geometry.from_ball(ball, kappa), x, atol=1e-12)
        if kappa:
            there = geometry.to_embedded(x, kappa)
            np.testing.assert_allclose(
                geometry.from_embedded(there, kappa), x, atol=1e-12
            )
            square = jnp.sign(kappa) * there[:, 0] ** 2 + jnp.sum(there[:, 1:] ** 2, 1)
            np.testing.assert_allclose(square, 1 / kappa, rtol=1e-12)

    def test_distances_of_the_ball(self, kappa):
        """|x - y|^2 / ((1 + k |x|^2) (1 + k |y|^2)) = sn(d / 2)^2."""
        x, y = cloud(0), cloud(1)
        a, b = geometry.to_ball(x, kappa), geometry.to_ball(y, kappa)
        half = jnp.sum((a - b) ** 2, 1)
        half /= (1 + kappa * jnp.sum(a * a, 1)) * (1 + kappa * jnp.sum(b * b, 1))
        d = geometry.distance(x, y, kappa)
        root = jnp.sqrt(jnp.abs(kappa)) or 1.0
        wanted = {
            1: lambda: (jnp.sin(root * d / 2) / root) ** 2,
            -1: lambda: (jnp.sinh(root * d / 2) / root) ** 2,
            0: lambda: d**2 / 4,
        }[int(jnp.sign(kappa))]()
        np.testing.assert_allclose(half, wanted, rtol=1e-10)

    def test_clip_keeps_directions_and_small_points(self, kappa):
        radius = geometry.largest_radius(kappa)
        x = 100 * cloud(0)
        short = geometry.clip(x, radius)
        if kappa == 0:
            assert np.isinf(radius)
            np.testing.assert_array_equal(short, x)
            return
        assert geometry.norm(short).max() <= radius * (1 + 1e-12)
        np.testing.assert_allclose(
            short / geometry.norm(short)[:, None], x / geometry.norm(x)[:, None]
        )
        small = 1e-3 * cloud(0)
        np.testing.assert_allclose(geometry.clip(small, radius), small, rtol=1e-5)

    def test_same_under_transformations(self, kappa):
        x, y = cloud(0), cloud(1)
        wanted = geometry.log(x, y, kappa)
        got = jax.jit(jax.vmap(geometry.log, (0, 0, None)))(x, y, jnp.array(kappa))
        np.testing.assert_allclose(got, wanted, atol=1e-12)


class TestDerivatives:
    @pytest.mark.parametrize("kappa", [-1.0, -1e-7, 0.0, 1e-7, 0.7])
    def test_finite_differences(self, kappa):
        x, y = cloud(0), cloud(1)
        for function in (geometry.distance_squared, geometry.log, geometry.exp):
            chex.assert_numerical_grads(
                lambda *a, f=function: jnp.sum(f(*a) ** 2),
                (x, y, jnp.array(kappa)),
                order=1,
                atol=1e-4,
                rtol=1e-4,
            )

    def test_mean_by_finite_differences(self):
        for kappa in (-1.0, 0.0, 0.7):
            chex.assert_numerical_grads(
                lambda x, k: jnp.sum(geometry.frechet_mean(x, k) ** 2),
                (cloud(0), jnp.array(kappa)),
                order=1,
            )

    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
    @pytest.mark.parametrize("kappa", [-1.0, 0.0, 1.0])
    def test_coincident_zero_and_antipodal_points(self, kappa, dtype):
        zero = jnp.zeros((1, 3), dtype)
        x = cloud(0, count=1).astype(dtype)
        far = jnp.array([[np.pi / 2, 0, 0]], dtype)
        k = jnp.array(kappa, dtype)
        for a, b in ((x, x), (zero, x), (zero, zero), (far, -far)):
            for function in (
                geometry.distance_squared,
                geometry.distance,
                geometry.log,
                geometry.pairwise_squared,
            ):
                found = jax.grad(lambda *z, f=function: f(*z).sum(), (0, 1, 2))(a, b, k)
                chex.assert_tree_all_finite((function(a, b, k), found))
        for function in (geometry.frechet_mean, geometry.centroid):
            slope = jax.grad(lambda z, f=function: f(z, k).sum())(zero)
            chex.assert_tree_all_finite(slope)
            chex.assert_tree_all_finite(function(jnp.concatenate([far, -far]), k))

    def test_curvature_0_is_no_corner(self):
        x, y = cloud(0), cloud(1)
        slope = jax.grad(lambda k: geometry.distance_squared(x, y, k).sum())
        slopes = [float(slope(k)) for k in (-1e-9, 0.0, 1e-9)]
        np.testing.assert_allclose(slopes, slopes[1], rtol=1e-7)

    def test_the_number_0_and_an_array_of_0_agree(self):
        x, y, zero = cloud(0), cloud(1), jnp.zeros(())
        for function in (
            geometry.distance_squared,
            geometry.pairwise_squared,
            geometry.log,
            geometry.exp,
        ):
            np.testing.assert_allclose(
                function(x, y, 0.0), function(x, y, zero), atol=1e-14
            )
        for function in (geometry.centroid, geometry.frechet_mean):
            np.testing.assert_allclose(function(x, 0.0), function(x, zero), atol=1e-14)
        np.testing.assert_array_equal(geometry.log(x, y, zero), y - x)

    def test_distances_fall_as_curvature_grows(self):
        """Rauch's comparison: why curvature cannot be learned by making them small."""
        x, y = cloud(0), cloud(1)
        slope = jax.vmap(
            jax.grad(geometry.distance_squared, 2), (0, 0, None), axis_size=len(x)
        )
        for kappa in (-3.0, -1.0, 0.0, 1.0, 2.0):
            assert (slope(x, y, kappa) < 0).all()


class TestFloat32:
    @pytest.mark.parametrize("kappa", [-1.0, -1e-6, 1.0])
    @pytest.mark.parametrize("apart", [1.0, 1e-3])
    def test_close_and_far_pairs(self, kappa, apart):
        reach = 1.4 if kappa > 0 else 3.0
        x = np.asarray(cloud(0, count=50, dim=16, radius=reach), np.float32)
        y = x + np.float32(apart) * np.asarray(cloud(1, count=50, dim=16), np.float32)
        exact = geometry.distance_squared(x.astype(float), y.astype(float), kappa)
        got = geometry.distance_squared(
            jnp.asarray(x), jnp.asarray(y), jnp.float32(kappa)
        )
        assert got.dtype == jnp.float32
        error = np.abs(got / exact - 1).max()
        assert error < (1e-3 if apart < 1 else 2e-6)

    def test_tangent_vectors_at_a_mean(self):
        x = np.asarray(cloud(0, count=50, dim=16, radius=1.0), np.float32)
        for kappa in (-1.0, 1.0):
            mean = geometry.frechet_mean(x.astype(float), kappa)
            exact = geometry.log(mean, x.astype(float), kappa)
            got = geometry.log(
                mean.astype(jnp.float32), jnp.asarray(x), jnp.float32(kappa)
            )
            assert np.abs(got - exact).max() < 2e-6


class TestProducts:
    space = geometry.Product(jnp.array([0.0, -1.0, 0.5]), jnp.array([0.2, 0.5, 0.3]))

    def points(self, seed, count=6):
        return tuple(cloud(seed + i, count, d) for i, d in enumerate((4, 3, 2)))

    def test_squared_distances_add_up(self):
        x, y = self.points(0), self.points(5)
        wanted = sum(
            w * geometry.distance_squared(a, b, k)
            for k, w, a, b in zip(*self.space, x, y)
        )
        got = geometry.product_distance_squared(self.space, x, y)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
        pairs = geometry.product_pairwise_squared(self.space, x, y)
        np.testing.assert_allclose(jnp.diag(pairs), got, atol=1e-12)

    def test_logarithms_are_as_long_as_distances(self):
        x, y = self.points(0), self.points(5)
        u = geometry.product_log(self.space, x, y)
        assert u.shape == (6, 9)
        np.testing.assert_allclose(
            jnp.sum(u * u, 1), geometry.product_distance_squared(self.space, x, y)
        )
        for got, wanted in zip(geometry.product_exp(self.space, x, u), y):
            np.testing.assert_allclose(got, wanted, atol=1e-12)

    def test_mean_balances_every_factor(self):
        x = self.points(0)
        mean = geometry.product_mean(self.space, x, steps=30)
        u = geometry.product_log(self.space, [m[None] for m in mean], x)
        np.testing.assert_allclose(u.mean(0), 0, atol=1e-10)

    def test_weights_and_curvatures_are_differentiable(self):
        x, y = self.points(0), self.points(5)

        def total(curvatures, weights):
            space = geometry.Product(curvatures, weights)
            return geometry.product_pairwise(space, x, y).sum()

        chex.assert_numerical_grads(total, tuple(self.space), order=1)


class TestKernels:
    """Which functions of distances are kernels: exp(-t d) is, exp(-t d^2) is not."""

    @pytest.mark.parametrize("kappa", [-1.0, 1.0])
    def test_of_one_space(self, kappa):
        # Points all over the sphere, or far into hyperbolic space.
        x = cloud(0, 60, 2, radius=np.pi if kappa > 0 else 4.0)
        d = jnp.sqrt(geometry.pairwise_squared(x, x, kappa))
        smallest = {
            power: min(
                float(jnp.linalg.eigvalsh(jnp.exp(-t * d**power)).min())
                for t in (0.1, 0.3, 1.0)
            )
            for power in (1, 2)
        }
        assert smallest[1] > -1e-6
        assert smallest[2] < -1e-3

    def test_of_a_product(self):
        x = (
            cloud(0, 40, 3),
            cloud(1, 40, 2, radius=4.0),
            cloud(2, 40, 2, radius=np.pi),
        )
        space = geometry.Product(
            jnp.array([0.0, -1.0, 1.0]), jnp.array([0.3, 0.4, 0.3])
        )
        d = geometry.product_pairwise(space, x, x)
        assert float(jnp.linalg.eigvalsh(jnp.exp(-d)).min()) > -1e-6


@pytest.mark.parametrize(
    "function, right, left",
    [
        (series.sine, lambda t: np.sin(t) / t, lambda t: np.sinh(t) / t),
        (series.cosine, np.cos, np.cosh),
        (
            series.arcsine,
            lambda t: (np.arcsin(t) / t) ** 2,
            lambda t: (np.arcsinh(t) / t) ** 2,
        ),
        (series.arctangent, lambda t: np.arctan(t) / t, lambda t: np.arctanh(t) / t),
    ],
)
def test_series_meet_their_functions(function, right, left):
    """On both sides of where one takes over from the other, in both precisions."""
    z = np.linspace(1e-4, 0.97, 300)
    for sign, wanted in ((1, right), (-1, left)):
        exact = wanted(np.sqrt(z))
        np.testing.assert_allclose(function(jnp.array(sign * z)), exact, rtol=1e-13)
        single = function(jnp.array(sign * z, jnp.float32))
        np.testing.assert_allclose(single, exact, rtol=1e-6)

"""Matching in curved spaces: what it is where they are flat, and against loops in NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from ddjax import geometry, losses, ot
from ddjax.geometry import Product

KAPPAS = (-1.0, 0.4)
WEIGHTS = (0.5, 0.2, 0.3)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def clouds(q=2, n=6, m=3, d=4, seed=0):
    """Real and synthetic points; the last real one of the last class is padding."""
    rng = np.random.default_rng(seed)
    real, own = (jnp.array(0.4 * rng.normal(size=(q, k, d))) for k in (n, m))
    there = np.ones((q, n))
    there[-1, -1] = 0
    return real + 0.2, own, jnp.array(there / there.sum(1, keepdims=True))


def factors(**sizes):
    """Three factors' clouds, and the weights of the real points."""
    many = [clouds(seed=seed, d=d, **sizes) for seed, d in enumerate((4, 3, 2))]
    real, own, weights = zip(*many)
    return real, own, weights[0]


def space(flat=0.0):
    return Product((flat, *KAPPAS), tuple(jnp.array(w) for w in WEIGHTS))


class TestWhereItIsFlat:
    """Curvature 0, as the number and as an array that happens to be 0."""

    @pytest.mark.parametrize("kind", ["tangent", "centroid"])
    @pytest.mark.parametrize("zero", [0.0, jnp.zeros(())], ids=["number", "array"])
    def test_is_dm_on_the_factors_beside_each_other(self, kind, zero):
        real, own, weights = factors()
        product = Product((zero,) * 3, WEIGHTS)

        def curved(own):
            return losses.product_matching(kind, product, real, own, weights)

        def flat(own):
            joined = (
                jnp.concatenate([np.sqrt(w) * x for w, x in zip(WEIGHTS, part)], -1)
                for part in (real, own)
            )
            return losses.mean_matching(*joined, weights)

        (got, slope), (wanted, plain) = (
            jax.jit(jax.value_and_grad(f))(own) for f in (curved, flat)
        )
        assert float(got) == pytest.approx(float(wanted), rel=1e-12)
        for a, b in zip(slope, plain):
            np.testing.assert_allclose(a, b, atol=1e-12)

    def test_one_flat_factor_is_dm_exactly(self):
        real, own, weights = clouds()
        product = Product((0.0,), (1.0,))
        got = losses.product_matching("tangent", product, (real,), (own,), weights)
        assert float(got) == float(losses.mean_matching(real, own, weights))

    def test_covariance_is_numpys(self):
        real, own, weights = clouds()
        got = losses.covariance_matching(real, own, weights, 0.0)
        there = [real[0], real[1, :-1]]
        apart = [np.cov(x.T) - np.cov(s.T) for x, s in zip(there, own)]
        wanted = sum((a**2).sum() for a in apart) / real.shape[-1]
        assert float(got) == pytest.approx(wanted, rel=1e-10)


class TestWhereItIsCurved:
    @pytest.mark.parametrize("kappa", KAPPAS)
    def test_one_synthetic_point_costs_its_distance_from_the_mean(self, kappa):
        real, own, weights = clouds(m=1)
        means = jax.vmap(
            functools.partial(geometry.frechet_mean, steps=60), (0, None, 0)
        )(real, kappa, weights)
        wanted = geometry.distance_squared(means, own[:, 0], kappa).sum()
        got = losses.tangent_matching(real, own, weights, kappa, means)
        assert float(got) == pytest.approx(float(wanted), rel=1e-9)
        # Five steps of the mean are enough, for what they leave is subtracted.
        few = losses.tangent_matching(real, own, weights, kappa)
        assert float(few) == pytest.approx(float(wanted), rel=1e-4)

    @pytest.mark.parametrize("kappa", KAPPAS)
    def test_vanishes_where_both_have_the_same_mean(self, kappa):
        real, _, weights = clouds()
        means = losses.class_means(real, weights, kappa)
        logs = geometry.log(means[:, None], real, kappa)
        logs -= jnp.einsum("qn,qnd->qd", weights, logs)[:, None]
        pair = jnp.stack([logs[:, 0], -logs[:, 0]], 1)  # symmetric around the mean
        own = geometry.exp(means[:, None], pair, kappa)
        exact = jnp.full(weights.shape, 1 / weights.shape[1])
        real = geometry.exp(means[:, None], jnp.tile(pair, (1, 3, 1)), kappa)
        got = losses.tangent_matching(real, own, exact, kappa, means)
        assert float(got) < 1e-20

    @pytest.mark.parametrize("kind", ["tangent", "centroid", "covariance"])
    def test_adds_up_over_weighted_factors(self, kind):
        real, own, weights = factors()
        got = losses.product_matching(kind, space(), real, own, weights)
        wanted = sum(
            float(weight)
            * losses.product_matching(
                kind, Product((kappa,), (1.0,)), (x,), (s,), weights
            )
            for kappa, weight, x, s in zip(*space(), real, own)
        )
        assert float(got) == pytest.approx(float(wanted), rel=1e-12)

    def test_energy_is_the_double_sum(self):
        real, own, weights = factors()
        got = losses.energy_matching(space(), real, own, weights)

        @jax.jit
        def distances(first, second):
            return sum(
                w * geometry.distance(a[:, :, None], b[:, None], k)
                for k, w, a, b in zip(*space(), first, second)
            )

        a, b = np.asarray(weights), np.full((2, 3), 1 / 3)
        wanted = 0.0
        for k in range(2):
            wanted += 2 * a[k] @ distances(real, own)[k] @ b[k]
            wanted -= a[k] @ distances(real, real)[k] @ a[k]
            wanted -= b[k] @ distances(own, own)[k] @ b[k]
        assert float(got) == pytest.approx(float(wanted), rel=1e-6)
        assert float(got) > 0

    def test_energy_of_a_cloud_with_itself_is_nothing(self):
        real, _, _ = factors()
        uniform = jnp.full((2, 6), 1 / 6)
        loss = functools.partial(losses.energy_matching, space(), real)
        value, slope = jax.jit(jax.value_and_grad(loss))(real, uniform)
        assert abs(float(value)) < 1e-7
        assert max(float(jnp.abs(s).max()) for s in slope) < 1e-6

    def test_words_are_checked(self):
        real, own, weights = factors()
        with pytest.raises(ValueError, match="unknown match 'mean'; known: tangent"):
            losses.product_matching("mean", space(), real, own, weights)


@pytest.fixture(scope="module", params=losses.MATCHES)
def sloped(request):
    """A way to match in one factor: its value, and slopes in all that may be learned."""
    frequencies = jnp.array(np.random.default_rng(5).normal(size=(8, 4)))

    def loss(real, own, kappa, weight, mass):
        product = Product((kappa,), (weight,))
        # Other base points than the mean compile sooner, and are as good here.
        near = jnp.einsum("qn,qnd->qd", mass, real)
        means = None if request.param == "tangent" else [near]
        return losses.product_matching(
            request.param,
            product,
            (real,),
            (own,),
            mass,
            means=means,
            frequencies=frequencies,
        )

    return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))


class TestSlopes:
    @pytest.mark.parametrize("kappa", KAPPAS)
    def test_are_those_of_differences(self, sloped, kappa):
        real, own, mass = clouds()
        given = real, own, jnp.array(kappa), jnp.array(0.7)
        slopes = sloped(*given, mass)[1]
        rng, h = np.random.default_rng(3), 1e-5
        along = [rng.normal(size=x.shape) for x in given]
        ends = [
            sloped(*(x + sign * h * d for x, d in zip(given, along)), mass)[0]
            for sign in (1, -1)
        ]
        got = sum(float(jnp.sum(g * d)) for g, d in zip(slopes, along))
        # The root of what rounding leaves between a point and itself is of "energy".
        assert got == pytest.approx(float(ends[0] - ends[1]) / (2 * h), rel=1e-4)

    @pytest.mark.parametrize("kappa", [*KAPPAS, 0.0])
    def test_are_numbers_where_points_coincide(self, sloped, kappa):
        real, own, mass = clouds()
        nothing = jnp.zeros_like(real)
        for x, s in (
            (real, real[:, :3]),
            (real, jnp.tile(own[:, :1], (1, 3, 1))),
            (nothing, nothing[:, :3]),
            (nothing, own),
        ):
            found = sloped(x, s, jnp.array(kappa), jnp.array(0.7), mass)
            chex.assert_tree_all_finite(found)


class TestTransport:
    def cost(self, product, x, s):
        each = [
            w * geometry.distance_squared(a[:, None], b, k)
            for k, w, a, b in zip(*product, x, s)
        ]
        return sum(each)

    def test_is_an_assignment_without_entropy(self):
        """What moves least, less what nobody moves, of clouds of one size."""
        real, own, _ = factors(q=1, n=4, m=4)
        uniform = jnp.full((1, 4), 0.25)
        got = losses.product_transport(space(), real, own, uniform, epsilon=1e-3)
        cost = np.asarray(self.cost(space(), *([x[0] for x in c] for c in (real, own))))
        wanted = cost[optimize.linear_sum_assignment(cost)].mean()
        assert float(got) == pytest.approx(wanted, rel=5e-3)

    def test_of_a_cloud_with_itself_is_nothing(self):
        real, _, _ = factors()
        uniform = jnp.full((2, 6), 1 / 6)
        got = losses.product_transport(space(), real, real, uniform)
        assert abs(float(got)) < 1e-9

    def test_one_point_has_the_slope_of_the_mean_cost(self):
        real, own, weights = factors(m=1)

        def moved(own):
            return losses.product_transport(space(), real, own, weights)

        def mean_cost(own):
            squares = (
                w * geometry.distance_squared(x, s, k)
                for k, w, x, s in zip(*space(), real, own)
            )
            return jnp.sum(weights * sum(squares))

        (got, slope), (wanted, plain) = (
            jax.jit(jax.value_and_grad(f))(own) for f in (moved, mean_cost)
        )
        chex.assert_trees_all_close(slope, plain, atol=1e-8)
        assert 0 < float(got) < float(wanted)  # less half of what is within the class

    def test_slopes_are_those_of_the_plans(self):
        """In curvatures, weights and points; the plans are constants."""
        real, own, weights = factors(q=1)
        epsilon, third = 0.05, jnp.full(3, 1 / 3)

        def moved(product, own):
            return losses.product_transport(
                product, real, own, weights, epsilon=epsilon
            )

        def costs(product, own):
            x, s = ([part[0] for part in points] for points in (real, own))
            return [self.cost(product, *pair) for pair in ((x, s), (x, x), (s, s))]

        def envelope(product, own):
            masses = ((weights[0], third), (weights[0],) * 2, (third,) * 2)
            found = costs(product, own)
            fixed = jax.lax.stop_gradient(found)
            strength = epsilon * (weights[0] @ fixed[1] @ weights[0])
            total = 0.0
            for share, cost, still, ab in zip((1, -0.5, -0.5), found, fixed, masses):
                plan = ot.sinkhorn(still, *ab, epsilon=strength, threshold=1e-9).plan
                total += share * jnp.sum(plan * cost)
            return total

        product = Product(jnp.array([0.0, *KAPPAS]), jnp.array(WEIGHTS))
        got, wanted = (
            jax.jit(jax.grad(f, (0, 1)))(product, own) for f in (moved, envelope)
        )
        chex.assert_trees_all_close(got, wanted, rtol=2e-3, atol=5e-4)

    def test_padding_is_not_moved(self):
        real, own, weights = factors()
        alone = [x[1:] for x in real], [s[1:] for s in own]
        far = [x.at[:, -1].add(0.7) for x in alone[0]]
        short = [x[:, :-1] for x in alone[0]]
        move = functools.partial(losses.product_transport, space())
        got = move(far, alone[1], weights[1:])
        wanted = move(short, alone[1], weights[1:, :-1])
        assert float(got) == pytest.approx(float(wanted), rel=1e-6)


def test_spread_is_the_mean_squared_distance():
    real, _, weights = clouds()
    got = losses.spread(real, weights, 0.0)
    there = [real[0], real[1, :-1]]
    wanted = np.mean([x.var(0).sum() for x in there])
    assert float(got) == pytest.approx(wanted, rel=1e-12)


def test_penalty_is_of_what_lies_beyond_the_radius():
    norms = jnp.array([[1.0, 2.0], [4.0, 3.0]]), jnp.array([[0.5, 0.5]])
    got = losses.curvature_penalty(norms, (2.0, 1.0))
    assert float(got) == pytest.approx((0 + 0 + 1 + 0.25) / 4 / 2)

"""The exact solver against SciPy, and its certificate."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from ddjax import ot


def _problem(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = rng.random(n), rng.random(m)
    return rng.random((n, m)).astype(np.float32), a / a.sum(), b / b.sum()


def _highs(cost, a, b):
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    solved = optimize.linprog(
        cost.astype(np.float64).ravel(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([a, b]),
        method="highs",
    )
    return solved.fun


@pytest.mark.parametrize("n,m", [(8, 60), (60, 8), (12, 12), (5, 1)])
def test_cost_is_that_of_highs(n, m):
    cost, a, b = _problem(n, n, m)
    transport = ot.lp(cost, a, b)
    assert float(transport.cost) == pytest.approx(_highs(cost, a, b), rel=1e-6)
    assert bool(transport.converged)


def test_uniform_square_problem_is_an_assignment():
    cost, _, _ = _problem(3, 20, 20)
    rows, columns = optimize.linear_sum_assignment(cost)
    transport = ot.lp(cost, np.full(20, 1 / 20), np.full(20, 1 / 20))
    assert float(transport.cost) == pytest.approx(cost[rows, columns].mean(), rel=1e-6)
    np.testing.assert_array_equal(np.argmax(transport.plan, 1), columns)


def test_plan_has_the_marginals_and_duals_are_feasible_and_tight():
    cost, a, b = _problem(4, 15, 7)
    transport = ot.lp(cost, a, b)
    np.testing.assert_allclose(transport.plan.sum(1), a, atol=1e-6)
    np.testing.assert_allclose(transport.plan.sum(0), b, atol=1e-6)
    slack = cost - transport.f[:, None] - transport.g[None, :]
    assert slack.min() > -1e-6
    np.testing.assert_allclose(slack[np.asarray(transport.plan) > 1e-6], 0, atol=1e-6)
    assert abs(float(transport.g.mean())) < 1e-6
    assert abs(float(transport.gap)) < 1e-9


def test_gap_shows_a_plan_that_is_not_optimal(monkeypatch):
    import ot as pot

    def independent(a, b, cost, **_):
        f, g = np.zeros_like(a), np.zeros_like(b)
        return a[:, None] * b[None, :], {"u": f, "v": g, "result_code": 1}

    monkeypatch.setattr(pot, "emd", independent)
    cost, a, b = _problem(5, 9, 6)
    assert float(ot.lp(cost, a, b).gap) > 0.01


def test_points_without_mass_change_nothing_and_have_a_price():
    cost, a, b = _problem(6, 10, 4)
    plain = ot.lp(cost, a, b)
    padded = ot.lp(
        np.pad(cost, ((0, 3), (0, 1)), constant_values=0.5),
        np.pad(a, (0, 3)),
        np.pad(b, (0, 1)),
    )
    assert float(padded.cost) == pytest.approx(float(plain.cost), rel=1e-6)
    np.testing.assert_allclose(padded.plan[:10, :4], plain.plan, atol=1e-6)
    assert float(jnp.sum(padded.plan[10:]) + jnp.sum(padded.plan[:, 4:])) == 0
    assert np.isfinite(padded.g).all() and np.isfinite(padded.f).all()
    assert abs(float(padded.gap)) < 1e-9


def test_repeated_points_and_ties():
    cost = np.zeros((6, 3), np.float32)
    transport = ot.lp(cost, np.full(6, 1 / 6), np.full(3, 1 / 3))
    assert float(transport.cost) == 0
    np.testing.assert_allclose(transport.plan.sum(0), 1 / 3, atol=1e-6)


def test_dual_is_the_derivative_in_the_weights():
    cost, a, b = _problem(7, 30, 4)  # generic weights: the dual is unique
    direction = np.array([1.0, -0.5, -0.3, -0.2])
    h = 1e-4
    up, down = (float(ot.lp(cost, a, b + s * h * direction).cost) for s in (1, -1))
    transport = ot.lp(cost, a, b)
    slope = float(transport.g @ direction)
    assert slope == pytest.approx((up - down) / (2 * h), abs=2e-3)


class LpVariants(chex.TestCase):
    """With and without jit, vmap and pmap."""

    @chex.all_variants
    def test_same_cost(self):
        cost, a, b = _problem(8, 9, 5)
        a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
        solved = self.variant(lambda c, a, b: ot.lp(c, a, b).cost)(cost, a, b)
        np.testing.assert_allclose(solved, _highs(cost, a, b), rtol=1e-5)


def test_vmap_solves_each_problem():
    problems = [_problem(seed, 11, 4) for seed in range(5)]
    cost, a, b = (jnp.asarray(np.stack(x), jnp.float32) for x in zip(*problems))
    together = jax.jit(jax.vmap(ot.lp))(cost, a, b)
    for i, problem in enumerate(problems):
        alone = ot.lp(*problem)
        np.testing.assert_allclose(together.cost[i], alone.cost, rtol=1e-5)
        np.testing.assert_allclose(together.plan[i], alone.plan, atol=1e-6)

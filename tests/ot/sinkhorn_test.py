"""Entropic plans against POT's, and against the exact ones as epsilon falls."""

import jax
import numpy as np
import ot as pot
import pytest

from ddjax import ot


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(5, 3))
    cost = np.asarray(ot.squared_euclidean(x.astype(np.float32), y.astype(np.float32)))
    a, b = rng.random(30), rng.random(5)
    return cost, (a / a.sum()).astype(np.float32), (b / b.sum()).astype(np.float32)


def test_plan_is_that_of_pot(problem):
    cost, a, b = problem
    ours = ot.sinkhorn(cost, a, b, epsilon=0.3, threshold=1e-5)
    a64, b64 = (x.astype(np.float64) / x.sum(dtype=np.float64) for x in (a, b))
    theirs = pot.sinkhorn(a64, b64, cost.astype(np.float64), 0.3, stopThr=1e-10)
    np.testing.assert_allclose(ours.plan, theirs, atol=1e-5)
    assert bool(ours.converged)


def test_approaches_the_exact_cost_as_epsilon_falls(problem):
    cost, a, b = problem
    exact = float(ot.lp(cost, a, b).cost)
    excess = []
    for epsilon in (1.0, 0.3, 0.1, 0.03, 0.01):
        found = ot.sinkhorn(
            cost, a, b, epsilon=epsilon, relative=True, max_iterations=20_000
        )
        excess.append(float(found.cost) - exact)
        # The certificate really bounds the excess, up to the error of the marginals.
        assert float(found.gap) * float(found.cost) > excess[-1] - 5e-3
    assert np.all(np.diff(excess) < 0)
    assert excess[-1] < 2e-3 * exact


def test_padding_changes_nothing(problem):
    cost, a, b = problem
    padded = np.pad(cost, ((0, 4), (0, 2)), constant_values=100.0)
    options = {"epsilon": 0.05, "relative": True, "threshold": 1e-5}
    found = ot.sinkhorn(padded, np.pad(a, (0, 4)), np.pad(b, (0, 2)), **options)
    plain = ot.sinkhorn(cost, a, b, **options)
    np.testing.assert_allclose(found.plan[:30, :5], plain.plan, atol=1e-5)
    assert float(found.plan[30:].sum() + found.plan[:, 5:].sum()) == 0
    assert np.isfinite(found.f).all() and np.isfinite(found.g).all()


def test_says_when_it_did_not_converge(problem):
    found = ot.sinkhorn(*problem, epsilon=1e-3, threshold=1e-6, max_iterations=10)
    assert not bool(found.converged)


def test_jit_and_vmap(problem):
    cost, a, b = problem

    def solve(cost):
        return ot.sinkhorn(cost, a, b, epsilon=0.5).cost

    both = jax.jit(jax.vmap(solve))(np.stack([cost, 2 * cost]))
    np.testing.assert_allclose(both, [solve(cost), solve(2 * cost)], rtol=1e-5)


def test_epsilon_must_be_positive(problem):
    with pytest.raises(ValueError, match="epsilon > 0; got 0"):
        ot.sinkhorn(*problem, epsilon=0)

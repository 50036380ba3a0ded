"""Weights of fixed atoms against golden values and their closed-form optimum."""

import functools

import jax
import numpy as np
import pytest
from sklearn import metrics

from ddjax import ot
from ddjax.ot.weights import nearest_plan

each_solver = pytest.mark.parametrize("solver", [ot.lp, ot.semidual])
ROUNDING = {ot.lp: 1e-6, ot.semidual: 1e-3}  # of a solver's cost: its tolerance


@pytest.fixture(scope="module")
def problem():
    """(cost, masses) of 60 points and 6 of them as atoms."""
    rng = np.random.default_rng(1)
    x = np.maximum(rng.normal(size=(60, 8)), 0).astype(np.float32)
    a = rng.random(60)
    return ot.squared_euclidean(x, x[:6]), (a / a.sum()).astype(np.float32)


@functools.partial(jax.jit, static_argnames="solver")
def _learned(cost, a, w, solver=ot.lp, steps=100):
    return ot.subgradient_weights(cost, a, w, solver, steps=steps)


def _uniform(m):
    return np.full(m, 1 / m, np.float32)


def _value(cost, a, w):
    return float(ot.lp(cost, a, w).cost)


def test_voronoi_masses_are_golden():
    """Golden value A: the cloud, its first atoms, and those of its barycenter."""
    i, j = np.meshgrid(np.arange(12), np.arange(4), indexing="ij")
    x = np.sin(0.37 * i + 1.3 * j) + 0.1 * ((i * (j + 1)) % 7)
    j, k = np.meshgrid(np.arange(3), np.arange(4), indexing="ij")
    atoms = [
        (-0.08430033, -0.58659808, 0.24659749, 1.12952810),
        (0.63290051, 1.17965644, 0.26271363, -0.63622962),
        (1.19444147, 0.04886089, -0.66367548, -0.03767513),
    ]
    for y, masses in [(np.cos(0.5 * j + 0.2 * k), [0, 0, 1]), (atoms, [1 / 3] * 3)]:
        cost = ot.squared_euclidean(x.astype(np.float32), np.float32(y))
        found = ot.voronoi_masses(cost, _uniform(12))
        np.testing.assert_allclose(found, masses, atol=1e-6)


def test_voronoi_masses_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, y, a = rng.normal(size=(50, 3)), rng.normal(size=(7, 3)), rng.random(50)
    nearest = metrics.pairwise_distances_argmin(x, y)
    cost = ot.squared_euclidean(np.float32(x), np.float32(y))
    masses, plan = ot.voronoi_masses(cost, a), nearest_plan(cost, np.float32(a))
    expected = np.bincount(nearest, a, minlength=7)
    np.testing.assert_allclose(masses, expected, rtol=1e-5)
    np.testing.assert_allclose(plan, np.eye(7)[nearest] * a[:, None], rtol=1e-6)


def test_voronoi_masses_are_optimal(problem):
    cost, a = problem
    best = _value(cost, a, ot.voronoi_masses(cost, a))
    assert best == pytest.approx(float(a @ cost.min(1)), rel=1e-6)


@each_solver
def test_learned_weights_reach_the_voronoi_masses(problem, solver):
    cost, a = problem
    found = _learned(cost, a, _uniform(6), solver)
    lowest = _value(cost, a, ot.voronoi_masses(cost, a))
    first, last = _value(cost, a, _uniform(6)), _value(cost, a, found)
    assert last - lowest < 0.02 * (first - lowest)
    assert float(found.sum()) == pytest.approx(1, abs=1e-5) and float(found.min()) >= 0


@each_solver
def test_best_weights_met_are_returned(problem, solver):
    """More steps are never worse, nor is any number of them than the start."""
    cost, a = problem
    values = [
        _value(cost, a, _learned(cost, a, _uniform(6), solver, k)) for k in range(4)
    ]
    assert values[0] == pytest.approx(_value(cost, a, _uniform(6)), rel=1e-6)
    assert np.all(np.diff(values) <= ROUNDING[solver] * values[0])
    assert values[-1] < 0.99 * values[0]


@each_solver
def test_optimal_weights_stay(problem, solver):
    cost, a = problem
    best = ot.voronoi_masses(cost, a)
    found = _learned(cost, a, best, solver)
    first, last = (_value(cost, a, w) for w in (best, found))
    assert last == pytest.approx(first, rel=ROUNDING[solver])


def test_far_atoms_end_without_mass(problem):
    cost, a = problem
    far = np.pad(cost, ((0, 0), (0, 1)), constant_values=float(3 * cost.max()))
    found = _learned(far, a, _uniform(7), steps=200)
    assert float(found[6]) < 1e-3


def test_vmap_learns_each(problem):
    cost, a = problem
    costs = np.stack([cost, cost[:, ::-1]])
    both = jax.vmap(lambda c: _learned(c, a, _uniform(6), ot.semidual))(costs)
    for c, w in zip(costs, both):
        alone = _value(c, a, _learned(c, a, _uniform(6), ot.semidual))
        assert _value(c, a, w) == pytest.approx(alone, rel=1e-3)

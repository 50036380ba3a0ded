"""The exact solver against SciPy, finite differences, and its own certificate."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from ddjax import ot


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


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


SHAPES = [(8, 60), (60, 8), (12, 12), (5, 1), (1, 5), (1, 1)]


@pytest.mark.parametrize("n,m", SHAPES)
def test_cost_is_that_of_highs(n, m):
    cost, a, b = _problem(n, n, m)
    transport = ot.lp(cost, a, b)
    assert float(transport.cost) == pytest.approx(_highs(cost, a, b), rel=1e-6)
    assert float(transport.objective) == float(transport.cost)
    assert bool(transport.converged)


@pytest.mark.parametrize("n,m", SHAPES)
def test_plan_has_the_marginals_and_duals_are_feasible_and_tight(n, m):
    cost, a, b = _problem(n, n, m)
    transport = ot.lp(cost, a, b)
    plan = np.asarray(transport.plan)
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-6)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-6)
    assert plan.min() >= 0
    assert float(transport.error) < 1e-12  # it is that of float64
    slack = cost - transport.f[:, None] - transport.g[None, :]
    assert slack.min() > -1e-6
    np.testing.assert_allclose(slack[plan > 1e-6], 0, atol=1e-6)
    assert abs(float(transport.g.mean())) < 1e-6
    assert abs(float(transport.gap)) < 1e-9


def test_uniform_square_problem_is_an_assignment():
    cost, _, _ = _problem(3, 20, 20)
    rows, columns = optimize.linear_sum_assignment(cost)
    transport = ot.lp(cost, np.full(20, 1 / 20), np.full(20, 1 / 20))
    assert float(transport.cost) == pytest.approx(cost[rows, columns].mean(), rel=1e-6)
    np.testing.assert_array_equal(np.argmax(transport.plan, 1), columns)


@pytest.mark.parametrize("m", [2, 6])
def test_equal_masses_are_an_assignment_to_repeated_columns(m):
    cost, _, _ = _problem(4, 24, m)
    copies = cost.repeat(24 // m, 1)
    rows, columns = optimize.linear_sum_assignment(copies)
    transport = ot.lp(cost, np.full(24, 1 / 24), np.full(m, 1 / m))
    assert float(transport.cost) == pytest.approx(
        copies[rows, columns].mean(), rel=1e-6
    )
    np.testing.assert_array_equal(np.argmax(transport.plan, 1), columns // (24 // m))


@pytest.mark.parametrize("seed", range(3))
def test_ties_cost_what_highs_says(seed):
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 3, (30, 6))
    a, b = np.full(30, 1 / 30), np.full(6, 1 / 6)
    transport = ot.lp(cost, a, b)
    exact = _highs(cost, a, b)
    assert float(transport.cost) == pytest.approx(exact, rel=1e-6, abs=1e-7)
    assert bool(transport.converged)


def test_repeated_points_cost_what_one_of_their_mass_costs():
    cost, a, b = _problem(5, 7, 4)
    copies = cost.repeat(3, 0).repeat(2, 1)
    many = ot.lp(copies, a.repeat(3) / 3, b.repeat(2) / 2)
    assert float(many.cost) == pytest.approx(_highs(cost, a, b), rel=1e-6)
    np.testing.assert_allclose(
        many.plan.reshape(7, 3, 4, 2).sum((1, 3)), ot.lp(cost, a, b).plan, atol=1e-6
    )


def test_nothing_costs_nothing():
    cost = np.zeros((6, 3), np.float32)
    transport = ot.lp(cost, np.full(6, 1 / 6), np.full(3, 1 / 3))
    assert float(transport.cost) == 0
    assert float(transport.gap) == 0 and bool(transport.converged)
    np.testing.assert_allclose(transport.plan.sum(0), 1 / 3, atol=1e-6)


def test_integers_are_accepted():
    cost = np.array([[0, 2, 9], [3, 1, 1]])
    transport = ot.lp(cost, np.array([1, 2]), np.array([1, 1, 1]))
    assert float(transport.cost) == 2
    np.testing.assert_array_equal(transport.plan, [[1, 0, 0], [0, 1, 1]])


def test_masses_are_scaled_to_those_of_a():
    cost, a, b = _problem(6, 9, 5)
    transport = ot.lp(cost, 3 * a, 0.1 * b)
    assert float(transport.cost) == pytest.approx(3 * _highs(cost, a, b), rel=1e-6)
    np.testing.assert_allclose(transport.plan.sum(0), 3 * b, rtol=1e-6)


def test_gap_shows_a_plan_that_is_not_optimal(monkeypatch):
    import ot as pot

    def independent(a, b, cost, **_):
        f, g = np.zeros_like(a), np.zeros_like(b)
        return a[:, None] * b[None, :], {"u": f, "v": g, "result_code": 1}

    monkeypatch.setattr(pot, "emd", independent)
    cost, a, b = _problem(5, 9, 6)
    assert float(ot.lp(cost, a, b).gap) > 0.01


def test_error_shows_a_plan_with_other_marginals(monkeypatch):
    import ot as pot

    def shifted(a, b, cost, **_):
        plan = np.outer(a, b)
        plan[0, 0] += 0.125
        log = {"u": np.zeros_like(a), "v": np.zeros_like(b), "result_code": 4}
        return plan, log

    monkeypatch.setattr(pot, "emd", shifted)
    transport = ot.lp(*_problem(5, 9, 6))
    assert float(transport.error) == pytest.approx(0.25)
    assert not bool(transport.converged)


@pytest.mark.parametrize("padding", [0.5, 1e6])
def test_points_without_mass_change_nothing_and_have_a_price(padding):
    cost, a, b = _problem(6, 10, 4)
    plain = ot.lp(cost, a, b)
    padded_cost = np.pad(cost, ((0, 3), (0, 1)), constant_values=padding)
    padded = ot.lp(padded_cost, np.pad(a, (0, 3)), np.pad(b, (0, 1)))
    assert float(padded.cost) == pytest.approx(float(plain.cost), rel=1e-6)
    np.testing.assert_allclose(padded.plan[:10, :4], plain.plan, atol=1e-6)
    assert float(jnp.sum(padded.plan[10:]) + jnp.sum(padded.plan[:, 4:])) == 0
    assert np.isfinite(padded.g).all() and np.isfinite(padded.f).all()
    slack = padded_cost - np.float64(padded.f)[:, None] - np.float64(padded.g)
    assert slack.min() > -1e-6 * padding
    # A higher price would not be feasible.
    np.testing.assert_allclose(slack.min(0)[4:], 0, atol=1e-6 * padding)
    np.testing.assert_allclose(slack.min(1)[10:], 0, atol=1e-6 * padding)
    assert abs(float(padded.gap)) < 1e-9


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["C", "a", "b"])
def test_derivative_is_that_of_finite_differences(float64, argument):
    problem = [np.asarray(x, np.float64) for x in _problem(7, 12, 5)]
    direction = np.random.default_rng(0).normal(size=problem[argument].shape)
    if argument:
        direction -= direction.mean()  # one sum of all masses
        direction *= 0.1 * problem[argument].min() / np.abs(direction).max()
    h = 1e-5

    def value(x):
        return ot.lp(*problem[:argument], x, *problem[argument + 1 :]).cost

    up, down = (value(problem[argument] + s * h * direction) for s in (1, -1))
    expected = float(up - down) / (2 * h)
    for gradient in (jax.grad(value), jax.jit(jax.grad(value))):
        slope = float(np.sum(gradient(problem[argument]) * direction))
        assert slope == pytest.approx(expected, rel=1e-6)
    both = jax.vmap(jax.grad(value))(np.stack([problem[argument]] * 2))
    np.testing.assert_array_equal(both[0], both[1])
    assert float(np.sum(both[1] * direction)) == pytest.approx(expected, rel=1e-6)


def test_dual_of_a_point_without_mass_is_the_slope_towards_it(float64):
    cost, a, b = (np.asarray(x, np.float64) for x in _problem(8, 12, 5))
    b[4] = 0
    b /= b.sum()
    direction, h = np.array([-0.25, -0.25, -0.25, -0.25, 1.0]), 1e-6
    transport = ot.lp(cost, a, b)
    ahead = ot.lp(cost, a, b + h * direction).cost
    slope = float(ahead - transport.cost) / h
    assert float(transport.g @ direction) == pytest.approx(slope, rel=1e-6)


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


def _with(array, value):
    changed = np.array(array, np.float32)
    changed[(1,) * changed.ndim] = value
    return changed


COST, A, B = _problem(9, 6, 3)
UNSOLVABLE = {
    "NaN cost": ((_with(COST, np.nan), A, B), "the cost has NaN .* in 1 of 6 rows .*1"),
    "infinite cost": ((_with(COST, np.inf), A, B), "the cost has NaN or infinite"),
    "negative mass": ((COST, _with(A, -0.5), B), "a must be non-neg.* from -0.5 to"),
    "no mass": ((COST, A, 0 * B), "b must be .* from 0 to 0 with sum 0"),
    "NaN mass": ((COST, A, _with(B, np.nan)), "b must be .* from nan to nan"),
    "infinite mass": ((COST, _with(A, np.inf), B), "a must be .* with sum inf"),
}
each_solver = pytest.mark.parametrize("solver", [ot.lp, ot.semidual])


@each_solver
@pytest.mark.parametrize("problem,message", UNSOLVABLE.values(), ids=UNSOLVABLE)
def test_what_nothing_can_solve_is_refused(solver, problem, message):
    with pytest.raises(ValueError, match=message):
        solver(*problem)


@each_solver
@pytest.mark.parametrize(
    "problem,shapes",
    [
        ((COST, B, A), r"\(6, 3\), \(3,\), \(6,\)"),
        ((COST[0], A, B), r"\(3,\), \(6,\), \(3,\)"),
        ((COST[None], A[None], B[None]), r"\(1, 6, 3\), \(1, 6\), \(1, 3\)"),
        ((COST[:0], A[:0], B), r"\(0, 3\), \(0,\), \(3,\)"),
        ((COST[:, :0], A, B[:0]), r"\(6, 0\), \(6,\), \(0,\)"),
    ],
    ids=["swapped", "flat", "batch", "no rows", "no columns"],
)
def test_shapes_that_do_not_fit_are_refused_also_under_jit(solver, problem, shapes):
    for call in (solver, jax.jit(solver)):
        with pytest.raises(ValueError, match=f"got shapes {shapes}"):
            call(*problem)


PROGRAMS = {"lp": jax.jit(ot.lp), "semidual": jax.jit(ot.semidual)}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("case", UNSOLVABLE)
def test_under_jit_what_nothing_can_solve_comes_back_as_nan(name, case):
    solved = PROGRAMS[name](*UNSOLVABLE[case][0])
    assert np.isnan(solved.cost) and not bool(solved.converged)


def test_one_unsolvable_problem_of_a_batch_leaves_the_others_alone():
    good = np.float32(COST), np.float32(A), np.float32(B)
    bad = UNSOLVABLE["NaN cost"][0]
    batch = [np.stack([g, np.float32(b), g]) for g, b in zip(good, bad)]
    for solver in (ot.lp, ot.semidual):
        solved = jax.jit(jax.vmap(solver))(*batch)
        assert solved.converged.tolist() == [True, False, True]
        assert np.isfinite(solved.plan[2]).all()
        exact = _highs(COST, A, B)
        np.testing.assert_allclose(solved.cost[::2], exact, rtol=2e-3)

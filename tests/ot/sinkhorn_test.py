"""Entropic plans against POT's, ott's and the exact ones, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest
from ott.geometry import geometry
from ott.solvers import linear

from ddjax.ot.cost import UNITS, l1, squared_euclidean
from ddjax.ot.sinkhorn import GRADIENTS, sinkhorn

SIDES = {
    "balanced": {},
    "rows": {"slack_a": 0.4},
    "columns": {"slack_b": 0.7},
    "both": {"slack_a": 0.4, "slack_b": 0.7},
}
each_side = pytest.mark.parametrize("slack", SIDES.values(), ids=SIDES)
each_gradient = pytest.mark.parametrize("gradient", GRADIENTS)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(5, 3))
    cost = np.asarray(squared_euclidean(x.astype(np.float32), y.astype(np.float32)))
    a, b = rng.random(30), rng.random(5)
    return cost, (a / a.sum()).astype(np.float32), (b / b.sum()).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """In float64, with a row and a column that have no mass."""
    rng = np.random.default_rng(0)
    cost, a, b = rng.random((9, 6)), rng.random(9), rng.random(6)
    a[3] = b[2] = 0
    return cost, a / a.sum(), b / b.sum()


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# The options are compiled in; a test that repeats them compiles nothing.
solve = jax.jit(
    sinkhorn,
    static_argnames=(
        "epsilon",
        "unit",
        "slack_a",
        "slack_b",
        "gradient",
        "threshold",
        "max_iterations",
    ),
)


def _double(problem):
    cost, a, b = (x.astype(np.float64) for x in problem)
    return cost, a / a.sum(), b / b.sum()


def _padded(cost, a, b, value):
    cost = np.pad(cost, ((0, 4), (0, 2)), constant_values=value)
    return cost, np.pad(a, (0, 4)), np.pad(b, (0, 2))


def _kl(p, q):
    some = p > 0
    return np.sum(p[some] * np.log(p[some] / q[some])) - p.sum() + q.sum()


def _primal(plan, cost, a, b, epsilon, slack_a=None, slack_b=None):
    value = np.sum(plan * cost)
    if epsilon:
        value += epsilon * _kl(plan, np.outer(a, b))
    for rho, p, q in ((slack_a, plan.sum(1), a), (slack_b, plan.sum(0), b)):
        value += rho * _kl(p, q) if rho else 0
    return value


def _pot_plan(cost, a, b, epsilon, slack_a=None, slack_b=None):
    if slack_a is slack_b is None:
        return pot.sinkhorn(a, b, cost, epsilon, stopThr=1e-13, numItermax=100_000)
    return pot.unbalanced.sinkhorn_unbalanced(
        a,
        b,
        cost,
        epsilon,
        (slack_a or np.inf, slack_b or np.inf),
        reg_type="kl",
        stopThr=1e-15,
        numItermax=100_000,
    )


@each_side
def test_plan_and_objective_are_those_of_pot(problem, slack):
    ours = solve(*problem, epsilon=0.3, threshold=1e-6, **slack)
    theirs = _pot_plan(*_double(problem), 0.3, **slack)
    np.testing.assert_allclose(ours.plan, theirs, atol=1e-6)
    objective = _primal(theirs, *_double(problem), 0.3, **slack)
    assert float(ours.objective) == pytest.approx(objective, rel=1e-5)
    expected = np.sum(theirs * problem[0])
    assert float(ours.cost) == pytest.approx(expected, rel=1e-5)
    assert bool(ours.converged) and float(ours.error) <= 1e-6


def test_objective_and_cost_are_those_of_ott(problem):
    cost, a, b = problem
    ours = solve(cost, a, b, epsilon=0.3, threshold=1e-6)
    geom = geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=0.3)
    theirs = linear.solve(geom, jnp.asarray(a), jnp.asarray(b), threshold=1e-6)
    assert float(ours.objective) == pytest.approx(float(theirs.reg_ot_cost), rel=1e-5)
    assert float(ours.cost) == pytest.approx(float(theirs.primal_cost), rel=1e-5)
    np.testing.assert_allclose(ours.plan, theirs.matrix, atol=1e-6)


def test_masses_need_not_sum_to_one(problem):
    cost, a, b = problem
    slack = {"slack_a": 0.4, "slack_b": 0.7}
    ours = solve(cost, 3 * a, 2 * b, epsilon=0.3, threshold=1e-6, **slack)
    cost, a, b = _double(problem)
    theirs = _pot_plan(cost, 3 * a, 2 * b, 0.3, **slack)
    np.testing.assert_allclose(ours.plan, theirs, atol=1e-5)
    objective = _primal(theirs, cost, 3 * a, 2 * b, 0.3, **slack)
    assert float(ours.objective) == pytest.approx(objective, rel=1e-5)


def test_hard_marginals_scale_b_to_the_sum_of_a(problem):
    cost, a, b = problem
    ours = solve(cost, 3 * a, 2 * b, epsilon=0.3, threshold=1e-5)
    assert bool(ours.converged)
    np.testing.assert_allclose(ours.plan.sum(1), 3 * a, atol=1e-5)
    np.testing.assert_allclose(ours.plan.sum(0), 3 * b, atol=1e-5)


def test_a_large_slack_is_a_hard_marginal(problem):
    hard = solve(*problem, epsilon=0.3, threshold=1e-5)
    slack = {"slack_a": 1e4, "slack_b": 1e4}
    found = solve(*problem, epsilon=0.3, threshold=1e-5, **slack)
    assert bool(found.converged)
    np.testing.assert_allclose(found.plan, hard.plan, atol=1e-4)
    assert float(found.objective) == pytest.approx(float(hard.objective), rel=1e-3)
    assert float(found.gap) == pytest.approx(float(hard.gap), rel=1e-2)


@pytest.mark.usefixtures("float64")
def test_approaches_the_exact_cost_as_epsilon_falls(problem):
    cost, a, b = _double(problem)
    exact = pot.emd2(a, b, cost)
    options = {"unit": "mean", "threshold": 1e-7, "max_iterations": 50_000}
    any_epsilon = jax.jit(lambda e: sinkhorn(cost, a, b, epsilon=e, **options))
    excess = []
    for epsilon in (1.0, 0.3, 0.1, 0.03, 0.01):
        found = any_epsilon(epsilon)
        assert bool(found.converged)
        excess.append(float(found.cost) - exact)
        assert float(found.gap * found.cost) > excess[-1] > 0
        assert float(a @ found.f + b @ found.g) <= exact
    assert np.all(np.diff(excess) < 0)
    assert excess[-1] < 2e-3 * exact


@pytest.mark.usefixtures("float64")
@each_side
def test_duals_are_feasible_and_the_gap_is_theirs(small, slack):
    cost, a, b = small
    found = solve(*small, epsilon=0.1, threshold=1e-10, **slack)
    f, g = np.asarray(found.f), np.asarray(found.g)
    assert np.min(cost - f[:, None] - g) > -1e-12
    dual = 0
    for name, mass, h in (("slack_a", a, f), ("slack_b", b, g)):
        rho = slack.get(name)
        dual += mass @ h if rho is None else rho * mass @ (1 - np.exp(-h / rho))
    primal = _primal(np.asarray(found.plan), *small, 0, **slack)
    assert float(found.gap) == pytest.approx((primal - dual) / primal, rel=1e-8)
    assert float(found.gap) > 0
    if not slack:
        assert abs(g[b > 0].mean()) < 1e-12
        assert dual <= pot.emd2(a, b, cost)
    else:  # no plan does better than the dual
        live = cost[np.ix_(a > 0, b > 0)], a[a > 0], b[b > 0]
        for epsilon in (0.03, 0.01):
            rival = _pot_plan(*live, epsilon, **slack)
            assert dual < _primal(rival, *live, 0, **slack) < primal


@pytest.mark.parametrize(
    "unit,slack",
    [*((unit, {}) for unit in UNITS), ("mean", {"slack_a": 2.0, "slack_b": 1.0})],
    ids=[*UNITS, "slack"],
)
def test_padding_changes_nothing_whatever_it_costs(problem, unit, slack):
    options = {"epsilon": 0.1, "unit": unit, "threshold": 1e-5, **slack}
    harmless, poisoned = (solve(*_padded(*problem, v), **options) for v in (0.0, 1e6))
    plain = solve(*problem, **options) if unit == "mean" else harmless
    for found in (harmless, poisoned):
        np.testing.assert_allclose(found.plan[:30, :5], plain.plan[:30, :5], atol=1e-6)
        assert float(found.plan[30:].sum() + found.plan[:, 5:].sum()) == 0
        np.testing.assert_allclose(found.cost, plain.cost, rtol=1e-5)
        np.testing.assert_allclose(found.objective, plain.objective, rtol=1e-5)
        np.testing.assert_allclose(found.gap, plain.gap, rtol=1e-3)
        assert np.isfinite(found.f).all() and np.isfinite(found.g).all()


def test_units_scale_with_the_cost(problem):
    cost, a, b = problem
    options = {"epsilon": 0.1, "slack_b": 3.0, "threshold": 1e-5}
    here, there = (solve(z, a, b, unit="std", **options) for z in (cost, 50 * cost))
    np.testing.assert_allclose(there.plan, here.plan, atol=1e-6)
    weights = np.outer(a, b)
    std = np.sqrt(np.sum(weights * (cost - np.sum(weights * cost)) ** 2))
    absolute = solve(cost / std, a, b, **options)
    np.testing.assert_allclose(absolute.plan, here.plan, atol=1e-6)


def _directions(problem):
    """In the cost and in both masses, keeping the sum and what has no mass."""
    rng = np.random.default_rng(1)
    changes = [rng.normal(size=z.shape) for z in problem]
    for change, mass in zip(changes[1:], problem[1:]):
        change *= mass > 0
        change -= mass / mass.sum() * change.sum()
    return changes


def _exact(gradient, **options):
    """Options that leave no error of convergence, for float64."""
    iterations = 200 if gradient == "unrolled" else 5000
    return {
        "epsilon": 0.1,
        "gradient": gradient,
        "threshold": 1e-12,
        "max_iterations": iterations,
        **options,
    }


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "gradient,sides",
    [
        *(
            (gradient, sides)
            for sides in ("balanced", "both")
            for gradient in GRADIENTS
        ),
        ("implicit", "rows"),
    ],
)
def test_derivatives_are_those_of_finite_differences(small, gradient, sides):
    options = _exact(gradient, **SIDES[sides])

    @jax.jit
    def measured(*problem):
        """The objective, the cost, and a mixture of the plan and the duals."""
        found = sinkhorn(*problem, **options)
        mixture = jnp.sum(found.plan**2) + found.f[0] - 2 * found.g[1] + found.f[3]
        return jnp.stack([found.objective, found.cost, mixture])

    def along(k, direction, h):
        moved = list(small)
        moved[k] = moved[k] + h * direction
        return measured(*moved)

    jacobians = jax.jit(jax.jacrev(measured, (0, 1, 2)))(*map(jnp.asarray, small))
    assert all(np.isfinite(j).all() for j in jacobians)
    for k, direction in enumerate(_directions(small)):
        axes = tuple(range(1, 1 + direction.ndim))
        found = np.sum(jacobians[k] * direction, axes)
        up, down = (along(k, direction, h) for h in (1e-6, -1e-6))
        expected = np.asarray((up - down) / 2e-6)
        assert np.abs(expected).min() > 1e-4
        if gradient != "envelope":
            np.testing.assert_allclose(found, expected, atol=1e-6)
        else:
            plan = sinkhorn(*small, **options).plan
            explicit = np.sum(plan * direction) if k == 0 else 0.0
            np.testing.assert_allclose(found, [expected[0], explicit, 0], atol=1e-7)
            assert abs(explicit - expected[1]) > 1e-2  # so it is not the derivative

    # A point without mass has a price: the derivative towards giving it some.
    for k, point in ((1, 3), (2, 2)):
        direction = np.eye(len(small[k]))[point] - small[k]
        found = (jacobians[k] @ direction)[:2]
        steps = [along(k, direction, h)[:2] for h in (0, 1e-6, 2e-6)]
        expected = np.asarray((4 * steps[1] - steps[2] - 3 * steps[0]) / 2e-6)
        assert np.abs(expected).min() > 1e-3
        if gradient == "envelope":
            found, expected = found[:1], expected[:1]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@each_gradient
@pytest.mark.parametrize("sides", ["balanced", "both"])
def test_what_padding_costs_is_not_in_the_derivatives(problem, gradient, sides):
    options = {"epsilon": 0.3, "gradient": gradient, "max_iterations": 200}

    def loss(*problem):
        found = sinkhorn(*problem, **options, **SIDES[sides])
        duals = found.f[:30].sum() + 6 * found.g[:5].sum()  # in any gauge
        return found.objective + found.cost + jnp.sum(found.plan**2) + duals

    differentiate = jax.jit(jax.grad(loss, (0, 1, 2)))
    poisoned, harmless = (differentiate(*_padded(*problem, v)) for v in (1e6, 0))
    assert all(np.isfinite(z).all() for z in poisoned)
    live = slice(30), slice(5)
    np.testing.assert_allclose(poisoned[0][live], harmless[0][live], atol=1e-4)
    np.testing.assert_allclose(poisoned[0].sum(), poisoned[0][live].sum(), rtol=1e-5)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:`NormalCG:DeprecationWarning")  # ott's, of lineax
@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_implicit_derivative_is_that_of_ott(shape):
    rng = np.random.default_rng(2)
    a, b = (jnp.full(k, 1 / k) for k in shape)
    cost = jnp.asarray(rng.random(shape))

    def ours(cost):
        return sinkhorn(cost, a, b, **_exact("implicit")).cost

    def theirs(cost):
        geom = geometry.Geometry(cost_matrix=cost, epsilon=0.1)
        return linear.solve(geom, a, b, threshold=1e-12).primal_cost

    found, expected = (jax.jit(jax.grad(f))(cost) for f in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.usefixtures("float64")
def test_implicit_has_second_derivatives_of_the_objective(small):
    cost, a, b = small
    direction = _directions(small)[0]

    def slope(gradient):
        options = _exact(gradient)
        return jax.jit(jax.grad(lambda c: sinkhorn(c, a, b, **options).objective))

    cost = jnp.asarray(cost)
    up, down = (slope("envelope")(cost + s * direction) for s in (1e-5, -1e-5))
    curvature = jax.jvp(slope("implicit"), (cost,), (direction,))[1]
    np.testing.assert_allclose(curvature, (up - down) / 2e-5, atol=1e-7)
    assert np.abs(curvature).max() > 0.1


@pytest.mark.usefixtures("float64")
def test_derivative_in_epsilon(small):
    def objective(epsilon):
        return sinkhorn(*small, epsilon=epsilon, threshold=1e-11).objective

    value_and_slope = jax.jit(jax.value_and_grad(objective))
    up, down = (value_and_slope(0.3 + h)[0] for h in (1e-5, -1e-5))
    assert float(value_and_slope(0.3)[1]) == pytest.approx(
        float(up - down) / 2e-5, 1e-7
    )


def test_any_cost_will_do():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=(8, 4))
    a, b = np.full(12, 1 / 12), np.full(8, 1 / 8)
    theirs = pot.sinkhorn(a, b, pot.dist(x, y, "cityblock"), 0.5, stopThr=1e-12)
    cost = l1(x.astype(np.float32), y.astype(np.float32))
    found = solve(cost, a, b, epsilon=0.5, threshold=1e-6)
    np.testing.assert_allclose(found.plan, theirs, atol=1e-6)
    # Negative costs too: a constant moves the price and not the plan.
    lower = solve(cost - 10, a, b, epsilon=0.5, threshold=1e-6)
    np.testing.assert_allclose(lower.plan, theirs, atol=1e-5)
    assert float(lower.objective) == pytest.approx(
        float(found.objective) - 10, rel=1e-5
    )


@pytest.mark.parametrize("unit", UNITS)
def test_a_constant_cost_has_the_independent_plan(unit):
    a, b = jnp.array([0.2, 0.3, 0.5]), jnp.array([0.4, 0.6])
    for size in (0.0, 7.3):
        found = solve(jnp.full((3, 2), size), a, b, epsilon=0.05, unit=unit)
        np.testing.assert_allclose(found.plan, np.outer(a, b), rtol=1e-4)
        assert bool(found.converged)


def test_one_row_takes_everything():
    cost, b = jnp.array([[1.0, 2.0, 5.0]]), jnp.array([0.2, 0.3, 0.5])
    found = solve(cost, jnp.ones(1), b, epsilon=0.05, unit="std")
    np.testing.assert_allclose(found.plan, b[None], rtol=1e-5)
    assert float(found.cost) == pytest.approx(float(cost[0] @ b), rel=1e-5)


@each_gradient
def test_says_when_it_did_not_converge(problem, gradient):
    options = {"epsilon": 1e-3, "gradient": gradient, "max_iterations": 10}
    found = solve(*problem, threshold=1e-6, **options)
    assert not bool(found.converged)
    wrong = np.abs(found.plan.sum(1) - problem[1]).sum()
    wrong += np.abs(found.plan.sum(0) - problem[2]).sum()
    assert float(found.error) == pytest.approx(wrong, rel=1e-4)
    assert wrong > 1e-3


def test_error_is_that_of_the_hard_sides(problem):
    options = {"epsilon": 0.3, "threshold": 1e-6}
    both = solve(*problem, **options, **SIDES["both"])
    assert float(both.error) == 0 and bool(both.converged)
    rows, columns = (np.abs(both.plan.sum(k) - problem[2 - k]).sum() for k in (1, 0))
    assert min(rows, columns) > 0.01
    one = solve(*problem, **options, **SIDES["rows"])
    rows, columns = (np.abs(one.plan.sum(k) - problem[2 - k]).sum() for k in (1, 0))
    assert rows > 0.01
    assert float(one.error) == pytest.approx(columns, abs=2e-7)


def test_a_warm_start_needs_fewer_iterations(problem):
    options = {"epsilon": 0.02, "unit": "mean", "threshold": 1e-4}
    full = solve(*problem, **options)
    cold = solve(*problem, **options, max_iterations=100)
    warm = solve(*problem, **options, max_iterations=100, start=full.g)
    assert bool(full.converged) and not bool(cold.converged) and bool(warm.converged)
    np.testing.assert_allclose(warm.plan, full.plan, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [*({"gradient": gradient} for gradient in GRADIENTS), {"slack_a": 0.4}],
    ids=[*GRADIENTS, "slack"],
)
def test_vmap_solves_each_problem(problem, options):
    cost, a, b = problem

    @jax.value_and_grad
    def loss(cost):
        found = sinkhorn(cost, a, b, epsilon=0.5, max_iterations=100, **options)
        return found.cost

    costs = np.stack([cost, 2 * cost])
    together = jax.jit(jax.vmap(loss))(costs)
    for i, alone in enumerate(map(jax.jit(loss), costs)):
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-5)
        np.testing.assert_allclose(together[1][i], alone[1], atol=1e-5)


def test_eager_is_the_same_as_compiled(problem):
    eager = sinkhorn(*problem, epsilon=0.3, threshold=1e-6)
    for one, other in zip(eager, solve(*problem, epsilon=0.3, threshold=1e-6)):
        np.testing.assert_allclose(one, other, atol=2e-6)


def test_bad_values_under_jit_are_flagged(problem):
    cost, a, b = problem
    any_epsilon = jax.jit(lambda cost, a, b, e: sinkhorn(cost, a, b, epsilon=e))
    assert bool(any_epsilon(cost, a, b, 0.3).converged)
    poisoned = {
        v: np.where(np.arange(5) == 2, v, cost) for v in (np.nan, np.inf, -np.inf)
    }
    bad = [(poisoned[v], a, b, 0.3) for v in poisoned]
    bad += [(cost, a * np.sign(a - a.mean()), b, 0.3), (cost, a, 0 * b, 0.3)]
    bad += [(cost, a, b, e) for e in (0.0, -0.3, np.nan)]
    for arguments in bad:
        found = any_epsilon(*arguments)
        assert not bool(found.converged)
        assert not np.isfinite(found.cost)
    # One bad problem of a batch does not spoil the others.
    batch = jax.vmap(any_epsilon, (0, None, None, None))(
        np.stack([cost, poisoned[np.nan]]), a, b, 0.3
    )
    assert batch.converged.tolist() == [True, False]


@pytest.mark.parametrize(
    "options,words",
    [
        ({"epsilon": 0}, "epsilon > 0; got 0. Use ot.lp"),
        ({"epsilon": jnp.array(-1.0)}, "epsilon > 0; got -1"),
        ({"epsilon": 1, "slack_a": 0.0}, "slack_a > 0; got 0.0. None is"),
        ({"epsilon": 1, "slack_b": np.inf}, "slack_b > 0; got inf. None is"),
        ({"epsilon": 1, "unit": "max"}, "cost unit 'max'; known: absolute, mean, std"),
        (
            {"epsilon": 1, "gradient": "exact"},
            "'exact'; known: envelope, implicit, unr",
        ),
    ],
)
def test_refuses(problem, options, words):
    with pytest.raises(ValueError, match=words):
        sinkhorn(*problem, **options)


def test_refuses_a_bad_problem_and_a_traced_slack(problem):
    cost, a, b = problem
    with pytest.raises(ValueError, match="a must be non-negative"):
        sinkhorn(cost, -a, b, epsilon=1)
    with pytest.raises(ValueError, match="with slack_b, sinkhorn must know it"):
        jax.jit(lambda e: sinkhorn(*problem, epsilon=e, slack_b=1.0))(0.3)

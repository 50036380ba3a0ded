"""The Newton solver against POT: its optimum, and above all its certificate."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest

from ddjax import ot

solve = jax.jit(ot.semidual)
TOLERANCES = (1e-3, 1e-6)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def _features(rng, count, dims=128):
    """Points like the features of a network: of low rank, noisy, not negative."""
    low = rng.normal(size=(count, 16)) @ rng.normal(size=(16, dims)) / 4
    return np.maximum(low + 0.5 * rng.normal(size=(count, dims)), 0)


def _equal(n):
    return np.full(n, 1 / n)


def _problems():
    rng = np.random.default_rng(0)
    n, m = 200, 20
    x = _features(rng, 400)
    cloud = _squares(x[:n], x[-m:])
    made = {
        "few atoms": (_squares(x, x[:50]), _equal(400), _equal(50)),
        "many atoms": (_squares(x[:n], x[:100]), _equal(n), _equal(100)),
        "noise": (_squares(x[:n], rng.normal(size=(m, 128))), _equal(n), _equal(m)),
        "random": (rng.random((n, m)), _dirichlet(rng, n, 1), _dirichlet(rng, m, 1)),
        "tiny masses": (cloud, _dirichlet(rng, n, 0.1), _dirichlet(rng, m, 0.3)),
        "one big mass": (cloud, _equal(n), np.r_[1 - (m - 1) * 1e-4, [1e-4] * (m - 1)]),
    }
    p, q = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    made["plane"] = _squares(p, q), _equal(n), _equal(m)
    made["shifted"] = _squares(p, q) + 100, _equal(n), _equal(m)
    made["far apart"] = _squares(p + 10, q), _equal(n), _equal(m)
    made["more columns"] = cloud.T, _equal(m), _equal(n)
    made["one atom"] = cloud[:, :1], _equal(n), _equal(1)
    made["one point"] = cloud[:1], _equal(1), _equal(m)
    made["integers"] = rng.integers(1, 5, (n, m)), _equal(n), _equal(m)
    # The optimum of the others is zero.
    made["ties"] = rng.integers(0, 4, (n, m)), _equal(n), _equal(m)
    made["repeated"] = _squares(x[:m].repeat(n // m, 0), x[:m]), _equal(n), _equal(m)
    made["one-hot"] = 1 - np.eye(m).repeat(n // m, 0), _equal(n), _equal(m)
    return {k: [np.asarray(z, np.float32) for z in v] for k, v in made.items()}


def _squares(x, y):
    return ((x[:, None] - y) ** 2).sum(-1)


def _dirichlet(rng, n, alpha):
    masses = rng.dirichlet(np.full(n, alpha)) + 1e-10
    return masses / masses.sum()


PROBLEMS = _problems()
ZERO = ("ties", "repeated", "one-hot")
each = pytest.mark.parametrize("name", PROBLEMS)
each_tolerance = pytest.mark.parametrize("tolerance", TOLERANCES)


def _exact(cost, a, b):
    """The optimum, by POT in float64 (for masses that sum to 1)."""
    cost, a, b = (np.asarray(x, np.float64) for x in (cost, a, b))
    return pot.emd2(a / a.sum(), b / b.sum(), cost, numItermax=10**7)


def _resolution(cost):
    """The rounding of the costs, and the largest optimum that counts as zero."""
    spread = np.mean(cost - cost.min(1, keepdims=True))
    rounding = float(np.finfo(np.float32).eps * spread)
    return rounding, 16 * rounding


def _check_certificate(problem, found):
    """What is claimed holds: both values bound the optimum, by the gap at most."""
    cost, a, b = (np.asarray(x, np.float64) for x in problem)
    f, g, plan = (np.asarray(x, np.float64) for x in (found.f, found.g, found.plan))
    exact, largest = _exact(*problem), cost.max()
    value, dual = np.sum(plan * cost), a @ f + b @ g
    marginals = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    resolution, nothing = _resolution(cost)
    # Wrong marginals can save their part of the largest cost, and no more.
    rounding = marginals * largest + resolution + 1e-6 * exact
    claimed = float(found.gap) * max(value, nothing)
    assert float(found.cost) == pytest.approx(value, rel=2e-6)
    assert -rounding <= value - exact <= claimed + rounding
    assert dual <= exact + 1e-6 * largest
    assert value - dual <= claimed + rounding + 1e-6 * largest


@each_tolerance
@each
def test_gap_is_below_the_tolerance_and_a_certificate(name, tolerance):
    cost, a, b = PROBLEMS[name]
    found = solve(cost, a, b, tolerance=tolerance)
    _check_certificate(PROBLEMS[name], found)
    if (name, tolerance) == ("tiny masses", 1e-6):
        # Next to masses of 1e-10, float32 ends here, after any number of steps.
        assert float(found.gap) < 2e-6
        return
    assert bool(found.converged)
    resolution, nothing = _resolution(cost)
    gap = float(found.gap) * max(float(found.cost), nothing)
    if name in ZERO:
        assert float(found.cost) + gap <= 1.001 * nothing
    else:
        assert gap <= 1.001 * max(tolerance * float(found.cost), resolution)
        assert float(found.gap) < max(tolerance, 1e-5)


@each_tolerance
@each
def test_plan_has_the_marginals(name, tolerance):
    cost, a, b = PROBLEMS[name]
    found = solve(cost, a, b, tolerance=tolerance)
    plan = np.asarray(found.plan, np.float64)
    assert plan.min() >= 0
    np.testing.assert_allclose(plan.sum(1), a, atol=2e-6)
    np.testing.assert_allclose(plan.sum(0), b, atol=2e-6)
    assert float(found.error) < 2e-6


@each_tolerance
@each
def test_duals_are_feasible_and_centred(name, tolerance):
    cost, a, b = PROBLEMS[name]
    found = solve(cost, a, b, tolerance=tolerance)
    f, g = np.asarray(found.f, np.float64), np.asarray(found.g, np.float64)
    slack = cost - f[:, None] - g
    assert slack.min() > -1e-6 * cost.max()
    # c-transforms of each other: no entry could be higher.
    np.testing.assert_allclose(slack.min(0), 0, atol=1e-6 * cost.max())
    np.testing.assert_allclose(slack.min(1), 0, atol=1e-6 * cost.max())
    assert abs(g.mean()) < 1e-6 * cost.max()


@pytest.mark.parametrize("name", ["random", "one big mass", "plane", "integers"])
def test_gap_of_one_step_is_honest(name):
    found = solve(*PROBLEMS[name], tolerance=1e-6, max_iterations=1)
    assert not bool(found.converged) and float(found.gap) > 1e-6
    _check_certificate(PROBLEMS[name], found)


def test_more_steps_never_give_a_larger_gap():
    gaps = [
        float(solve(*PROBLEMS["random"], max_iterations=k).gap) for k in range(1, 9)
    ]
    assert np.all(np.diff(gaps) <= 0) and gaps[-1] < 0.1 * gaps[0]


@pytest.mark.parametrize("name", ["random", "plane", "shifted", "integers"])
def test_float64_reaches_one_in_a_billion(float64, name):
    cost, a, b = (np.asarray(x, np.float64) for x in PROBLEMS[name])
    a, b = a / a.sum(), b / b.sum()
    found = solve(cost, a, b, tolerance=1e-9)
    assert found.cost.dtype == np.float64 and bool(found.converged)
    exact = _exact(cost, a, b)
    assert float(found.cost) == pytest.approx(exact, rel=1.1e-9)
    assert a @ found.f + b @ found.g == pytest.approx(exact, rel=1.1e-9)
    assert float(found.error) < 1e-13


def test_points_without_mass_change_nothing():
    """However absurd their costs are."""
    for name in ("random", "plane"):
        cost, a, b = PROBLEMS[name]
        plain = solve(cost, a, b)
        padding = ((0, 30), (0, 5))
        padded_cost = np.pad(cost, padding, constant_values=1e6)
        padded = solve(padded_cost, np.pad(a, padding[0]), np.pad(b, padding[1]))
        assert bool(padded.converged)
        assert float(padded.cost) == pytest.approx(float(plain.cost), rel=2e-6)
        np.testing.assert_allclose(padded.plan[:200, :20], plain.plan, atol=1e-6)
        assert not padded.plan[200:].any() and not padded.plan[:, 20:].any()
        f, g = padded.f[:200], padded.g[:20]
        if name == "random":  # equal masses have several optimal prices
            scale = 1e-4 * cost.max()
            np.testing.assert_allclose(f, plain.f, atol=scale)
            np.testing.assert_allclose(g, plain.g, atol=scale)
        assert float(f @ a + g @ b) == pytest.approx(float(plain.cost), rel=1e-3)
        assert (f[:, None] + g <= cost + 1e-5 * cost.max()).all()
        assert np.isfinite(padded.f).all() and np.isfinite(padded.g).all()


def test_price_of_an_atom_without_mass_is_that_of_the_exact_solver():
    """The largest feasible one; next to nothing for an atom that repeats another."""
    cost, a, b = PROBLEMS["plane"]
    cost = np.concatenate([cost[:, :-1], cost[:, :1]], 1)
    b = np.r_[b[:-1], 0].astype(np.float32)
    found, exact = solve(cost, a, b, tolerance=1e-6), ot.lp(cost, a, b)
    assert float(found.g[-1]) == pytest.approx(float(found.g[0]), abs=1e-5)
    assert float(exact.g[-1]) == pytest.approx(float(exact.g[0]), abs=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("name", ["random", "tiny masses", "shifted", "one big mass"])
def test_unit_of_the_cost_does_not_matter(name, scale):
    cost, a, b = PROBLEMS[name]
    one, other = solve(cost, a, b), solve(cost * np.float32(scale), a, b)
    assert float(other.cost) == pytest.approx(scale * float(one.cost), rel=1e-5)
    assert float(other.gap) == pytest.approx(float(one.gap), rel=0.01)
    np.testing.assert_allclose(other.plan, one.plan, atol=1e-6)


def test_masses_of_any_sum_scale_the_plan():
    cost, a, b = PROBLEMS["random"]
    one, three = solve(cost, a, b), solve(cost, 3 * a, 0.5 * b)
    assert float(three.cost) == pytest.approx(3 * float(one.cost), rel=1e-5)
    np.testing.assert_allclose(three.plan, 3 * one.plan, atol=1e-6)
    np.testing.assert_allclose(three.plan.sum(1), 3 * a, atol=2e-6)
    assert float(three.gap) == pytest.approx(float(one.gap), rel=0.01)


@pytest.mark.parametrize("name", ["shifted", "one big mass", "far apart", "noise"])
def test_start_at_the_solution_saves_steps(name):
    few = {"max_iterations": 3}
    assert not bool(solve(*PROBLEMS[name], **few).converged)
    g = solve(*PROBLEMS[name]).g
    assert bool(solve(*PROBLEMS[name], start=g, **few).converged)


def test_start_is_free_by_a_constant():
    cost, a, b = PROBLEMS["plane"]
    g = solve(cost, a, b).g
    here, there = (solve(cost, a, b, start=g + shift) for shift in (0, 64))
    assert float(there.cost) == pytest.approx(float(here.cost), rel=1e-5)


@each_tolerance
@pytest.mark.parametrize("name", ["random", "noise", "plane", "more columns"])
def test_wrong_start_does_no_harm(name, tolerance):
    cost, a, b = PROBLEMS[name]
    start = np.random.default_rng(0).normal(size=len(b)) * cost.std()
    found = solve(cost, a, b, start=start.astype(np.float32), tolerance=tolerance)
    assert bool(found.converged)
    _check_certificate(PROBLEMS[name], found)


@pytest.mark.parametrize("shape", [(12, 5), (5, 12)])
@pytest.mark.parametrize("argument", [0, 1, 2], ids=["C", "a", "b"])
def test_derivative_is_that_of_finite_differences(float64, argument, shape):
    rng = np.random.default_rng(1)
    n, m = shape
    problem = [rng.random(shape), rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))]
    direction = rng.normal(size=problem[argument].shape)
    if argument:
        direction -= direction.mean()  # one sum of all masses
        direction *= 0.1 * problem[argument].min() / np.abs(direction).max()

    def moved(h):
        changed = list(problem)
        changed[argument] = problem[argument] + h * direction
        return changed

    h = 1e-5
    expected = (_exact(*moved(h)) - _exact(*moved(-h))) / (2 * h)
    gradient = jax.grad(lambda *p: solve(*p, tolerance=1e-9).cost, argument)
    slope = float(np.sum(gradient(*problem) * direction))
    assert slope == pytest.approx(expected, rel=1e-6)


class SemidualVariants(chex.TestCase):
    """With and without jit and pmap."""

    @chex.all_variants
    def test_same_cost(self):
        problem = PROBLEMS["random"]
        found = self.variant(ot.semidual)(*problem)
        np.testing.assert_allclose(found.cost, _exact(*problem), rtol=1e-3)
        assert bool(found.converged)


@each_tolerance
def test_vmap_solves_each_problem(tolerance):
    names = [k for k, v in PROBLEMS.items() if v[0].shape == (200, 20)]
    assert len(names) > 8
    batch = [np.stack(x) for x in zip(*(PROBLEMS[name] for name in names))]
    together = jax.jit(jax.vmap(lambda *p: ot.semidual(*p, tolerance=tolerance)))(
        *batch
    )
    for i, name in enumerate(names):
        found = jax.tree.map(lambda x, i=i: x[i], together)
        _check_certificate(PROBLEMS[name], found)
        alone = solve(*PROBLEMS[name], tolerance=tolerance)
        assert bool(found.converged) == bool(alone.converged)
        nothing = _resolution(PROBLEMS[name][0])[1]
        assert float(found.cost) == pytest.approx(
            float(alone.cost), rel=1e-5, abs=nothing
        )


def test_takes_a_few_times_the_memory_of_the_costs():
    shapes = ((20, 300, 20), (20, 300), (20, 20))
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    compiled = jax.jit(jax.vmap(ot.semidual)).lower(*arguments).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 5 * 20 * 300 * 20 * 4


def test_stops_at_once_where_there_is_no_solution():
    cost, a, b = PROBLEMS["random"]
    steps = jnp.int32(2**31 - 1)  # these would take a day
    for bad in ((cost * np.nan, a, b), (cost, -a, b), (cost, a, 0 * b)):
        found = solve(*bad, max_iterations=steps)
        assert np.isnan(found.cost) and not bool(found.converged)


@pytest.mark.parametrize("name", ["random", "noise", "plane", "shifted"])
def test_absurd_start_does_no_harm(name):
    """Of any size: it is first made feasible, which bounds it by the costs."""
    cost, a, b = PROBLEMS[name]
    start = np.random.default_rng(0).normal(size=len(b)) * 1e4 * cost.max()
    found = solve(cost, a, b, start=start.astype(np.float32))
    assert bool(found.converged)
    _check_certificate(PROBLEMS[name], found)


def test_duals_are_feasible_also_between_points_without_mass():
    cost, a, b = PROBLEMS["plane"]
    a, b = np.r_[a[:-20], np.zeros(20)], np.r_[b[:-3], np.zeros(3)]
    found = solve(cost, np.float32(a), np.float32(b))
    slack = cost - np.float64(found.f)[:, None] - np.float64(found.g)
    assert slack.min() > -1e-6 * cost.max()
    np.testing.assert_allclose(slack.min(1), 0, atol=1e-6 * cost.max())

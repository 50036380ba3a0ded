"""The released code's weighted barycenter, against golden values and its claims."""

import jax
import numpy as np
import ot as pot
import pytest

from ddjax import ot
from ddjax.ot.reference import mirror_descent, reference_barycenter

KEY = jax.random.key(0)
GOLDEN_WEIGHTS = [
    (6.4e-26, 6.7766e-10, 1.0),
    (0.09385902, 0.34751022, 0.55863076),
    (0.01747665, 0.55162248, 0.43090087),
]


@pytest.fixture(scope="module")
def golden():
    """Cloud and first atoms of golden value A (computed with POT in float64)."""
    i, j = np.meshgrid(np.arange(12), np.arange(4), indexing="ij")
    x = np.sin(0.37 * i + 1.3 * j) + 0.1 * ((i * (j + 1)) % 7)
    j, k = np.meshgrid(np.arange(3), np.arange(4), indexing="ij")
    return x, np.cos(0.5 * j + 0.2 * k)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_weights_of_the_first_rounds_are_golden(golden, float64, rounds):
    x, start = golden
    found = reference_barycenter(KEY, x, 3, start=start, rounds=rounds)
    assert found.weights.dtype == np.float64
    np.testing.assert_allclose(found.weights, GOLDEN_WEIGHTS[rounds - 1], atol=1e-6)


def test_smallest_weights_are_golden(golden):
    x, start = golden
    w = mirror_descent(pot.dist(start, x), np.full(12, 1 / 12))
    np.testing.assert_allclose(w[:2], GOLDEN_WEIGHTS[0][:2], rtol=0.02)


def test_ends_above_equal_weights(golden, float64):
    """At more than twice the optimum of equal weights, 0.398574646 (golden A)."""
    x, start = golden
    found = reference_barycenter(KEY, x, 3, start=start)
    assert float(found.cost) > 2 * 0.398574646
    assert not bool(found.converged)
    exact = pot.emd2(
        np.array(found.weights),
        np.full(12, 1 / 12),
        pot.dist(np.array(found.points), x),
    )
    assert float(found.cost) == pytest.approx(exact, rel=1e-6)


def test_each_round_keeps_four_fifths_of_the_atoms(golden, float64):
    """So 0.8^10 of the start, a tenth, is left in the end."""
    x, start = golden
    ends = []
    for k in range(1, 4):
        found = reference_barycenter(KEY, x, 3, start=start, rounds=k)
        before = ends[-1] if ends else start
        free = pot.lp.free_support_barycenter(
            [x], [np.full(12, 1 / 12)], before, b=np.array(found.weights)
        )
        ends.append(np.array(found.points))
        np.testing.assert_allclose(ends[-1], 0.8 * before + 0.2 * free, atol=1e-6)


def test_starts_from_the_noise_of_the_key(golden):
    x = np.float32(golden[0])
    noise = np.asarray(jax.random.normal(KEY, (3, 4)))
    drawn = reference_barycenter(KEY, x, 3, rounds=1)
    given = reference_barycenter(jax.random.key(1), x, 3, start=noise, rounds=1)
    np.testing.assert_array_equal(drawn.points, given.points)
    assert drawn.points.dtype == np.float32


def test_jit_and_vmap_change_nothing(golden):
    x, start = (np.float32(z) for z in golden)

    def find(x, start):
        return reference_barycenter(KEY, x, 3, start=start, rounds=2)

    alone = find(x, start), find(x[::-1] + 1, start)
    both = jax.jit(jax.vmap(find, (0, None)))(np.stack([x, x[::-1] + 1]), start)
    for i in range(2):
        found = jax.tree.map(lambda z, i=i: z[i], both)
        jax.tree.map(np.testing.assert_array_equal, found, alone[i])


def test_points_without_mass_change_nothing(golden):
    x, start = (np.float32(z) for z in golden)
    plain = reference_barycenter(KEY, x, 3, start=start, rounds=2)
    a = np.pad(np.full(12, 1 / 12, np.float32), (0, 3))
    padded = np.pad(x, ((0, 3), (0, 0)), constant_values=50)
    found = reference_barycenter(KEY, padded, 3, a=a, start=start, rounds=2)
    np.testing.assert_allclose(found.points, plain.points, atol=1e-5)


def test_costs_more_than_what_we_do_instead(golden, float64):
    x, start = golden
    theirs = reference_barycenter(KEY, x, 3, start=start)
    ours = ot.barycenter(KEY, x, 3, start=start, weights="voronoi")
    assert float(ours.cost) < 0.5 * float(theirs.cost)


def test_refuses_what_the_barycenter_refuses(golden):
    x = np.float32(golden[0])
    with pytest.raises(ValueError, match="13 atoms for 12 points"):
        reference_barycenter(KEY, x, 13)
    with pytest.raises(ValueError, match="x has NaN or infinite values in 12 of 12"):
        reference_barycenter(KEY, x * np.nan, 3)

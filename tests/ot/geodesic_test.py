"""Barycenters in curved spaces against POT, brute force, and flat ones."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import ot as pot
import pytest

from ddjax import geometry, ot
from ddjax.geometry import Product

KEY = jax.random.key(0)
DIMS = (3, 2)
SPACES = {
    "hyperbolic": Product((-1.0, -0.4), (1.0, 0.5)),
    "spherical": Product((1.0, 0.6), (1.0, 2.0)),
    "both": Product((-1.0, 1.0), (0.3, 0.7)),
    "flat": Product((0.0, 0.0), (1.0, 1.0)),
}
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@pytest.fixture(scope="module")
def cloud():
    v = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    return 0.8 * v / np.linalg.norm(v[:, :3], axis=1).max()


@functools.partial(jax.jit, static_argnames="size")
def _compiled(space, x, start, size, a, iterations):
    """One program for all spaces: curvatures are traced."""
    options = {"start": start, "solver": ot.lp, "tolerance": 0.0}
    return ot.geodesic_barycenter(
        KEY, x, size, product=space, dims=DIMS, a=a, iterations=iterations, **options
    )


def _from(space, x, start, a=None, iterations=100):
    a = np.full(len(x), 1 / len(x), np.float32) if a is None else a
    space = jax.tree.map(jnp.float32, space)
    return _compiled(space, x, start, len(start), a, iterations)


def _parts(x):
    return x[..., :3], x[..., 3:]


def _exact(space, x, atoms, a=None):
    """POT's plan in float64, and its cost."""
    with jax.enable_x64(True):
        pair = (_parts(jnp.float64(z)) for z in (x, atoms))
        cost = np.asarray(geometry.product_pairwise_squared(space, *pair))
    a = np.full(len(x), 1 / len(x)) if a is None else np.float64(a) / a.sum()
    plan = pot.emd(a, np.full(len(atoms), 1 / len(atoms)), cost)
    return plan, np.sum(plan * cost)


@each_space
def test_every_atom_is_the_frechet_mean_of_its_mass(cloud, space):
    found = _from(space, cloud, cloud[:4])
    plan, cost = _exact(space, cloud, found.points)
    assert bool(found.converged)
    assert float(found.cost) == pytest.approx(cost, rel=1e-5)
    pair = (_parts(found.points[:, None]), _parts(cloud))
    logs = geometry.product_log(space, *pair)  # [m, n, d]
    np.testing.assert_allclose(jnp.einsum("ij,jid->jd", plan, logs), 0, atol=1e-6)


@each_space
def test_cost_falls(cloud, space):
    costs = [float(_from(space, cloud, cloud[:4], None, n).cost) for n in (0, 2, 100)]
    _, first = _exact(space, cloud, cloud[:4])
    assert first > costs[0] > costs[1] * (1 - 1e-6) and costs[0] > costs[2]


@pytest.mark.parametrize("solver", [ot.lp, ot.SMOOTH])
def test_flat_is_the_barycenter(cloud, solver):
    flat = {"product": SPACES["flat"], "dims": (-1, 2)}
    other = ot.barycenter(KEY, cloud + 3, 4, solver=solver)
    found = ot.geodesic_barycenter(KEY, cloud + 3, 4, solver=solver, **flat)
    assert float(found.cost) <= float(other.cost) * (1 + 1e-5)
    np.testing.assert_allclose(found.points, other.points, atol=1e-4)
    assert bool(found.converged) == bool(other.converged)


def test_the_best_of_all_partitions_is_found(cloud):
    """Six points, two atoms of equal mass: ten ways to divide them."""
    space, x = SPACES["both"], cloud[:6]
    parts, mean = _parts(x), functools.partial(geometry.product_mean, steps=40)

    @jax.jit
    def cost_of(rows):
        group = [jnp.asarray(part)[rows] for part in parts]
        middle = mean(space, group)
        return geometry.product_distance_squared(space, group, middle).sum() / 6

    def cost(rows):
        rest = [i for i in range(6) if i not in rows]
        return float(cost_of(np.array(rows)) + cost_of(np.array(rest)))

    best = min(map(cost, itertools.combinations(range(6), 3)))
    starts = itertools.combinations(x, 2)
    found = min(float(_from(space, x, np.stack(start)).cost) for start in starts)
    assert found == pytest.approx(best, rel=1e-4)


def test_an_isometry_moves_the_atoms(cloud):
    """Normal coordinates at another point, and turned."""
    space, there = SPACES["both"], cloud[7] / 2

    def moved(v):
        first, second = _parts(v)
        first, second = first[..., ::-1], -second
        pairs = zip(space.curvatures, _parts(there), (first, second))
        return jnp.concatenate([geometry.exp(p, u, k) for k, p, u in pairs], -1)

    here = _from(space, cloud / 2, cloud[:4] / 2)
    found = _from(space, moved(cloud / 2), moved(cloud[:4] / 2))
    assert float(found.cost) == pytest.approx(float(here.cost), rel=1e-5)
    np.testing.assert_allclose(found.points, moved(here.points), atol=1e-4)


def test_classes_under_vmap_are_found_alone_and_padding_is_ignored(cloud):
    space = jax.tree.map(jnp.float32, SPACES["both"])
    a = np.stack([np.full(40, 1 / 40), np.pad(np.full(30, 1 / 30), (0, 10))])
    x, a = np.stack([cloud, cloud[::-1]]), np.float32(a)
    find = functools.partial(_compiled, space, size=4, iterations=100)
    together = jax.vmap(lambda x, a: find(x, x[:4], a=a))(x, a)
    x[1, 30:] = 1e6
    for k in range(2):
        alone = find(x[k], x[k, :4], a=a[k])
        np.testing.assert_allclose(together.points[k], alone.points, atol=1e-4)
        assert np.isfinite(alone.points).all()


def test_of_several_starts_the_best_is_kept(cloud):
    flat = {"product": SPACES["flat"], "dims": DIMS, "solver": ot.lp, "iterations": 3}
    find = functools.partial(ot.geodesic_barycenter, KEY, cloud, 5, **flat)
    one, many = (find(restarts=n, init="k-means++") for n in (1, 4))
    assert many.points.shape == (5, 5) and float(many.cost) <= float(one.cost)


REFUSED = {
    "41 atoms for 40 points": {"size": 41},
    "unknown init 'grid'; known: data, k-means": {"init": "grid"},
    "restarts must be at least 1; got 0": {"restarts": 0},
    r"dims are \(3, 3\), for points of 5 coordinates": {"dims": (3, 3)},
    r"dims are \(-1, -1\)": {"dims": (-1, -1)},
    r"dims are \(5, -1\)": {"dims": (5, -1)},
    r"dims are \(5,\), .* in 2 factors": {"dims": (5,)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(cloud, message):
    options = {"size": 2, "product": SPACES["both"], "dims": DIMS} | REFUSED[message]
    with pytest.raises(ValueError, match=message):
        ot.geodesic_barycenter(KEY, cloud, **options)

"""The projection onto a plane within the box, against a linear program."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from ddjax.attacks.projection import moves_to_plane


def _program(point, normal, height):
    """min t  subject to  |d_i| <= t,  w . d = -h,  0 <= a + d <= 1."""
    size = len(point)
    eye, ones = np.eye(size), np.ones((size, 1))
    bounds = [(-a, 1 - a) for a in point] + [(0, None)]
    return scipy.optimize.linprog(
        np.append(np.zeros(size), 1),
        np.block([[eye, -ones], [-eye, -ones]]),
        np.zeros(2 * size),
        np.append(normal, 0)[None],
        [-height],
        bounds,
    )


def test_largest_move_is_that_of_the_linear_program():
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (12, 8))
    points[:, 0] = 1.0
    normals = random.standard_normal((12, 8)) * (random.uniform(size=(12, 8)) > 0.2)
    heights = random.standard_normal(12) * np.repeat([0.01, 0.5, 3], 4)
    with jax.enable_x64(True):
        shape = (12, 2, 2, 2)
        found = moves_to_plane(points.reshape(shape), normals.reshape(shape), heights)
        found = np.asarray(found).reshape(12, 8)
    solved = 0
    for a, w, h, d in zip(points, normals, heights, found, strict=True):
        best = _program(a, w, h)
        assert np.all((a + d >= -1e-15) & (a + d <= 1 + 1e-15))
        if best.status == 2:  # the plane misses the box: everything to its wall
            wall = np.where(h * w > 0, 0, np.where(h * w < 0, 1, a))
            np.testing.assert_allclose(a + d, wall, atol=1e-15)
            continue
        solved += 1
        np.testing.assert_allclose(w @ d, -h, atol=1e-12)
        np.testing.assert_allclose(np.abs(d).max(), best.fun, atol=1e-9)
    assert 4 < solved < 12


def test_float32_meets_the_plane_with_many_pixels():
    """And with weights of ten magnitudes, hard for a search of slopes."""
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (4, 48, 48, 3)
    points = jax.random.uniform(keys[0], shape)
    normals = jax.random.normal(keys[1], shape)
    normals = normals * 10.0 ** jax.random.uniform(keys[2], shape, minval=-8, maxval=2)
    most = jnp.sum(
        jnp.abs(normals) * jnp.where(normals > 0, points, 1 - points), (1, 2, 3)
    )
    heights = most * jnp.array([1e-4, 0.1, 0.9, 0.999])
    moves = jax.jit(moves_to_plane)(points, normals, heights)
    left = heights + jnp.sum(normals * moves, (1, 2, 3))
    np.testing.assert_allclose(left / most, 0, atol=1e-5)


def test_stays_where_there_is_no_slope_or_no_height():
    points = jnp.full((2, 2, 2, 3), 0.4)
    normals = jnp.zeros_like(points).at[1].set(1.0)
    moves = moves_to_plane(points, normals, jnp.array([2.0, 0.0]))
    np.testing.assert_array_equal(moves, 0)

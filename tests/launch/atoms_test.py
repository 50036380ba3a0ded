"""The targets that a config may ask for; those in a product space from end to end."""

import numpy as np
import pytest
from scipy import optimize

from configs import default
from ddjax import checkpoint, data, methods
from ddjax.matching import frame
from launch import arms, atoms, recover


def _config(**fields):
    config = default.get_config("quick")
    with config.unlocked():
        config.stats.update({"target": "product", **fields})
        config.stats.product.update({"weights": (0, 0.5, 0.5), "dims": (4, 4)})
        config.methods.wmdd.num_steps = 3
    return config


def test_a_product_is_recorded_only_where_it_is_the_target():
    """What was recovered before there was one keeps its name."""
    config = default.get_config()
    assert "product" not in atoms.recorded(config.stats) | atoms.options(config.stats)
    assert atoms.space(config.stats) is None and atoms.width(config.stats, 64) == 64
    changed = _config().stats
    for found in (atoms.recorded(changed), atoms.options(changed)):
        assert found["product"]["dims"] == (4, 4)
    assert atoms.width(changed, 64) == 8
    assert atoms.find(changed) is atoms.find(_config().stats)  # compiled once


def test_what_is_no_product_is_refused():
    with pytest.raises(ValueError, match="stats.weights is 'voronoi'; .* 'uniform'"):
        atoms.options(_config(weights="voronoi").stats)
    config = _config()
    config.stats.product.dims = (4, 0)
    with pytest.raises(ValueError, match="expected two sizes"):
        arms.check(config)


def test_images_start_from_the_real_ones_that_are_nearest_in_the_space(tmp_path):
    """Images that a rate of 0 leaves where they start."""
    config = _config()
    config.stats.product.weights = (0, 1, 0)
    config.methods.wmdd.learning_rate = 0.0
    (made,) = recover.run(config, tmp_path)
    found = {
        name: checkpoint.load(next((tmp_path / "stats").glob(f"{name}-*")))
        for name in ("teacher", "barycenter")
    }
    points, train = found["barycenter"]["points"], data.load("digits")
    assert points.shape == (10, 2, 4)
    space = atoms.space(config.stats)
    _, placed = frame.place_all(space, found["teacher"]["features"])
    for k, rows in enumerate(data.class_slices(train)):
        cost = frame.costs(space)(points[k], placed[rows])
        best = rows.start + optimize.linear_sum_assignment(cost)[1]
        start = made.images.images[2 * k : 2 * k + 2]
        np.testing.assert_array_equal(start, train.images[best])
        assert np.diag(cost[:, best - rows.start]).max() < np.median(cost)


def test_methods_that_know_no_space_are_left_alone():
    assert methods.is_told_a_space("wmdd") and not methods.is_told_a_space("sre2l")

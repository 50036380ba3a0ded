"""WMDD with atoms in a product space: what it is when flat, and what it matches."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import methods, optimizers
from ddjax.data.augment import CropFlipRoll
from ddjax.matching import frame
from ddjax.types import Context, Moments, Targets

FLAT = frame.space_of((1.0, 0.0, 0.0))
CURVED = frame.space_of((0.0, 0.6, 0.4), dims=(3, 4), scale=0.7)


@pytest.fixture(scope="module")
def problem(tiny_network, tiny_variables, tiny_data):
    """(context, targets) of six images whose atoms are features of real ones."""
    _, out = tiny_network.apply(tiny_variables, tiny_data.images / np.float32(255))
    features = np.asarray(out["features"])
    layers = tuple(Moments(m.mean[:3], m.var[:3]) for m in out["moments"])
    images = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype(np.float32)
    targets = Targets(
        images,
        np.repeat(np.arange(3, dtype=np.int32), 2),
        np.full(6, 0.5, np.float32),
        features[:6],
        layers,
        np.arange(3, dtype=np.int32),
    )
    return Context(tiny_variables), targets, features


def _method(network, info, **options):
    return methods.create(
        "wmdd",
        network,
        optimizers.pixel_adam(0.1, 4, info.std),
        num_steps=4,
        augment=CropFlipRoll((1.0, 1.0), False, 0),  # images as they are
        options=tuple(options.items()),
    )


def _step(method, context, targets):
    key = jax.random.key(0)
    state = method.init(key, context, targets)
    return jax.jit(method.step)(key, state, context, targets, ())


@pytest.mark.parametrize("squared", [False, True])
def test_euclidean_space_is_no_space(
    optimised, problem, tiny_network, tiny_info, squared
):
    context, targets, features = problem
    plain = _method(tiny_network, tiny_info, squared=squared)
    other = _method(tiny_network, tiny_info, squared=squared, space=FLAT)
    placed = context._replace(frame=frame.frame_of(FLAT, features))
    assert set(other.requires) - set(plain.requires) == {"frame"}
    (images, terms), (others, same) = (
        _step(plain, context, targets),
        _step(other, placed, targets),
    )
    chex.assert_trees_all_equal(images, others)
    # Their sum may be rounded in another order, as no slope depends on it.
    chex.assert_trees_all_close(terms, same, rtol=1e-6)


def test_images_go_to_their_atoms_along_geodesics(problem, tiny_network, tiny_info):
    context, targets, features = problem
    found, points = frame.place_all(CURVED, features)
    context, targets = (
        context._replace(frame=found),
        targets._replace(features=points[:6]),
    )
    method = _method(tiny_network, tiny_info, space=CURVED)
    _, metrics = _step(method, context, targets)
    _, out = tiny_network.apply(context.teacher, targets.images)
    where = frame.embed(CURVED, found, out["features"])
    square = np.trace(frame.costs(CURVED)(points[:6], np.asarray(where)))
    wanted = float(found.unit * np.sqrt(square))
    assert float(metrics["feature"]) == pytest.approx(wanted, rel=1e-4)


def test_no_slope_is_infinite_at_the_atoms(problem, tiny_network, tiny_info, tiny_data):
    context, _, features = problem
    found, points = frame.place_all(CURVED, features)

    def feature(images):
        _, out = tiny_network.apply(context.teacher, images)
        u = frame.tangents(CURVED, found, out["features"], points[:6])
        return jnp.sum(u * u)

    images = tiny_data.images[:6] / np.float32(255)
    value, slope = jax.value_and_grad(feature)(images)
    assert float(value) < 1e-6 and np.isfinite(slope).all()


def test_means_in_a_space_are_refused(tiny_network, tiny_info):
    with pytest.raises(ValueError, match='match "mean" compares features as they are'):
        _method(tiny_network, tiny_info, space=FLAT, match="mean")

"""GeoDM: what it is where it is DM, who learns its geometry, and that it works at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import matching, methods, models, optimizers
from ddjax.matching import rails
from ddjax.types import Batch, Context, Targets

FLAT = {"weights": (1.0, 0.0, 0.0), "ot_weight": 0.0}


@pytest.fixture(scope="module")
def network(tiny_info):
    return models.create("convnet", tiny_info, width=4, depth=2, norm="instance")


@pytest.fixture(scope="module")
def problem(tiny_data, tiny_info):
    """Two images of each of three classes."""
    images = jax.random.uniform(jax.random.key(0), (6, *tiny_info.shape))
    labels = np.repeat(np.arange(3, dtype=np.int32), 2)
    targets = Targets(images, labels, np.full(6, 0.5), classes=np.arange(3))
    return Context(real=matching.table(tiny_data)), targets


def build(network, name="geodm", num_steps=9, **options):
    options = {"real_batch": 4, "dims": (3, 3), "dsa": "", **options}
    if name != "geodm":
        del options["dims"]
    return methods.create(
        name,
        network,
        optimizers.pixel_sgd(0.5, 0.5, network.std),
        num_steps=num_steps,
        options=tuple(sorted(options.items())),
    )


def run(method, problem, steps):
    context, targets = problem
    state = method.init(jax.random.key(1), context, targets)
    history = []

    @jax.jit
    def step(key, state):
        batch = matching.draw(key, context.real, targets.classes, method.real_batch)
        return method.step(key, state, context, targets, batch)

    for i in range(steps):
        state, metrics = step(jax.random.key(i), state)
        history.append({k: float(v) for k, v in metrics.items()})
    return state, history


@pytest.mark.parametrize("dsa", ["", "color_crop_flip"])
def test_flat_and_without_transport_it_is_dm(network, problem, dsa):
    ours, mine = run(build(network, dsa=dsa, **FLAT), problem, 4)
    dm, theirs = run(build(network, "dm", dsa=dsa), problem, 4)
    np.testing.assert_array_equal(ours.images, dm.images)
    assert [x["loss"] for x in mine] == [x["loss"] for x in theirs]


def test_every_factor_pulls(network, problem):
    """In the units of features no factor is drowned by another; and transport pulls."""
    start = problem[1].images
    moves = []
    for i in range(3):
        weights = tuple(float(i == k) for k in range(3))
        state, _ = run(build(network, weights=weights, ot_weight=0.0), problem, 1)
        moves.append(float(jnp.linalg.norm(state.images - start)))
    assert max(moves) < 4 * min(moves)


@pytest.fixture(scope="module")
def learned(network, problem):
    """Sixty steps of every policy, with images that hardly move."""
    options = {"ot_weight": 0.0, "geometry_rate": 0.3, "prior_weight": 0.0}
    options |= {"unit": "absolute", "radius_weight": 0.0, "weights": (0.0, 0.5, 0.5)}
    options |= {"real_batch": 6, "num_steps": 90, "pretrain_steps": 60}
    found = {}
    for policy in ("min", "max", "supervised"):
        found[policy] = run(build(network, policy=policy, **options), problem, 60)
    return found


class TestPolicies:
    def test_min_without_a_prior_runs_to_the_bounds(self, learned):
        """Hyperbolic space flattens and the sphere shrinks, whatever the data."""
        last = learned["min"][1][-1]
        assert last["hyperbolic/curvature"] == pytest.approx(0.1, rel=0.1)
        assert last["spherical/curvature"] == pytest.approx(10.0, rel=0.1)
        told = rails.warnings(last)
        assert "has reached a bound" in told["hyperbolic/curvature"]

    def test_the_others_learn_something_else(self, learned):
        low = learned["max"][1][-1]["spherical/curvature"]
        assert low < 1.0 < learned["min"][1][-1]["spherical/curvature"]
        supervised = learned["supervised"][1][-1]
        assert 0.1 < supervised["hyperbolic/curvature"] < 10
        assert supervised["hyperbolic/curvature"] != pytest.approx(1.0, rel=1e-2)

    def test_images_wait_for_the_supervised_geometry(self, learned, problem):
        state, _ = learned["supervised"]
        np.testing.assert_array_equal(state.images, problem[1].images)
        assert int(state.moving.count) == 60
        assert np.abs(learned["min"][0].images - problem[1].images).max() > 0

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"policy": "free"}, "unknown policy 'free'; known: freeze, min"),
            ({"match": "mean"}, "unknown match 'mean'; known: tangent, centroid"),
            ({"unit": "pixels"}, "unknown unit 'pixels'; known: spread, absolute"),
            ({"weights": (0.0, 0.0, 0.0)}, "weights are .*; expected three numbers"),
            ({"weights": (1.0, 1.0)}, "weights are .*; expected three numbers"),
            ({"curvatures": (1.0, -1.0)}, "expected two numbers from 0.1 to 10.0"),
            ({"dims": (0, 3)}, "expected two sizes of 1 or more"),
            ({"learn_weights": True}, "learn_weights needs a policy that learns"),
            ({"policy": "supervised"}, "images stand still for 1000 steps"),
            ({"ot_epsilon": 0.0}, "ot_epsilon 0.0 above 0"),
            ({"real_batch": 1}, "real_batch must be at least 2"),
        ],
    )
    def test_what_cannot_be_is_refused(self, network, options, message):
        with pytest.raises(ValueError, match=message):
            build(network, **options)


def test_transport_is_watched_beside_matching(network, problem):
    _, (first, *_) = run(build(network), problem, 1)
    assert first["ot/gradient_ratio"] > 0.1
    assert first["transport"] > 0 and first["matching"] > 0
    terms = first["matching"] + first["transport"] + first["radius"]
    assert first["loss"] == pytest.approx(terms, rel=1e-5)


def test_a_pool_keeps_its_heads_and_learns_them(network, problem):
    first, last = (
        jax.vmap(network.init)(jax.random.split(jax.random.key(k), 2)) for k in (1, 2)
    )
    context = problem[0]._replace(pool=(first, last))
    method = build(network, networks="pool", policy="max", ot_weight=0.0)
    assert method.requires == ("pool",)
    before = method.init(jax.random.key(1), context, problem[1])
    state, _ = run(method, (context, problem[1]), 2)
    assert [x.shape for x in before.learner.geometry.heads] == [(16, 3), (16, 3)]
    moved = np.abs(state.learner.geometry.heads[0] - before.learner.geometry.heads[0])
    assert 0 < moved.max() < 0.1


def test_blobs_are_told_apart_by_what_it_makes(tiny_info):
    """Two classes that overlap: a mean of many is better than one drawn image."""
    rng = np.random.default_rng(0)
    info = tiny_info._replace(classes=("a", "b"))
    centre = rng.normal(size=(2, *info.shape))

    def draw(count):
        noise = rng.normal(size=(2, count, *info.shape))
        return np.clip(0.5 + 0.05 * (centre[:, None] + 5 * noise), 0, 1)

    real, test = draw(200).astype(np.float32), draw(200)
    network = models.create("convnet", info, width=8, depth=1, norm="instance")
    method = build(network, weights=(0.4, 0.3, 0.3), ot_weight=1.0, real_batch=100)
    start = real[:, 0]
    targets = Targets(start, np.arange(2), np.ones(2), classes=np.arange(2))
    state, losses = method.init(jax.random.key(0), Context(), targets), []
    step = jax.jit(method.step)
    for i in range(100):
        rows = rng.permutation(200)[:100]
        batch = Batch(real[:, rows], jnp.full((2, 100), 0.01))
        state, metrics = step(jax.random.key(i), state, Context(), targets, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:5])

    def accuracy(images):
        apart = ((test[:, :, None] - np.asarray(images)) ** 2).sum((3, 4, 5))
        return (apart.argmin(2) == np.arange(2)[:, None]).mean()

    made = method.finalize(state, Context(), targets).images
    assert accuracy(made) > accuracy(start) + 0.05

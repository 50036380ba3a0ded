"""GeoDM: it is DM where its space is flat, and who learns the geometry when."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import methods, models
from ddjax.methods import base
from ddjax.types import Batch, Context, DataInfo, Targets

INFO = DataInfo("two", ("a", "b"), (8, 8, 1), (0.5,), (0.25,))
CHEAP = {"real_batch": 6, "dims": (4, 3), "curvatures": (1.0, 0.5)}
FLAT = {"weights": (1.0, 0.0, 0.0), "ot_weight": 0.0}


@pytest.fixture(scope="module")
def network():
    return models.create("convnet", INFO, width=6, depth=1, norm="instance")


def made(network, name="geodm", rate=0.5, num_steps=9, **options):
    return methods.create(
        name,
        network,
        optax.sgd(rate, 0.5),
        num_steps=num_steps,
        augment=base.VIEW,
        options=tuple(options.items()),
    )


def blobs(count, seed):
    """Images of two classes whose means are near, in much noise: [2, count, 8, 8, 1]."""
    means = np.random.default_rng(0).normal(size=(2, 1, 8, 8, 1))
    noise = np.random.default_rng(seed).normal(size=(2, count, 8, 8, 1))
    return (0.5 + 0.08 * means + 0.25 * noise).astype(np.float32)


def targets_of(images):
    ipc = images.shape[1]
    labels = np.repeat(np.arange(2, dtype=np.int32), ipc)
    flat = images.reshape(-1, *images.shape[2:])
    return Targets(flat, labels, np.full(2 * ipc, 1 / ipc), classes=np.arange(2))


def batch_of(images, key, size):
    """Some of them, the last of the second class padding."""
    rows = jax.random.choice(key, images.shape[1], (size,), replace=False)
    there = np.ones((2, size), np.float32)
    there[1, -1] = 0
    return Batch(jnp.asarray(images)[:, rows], there / there.sum(1, keepdims=True))


def run(method, targets, real, steps, context=None):
    """States and metrics of every step."""
    context, step = context or Context(), jax.jit(method.step)
    state, told = method.init(jax.random.key(0), context, targets), []
    for i in range(steps):
        key = jax.random.fold_in(jax.random.key(1), i)
        batch = batch_of(real, key, method.real_batch)
        state, metrics = step(key, state, context, targets, batch)
        told.append((state, metrics))
    return told


class TestIsDM:
    @pytest.mark.parametrize("networks", ["random", "pool"])
    def test_bit_for_bit(self, network, networks):
        real, targets = blobs(20, 1), targets_of(blobs(2, 2))
        pool = [
            jax.vmap(network.init)(jax.random.split(jax.random.key(k), 2))
            for k in range(2)
        ]
        context = Context(pool=tuple(pool))
        options = {"real_batch": 6, "networks": networks}
        ours = run(made(network, **options, **FLAT), targets, real, 4, context)
        theirs = run(made(network, "dm", **options), targets, real, 4, context)
        for (state, metrics), (other, wanted) in zip(ours, theirs):
            np.testing.assert_array_equal(state.images, other.images)
            assert float(metrics["loss"]) == float(wanted["loss"])
        moved = np.abs(ours[-1][0].images - targets.images)
        assert moved.max() > 1e-3

    def test_a_factor_without_weight_is_left_out(self, network):
        state = made(network, **CHEAP, weights=(0.0, 0.0, 1.0)).init(
            jax.random.key(0), Context(), targets_of(blobs(2, 2))
        )
        geometry = state.learner.geometry
        np.testing.assert_allclose(jnp.exp(geometry.log_sizes), [0.5], rtol=1e-6)
        assert geometry.logits.shape == (1,)


def test_supervised_learns_first_and_the_images_after(network):
    """With a pool heads persist, and learn with the curvatures and weights."""
    real, targets = blobs(20, 1), targets_of(blobs(2, 2))
    pool = [
        jax.vmap(network.init)(jax.random.split(jax.random.key(k), 2)) for k in range(2)
    ]
    method = made(
        network,
        **CHEAP,
        networks="pool",
        policy="supervised",
        learn_weights=True,
        pretrain_steps=2,
        geometry_rate=0.1,
        dsa="",
        ot_weight=0.0,
    )
    assert method.requires == ("pool",)
    context = Context(pool=tuple(pool))
    before = method.init(jax.random.key(0), context, targets)
    one, two, three = (state for state, _ in run(method, targets, real, 3, context))
    np.testing.assert_array_equal(two.images, targets.images)
    assert np.abs(three.images - targets.images).max() > 1e-4
    first, second, third = (s.learner.geometry for s in (before, two, three))
    for old, new, kept in zip(*map(jax.tree.leaves, (first, second, third))):
        assert np.abs(new - old).max() > 1e-3
        np.testing.assert_array_equal(new, kept)
    assert int(one.moving.count) == 1


def test_images_become_better_than_random_ones(network):
    """Two blobs, one image each: the nearest image tells more of them apart."""
    real, test = blobs(60, 1), blobs(300, 9)
    chosen = blobs(1, 5)
    method = made(network, rate=0.2, **{**CHEAP, "real_batch": 24}, dsa="")
    told = run(method, targets_of(chosen), real, 200)
    loss = np.array([float(metrics["loss"]) for _, metrics in told])
    assert loss[-20:].mean() < 0.5 * loss[:20].mean()

    def accuracy(images):
        images = np.asarray(images).reshape(2, 64)
        x = test.reshape(2, 300, 1, 64)
        nearest = ((x - images) ** 2).sum(-1).argmin(-1)
        return np.mean(nearest == np.arange(2)[:, None])

    final = method.finalize(told[-1][0], Context(), targets_of(chosen))
    assert accuracy(final.images) > accuracy(chosen) + 0.1
    assert "ot/gradient_ratio" in told[-1][1]


def test_words_and_numbers_are_checked(network):
    for options, message in (
        ({"weights": (1.0, 0.0)}, "weights are .* expected three numbers"),
        ({"weights": (0.0, 0.0, 0.0)}, "expected three numbers that are not negative"),
        ({"curvatures": (1.0, 20.0)}, "two numbers from 0.1 to 10.0"),
        ({"dims": (0, 3)}, "expected two sizes of 1 or more"),
        ({"scale": 0.0}, "a scale above 0"),
        ({"real_batch": 1}, "real_batch must be at least 2; got 1"),
        ({"policy": "learn"}, "unknown policy 'learn'; known: freeze, min, max"),
        ({"learn_weights": True}, "learn_weights needs a policy that learns"),
        ({"policy": "min", "update_every": 0}, "update_every 0 and pretrain_steps"),
        ({"policy": "supervised"}, "images stand still for 1000 steps"),
        ({"networks": "fresh"}, "unknown networks 'fresh'; known: random, pool"),
        ({"dsa": "colour"}, "unknown DSA operator 'colour'"),
    ):
        with pytest.raises(ValueError, match=message):
            made(network, **options)

"""DC's loops, its network that learns, and GUARD's penalty on the real side."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import losses, methods, models
from ddjax.data import batches
from ddjax.methods import base, dc
from ddjax.types import Batch, Context, DataInfo, Targets

INFO = DataInfo("three", ("a", "b", "c"), (16, 16, 3), (0.5,) * 3, (0.25,) * 3)
PLAIN = {"num_steps": 1, "augment": base.VIEW}


@pytest.fixture(scope="module")
def network():
    return models.create("convnet", INFO, width=6, depth=2, norm="instance")


class TestDC:
    def test_loops_are_the_references(self):
        assert [dc.loops(n) for n in (1, 9, 10, 20, 50)] == [
            (1, 1),
            (1, 1),
            (10, 50),
            (20, 25),
            (50, 10),
        ]

    def run(self, network, steps, **options):
        images = jnp.full((6, 16, 16, 3), 0.5)
        targets = Targets(
            images, np.repeat(np.arange(3), 2), np.full(6, 0.5), classes=np.arange(3)
        )
        batch = Batch(
            jax.random.uniform(jax.random.key(0), (3, 4, 16, 16, 3)),
            jnp.full((3, 4), 0.25),
        )
        method = methods.create(
            "dc",
            network,
            optax.sgd(0.1),
            **PLAIN,
            options=tuple({"real_batch": 4, **options}.items()),
        )
        state, seen = method.init(jax.random.key(0), Context(), targets), []
        step = jax.jit(method.step)
        for i in range(steps):
            key = jax.random.key(i)
            state, _ = step(key, state, Context(), targets, batch)
            seen.append(jax.tree.leaves(state.variables["params"])[0])
        return seen

    def test_a_network_learns_and_is_drawn_anew(self, network):
        first, second, last, new = self.run(network, 4, outer=3, inner=1)
        assert 0 < np.abs(first - second).max() < 0.1
        np.testing.assert_array_equal(second, last)  # nothing after the last step
        assert np.abs(new - last).max() > 0.1

    def test_an_epoch_is_what_pytorchs_loader_gives(self):
        """Full batches, and a last one of what is left."""
        masses = [dc._first_time(i, 10, 4).tolist() for i in range(4)]
        assert masses == [[1] * 4, [1] * 4, [1, 1, 0, 0], [1] * 4]

    def test_batches_of_a_network_that_learns(self, network):
        """Two batches of four images are two steps; each image is in one of them."""
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        labels, key = jnp.repeat(jnp.arange(3), 2), jax.random.key(2)
        variables = network.init(jax.random.key(1))
        learnt = dc._learn(network, key, "", 1, 0.5, 4, variables, images, labels)
        order = batches.indices(jax.random.split(key)[0], 0, 6, 6)
        params = variables["params"]
        for rows in (order[:4], order[4:]):
            gradient = jax.grad(
                lambda params, rows=rows: losses.cross_entropy(
                    network.apply({**variables, "params": params}, images[rows])[0],
                    labels[rows],
                )
            )(params)
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
        chex.assert_trees_all_close(learnt["params"], params, atol=1e-5)

    def test_what_dsa_learns_from_is_augmented(self, network):
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        labels = jnp.repeat(jnp.arange(3), 2)
        variables = network.init(jax.random.key(1))
        plain, seen = (
            dc._learn(
                network, jax.random.key(2), x, 1, 0.5, 6, variables, images, labels
            )
            for x in ("", "color")
        )
        first, second = (jax.tree.leaves(v["params"])[0] for v in (plain, seen))
        assert np.abs(first - second).max() > 1e-4

    def test_batch_norm_takes_its_statistics_from_real_images(self):
        network = models.create("convnet", INFO, width=4, depth=2)
        images = jax.random.uniform(jax.random.key(0), (3, 20, 16, 16, 3))
        variables = network.init(jax.random.key(1))
        settled = dc._settled(network, variables, Batch(images, None))
        again = network.apply_train(variables, images[:, :16].reshape(-1, 16, 16, 3))
        for got, wanted in zip(
            *map(jax.tree.leaves, (settled["batch_stats"], again[1]))
        ):
            np.testing.assert_array_equal(got, wanted)

    def test_guards_penalty_changes_the_goal(self, network):
        images = jax.random.uniform(jax.random.key(0), (4, 16, 16, 3))
        variables = network.init(jax.random.key(1))
        mass = jnp.full(4, 0.25)
        values = []
        for weight in (0.0, 2.0):
            bent = losses.Curvature("loss_difference", weight, 0.7, units="pixels")
            values.append(
                dc._real_loss(
                    network, bent, variables["params"], variables, images, 1, mass
                )
            )
        wanted = losses.curvature(
            lambda x: network.apply(variables, x)[0], images, jnp.ones(4, int), bent
        )
        assert float(values[1] - values[0]) == pytest.approx(
            2 * float(wanted), rel=1e-4
        )

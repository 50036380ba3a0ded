"""DM: one batch of all classes, means of uneven ones, GUARD's term."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import losses, matching, methods, models
from ddjax.methods import base, dm
from ddjax.types import Batch, Context, DataInfo, Targets

INFO = DataInfo("three", ("a", "b", "c"), (16, 16, 3), (0.5,) * 3, (0.25,) * 3)
PLAIN = {"num_steps": 1, "augment": base.VIEW}


@pytest.fixture(scope="module")
def network():
    return models.create("convnet", INFO, width=6, depth=2, norm="instance")


class TestDM:
    def test_batch_norm_sees_all_classes_at_once(self):
        network = models.create("convnet", INFO, width=4, depth=2)
        variables = network.init(jax.random.key(0))
        images = jax.random.uniform(jax.random.key(1), (3, 5, 16, 16, 3))
        got = matching.embed(network, variables, images)
        flat = images.reshape(-1, 16, 16, 3)
        _, out = network.apply_batch(variables, flat)
        np.testing.assert_allclose(
            got.reshape(15, -1), out["features"], atol=1e-5, rtol=1e-5
        )
        alone = matching.embed(network, variables, images[:1])
        assert np.abs(alone[0] - got[0]).max() > 1e-3

    def test_guards_term_is_the_steps_networks(self, network):
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        variables = network.init(jax.random.key(1))
        labels = jnp.repeat(jnp.arange(3), 2)
        bent = losses.Curvature("gradient_norm", 0.5, units="pixels")
        given = (network, variables, images, labels)
        found = dm.with_curvature({"distance": 1.0}, *given, bent)
        wanted = losses.curvature(
            lambda x: network.apply(variables, x)[0], images, labels, bent
        )
        assert float(found["curvature"]) == pytest.approx(0.5 * float(wanted), rel=1e-5)
        none = bent._replace(weight=0.0)
        assert dm.with_curvature({"distance": 1.0}, *given, none) == {"distance": 1.0}

    def test_guards_term_is_part_of_the_loss(self, network):
        images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3))
        labels, mass = np.repeat(np.arange(3), 2), np.full(6, 0.5)
        targets = Targets(images, labels, mass, classes=np.arange(3))
        batch = Batch(images.reshape(3, 2, 16, 16, 3)[:, ::-1], np.full((3, 2), 0.5))
        options = (("real_batch", 2), ("dsa", ""), ("curvature_weight", 2.0))
        method = methods.create("dm", network, optax.sgd(1), **PLAIN, options=options)
        state = method.init(jax.random.key(0), Context(), targets)
        given = (jax.random.key(0), state, Context(), targets, batch)
        _, terms = jax.jit(method.step)(*given)
        assert float(terms["curvature"]) > 0
        both = float(terms["distance"] + terms["curvature"])
        assert float(terms["loss"]) == pytest.approx(both, rel=1e-6)

    def test_uneven_classes_have_their_own_means(self):
        real = jnp.array([[[1.0], [3.0], [50.0]], [[2.0], [2.0], [2.0]]])
        mass = jnp.array([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
        own = jnp.array([[[5.0]], [[2.0]]])
        assert float(losses.mean_matching(real, own, mass)) == pytest.approx(9.0)

    def test_words_and_numbers_are_checked(self, network):
        for options, message in (
            ((("networks", "fresh"),), "unknown networks 'fresh'; known: random, pool"),
            ((("dsa", "colour"),), "unknown DSA operator 'colour'"),
            ((("real_batch", 0),), "real_batch must be at least 1; got 0"),
            ((("curvature_weight", -1.0),), "curvature has weight -1.0"),
        ):
            with pytest.raises(ValueError, match=message):
                methods.create("dm", network, optax.sgd(1), **PLAIN, options=options)

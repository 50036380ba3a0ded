"""The distance of two gradients, by hand and where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import losses


class TestGradientDistance:
    def test_is_of_outputs_and_of_kernels_alone(self):
        g = {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.ones(2)}
        s = {"kernel": jnp.array([[3.0, 0.0], [0.0, -1.0]]), "bias": -jnp.ones(2)}
        assert float(losses.gradient_distance(g, s)) == pytest.approx(2, abs=1e-5)
        assert float(losses.gradient_distance(g, g)) == pytest.approx(0, abs=1e-5)

    def test_no_gradient_is_no_nan(self):
        zero, one = jnp.zeros((3, 2)), jnp.ones((3, 2))
        found = jax.grad(lambda s: losses.gradient_distance([one], [s]))(zero)
        assert np.isfinite(found).all()

"""BatchNorm's written-out derivative against JAX's own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ddjax.models import norms
from ddjax.types import Moments

EPSILON = 1e-3


def plain(x, scale, bias):
    """The formula, which JAX differentiates."""
    mean = x.mean((0, 1, 2))
    var = jnp.mean((x - mean) ** 2, (0, 1, 2))
    return (x - mean) / jnp.sqrt(var + EPSILON) * scale + bias, Moments(mean, var)


def written_out(x, scale, bias):
    return norms._standardised(x, scale, bias, EPSILON)


def derivatives(function, x, scale, bias, *tangents):
    """Of the first and the second order, by what is told of the batch too."""

    def size(x, scale, bias):
        y, moments = function(x, scale, bias)
        return jnp.sum(jnp.sin(y)) + jnp.sum(moments.mean * moments.var**2)

    slopes = jax.grad(size, (0, 1, 2))
    given = x, scale, bias

    def steepness(*given):
        return sum(jnp.sum(slope**3) for slope in slopes(*given))

    return (
        jax.jvp(function, given, tangents),
        slopes(*given),
        jax.jvp(slopes, given, tangents),
        jax.grad(steepness, (0, 1, 2))(*given),
        jax.vmap(slopes, (0, None, 0))(
            jnp.stack([x, 2 * x]), scale, jnp.stack([bias, bias])
        ),
    )


class BatchNormTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_derivatives(self):
        with jax.enable_x64(True):
            rng = np.random.default_rng(0)
            shapes = [(3, 4, 5, 2), (2,), (2,)] * 2
            given = [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]
            got = self.variant(lambda *x: derivatives(written_out, *x))(*given)
            chex.assert_trees_all_close(got, derivatives(plain, *given), rtol=1e-9)

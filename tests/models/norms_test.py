"""BatchNorm's written-out derivative, and a bias it takes over, against JAX's own."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from ddjax.models import layers, norms
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


class Unit(nn.Module):
    """A convolution with a bias, and a norm, in our form or in the plain one."""

    plain: bool
    kind: str

    @nn.compact
    def __call__(self, x, train):
        if self.plain:
            x = nn.Conv(4, (3, 3), padding=1, name="conv")(x)
            return norms.norm(x, self.kind, train, name="norm")
        return layers.conv_norm(
            x, train, ("conv", "norm"), self.kind, features=4, size=3, use_bias=True
        )


class BiasTest(chex.TestCase):
    """Added to the means, or to what is normalised: the same."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.product(kind=("batch", "instance", "none"), train=(True, False))
    def test_same_values_and_derivatives(self, kind, train):
        with jax.enable_x64(True):
            rng = np.random.default_rng(0)
            x = jnp.asarray(rng.standard_normal((3, 6, 6, 2)))
            variables = jax.tree.map(
                lambda leaf: jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape)),
                Unit(True, kind).init(jax.random.key(0), x, train),
            )

            def derivatives(unit, variables, x):
                def size(variables, x):
                    (y, reports), updated = unit.apply(
                        variables, x, train, mutable=["batch_stats"]
                    )
                    leaves = jax.tree.leaves((y, reports, updated))
                    return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves), leaves

                return jax.grad(size, (0, 1), has_aux=True)(variables, x)

            got = self.variant(functools.partial(derivatives, Unit(False, kind)))(
                variables, x
            )
            wanted = derivatives(Unit(True, kind), variables, x)
            chex.assert_trees_all_close(got, wanted, rtol=1e-9, atol=1e-11)

"""Products of matrices against XLA's own convolution, and which of them is taken."""

from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from ddjax import models, parallel
from ddjax.models import convolution
from ddjax.types import DataInfo

NHWC = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def both(size, stride):
    """The two forms as functions of images and kernel, with a padding of PyTorch's."""
    more = (stride, stride), ((size // 2, size // 2),) * 2

    def ours(images, kernel):
        return convolution.patches(images, kernel, *more)

    def xla(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, *more, **NHWC)

    return ours, xla


class PatchesTest(chex.TestCase):
    def setUp(self):
        super().setUp()
        keys = jax.random.split(jax.random.key(0), 2)
        self.images = jax.random.normal(keys[0], (7, 9, 8, 2))
        self.kernels = {
            size: jax.random.normal(keys[1], (size, size, 2, 5)) for size in (1, 3, 7)
        }

    def run_with(self, function):
        def run(images, kernel):
            out, back = jax.vjp(function, images, kernel)
            return out, back(jnp.cos(out))

        return run

    # All at once; two images at a time, of which the last has one; one at a time.
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.product(size=(1, 3, 7), stride=(1, 2), block=(2**19, 60_000, 1))
    def test_value_and_gradients(self, size, stride, block):
        ours, xla = both(size, stride)
        with mock.patch.object(convolution, "_BLOCK", block):
            got = self.variant(self.run_with(ours))(self.images, self.kernels[size])
        wanted = self.run_with(xla)(self.images, self.kernels[size])
        for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted)):
            worst = np.abs(theirs).max()
            np.testing.assert_allclose(ours / worst, theirs / worst, atol=1e-5)

    @parameterized.parameters(2**19, 5_000)
    def test_gradient_of_a_gradient(self, block):
        """As matching gradients and penalties on curvature need it."""

        def slope(function):
            def size(images, kernel):
                back = jax.grad(lambda k: jnp.sin(function(images, k)).sum())(kernel)
                return jnp.sum(back**2)

            return jax.jit(jax.grad(size))

        ours, xla = both(3, 1)
        with mock.patch.object(convolution, "_BLOCK", block):
            got = slope(ours)(self.images, self.kernels[3])
        wanted = slope(xla)(self.images, self.kernels[3])
        worst = np.abs(wanted).max()
        np.testing.assert_allclose(got / worst, wanted / worst, atol=2e-5)

    def test_side_by_side(self):
        """Several networks under vmap."""
        kernels = jnp.stack([self.kernels[3], 2 * self.kernels[3]])
        ours, xla = both(3, 1)
        with mock.patch.object(convolution, "_BLOCK", 5_000):
            got = jax.vmap(ours, (None, 0))(self.images, kernels)
        wanted = jax.vmap(xla, (None, 0))(self.images, kernels)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)

    def test_unequal_padding(self):
        arguments = (self.images, self.kernels[3], (2, 1), ((0, 1), (2, 0)))
        wanted = jax.lax.conv_general_dilated(*arguments, **NHWC)
        np.testing.assert_allclose(
            convolution.patches(*arguments), wanted, rtol=1e-4, atol=1e-4
        )


class TestChoice:
    IMAGES, KERNEL = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 4))

    def primitives(self, kernel, **options):
        def run(images, kernel):
            return convolution.convolve(
                images, kernel, (1, 1), ((1, 1), (1, 1)), **NHWC, **options
            )

        return str(jax.make_jaxpr(run)(self.IMAGES, kernel))

    def test_products_on_a_cpu(self):
        assert "conv_general_dilated" not in self.primitives(self.KERNEL)

    def test_xla_s_elsewhere(self, monkeypatch):
        monkeypatch.setattr(parallel, "is_cpu", lambda: False)
        assert "conv_general_dilated" in self.primitives(self.KERNEL)

    @pytest.mark.parametrize(
        "channels, option",
        [(2, {"feature_group_count": 2}), (4, {"rhs_dilation": (2, 2)})],
    )
    def test_xla_s_with_groups_and_dilation(self, channels, option):
        assert "conv_general_dilated" in self.primitives(
            jnp.ones((3, 3, channels, 4)), **option
        )

    def test_all_operations_are_counted(self):
        """A loop over blocks would be counted once; and what is run stays as it was."""
        shape = (64, 32, 32, 8)
        program = jax.jit(
            lambda x, k: convolution.convolve(x, k, (1, 1), ((1, 1), (1, 1)), **NHWC)
        )
        kernel = jnp.ones((3, 3, 8, 8))
        count = parallel.cost(program, jnp.ones(shape), kernel).flops
        wanted = 2 * 64 * 32 * 32 * 9 * 8 * 8
        assert wanted * 0.9 < count < wanted * 1.1
        assert "while" in program.lower(jnp.ones(shape), kernel).as_text()

    def test_networks_have_it(self):
        info = DataInfo("t", ("a", "b"), (8, 8, 1), (0.5,), (0.25,))
        network = models.create("convnet", info, width=4, depth=2)
        variables = network.init(jax.random.key(0))
        made = jax.make_jaxpr(network.apply)(variables, jnp.ones((2, 8, 8, 1)))
        assert "conv_general_dilated" not in str(made)

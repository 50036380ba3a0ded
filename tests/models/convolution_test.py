"""Our convolution against XLA's own, and which form of it is taken."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized
from jax.sharding import AxisType, PartitionSpec

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


def first_and_second(function, images, kernel):
    """Values and derivatives, forwards, backwards, and one through the other."""
    out, back = jax.vjp(function, images, kernel)
    given = (images, kernel), (jnp.cos(images), jnp.cos(kernel))

    def slopes(images, kernel):
        return jax.grad(lambda *x: jnp.sum(jnp.sin(function(*x))), (0, 1))(
            images, kernel
        )

    def size(images, kernel):
        return sum(jnp.sum(slope**2) for slope in slopes(images, kernel))

    return (
        back(jnp.cos(out)),
        jax.jvp(function, *given),
        jax.jvp(slopes, *given),
        jax.grad(size, (0, 1))(images, kernel),
    )


def batched(function, images, kernel):
    """Values and gradients of several images, kernels, or both, along several axes."""

    def slopes(images, kernel):
        return jax.grad(lambda *x: jnp.sum(jnp.sin(function(*x))), (0, 1))(
            images, kernel
        )

    found = []
    for axes in ((0, None), (None, 0), (1, 2), (0, 3)):
        many = [
            x if axis is None else jnp.stack([x, 2 * x, x], axis)
            for x, axis in zip((images, kernel), axes)
        ]
        found += [jax.vmap(f, axes)(*many) for f in (function, slopes)]

        def total(*many, axes=axes):
            return jnp.sum(jnp.sin(jax.vmap(function, axes, 1)(*many)))

        found.append(jax.grad(total, (0, 1))(*many))
    return found


class ConvolveTest(chex.TestCase):
    """In double precision, so that a wrong factor cannot hide in rounding."""

    # Products or XLA's for images and for what comes back; copies in one direction or
    # in two; all images at once, or one at a time; paddings that are not the same.
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @parameterized.product(
        case=(
            (3, 20, 3, ((1, 1), (1, 1)), 1),
            (20, 18, 3, ((1, 1), (1, 1)), 1),
            (20, 18, 3, ((1, 1), (1, 1)), 2**20),
            (20, 3, 5, ((2, 2), (1, 3)), 2**20),
            (17, 17, 3, ((0, 2), (0, 0)), 2**20),
            (2, 2, 2, ((0, 1), (1, 0)), 2**20),
        ),
        what=("first_and_second", "batched"),
    )
    def test_against_xla(self, case, what):
        channels, features, size, padding, block = case

        def ours(images, kernel):
            return convolution.convolve(images, kernel, (1, 1), padding)

        def xla(images, kernel):
            return jax.lax.conv_general_dilated(images, kernel, (1, 1), padding, **NHWC)

        with jax.enable_x64(True):
            rng = np.random.default_rng(0)
            images = jnp.asarray(rng.standard_normal((3, 7, 6, channels)))
            kernel = jnp.asarray(rng.standard_normal((size, size, channels, features)))
            with mock.patch.object(convolution, "_BLOCK", block):
                got = self.variant(functools.partial(globals()[what], ours))(
                    images, kernel
                )
            wanted = jax.jit(functools.partial(globals()[what], xla))(images, kernel)
            for found, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted)):
                worst = np.abs(theirs).max()
                np.testing.assert_allclose(found / worst, theirs / worst, atol=1e-12)


class TestChoice:
    IMAGES, KERNEL = jnp.ones((2, 6, 6, 4)), jnp.ones((3, 3, 4, 4))

    def program(self, images, kernel, strides=(1, 1), **options):
        def run(images, kernel):
            return convolution.convolve(
                images, kernel, strides, ((1, 1), (1, 1)), **options
            )

        return jax.jit(run).lower(images, kernel).as_text()

    def test_products_of_few_channels_and_pixels_and_with_strides(self):
        assert "convolution" not in self.program(self.IMAGES, self.KERNEL)
        many = jnp.ones((3, 3, 32, 4))
        assert "convolution" not in self.program(jnp.ones((2, 3, 6, 32)), many)
        images = jnp.ones((2, 6, 6, 32))
        assert "convolution" not in self.program(images, many, strides=(2, 2))

    def test_xla_s_of_many(self):
        images, kernel = jnp.ones((2, 6, 6, 32)), jnp.ones((3, 3, 32, 4))
        assert "convolution" in self.program(images, kernel)

    def test_gradients_need_no_convolution_that_is_slow_in_loops(self):
        """Neither the kernel's nor one whose dimensions are swapped."""

        def size(images, kernel):
            out = convolution.convolve(images, kernel, (1, 1), ((1, 1), (1, 1)))
            return jnp.sum(out**2)

        given = jnp.ones((2, 6, 6, 32)), jnp.ones((3, 3, 32, 16))
        text = jax.jit(jax.grad(size, (0, 1))).lower(*given).as_text()
        ours = [line for line in text.splitlines() if "stablehlo.convolution(" in line]
        assert len(ours) == 2  # forwards, and the images' gradient
        assert all("[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in line for line in ours)

    def test_products_where_jax_follows_what_differs_between_devices(self):
        """A primitive that it does not know would stop it."""
        mesh = jax.make_mesh((2,), ("both",), (AxisType.Auto,))
        split, whole = PartitionSpec("both"), PartitionSpec()

        def slope(images, kernel):
            return jax.grad(
                lambda x: jnp.sum(
                    convolution.convolve(x, kernel, (1, 1), ((1, 1), (1, 1))) ** 2
                )
            )(images)

        program = jax.jit(
            jax.shard_map(slope, mesh=mesh, in_specs=(split, whole), out_specs=split)
        )
        given = jnp.ones((2, 6, 6, 32)), jnp.ones((3, 3, 32, 4))
        assert "convolution" not in program.lower(*given).as_text()
        np.testing.assert_allclose(program(*given), slope(*given), rtol=1e-5)

    def test_xla_s_elsewhere(self, monkeypatch):
        monkeypatch.setattr(parallel, "is_cpu", lambda: False)
        assert "convolution" in self.program(self.IMAGES, self.KERNEL)

    def test_xla_s_with_groups(self):
        kernel = jnp.ones((3, 3, 2, 4))
        assert "convolution" in self.program(self.IMAGES, kernel, groups=2)

    def test_all_operations_are_counted(self):
        """A loop over blocks would be counted once; and what is run stays as it was."""
        shape = (64, 32, 32, 15)
        program = jax.jit(
            lambda x, k: convolution.convolve(x, k, (1, 1), ((1, 1), (1, 1)))
        )
        kernel = jnp.ones((3, 3, 15, 8))
        count = parallel.cost(program, jnp.ones(shape), kernel).flops
        wanted = 2 * 64 * 32 * 32 * 9 * 15 * 8
        assert wanted * 0.9 < count < wanted * 1.1
        assert "while" in program.lower(jnp.ones(shape), kernel).as_text()

    def test_networks_have_it(self):
        info = DataInfo("t", ("a", "b"), (8, 8, 1), (0.5,), (0.25,))
        network = models.create("convnet", info, width=4, depth=2)
        variables = network.init(jax.random.key(0))
        made = jax.make_jaxpr(network.apply)(variables, jnp.ones((2, 8, 8, 1)))
        assert "convolve" in str(made)
        assert "conv_general_dilated" not in str(made)

"""What every network promises, checked on shapes alone: nearly nothing is compiled."""

import functools
from typing import Any, NamedTuple
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ddjax import losses, models
from ddjax.models import (
    convolution,
)
from ddjax.types import DataInfo, Moments

# The number of features at 32 pixels.
FEATURES = {
    "convnet": 2048,
    "resnet18": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "resnetap10": 512,
    "vgg11": 512,
    "mobilenet_v2": 1280,
    "efficientnet_b0": 1280,
    "vit_tiny": 192,
    "vit_small": 384,
    "swin_tiny": 768,
    "convnext_tiny": 768,
}
NAMES = tuple(FEATURES)
WITHOUT_BATCH_NORM = {"vit_tiny", "vit_small", "swin_tiny", "convnext_tiny"}
# Fewer blocks than the default, which promise the same.
SHALLOW = {
    "resnet50": {"blocks": (1, 1, 1, 1)},
    "resnet101": {"blocks": (1, 1, 1, 1)},
    "mobilenet_v2": {"blocks": (1, 1, 1, 2, 1, 1, 1)},
    "efficientnet_b0": {"blocks": (1, 1, 1, 1, 1, 2, 1)},
    "vit_tiny": {"depth": 2},
    "vit_small": {"depth": 2},
    "swin_tiny": {"blocks": (1, 2, 1, 1)},
    "convnext_tiny": {"blocks": (1, 2, 1, 1)},
}
PRODUCTS = {"dot_general", "conv_general_dilated", "convolve", "kernel_gradient"}
# The smallest images that each takes.
SMALLEST = {
    "convnet": 8,
    "resnet18": 8,
    "resnetap10": 8,
    "vgg11": 28,
    "mobilenet_v2": 8,
    "efficientnet_b0": 16,
    "convnext_tiny": 8,
}
# (size of the first kernel, pixels of the smallest map) by the size of the image.
STEMS = {
    "resnet18": {32: (3, 4), 64: (3, 8), 65: (7, 3)},
    "resnetap10": {64: (3, 8), 128: (3, 8), 224: (7, 7)},
    "mobilenet_v2": {32: (3, 4), 96: (3, 3)},
    "efficientnet_b0": {32: (3, 2), 96: (3, 3)},
    "convnext_tiny": {28: (1, 3), 64: (2, 4), 224: (4, 7)},
}


class Traced(NamedTuple):
    """Shapes of a network's variables and results, and what its convolutions did."""

    network: models.Network
    variables: Any
    kernels: tuple  # of those without groups, in order
    sides: tuple  # of the maps that it put out


@functools.cache
def traced(name, shape, **options):
    options = SHALLOW.get(name, {}) | options
    kernels, sides = [], []

    def conv(x, kernel, strides, padding, groups):
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
        if groups == 1:
            kernels.append(kernel.shape)
            sides.append(y.shape[1])
        return y

    classes = ("a", "b", "c")
    info = DataInfo("t", classes, shape, (0.5,) * shape[-1], (0.25,) * shape[-1])
    network = models.create(name, info, **options)
    with mock.patch.object(convolution, "convolve", conv):
        variables = jax.eval_shape(network.init, jax.random.key(0))
    return Traced(network, variables, tuple(kernels), tuple(sides))


def results(found, shape, count=2):
    images = jax.ShapeDtypeStruct((count, *shape), jnp.float32)
    return jax.eval_shape(found.network.apply, found.variables, images)


def test_the_list_is_complete(tiny_info):
    with pytest.raises(ValueError, match=f"known: {', '.join(NAMES)}."):
        models.create("nothing", tiny_info)


@pytest.mark.parametrize("name", NAMES)
class TestAll:
    SHAPE = (32, 32, 3)

    def test_features_and_moments(self, name):
        logits, out = results(traced(name, self.SHAPE), self.SHAPE, count=5)
        assert logits.shape == (5, 3)
        assert out["features"].shape == (5, FEATURES[name])
        for moments in out["moments"]:
            assert moments.mean.shape == moments.var.shape
            assert moments.mean.shape[0] == 5 and moments.mean.ndim == 2
        if name == "resnetap10":  # InstanceNorm
            assert out["moments"] == out["running"] == ()
        elif name in WITHOUT_BATCH_NORM:
            assert out["moments"] and out["running"] == ()
        else:
            channels = [m.mean.shape[1:] for m in out["moments"]]
            assert channels == [m.var.shape for m in out["running"]]

    def test_training_returns_the_same_statistics(self, name):
        found = traced(name, self.SHAPE)
        images = jax.ShapeDtypeStruct((2, *self.SHAPE), jnp.float32)
        train = found.network.apply_train
        logits, stats = jax.eval_shape(train, found.variables, images)
        assert logits.shape == (2, 3)
        assert stats == found.variables["batch_stats"]

    def test_products_in_bfloat16(self, name):
        """All but the last, and nothing else: what comes out is as wide as ever."""
        found = traced(name, self.SHAPE, dtype="bfloat16")
        wanted = traced(name, self.SHAPE)
        images = jax.ShapeDtypeStruct((2, *self.SHAPE), jnp.float32)

        def slopes(variables, images):
            def loss(params, images):
                given = {**variables, "params": params}
                logits, stats = found.network.apply_train(given, images)
                return jnp.sum(logits), stats

            return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], images)

        assert found.variables == wanted.variables
        assert results(found, self.SHAPE) == results(wanted, self.SHAPE)
        traced_slopes = jax.make_jaxpr(slopes)(found.variables, images)
        assert {x.dtype for x in traced_slopes.out_avals} == {jnp.dtype("float32")}
        kinds = [
            [x.aval.dtype.name for x in equation.invars]
            for equation in products(traced_slopes.jaxpr)
        ]
        last = [kind for kind in kinds if kind != ["bfloat16"] * 2]
        assert last == [["float32"] * 2] * 3  # and its two gradients
        assert len(kinds) > 6

    def test_conv_replaces_all_but_depthwise_convolutions(self, name):
        found = traced(name, self.SHAPE)
        leaves = jax.tree.leaves(found.variables["params"])
        kernels = [x.shape for x in leaves if x.ndim == 4]
        # Depthwise kernels have one input; all others have several.
        wanted = [shape for shape in kernels if shape[2] > 1]
        assert sorted(found.kernels) == sorted(wanted)


class TestSizes:
    @pytest.mark.parametrize("name", SMALLEST)
    def test_smallest_images(self, name):
        size = SMALLEST[name]
        assert min(traced(name, (size, size, 1)).sides) >= 1
        with pytest.raises(ValueError, match=f"{size - 1}x{size - 1}"):
            traced(name, (size - 1, size - 1, 1))

    def test_vgg_has_the_large_head_beyond_64_pixels(self):
        found = traced("vgg11", (96, 96, 3))
        kernel = found.variables["params"]["classifier.0"]["kernel"]
        assert kernel.shape == (25088, 4096)
        assert results(found, (96, 96, 3))[1]["features"].shape == (2, 4096)

    @pytest.mark.parametrize(("depth", "size"), [(3, 32), (4, 64), (5, 128), (6, 224)])
    def test_convnets_of_the_field(self, depth, size):
        found = traced("convnet", (size, size, 3), depth=depth)
        assert len(found.kernels) == depth
        head = found.variables["params"]["classifier"]["kernel"]
        assert head.shape == (128 * (size // 2**depth) ** 2, 3)

    @pytest.mark.parametrize(
        ("name", "size"), [(name, size) for name in STEMS for size in STEMS[name]]
    )
    def test_stems_follow_the_image(self, name, size):
        found = traced(name, (size, size, 3))
        maps = [side for side in found.sides if side > 1]  # excitations have one pixel
        assert (found.kernels[0][0], min(maps)) == STEMS[name][size]

    @pytest.mark.parametrize(("size", "patch"), [(16, 1), (32, 2), (64, 2), (96, 4)])
    def test_swin_s_patches_and_windows(self, size, patch):
        found = traced("swin_tiny", (size, size, 3))
        assert found.kernels == ((patch, patch, 3, 96),)
        attention = found.variables["params"]["features.1.0"]["attn"]
        window = 4 if size <= 64 else 7
        table = attention["relative_position_bias_table"]
        assert table.shape == ((2 * window - 1) ** 2, 3)

    @pytest.mark.parametrize(
        ("shape", "tokens"),
        [
            ((8, 8), 64),
            ((28, 28), 14 * 14),
            ((32, 32), 16 * 16),
            ((64, 64), 16 * 16),
            ((36, 54), 12 * 18),
            ((96, 96), 6 * 6),
            ((224, 224), 14 * 14),
        ],
    )
    def test_vit_s_patches(self, shape, tokens):
        found = traced("vit_tiny", (*shape, 3), depth=1)
        assert found.variables["params"]["pos_embed"].shape == (1, tokens + 1, 192)


def products(jaxpr):
    """The equations that multiply matrices or convolve, inner programs' too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from products(inner)


def test_unknown_dtype(tiny_info):
    with pytest.raises(ValueError, match="dtype 'half'; known: float32, bfloat16."):
        models.create("convnet", tiny_info, dtype="half")


def test_bfloat16_is_near(key, tiny_info):
    """bfloat16 has eight bits, and a ReLU near zero may go the other way."""
    narrow = models.create("convnet", tiny_info, width=16, dtype="bfloat16")
    wide = models.create("convnet", tiny_info, width=16)
    variables = wide.init(key)
    images = jax.random.uniform(key, (64, *tiny_info.shape))
    labels = jnp.arange(64) % tiny_info.num_classes

    @functools.partial(jax.jit, static_argnums=0)
    def run(network, variables, images):
        def loss(params, images):
            logits, out = network.apply_batch({**variables, "params": params}, images)
            told = logits, out["features"], out["moments"]
            return losses.cross_entropy(logits, labels), told

        slopes, told = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], images)
        return told, slopes

    got, wanted = (run(network, variables, images) for network in (narrow, wide))
    chex.assert_trees_all_equal_dtypes(got, wanted)
    for most, ours, theirs in zip((0.02, 0.15), got, wanted):
        for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
            assert np.linalg.norm(one - other) <= most * np.linalg.norm(other)


@pytest.mark.parametrize("name", ["vit_tiny", "convnext_tiny"])
def test_per_class_matching_works_without_batch_norm(key, tiny_info, name):
    """Also on ConvNeXt's last LayerNorm, which reads one pixel: no variance there."""
    options = {"blocks": (1, 1)} if name == "convnext_tiny" else {"depth": 1}
    network = models.create(name, tiny_info, width=12, **options)

    def loss(images, variables, targets):
        _, out = network.apply(variables, images)
        return losses.class_batch_norm(out["moments"], targets), out["moments"]

    @jax.jit
    def run(key):
        variables = network.init(key)
        images = jax.random.uniform(key, (6, *tiny_info.shape))
        _, out = network.apply(variables, images[::2])
        targets = [  # of other images
            Moments(m.mean[:2], m.var[:2]) for m in out["moments"]
        ]
        return jax.value_and_grad(loss, has_aux=True)(images, variables, targets)

    (value, moments), gradient = run(key)
    if name == "convnext_tiny":
        np.testing.assert_array_equal(moments[-1].var, 0)
    assert np.isfinite(value) and value > 0
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0

"""Networks against PyTorch (results in fixtures/, see make_fixtures.py)."""

import math
import pathlib
import re

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import models
from ddjax.models import convnet, layers, norms, resnet
from ddjax.types import DataInfo


def info_of(shape, num_classes, mean=None, std=None):
    names = tuple(str(k) for k in range(num_classes))
    mean = mean or (0.5,) * shape[-1]
    return DataInfo("test", names, shape, mean, std or (0.25,) * shape[-1])


def assert_close(got, wanted, tolerance=1e-4):
    """Relative to the largest entry: an entry that cancels to zero has no digits."""
    wanted = np.asarray(wanted)
    atol = tolerance * np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


FIXTURES = pathlib.Path(__file__).parent / "fixtures"
CASES = ("resnet18_7x7", "resnet18_3x3", "convnet_batch", "convnet_instance")
WIDTH, MEAN, STD = 4, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)  # as in make_fixtures.py


def read(name):
    with np.load(FIXTURES / f"{name}.npz") as arrays:
        return dict(arrays)


def to_flax(tensors):
    """Tensors under PyTorch's names as flax variables: the layers have those names."""
    variables = {"params": {}, "batch_stats": {}}
    for name, tensor in tensors.items():
        layer, leaf = name.rsplit(".", 1)
        block = re.match(r"layer\d\.\d", layer)  # a module of its own
        path = [layer]
        if block:
            path = [block[0], layer.removeprefix(block[0] + ".")]
        if leaf == "weight":
            leaf = "scale" if tensor.ndim == 1 else "kernel"
        leaf = leaf.removeprefix("running_")
        node = variables["batch_stats" if leaf in ("mean", "var") else "params"]
        for part in path:
            node = node.setdefault(part, {})
        order = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[tensor.ndim]
        node[leaf] = jnp.asarray(tensor.transpose(order), jnp.float32)
    return variables


def network_of(name, shape, **options):
    name, variant = name.split("_")
    if name == "resnet18":
        options["stem"] = variant
    else:
        options |= {"depth": 2, "norm": variant}
    info = info_of(shape, 5, MEAN, STD)
    return models.create(name, info, width=WIDTH, **options)


def variables_of(name):
    if "convnet" in name:
        return to_flax(read(f"{name}_weights"))
    tensors = read("resnet18_weights")
    if name == "resnet18_3x3":
        tensors["conv1.weight"] = tensors["conv1.weight"][:, :, 2:5, 2:5]
    return to_flax(tensors)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A network, PyTorch's weights for it, images, and PyTorch's results."""
    name = request.param
    wanted = read(name)
    images = jnp.asarray(wanted.pop("images") / 255, jnp.float32)
    return network_of(name, images.shape[1:]), variables_of(name), images, wanted


class TestAgainstTorch:
    def test_weights_fill_the_network(self, case):
        network, variables, _, _ = case
        fresh = jax.eval_shape(network.init, jax.random.key(0))
        chex.assert_trees_all_equal_shapes_and_dtypes(fresh, variables)

    def test_frozen_forward_pass(self, case):
        network, variables, images, wanted = case
        logits, out = jax.jit(network.apply)(variables, images)
        assert_close(logits, wanted["logits"])
        assert_close(out["features"], wanted["features"])
        assert len(out["moments"]) == sum(key.startswith("var_") for key in wanted)
        for layer, moments in enumerate(out["moments"]):
            assert_close(moments.mean, wanted[f"mean_{layer}"])
            assert_close(moments.var, wanted[f"var_{layer}"])

    def test_gradient_of_the_pixels(self, case):
        network, variables, images, wanted = case

        def score(images):
            logits, _ = network.apply(variables, images)
            return (logits * jnp.cos(logits)).sum()

        gradient = jax.jit(jax.grad(score))(images)
        assert_close(gradient[1], wanted["gradient"], 3e-4)

    def test_training_forward_pass_updates_the_running_statistics(self, case):
        network, variables, images, wanted = case
        logits, batch_stats = jax.jit(network.apply_train)(variables, images)
        assert_close(logits, wanted["train_logits"])
        running = {key: v for key, v in wanted.items() if "running" in key}
        assert len(running) == len(jax.tree.leaves(variables["batch_stats"]))
        # Raises where the two trees differ in structure.
        jax.tree.map(assert_close, batch_stats, to_flax(running)["batch_stats"])


class TestParameterCount:
    @pytest.mark.parametrize(
        ("name", "shape", "classes", "options", "wanted"),
        [
            ("resnet18", (224, 224, 3), 1000, {}, 11_689_512),  # torchvision
            ("convnet", (32, 32, 3), 10, {"norm": "instance"}, 320_010),  # DC's code
        ],
    )
    def test_is_the_reference_s(self, name, shape, classes, options, wanted):
        network = models.create(name, info_of(shape, classes), **options)
        fresh = jax.eval_shape(network.init, jax.random.key(0))
        assert sum(x.size for x in jax.tree.leaves(fresh["params"])) == wanted

    def test_small_stem_differs_by_its_kernel(self):
        network = models.create("resnet18", info_of((32, 32, 3), 1000), stem="3x3")
        fresh = jax.eval_shape(network.init, jax.random.key(0))
        count = sum(x.size for x in jax.tree.leaves(fresh["params"]))
        assert count == 11_689_512 - 64 * 3 * (7 * 7 - 3 * 3)


class TestLayout:
    def test_resnet18_has_twenty_batch_norms_in_torch_s_order(self):
        shape = (32, 32, 3)
        network = models.create("resnet18", info_of(shape, 4), stem="3x3", width=2)
        variables = jax.eval_shape(network.init, jax.random.key(0))
        images = jax.ShapeDtypeStruct((5, *shape), jnp.float32)
        _, out = jax.eval_shape(network.apply, variables, images)
        channels = [2] * 5 + [4] * 5 + [8] * 5 + [16] * 5
        for moments in (out["moments"], out["running"]):
            assert [m.mean.shape[-1] for m in moments] == channels
        assert {m.var.shape[0] for m in out["moments"]} == {5}
        assert out["features"].shape == (5, 16)

    def test_running_statistics_are_the_teacher_s_own(
        self, tiny_network, tiny_variables
    ):
        stats = jax.tree.map(
            lambda x: x + jnp.arange(x.size), tiny_variables["batch_stats"]
        )
        changed = {**tiny_variables, "batch_stats": stats}
        _, out = tiny_network.apply(changed, jnp.zeros((2, 8, 8, 3)))
        for layer, running in enumerate(out["running"]):
            wanted = stats[f"features.{4 * layer + 1}"]
            np.testing.assert_array_equal(running.mean, wanted["mean"])
            np.testing.assert_array_equal(running.var, wanted["var"])

    def test_instance_norm_has_no_statistics(self, tiny_info):
        network = models.create("convnet", tiny_info, width=2, depth=1, norm="instance")
        variables = network.init(jax.random.key(0))
        _, out = network.apply(variables, jnp.zeros((2, 8, 8, 3)))
        assert variables["batch_stats"] == {}
        assert out["moments"] == () and out["running"] == ()

    @pytest.mark.parametrize(
        "module",
        [
            convnet.ConvNet(num_classes=3, width=3, depth=2),
            resnet.ResNet18(num_classes=3, width=2, stem="3x3"),
        ],
        ids=["convnet", "resnet18"],
    )
    def test_moments_are_those_of_what_the_convolutions_put_out(self, key, module):
        x = 3 + jax.random.normal(key, (2, 8, 8, 3))
        variables = jax.jit(lambda key: module.init(key, x, train=False))(key)

        @jax.jit
        def apply(variables, x):
            return module.apply(
                variables,
                x,
                train=False,
                capture_intermediates=lambda _, method: method == "apart",
                mutable=["intermediates"],
            )

        (_, out), extra = apply(variables, x)
        found = flax.traverse_util.flatten_dict(extra["intermediates"]).values()
        captured = [y if bias is None else y + bias for ((y, bias),) in found]
        # The dictionary is sorted by name, not by depth: compare as sets of arrays.
        wanted = sorted((x.shape[-1], float(jnp.sum(x.mean((1, 2))))) for x in captured)
        got = sorted((m.mean.shape[-1], float(jnp.sum(m.mean))) for m in out["moments"])
        np.testing.assert_allclose(got, wanted, rtol=1e-5)
        wanted = sorted((x.shape[-1], float(jnp.sum(x.var((1, 2))))) for x in captured)
        got = sorted((m.mean.shape[-1], float(jnp.sum(m.var))) for m in out["moments"])
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-7)


class TestBatchNorm:
    def test_moments_do_not_cancel_far_from_zero(self, key):
        x = 1000 + 0.01 * jax.random.normal(key, (3, 16, 16, 2))
        layer = norms.BatchNorm()
        variables = layer.init(key, x, train=False)
        _, moments, _ = layer.apply(variables, x, train=False)
        exact = np.asarray(x, np.float64).var((1, 2))
        np.testing.assert_allclose(moments.var, exact, rtol=1e-2)

    def test_total_variance_follows_from_the_moments_of_the_images(self, key):
        x = (
            jax.random.normal(key, (6, 5, 4, 3))
            * jnp.arange(1.0, 7)[:, None, None, None]
        )
        layer = norms.BatchNorm()
        variables = layer.init(key, x, train=False)
        _, moments, _ = layer.apply(variables, x, train=False)
        total = moments.var.mean(0) + moments.mean.var(0)
        np.testing.assert_allclose(total, x.var((0, 1, 2)), rtol=1e-5)

    def test_bfloat16_inputs_keep_float32_statistics(self, key):
        x = jax.random.normal(key, (64, 8, 8, 2), jnp.bfloat16)
        layer = norms.BatchNorm()
        variables = layer.init(key, x, train=False)
        (y, moments, _), updated = layer.apply(
            variables, x, train=True, mutable=["batch_stats"]
        )
        assert y.dtype == jnp.bfloat16
        exact = np.asarray(x, np.float64)
        np.testing.assert_allclose(moments.mean, exact.mean((1, 2)), atol=1e-6)
        stats = updated["batch_stats"]
        unbiased = exact.var((0, 1, 2), ddof=1)
        np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * unbiased, rtol=1e-6)


class TestInstanceNorm:
    @pytest.mark.parametrize("offset", [0.0, 300.0])
    def test_normalises_each_channel_of_each_image(self, key, offset):
        x = offset + jax.random.normal(key, (3, 6, 6, 4))
        layer = norms.instance_norm()
        y = layer.apply(layer.init(key, x), x)
        exact = np.asarray(x, np.float64)
        centred = exact - exact.mean((1, 2), keepdims=True)
        wanted = centred / np.sqrt(exact.var((1, 2), keepdims=True) + 1e-5)
        np.testing.assert_allclose(y, wanted, atol=2e-3 if offset else 1e-5)


@pytest.fixture(scope="module")
def convnet_params():
    network = models.create("convnet", info_of((8, 8, 3), 200), width=64, depth=2)
    return network.init(jax.random.key(3))["params"]


class TestInitialisation:
    def check_uniform(self, values, bound):
        """Within the bounds, up to them, and spread evenly (Kolmogorov-Smirnov)."""
        from scipy import stats

        values = np.asarray(values).ravel()
        assert np.abs(values).max() <= bound
        assert stats.kstest(values, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)

    def test_convnet_convolutions_are_torch_s_defaults(self, convnet_params):
        for layer, fan_in in (("features.0", 27), ("features.4", 9 * 64)):
            self.check_uniform(convnet_params[layer]["kernel"], fan_in**-0.5)
            self.check_uniform(convnet_params[layer]["bias"], fan_in**-0.5)

    def test_linear_layer_is_torch_s_default(self, convnet_params):
        fan_in = 64 * 2 * 2
        self.check_uniform(convnet_params["classifier"]["kernel"], fan_in**-0.5)
        self.check_uniform(convnet_params["classifier"]["bias"], fan_in**-0.5)

    def test_norms_start_as_identity(self, convnet_params):
        np.testing.assert_array_equal(convnet_params["features.5"]["scale"], 1)
        np.testing.assert_array_equal(convnet_params["features.5"]["bias"], 0)

    def test_he_is_normal_with_fan_out(self, key):
        layer = layers.conv(32, 3, init="he", in_features=64, use_bias=True)
        params = layer.init(key, jnp.zeros((1, 4, 4, 64)))["params"]
        kernel = np.asarray(params["kernel"])
        std = math.sqrt(2 / (9 * 32))
        assert kernel.std() == pytest.approx(std, rel=0.03)
        assert np.abs(kernel).max() > 3 * std  # not truncated
        np.testing.assert_array_equal(params["bias"], 0)

    def test_resnet18_convolutions_are_he_and_its_head_is_torch_s(self):
        network = models.create("resnet18", info_of((8, 8, 3), 9), width=16, stem="3x3")

        @jax.jit  # compiles two layers only
        def last_layers(key):
            params = network.init(key)["params"]
            return params["layer4.1"]["conv2"], params["fc"]

        conv, head = last_layers(jax.random.key(0))
        std = float(jnp.std(conv["kernel"]))
        assert std == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.03)
        self.check_uniform(head["kernel"], 128**-0.5)

    def test_follows_the_key(self, tiny_network):
        first, again, other = (
            tiny_network.init(jax.random.key(seed)) for seed in (0, 0, 1)
        )
        chex.assert_trees_all_equal(first, again)
        kernels = (tree["params"]["features.0"]["kernel"] for tree in (first, other))
        assert not np.allclose(*kernels)


class TestNormalisation:
    def test_network_subtracts_and_divides(self, key, tiny_network, tiny_variables):
        """Equal to the module itself on images that were normalised before."""
        images = jax.random.uniform(key, (2, 8, 8, 3))
        mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
        module = convnet.ConvNet(num_classes=3, width=4, depth=2)
        normalised = jnp.asarray((np.asarray(images) - mean) / std, jnp.float32)
        wanted, _ = module.apply(tiny_variables, normalised, train=False)
        got, _ = tiny_network.apply(tiny_variables, images)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)

    def test_frozen_images_do_not_see_one_another(
        self, key, tiny_network, tiny_variables
    ):
        images = jax.random.uniform(key, (4, 8, 8, 3))
        apply = jax.jit(tiny_network.apply)
        together, _ = apply(tiny_variables, images)
        alone, _ = apply(tiny_variables, images[2:3])
        np.testing.assert_allclose(together[2:3], alone, rtol=1e-5, atol=1e-6)


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "size", "options", "message"),
        [
            ("resnet19", 32, {}, r"unknown model 'resnet19'; known: convnet, resnet18"),
            ("convnet", 32, {"stem": "3x3"}, r"no option 'stem'; known: .*depth"),
            ("resnet18", 32, {"depth": 3}, r"no option 'depth'; known: .*stem"),
            ("convnet", 32, {"parent": None}, r"no option 'parent'"),
            ("convnet", 32, {"norm": "layer"}, r"unknown norm 'layer'"),
            ("convnet", 32, {"initializer": "zeros"}, r"unknown initializer 'zeros'"),
            ("resnet18", 32, {"stem": "5x5"}, r"unknown stem '5x5'"),
            ("convnet", 7, {}, r"use depth 2 or less"),
            ("resnet18", 31, {"stem": "7x7"}, r"at least 32 pixels; got 31x31"),
            ("resnet18", 7, {}, r"stem 3x3 needs .* at least 8 pixels; got 7x7"),
            ("resnet18", 32, {"norm": "none"}, r"unknown norm 'none'"),
            ("resnet18", 32, {"num_classes": 3}, r"no option 'num_classes'"),
            ("resnetap10", 31, {"stem": "large"}, r"stem large .* at least 32 pixels"),
            ("resnetap10", 7, {}, r"stem small .* at least 8 pixels; got 7x7"),
            ("vgg11", 27, {}, r"at least 28 pixels; got 27x27"),
            ("vgg11", 32, {"head": "fc"}, r"unknown head 'fc'; known: auto, mlp"),
            ("mobilenet_v2", 7, {}, r"stem small .* at least 8 pixels; got 7x7"),
            ("mobilenet_v2", 32, {"blocks": (1, 1)}, r"should be 7 numbers"),
            ("efficientnet_b0", 31, {"stem": "large"}, r"stem large .* at least 32"),
            ("vit_tiny", 100, {}, r"patch 16 does not divide .* one of 1, 2, 4, 5, 10"),
            ("vit_tiny", 31, {}, r"patch 2 does not divide .* one of 1, 31, or resize"),
            ("vit_tiny", 32, {"width": 16}, r"width 16 is not a multiple of heads 3"),
            ("swin_tiny", 33, {}, r"patch 2 does not divide images of 33x33"),
            ("swin_tiny", 32, {"heads": (3, 5, 6, 8)}, r"stage 1 .* its 5 heads"),
            ("swin_tiny", 32, {"heads": (3,)}, r"1 numbers of heads for 4 stages"),
            ("convnext_tiny", 226, {}, r"patch 4 does not divide images of 226x226"),
            ("convnext_tiny", 7, {}, r"patch 1 needs .* at least 8 pixels; got 7x7"),
        ],
    )
    def test_mistakes_are_named(self, name, size, options, message):
        with pytest.raises(ValueError, match=message):
            models.create(name, info_of((size, size, 3), 10), **options)

    @pytest.mark.parametrize(
        ("name", "size", "options"),
        [
            ("convnet", 8, {"depth": 3}),
            ("convnet", 7, {"depth": 2}),
            ("resnet18", 32, {"stem": "7x7"}),
            ("resnet18", 8, {"stem": "3x3"}),
        ],
    )
    def test_the_smallest_images_pass(self, name, size, options):
        shape = (size, size, 1)
        network = models.create(name, info_of(shape, 3), width=2, **options)
        variables = jax.eval_shape(network.init, jax.random.key(0))
        images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        logits, _ = jax.eval_shape(network.apply, variables, images)
        assert logits.shape == (2, 3)

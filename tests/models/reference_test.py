"""Every network against torchvision's or timm's (see make_reference_fixtures.py)."""

import functools
import pathlib
import zlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import models
from ddjax.models import vgg
from ddjax.types import DataInfo

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
# Model, options and the published number of parameters; of ResNetAP-10 there is none.
PUBLISHED = {
    "resnet18": ("resnet18", {}, 11_689_512),
    "resnet50": ("resnet50", {}, 25_557_032),
    "resnet101": ("resnet101", {}, 44_549_160),
    "resnetap10": ("resnetap10", {"norm": "batch"}, 5_418_792),
    "vgg11_none": ("vgg11", {"norm": "none"}, 132_863_336),
    "vgg11_batch": ("vgg11", {}, 132_868_840),
    "mobilenet_v2": ("mobilenet_v2", {}, 3_504_872),
    "efficientnet_b0": ("efficientnet_b0", {}, 5_288_548),
    "vit_tiny": ("vit_tiny", {}, 5_717_416),
    "vit_small": ("vit_small", {}, 22_050_664),
    "swin_tiny": ("swin_tiny", {}, 28_288_354),
    "convnext_tiny": ("convnext_tiny", {}, 28_589_128),
}
NARROW_SWIN = {"width": 16, "blocks": (2, 2), "heads": (1, 2)}
NARROW_MOBILE = {"width": 0.25, "blocks": (1, 1, 1, 2, 1, 1, 1)}
NARROW_EFFICIENT = {"width": 0.25, "blocks": (1, 1, 1, 1, 1, 2, 1)}
NARROW_CONVNEXT = {"width": 8, "blocks": (1, 1, 2, 1)}
NARROW = {"width": 4}
# Model, size of the images and options, as in make_reference_fixtures.py.
CASES = {
    "resnet50_large": (
        "resnet50",
        (40, 49),
        {"width": 4, "blocks": (1, 2, 1, 1), "stem": "7x7"},
    ),
    "resnet50_small": ("resnet50", (9, 12), {"width": 4, "blocks": (1, 2, 1, 1)}),
    "resnet18_instance": (
        "resnet18",
        (17, 10),
        {"width": 4, "blocks": (2, 1, 1, 1), "norm": "instance"},
    ),
    "resnetap10_small": ("resnetap10", (17, 10), NARROW),
    "resnetap10_mid": (
        "resnetap10",
        (37, 34),
        {"width": 4, "stem": "mid", "norm": "batch"},
    ),
    "resnetap10_large": ("resnetap10", (66, 40), {"width": 4, "stem": "large"}),
    "vgg11_batch_mlp": ("vgg11", (66, 40), {"width": 4, "head": "mlp"}),
    "vgg11_none_mlp": (
        "vgg11",
        (66, 40),
        {"width": 4, "norm": "none", "head": "mlp"},
    ),
    "vgg11_instance_linear": ("vgg11", (28, 30), {"width": 4, "norm": "instance"}),
    "vgg11_batch_linear": ("vgg11", (64, 33), NARROW),
    "mobilenet_v2_large": (
        "mobilenet_v2",
        (47, 64),
        {**NARROW_MOBILE, "stem": "large"},
    ),
    "mobilenet_v2_small": ("mobilenet_v2", (17, 24), NARROW_MOBILE),
    "efficientnet_b0_large": (
        "efficientnet_b0",
        (47, 64),
        {**NARROW_EFFICIENT, "stem": "large"},
    ),
    "efficientnet_b0_small": ("efficientnet_b0", (17, 24), NARROW_EFFICIENT),
    "vit_tiny": ("vit_tiny", (32, 48), {"width": 24, "depth": 2, "patch": 8}),
    "swin_tiny_large": (
        "swin_tiny",
        (36, 44),
        {**NARROW_SWIN, "patch": 4, "window": 7},
    ),
    "swin_tiny_small": ("swin_tiny", (16, 32), {**NARROW_SWIN, "patch": 2}),
    "convnext_tiny_large": ("convnext_tiny", (36, 44), {**NARROW_CONVNEXT, "patch": 4}),
    "convnext_tiny_small": ("convnext_tiny", (16, 20), {**NARROW_CONVNEXT, "patch": 2}),
}
INITIALISED = (
    "resnet50_large",
    "mobilenet_v2_large",
    "efficientnet_b0_large",
    "vit_tiny",
    "swin_tiny_large",
    "convnext_tiny_large",
)


def network_of(name, size, num_classes, **options):
    classes = tuple(str(k) for k in range(num_classes))
    info = DataInfo("test", classes, (*size, 3), (0.5,) * 3, (0.25,) * 3)
    return models.create(name, info, **options)


def torch_names(variables):
    """{torch's name: leaf}: a path joined by dots, and what torch calls the leaf."""
    renamed = {"kernel": "weight", "scale": "weight"}
    renamed |= {"mean": "running_mean", "var": "running_var"}
    names = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        *layers, last = (part.key for part in path[1:])
        names[".".join([*layers, renamed.get(last, last)])] = (last, leaf)
    return names


def torch_shape(last, leaf):
    if last != "kernel":
        return leaf.shape
    return (leaf.shape[-1], leaf.shape[-2], *leaf.shape[:-2])


def draw(name, shape, kind="weight"):
    """As in make_reference_fixtures.py."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if kind == "image":
        return random.random_sample(shape) * np.array([0.5, 1])[:, None, None, None]
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape)
    values = random.standard_normal(shape)
    if name.endswith(("running_mean", "bias")):
        return 0.3 * values
    if sum(n > 1 for n in shape) < 2:
        return 1 + 0.3 * values
    return values * np.sqrt(2 / np.prod(shape[1:]))


def drawn(network):
    """Variables of the network with the weights that the reference had."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    leaves = []
    for name, (last, leaf) in torch_names(shapes).items():
        values = draw(name, torch_shape(last, leaf))
        if last == "kernel":  # outputs and inputs last
            values = np.moveaxis(values, (1, 0), (-2, -1))
        leaves.append(jnp.asarray(values, jnp.float32))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


class Published(NamedTuple):
    """Our variables at 224 pixels and 1,000 classes, and what they should be."""

    variables: Any
    epsilons: set  # of our norms
    count: int
    tensors: dict  # shape by name
    eps: list


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    name, options, count = PUBLISHED[request.param]
    network, epsilons = network_of(name, (224, 224), 1000, **options), set()

    def note(function, arguments, keywords, context):
        epsilons.add(getattr(context.module, "epsilon", None))
        return function(*arguments, **keywords)

    with nn.intercept_methods(note):
        variables = jax.eval_shape(network.init, jax.random.key(0))
    with np.load(FIXTURES / "trees.npz") as trees:
        rows = dict(row.split(" ") for row in trees[request.param])
        eps = trees[f"{request.param}/eps"].tolist()
    tensors = {key: tuple(map(int, text.split("x"))) for key, text in rows.items()}
    return Published(variables, epsilons - {None}, count, tensors, eps)


class TestPublished:
    def test_number_of_parameters(self, published):
        leaves = jax.tree.leaves(published.variables["params"])
        assert sum(x.size for x in leaves) == published.count

    def test_names_and_shapes(self, published):
        names, wanted = torch_names(published.variables), published.tensors
        got = {key: torch_shape(*leaf) for key, leaf in names.items()}
        assert got.keys() == wanted.keys()
        for key, shape in got.items():
            # ConvNeXt's layer scales are [c, 1, 1] there.
            tail = (1, 1) if key.endswith("layer_scale") else ()
            assert (*shape, *tail) == wanted[key], key

    def test_epsilons(self, published):
        assert sorted(published.epsilons) == published.eps


@functools.cache
def _references():
    with np.load(FIXTURES / "references.npz") as arrays:
        return dict(arrays)


def reference(case):
    start = f"{case}/"
    arrays = _references().items()
    return {k.removeprefix(start): v for k, v in arrays if k.startswith(start)}


def assert_close(got, wanted, tolerance=1e-4):
    """Relative to the largest entry: an entry that cancels to zero has no digits."""
    atol = tolerance * np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_forward_pass_moments_and_gradient(case):
    name, size, options = CASES[case]
    network, wanted = network_of(name, size, 5, **options), reference(case)
    variables = drawn(network)
    images = jnp.asarray(draw(case, (2, *size, 3), "image"), jnp.float32)

    def score(images, variables):
        logits, out = network.apply(variables, images)
        return (logits * jnp.cos(logits)).sum(), (logits, out)

    if "gradient" in wanted:
        run = jax.jit(jax.grad(score, has_aux=True))
        gradient, (logits, out) = run(images, variables)
        assert_close(gradient[1, ::3, ::3], wanted["gradient"], 3e-4)
    else:
        logits, out = jax.jit(network.apply)(variables, images)
    assert_close(logits, wanted["logits"])
    assert_close(out["features"], wanted["features"])
    if "moments" in wanted:
        got = [[m.mean.mean(-1), m.var.mean(-1)] for m in out["moments"]]
        np.testing.assert_allclose(got, wanted["moments"], rtol=1e-3, atol=1e-4)


def test_adaptive_average_of_maps_larger_than_its_bins():
    x = draw("averages", (2, 3, 9, 13)).transpose(0, 2, 3, 1)
    got = vgg.adaptive_average(jnp.asarray(x, jnp.float32))
    wanted = reference("averages")["averaged"]
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", INITIALISED)
def test_initialisation(case):
    """Constants are the reference's, and random tensors spread as the reference's.

    Of the latter the largest of each kind, since each takes long to compile.
    """
    (name, size, options), wanted = CASES[case], reference(case)
    network = network_of(name, size, 5, **options)
    shapes = torch_names(jax.eval_shape(network.init, jax.random.key(0)))
    assert set(shapes) == set(wanted["names"])
    rows = dict(zip(wanted["names"].tolist(), wanted["fresh"]))
    constants = [name for name, (_, std, _) in rows.items() if std < 1e-12]
    largest = {}
    for name in sorted(rows.keys() - set(constants), key=lambda k: shapes[k][1].size):
        largest[tuple(name.split(".")[-2:])] = name

    @jax.jit
    def values_of(key):
        tensors = torch_names(network.init(key))
        return {k: tensors[k][1] for k in [*constants, *largest.values()]}

    values = values_of(jax.random.key(0))
    for name in constants:
        np.testing.assert_array_equal(values[name], rows[name][0], err_msg=name)
    for name in largest.values():
        tensor, (_, std, peak) = np.asarray(values[name], np.float64), rows[name]
        if tensor.size < 500:  # too few to estimate anything
            continue
        assert tensor.std() == pytest.approx(std, rel=0.12), name
        assert abs(tensor.mean()) < 0.2 * std, name
        bounded = np.abs(tensor).max() < 2 * tensor.std()  # 1.73 where uniform
        assert bounded == (peak < 2 * std), name


@pytest.mark.parametrize(
    ("name", "options", "stds"),
    [
        # torchvision's: he (fan out) and normal with 0.01.
        ("vgg11", {"head": "mlp"}, {"features.18.weight": (2 / (9 * 32)) ** 0.5}),
        ("vgg11", {"head": "mlp"}, {"classifier.3.weight": 0.01}),
        # IDC's: he.
        ("resnetap10", {}, {"layer4.0.conv2.weight": (2 / (9 * 32)) ** 0.5}),
    ],
)
def test_initialisation_of_what_torchvision_has_not(name, options, stds):
    network = network_of(name, (32, 32), 5, width=4, **options)

    @jax.jit
    def tensors(key):
        found = torch_names(network.init(key))
        return {key: found[key][1] for key in stds}

    for key, tensor in tensors(jax.random.key(0)).items():
        assert float(tensor.std()) == pytest.approx(stds[key], rel=0.05), key

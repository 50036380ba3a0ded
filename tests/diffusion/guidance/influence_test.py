"""The influence term against PyTorch's double backward, nested autodiff, closed forms."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import losses, models
from ddjax.diffusion.guidance import influence

# Compiled once for all tests: op by op they would take a minute.
guided = jax.jit(influence.value_and_gradient, static_argnums=0)
banked = jax.jit(influence.bank, static_argnums=0)
FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "guidance.npz"


@pytest.fixture(scope="module")
def network(tiny_info):
    options = {"width": 4, "depth": 2, "norm": "instance"}
    return models.create("convnet", tiny_info, **options)


@pytest.fixture(scope="module")
def checkpoints(network):
    """Two networks, stacked."""
    return jax.vmap(network.init)(jax.random.split(jax.random.key(0)))


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (7, 8, 8, 3))


@pytest.fixture(scope="module")
def bank(network, checkpoints, images):
    return banked(network.apply, checkpoints, images, 2)


def nested(apply_fn, image, label, checkpoints, bank):
    """G_I, written down; jax.grad of it is a derivative of a derivative."""

    def loss(params):
        logits, _ = apply_fn({"params": params, "batch_stats": {}}, image[None])
        return losses.cross_entropy(logits, jnp.array([label]))

    total = 0.0
    for e in range(2):
        at = jax.tree.map(lambda x, e=e: x[e], checkpoints["params"])
        g = jnp.concatenate([x.ravel() for x in jax.tree.leaves(jax.grad(loss)(at))])
        real = jnp.concatenate([x[e].ravel() for x in jax.tree.leaves(bank)])
        product = jnp.linalg.norm(g) * jnp.linalg.norm(real)
        total += (1 - g @ real / (product + 1e-6)) / 2
    return total


@pytest.mark.parametrize("double, tolerance", [(True, 1e-12), (False, 1e-4)])
def test_it_is_the_nested_gradient(
    network, checkpoints, bank, images, double, tolerance
):
    with jax.enable_x64(double):
        wide = jnp.float64 if double else jnp.float32
        given = (images[0], checkpoints, bank)
        image, stacked, real = jax.tree.map(lambda x: jnp.asarray(x, wide), given)
        ours = functools.partial(guided, network.apply)
        theirs = jax.jit(jax.value_and_grad(functools.partial(nested, network.apply)))
        found, expected = (f(image, 1, stacked, real) for f in (ours, theirs))
        assert found[1].dtype == wide and jnp.abs(expected[1]).max() > 1e-3
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def small(variables, images):
    """The network of the fixture: a convolution, softplus and a linear layer."""
    kernel = variables["params"]["conv"].transpose(2, 3, 1, 0)
    x = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    flat = jax.nn.softplus(x).transpose(0, 3, 1, 2).reshape(len(x), -1)
    return flat @ variables["params"]["head"].T, {}


def test_it_is_pytorchs_double_backward():
    with np.load(FIXTURES) as found, jax.enable_x64(True):
        params, real = (
            {
                name: np.stack([found[f"influence_{kind}{name}{e}"] for e in range(2)])
                for name in ("conv", "head")
            }
            for kind in ("", "bank_")
        )
        value, gradient = guided(
            small, found["influence_x"], 1, {"params": params}, real
        )
        np.testing.assert_allclose(value, found["influence_value"], atol=1e-12)
        np.testing.assert_allclose(gradient, found["influence_gradient"], atol=1e-12)


def test_the_real_gradient_is_that_of_all_images_at_once(network, checkpoints, images):
    """Seven of them, four at a time."""
    first = jax.tree.map(lambda x: x[0], checkpoints)

    def loss(params):
        logits, _ = network.apply({**first, "params": params}, images)
        return losses.cross_entropy(logits, jnp.full(7, 2))

    expected = jax.jit(jax.grad(loss))(first["params"])
    in_pieces = functools.partial(influence.parameter_gradient, network.apply, chunk=4)
    found = jax.jit(in_pieces)(first, images, 2)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_image_that_made_the_bank_has_nothing_to_gain(network, checkpoints, images):
    one = banked(network.apply, checkpoints, images[:1], 0)
    value, gradient = guided(network.apply, images[0], 0, checkpoints, one)
    assert value == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    opposite = jax.tree.map(jnp.negative, one)
    value, _ = guided(network.apply, images[0], 0, checkpoints, opposite)
    assert value == pytest.approx(2, abs=1e-5)


def test_descending_brings_an_image_closer(network, checkpoints, bank, images):
    at = functools.partial(guided, network.apply)
    image, values = images[3], []
    for _ in range(10):
        value, gradient = at(image, 2, checkpoints, bank)
        values.append(float(value))
        image = image - 0.2 * gradient / jnp.linalg.norm(gradient)
    assert values[-1] < 0.9 * values[0]


def test_classes_side_by_side_are_each_alone(network, checkpoints, images):
    banks = [banked(network.apply, checkpoints, images, k) for k in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *banks)
    at = functools.partial(influence.value_and_gradient, network.apply)
    together = jax.jit(jax.vmap(at, in_axes=(0, 0, None, 0)))
    found = together(images[:2], jnp.arange(2), checkpoints, stacked)
    for k in range(2):
        alone = guided(network.apply, images[k], k, checkpoints, banks[k])
        for one, other in zip(alone, found):
            np.testing.assert_allclose(one, other[k], atol=2e-6)


def test_gradients_that_vanish_are_no_nan(network, checkpoints, bank, images):
    nothing = jax.tree.map(jnp.zeros_like, bank)
    value, gradient = guided(network.apply, images[0], 1, checkpoints, nothing)
    assert value == 1 and (gradient == 0).all()
    sure = jax.tree.map(lambda x: 0 * x, checkpoints)  # dead: its features are 0
    sure["params"]["classifier"]["bias"] = jnp.tile(jnp.array([0.0, 1e4, 0.0]), (2, 1))
    value, gradient = guided(network.apply, images[0], 1, sure, bank)
    assert np.isfinite(value) and np.isfinite(gradient).all()


class TestChoosing:
    @staticmethod
    def turned(angles):
        """Cosines of gradients that have been turned by so many degrees."""
        angles = jnp.deg2rad(jnp.array(angles, float))
        directions = jnp.stack([jnp.cos(angles), jnp.sin(angles)], 1)
        return influence.similarities({"w": 5 * directions})

    def test_similarities_are_cosines(self):
        gradients = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
        found = influence.similarities({"a": gradients[:, :1], "b": gradients[:, 1:]})
        flat = gradients.reshape(4, -1)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        np.testing.assert_allclose(found, flat @ flat.T, atol=1e-6)
        assert np.isfinite(influence.similarities({"a": jnp.zeros((2, 3))})).all()

    def test_keeps_an_epoch_once_the_gradient_has_turned(self):
        """cos 46 degrees is below 0.7, cos 45 above; each from the last one kept."""
        cosines = self.turned([0, 20, 45, 46, 60, 91, 92, 93])
        assert influence.chosen(cosines) == ([0, 3, 6], 0.7)

    def test_lowers_the_threshold_for_no_more_than_so_many(self):
        """Seven turns of 50 degrees, each of which counts; every second one does not."""
        cosines = self.turned(50 * np.arange(8) % 360)
        assert influence.chosen(cosines)[0] == list(range(8))
        kept, threshold = influence.chosen(cosines, most=4)
        assert kept == [0, 2, 4, 6]
        assert np.cos(np.deg2rad(100)) < threshold <= np.cos(np.deg2rad(50)) + 1e-6
        assert influence.chosen(cosines, most=1)[0] == [0]
        with pytest.raises(ValueError, match="at most 0 epochs"):
            influence.chosen(cosines, most=0)

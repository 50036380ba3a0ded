"""DM, DC and DSA against PyTorch, with its weights and its draws."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddjax import methods, models, optimizers
from ddjax.data import dsa
from ddjax.methods import base
from ddjax.models import weights
from ddjax.types import Batch, Context, DataInfo, Targets

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
INFO = DataInfo("three", ("a", "b", "c"), (16, 16, 3), MEAN, STD)
PLAIN = {"num_steps": 1, "augment": base.VIEW}


@pytest.fixture(scope="module")
def golden():
    """See make_condensation_fixtures.py; images [q, n, H, W, ch] as normalised ones."""
    path = pathlib.Path(__file__).parent / "fixtures" / "condensation.npz"
    with np.load(path) as arrays:
        found = dict(arrays)
    images = ("real", "synthetic", "dm_moved", "dc_moved", "dm_gradient", "dc_gradient")
    return found | {k: np.moveaxis(found[k], 2, -1).astype(np.float64) for k in images}


@pytest.fixture(scope="module")
def network():
    return models.create("convnet", INFO, width=6, depth=3, norm="instance")


@pytest.fixture(scope="module")
def variables(golden, network):
    """Torch's weights; in float64 where that is switched on."""
    like = jax.eval_shape(network.init, jax.random.key(0))
    tensors = {k[2:]: v for k, v in golden.items() if k.startswith("w/")}
    return weights.from_torch(tensors, like)


def pixels(images):
    return images * np.array(STD) + np.array(MEAN)


def frozen(network, variables):
    """The network with torch's weights, whatever the key."""
    return network._replace(init=lambda key: variables)


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


def problem(golden, dtype):
    real = jnp.asarray(pixels(golden["real"]), dtype)
    own = jnp.asarray(pixels(golden["synthetic"]), dtype)
    labels = np.repeat(np.arange(3, dtype=np.int32), own.shape[1])
    batch = Batch(real, jnp.full(real.shape[:2], 1 / real.shape[1], dtype))
    flat = own.reshape(-1, *own.shape[2:])
    targets = Targets(flat, labels, np.full(6, 0.5), classes=np.arange(3))
    return batch, targets


def slope(method, batch, targets):
    """Loss and image gradient of one step, in normalised pixels."""
    state = method.init(jax.random.key(0), Context(), targets)
    moved, metrics = method.step(jax.random.key(0), state, Context(), targets, batch)
    gradient = (state.images - moved.images) * jnp.array(STD)
    return metrics["loss"], gradient.reshape(3, -1, 16, 16, 3)


def operator(place, draw, side=16):
    """What `torch_reference.matching` makes of three numbers in [0, 1]."""
    most, square = side // 8, side // 2
    angle = np.deg2rad(15) * (2 * draw[0] - 1)
    params = dsa.Params(
        operator=place,
        brightness=draw[0] - 0.5,
        saturation=2 * draw[1],
        contrast=0.5 + draw[2],
        shift=np.floor(draw[:2] * (2 * most + 1)).astype(np.int32) - most,
        centre=np.floor(draw[:2] * (side + 1 - square % 2)).astype(np.int32),
        mirrored=draw[0] < 0.5,
        scale=(1 / 1.2 + draw[:2] * (1.2 - 1 / 1.2))[::-1],
        angle=angle,
    )
    each = jax.tree.map(lambda x: jnp.asarray(x)[None], params)
    return each._replace(operator=jnp.int32(place))


class TestAgainstTorch:
    def test_features(self, golden, network, variables):
        images = jnp.asarray(pixels(golden["real"][0]), jnp.float32)
        _, out = network.apply_batch(variables, images)
        np.testing.assert_allclose(out["features"], golden["features"], atol=1e-5)

    @pytest.mark.parametrize("name", ["dm", "dc"])
    def test_loss_and_image_gradient(self, name, golden, network, variables):
        with jax.enable_x64(True):
            batch, targets = problem(golden, jnp.float64)
            exact = frozen(network, double(variables))
            options = {"dm": {"dsa": ""}, "dc": {"outer": 1}}[name]
            options = (("real_batch", 8), *options.items())
            method = methods.create(
                name, exact, optax.sgd(1.0), **PLAIN, options=options
            )
            loss, gradient = slope(method, batch, targets)
            assert float(loss) == pytest.approx(float(golden[f"{name}_loss"]), rel=1e-8)
            apart = np.linalg.norm(gradient - golden[f"{name}_gradient"])
            assert apart < 1e-8 * np.linalg.norm(golden[f"{name}_gradient"])

    def test_float32_is_as_good(self, golden, network, variables):
        batch, targets = problem(golden, jnp.float32)
        method = methods.create(
            "dm",
            frozen(network, variables),
            optax.sgd(1.0),
            **PLAIN,
            options=(("dsa", ""), ("real_batch", 8)),
        )
        loss, gradient = slope(method, batch, targets)
        assert float(loss) == pytest.approx(float(golden["dm_loss"]), rel=1e-5)
        apart = np.linalg.norm(gradient - golden["dm_gradient"])
        assert apart < 1e-4 * np.linalg.norm(golden["dm_gradient"])

    def test_dc_with_the_network_that_learns(self, golden, network, variables):
        """Three outer steps, two epochs of the network between them."""
        with jax.enable_x64(True):
            batch, targets = problem(golden, jnp.float64)
            exact = frozen(network, double(variables))
            optimizer = optimizers.pixel_sgd(0.1, 0.5, STD)
            options = (("inner", 2), ("outer", 3), ("real_batch", 8))
            method = methods.create("dc", exact, optimizer, **PLAIN, options=options)
            state = method.init(jax.random.key(0), Context(), targets)
            step = jax.jit(method.step)
            for i in range(3):
                key = jax.random.key(i)
                state, _ = step(key, state, Context(), targets, batch)
            wanted = pixels(golden["dc_moved"]).reshape(state.images.shape)
            np.testing.assert_allclose(state.images, wanted, atol=1e-9)
            assert np.abs(wanted - targets.images).max() > 1e-3

    def test_dm_with_momentum(self, golden, network, variables):
        with jax.enable_x64(True):
            batch, targets = problem(golden, jnp.float64)
            method = methods.create(
                "dm",
                frozen(network, double(variables)),
                optimizers.pixel_sgd(1.0, 0.5, STD),
                **PLAIN,
                options=(("dsa", ""), ("real_batch", 8)),
            )
            state = method.init(jax.random.key(0), Context(), targets)
            step = jax.jit(method.step)
            for i in range(20):
                key = jax.random.key(i)
                state, _ = step(key, state, Context(), targets, batch)
            wanted = pixels(golden["dm_moved"]).reshape(state.images.shape)
            np.testing.assert_allclose(state.images, wanted, atol=1e-9)

    @pytest.mark.parametrize("place", range(6), ids=dsa.OPERATORS)
    def test_dsa_with_torchs_draw(self, place, golden, network, variables, monkeypatch):
        """The loss, and its slope towards real images, seen through one operator."""
        with jax.enable_x64(True):
            draw = operator(place, golden["draws"][place].astype(np.float64))
            monkeypatch.setattr(dsa, "sample", lambda *_, **__: draw)
            batch, targets = problem(golden, jnp.float64)
            method = methods.create(
                "dsa",
                frozen(network, double(variables)),
                optax.sgd(1.0),
                **PLAIN,
                options=(("outer", 1), ("real_batch", 8)),
            )
            loss, gradient = slope(method, batch, targets)
            found = loss, (gradient * golden["real"][:, :2]).sum()
            np.testing.assert_allclose(found, golden["dsa"][place], rtol=1e-7)

    def test_initialisation_has_torchs_distribution(self, golden):
        """Largest entry (the bound), deviation and mean of kernels and biases."""
        info = INFO._replace(classes=tuple("0123456789"), shape=(32, 32, 3))
        ours = models.create("convnet", info, width=128, norm="instance")
        tensors = weights.to_torch(ours.init(jax.random.key(0)))
        for name, (largest, deviation, mean) in (
            (k.removeprefix("init/"), v)
            for k, v in golden.items()
            if k.startswith("init/")
        ):
            drawn = np.asarray(tensors[name])
            few = 4 / np.sqrt(drawn.size)  # a few standard errors
            assert np.abs(drawn).max() == pytest.approx(largest, rel=few)
            assert drawn.std() == pytest.approx(deviation, rel=few)
            assert abs(drawn.mean() - mean) < few * deviation * 1.5

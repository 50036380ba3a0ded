"""NCFM's loss against PyTorch."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import losses
from ddjax.geometry import Product


@pytest.fixture(scope="module")
def golden():
    """See make_characteristic_fixtures.py."""
    path = pathlib.Path(__file__).parent / "fixtures" / "characteristic.npz"
    with np.load(path) as arrays:
        found = dict(arrays)
    there = np.arange(found["real"].shape[1]) < found["rows"][:, None]
    return found | {"weights": there / there.sum(1, keepdims=True)}


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def plain(real, synthetic, weights, frequencies):
    return losses.characteristic_matching(
        unit(real), unit(synthetic), weights, frequencies
    )


def product(real, synthetic, weights, frequencies):
    """The same as one of GeoDM's ways to match, with the Euclidean factor alone."""
    flat = Product((0.0,), (1.0,))
    return losses.product_matching(
        "characteristic",
        flat,
        (real,),
        (synthetic,),
        weights,
        frequencies=frequencies,
    )


def arguments(golden, dtype=jnp.float64):
    names = ("real", "synthetic", "weights", "frequencies")
    return [jnp.asarray(golden[name], dtype) for name in names]


@pytest.mark.parametrize("loss", [plain, product])
def test_is_ncfms(golden, loss):
    with jax.enable_x64(True):
        value, slope = jax.value_and_grad(loss, 1)(*arguments(golden))
    assert float(value) == pytest.approx(float(golden["apart loss"]), rel=1e-12)
    np.testing.assert_allclose(slope, golden["apart gradient"], atol=1e-10)


@pytest.mark.parametrize("loss", [plain, product])
def test_float32_is_as_good(golden, loss):
    given = arguments(golden, jnp.float32)
    value, slope = jax.value_and_grad(loss, 1)(*given)
    assert float(value) == pytest.approx(float(golden["apart loss"]), rel=1e-6)
    apart = np.linalg.norm(slope - golden["apart gradient"])
    assert apart < 1e-5 * np.linalg.norm(golden["apart gradient"])


def test_clamp_is_ncfms(golden):
    """A cloud beside itself: the root of the clamp, and no slope."""
    with jax.enable_x64(True):
        real, _, _, frequencies = arguments(golden)
        uniform = jnp.full((1, real.shape[1]), 1 / real.shape[1])
        # One class, whole: padding has no counterpart in a synthetic batch.
        given = real[:1], real[:1], uniform, frequencies
        value, slope = jax.value_and_grad(plain, 1)(*given)
        wanted = float(golden["same loss"])
    assert 2 * float(value) == pytest.approx(wanted, rel=1e-6)
    assert wanted == pytest.approx(2 * 300 * np.sqrt(5e-13), rel=1e-6)
    np.testing.assert_allclose(slope, golden["same gradient"][:1], atol=1e-9)


def test_no_real_mass_on_padding(golden):
    """What padding holds does not matter, however far away."""
    with jax.enable_x64(True):
        given = arguments(golden)
        empty = (given[2] == 0)[..., None]
        moved = jnp.where(empty, 1e3, given[0])
        assert float(plain(moved, *given[1:])) == float(plain(*given))

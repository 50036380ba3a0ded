"""The cosine to finished latents against PyTorch, autodiff and what must hold."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.diffusion.guidance import deviation

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "guidance.npz"


@pytest.fixture(scope="module")
def fixture():
    with np.load(FIXTURES) as found:
        return {k: v for k, v in found.items() if k.startswith("deviation")}


@pytest.fixture
def cloud():
    z, memory = jax.random.normal(jax.random.key(0), (2, 9, 12))
    return z[0], memory


def test_value_and_gradient_are_pytorchs(fixture):
    """The last 3 of 5, in a memory with rows that are not finished yet."""
    options = deviation.Options(size=3)
    arguments = fixture["deviation_z"], fixture["deviation_memory"], 5, options
    value, gradient = deviation.value_and_gradient(*arguments)
    np.testing.assert_allclose(value, fixture["deviation_value"], atol=1e-6)
    np.testing.assert_allclose(gradient, fixture["deviation_gradient"], atol=1e-6)
    with jax.enable_x64(True):
        value, gradient = deviation.value_and_gradient(*arguments)
        np.testing.assert_allclose(value, fixture["deviation_value"], atol=1e-14)
        np.testing.assert_allclose(gradient, fixture["deviation_gradient"], atol=1e-14)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_closed_form_is_the_derivative_of_the_value(cloud, count):
    z, memory = cloud

    def value(z):
        return deviation.value_and_gradient(z, memory, count)[0]

    found = jax.jit(deviation.value_and_gradient)(z, memory, count)
    np.testing.assert_allclose(found[1], jax.grad(value)(z), atol=1e-6)


def test_nothing_finished_has_no_term(cloud):
    z, memory = cloud
    for memory_ in (memory, jnp.zeros_like(memory)):
        value, gradient = jax.jit(deviation.value_and_gradient)(z, memory_, 0)
        assert value == 0 and (gradient == 0).all()


def test_a_point_or_a_memory_at_the_origin_is_finite(cloud):
    z, memory = cloud
    for arguments in ((0 * z, memory, 3), (z, 0 * memory, 3), (0 * z, 0 * memory, 3)):
        value, gradient = deviation.value_and_gradient(*arguments)
        assert value == 0 and (gradient == 0).all()


def test_only_the_last_ones_count(cloud):
    """A copy of z is the nearest until it is forgotten."""
    z, memory = cloud
    memory = memory.at[0].set(3 * z)
    options = deviation.Options(size=4)
    values = [deviation.value_and_gradient(z, memory, n, options)[0] for n in (4, 5)]
    assert values[0] == pytest.approx(1, abs=1e-6) and values[1] < 0.9


def test_unfinished_rows_change_nothing(cloud):
    z, memory = cloud
    padded = memory.at[5:].set(z)
    for one, other in zip(
        deviation.value_and_gradient(z, memory, 5),
        deviation.value_and_gradient(z, padded, 5),
    ):
        np.testing.assert_array_equal(one, other)


def test_classes_side_by_side_are_each_alone(cloud):
    z, memory = cloud
    points, counts = jnp.stack([z, -2 * z, z]), jnp.array([0, 3, 9])
    memories = jnp.stack([memory, memory[::-1], 2 * memory])
    together = jax.vmap(deviation.value_and_gradient)(points, memories, counts)
    for i in range(3):
        alone = deviation.value_and_gradient(points[i], memories[i], counts[i])
        for one, other in zip(alone, together):
            np.testing.assert_allclose(one, other[i], atol=1e-6)


def test_a_step_down_the_gradient_lowers_the_cosine(cloud):
    z, memory = cloud
    value, gradient = deviation.value_and_gradient(z, memory, 9)
    assert deviation.value_and_gradient(z - 0.1 * gradient, memory, 9)[0] < value
    assert gradient @ z == pytest.approx(0, abs=1e-5)  # it turns z, no more


def test_a_memory_of_nothing_is_refused(cloud):
    with pytest.raises(ValueError, match="size 0; it needs 1 or more"):
        deviation.value_and_gradient(*cloud, 3, deviation.Options(size=0))

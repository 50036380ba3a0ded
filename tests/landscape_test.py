"""Slopes and curvatures against dense Hessians of a smooth network, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from ddjax import landscape

SHAPE, CLASSES = (4, 3, 2), 4


def smooth(variables, images):
    """A convolution, softplus, and a linear layer."""
    hidden = jax.nn.softplus(
        jax.lax.conv_general_dilated(
            images,
            variables["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    )
    return hidden.reshape(len(images), -1) @ variables["head"], {}


def loss(variables, image, label):
    logits, _ = smooth(variables, image[None])
    return -jax.nn.log_softmax(logits)[0, label]


@pytest.fixture(scope="module")
def dense():
    """Variables, images, labels; gradients [N, D] and Hessians [N, D, D] of NumPy."""
    random = np.random.default_rng(0)
    variables = {
        "kernel": random.normal(size=(3, 3, 2, 5)),
        "head": random.normal(size=(60, CLASSES)),
    }
    images = random.uniform(size=(3, *SHAPE))
    labels = np.array([0, 2, 3])
    with jax.enable_x64(True):
        variables = jax.tree.map(jnp.asarray, variables)
        pairs = [(jnp.asarray(x), y) for x, y in zip(images, labels)]
        slopes = [jax.grad(loss, 1)(variables, *pair).ravel() for pair in pairs]
        hessians = [
            jax.hessian(loss, 1)(variables, *pair).reshape(24, 24) for pair in pairs
        ]
        return variables, images, labels, np.stack(slopes), np.stack(hessians)


class TestCurved:
    @pytest.mark.parametrize("num_steps", [24, 100])
    def test_is_that_of_the_dense_hessian(self, dense, num_steps):
        variables, images, labels, g, h = dense
        with jax.enable_x64(True):
            found = landscape.curved(
                jax.random.key(0), smooth, variables, images, labels, num_steps
            )
        values, vectors = np.linalg.eigh(h)
        norm = np.linalg.norm(g, axis=1)
        rayleigh = np.einsum("nd,nde,ne->n", g, h, g) / norm**2
        cosine = np.abs(np.einsum("nd,nd->n", g, vectors[..., -1])) / norm
        np.testing.assert_allclose(found.gradient_norm, norm, rtol=1e-12)
        np.testing.assert_allclose(found.rayleigh, rayleigh, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.top, values[:, -1], rtol=1e-10)
        np.testing.assert_allclose(found.cosine, cosine, rtol=1e-6)
        assert found.loss.shape == (3,) and (found.top > found.rayleigh).all()

    def test_few_steps_come_from_below(self, dense):
        variables, images, labels, _, h = dense
        exact = np.linalg.eigvalsh(h)[:, -1]
        with jax.enable_x64(True):
            few, more = (
                landscape.curved(
                    jax.random.key(0), smooth, variables, images, labels, steps
                ).top
                for steps in (2, 8)
            )
        assert (few < more).all() and (more <= exact * (1 + 1e-12)).all()
        np.testing.assert_allclose(more, exact, rtol=0.05)

    def test_as_many_steps_as_classes_are_enough_for_relus(
        self, tiny_network, tiny_variables
    ):
        """The rank is C - 1: more steps find nothing, and are harmless, in float32."""
        images = np.random.default_rng(0).uniform(size=(5, 8, 8, 3)).astype(np.float32)
        labels = np.array([0, 1, 2, 0, 1])
        few, more = (
            landscape.curved(
                jax.random.key(0),
                tiny_network.apply,
                tiny_variables,
                images,
                labels,
                steps,
            )
            for steps in (4, 12)
        )
        np.testing.assert_allclose(few.top, more.top, rtol=1e-3)
        assert (few.top >= few.rayleigh * (1 - 1e-4)).all()
        assert (few.cosine <= 1 + 1e-5).all() and (few.rayleigh > 0).all()

    def test_images_do_not_see_each_other(self, dense):
        variables, images, labels, _, _ = dense
        with jax.enable_x64(True):
            whole, alone = (
                landscape.curved(
                    jax.random.key(0), smooth, variables, images[:n], labels[:n], 24
                )
                for n in (3, 1)
            )
        np.testing.assert_allclose(whole.top[:1], alone.top, rtol=1e-10)


class TestSurface:
    def test_axes_and_middle(self, dense):
        variables, images, labels, g, _ = dense
        with jax.enable_x64(True):
            found = landscape.surface(
                jax.random.key(0),
                smooth,
                variables,
                images,
                labels,
                radius=4.0,
                points=5,
            )
            np.testing.assert_allclose(found.offsets, [-4, -2, 0, 2, 4])
            assert found.losses.shape == (3, 5, 5)
            unit = g / np.linalg.norm(g, axis=1, keepdims=True)
            step = unit.reshape(images.shape) * 24**0.5 / 255
            for place, offset in enumerate(found.offsets):
                logits = smooth(variables, jnp.asarray(images + offset * step))[0]
                wanted = -special.log_softmax(logits, 1)[np.arange(3), labels]
                np.testing.assert_allclose(found.losses[:, place, 2], wanted, rtol=1e-9)
        # Orthogonal to the gradient, the loss moves by the curvature alone.
        rise = found.losses[:, 2, 3] - found.losses[:, 2, 1]
        slope = found.losses[:, 3, 2] - found.losses[:, 1, 2]
        assert (np.abs(rise) < 0.02 * slope).all()

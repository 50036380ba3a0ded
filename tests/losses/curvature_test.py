"""Curvature against PyTorch, dense Hessians, and its own limits."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import losses
from ddjax.losses import Curvature

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
TRAINED = ("conv", "scale", "bias", "head")


@pytest.fixture(scope="module")
def fixture():
    """What make_curvature_fixtures.py has written."""
    path = pathlib.Path(__file__).parent / "fixtures" / "curvature.npz"
    return dict(np.load(path))


@pytest.fixture(scope="module")
def batch(fixture):
    return fixture["images"] / 255, fixture["labels"]


def network(fixture, weights=None, activation=jax.nn.relu):
    """`images in [0, 1] -> logits`, with frozen statistics."""
    whole = {k: fixture[k] for k in (*TRAINED, "mean", "var")} | (weights or {})

    def logits_fn(images):
        given = {k: jnp.asarray(whole[k], images.dtype) for k in whole}
        x = (images - jnp.array(MEAN)) / jnp.array(STD)
        x = jax.lax.conv_general_dilated(
            x,
            given["conv"],
            (1, 1),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
        )
        x = (x - given["mean"]) / jnp.sqrt(given["var"] + 1e-5)
        x = activation(x * given["scale"] + given["bias"])
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ given["head"].T

    return logits_fn


def value_and_slopes(fixture, batch, options):
    images, labels = jnp.asarray(batch[0]), batch[1]
    weights = {k: jnp.asarray(fixture[k], images.dtype) for k in TRAINED}

    @jax.jit
    def both(weights, images):
        def penalty(weights):
            logits_fn = network(fixture, weights)
            return losses.curvature(logits_fn, images, labels, options, STD)

        return jax.value_and_grad(penalty)(weights)

    return both(weights, images)


def case(form, h, kind, literal):
    options = Curvature(form, 1.0, h, direction=kind, literal=literal)
    return f"{form} {h} {kind} {literal}", options


class TestReleasedForms:
    @pytest.mark.parametrize("form", ["loss_difference", "gradient_difference"])
    @pytest.mark.parametrize("h", [3.0, 0.3])
    @pytest.mark.parametrize(
        ("kind", "literal"),
        [("gradient", False), ("sign", False), ("gradient", True), ("sign", True)],
    )
    def test_value_and_slopes_are_those_of_torch(
        self, fixture, batch, form, h, kind, literal
    ):
        name, options = case(form, h, kind, literal)
        with jax.enable_x64(True):
            value, slopes = value_and_slopes(fixture, batch, options)
        assert float(value) == pytest.approx(float(fixture[name]), rel=1e-9)
        for part in TRAINED:  # stored in float32
            wanted = fixture[f"{name} {part}"]
            atol = 1e-6 * np.abs(wanted).max()
            np.testing.assert_allclose(slopes[part], wanted, rtol=0, atol=atol)

    @pytest.mark.parametrize("form", ["loss_difference", "gradient_difference"])
    @pytest.mark.parametrize(("h", "tolerance"), [(3.0, 2e-5), (0.3, 1e-4)])
    def test_float32_is_precise_enough(self, fixture, batch, form, h, tolerance):
        name, options = case(form, h, "gradient", False)
        images = batch[0].astype(np.float32), batch[1]
        value, slopes = value_and_slopes(fixture, images, options)
        assert float(value) == pytest.approx(float(fixture[name]), rel=tolerance)
        for part in TRAINED:
            wanted = fixture[f"{name} {part}"]
            atol = tolerance * np.abs(wanted).max()
            np.testing.assert_allclose(slopes[part], wanted, rtol=0, atol=atol)

    def test_the_released_norm_of_the_gradient_trains_nothing_and_ours_does(
        self, fixture, batch
    ):
        assert float(fixture["released gr slope"]) == 0
        _, slopes = value_and_slopes(fixture, batch, Curvature("gradient_norm", 1.0))
        assert all(float(jnp.abs(slopes[part]).max()) > 1e-3 for part in TRAINED)


class TestDirection:
    @pytest.mark.parametrize("kind", ["gradient", "sign"])
    @pytest.mark.parametrize("literal", [False, True])
    def test_is_that_of_torch(self, fixture, batch, kind, literal):
        images, labels = batch
        with jax.enable_x64(True):
            images = jnp.asarray(images)
            gradient = losses.input_gradient(network(fixture), images, labels) * (
                jnp.array(STD) / (6 if literal else 1)
            )
            z = losses.direction(gradient, 3.0, kind=kind, literal=literal)
        wanted = fixture[f"loss_difference 3.0 {kind} {literal} z"]
        np.testing.assert_allclose(z, wanted, rtol=0, atol=1e-6)

    def test_literal_lengths_are_those_of_torch(self, fixture):
        """3 for gradients that are long, 1164 for none: 224 pixels, h = 3."""
        unit = np.random.default_rng(0).normal(size=(1, 224, 224, 3))
        unit = (unit / np.linalg.norm(unit)).astype(np.float32)
        for norm, wanted in zip(fixture["norms"], fixture["literal lengths"]):
            gradient = jnp.asarray(np.float32(norm) * unit)
            z = losses.direction(gradient, 3.0, literal=True)
            assert float(jnp.linalg.norm(z)) == pytest.approx(wanted, rel=0.01)
            z = losses.direction(gradient, 3.0)
            assert float(jnp.linalg.norm(z)) == pytest.approx(3 * (norm > 0), rel=1e-5)

    def test_is_not_differentiated(self):
        g = jnp.ones((1, 2, 2, 1))
        slope = jax.grad(lambda g: losses.direction(g, 1.0).sum())(g)
        assert float(jnp.abs(slope).max()) == 0


class TestSecondOrder:
    def unit(self, fixture, images, labels, activation):
        logits_fn = network(fixture, activation=activation)
        gradient = losses.input_gradient(logits_fn, images, labels)
        return logits_fn, losses.direction(gradient, 1.0)

    def test_differences_tend_to_the_hessian_of_a_smooth_network(self, fixture, batch):
        with jax.enable_x64(True):
            images, labels = jnp.asarray(batch[0]), batch[1]
            logits_fn, v = self.unit(fixture, images, labels, jax.nn.softplus)
            exact = losses.hessian_norm(logits_fn, images, labels, v)
            errors = [
                losses.gradient_difference(logits_fn, images, labels, h * v) / h - exact
                for h in (1e-2, 1e-3)
            ]
        coarse, fine = (np.asarray(e) / np.asarray(exact) for e in errors)
        np.testing.assert_allclose(coarse / fine, 10, rtol=0.3)  # linear in h
        assert np.abs(10 * fine - coarse).max() / 9 < 1e-3, "and nothing beside it"

    def test_a_network_of_relus_is_curved_by_its_softmax_alone(self, fixture, batch):
        """H = J^T (diag p - p p^T) J, dense."""
        with jax.enable_x64(True):
            images, labels = jnp.asarray(batch[0]), batch[1]
            logits_fn, v = self.unit(fixture, images, labels, jax.nn.relu)
            found = losses.gauss_newton(logits_fn, images, v)
            norms = losses.hessian_norm(logits_fn, images, labels, v)
            p = np.asarray(jax.nn.softmax(logits_fn(images)))
            jacobians = [
                jax.jacobian(lambda x: logits_fn(x[None])[0])(x).reshape(4, -1)
                for x in images
            ]
        for i, jacobian in enumerate(map(np.asarray, jacobians)):
            inner = np.diag(p[i]) - np.outer(p[i], p[i])
            product = jacobian.T @ inner @ jacobian @ np.ravel(v[i])
            assert float(found[i]) == pytest.approx(
                float(product @ np.ravel(v[i])), rel=1e-12
            )
            assert float(norms[i]) == pytest.approx(np.linalg.norm(product), rel=1e-12)

    def test_the_penalty_is_the_mean_of_the_form(self, fixture, batch):
        images, labels = (jnp.asarray(part, jnp.float32) for part in batch)
        labels = labels.astype(jnp.int32)
        logits_fn, v = self.unit(fixture, images, labels, jax.nn.relu)
        norms = losses.hessian_norm(logits_fn, images, labels, v)
        for form, wanted in (
            ("hessian_norm", norms.mean()),
            ("hessian_norm_squared", (norms**2).mean()),
            ("gauss_newton", losses.gauss_newton(logits_fn, images, v).mean()),
        ):
            options = Curvature(form, 1.0, units="pixels")
            found = losses.curvature(logits_fn, images, labels, options)
            assert float(found) == pytest.approx(float(wanted), rel=1e-5)


class TestUnits:
    def test_of_steps_and_gradients(self, fixture, batch):
        images, labels = jnp.asarray(batch[0], jnp.float32), batch[1]
        std = (0.2,) * 3

        def penalty(form, h, units):
            options = Curvature(form, 1.0, h, units=units)
            return float(
                losses.curvature(network(fixture), images, labels, options, std)
            )

        for form, power in (
            ("loss_difference", 0),
            ("gradient_difference", 1),
            ("gradient_difference_squared", 2),
        ):
            model = penalty(form, 3.0, "model")
            pixels = penalty(form, 0.6, "pixels")
            assert model == pytest.approx(pixels * 0.2**power, rel=1e-4)
            rms = penalty(form, 3.0 / np.sqrt(90), "model_rms")
            assert rms == pytest.approx(model, rel=1e-4)
            rms = penalty(form, 0.6 / np.sqrt(90), "pixels_rms")
            assert rms == pytest.approx(pixels, rel=1e-4)

    @pytest.mark.parametrize("form", losses.CURVATURES)
    def test_a_larger_batch_is_no_other_penalty(self, fixture, batch, form):
        once = jnp.asarray(batch[0], jnp.float32), jnp.asarray(batch[1])
        twice = tuple(jnp.concatenate([part, part]) for part in once)
        options = Curvature(form, 1.0)
        first, second = (
            float(losses.curvature(network(fixture), *part, options, STD))
            for part in (once, twice)
        )
        assert first == pytest.approx(second, rel=1e-5) and first > 0

    def test_but_the_literal_one(self, fixture, batch):
        once = jnp.asarray(batch[0], jnp.float32), jnp.asarray(batch[1])
        twice = tuple(jnp.concatenate([part, part]) for part in once)
        options = Curvature("gradient_difference", 1.0, literal=True)
        first, second = (
            float(losses.curvature(network(fixture), *part, options, STD))
            for part in (once, twice)
        )
        assert first == pytest.approx(2 * second, rel=1e-4)

    @pytest.mark.parametrize("form", losses.CURVATURES)
    def test_images_without_a_gradient_are_not_curved(self, form):
        """Logits that are constant: zero, and derivatives of zero, not NaN."""
        images, labels = jnp.full((2, 3, 3, 1), 0.5), jnp.array([0, 1])

        def penalty(weight):
            def logits_fn(images):
                hidden = jax.nn.relu(weight * images - 10.0).reshape(2, -1)
                return hidden @ jnp.ones((9, 2))

            return losses.curvature(logits_fn, images, labels, Curvature(form, 1.0))

        value, slope = jax.value_and_grad(penalty)(1.0)
        assert float(value) == 0 and float(slope) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "hessian"}, "unknown form of curvature 'hessian'; known: loss_diff"),
        ({"direction": "up"}, "unknown direction of curvature 'up'; known: gradient"),
        ({"units": "255"}, "unknown units of curvature '255'; known: model, pixels"),
        ({"weight": -1.0}, "has weight -1.0 and h 3.0; it needs a weight of 0"),
        ({"h": 0.0}, "has weight 0.0 and h 0.0"),
        ({"form": "gauss_newton", "literal": True}, "no 'gauss_newton'; literal is"),
    ],
)
def test_refuses_what_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        Curvature(**change).check()
    assert not Curvature().acts and Curvature(weight=1.0).acts

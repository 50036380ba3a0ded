"""Generators: their spaces, their options, and plain sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import diffusion
from ddjax.diffusion import Generator, schedule, steps

MODEL = {"width": 16, "depth": 1, "heads": 2, "patch": 2}
AUTOENCODER = {"widths": (4, 8), "blocks": 1, "channels": 2, "groups": 2, "scale": 0.5}
KEPT = schedule.respaced(schedule.linear(), "10")


@pytest.fixture(scope="module")
def latent(tiny_info):
    return diffusion.create(tiny_info, model=MODEL, autoencoder=AUTOENCODER)


@pytest.fixture(scope="module")
def variables(latent):
    """Of `latent`; a denoiser's fresh ones would predict nothing."""
    found = latent.init(jax.random.key(2))
    leaves, form = jax.tree.flatten(found["denoiser"])
    random = np.random.default_rng(0)
    leaves = [0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    return {**found, "denoiser": jax.tree.unflatten(form, leaves)}


def test_pixels_go_there_and_back(tiny_info, key):
    generator = diffusion.create(tiny_info, model=MODEL)
    variables = generator.init(key)
    assert variables["autoencoder"] == {}
    images = jax.random.uniform(key, (2, 8, 8, 3))
    z = generator.encode(variables, images)
    assert (float(z.min()), float(z.max())) == pytest.approx((-1, 1), abs=0.02)
    np.testing.assert_allclose(generator.decode(variables, z), images, atol=1e-6)
    assert generator.latent_shape == (8, 8, 3)


def test_latents_are_the_autoencoders(latent, variables, tiny_info, key):
    images = jax.random.uniform(key, (2, 8, 8, 3))
    assert latent.latent_shape == (4, 4, 2)
    module = diffusion.build_autoencoder(tiny_info, AUTOENCODER)

    @jax.jit
    def both(variables, images):
        again, mean, _ = module.apply(variables["autoencoder"], 2 * images - 1)
        z = latent.encode(variables, images)
        return again, mean, z, latent.decode(variables, z)

    again, mean, z, decoded = both(variables, images)
    np.testing.assert_allclose(z, 0.5 * mean, atol=1e-5)
    np.testing.assert_allclose(2 * decoded - 1, again, atol=1e-5)


def test_equal_options_give_the_same_functions(latent, tiny_info):
    options = {**AUTOENCODER, "widths": [4, 8]}  # as a config file has them
    same = diffusion.create(tiny_info, model=dict(MODEL), autoencoder=options)
    assert same is latent
    other = diffusion.create(tiny_info, model={**MODEL, "learn_sigma": True})
    assert other is not latent
    z = jnp.zeros((1, 8, 8, 3))
    labels = jnp.array([3])  # the null label
    variables = jax.eval_shape(other.init, jax.random.key(0))
    _, variance = jax.eval_shape(other.denoise, variables, z, labels, labels)
    assert variance.shape == z.shape


def test_options_that_do_not_suit_are_refused(tiny_info):
    with pytest.raises(ValueError, match="denoiser has no option 'size'; known: depth"):
        diffusion.create(tiny_info, model={**MODEL, "size": 3})
    with pytest.raises(
        ValueError, match="autoencoder has no option 'width'; known: bl"
    ):
        diffusion.create(tiny_info, model=MODEL, autoencoder={"width": 3})
    with pytest.raises(ValueError, match="3 widths halve|widths halve an image"):
        diffusion.create(tiny_info, model=MODEL, autoencoder={"widths": (4,) * 5})
    with pytest.raises(ValueError, match="patch"):
        diffusion.create(tiny_info, model={**MODEL, "patch": 3})


def gaussians(means, spread=0.2):
    """A generator that knows its noise: each class is a Gaussian around its mean."""
    bars, shape = np.asarray(schedule.linear().alpha_bar, np.float32), (2, 2, 1)

    def denoise(variables, z, t, labels):
        bar = jnp.asarray(bars)[t][:, None, None, None]
        mean = jnp.append(variables["means"], 0.0)[labels][:, None, None, None]
        apart = z - jnp.sqrt(bar) * mean
        return jnp.sqrt(1 - bar) * apart / (bar * spread**2 + 1 - bar), None

    return Generator(None, denoise, None, lambda _, z: z, shape, len(means)), {
        "means": jnp.array(means)
    }


@pytest.mark.parametrize("sampler", diffusion.sampling.SAMPLERS)
def test_samples_are_of_their_classes(key, sampler):
    generator, variables = gaussians((-1.0, 0.5, 2.0))
    labels = jnp.repeat(jnp.arange(3), 200)
    # Of few steps DDPM's variance is too small: see steps_test.
    kept = schedule.respaced(schedule.linear(), "500")
    z = diffusion.sample(
        key, generator, variables, labels, schedule=kept, sampler=sampler
    )
    assert z.shape == (600, 2, 2, 1)
    by_class = z.reshape(3, -1)
    np.testing.assert_allclose(by_class.mean(1), variables["means"], atol=0.04)
    np.testing.assert_allclose(by_class.std(1), 0.2, rtol=0.1)


def test_guidance_is_away_from_the_null_class(key):
    """The null class is at 0, so a scale of 2 doubles a class's distance from it."""
    generator, variables = gaussians((-1.0, 0.5, 2.0))
    labels = jnp.repeat(jnp.arange(3), 100)
    z = diffusion.sample(
        key, generator, variables, labels, schedule=KEPT, scale=2.0, sampler="ddim"
    )
    means = z.reshape(3, -1).mean(1)
    np.testing.assert_allclose(means, 2 * variables["means"], atol=0.1)


def test_guidance_is_what_two_calls_would_give(latent, variables, key):
    z = jax.random.normal(key, (2, 4, 4, 2))
    t, labels = jnp.array([3, 900]), jnp.array([0, 2])

    @jax.jit
    def both(variables, z):
        one, _ = latent.denoise(variables, z, t, labels)
        null, _ = latent.denoise(variables, z, t, jnp.array([3, 3]))
        found = [
            diffusion.predict(latent, variables, z, t, labels, scale=3.0, channels=n)[0]
            for n in (None, 1)
        ]
        return one, null, found

    one, null, guided = both(variables, z)
    for channels, found in zip((None, 1), guided):
        wanted = steps.classifier_free(one, null, 3.0, channels)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(one - null).max()) > 0.01


def test_an_unknown_sampler_is_refused(key):
    generator, variables = gaussians((0.0,))
    with pytest.raises(ValueError, match="unknown sampler 'euler'; known: ddpm, ddim"):
        diffusion.sample(
            key, generator, variables, jnp.zeros(1, int), schedule=KEPT, sampler="euler"
        )

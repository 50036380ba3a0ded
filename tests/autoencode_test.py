"""Training of autoencoders: by hand, and the scale of what comes out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import autoencode, diffusion

OPTIONS = {"widths": (4,), "blocks": 1, "channels": 2, "groups": 2, "scale": 0.2}
RECIPE = autoencode.Recipe(
    num_steps=20, batch_size=15, learning_rate=1e-2, kl_weight=0.01, flip=False
)


@pytest.fixture(scope="module")
def module(tiny_info):
    return diffusion.build_autoencoder(tiny_info, OPTIONS)


@pytest.fixture(scope="module")
def trained(module, tiny_data):
    """Variables before and after, and what was reported."""
    state = autoencode.init(jax.random.key(0), module, RECIPE, (8, 8, 3))
    first, reports = autoencode.variables(state), []
    step = jax.jit(autoencode.make_step(module, RECIPE, 15))
    for index in range(RECIPE.num_steps):
        state, report = step(state, index, (tiny_data.images,), jax.random.key(1))
        reports.append(jax.device_get(report))
    return first, autoencode.variables(state), reports


def test_the_loss_is_the_papers(module, trained, tiny_data):
    """Of the first step, where all images are in the batch."""
    first, _, reports = trained
    pixels = tiny_data.images / np.float32(127.5) - 1
    _, mean, logvar = jax.jit(module.apply)(first, pixels)
    mean, logvar = np.asarray(mean), np.asarray(logvar)
    divergence = (mean**2 + np.exp(logvar) - 1 - logvar).sum((1, 2, 3)) / 2
    wanted = 0.01 * float(divergence.mean()) / pixels[0].size
    assert float(reports[0]["divergence"]) == pytest.approx(wanted, rel=1e-4)
    total = float(reports[0]["difference"] + reports[0]["divergence"])
    assert float(reports[0]["loss"]) == pytest.approx(total, rel=1e-6)


def test_it_learns(trained):
    reports = trained[2]
    assert reports[-1]["difference"] < 0.95 * reports[0]["difference"]


def test_normalised_latents_have_scale_one_and_the_same_images(
    module, trained, tiny_data
):
    variables = trained[1]
    found = autoencode.normalised(module, variables, tiny_data.images)
    pixels = tiny_data.images / np.float32(127.5) - 1

    @jax.jit
    def look(variables):
        z = module.apply(variables, pixels, method="encode")
        draw = jax.random.normal(jax.random.key(5), z.shape)
        again, _, logvar = module.apply(variables, pixels, draw)
        return z, again, logvar

    z, again, logvar = look(variables)
    scaled, same, moved = look(found)
    assert float(scaled.std()) == pytest.approx(1.0, rel=1e-4)
    np.testing.assert_allclose(scaled, z / z.std(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(same, again, atol=1e-4)  # the draws are scaled too
    np.testing.assert_allclose(moved - logvar, -2 * jnp.log(z.std()), atol=1e-3)


def test_what_cannot_be_is_refused(module):
    with pytest.raises(ValueError, match="num_steps 0"):
        autoencode.make_step(module, RECIPE._replace(num_steps=0), 15)

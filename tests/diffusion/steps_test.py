"""Steps of a diffusion: against PyTorch, closed forms, and an exact denoiser."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.diffusion import schedule, steps

PATH = pathlib.Path(__file__).parent / "fixtures" / "steps.npz"
KEPT = schedule.respaced(schedule.linear(), "50")
MEANS, SPREAD = ((1.0, -0.5, 0.3, 0.8), (-0.7, 0.9, -1.1, 0.2)), 0.3


@pytest.fixture(scope="module")
def golden():
    with np.load(PATH) as found:
        return dict(found)


def close(found, wanted, tolerance=1e-6):
    """In units of the largest number: predictions of z_0 reach 70."""
    scale = max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(found / scale, wanted / scale, atol=tolerance)


def mixture_noise(bar, z, means=MEANS, masses=None):
    """The mean noise given z [N, d], where clean points are a mixture of Gaussians."""
    means = jnp.array(means) * jnp.sqrt(bar)
    variance = bar * SPREAD**2 + 1 - bar
    apart = z[:, None] - means
    logits = -jnp.sum(apart**2, -1) / (2 * variance)
    logits += 0 if masses is None else jnp.log(jnp.array(masses))
    share = jax.nn.softmax(logits)
    return jnp.sqrt(1 - bar) * jnp.einsum("nk,nkd->nd", share, apart) / variance


class TestAgainstPyTorch:
    @pytest.mark.parametrize("learned", [True, False])
    def test_ddpm(self, golden, learned):
        variance = golden["variance"] if learned else None
        found = steps.ddpm_step(
            KEPT,
            golden["index"],
            golden["z"],
            golden["noise"],
            variance,
            golden["draw"],
        )
        close(found, golden[f"ddpm {'learned' if learned else 'fixed'}"])

    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_ddim(self, golden, eta):
        found = steps.ddim_step(
            KEPT, golden["index"], golden["z"], golden["noise"], golden["draw"], eta
        )
        close(found, golden[f"ddim {eta}"])

    @pytest.mark.parametrize("channels", [3, 4, None])
    def test_classifier_free_guidance(self, golden, channels):
        found = steps.classifier_free(golden["noise"], golden["null"], 4.0, channels)
        close(found, golden[f"guided {channels or 4}"])

    @pytest.mark.parametrize(("name", "eta"), [("ddpm", None), ("ddim", 0.5)])
    def test_a_trajectory_of_given_draws(self, golden, name, eta):
        draws = golden["draws"]
        bars = np.asarray(KEPT.alpha_bar, np.float32)
        z = draws[-1]
        for i in reversed(range(50)):
            noise = mixture_noise(bars[i], z)
            if eta is None:
                z = steps.ddpm_step(KEPT, i, z, noise, None, draws[i])
            else:
                z = steps.ddim_step(KEPT, i, z, noise, draws[i], eta)
        np.testing.assert_allclose(z, golden[f"path {name}"], atol=1e-3)


def test_a_traced_index_is_like_a_number_and_like_a_row(golden):
    z, noise, draw = (jnp.array(golden[k]) for k in ("z", "noise", "draw"))
    rows = steps.ddpm_step(KEPT, golden["index"], z, noise, None, draw)
    one = jax.jit(lambda i, k: steps.ddpm_step(KEPT, i, z[k], noise[k], None, draw[k]))
    for k, index in enumerate(golden["index"]):
        np.testing.assert_allclose(one(index, k), rows[k], rtol=1e-5, atol=1e-5)


def test_the_exact_noise_gives_back_the_clean_latents(key):
    with jax.enable_x64(True):
        z0, noise = jax.random.normal(key, (2, 50, 3, 3, 4), jnp.float64)
        index = np.arange(50)
        noisy = steps.noised(KEPT, index, z0, noise)
        found = steps.clean(KEPT, index, noisy, noise)
        np.testing.assert_allclose(found, z0, atol=1e-11)


def test_the_last_step_gives_the_clean_latents(key):
    with jax.enable_x64(True):
        z0, noise, draw = jax.random.normal(key, (3, 4, 8), jnp.float64)
        noisy = steps.noised(KEPT, 0, z0, noise)
        ancestral = steps.ddpm_step(KEPT, 0, noisy, noise, None, draw)
        np.testing.assert_allclose(ancestral, z0, atol=1e-12)
        implicit = steps.ddim_step(KEPT, 0, noisy, noise, draw, 1.0)
        np.testing.assert_allclose(implicit, z0, atol=1e-12)


def test_ddim_of_eta_one_is_ddpm_of_fixed_variance(key):
    """Mean and variance: both are the posterior given the predicted z_0."""
    with jax.enable_x64(True):
        z, noise, draw = jax.random.normal(key, (3, 49, 8), jnp.float64)
        index = np.arange(1, 50)
        one = steps.ddpm_step(KEPT, index, z, noise, None, draw)
        other = steps.ddim_step(KEPT, index, z, noise, draw, 1.0)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_ddim_without_chance_keeps_the_noise(key):
    """From noised at one index to noised, by the same noise, at the one before."""
    with jax.enable_x64(True):
        z0, noise = jax.random.normal(key, (2, 50, 8), jnp.float64)
        index = np.arange(1, 50)
        z = steps.noised(KEPT, index, z0[1:], noise[1:])
        found = steps.ddim_step(KEPT, index, z, noise[1:], noise[1:])
        wanted = steps.noised(KEPT, index - 1, z0[1:], noise[1:])
        np.testing.assert_allclose(found, wanted, atol=1e-10)


def test_the_posterior_is_that_of_a_gaussian_chain():
    """By Bayes' rule on the joint of z_{t-1} and z_t, given z_0."""
    bar, before, beta = KEPT.alpha_bar, KEPT.alpha_bar_prev, KEPT.beta
    precision = (1 - beta) / beta + 1 / np.maximum(1 - before, 1e-300)
    np.testing.assert_allclose(
        KEPT.posterior_variance[1:], 1 / precision[1:], rtol=1e-11
    )
    with jax.enable_x64(True):
        z0, z = 0.7, 1.3
        index = np.arange(1, 50)
        mean = (
            np.sqrt(1 - beta) / beta * z + np.sqrt(before) / (1 - before + 1e-300) * z0
        ) / precision
        shape = np.ones((49, 1))
        found = steps.posterior_mean(KEPT, index, z0 * shape, jnp.array(z * shape))
        np.testing.assert_allclose(found[:, 0], mean[1:], rtol=1e-10)
    assert np.all(np.diff(bar) < 0)


def test_guidance_by_one_is_the_class_and_by_zero_is_none(golden):
    noise, null = golden["noise"], golden["null"]
    close(steps.classifier_free(noise, null, 1.0), noise)
    close(steps.classifier_free(noise, null, 0.0), null)
    with_rest = steps.classifier_free(noise, null, 0.0, 3)
    close(with_rest[..., :3], null[..., :3])
    np.testing.assert_array_equal(with_rest[..., 3], noise[..., 3])


@pytest.mark.parametrize(("sampler", "num_steps"), [("ddpm", 1000), ("ddim", 100)])
def test_the_exact_score_of_a_mixture_gives_back_its_moments(key, sampler, num_steps):
    """4000 points in two dimensions, masses 0.3 and 0.7, within five standard errors.

    Of few steps the posterior's variance is too small (by 10% at 100 of them): it is
    that of a known z_0, and the network knows only its mean.
    """
    means, masses = jnp.array(((1.0, -0.5), (-0.7, 0.9))), (0.3, 0.7)
    kept, count = schedule.respaced(schedule.linear(), num_steps), 4000
    bars = jnp.array(kept.alpha_bar, jnp.float32)
    key_start, key_draws = jax.random.split(key)

    def body(z, index):
        noise = mixture_noise(bars[index], z, means, masses)
        draw = jax.random.normal(jax.random.fold_in(key_draws, index), z.shape)
        if sampler == "ddpm":
            return steps.ddpm_step(kept, index, z, noise, None, draw), None
        return steps.ddim_step(kept, index, z, noise, draw, 0.3), None

    start = jax.random.normal(key_start, (count, 2))
    order = jnp.arange(num_steps)[::-1]
    z, _ = jax.jit(lambda z: jax.lax.scan(body, z, order))(start)
    first = jnp.sum((z - means[0]) ** 2, 1) < jnp.sum((z - means[1]) ** 2, 1)
    assert abs(first.mean() - 0.3) < 5 * (0.21 / count) ** 0.5
    for mine, mean in ((z[first], means[0]), (z[~first], means[1])):
        error = SPREAD / len(mine) ** 0.5
        np.testing.assert_allclose(mine.mean(0), mean, atol=5 * error)
        np.testing.assert_allclose(mine.std(0), SPREAD, rtol=0.06)

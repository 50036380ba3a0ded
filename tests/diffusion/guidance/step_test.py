"""How far the terms move a latent, and at which steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.diffusion.guidance import step


class Table(NamedTuple):
    alpha_bar: np.ndarray


def linear(kept):
    """The published schedule of 1000 steps, of which so many are kept."""
    whole = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return Table(whole[np.round(np.arange(kept) * 999 / (kept - 1)).astype(int)])


@pytest.fixture
def latents():
    """A noise, and gradients of very different lengths."""
    noise, *gradients = jax.random.normal(jax.random.key(0), (4, 6, 5, 4))
    return noise, [s * g for s, g in zip((1e-22, 1.0, 1e8), gradients)]


def rms(x):
    return np.sqrt(np.mean(np.square(np.asarray(x, np.float64))))


@pytest.mark.parametrize("alpha_bar", [0.0, 2e-4, 0.3])
def test_moves_by_a_share_of_the_noise(latents, alpha_bar):
    """k 0.0015 sqrt(1 - alpha_bar) rms(noise), IGD's rule, along the gradient."""
    noise, gradients = latents
    for gradient in gradients:
        moved = step.normalised(gradient, noise, alpha_bar, 5 * 0.0015)
        expected = 5 * 0.0015 * np.sqrt(1 - alpha_bar) * rms(noise)
        assert rms(moved) == pytest.approx(expected, rel=1e-6)
        direction = np.asarray(gradient, np.float64)
        direction *= expected / rms(direction)
        np.testing.assert_allclose(moved, direction, rtol=1e-5)


def test_no_gradient_is_no_step(latents):
    """Not a NaN, alone or beside a class that has one."""
    noise, gradients = latents
    both = jnp.stack([gradients[0], 0 * noise])
    moved = jax.jit(jax.vmap(lambda g: step.normalised(g, noise, 0.1, 0.01)))(both)
    assert rms(moved[0]) > 0 and (moved[1] == 0).all()


class TestWindow:
    def test_is_igds_for_fifty_steps(self):
        assert step.window(linear(50)) == range(30, 46)

    @pytest.mark.parametrize("kept", [25, 100, 250, 1000])
    def test_means_the_same_for_other_numbers_of_steps(self, kept):
        found, table = step.window(linear(kept)), linear(kept).alpha_bar
        assert len(found) == pytest.approx(0.325 * kept, abs=1 + 0.01 * kept)
        inside = table[found.start : found.stop]
        assert 1.6e-4 <= inside.min() and inside.max() <= 0.025
        around = [table[i] for i in (found.start - 1, found.stop)]
        assert around[0] > 0.025 and around[1] < 1.6e-4

    def test_may_be_empty_or_everything(self):
        assert len(step.window(linear(50), (0.0, 1e-9))) == 0
        assert step.window(linear(50), (0.0, 1.0)) == range(50)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"from 0.1 to 0.01; it needs"):
        step.window(linear(50), (0.1, 0.01))

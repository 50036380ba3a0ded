"""The loss of a denoiser, against PyTorch and by what its terms may teach."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.diffusion import objective, schedule

PATH = pathlib.Path(__file__).parent / "fixtures" / "objective.npz"
LINEAR = schedule.linear()


@pytest.fixture(scope="module")
def golden():
    with np.load(PATH) as found:
        return dict(found)


def terms(golden, found, variance):
    given = (jnp.array(golden[k]) for k in ("index", "z0", "noise"))
    return objective.terms(lambda z, t: (found, variance), LINEAR, *given)


def test_terms_and_slopes_are_those_of_pytorch(golden):
    with jax.enable_x64(True):
        found, variance = jnp.array(golden["found"]), jnp.array(golden["variance"])
        made = terms(golden, found, variance)
        assert float(made["noise"]) == pytest.approx(float(golden["mse"]), rel=1e-12)
        bits = float(golden["bound"].mean())
        assert float(made["bound"]) == pytest.approx(bits, rel=1e-9)
        slopes = jax.grad(lambda *x: sum(terms(golden, *x).values()), (0, 1))
        of_found, of_variance = slopes(found, variance)
        np.testing.assert_allclose(of_found, golden["slope found"], atol=1e-12)
        np.testing.assert_allclose(
            of_variance, golden["slope variance"], rtol=1e-7, atol=1e-12
        )


def test_the_bound_of_each_image_is_pytorchs(golden):
    with jax.enable_x64(True):
        index, z0, noise = (jnp.array(golden[k]) for k in ("index", "z0", "noise"))
        bar = LINEAR.alpha_bar[golden["index"]].reshape(-1, 1, 1, 1)
        z = np.sqrt(bar) * z0 + np.sqrt(1 - bar) * noise
        found = objective.bound(
            LINEAR, index, z0, z, golden["found"], jnp.array(golden["variance"])
        )
        np.testing.assert_allclose(found, golden["bound"], rtol=1e-9)


def test_without_a_variance_there_is_no_bound(golden):
    found = jnp.array(golden["found"])
    assert list(terms(golden, found, None)) == ["noise"]


def test_the_network_is_told_the_timesteps_of_the_indices(golden):
    told = []

    def denoise(z, t):
        told.append(t)
        return z, None

    half = schedule.respaced(LINEAR, "ddim500")
    index = jnp.array([0, 1, 7, 499])
    objective.terms(denoise, half, index, golden["z0"], golden["noise"])
    assert told[0].tolist() == [0, 2, 14, 998]


def test_labels_are_dropped_at_the_rate_and_to_the_null_label(key):
    labels = jnp.arange(20_000) % 7
    shown = objective.dropped(key, labels, 0.1, 7)
    gone = shown == 7
    assert abs(float(gone.mean()) - 0.1) < 0.01
    np.testing.assert_array_equal(shown[~gone], labels[~gone])

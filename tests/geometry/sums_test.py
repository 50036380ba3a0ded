"""Sums of logarithms by matrix products against the logarithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import geometry


def _both(base, x, plan, kappa):
    """(what is found, what is wanted, the slope of what is found)."""
    logs = geometry.log(base[:, None], x, kappa)
    found = geometry.log_sums(base, x, plan, kappa)
    slope = jax.grad(lambda b: geometry.log_sums(b, x, plan, kappa).sum())(base)
    return found, jnp.einsum("nm,mnd->md", plan, logs), slope


TRACED = jax.jit(_both)


@pytest.mark.parametrize("kappa", [-1.0, 0.0, 0.7, None])
def test_sums_of_logarithms(kappa):
    rng = np.random.default_rng(0)
    x, base = rng.normal(size=(2, 12, 3)).astype(np.float32) / 3
    base = base[:5]
    base[0], base[1] = x[0], 0  # coincident, and the origin
    plan = rng.uniform(size=(12, 5)).astype(np.float32)
    of = TRACED if kappa is not None else _both  # of the number 0, left out
    found, wanted, slope = of(jnp.array(base), x, plan, kappa or 0.0)
    np.testing.assert_allclose(found, wanted, atol=3e-6)
    assert np.isfinite(slope).all()

"""The network of a step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddjax import matching, models
from ddjax.types import Context

NETWORK = models.Network(
    lambda key: {"params": jax.random.normal(key, (2,)), "batch_stats": {}}, None, None
)


def test_random_is_fresh_at_every_key():
    first, second = (
        matching.network_of(jax.random.key(k), NETWORK, "random", Context())
        for k in range(2)
    )
    chex.assert_trees_all_equal(first, NETWORK.init(jax.random.key(0)))
    assert (first["params"] != second["params"]).all()


def test_pool_is_on_the_line_from_first_to_last():
    """Members as often as each other, ages uniform, all leaves of one member and age."""
    member = jnp.arange(4.0)
    first = {"params": {"a": 10 * member, "b": jnp.stack([member, -member], 1)}}
    last = jax.tree.map(lambda x: x + 1, first)
    keys = jax.random.split(jax.random.key(0), 2000)
    found = jax.jit(
        jax.vmap(
            lambda key: matching.network_of(
                key, NETWORK, "pool", Context(pool=(first, last))
            )
        )
    )(keys)["params"]
    a, b = np.asarray(found["a"]), np.asarray(found["b"])
    which, age = a // 10, a % 10
    assert stats.chisquare(np.bincount(which.astype(int), minlength=4)).pvalue > 1e-3
    assert stats.kstest(age, stats.uniform().cdf).pvalue > 1e-3
    np.testing.assert_allclose(b[:, 0], which + age, atol=1e-4)
    np.testing.assert_allclose(b[:, 1], age - which, atol=1e-4)


def test_what_is_required():
    assert matching.check_source("pool") == ("pool",)
    assert matching.check_source("random") == ()
    with pytest.raises(ValueError, match="unknown networks 'old'; known: random, pool"):
        matching.check_source("old")

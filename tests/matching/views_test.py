"""Real and synthetic images of a class are seen alike."""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import matching, models
from ddjax.data import dsa

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NETWORK = models.Network(None, None, None, None, MEAN, STD)


def see(seed, real, synthetic, strategy=dsa.STRATEGY):
    key = jax.random.key(seed)
    return jax.jit(matching.siamese, static_argnums=(1, 2))(
        key, strategy, NETWORK, real, synthetic
    )


def test_batches_of_different_length_are_seen_alike():
    real = jax.random.uniform(jax.random.key(0), (3, 16, 8, 8, 3))
    changed = set()
    for seed in range(20):
        seen, own = see(seed, real, real[:, 2:5])
        assert seen.shape == real.shape
        np.testing.assert_allclose(seen[:, 2:5], own, atol=1e-5)
        apart = np.abs(seen - real).max((1, 2, 3, 4))
        changed.add(tuple(np.round(apart / apart.max(), 3)))
    assert len(changed) == 20  # each key, and each class, has its own draw
    assert any(len(set(apart)) == 3 for apart in changed)


def test_operators_work_on_normalised_images():
    """What a cutout leaves is the mean colour, not black."""
    real = jnp.ones((1, 4, 8, 8, 3))
    seen, _ = see(0, real, real, "cutout")
    hidden = seen[seen[..., 0] < 0.9].reshape(-1, 3)
    assert len(hidden)
    np.testing.assert_allclose(hidden, np.tile(MEAN, (len(hidden), 1)), atol=1e-6)


def test_no_strategy_is_the_images_themselves():
    images = jnp.ones((2, 3, 8, 8, 3))
    assert matching.siamese(None, "", NETWORK, images, images) == (images, images)


def test_the_synthetic_images_have_a_gradient():
    images = jax.random.uniform(jax.random.key(0), (2, 3, 8, 8, 3))

    def bright(own):
        pair = matching.siamese(jax.random.key(1), dsa.STRATEGY, NETWORK, images, own)
        return pair[1].sum()

    assert np.abs(jax.jit(jax.grad(bright))(images)).max((1, 2, 3, 4)).min() > 0.1

"""CutMix against its paper's code and a simulation; MixUp against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddjax.data import mixing


def marked(count, height, width):
    """Images in which every pixel has a number of its own, as float32."""
    return jnp.arange(count * height * width, dtype=jnp.float32).reshape(
        count, height, width, 1
    )


class TestCutMixBox:
    def test_golden_box(self):
        box = mixing.cutmix_box(224, 224, 0.36, jnp.array([10, 200]))
        np.testing.assert_array_equal(box, [0, 111, 99, 224])

    def test_equals_the_paper_s_code(self):
        """rand_bbox of clovaai/CutMix-PyTorch, with height and width told apart."""
        random = np.random.default_rng(0)
        height, width = 30, 47
        for _ in range(50):
            ratio = np.float32(random.uniform())
            row, column = random.integers(height), random.integers(width)
            side = np.sqrt(np.float32(1) - ratio)
            half_h, half_w = int(height * side) // 2, int(width * side) // 2
            wanted = [
                np.clip(row - half_h, 0, height),
                np.clip(column - half_w, 0, width),
                np.clip(row + half_h, 0, height),
                np.clip(column + half_w, 0, width),
            ]
            box = mixing.cutmix_box(height, width, ratio, jnp.array([row, column]))
            np.testing.assert_array_equal(box, wanted)

    def test_ends_of_the_ratio(self):
        centre = jnp.array([4, 5])
        top, left, bottom, right = mixing.cutmix_box(8, 10, 1.0, centre)
        assert (bottom - top) * (right - left) == 0
        box = mixing.cutmix_box(8, 10, 0.0, centre)
        np.testing.assert_array_equal(box, [0, 0, 8, 10])


@pytest.fixture(scope="module")
def mixes():
    """Five images, and 400 CutMixes of them."""
    images = marked(5, 9, 12)
    keys = jax.random.split(jax.random.key(0), 400)
    mix = jax.jit(jax.vmap(lambda key: mixing.cutmix(key, images)))
    return np.asarray(images), jax.tree.map(np.asarray, mix(keys))


class TestCutMix:
    def test_pasted_pixels_are_the_partner_s_at_the_same_place(self, mixes):
        images, mixes = mixes
        for mixed, partner, _ in zip(*mixes):
            own = mixed == images
            np.testing.assert_array_equal(np.where(own, images, images[partner]), mixed)

    def test_partners_are_a_permutation(self, mixes):
        _, mixes = mixes
        np.testing.assert_array_equal(
            np.sort(mixes.partner, axis=1), np.tile(np.arange(5), (400, 1))
        )
        assert len({tuple(row) for row in mixes.partner}) > 50

    def test_share_is_the_area_kept(self, mixes):
        images, mixes = mixes
        for mixed, partner, share in zip(*mixes):
            moved = partner != np.arange(5)
            kept = (mixed == images).mean((1, 2, 3))
            np.testing.assert_allclose(kept[moved], share, atol=1e-6)
            np.testing.assert_array_equal(kept[~moved], 1)

    def test_pasted_pixels_are_one_box_for_the_whole_batch(self, mixes):
        images, mixes = mixes
        for mixed, partner, share in zip(*mixes):
            pasted = [m != i for m, i, p in zip(mixed, images, partner)]
            pasted = [p for p, k in zip(pasted, partner != np.arange(5)) if k]
            if not pasted or share == 1:
                continue
            rows, columns, _ = np.nonzero(pasted[0])
            area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert pasted[0].sum() == area
            for other in pasted[1:]:
                np.testing.assert_array_equal(other, pasted[0])

    def test_shares_are_distributed_as_the_paper_s(self, mixes):
        """Beta(1, 1), a uniform centre, then clipping: simulated with numpy."""
        random = np.random.default_rng(0)
        shares = []
        for _ in range(4000):
            side = np.sqrt(1 - random.beta(1, 1))
            kept = 1.0
            for size in (9, 12):
                half, centre = int(size * side) // 2, random.integers(size)
                low, high = np.clip([centre - half, centre + half], 0, size)
                kept *= (high - low) / size
            shares.append(1 - kept)
        # In pixels, so that ties are exact.
        pixels = [np.rint(np.multiply(x, 9 * 12)) for x in (mixes[1].share, shares)]
        assert stats.ks_2samp(*pixels).pvalue > 1e-3

    def test_gradient_reaches_the_owners_of_the_pixels(self, key):
        """Each pixel of the batch is pasted somewhere or kept; none counts twice."""
        images = marked(4, 6, 6)
        mixed = mixing.cutmix(key, images).images
        gradient = jax.grad(lambda x: mixing.cutmix(key, x).images.sum())(images)
        counts = [np.sum(mixed == value) for value in np.asarray(images).ravel()]
        np.testing.assert_array_equal(np.ravel(gradient), counts)

    @pytest.mark.parametrize("alpha", [0.3, 4.0])
    def test_alpha_is_that_of_the_beta_distribution(self, alpha):
        """Large images, so that only the clipping differs from Beta(alpha, alpha)."""
        images = jnp.zeros((2, 400, 300, 1))
        keys = jax.random.split(jax.random.key(1), 300)
        shares = jax.jit(jax.vmap(lambda key: mixing.cutmix(key, images, alpha).share))(
            keys
        )
        random = np.random.default_rng(0)
        wanted = []
        for _ in range(3000):
            side, kept = np.sqrt(1 - random.beta(alpha, alpha)), 1.0
            for size in (400, 300):
                half, centre = int(size * side) // 2, random.integers(size)
                low, high = np.clip([centre - half, centre + half], 0, size)
                kept *= (high - low) / size
            wanted.append(1 - kept)
        assert stats.ks_2samp(np.asarray(shares), wanted).pvalue > 1e-3


class TestMixUp:
    def test_is_the_weighted_mean_of_image_and_partner(self, key):
        images = marked(5, 2, 3)
        mixed, partner, share = mixing.mixup(key, images, 0.8)
        wanted = share * images + (1 - share) * images[partner]
        np.testing.assert_allclose(mixed, wanted, rtol=1e-6)
        assert 0 < float(share) < 1
        np.testing.assert_array_equal(np.sort(partner), np.arange(5))

    def test_a_batch_of_one_stays_what_it_is(self, key):
        images = marked(1, 3, 4)
        np.testing.assert_allclose(mixing.mixup(key, images).images, images, rtol=1e-6)

    @pytest.mark.parametrize("alpha", [0.8, 1.0, 3.0])
    def test_shares_are_distributed_as_beta(self, alpha):
        images = marked(2, 1, 1)
        keys = jax.random.split(jax.random.key(2), 1000)
        shares = jax.jit(jax.vmap(lambda key: mixing.mixup(key, images, alpha).share))
        test = stats.kstest(np.asarray(shares(keys)), stats.beta(alpha, alpha).cdf)
        assert test.pvalue > 1e-3

    def test_keeps_the_type_of_the_images(self, key):
        images = jnp.ones((2, 2, 2, 1), jnp.bfloat16)
        assert mixing.mixup(key, images).images.dtype == jnp.bfloat16


@pytest.mark.parametrize("mix", [mixing.cutmix, mixing.mixup])
@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_alpha_must_be_positive(key, mix, alpha):
    with pytest.raises(ValueError, match="alpha must be positive"):
        mix(key, jnp.zeros((2, 4, 4, 1)), alpha)

"""Views can be replayed, and the labels on them are the teacher's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import relabel

PLAIN = relabel.Views(batch_size=4, crop_scale=(1.0, 1.0), flip=False, mix="none")
ALL = relabel.Views(batch_size=4, crop_scale=(0.3, 1.0))


@pytest.fixture(scope="module")
def images(tiny_data):
    return jnp.asarray(tiny_data.images)


def linear(variables, images):
    """A teacher of one layer."""
    logits = jnp.tensordot(images, variables, 3)
    return logits, {}


@pytest.fixture(scope="module")
def weights():
    return jax.random.normal(jax.random.key(2), (8, 8, 3, 3)) / 4


class TestView:
    def test_plain_view_is_the_images_themselves(self, key, images):
        seen = relabel.look(PLAIN, key, 2, images)
        np.testing.assert_allclose(
            seen.images, np.asarray(images)[seen.rows] / 255, rtol=1e-6
        )
        assert seen.images.shape == (4, 8, 8, 3)
        np.testing.assert_array_equal(seen.partner, np.arange(4))
        assert float(seen.share) == 1.0

    @pytest.mark.parametrize("views", [PLAIN, ALL])
    def test_an_epoch_shows_every_image(self, key, images, views):
        rows = np.concatenate(
            [relabel.look(views, key, step, images).rows for step in range(4, 8)]
        )
        assert set(rows.tolist()) == set(range(15))

    def test_order_of_the_calls_does_not_matter(self, key, images):
        """Step 5 is the same whether 0 to 4 were seen or not."""
        direct = relabel.look(ALL, key, 5, images)
        for step in range(5):
            relabel.look(ALL, key, step, images)
        chex.assert_trees_all_equal(relabel.look(ALL, key, 5, images), direct)

    def test_another_key_or_step_is_another_view(self, key, images):
        seen = [
            relabel.look(ALL, key, 0, images),
            relabel.look(ALL, key, 1, images),
            relabel.look(ALL, key, 4, images),  # the first of the second epoch
            relabel.look(ALL, jax.random.key(1), 0, images),
        ]
        assert len({np.asarray(view.images).tobytes() for view in seen}) == 4
        assert len({tuple(view.rows.tolist()) for view in seen}) == 4
        assert len({float(view.share) for view in seen}) == 4

    def test_views_of_one_image_differ_from_epoch_to_epoch(self, key, images):
        """All rows every time: only crop and flip can tell the steps apart."""
        views = ALL._replace(mix="none", batch_size=15)
        shown = []
        for step in range(4):
            seen = relabel.look(views, key, step, images)
            shown.append(np.asarray(seen.images)[np.argsort(seen.rows)])
        # Of 8 pixels there are few crops: now and then two are the same.
        distinct = [len({step[i].tobytes() for step in shown}) for i in range(15)]
        assert min(distinct) >= 2 and np.mean(distinct) > 3.5

    def test_flip_mirrors_some_images(self, key, images):
        views = PLAIN._replace(flip=True, batch_size=15)
        seen = relabel.look(views, key, 0, images)
        straight = np.asarray(images)[seen.rows] / 255
        same = np.isclose(seen.images, straight, atol=1e-6).all((1, 2, 3))
        turned = np.isclose(seen.images, straight[:, :, ::-1], atol=1e-6).all((1, 2, 3))
        assert np.all(same ^ turned) and 0 < turned.sum() < 15

    def test_cutmix_tells_what_was_pasted_and_how_much(self, key, images):
        views = PLAIN._replace(mix="cutmix")
        shares = []
        for step in range(12):
            seen = relabel.look(views, key, step, images)
            own = np.asarray(images)[seen.rows] / 255
            pasted = own[np.asarray(seen.partner)]
            # Random pixels: two images hardly ever agree in all channels of one.
            kept = np.isclose(seen.images, own, atol=1e-6).all(-1, keepdims=True)
            np.testing.assert_allclose(
                np.where(kept, own, pasted), seen.images, atol=1e-6
            )
            moved = np.any(own != pasted, axis=(1, 2, 3))
            if moved.any():
                share = kept[moved].mean((1, 2, 3))
                np.testing.assert_allclose(share, float(seen.share), atol=1e-6)
                shares.append(float(seen.share))
        assert min(shares) < 0.7 < max(shares)

    def test_patches_are_put_in_another_order(self, key, images):
        views = PLAIN._replace(patch_shuffle=2, batch_size=15)
        seen = relabel.look(views, key, 0, images)
        straight = np.asarray(images)[seen.rows] / 255
        for got, wanted in zip(np.asarray(seen.images), straight):
            np.testing.assert_allclose(np.sort(got, None), np.sort(wanted, None), 1e-6)
        moved = np.any(~np.isclose(seen.images, straight), axis=(1, 2, 3))
        assert moved.sum() > 10  # one order of 24 is the old one

    def test_dsa_is_one_operator_on_normalised_pixels(self, key, images):
        """Cutouts are filled with the mean; every image has its own."""
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
        views = PLAIN._replace(dsa="cutout", mean=mean, std=std, batch_size=15)
        seen = relabel.look(views, key, 0, images)
        straight = np.asarray(images)[seen.rows] / 255
        kept = np.isclose(seen.images, straight, atol=1e-6).all(-1)
        filled = np.isclose(seen.images, mean, atol=1e-6).all(-1)
        assert np.all(kept ^ filled)
        assert np.all(filled.sum((1, 2)) <= 16) and np.all(filled.sum((1, 2)) >= 4)
        assert len({one.tobytes() for one in filled}) > 5

    def test_what_is_added_draws_nothing_of_the_others(self, key, images):
        """Crop, flip and box are the same with shuffled patches and without."""
        shuffled = relabel.look(ALL._replace(patch_shuffle=2), key, 3, images)
        seen = relabel.look(ALL, key, 3, images)
        np.testing.assert_array_equal(shuffled.partner, seen.partner)
        assert float(shuffled.share) == float(seen.share)

    def test_pixels_stay_in_the_unit_interval(self, key, images):
        for step in range(3):
            seen = relabel.look(ALL, key, step, images).images
            assert float(seen.min()) >= 0 and float(seen.max()) <= 1 + 1e-6


class ViewVariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    def test_compiled_or_not_the_view_is_the_same(self):
        images = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), np.uint8)
        key, images = jax.random.key(1), jnp.asarray(images)
        run = self.variant(lambda key, step: relabel.view(ALL, key, step, images))
        got, wanted = run(key, 3), relabel.look(ALL, key, 3, images)
        np.testing.assert_array_equal(got.rows, wanted.rows)
        np.testing.assert_array_equal(got.partner, wanted.partner)
        np.testing.assert_allclose(got.images, wanted.images, atol=1e-5)
        np.testing.assert_allclose(got.share, wanted.share, atol=1e-6)


class TestSoftLabels:
    def test_stored_labels_are_the_teacher_s_on_the_replayed_views(
        self, key, images, weights
    ):
        """P13, to the last bit but one of float16."""
        stored = relabel.soft_labels(linear, weights, ALL, key, images, range(6))
        assert stored.shape == (6, 4, 3) and stored.dtype == np.float16
        for step in range(6):
            seen = relabel.view(ALL, key, step, images)  # not compiled
            logits = np.tensordot(np.asarray(seen.images, np.float64), weights, 3)
            np.testing.assert_allclose(stored[step], logits, rtol=2e-3, atol=1e-3)

    def test_a_network_as_the_teacher(self, key, images, tiny_network, tiny_variables):
        stored = relabel.soft_labels(
            tiny_network.apply, tiny_variables, ALL, key, images, range(3)
        )
        for step in range(3):
            seen = relabel.look(ALL, key, step, images)
            logits, _ = jax.jit(tiny_network.apply)(tiny_variables, seen.images)
            np.testing.assert_allclose(stored[step], logits, rtol=2e-3, atol=1e-3)

    def test_labels_of_some_steps_are_those_of_all(self, key, images, weights):
        whole = relabel.soft_labels(linear, weights, ALL, key, images, range(6))
        part = relabel.soft_labels(linear, weights, ALL, key, images, range(2, 5))
        np.testing.assert_array_equal(part, whole[2:5])

    def test_another_teacher_or_key_gives_other_labels(self, key, images, weights):
        first, second, third = (
            relabel.soft_labels(linear, teacher, ALL, key, images, range(2))
            for teacher, key in (
                (weights, key),
                (-weights, key),
                (weights, jax.random.key(9)),
            )
        )
        np.testing.assert_array_equal(second, -first)
        assert not np.allclose(first, third)

    def test_observer_counts_the_steps(self, key, images, weights):
        seen = []
        relabel.soft_labels(
            linear, weights, ALL, key, images, range(2, 5), observe=seen.append
        )
        assert seen == [3, 4, 5]

    def test_one_trace_for_all_steps(self, key, images, weights):
        chex.clear_trace_counter()
        teacher = chex.assert_max_traces(
            lambda variables, images: linear(variables, images), n=1
        )
        for start in (0, 3):
            steps = range(start, start + 3)
            relabel.soft_labels(teacher, weights, ALL, key, images, steps)


@pytest.mark.parametrize("batch_size", [4, 15, 100])
def test_plain_labels_are_the_teacher_s_on_the_images(images, weights, batch_size):
    found = relabel.plain_labels(linear, weights, images, batch_size=batch_size)
    assert found.shape == (15, 3) and found.dtype == np.float16
    wanted = np.tensordot(np.asarray(images) / 255, np.float64(weights), 3)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)

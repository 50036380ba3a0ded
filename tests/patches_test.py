"""RDED's images: where their crops are from, and that they are the best ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import data, losses, patches
from ddjax.types import DataInfo

INFO = DataInfo("plain", ("dark", "light"), (8, 8, 1), (0.5,), (0.25,))


@pytest.fixture(scope="module")
def plain():
    """Two classes of 7 images, each of one grey value of its own."""
    values = np.arange(10, 150, 10, dtype=np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (14, 8, 8, 1)).copy()
    return data.class_major(images, np.repeat([0, 1], 7), INFO)


def by_brightness(variables, images):
    """A teacher that is surer of class 1 the brighter the middle of an image is."""
    middle = images[:, 2:6, 2:6].mean((1, 2, 3))
    return variables * jnp.stack([-middle, middle], 1), {}


def made(dataset, ipc, apply_fn=by_brightness, variables=1.0, seed=0, **options):
    key = jax.random.key(seed)
    return patches.select(key, apply_fn, variables, dataset, ipc, **options)


@pytest.mark.parametrize("factor, ipc", [(1, 3), (2, 1)])
def test_the_crops_the_teacher_knows_best_are_taken(plain, factor, ipc):
    """Of plain images, the darkest of class 0 and the brightest of class 1."""
    found = made(plain, ipc, factor=factor)
    assert found.images.shape == (2 * ipc, 8, 8, 1)
    np.testing.assert_array_equal(found.labels, np.repeat([0, 1], ipc))
    np.testing.assert_array_equal(found.weights, np.full(2 * ipc, np.float32(1 / ipc)))
    values = {0: [10, 20, 30, 40], 1: [140, 130, 120, 110]}
    for label, expected in values.items():
        parts = found.images[found.labels == label]
        parts = parts.reshape(ipc, factor, 8 // factor, factor, 8 // factor)
        got = parts[:, :, 0, :, 0].reshape(-1)
        assert got.tolist() == expected[: ipc * factor**2]
        assert (parts == parts[:, :, :1, :, :1]).all()


def test_image_i_has_the_crops_i_and_every_ipc_th_after_it():
    crops = np.arange(8, dtype=np.float32).reshape(8, 1, 1, 1)
    tiled = patches.tile(crops, 2)[..., 0]
    np.testing.assert_array_equal(tiled, [[[0, 2], [4, 6]], [[1, 3], [5, 7]]])


def test_score_is_the_teachers_loss_on_the_surrounded_crop(
    tiny_data, tiny_network, tiny_variables
):
    """One by one, on the returned crop, in the middle of the mean colour."""
    info = tiny_data.info
    score = patches.make_scorer(tiny_network.apply, info, 2)
    crops, found = score(
        jax.random.key(1), tiny_variables, tiny_data.images[:4], np.arange(4), 2
    )
    assert crops.shape == (4, 4, 4, 3)
    for crop, loss in zip(crops, found):
        image = np.broadcast_to(np.float32(info.mean), (1, 8, 8, 3)).copy()
        image[0, 2:6, 2:6] = crop
        logits, _ = tiny_network.apply(tiny_variables, image)
        expected = losses.cross_entropy(logits, jnp.array([2]))
        np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_best_of_five_crops_beats_a_crop_by_chance(
    tiny_data, tiny_network, tiny_variables
):
    """The mean loss of the best crops falls below that of first ones."""
    score = patches.make_scorer(tiny_network.apply, tiny_data.info, 1)
    found = [
        score(jax.random.key(i), tiny_variables, tiny_data.images[:4], np.arange(4), 0)
        for i in range(8)
    ]
    best = np.mean([x[1] for x in found])
    key, places = jax.random.key(9), tiny_data.images[:4] / np.float32(255)
    drawn = data.augment.random_crop(key, places, (0.08, 1.0), shared=False)
    logits, _ = tiny_network.apply(tiny_variables, drawn)
    assert best < losses.cross_entropy(logits, jnp.zeros(4, jnp.int32))


def test_the_batch_size_does_not_matter_and_the_key_does(
    tiny_data, tiny_network, tiny_variables
):
    teacher = tiny_network.apply, tiny_variables
    whole = made(tiny_data, 2, *teacher)
    parts = made(tiny_data, 2, *teacher, batch_size=3)
    np.testing.assert_allclose(
        whole.images.astype(int), parts.images.astype(int), atol=1
    )
    other = made(tiny_data, 2, *teacher, seed=1)
    assert (whole.images != other.images).any()


def test_the_factor_follows_the_size():
    sizes = {32: 1, 64: 1, 128: 2, 224: 2}
    for size, factor in sizes.items():
        assert patches.default_factor(INFO._replace(shape=(size, size, 3))) == factor


def test_what_cannot_be_is_refused(plain):
    with pytest.raises(ValueError, match="4 real images for each of its 2.*'dark' has"):
        made(plain, 2, factor=2)
    with pytest.raises(ValueError, match="3 x 3 crops do not fill .* 8 x 8 pixels"):
        made(plain, 1, factor=3)

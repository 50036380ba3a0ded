"""Images that hold several: there and back, slopes, and what is refused."""

import jax
import numpy as np
import pytest
import scipy.ndimage

from ddjax import matching, methods, optimizers, recover
from ddjax.matching import mosaics
from ddjax.types import Batch, Context, DistilledSet


def images(count=2, shape=(6, 12, 3)):
    return np.random.default_rng(0).random((count, *shape)).astype(np.float32)


def test_parts_come_row_by_row_and_image_by_image():
    """Each part of one colour stays so, whatever is between pixels."""
    colours = np.arange(2 * 2 * 3 * 3 * 3).reshape(2, 3, 2 * 3, 3)[:, :, :3]
    found = mosaics.decode(
        colours.repeat(2, 1).repeat(4, 2).astype(np.float32), 3
    )  # 6 x 12 pixels
    assert found.shape == (18, 6, 12, 3)
    flat = colours.reshape(-1, 1, 1, 3)
    np.testing.assert_allclose(found, np.broadcast_to(flat, found.shape), rtol=1e-6)


def test_enlarging_is_bilinear():
    """As scipy's linear interpolation at the centres of pixels, edges repeated."""
    stored = images(1)
    y, x = ((np.arange(n) + 0.5) / 2 - 0.5 for n in (6, 12))
    for i, part in enumerate(mosaics.decode(stored, 2)):
        top, left = 3 * (i // 2), 6 * (i % 2)
        small = stored[0, top : top + 3, left : left + 6]
        for channel in range(3):
            wanted = scipy.ndimage.map_coordinates(
                small[..., channel], np.meshgrid(y, x, indexing="ij"), order=1,
                mode="nearest",
            )  # fmt: skip
            np.testing.assert_allclose(part[..., channel], wanted, atol=1e-6)


def test_there_and_back():
    stored = images(3)
    assert mosaics.decode(stored, 1) is stored and mosaics.encode(stored, 1) is stored
    pictures = images(8)
    assert mosaics.encode(pictures, 2).shape == (2, 6, 12, 3)
    smooth = np.broadcast_to(images(8)[:, :1, :1], pictures.shape)
    np.testing.assert_allclose(
        mosaics.decode(mosaics.encode(smooth, 2), 2), smooth, atol=1e-6
    )
    # Shrinking takes means: what lies in a part is the mean of its picture.
    parts = mosaics.encode(pictures, 2).reshape(2, 2, 3, 2, 6, 3).mean((2, 4))
    wanted = pictures.mean((1, 2)).reshape(2, 2, 2, 3)
    np.testing.assert_allclose(parts, wanted, atol=1e-6)


def test_every_pixel_of_a_mosaic_is_moved_by_its_part_alone():
    def third_part(pixels):
        return mosaics.decode(pixels, 2)[2].sum()

    slope = np.array(jax.grad(third_part)(images(2)))
    assert np.all(slope[0, 3:, :6] > 0)
    # Each small pixel stands for four large ones, in all.
    np.testing.assert_allclose(slope[0, 3:, :6].sum(), 6 * 12 * 3, rtol=1e-5)
    slope[0, 3:, :6] = 0
    assert not np.any(slope)


def test_a_set_keeps_its_classes_and_its_mass():
    pixels = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    weights = np.array([0.25, 0.75, 0.5, 0.5], np.float32)
    stored = DistilledSet(pixels, np.array([0, 0, 1, 1], np.int32), weights)
    seen = mosaics.decoded(stored, 2)
    assert seen.images.shape == (16, 8, 8, 1) and seen.images.dtype == np.uint8
    assert seen.labels.tolist() == [0] * 8 + [1] * 8
    assert seen.labels.dtype == np.int32 and seen.weights.dtype == np.float32
    np.testing.assert_allclose(seen.weights.reshape(2, 8).sum(1), 1)
    np.testing.assert_allclose(seen.weights[:4], 0.25 / 4)
    assert seen.images[0, 0, 0] == pixels[0, 0, 0]  # corners stay
    assert mosaics.decoded(stored, 1) is stored


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="factor 4: images of 6 x 12 pixels cannot"):
        mosaics.decode(images(), 4)
    for factor in (0, -1, 5):
        with pytest.raises(ValueError, match="choose one that divides both, or 1"):
            mosaics.check(factor, (8, 8, 1))
    with pytest.raises(ValueError, match="6 images fill no mosaics of 2 x 2 parts"):
        mosaics.encode(images(6), 2)
    assert matching.mosaics is mosaics


@pytest.mark.parametrize(
    "name, options", [("dm", {}), ("geodm", {"weights": (1, 0, 0)})]
)
def test_a_step_of_mosaics_is_one_of_their_parts(tiny_network, name, options):
    """Its loss, and by the chain rule its slope, from a step without momentum."""
    rng = np.random.default_rng(2)
    start = rng.random((2, 8, 8, 3), np.float32)
    batch = Batch(
        rng.random((2, 5, 8, 8, 3), np.float32), np.full((2, 5), 0.2, np.float32)
    )
    if name == "geodm":
        options = {**options, "ot_weight": 0.0}

    def after(images, ipc, factor):
        rate = optimizers.pixels("sgd", 1.0, 1, (1.0, 1.0, 1.0), 0.0)
        chosen = {**options, "real_batch": 5, "factor": factor, "dsa": ""}
        method = methods.create(
            name, tiny_network, rate, num_steps=1, options=tuple(chosen.items())
        )
        goals = recover.targets(np.arange(2 * ipc), images, ipc)
        state = method.init(jax.random.key(1), Context(), goals)
        step = jax.jit(method.step)
        state, metrics = step(jax.random.key(4), state, Context(), goals, batch)
        return metrics["loss"], np.asarray(state.images) - images

    parts, back = jax.vjp(lambda x: mosaics.decode(x, 2), start)
    loss, moved = after(start, 1, 2)
    wanted, slope = after(np.asarray(parts), 4, 1)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(moved, back(slope)[0], atol=1e-5 * np.abs(moved).max())

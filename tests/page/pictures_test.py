"""Pictures in a text, read back by PIL."""

import base64
import io

import numpy as np
from PIL import Image

from ddjax.page import pictures


def test_picture_holds_the_pixels():
    """PIL reads back what was written."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    address = pictures.picture(pictures.strip(images[:2], 2))
    head, _, body = address.partition(",")
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(read[:8, :8, :3], images[0])
    np.testing.assert_array_equal(read[:8, 9:17, :3], images[1])
    assert (read[:8, :8, 3] == 255).all() and (read[:, 8, 3] == 0).all()


def test_grey_pictures_are_grey():
    grey = np.full((1, 4, 4, 1), 7, np.uint8)
    body = pictures.picture(pictures.strip(grey, 1)).partition(",")[2]
    assert Image.open(io.BytesIO(base64.b64decode(body))).mode == "LA"


def test_large_images_are_averaged():
    """Halves of black and white become grey; the shape of a page is kept."""
    large = np.zeros((1, 96, 48, 3), np.uint8)
    large[:, :, ::2] = 255
    found = pictures.small(large, 48)
    assert found.shape == (1, 48, 24, 3)
    assert set(found.ravel()) <= {127, 128}
    assert pictures.area(large, 48) == 48 * 24
    assert pictures.small(large, 96) is large


def test_bands_are_the_heights_of_a_slope():
    """0 to 12 over 121 pixels: band k from pixel 10 k on; out of range they end."""
    slope = pictures.bands(np.array([[0.0, 12.0]]), 0, 12, (3, 121))
    assert slope.shape == (3, 121, 3) and (slope == slope[:1]).all()
    edges = np.flatnonzero((np.diff(slope[0].astype(int), axis=0) != 0).any(-1)) + 1
    np.testing.assert_array_equal(edges, 10 * np.arange(1, 12))
    brightness = slope[0, 5::10].sum(-1, dtype=int)
    assert (np.diff(brightness) > 0).all()  # told apart in grey
    wide = pictures.bands(np.array([[-99.0, 99.0]]), 0, 12, (1, 2))
    np.testing.assert_array_equal(wide[0], slope[0, [0, -1]])


def test_flat_map_has_one_colour():
    flat = pictures.bands(np.full((3, 3), 2.0), 2.0, 2.0, (8, 8))
    assert (flat == flat[0, 0]).all()

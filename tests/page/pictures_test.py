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

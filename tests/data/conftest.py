"""Small images, and folders of them."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image


def _encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _write_tree(folder, splits, shape=(8, 8, 3)):
    random = np.random.default_rng(0)
    for split, classes in splits.items():
        for name, count in classes.items():
            where = pathlib.Path(folder) / split / name
            where.mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 256, shape, dtype=np.uint8)
                (where / f"{number}.png").write_bytes(_encoded(image))
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def encoded():
    """encoded(array or Pillow image, kind="PNG", **options) -> bytes."""
    return _encoded


@pytest.fixture(scope="session")
def write_tree():
    """write_tree(folder, {split: {class: images}}) writes noise as PNG; "": no split."""
    return _write_tree


@pytest.fixture
def tree(tmp_path):
    """A folder with both splits of two classes, cats first: 5 + 4 and 2 + 3 images."""
    return _write_tree(
        tmp_path / "images",
        {"train": {"dog": 4, "cat": 5}, "val": {"cat": 2, "dog": 3}},
    )

"""Draws of real images: without replacement, alike everywhere, none too often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ddjax import data, matching
from ddjax.types import DataInfo, Dataset, Real

COUNTS = (4, 9, 6)


@pytest.fixture(scope="module")
def real():
    """Three classes; the pixel of an image is its row, and tells which it is."""
    labels = np.repeat(np.arange(3), COUNTS)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    info = DataInfo("rows", ("a", "b", "c"), (1, 1, 1), (0.0,), (1.0,))
    return matching.table(Dataset(images, labels, info))


def drawn(real, seed, classes=(0, 1, 2), size=5):
    """(rows [q, n] of the images, weights [q, n])."""
    batch = matching.draw(jax.random.key(seed), real, jnp.array(classes), size)
    rows = np.rint(np.asarray(batch.images[..., 0, 0, 0]) * 255).astype(int)
    return rows, np.asarray(batch.weights)


class TestTable:
    def test_rows_of_each_class(self, real):
        assert real.rows.shape == (3, 9)
        for label, (first, count) in enumerate(zip((0, 4, 13), COUNTS)):
            row = real.rows[label]
            np.testing.assert_array_equal(row[:count], first + np.arange(count))
            assert (row[count:] == -1).all()

    def test_what_stays_on_disk_is_refused(self, real):
        info = DataInfo("far", ("a",), (1, 1, 1), (0.0,), (1.0,))
        records = object.__new__(data.Records)
        with pytest.raises(ValueError, match="far stays on disk.*raise data.memory_gb"):
            matching.table(Dataset(records, np.zeros(1, int), info))


class TestDraw:
    @pytest.mark.parametrize("size", [1, 5, 9, 256])
    def test_without_replacement_and_of_the_class(self, real, size):
        rows, weights = drawn(real, 0, size=size)
        assert rows.shape == weights.shape == (3, min(size, 9))
        for label, count in enumerate(COUNTS):
            assert np.isin(rows[label], real.rows[label]).all()
            counted = rows[label][weights[label] > 0]
            assert len(counted) == len(set(counted)) == min(size, count)
            np.testing.assert_allclose(
                weights[label][weights[label] > 0], 1 / len(counted)
            )

    def test_a_draw_depends_on_key_and_label_alone(self, real):
        rows, weights = drawn(real, 0)
        for label in range(3):
            alone, mass = drawn(real, 0, classes=(label,))
            np.testing.assert_array_equal(alone[0], rows[label])
            np.testing.assert_array_equal(mass[0], weights[label])
        turned, _ = drawn(real, 0, classes=(2, 0))
        np.testing.assert_array_equal(turned, rows[[2, 0]])
        assert (drawn(real, 1)[0] != rows).any()

    def test_every_image_is_drawn_as_often(self, real):
        keys = jax.random.split(jax.random.key(7), 2000)
        many = jax.jit(
            jax.vmap(lambda key: matching.draw(key, real, jnp.array([1, 2]), 4).images)
        )(keys)
        rows = np.rint(np.asarray(many[..., 0, 0, 0]) * 255).astype(int)
        for place, label in enumerate((1, 2)):
            counts = np.bincount(rows[:, place].ravel())[
                real.rows[label][: COUNTS[label]]
            ]
            # Without replacement counts vary less than a chi-square has it.
            assert stats.chisquare(counts).pvalue > 1e-3
            first = np.bincount(rows[:, place, 0])[real.rows[label][: COUNTS[label]]]
            assert stats.chisquare(first).pvalue > 1e-3

    def test_pixels_are_in_0_1(self, real):
        white = Real(np.full_like(real.images, 255), real.rows)
        batch = matching.draw(jax.random.key(0), white, jnp.array([0]), 3)
        assert batch.images.dtype == jnp.float32
        np.testing.assert_array_equal(batch.images, 1.0)


def test_by_class_is_the_function_image_by_image():
    images = jax.random.normal(jax.random.key(0), (3, 4, 2, 2, 1))
    got = matching.by_class(lambda x: x.reshape(len(x), -1) ** 2, images)
    np.testing.assert_array_equal(got, images.reshape(3, 4, -1) ** 2)


def test_by_class_calls_once():
    sizes = []
    matching.by_class(lambda x: sizes.append(len(x)) or x, jnp.zeros((3, 4, 2, 2, 1)))
    assert sizes == [12]

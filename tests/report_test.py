"""Pictures that show the pixels they were given, and tables."""

import csv
import io
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ddjax import report


def rendered(figure):
    """[height, width, 3] uint8, what is on the screen."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def shown(picture, tile, zoom):
    """Whether the picture holds the tile, each of its pixels zoom times as large.

    To one grey level of 255: matplotlib draws grey images through a colour map.
    """
    wanted = np.repeat(np.repeat(tile, zoom, 0), zoom, 1).astype(int)
    height, width, _ = wanted.shape
    return any(
        np.abs(picture[top : top + height, :width] - wanted).max() <= 1
        for top in range(picture.shape[0] - height + 1)
    )


def tile_of(images, per_row):
    """The documented layout, image by image: white lines of a pixel around each."""
    count, height, width, _ = images.shape
    rows = math.ceil(count / per_row)
    tile = np.full((rows * (height + 2), per_row * (width + 2), 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // per_row * (height + 2) + 1, i % per_row * (width + 2) + 1
        tile[top : top + height, left : left + width] = image
    return tile


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def images(request):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (7, 4, 5, request.param), dtype=np.uint8)


class TestGrid:
    def test_every_pixel_is_shown(self, images):
        figure = report.grid([("seven", images)], per_row=3)
        picture, tile = rendered(figure), tile_of(images, 3)
        assert tile.shape == (18, 21, 3)
        zoom = picture.shape[1] // tile.shape[1]
        assert zoom * 21 == picture.shape[1]  # whole screen pixels
        assert shown(picture, tile, zoom)
        assert not shown(picture, tile[:, ::-1], zoom)

    def test_one_block_under_the_other_in_order(self, images):
        blocks = [("first", images[:3]), ("second", 255 - images)]
        figure = report.grid(blocks, per_row=3)
        assert [axes.get_title() for axes in figure.axes] == ["first", "second"]
        first, second = (axes.get_position() for axes in figure.axes)
        assert first.y0 > second.y1 and second.y0 == pytest.approx(0, abs=1e-9)
        picture = rendered(figure)
        for _, block in blocks:
            tile = tile_of(block, 3)
            assert shown(picture, tile, picture.shape[1] // tile.shape[1])

    def test_titles_have_room(self, images):
        """24 screen pixels for each: the picture is that much taller than its tiles."""
        figure = report.grid([("a", images), ("b", images)], per_row=7)
        height, width, _ = rendered(figure).shape
        zoom = width // (7 * 7)
        assert height == 2 * (6 * zoom + 24)

    def test_small_images_are_enlarged(self, images):
        """To about 720 screen pixels of width."""
        figure = report.grid([("t", images)], per_row=7)
        assert rendered(figure).shape[1] == pytest.approx(720, rel=0.05)

    def test_large_images_keep_all_their_pixels(self):
        images = np.random.default_rng(0).integers(0, 256, (2, 8, 600, 3), np.uint8)
        figure = report.grid([("wide", images)], per_row=2)
        assert rendered(figure).shape[1] == 2 * 602

    def test_can_be_written(self, images, tmp_path):
        path = tmp_path / "grid.png"
        report.grid([("t", images)], per_row=3).savefig(path)
        assert path.read_bytes().startswith(b"\x89PNG")


HISTORY = (
    {"step": 1, "loss": 4.0, "norm": 0.5},
    {"step": 5, "loss": 2.0},
    {"step": 9, "loss": 1.0, "norm": 0.1},
)


class TestCurves:
    def test_each_term_is_a_curve_over_the_steps(self):
        (axes,) = report.curves(list(HISTORY), "run 1").axes
        lines = {line.get_label(): line.get_xydata() for line in axes.lines}
        assert list(lines) == ["loss", "norm"]
        np.testing.assert_array_equal(lines["loss"], [[1, 4], [5, 2], [9, 1]])
        np.testing.assert_array_equal(lines["norm"], [[1, 0.5], [5, np.nan], [9, 0.1]])
        assert [text.get_text() for text in axes.get_legend().texts] == ["loss", "norm"]

    def test_axes_say_what_they_are(self):
        (axes,) = report.curves(list(HISTORY), "run 1").axes
        assert axes.get_title() == "run 1" and axes.get_yscale() == "log"
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")

    def test_a_term_that_is_zero_can_be_drawn(self):
        history = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.0}]
        assert rendered(report.curves(history, "zero")).std() > 0


class TestSummarise:
    def test_mean_and_sample_std_of_each_group(self):
        records = [
            {"method": "wmdd", "ipc": 1, "top1": 0.5, "seed": 0},
            {"method": "random", "ipc": 1, "top1": 0.25, "seed": 0},
            {"method": "wmdd", "ipc": 1, "top1": 0.7, "seed": 1},
            {"method": "wmdd", "ipc": 10, "top1": 0.9, "seed": 0},
        ]
        rows = report.summarise(records, ("method", "ipc"))
        assert [(row["method"], row["ipc"], row["n"]) for row in rows] == [
            ("wmdd", 1, 2),
            ("random", 1, 1),
            ("wmdd", 10, 1),
        ]
        np.testing.assert_allclose([row["mean"] for row in rows], [0.6, 0.25, 0.9])
        assert rows[0]["std"] == pytest.approx(0.2 / math.sqrt(2))
        assert math.isnan(rows[1]["std"]) and math.isnan(rows[2]["std"])
        assert list(rows[0]) == ["method", "ipc", "mean", "std", "n"]

    def test_no_records_no_rows(self):
        assert report.summarise([], ("method",)) == []


class TestTables:
    HEADER, ROWS = (
        ["method", "top-1"],
        [["wmdd", "64.5 ± 1.5"], ["random, seed 0", "9"]],
    )

    def test_markdown_columns_are_as_wide_as_their_longest_cell(self):
        assert report.markdown_table(self.HEADER, self.ROWS).split("\n") == [
            "| method         | top-1      |",
            "| -------------- | ---------- |",
            "| wmdd           | 64.5 ± 1.5 |",
            "| random, seed 0 | 9          |",
        ]

    def test_markdown_header_may_be_the_longest_cell(self):
        table = report.markdown_table(["seconds"], [["9"]])
        assert table == "| seconds |\n| ------- |\n| 9       |"

    def test_csv_can_be_read_back(self):
        text = report.csv_table(self.HEADER, self.ROWS)
        assert list(csv.reader(io.StringIO(text))) == [self.HEADER, *self.ROWS]
        assert text.count("\n") == 3 and "\r" not in text

    def test_numbers_are_taken_as_they_are(self):
        assert "| 3 |" in report.markdown_table(["n"], [[3]])
        assert report.csv_table(["n"], [[3]]) == "n\n3\n"

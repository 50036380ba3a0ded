"""Pictures that show the pixels and numbers they were given."""

import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mpl_toolkits.mplot3d import Axes3D

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

    def test_what_is_only_watched_is_no_loss(self):
        history = [{"step": 1, "loss": 1.0, "hyperbolic/curvature": 2.0}]
        (axes,) = report.curves(history, "run 1").axes
        assert [line.get_label() for line in axes.lines] == ["loss"]

    def test_a_term_that_is_zero_can_be_drawn(self):
        history = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.0}]
        assert rendered(report.curves(history, "zero")).std() > 0


class TestAccuracy:
    PANELS = {  # noqa: RUF012
        "hard": {
            "random": [(1, 0.3, 0.02), (10, 0.5, 0.01)],
            "whole data": [(0, 0.9, math.nan)],
        },
        "stored": {"WMDD": [(1, 0.6, math.nan), (10, 0.7, math.nan)]},
    }

    def drawn(self):
        return report.accuracy(self.PANELS, "convnet, recipe dm", "images per class")

    def test_a_panel_a_kind_of_labels(self):
        figure = self.drawn()
        assert [a.get_title() for a in figure.axes] == ["hard labels", "stored labels"]
        assert {a.get_xlabel() for a in figure.axes} == {"images per class"}
        assert {a.get_xscale() for a in figure.axes} == {"log"}
        assert figure.axes[0].get_ylabel() == "top-1 of the last epoch, %"

    def test_lines_go_through_the_means_in_percent(self):
        hard, stored = self.drawn().axes
        (bars,) = hard.containers
        np.testing.assert_allclose(bars[0].get_xydata(), [[1, 30], [10, 50]])
        ends = [segment[:, 1] for segment in bars[2][0].get_segments()]
        np.testing.assert_allclose(ends, [[28, 32], [49, 51]])
        (bars,) = stored.containers
        np.testing.assert_allclose(bars[0].get_xydata(), [[1, 60], [10, 70]])

    def test_whole_data_are_a_level(self):
        (level,) = [x for x in self.drawn().axes[0].lines if x.get_linestyle() == "--"]
        np.testing.assert_allclose(level.get_ydata(), [90, 90])

    def test_every_arm_is_named_once(self):
        (legend,) = self.drawn().legends
        names = [text.get_text() for text in legend.texts]
        assert names == ["random", "whole data", "WMDD"]

    def test_sizes_of_a_set_are_on_the_axis(self):
        for axes in self.drawn().axes:
            assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]

    def test_can_be_drawn(self):
        assert rendered(self.drawn()).std() > 0


class TestRobust:
    PANELS = {  # noqa: RUF012
        1: {"random": [(0, 0.5, 0.02), (2, 0.25, 0.01)]},
        0: {"all": [(0, 0.9, math.nan), (0.5, 0.6, math.nan), (2, 0.0, math.nan)]},
    }

    def drawn(self):
        return report.robust(self.PANELS, "convnet, recipe dm")

    def test_a_panel_a_size_on_a_linear_axis(self):
        figure = self.drawn()
        assert [a.get_title() for a in figure.axes] == ["1 per class", "all images"]
        assert {a.get_xscale() for a in figure.axes} == {"linear"}
        assert {a.get_ylim()[0] for a in figure.axes} == {0}

    def test_lines_start_at_the_accuracy_without_an_attack(self):
        one, every = self.drawn().axes
        (bars,) = one.containers
        np.testing.assert_allclose(bars[0].get_xydata(), [[0, 50], [2, 25]])
        ends = [segment[:, 1] for segment in bars[2][0].get_segments()]
        np.testing.assert_allclose(ends, [[48, 52], [24, 26]])
        (bars,) = every.containers
        np.testing.assert_allclose(bars[0].get_xydata(), [[0, 90], [0.5, 60], [2, 0]])

    def test_can_be_drawn(self):
        assert rendered(self.drawn()).std() > 0


class TestSurfaces:
    FLAT = {"radius": 8.0, "loss": [[0.5, 0.5, 0.5]] * 3}  # noqa: RUF012
    STEEP = {"radius": 4.0, "loss": [[0, 0, 0], [1, 1, 1], [4, 4, 5]]}  # noqa: RUF012

    def drawn(self):
        named = [("guard", self.FLAT, "small"), ("teacher", self.STEEP, "large")]
        return report.surfaces(named)

    def test_all_networks_are_on_one_scale(self):
        figure = self.drawn()
        assert [a.get_title() for a in figure.axes] == ["guard", "teacher"]
        flat, steep = figure.axes
        assert flat.get_zlim() == steep.get_zlim()
        low, high = flat.get_zlim()
        assert low <= 0 and high >= 5
        clims = {c.get_clim() for a in figure.axes for c in a.collections}
        assert clims == {(0, 5)}

    def test_rows_go_along_the_gradient(self, monkeypatch):
        """STEEP grows along its rows: with x, from -4 to 4."""
        seen = []
        drawn = Axes3D.plot_surface
        monkeypatch.setattr(
            Axes3D,
            "plot_surface",
            lambda axes, *xyz, **more: seen.append(xyz) or drawn(axes, *xyz, **more),
        )
        self.drawn()
        x, y, z = seen[1]
        assert z[x == 4].min() == 4 and z[x == -4].max() == 0
        assert z[y == 4].min() == 0 and x.min() == y.min() == -4

    def test_numbers_stand_under_each(self):
        figure = self.drawn()
        places = [(text.get_text(), text.get_position()[0]) for text in figure.texts]
        assert places == [("small", 0.25), ("large", 0.75)]

    def test_flat_loss_can_be_drawn(self):
        figure = report.surfaces([("flat", self.FLAT, "")])
        assert rendered(figure).std() > 0

"""Tables, plots and maps of attacked students, against values worked out by hand."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ddjax.page import attacks


def attack(arm, ipc=1, eps=2.0, clean=0.8, robust=0.4, name="worst", **more):
    """An attack's record."""
    row = {"arm": arm, "ipc": ipc, "labels": "hard", "recipe": "dm", "model": "convnet"}
    row |= {"set": 0, "student": 0, "attack": name, "eps": eps, "norm": "linf"}
    return {**row, "clean": clean, "robust": robust, "num_images": 500, **more}


class TestResults:
    def test_arms_stand_together_by_size_and_radius(self):
        rows = [attack("a", 10), attack("a", 0), attack("a", 1, 4.0), attack("b", 10)]
        rows += [attack("b", 10, 0.5), attack("b", 1, None, norm="l2", name="cw")]
        (result,) = attacks.results(rows, ["a", "b"])
        places = [(block["ipc"], block["radius"]) for block in result["blocks"]]
        assert places == [
            *((1, "4/255"), (1, "any in L2"), (10, "0.5/255"), (10, "2/255")),
            (0, "2/255"),
        ]
        arms = [[row["arm"] for row in block["rows"]] for block in result["blocks"]]
        assert arms == [["a"], ["b"], ["b"], ["a", "b"], ["a"]]

    def test_students_and_images_of_each_block_are_told(self):
        rows = [attack("a"), attack("a", student=1), attack("b", num_images=2000)]
        (result,) = attacks.results(rows, ["a", "b"])
        (block,) = result["blocks"]
        assert (block["n"], block["num_images"]) == ("1 to 2", "500 to 2,000")

    def test_best_of_each_column(self):
        """Arm a is better clean, b under attack and by its share."""
        rows = [attack("a", clean=0.9, robust=0.3), attack("b", clean=0.6, robust=0.5)]
        (result,) = attacks.results(rows, ["a", "b"])
        first, second = result["blocks"][0]["rows"]
        assert [cell["best"] for cell in first["cells"]] == [True, False, False]
        assert [cell["best"] for cell in second["cells"]] == [False, True, True]

    def test_recipes_networks_and_labels_are_apart(self):
        rows = [attack("a"), attack("a", labels="stored"), attack("a", model="vgg11")]
        found = attacks.results([*rows, attack("a", recipe="rded")], ["a"])
        assert len(found) == 4 and attacks.results([], []) == []

    def test_plot_goes_down_from_the_clean_accuracy(self):
        """80, 40 and 0 percent at 0, 2 and 4: a straight line in the arm's colour."""
        rows = [attack("a", eps=eps, robust=left) for eps, left in ((2, 0.4), (4, 0.0))]
        (result,) = attacks.results(rows, ["other", "a"])
        (chart,) = result["charts"]
        (series,) = chart.series
        line = [float(x) for x in re.findall(r"-?\d+\.?\d*", series.line)]
        (x0, y0), (x1, y1), (x2, y2) = zip(line[::2], line[1::2])
        assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and x1 > x0
        assert y1 - y0 == pytest.approx(y2 - y1, abs=0.2) and y1 > y0
        assert series.color == 1 and chart.title == "IPC 1"
        assert [tick.text for tick in chart.x_ticks] == ["0", "2", "4"]


class TestSurfaces:
    @staticmethod
    def network(name, loss):
        row = {"name": name, "gradient_norm": 1.0, "rayleigh": 2.0, "cosine": 0.5}
        surface = {"radius": 8.0, "loss": loss}
        return {**row, "top_eigenvalue": 4.0, "surface": surface}

    @staticmethod
    def pixels(address):
        data = base64.b64decode(address.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def test_gradient_is_to_the_right_and_the_other_upwards(self):
        """The loss grows by 2 along the gradient, by 1 along the other direction."""
        found = attacks.surfaces([self.network("a", [[0, 1], [2, 3]])])
        light = self.pixels(found["maps"][0]["image"]).sum(-1)
        top, bottom = light[0], light[-1]
        assert bottom[0] < top[0] < bottom[-1] < top[-1]
        assert found["ends"] == ["0", "3"] and found["maps"][0]["radius"] == "8"

    def test_all_networks_are_in_the_same_colours(self):
        """A flat loss of 4 is as bright as the other's 4, the highest of all."""
        steep, flat = [[0, 0], [4, 4]], [[4, 4], [4, 4]]
        found = attacks.surfaces([self.network("a", steep), self.network("b", flat)])
        first, second = (self.pixels(row["image"]) for row in found["maps"])
        assert (second == second[0, 0]).all() and (first[:, -1] == second[0, 0]).all()
        key = self.pixels(found["key"])
        assert (key[0, 0] == first[0, 0]).all() and (key[0, -1] == first[0, -1]).all()

    def test_none_without_networks(self):
        assert attacks.surfaces([]) is None

"""Tables and scores of records made by hand."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from ddjax import metrics, tables


def student(arm="random", ipc=1, top1=0.5, labels="hard", **more):
    """A student's record, in the fields that tables read."""
    row = {"arm": arm, "ipc": ipc, "labels": labels, "recipe": "dm", "model": "convnet"}
    row |= {"set": 0, "student": 0, "top1": top1, "image_bytes": 640, "label_bytes": 10}
    return {**row, "other_bytes": 0, **more}


def of_sets(scores):
    """Records of {arm: [[accuracies of the students] of the sets]}."""
    return [
        student(arm, set=s, student=i, top1=top1)
        for arm, sets in scores.items()
        for s, students in enumerate(sets)
        for i, top1 in enumerate(students)
    ]


class TestSummarise:
    def test_mean_and_sample_std_of_each_group(self):
        records = [
            {"method": "wmdd", "ipc": 1, "top1": 0.5, "seed": 0},
            {"method": "random", "ipc": 1, "top1": 0.25, "seed": 0},
            {"method": "wmdd", "ipc": 1, "top1": 0.7, "seed": 1},
            {"method": "wmdd", "ipc": 10, "top1": 0.9, "seed": 0},
        ]
        rows = tables.summarise(records, ("method", "ipc"))
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
        assert tables.summarise([], ("method",)) == []


class TestTables:
    HEADER, ROWS = (
        ["method", "top-1"],
        [["wmdd", "64.5 ± 1.5"], ["random, seed 0", "9"]],
    )

    def test_markdown_columns_are_as_wide_as_their_longest_cell(self):
        assert tables.markdown_table(self.HEADER, self.ROWS).split("\n") == [
            "| method         | top-1      |",
            "| -------------- | ---------- |",
            "| wmdd           | 64.5 ± 1.5 |",
            "| random, seed 0 | 9          |",
        ]

    def test_markdown_header_may_be_the_longest_cell(self):
        table = tables.markdown_table(["seconds"], [["9"]])
        assert table == "| seconds |\n| ------- |\n| 9       |"

    def test_csv_can_be_read_back(self):
        text = tables.csv_table(self.HEADER, self.ROWS)
        assert list(csv.reader(io.StringIO(text))) == [self.HEADER, *self.ROWS]
        assert text.count("\n") == 3 and "\r" not in text

    def test_numbers_are_taken_as_they_are(self):
        assert "| 3 |" in tables.markdown_table(["n"], [[3]])
        assert tables.csv_table(["n"], [[3]]) == "n\n3\n"

    def test_latex_is_escaped_and_aligned(self):
        text = tables.latex_table(
            ["a_b", "top-1, %", "n"],
            [["x & y", "64.5 ± 1.5", "3"], ["z", "", "10"]],
            "c_d",
        )
        assert text.split("\n") == [
            r"\begin{table}",
            r"\centering",
            r"\caption{c\_d}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"a\_b & top-1, \% & n \\",
            r"\midrule",
            r"x \& y & 64.5 $\pm$ 1.5 & 3 \\",
            r"z &  & 10 \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]

    def test_latex_without_rows_or_caption(self):
        text = tables.latex_table(["a", "b"], [])
        assert r"\begin{tabular}{ll}" in text and "caption" not in text

    def test_latex_special_characters(self):
        text = tables.latex_table(["\\~^{}#$<"], [])
        assert (
            r"\textbackslash{}\textasciitilde{}\textasciicircum{}\{\}\#\$$<$ \\" in text
        )


class TestResults:
    def test_one_row_an_arm_and_ipc_one_column_a_kind_of_labels(self):
        rows = [
            student(top1=0.5, labels="stored", label_bytes=900),
            student(top1=0.3),
            student(top1=0.4, set=1),
            student("wmdd/noise", top1=0.25),
            student(tables.WHOLE, ipc=0, top1=0.9, image_bytes=64_000),
            student(ipc=10, top1=0.6, image_bytes=6400, label_bytes=100, other_bytes=7),
        ]
        header, table = tables.results(rows, str.upper)
        assert header == [
            *("IPC", "images", "hard labels", "stored labels", "n"),
            *("bytes of images", "with hard labels", "with stored labels"),
        ]
        assert table == [
            ["1", "RANDOM", "35.0 ± 7.1", "50.0", "2", "640", "650", "1,540"],
            ["1", "WMDD/NOISE", "25.0", "", "1", "640", "650", ""],
            ["10", "RANDOM", "60.0", "", "1", "6,400", "6,507", ""],
            ["all", "WHOLE DATA", "90.0", "", "1", "64,000", "64,010", ""],
        ]

    def test_labels_go_from_the_cheapest_to_the_dearest(self):
        order = ("online", "stored+lia", "stored", "single+lia", "single", "hard")
        rows = [student(labels=labels) for labels in (*order, "online+lia")]
        header, _ = tables.results(rows)
        assert header[2:9] == [f"{mode} labels" for mode in tables.LABELS]

    def test_runs_are_a_column_and_stand_together(self):
        rows = [
            student(arm, run=run, top1=top1)
            for run, top1 in (("b", 0.2), ("a", 0.4))
            for arm in ("wmdd/real", "random")
        ]
        header, table = tables.results(rows)
        assert header[:3] == ["run", "IPC", "images"]
        assert [row[:4] for row in table] == [
            ["b", "1", "wmdd/real", "20.0"],
            ["a", "1", "wmdd/real", "40.0"],
            ["b", "1", "random", "20.0"],
            ["a", "1", "random", "40.0"],
        ]

    def test_recipes_and_models_are_apart(self):
        rows = [student(), student(recipe="rded"), student(), student(model="resnet18")]
        found = tables.split(rows)
        assert list(found) == [
            ("dm", "convnet"),
            ("rded", "convnet"),
            ("dm", "resnet18"),
        ]
        assert [len(mine) for mine in found.values()] == [2, 1, 1]


class TestLong:
    def test_numbers_that_other_programs_read(self):
        header, rows = tables.long([student(top1=0.25), student(top1=0.75, set=1)])
        (row,) = csv.DictReader(io.StringIO(tables.csv_table(header, rows)))
        assert float(row["mean"]) == 0.5 and int(row["n"]) == 2
        assert float(row["std"]) == pytest.approx(np.std([0.25, 0.75], ddof=1))
        assert (row["recipe"], row["arm"], row["image_bytes"]) == (
            "dm",
            "random",
            "640",
        )


class TestSeries:
    def test_points_by_labels_and_arm(self):
        rows = [
            student(ipc=10, top1=0.6, image_bytes=6400),
            student(top1=0.3),
            student(top1=0.5, set=1),
            student("wmdd/noise", labels="online", other_bytes=5000),
            student(tables.WHOLE, ipc=0, top1=0.9),
        ]
        found = tables.series(rows, "ipc")
        assert list(found) == ["hard", "online"]
        first, second = found["hard"]["random"]
        assert first == (1, pytest.approx(0.4), pytest.approx(0.2 / math.sqrt(2)))
        assert second[:2] == (10, 0.6) and math.isnan(second[2])
        assert found["hard"][tables.WHOLE][0][0] == 0
        sizes = tables.series(rows, "bytes")
        assert [point[0] for point in sizes["hard"]["random"]] == [650, 6410]
        assert sizes["online"]["wmdd/noise"][0][0] == 5650


class TestScores:
    # DD-Ranking's example: whole 84, ours hard 45, ours soft 60, random soft 50.
    ROWS = (
        student(tables.WHOLE, ipc=0, top1=0.84),
        student("wmdd/noise", top1=0.40),
        student("wmdd/noise", top1=0.50, set=1),
        student("wmdd/noise", top1=0.60, labels="stored"),
        student(top1=0.50, labels="stored"),
    )

    def found(self, rows, arm="wmdd/noise", labels="stored", recipe="dm"):
        (row,) = [
            row
            for row in tables.scores(list(rows))
            if (row["arm"], row["labels"], row["recipe"]) == (arm, labels, recipe)
        ]
        return row

    def test_golden_values(self):
        row = self.found(self.ROWS)
        assert row["hlr"] == pytest.approx(0.39) and row["ior"] == pytest.approx(0.1)
        assert row["lrs"] == pytest.approx(0.2115, abs=5e-5)
        assert row["ars"] is None  # no students without augmentation

    def test_missing_parts_give_no_score(self):
        row = self.found(self.ROWS, labels="hard")
        assert row["hlr"] == pytest.approx(0.39)
        assert row["ior"] is row["lrs"] is row["ars"] is None
        row = self.found(self.ROWS[1:])
        assert row["ior"] == pytest.approx(0.1) and row["hlr"] is row["lrs"] is None

    def test_students_without_augmentation_give_the_ars(self):
        plain = [
            student("wmdd/noise", top1=0.7, labels="stored", recipe="dm+plain"),
            student(top1=0.4, labels="stored", recipe="dm+plain"),
        ]
        row = self.found((*self.ROWS, *plain))
        assert row["ars"] == pytest.approx(metrics.ars(0.1, 0.3))
        assert metrics.ars(0.1, 0.3) == pytest.approx(0.363, abs=5e-4)
        assert self.found((*self.ROWS, *plain), recipe="dm+plain")["ars"] is None

    @pytest.mark.parametrize(
        "other", [{"ipc": 10}, {"model": "resnet18"}, {"recipe": "rded"}, {"run": "b"}]
    )
    def test_parts_of_other_cells_are_not_mixed_in(self, other):
        """Whole data and random of another size, network, recipe or run."""
        whole, *mine, random = self.ROWS
        whole = {**whole, **({"model": "vgg11"} if "ipc" in other else other)}
        row = self.found([whole, *mine, {**random, **other}])
        assert row["hlr"] is row["ior"] is None

    def test_random_is_level_with_itself_and_whole_data_have_no_row(self):
        assert self.found(self.ROWS, arm="random")["ior"] == 0
        assert all(row["arm"] != tables.WHOLE for row in tables.scores(list(self.ROWS)))

    def test_table_shows_what_there_is(self):
        header, rows = tables.scores_table(list(self.ROWS), str.upper)
        assert header[-4:] == ["HLR", "IOR", "LRS", "ARS"]
        assert rows == [
            ["dm", "convnet", "1", "WMDD/NOISE", "hard", "0.390", "", "", ""],
            [
                "dm",
                "convnet",
                "1",
                "WMDD/NOISE",
                "stored",
                "0.390",
                "0.100",
                "0.212",
                "",
            ],
            ["dm", "convnet", "1", "RANDOM", "stored", "", "0.000", "", ""],
        ]
        assert tables.scores_table([student("wmdd/noise")])[1] == []


class TestDifference:
    def test_difference_and_error_are_those_of_the_means_of_the_sets(self):
        rows = of_sets({"a": [[0.5, 0.7], [0.8, 0.8]], "b": [[0.5], [0.5]]})
        (row,) = tables.difference(rows, "a", "b")
        assert row["difference"] == pytest.approx(20)
        # The means of a's sets are 60 and 80: variance 200, over two sets.
        assert row["error"] == pytest.approx(10)

    def test_ratio_is_scipys_welch_statistic(self):
        scores = {"a": [[0.5], [0.55], [0.7]], "b": [[0.4], [0.45]]}
        (row,) = tables.difference(of_sets(scores), "a", "b")
        wanted = stats.ttest_ind([0.5, 0.55, 0.7], [0.4, 0.45], equal_var=False)
        assert row["difference"] / row["error"] == pytest.approx(wanted.statistic)

    def test_one_set_has_no_error(self):
        (row,) = tables.difference(of_sets({"a": [[0.5]], "b": [[0.25]]}), "a", "b")
        assert row["difference"] == 25 and math.isnan(row["error"])

    def test_each_recipe_model_size_labels_and_run_for_itself(self):
        others = ({}, {"recipe": "rded"}, {"model": "vgg11"}, {"ipc": 10}, {"run": "r"})
        rows = [
            student(arm, top1=top1, **{"ipc": 1, **other})
            for other in others
            for arm, top1 in (("a", 0.5), ("b", 0.25))
        ]
        found = tables.difference([*rows, student("a", labels="online")], "a", "b")
        assert [row["difference"] for row in found] == [25] * 5
        assert [row["recipe"] for row in found][:2] == ["dm", "rded"]

    def test_unknown_arm_lists_the_known_ones(self):
        with pytest.raises(ValueError, match="no arm 'c'; the records have: a, b"):
            tables.difference(of_sets({"a": [[0]], "b": [[0]]}), "a", "c")


class TestQuality:
    def test_means_over_the_sets_of_an_arm(self):
        row = {"arm": "random", "ipc": 10, "set": 0, "images": "abc", "redundancy": 0.5}
        row |= {"nearest_pixels": 0.0, "real_nearest_pixels": 1.25, "copies": 1000}
        row |= {"nearest_features": 0.0, "real_nearest_features": 2.5, "test_copies": 0}
        row |= {"w2": 3.5, "png_bytes": 12_000, "halves": 0.75}
        other = {**row, "set": 1, "w2": 4.5, "redundancy": None}
        single = {**row, "ipc": 1, "redundancy": None}
        header, rows = tables.quality([row, other, single], str.upper)
        shared = ["0.75", "0.00", "1.25", "0.00", "2.50", "1,000", "0"]
        assert rows == [
            ["1", "RANDOM", "", *shared, "3.50", "12,000"],
            ["10", "RANDOM", "0.50", *shared, "4.00", "12,000"],
        ]
        assert len(header) == len(rows[0])

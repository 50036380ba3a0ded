"""Tables of attacks made by hand."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from ddjax import tables


def attack(name="pgd100", eps=2.0, clean=0.8, robust=0.4, arm="random", **more):
    """An attack's record, in the fields that tables read."""
    row = {"arm": arm, "ipc": 1, "labels": "hard", "recipe": "dm", "model": "convnet"}
    row |= {"set": 0, "student": 0, "attack": name, "eps": eps, "norm": "linf"}
    return {**row, "clean": clean, "robust": robust, "num_images": 1000, **more}


def two_students(arm="random", eps=2.0, better=0.0):
    """Two sets with a student each, under two attacks and at the worst."""
    found = []
    for s, (clean, pgd, square) in enumerate([(0.8, 0.4, 0.5), (0.6, 0.5, 0.2)]):
        left = {"pgd100": pgd, "square": square, "worst": min(pgd, square)}
        found += [
            attack(name, eps, clean + better, robust + better, arm, set=s)
            for name, robust in left.items()
        ]
    return found


class TestTitles:
    @pytest.mark.parametrize(
        "name, wanted",
        [
            ("pgd100", "PGD-100"),
            ("pgd_20", "PGD-20"),
            ("autoattack", "AutoAttack"),
            ("pgd20_margin_l2", "PGD-20, margin, L2"),
            ("apgd-t", "APGD-T"),
            ("apgd_dlr_l2", "APGD-DLR, L2"),
            ("vmi_fgsm", "VMI-FGSM"),
            ("mi-fgsm10", "MI-FGSM-10"),
            ("l2", "l2"),
            ("torchattacks10", "AutoAttack of torchattacks"),
            ("worst", "worst"),
            ("Mine_7", "Mine_7"),
            ("7", "7"),
        ],
    )
    def test_published_names_and_steps(self, name, wanted):
        assert tables.attack_title(name) == wanted

    def test_radius(self):
        assert tables.radius("linf", 0.5) == "0.5/255"
        assert tables.radius("l2", 128.0) == "128/255 in L2"
        assert tables.radius("l2", None) == "any in L2"


class TestRobust:
    def test_one_row_an_ipc_arm_and_radius_one_column_an_attack(self):
        rows = [*two_students(eps=4.0), *two_students(), attack(arm="wmdd", ipc=10)]
        header, table = tables.robust(rows, str.upper)
        assert header == [
            *("IPC", "images", "eps", "clean", "PGD-100", "Square", "worst"),
            *("robust / clean", "n", "images attacked"),
        ]
        numbers = ["70.0 ± 14.1", "45.0 ± 7.1", "35.0 ± 21.2", "30.0 ± 14.1"]
        numbers += ["41.7 ± 11.8", "2", "1,000"]  # 0.4 / 0.8 and 0.2 / 0.6
        assert table == [
            ["1", "RANDOM", "2/255", *numbers],
            ["1", "RANDOM", "4/255", *numbers],
            ["10", "WMDD", "2/255", "80.0", "40.0", "", "", "", "1", "1,000"],
        ]

    def test_ratio_is_that_of_each_student_not_of_the_means(self):
        """0.2 / 0.4 and 0.6 / 0.6: 75 percent, where the means give 80."""
        rows = [attack("worst", clean=0.4, robust=0.2)]
        rows += [attack("worst", clean=0.6, robust=0.6, student=1)]
        (cell,) = tables.robustness(rows)
        assert cell["ratio"]["mean"] == pytest.approx(0.75)

    def test_student_that_knows_nothing_has_no_ratio(self):
        (cell,) = tables.robustness([attack("worst", clean=0.0, robust=0.0)])
        assert cell["ratio"] is None and cell["clean"]["mean"] == 0

    def test_worst_case_is_last_and_others_as_they_came(self):
        rows = [attack(name) for name in ("worst", "square", "fgsm")]
        assert tables.attack_names(rows) == ["square", "fgsm", "worst"]
        assert tables.attack_names([*rows[1:], *rows]) == ["square", "fgsm", "worst"]

    def test_norms_are_apart_and_those_without_a_radius_last(self):
        rows = [
            attack("cw", None, robust=0.1, norm="l2"),
            attack(eps=128.0, robust=0.2, norm="l2"),
            attack(eps=8.0, robust=0.3),
            attack(eps=0.5, robust=0.4),
        ]
        _, table = tables.robust(rows)
        assert [row[2] for row in table] == [
            *("0.5/255", "8/255", "128/255 in L2", "any in L2"),
        ]
        assert [row[5] for row in table] == ["40.0", "30.0", "20.0", ""]
        assert [row[4] for row in table] == ["", "", "", "10.0"]  # CW came first

    def test_fewer_images_for_a_dear_attack_are_told(self):
        rows = [attack(), attack("square", clean=0.7, num_images=50)]
        worst = attack("worst", clean=0.75, num_images=50)
        (row,) = tables.robust([*rows, worst])[1]
        assert row[-1] == "50 to 1,000" and row[3] == "75.0"  # clean: with the worst

    def test_runs_are_a_column(self):
        rows = [{**row, "run": run} for run in "ab" for row in two_students()]
        header, table = tables.robust(rows)
        assert header[:2] == ["run", "IPC"] and [row[0] for row in table] == ["a", "b"]
        assert {row[-2] for row in table} == {"2"}

    def test_no_attacks_no_rows(self):
        assert tables.robust([])[1] == []

    def test_labels_are_split_where_asked(self):
        rows = [attack(), attack(labels="stored"), attack()]
        found = tables.split(rows, ("recipe", "model", "labels"))
        assert [len(mine) for mine in found.values()] == [2, 1]


class TestRobustLong:
    def test_numbers_that_other_programs_read(self):
        rows = [*two_students(), attack("cw", None, norm="l2")]
        text = tables.csv_table(*tables.robust_long(rows))
        first, *_, last = csv.DictReader(io.StringIO(text))
        assert (first["attack"], first["norm"], first["eps"]) == (
            *("pgd100", "linf", "2.0"),
        )
        assert float(first["clean"]) == pytest.approx(0.7)
        assert float(first["robust"]) == pytest.approx(0.45)
        assert float(first["robust_std"]) == pytest.approx(np.std([0.4, 0.5], ddof=1))
        assert (first["n"], first["num_images"]) == ("2", "1000")
        assert last["eps"] == "" and last["n"] == "1"


class TestRobustSeries:
    def test_worst_case_over_the_radius_from_the_clean_accuracy(self):
        rows = [*two_students(eps=4.0), *two_students(), *two_students("wmdd")]
        rows += [attack("worst", 128.0, norm="l2"), attack("worst", None)]
        rows += [{**row, "ipc": 0} for row in two_students("whole data")]
        found = tables.robust_series(rows)
        assert list(found) == [1, 0] and list(found[1]) == ["random", "wmdd"]
        points = found[1]["random"]
        assert [x for x, _, _ in points] == [0, 2, 4]
        np.testing.assert_allclose([y for _, y, _ in points], [0.7, 0.3, 0.3])
        assert points[0][2] == pytest.approx(0.2 / math.sqrt(2))

    def test_nothing_is_drawn_without_a_worst_case(self):
        assert tables.robust_series([attack()]) == {}


def test_difference_of_attacked_accuracies_is_scipys_welch_statistic():
    """Over the means of the sets, for each attack and radius by itself."""
    rows = [
        attack(arm=arm, eps=eps, robust=robust, set=s)
        for arm, scores in {"a": (0.5, 0.55, 0.7), "b": (0.4, 0.45)}.items()
        for s, robust in enumerate(scores)
        for eps in (1.0, 2.0)
    ]
    by = ("attack", "norm", "eps")
    first, second = tables.difference(rows, "a", "b", "robust", by)
    wanted = stats.ttest_ind([0.5, 0.55, 0.7], [0.4, 0.45], equal_var=False)
    assert first["difference"] / first["error"] == pytest.approx(wanted.statistic)
    assert (first["eps"], second["eps"], first["attack"]) == (1, 2, "pgd100")


def test_landscapes():
    row = {"name": "teacher", "gradient_norm": 0.12345, "rayleigh": 20, "cosine": 0.994}
    row |= {"top_eigenvalue": 21.04, "surface": {"radius": 8, "loss": [[1.0]]}}
    header, rows = tables.landscapes([row])
    assert rows == [["teacher", "0.123", "20", "21", "0.994"]]
    assert len(header) == len(rows[0])
    assert tables.landscapes([{**row, "run": "a"}])[1][0][:2] == ["a", "teacher"]

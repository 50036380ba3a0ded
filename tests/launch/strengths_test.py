"""The penalty's strength, for each ipc, on held-out training images."""

import json

import pytest

from launch import evaluate, rates, strengths
from tests.launch.robustness_test import quick


def test_a_search_trains_no_more_than_it_reads():
    """Rates need no attacks, for which students are kept; strengths no others' sets."""
    config = quick(sets=("sets/theirs",))
    assert rates.held_out(config, 0.1).evaluate.attacks == ()
    held = strengths.held_out(config, ["guard"], 0.1)
    assert held.evaluate.against == ("sre2l+guard/noise",)
    assert held.evaluate.sets == ()


def test_a_method_stands_for_its_teacher_before_a_baseline():
    config = quick(against=("random+guard", "wmdd+guard/noise"))
    config.recover.method = "sre2l"
    assert strengths.held_out(config, ["guard"], 0.1).evaluate.against == (
        "wmdd+guard/noise",
    )
    config.evaluate.against = ("random+guard",)
    held = strengths.held_out(config, ["guard"], 0.1)
    assert held.evaluate.against == ("random+guard",)


def test_the_best_mean_over_radii_wins_for_each_ipc():
    config, seen = quick(strengths=(0.1, 0.4)), []

    def attacked(held, workdir):
        del workdir
        weight = held.teachers.guard.curvature.weight
        seen.append((weight, held.data.holdout, held.evaluate.attacks))
        return [
            {"arm": "sre2l+guard/noise", "ipc": ipc, "attack": attack, "eps": 2.0}
            | {"clean": 0.5, "robust": robust if attack == "worst" else 1.0}
            for ipc, robust in ((1, weight), (10, 1 - weight))
            for attack in ("pgd20", "worst")
        ]

    changed, rows = strengths.search(config, "", attacked)
    assert changed.teachers.guard.curvature.weight == ((1, 0.4), (10, 0.1))
    assert seen == [(0.1, 0.2, ("pgd20",)), (0.4, 0.2, ("pgd20",))]
    chosen = [(r["ipc"], r["weight"]) for r in rows if r["chosen"]]
    assert sorted(chosen) == [(1, 0.4), (10, 0.1)]
    assert config.teachers.guard.curvature.weight == 1.0, "the given one stays"


def test_whole_search(tmp_path):
    """Of one candidate, with all its parts; its table is in the report."""
    config = quick(strengths=(0.5,), attacks=("fgsm",), radii=(16.0,), against=())
    with config.unlocked():
        config.squeeze.epochs = 1
        config.recipes.wmdd.epochs = 2
    evaluate.run(config, tmp_path)
    records = json.loads((tmp_path / "report" / "records.json").read_text())
    (row,) = records["strengths"]
    assert (row["weight"], row["ipc"], row["chosen"]) == (0.5, 2, True)
    table = (tmp_path / "report" / "table.md").read_text()
    assert "| teacher | IPC | strength | clean | 16/255" in table


def test_what_cannot_be_searched_is_refused():
    config = quick(strengths=(0.1,), against=())
    with config.unlocked():
        config.data.holdout = 0.2
    with pytest.raises(ValueError, match="so does data.holdout"):
        strengths.search(config, "", None)
    with config.unlocked():
        config.data.holdout = 0.0
        config.recover.method = "sre2l"
    with pytest.raises(ValueError, match="no arm has one"):
        strengths.search(config, "", None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search_attack": "pdg20"}, "unknown attack 'pdg20'"),
        ({"search_attack": "pgd20_l2"}, "'pgd20_l2'; expected one in L-inf"),
        ({"search_attack": "cw_torchattacks"}, "expected one in L-inf"),
        ({"search_holdout": 0.99}, "ipc must lie in 1..1"),
    ],
)
def test_what_would_end_a_search_late_is_told_first(changes, told):
    with pytest.raises(ValueError, match=told):
        strengths.search(quick(strengths=(0.1,), **changes), "", None)

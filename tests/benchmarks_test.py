"""The comparison of two arms, on records made by hand."""

import pytest

from benchmarks import compare


def _records(scores):
    return [
        {"arm": arm, "ipc": 1, "labels": "hard", "set": s, "top1": top1}
        for arm, sets in scores.items()
        for s, students in enumerate(sets)
        for top1 in students
    ]


def test_difference_and_error_are_those_of_the_means_of_the_sets():
    records = _records({"a": [[0.5, 0.7], [0.8, 0.8]], "b": [[0.5], [0.5]]})
    (row,) = compare.compare(records, "a", "b")
    assert row["difference"] == pytest.approx(20)
    # The means of a's sets are 60 and 80: variance 200, over two sets.
    assert row["error"] == pytest.approx(10)


def test_unknown_arm_lists_the_known_ones():
    with pytest.raises(ValueError, match="no arm 'c'; the records have: a, b"):
        compare.compare(_records({"a": [[0]], "b": [[0]]}), "a", "c")

"""Plots: places, ticks and error bars, against values worked out by hand."""

import math
import re

import pytest

from ddjax.page import charts


def numbers(path):
    return [float(x) for x in re.findall(r"-?\d+\.?\d*", path)]


def test_equal_factors_are_equally_far():
    """1, 10 and 100 on a logarithmic axis; the line goes up where the values do."""
    curve = charts.Curve("a", 0, [1, 10, 100], [0.0, 1.0, 2.0])
    chart = charts.plot([curve], x_log=True)
    x0, y0, x1, y1, x2, y2 = numbers(chart.series[0].line)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and x1 > x0
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y1 < y0
    assert [tick.text for tick in chart.x_ticks] == ["1", "10", "100"]
    assert [tick.at for tick in chart.x_ticks] == pytest.approx([x0, x1, x2], abs=0.1)


def test_error_bars_are_one_spread_to_either_side():
    """And none where there is no spread; all of them lie within the frame."""
    curve = charts.Curve("a", 0, [0, 1], [2.0, 4.0], [1.0, math.nan])
    chart = charts.plot([curve], x_at=[0, 1])
    (_, y0, _, y1), bars = numbers(chart.series[0].line), chart.series[0].bars
    assert bars.count("V") == 1
    _, top, bottom, *_ = numbers(bars)
    unit = (y0 - y1) / 2
    assert (y0 - top, bottom - y0) == pytest.approx((unit, unit), abs=0.2)
    _, high, _, low = chart.frame
    assert high <= top < bottom <= low


@pytest.mark.parametrize(
    "values, wanted",
    [
        ([0, 100], ["0", "20", "40", "60", "80", "100"]),
        ([91.2, 93.1], ["91.5", "92", "92.5", "93"]),
        ([5, 5], ["4.6", "4.8", "5", "5.2", "5.4"]),
    ],
)
def test_ticks_are_round_numbers(values, wanted):
    chart = charts.plot([charts.Curve("a", 0, [0, 1], values)])
    assert [tick.text for tick in chart.y_ticks] == wanted


def test_cloud_keeps_the_shape_of_a_square():
    """A unit is as long on one axis as on the other."""
    corners = charts.Curve("a", 0, [0, 1, 1, 0], [0, 0, 1, 1], mark="dot", line=False)
    series = charts.cloud([corners], x_label="", y_label="").series[0]
    x0, y0, _, x1, y1, _, x2, y2, *_ = numbers(series.marks)
    assert x1 - x0 == pytest.approx(y1 - y2, abs=0.2) and x1 - x0 > 100
    assert y0 == y1 and x1 == x2 and series.line == ""

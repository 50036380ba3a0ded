"""Where the lines and marks of a plot lie: numbers in, the paths of an SVG out."""

import math
from typing import NamedTuple

import numpy as np

__all__ = ["Chart", "Curve", "Series", "Tick", "cloud", "plot"]

WIDTH, HEIGHT = 420, 270  # units of the SVG; it is as wide as there is room
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 12, 12, 40


class Curve(NamedTuple):
    """Points of one name that belong together."""

    name: str
    color: int  # of the page's palette
    x: list
    y: list
    spread: list | None = None  # half of each error bar, NaN for none
    mark: str = "dot"  # "dot", "ring", "square", "cross"; "" for a plain line
    line: bool = True


class Series(NamedTuple):
    """The same as paths."""

    name: str
    color: int
    line: str
    bars: str
    marks: str
    mark: str


class Tick(NamedTuple):
    """A place on an axis and what is written there."""

    at: float
    text: str


class Chart(NamedTuple):
    """A plot, ready to be drawn."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    series: list[Series]
    levels: list[tuple[str, float]]  # name and height of lines across
    frame: tuple[int, int, int, int]  # left, top, right, bottom
    size: tuple[int, int]


def plot(
    curves: list[Curve],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    x_log: bool = False,
    y_log: bool = False,
    x_at: list | None = None,
    levels: dict | None = None,
) -> Chart:
    """Lines with error bars.

    Args:
      curves: what is drawn; at least one point, all finite, positive where log.
      title: of the plot.
      x_label: under it.
      y_label: beside it.
      x_log: whether equal factors are equally far on the x axis.
      y_log: the same of the y axis.
      x_at: where the ticks of the x axis are; round numbers where None.
      levels: heights of lines across, by name.
    """
    levels = levels or {}
    xs = [x for curve in curves for x in curve.x]
    ys = [*levels.values()]
    for curve in curves:
        spread = curve.spread or [0] * len(curve.y)
        half = [s if math.isfinite(s) else 0 for s in spread]
        ys += [y + sign * h for y, h in zip(curve.y, half) for sign in (-1, 1)]
    frame = (_LEFT, _TOP, WIDTH - _RIGHT, HEIGHT - _BOTTOM)
    to_x, x_ticks = _axis(xs, frame[0] + 8, frame[2] - 8, x_log, x_at)
    to_y, y_ticks = _axis(ys, frame[3] - 6, frame[1] + 6, y_log, None)
    series = [_series(curve, to_x, to_y) for curve in curves]
    across = [(name, round(to_y(y), 1)) for name, y in levels.items()]
    texts = (title, x_label, y_label)
    return Chart(*texts, x_ticks, y_ticks, series, across, frame, (WIDTH, HEIGHT))


def cloud(groups: list[Curve], *, x_label: str, y_label: str) -> Chart:
    """Points in a plane, with equal units on both axes and no ticks.

    Args:
      groups: points of one colour and mark each; drawn in this order.
      x_label: under them.
      y_label: beside them.
    """
    width, height, edge = 640, 480, 16
    frame = (24, 4, width - 4, height - 24)
    every = np.array([(x, y) for g in groups for x, y in zip(g.x, g.y)])
    low, high = every.min(0), every.max(0)
    room = np.array([frame[2] - frame[0], frame[3] - frame[1]]) - 2 * edge
    unit = float(np.min(room / np.maximum(high - low, 1e-9)))
    middle = (low + high) / 2
    center = ((frame[0] + frame[2]) / 2, (frame[1] + frame[3]) / 2)
    series = [
        _series(
            group,
            lambda x: center[0] + (x - middle[0]) * unit,
            lambda y: center[1] - (y - middle[1]) * unit,
        )
        for group in groups
    ]
    return Chart("", x_label, y_label, [], [], series, [], frame, (width, height))


def _series(curve: Curve, to_x, to_y) -> Series:
    places = [(to_x(x), to_y(y)) for x, y in zip(curve.x, curve.y)]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) if curve.line else ""
    bars = ""
    for (x, _), y, half in zip(places, curve.y, curve.spread or ()):
        if math.isfinite(half) and half > 0:
            top, end = to_y(y + half), to_y(y - half)
            bars += f"M{x:.1f} {top:.1f}V{end:.1f}"
            bars += f"M{x - 3:.1f} {top:.1f}h6M{x - 3:.1f} {end:.1f}h6"
    marks = "".join(_mark(curve.mark, x, y) for x, y in places)
    return Series(curve.name, curve.color, line, bars, marks, curve.mark)


def _mark(mark: str, x: float, y: float) -> str:
    """A dot is a line of no length with round ends: the shortest way to write it."""
    shapes = {
        "": "",
        "dot": f"M{x:.1f} {y:.1f}h0",
        "square": f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7z",
        "ring": f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        "cross": f"M{x - 4:.1f} {y - 4:.1f}l8 8m-8 0l8 -8",
    }
    return shapes[mark]


def _axis(values, start, end, log: bool, at):
    """(value -> place, ticks) of an axis from `start` to `end`."""
    low, high = min(values), max(values)
    if log:
        to, back = math.log10, lambda v: 10**v
    else:
        to = back = float
    first, last = to(low), to(high)
    if last - first < 1e-9:  # one value: in the middle
        first, last = first - 0.5, last + 0.5

    def place(value):
        return start + (to(max(value, back(first))) - first) / (last - first) * (
            end - start
        )

    if at is None:
        at = _decades(first, last) if log else _round_numbers(first, last)
    return place, [Tick(round(place(v), 1), _short(v)) for v in at]


def _round_numbers(low: float, high: float) -> list[float]:
    """Some six multiples of 1, 2 or 5 between two numbers."""
    rough = (high - low) / 6
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between two exponents; between them 2 and 5 where few are there."""
    whole = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(whole) > 2:
        every = math.ceil(len(whole) / 6)
        return [10.0**k for k in whole[::every]]
    wide = range(math.floor(low), math.ceil(high) + 1)
    found = [m * 10.0**k for k in wide for m in (1, 2, 5)]
    return [v for v in found if low - 1e-9 <= math.log10(v) <= high + 1e-9]


def _short(value: float) -> str:
    """A number as short as people write it: 0.05, 20, 3k, 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"

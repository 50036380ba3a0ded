"""Pictures of what `benchmarks.run` has measured."""

import json
import pathlib

__all__ = ["against"]

_RESULTS = pathlib.Path(__file__).parent / "results"
_AXES = {
    "ipc": "images per class",
    "classes": "classes",
    "side": "pixels a side",
    "students": "students side by side",
}
_DEVICES = "devices (simulated: overhead only)"
_POWERS = {"pixels a side": 2}  # of the dotted line, as much work as there is of it
INK = "#1d1f23"


def against(records: list[dict]):
    """The time of each program against what it varies, relative to its first.

    A panel for each thing that varies, and one for devices, from
    `benchmarks.scaling`: simulated ones, of which only the overhead tells anything.

    Args:
      records: of `benchmarks.run`.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure  # slow to import

    panels = {name: _series(records, name) for name in _AXES}
    panels = {_AXES[name]: lines for name, lines in panels.items() if lines}
    devices = _of_devices()
    if devices:
        panels[_DEVICES] = devices
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(11, 4.6 * rows), dpi=100, layout="constrained")
    every = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes, (title, lines) in zip(every, panels.items()):
        _panel(axes, title, lines)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    return figure


def _series(records, varied) -> dict:
    """{name: [(value, relative time)]} of programs that vary this, at several values."""
    found = {}
    for r in records:
        if r["varied"] == varied:
            name = f"{r['path']}: {r['what']}"
            found.setdefault(name, []).append((r["value"], r["seconds"]))
    lines = {name: sorted(points) for name, points in found.items() if len(points) > 1}
    return {
        name: [(value, s / points[0][1]) for value, s in points]
        for name, points in lines.items()
    }


def _of_devices() -> dict:
    path = _RESULTS / "scaling.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    shown = {"compile_seconds_ratio": "compiling", "host_us_ratio": "the host's work"}
    return {
        f"{row['loop']}: {told}": [
            (r["devices"], r[field]) for r in rows if r["loop"] == row["loop"]
        ]
        for row in rows
        for field, told in shown.items()
    }


def _panel(axes, title, lines):
    first = min(points[0][0] for points in lines.values())
    last = max(points[-1][0] for points in lines.values())
    ends = [1, (last / first) ** _POWERS.get(title, 1)]
    axes.plot([first, last], ends, ":", color=INK, linewidth=0.8, label="as much work")
    for i, (name, points) in enumerate(lines.items()):
        axes.plot(*zip(*points), "osv^D"[i // 10], linestyle="-", label=name, ms=4)
    values = sorted({value for points in lines.values() for value, _ in points})
    axes.set(
        xscale="log", yscale="log", xlabel=title, ylabel="time, of the first point"
    )
    axes.set_xticks(values, labels=map(str, values))
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize=6)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)

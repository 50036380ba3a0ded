"""Report: pictures and tables from artifacts and records."""

import csv
import io
import math

import numpy as np

__all__ = ["csv_table", "curves", "grid", "markdown_table", "summarise"]


def grid(rows: list[tuple[str, np.ndarray]], per_row: int):
    """A picture of several sets of images, one block of rows for each.

    Args:
      rows: (title, images [n, H, W, ch] uint8), class-major.
      per_row: images next to one another.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure

    blocks = [(title, _tile(images, per_row)) for title, images in rows]
    widths = [tile.shape[1] for _, tile in blocks]
    heights = [tile.shape[0] for _, tile in blocks]
    dpi, title_pixels = 100, 24
    zoom = max(1, round(720 / max(widths)))  # small images are enlarged
    total = sum(h * zoom + title_pixels for h in heights)
    figure = Figure(figsize=(max(widths) * zoom / dpi, total / dpi), dpi=dpi)
    top = 1.0
    for (title, tile), height in zip(blocks, heights):
        share = height * zoom / total
        top -= title_pixels / total
        axes = figure.add_axes((0, top - share, 1, share))
        axes.imshow(tile, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize=10, pad=3)
        top -= share
    return figure


def _tile(images: np.ndarray, per_row: int) -> np.ndarray:
    """[n, H, W, ch] to one picture, with a white line of a pixel around each image."""
    count, _, _, channels = images.shape
    missing = -count % per_row
    padding = ((0, missing), (1, 1), (1, 1), (0, 0))
    padded = np.pad(images, padding, constant_values=255)
    _, height, width, _ = padded.shape
    tiled = padded.reshape(-1, per_row, height, width, channels)
    tiled = tiled.transpose(0, 2, 1, 3, 4).reshape(-1, per_row * width, channels)
    return tiled[..., 0] if channels == 1 else tiled


def curves(history: list[dict], title: str):
    """Loss terms over steps, on a logarithmic scale.

    Args:
      history: rows with "step" and one number for each term.
      title: of the picture.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="tight")
    axes = figure.subplots()
    steps = [row["step"] for row in history]
    for term in sorted({key for row in history for key in row} - {"step"}):
        values = [row.get(term, math.nan) for row in history]
        axes.plot(steps, values, label=term, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", title=title, yscale="log")
    axes.legend(fontsize=8)
    return figure


def summarise(records: list[dict], by: tuple[str, ...]) -> list[dict]:
    """Groups records of single students and takes the mean and std of each group.

    Args:
      records: with "top1" in [0, 1] and the fields in `by`.
      by: the fields that make a group, in the order of the result.

    Returns:
      One dict a group, in order of appearance: the fields, "mean", "std", "n".
    """
    from ddjax import metrics

    groups: dict[tuple, list] = {}
    for row in records:
        groups.setdefault(tuple(row[field] for field in by), []).append(row["top1"])
    return [
        dict(zip((*by, "mean", "std", "n"), (*key, *metrics.mean_and_std(scores))))
        for key, scores in groups.items()
    ]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with columns as wide as their longest cell."""
    widths = [
        max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))
    ]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(str(c).ljust(w) for c, w in zip(line, widths)) + " |"
        for line in lines
    )


def csv_table(header: list[str], rows: list[list[str]]) -> str:
    """The same, as comma separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()

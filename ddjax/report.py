"""Report: pictures of artifacts and records."""

import math

import numpy as np

__all__ = ["accuracy", "curves", "grid", "robust", "surfaces"]


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
    """Loss terms over steps, on a logarithmic scale if one is above 0.

    Args:
      history: rows with "step" and one number for each term; what is only watched, such
        as "hyperbolic/curvature", is no loss and is not drawn.
      title: of the picture.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="tight")
    axes = figure.subplots()
    steps = [row["step"] for row in history]
    terms = {key for row in history for key in row if "/" not in key}
    scale = "linear"
    for term in sorted(terms - {"step"}):
        values = [row.get(term, math.nan) for row in history]
        scale = "log" if max(values) > 0 else scale
        axes.plot(steps, values, label=term, linewidth=1)
    axes.set(xlabel="step", ylabel="loss", title=title, yscale=scale)
    axes.legend(fontsize=8)
    return figure


def accuracy(panels: dict[str, dict[str, list[tuple]]], title: str, xlabel: str):
    """Accuracy over the size of a set: a panel a kind of labels, a line an arm.

    Args:
      panels: {labels: {name of an arm: [(x, mean, std)]}}, accuracies in [0, 1]; std
        may be NaN. An arm at x = 0 has no size: it is a level, a dashed line.
      title: of the picture.
      xlabel: of the logarithmic axis.

    Returns:
      A matplotlib figure.
    """
    figure, row = _panels(panels, title)
    drawn = [points for lines in panels.values() for points in lines.values()]
    sizes = sorted({x for points in drawn for x, _, _ in points if x})
    for axes, labels in zip(row, panels):
        axes.set(title=f"{labels} labels", xlabel=xlabel, xscale="log")
    if sizes and sizes[-1] <= 1000:  # images per class: few, and rarely powers of ten
        row[0].set_xticks(sizes, [f"{x:g}" for x in sizes])
        for axes in row:
            axes.tick_params(which="minor", bottom=False)
    row[0].set_ylabel("top-1 of the last epoch, %")
    return figure


def robust(panels: dict[int, dict[str, list[tuple]]], title: str):
    """What is left under attack, over its radius: a panel a size, a line an arm.

    Args:
      panels: {ipc: {name of an arm: [(eps in 1/255, mean, std)]}}, accuracies in
        [0, 1]; std may be NaN. That without an attack is at 0; all images have ipc 0.
      title: of the picture.

    Returns:
      A matplotlib figure.
    """
    figure, row = _panels(panels, title)
    for axes, ipc in zip(row, panels):
        name = f"{ipc} per class" if ipc else "all images"
        axes.set(title=name, xlabel="radius of the attacks, 1/255", ylim=(0, None))
    row[0].set_ylabel("top-1 in the worst case, %")
    return figure


def _panels(panels, title):
    """(figure, axes) with the lines of each panel, and one legend beside them."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure = Figure(figsize=(4 * len(panels) + 2.5, 4), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=11)
    row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, lines in zip(row, panels.values()):
        for name, points in lines.items():
            _draw(axes, name, names.index(name), 100 * np.array(points, np.float64))
        axes.grid(alpha=0.3)
    marks = [h for axes in row for h in axes.get_legend_handles_labels()[0]]
    marks = {mark.get_label(): mark for mark in marks}
    marks = [marks[name] for name in names]
    figure.legend(marks, names, fontsize=8, loc="outside right center")
    return figure, row


def _draw(axes, name, index, points):
    """A line with error bars; marks and colours are an arm's in every panel."""
    style = {"color": f"C{index % 10}", "label": name, "linewidth": 1}
    x, mean, std = points.T
    if not x.any():
        axes.axhline(mean[0], linestyle="--", **style)
        return
    axes.errorbar(
        x / 100,
        mean,
        np.nan_to_num(std),
        marker="osD^v<>Pp*"[index % 10],
        capsize=2,
        **style,
    )


def surfaces(networks: list[tuple[str, dict, str]]):
    """The loss around images, a panel for each network, all on the same scale.

    Args:
      networks: (name, surface, what is written under it). A surface has its "radius",
        half its width in 1/255 (root mean square), and "loss" [g, g], along the
        gradient and along a random direction.

    Returns:
      A matplotlib figure.
    """
    from matplotlib.figure import Figure

    losses = [np.array(surface["loss"], np.float64) for _, surface, _ in networks]
    low, high = min(map(np.min, losses)), max(map(np.max, losses))
    count = len(networks)
    figure = Figure(figsize=(4 * count + 0.5, 4.6), dpi=100)
    for i, ((name, surface, words), loss) in enumerate(zip(networks, losses)):
        axes = figure.add_subplot(1, count, i + 1, projection="3d")
        steps = [surface["radius"] * np.linspace(-1, 1, n) for n in loss.shape]
        x, y = np.meshgrid(*steps, indexing="ij")
        axes.plot_surface(x, y, loss, cmap="viridis", vmin=low, vmax=high)
        axes.set_zlim(low, high if high > low else low + 1)
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("gradient, 1/255", fontsize=8)
        axes.set_ylabel("random, 1/255", fontsize=8)
        axes.set_zlabel("loss", fontsize=8)
        axes.tick_params(labelsize=7)
        figure.text((i + 0.5) / count, 0.02, words, fontsize=8, ha="center")
    figure.subplots_adjust(left=0.02, right=0.95, bottom=0.2, top=0.92, wspace=0.12)
    return figure

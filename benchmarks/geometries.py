"""The same digits laid out in the plane, in hyperbolic space and on a sphere.

    python -m benchmarks.geometries

Features of a small teacher for 200 test digits are laid out in two dimensions of
curvatures from -50 to 5: points move until their geodesic distances are as near as they
get to those of the features. One program runs all curvatures side by side, for to the
library they are one space. Prints the stress that is left,

    sqrt(sum (d - delta)^2 / sum delta^2),

in units where the mean square of delta is 1, and draws the best of each sign. Hyperbolic
points stay where float32 is good (`geometry.largest_radius`). Records and picture:
benchmarks/results/geometries/.
"""

import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddjax import data, geometry, models, pipeline, squeeze

RESULTS = pathlib.Path(__file__).parent / "results" / "geometries"
# A sphere below 1 is nearly a plane, and fits as well as that.
CURVATURES = (
    -50.0,
    -25.0,
    -18.0,
    -12.0,
    -6.0,
    -3.0,
    -1.0,
    0.0,
    1.0,
    2.0,
    3.0,
    4.0,
    5.0,
)
PER_CLASS, STEPS, RATE = 20, 600, 0.05
# Those of the page of a run.
COLORS = (
    "#23629f #d1661d #2a8a57 #b83a4b #7a55b0 #8a6a3f #c2559a #5f6670 #93931b #1c96a8"
)
RULE, INK = "#d8d8d0", "#1d1f23"


def features() -> tuple[np.ndarray, np.ndarray, float]:
    """(features [n, D] of test digits, their labels [n], the teacher's top-1)."""
    train, test = data.load("digits"), data.load("digits", "test")
    network = models.create("convnet", train.info, width=32)
    recipe = squeeze.Recipe(batch_size=64, epochs=10, crop_scale=(0.6, 1.0), flip=False)
    teacher = pipeline.teach(jax.random.key(0), network, train, recipe)
    logits, out = jax.jit(network.apply)(teacher, test.images / np.float32(255))
    classes = range(train.info.num_classes)
    rows = [np.flatnonzero(test.labels == c)[:PER_CLASS] for c in classes]
    rows = np.concatenate(rows)
    top1 = float((logits.argmax(1) == test.labels).mean())
    return np.asarray(out["features"])[rows], test.labels[rows], top1


def starts(x: np.ndarray) -> np.ndarray:
    """[2, n, 2]: the first two principal components, and a random cloud."""
    left, scales, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    plane = left[:, :2] * scales[:2]
    plane *= 0.5 / np.sqrt((plane**2).mean())
    cloud = 0.6 * np.random.default_rng(0).normal(size=plane.shape)
    return np.stack([plane, cloud]).astype(np.float32)


def wanted(x: np.ndarray) -> jax.Array:
    """[n, n], Euclidean distances of features, of mean square 1."""
    squares = np.asarray(geometry.pairwise_squared(x, x, 0.0), np.float64)
    np.fill_diagonal(squares, 0)
    return jnp.array(np.sqrt(squares / squares.mean()), jnp.float32)


def stress(v, kappa, delta):
    """How far geodesic distances of points v [n, 2] are from delta [n, n]."""
    space = geometry.Product(kappa[None], jnp.ones(1))
    d = geometry.product_pairwise(space, (v,), (v,))
    return jnp.sqrt(jnp.sum((d - delta) ** 2) / jnp.sum(delta**2))


def bounded(v, kappa):
    """Hyperbolic points stay near the origin; a sphere has no far."""
    radius = jnp.where(kappa < 0, geometry.largest_radius(kappa), jnp.inf)
    return geometry.clip(v, radius)


@jax.jit
def laid_out(start, kappa, delta):
    """(points [n, 2], stress) after Adam from `start` at one curvature."""
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def loss(v):
        return stress(bounded(v, kappa), kappa, delta)

    def step(carry, _):
        v, state = carry
        updates, state = optimizer.update(jax.grad(loss)(v), state)
        return (optax.apply_updates(v, updates), state), None

    (v, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)
    return bounded(v, kappa), loss(v)


def scan(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(points [k, n, 2], stress [k]) for every curvature, the better of two starts."""
    one = jax.vmap(laid_out, (0, None, None))
    every = jax.vmap(one, (None, 0, None))
    v, left = every(starts(x), jnp.array(CURVATURES), wanted(x))
    best = np.nanargmin(left, 1)
    return np.asarray(v)[np.arange(len(best)), best], np.nanmin(left, 1)


# The picture --------------------------------------------------------------------------


def tree(means: np.ndarray, kappa: float) -> list[tuple[int, int]]:
    """The edges of the shortest tree that joins the means [C, 2], by Prim's method."""
    d = np.array(geometry.pairwise_squared(means, means, kappa))
    inside, edges = [0], []
    while len(inside) < len(d):
        outside = [c for c in range(len(d)) if c not in inside]
        part = d[np.ix_(inside, outside)]
        row, column = np.unravel_index(part.argmin(), part.shape)
        edges.append((inside[row], outside[column]))
        inside.append(outside[column])
    return edges


def line(a, b, kappa) -> jax.Array:
    """[48, 2], the geodesic from a to b."""
    steps = jnp.linspace(0, 1, 48)[:, None]
    return geometry.exp(a, steps * geometry.log(a, b, kappa), kappa)


def flat(v, kappa):
    """Where points of the plane are drawn, and that they are in front."""
    del kappa
    return np.asarray(v), np.ones(len(v), bool)


def disc(v, kappa):
    """The same in the Poincare disc of radius 1."""
    ball = geometry.to_ball(v, kappa) * np.sqrt(-kappa)
    return np.asarray(ball), np.ones(len(v), bool)


def globe(turn):
    """The same on a globe, seen from afar; `turn` [3, 3] puts the viewer first."""

    def view(v, kappa):
        there = np.asarray(geometry.to_embedded(v, kappa)) * np.sqrt(kappa) @ turn.T
        return there[:, 1:], there[:, 0] > 0

    return view


def facing(v, kappa) -> np.ndarray:
    """[3, 3], the rotation that shows as many of the points as it can."""
    there = np.asarray(geometry.to_embedded(v, kappa)) * np.sqrt(kappa)
    turns = np.linalg.qr(np.random.default_rng(0).normal(size=(500, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    return turns[(there @ turns[:, 0].T > 0.25).sum(0).argmax()]


def draw(axes, v, labels, kappa, view, dot):
    """Points by class, means of classes, and the tree of geodesics between these."""
    colors = np.array(COLORS.split())
    means = [geometry.frechet_mean(v[labels == c], kappa) for c in range(10)]
    means = np.stack(means)
    for a, b in tree(means, kappa):
        places, front = view(line(means[a], means[b], kappa), kappa)
        for seen, alpha in ((front, 0.55), (~front, 0.15)):
            path = np.where(seen[:, None], places, np.nan)
            axes.plot(*path.T, color=INK, linewidth=0.9, alpha=alpha, zorder=2)
    places, front = view(v, kappa)
    for seen, alpha in ((~front, 0.22), (front, 0.85)):
        hues = colors[labels[seen]]
        axes.scatter(
            *places[seen].T, s=dot, c=hues, alpha=alpha, linewidths=0, zorder=3
        )
    places, front = view(means, kappa)
    for c, (place, near) in enumerate(zip(places, front)):
        box = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "linewidth": 1.2}
        box |= {"edgecolor": colors[c], "alpha": 0.95 if near else 0.35}
        style = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold"}
        alpha = 1.0 if near else 0.5
        axes.text(*place, c, color=colors[c], bbox=box, alpha=alpha, zorder=4, **style)


def frame_disc(axes):
    """The boundary at infinity, and circles and geodesics through the centre."""
    turn = np.linspace(0, 2 * np.pi, 400)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    for distance in (1.0, 2.0, 3.0):
        axes.plot(*np.tanh(distance / 2) * circle, color=RULE, linewidth=0.7, zorder=1)
    for angle in np.arange(6) * np.pi / 6:
        end = np.array([[np.cos(angle)], [np.sin(angle)]])
        axes.plot(*end * [-1, 1], color=RULE, linewidth=0.7, zorder=1)
    axes.plot(*circle, color=INK, linewidth=1.2, zorder=1)


def frame_globe(axes, turn):
    """The limb, and meridians and parallels each 30 degrees."""
    full = np.linspace(0, 2 * np.pi, 400)
    for angle in np.radians(np.arange(-60, 90, 30)):
        parallel = [np.full(400, np.sin(angle))]
        parallel += [np.cos(angle) * np.cos(full), np.cos(angle) * np.sin(full)]
        meridian = [np.cos(full), np.sin(full) * np.cos(angle)]
        meridian += [np.sin(full) * np.sin(angle)]
        for circle in (parallel, meridian):
            there = turn @ np.stack(circle)
            path = np.where(there[0] > 0, there[1:], np.nan)
            axes.plot(*path, color=RULE, linewidth=0.7, zorder=1)
    axes.plot(np.cos(full), np.sin(full), color=INK, linewidth=1.2, zorder=1)


def picture(chosen: dict, labels: np.ndarray):
    """A panel for each of {title: (points, curvature)}: plane, disc, globe."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(12, 4.6), dpi=120, layout="constrained")
    for axes, (title, (v, kappa)) in zip(figure.subplots(1, 3), chosen.items()):
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_title(title, fontsize=11, color=INK)
        if kappa == 0:
            draw(axes, v, labels, kappa, flat, 16)
        elif kappa < 0:
            frame_disc(axes)
            draw(axes, v, labels, kappa, disc, 16)
        else:
            turn = facing(v, kappa)
            frame_globe(axes, turn)
            draw(axes, v, labels, kappa, globe(turn), 16)
    return figure


def main():
    began = time.perf_counter()
    x, labels, top1 = features()
    points, left = scan(x)
    for kappa, value in zip(CURVATURES, left):
        print(f"curvature {kappa:6.1f}: stress {value:.4f}", flush=True)
    chosen, best = {}, {}
    for sign, name in ((0, "plane"), (-1, "hyperbolic"), (1, "sphere")):
        rows = np.flatnonzero(np.sign(CURVATURES) == sign)
        row = rows[left[rows].argmin()]
        kappa = CURVATURES[row]
        title = f"{name}, curvature {kappa:g}: stress {left[row]:.3f}"
        chosen[title] = points[row], kappa
        best[name] = {"curvature": kappa, "stress": float(left[row])}
    record = {"images": len(labels), "teacher_top1": top1, "best": best}
    record["stress"] = dict(zip(map(str, CURVATURES), map(float, left)))
    record["seconds"] = time.perf_counter() - began
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    picture(chosen, labels).savefig(RESULTS / "geometries.png")
    print(f"{record['seconds']:.0f} s, {RESULTS / 'geometries.png'}")


if __name__ == "__main__":
    main()

"""PyTorch's side of `benchmarks.matching`, and of the tests of DM, DC and DSA.

    python benchmarks/torch_reference/matching.py FOLDER

`benchmarks.matching` starts it, with a Python that has torch and needs neither jax nor
ddjax. FOLDER/given.npz holds real and synthetic images [q, n, ch, H, W], normalised,
and the weights of a network; FOLDER/given.json the numbers. Each word on a line of
stdin, "dm", "dc" or "dsa", is answered by a line of JSON: seconds of an iteration, and
what it computes without augmentation. The mathematics is that of the papers, written
anew: B. Zhao and H. Bilen, https://arxiv.org/abs/2110.04181, 2006.05929, 2102.08259.
"""

import json
import pathlib
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """ConvNet with InstanceNorm; torch's own initialisation."""

    def __init__(self, channels, classes, width, depth, side):
        super().__init__()
        layers = []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
            channels, side = width, side // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, classes)

    def embed(self, x):
        return self.features(x).flatten(1)

    def forward(self, x):
        return self.classifier(self.embed(x))


# Losses --------------------------------------------------------------------------------


def mean_distance(model, real, synthetic):
    """DM's loss, class by class as its code has it."""
    total = 0.0
    for x, s in zip(real, synthetic):
        apart = model.embed(x).detach().mean(0) - model.embed(s).mean(0)
        total = total + (apart**2).sum()
    return total


def gradient_distance(model, real, synthetic):
    """DC's loss: cosines of the gradients, one for each output of a layer."""
    parameters, total = list(model.parameters()), 0.0
    for label, (x, s) in enumerate(zip(real, synthetic)):
        pair = []
        for images in (x, s):
            loss = F.cross_entropy(
                model(images), torch.full((len(images),), label, dtype=torch.long)
            )
            graph = images is s
            pair.append(torch.autograd.grad(loss, parameters, create_graph=graph))
        for g, t in zip(*pair):
            if g.ndim > 1:
                g, t = g.detach().flatten(1), t.flatten(1)
                scale = g.norm(dim=1) * t.norm(dim=1) + 1e-6
                total = total + (1 - (g * t).sum(1) / scale).sum()
    return total


def learn(model, synthetic, steps, rate):
    """Full-batch SGD on the synthetic images."""
    images = synthetic.detach().flatten(0, 1)
    labels = torch.arange(len(synthetic)).repeat_interleave(synthetic.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


# Augmentation ---------------------------------------------------------------------------


def siamese(strategy, pair):
    """One random operator with one draw of parameters for both batches."""
    if not strategy:
        return pair
    name = strategy[int(torch.randint(len(strategy), ()))]
    side = pair[0].shape[-1]
    draw = torch.rand(8)
    return [OPERATORS[name](x, draw, side) for x in pair]


def _color(x, draw, side):
    x = x + draw[0] - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * 2 * draw[1] + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (0.5 + draw[2]) + mean


def _crop(x, draw, side):
    most = int(side * 0.125 + 0.5)
    top, left = (int(d * (2 * most + 1)) for d in draw[:2])
    padded = F.pad(x, (most,) * 4)
    return padded[:, :, top : top + side, left : left + side]


def _cutout(x, draw, side):
    size = int(side * 0.5 + 0.5)
    row, column = (int(d * (side + 1 - size % 2)) - size // 2 for d in draw[:2])
    mask = torch.ones_like(x[:1, :1])
    mask[:, :, max(row, 0) : row + size, max(column, 0) : column + size] = 0
    return x * mask


def _flip(x, draw, side):
    return x.flip(3) if draw[0] < 0.5 else x


def _affine(x, matrix):
    theta = torch.tensor(matrix, dtype=x.dtype).expand(len(x), 2, 3)
    return F.grid_sample(
        x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False
    )


def _scale(x, draw, side):
    sx, sy = (float(1 / 1.2 + d * (1.2 - 1 / 1.2)) for d in draw[:2])
    return _affine(x, [[sx, 0, 0], [0, sy, 0]])


def _rotate(x, draw, side):
    angle = float(draw[0] * 2 - 1) * np.deg2rad(15)
    cos, sin = np.cos(angle), np.sin(angle)
    return _affine(x, [[cos, -sin, 0], [sin, cos, 0]])


OPERATORS = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


# Iterations -----------------------------------------------------------------------------


def iteration(kind, model, real, synthetic, optimizer, numbers):
    """One step of the images, as `ddjax.methods` counts them."""
    strategy = () if kind == "dc" else numbers["strategy"]
    views = [siamese(strategy, pair) for pair in zip(real, synthetic)]
    loss = mean_distance if kind == "dm" else gradient_distance
    value = loss(model, *zip(*views))
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    if kind != "dm":
        learn(model, synthetic, numbers["inner"], 0.01)
    return float(value)


def main(folder):
    """Answers words until there are no more."""
    given = np.load(folder / "given.npz")
    numbers = json.loads((folder / "given.json").read_text())
    torch.set_num_threads(numbers["threads"])
    real, first = (torch.tensor(given[k]) for k in ("real", "synthetic"))
    weights = {k[2:]: torch.tensor(given[k]) for k in given.files if k[:2] == "w/"}

    def fresh():
        model = ConvNet(
            real.shape[2],
            len(real),
            numbers["width"],
            numbers["depth"],
            real.shape[-1],
        )
        return model

    for line in sys.stdin:
        kind = line.strip()
        model = fresh()
        model.load_state_dict(weights)
        loss = mean_distance if kind == "dm" else gradient_distance
        synthetic = first.clone().requires_grad_(True)
        value = loss(model, real, synthetic)
        value.backward()
        size = float(synthetic.grad.norm())
        optimizer = torch.optim.SGD([synthetic], lr=0.1, momentum=0.5)
        began = time.perf_counter()
        for _ in range(numbers["repeats"]):
            iteration(kind, fresh(), real, synthetic, optimizer, numbers)
        seconds = (time.perf_counter() - began) / numbers["repeats"]
        answer = {"seconds": seconds, "value": float(value), "gradient": size}
        print(json.dumps(answer | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

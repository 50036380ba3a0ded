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


def learn(model, synthetic, epochs, rate, strategy=(), batch_size=256):
    """Plain SGD on the synthetic images, each seen its own way."""
    images = synthetic.detach().flatten(0, 1)
    labels = torch.arange(len(synthetic)).repeat_interleave(synthetic.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(batch_size):
            (seen,) = augmented(strategy, [images[rows]], count=len(rows))
            optimizer.zero_grad()
            F.cross_entropy(model(seen), labels[rows]).backward()
            optimizer.step()


# Augmentation ---------------------------------------------------------------------------


def augmented(strategy, batches, count=1):
    """One random operator for all batches, with one draw or one for each image."""
    if not strategy:
        return batches
    name = strategy[int(torch.randint(len(strategy), ()))]
    draw = torch.rand(count, 3)
    return [OPERATORS[name](x, draw) for x in batches]


def _color(x, draw):
    brightness, saturation, contrast = draw.T[..., None, None, None]
    x = x + brightness - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * 2 * saturation + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (0.5 + contrast) + mean


def _crop(x, draw):
    side = x.shape[-1]
    most = int(side * 0.125 + 0.5)
    first = (draw[:, :2] * (2 * most + 1)).long().expand(len(x), 2)
    rows, columns = first.T[..., None] + torch.arange(side)
    padded = F.pad(x, (most,) * 4).permute(0, 2, 3, 1)
    image = torch.arange(len(x))[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _cutout(x, draw):
    side = x.shape[-1]
    size = int(side * 0.5 + 0.5)
    first = (draw[:, :2] * (side + 1 - size % 2)).long() - size // 2
    place = torch.arange(side) - first.T[..., None]
    rows, columns = (place >= 0) & (place < size)
    return x * ~(rows[:, None, :, None] & columns[:, None, None])


def _flip(x, draw):
    return torch.where(draw[:, :1, None, None] < 0.5, x.flip(3), x)


def _affine(x, rows):
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = F.affine_grid(theta.expand(len(x), 2, 3), x.shape, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _scale(x, draw):
    sx, sy = 1 / 1.2 + draw[:, :2].T * (1.2 - 1 / 1.2)
    none = torch.zeros_like(sx)
    return _affine(x, [[sx, none, none], [none, sy, none]])


def _rotate(x, draw):
    angle = (draw[:, 0] * 2 - 1) * (15 * torch.pi / 180)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _affine(x, [[cos, -sin, none], [sin, cos, none]])


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
    views = [augmented(strategy, pair) for pair in zip(real, synthetic)]
    value = LOSSES[kind](model, *zip(*views))
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    if kind != "dm":
        learn(model, synthetic, numbers["epochs"], 0.01, strategy)
    return value.item()


LOSSES = {"dm": mean_distance, "dc": gradient_distance, "dsa": gradient_distance}


def main(folder):
    """Answers words until there are no more."""
    given = np.load(folder / "given.npz")
    numbers = json.loads((folder / "given.json").read_text())
    torch.set_num_threads(numbers["threads"])
    if numbers["gpu"]:
        torch.set_default_device("cuda")
    real, first = (torch.tensor(given[k]) for k in ("real", "synthetic"))
    weights = {k[2:]: torch.tensor(given[k]) for k in given.files if k[:2] == "w/"}
    sizes = len(real), numbers["width"], numbers["depth"], real.shape[-1]

    def fresh(kind):
        # DM's code asks for no gradient of the weights.
        return ConvNet(real.shape[2], *sizes).requires_grad_(kind != "dm")

    def now():
        if numbers["gpu"]:
            torch.cuda.synchronize()
        return time.perf_counter()

    for line in sys.stdin:
        kind = line.strip()
        model, synthetic = fresh(kind), first.clone().requires_grad_(True)
        model.load_state_dict(weights)
        value = LOSSES[kind](model, real, synthetic)
        value.backward()
        size = float(synthetic.grad.norm())
        rate = numbers["rates"][kind]
        optimizer = torch.optim.SGD([synthetic], lr=rate, momentum=0.5)
        began = now()
        for _ in range(numbers["repeats"]):
            iteration(kind, fresh(kind), real, synthetic, optimizer, numbers)
        seconds = (now() - began) / numbers["repeats"]
        answer = {"seconds": seconds, "value": value.item(), "gradient": size}
        print(json.dumps(answer | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

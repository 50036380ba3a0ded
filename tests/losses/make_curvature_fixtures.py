"""Writes fixtures/curvature.npz: GUARD's penalties as PyTorch computes them, float64.

Run `python tests/losses/make_curvature_fixtures.py` with torch installed. A ReLU network
with a BatchNorm layer in evaluation mode; the penalties are written from the formulas of
GUARD's released code, with its constant 1e-7 and without, and gradients in the weights
by double backpropagation.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional

PATH = pathlib.Path(__file__).parent / "fixtures" / "curvature.npz"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
TRAINED = ("conv", "scale", "bias", "head")


def main():
    random = np.random.default_rng(0)
    given = {
        "images": random.integers(0, 256, (6, 6, 5, 3), dtype=np.uint8),
        "labels": np.array([0, 1, 2, 3, 0, 1]),
        "conv": 0.3 * random.normal(size=(8, 3, 3, 3)),
        "scale": random.uniform(0.5, 1.5, 8),
        "bias": 0.3 * random.normal(size=8),
        "mean": 0.3 * random.normal(size=8),
        "var": random.uniform(0.5, 1.5, 8),
        "head": 0.3 * random.normal(size=(4, 240)),
    }
    given = {
        k: v.astype(np.float32) if v.dtype == np.float64 else v
        for k, v in given.items()
    }
    made = {}
    for h in (3.0, 0.3):
        for kind in ("gradient", "sign"):
            for literal in (False, True):
                for form in ("loss_difference", "gradient_difference"):
                    name = f"{form} {h} {kind} {literal}"
                    made |= penalty(given, name, form, h, kind, literal)
    made |= released_gr(given) | long_directions(random)
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **given, **made)


def start(given):
    """Weights, normalised images and labels."""
    weights = {
        name: torch.tensor(
            given[name], dtype=torch.float64, requires_grad=name in TRAINED
        )
        for name in (*TRAINED, "mean", "var")
    }
    pixels = torch.tensor(given["images"].transpose(0, 3, 1, 2) / 255.0)
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (MEAN, STD)
    )
    x = ((pixels - mean) / std).requires_grad_()
    return weights, x, torch.tensor(given["labels"])


def network(weights, x):
    x = functional.conv2d(x, weights["conv"], padding=1)
    x = functional.batch_norm(
        x, weights["mean"], weights["var"], weights["scale"], weights["bias"]
    )
    return functional.relu(x).flatten(1) @ weights["head"].T


def penalty(given, name, form, h, kind, literal):
    """z, the penalty, and its gradient in the weights."""
    weights, x, labels = start(given)
    reduction = "mean" if literal else "sum"

    def loss(x):
        return functional.cross_entropy(
            network(weights, x), labels, reduction=reduction
        )

    (g,) = torch.autograd.grad(loss(x), x)
    g = g.sign() if kind == "sign" else g
    offset = 1e-7 if literal else 0.0
    norm = g.flatten(1).norm(dim=1)[:, None, None, None]
    z = (h * (g + offset) / (norm + offset)).detach()
    if form == "loss_difference":
        value = (loss(x + z) - loss(x)).abs() / (1 if literal else len(x))
    else:
        after, before = (
            torch.autograd.grad(loss(at), x, create_graph=True)[0] for at in (x + z, x)
        )
        value = (after - before).flatten(1).norm(dim=1).mean()
    trained = [weights[k] for k in TRAINED]
    slopes = torch.autograd.grad(value, trained)
    made = {
        f"{name} {k}": s.numpy().astype(np.float32) for k, s in zip(TRAINED, slopes)
    }
    made[f"{name} z"] = z.numpy().transpose(0, 2, 3, 1).astype(np.float32)
    made[name] = value.detach().numpy()
    return made


def released_gr(given):
    """The released `--gr`: a norm of `x.grad.data`; and the largest slope it causes."""
    weights, x, labels = start(given)
    loss = functional.cross_entropy(network(weights, x), labels)
    loss.backward(retain_graph=True)
    before = {k: weights[k].grad.clone() for k in TRAINED}
    for k in TRAINED:
        weights[k].grad = None
    total = loss + x.grad.data.flatten(1).norm(dim=1).mean()
    total.backward()
    after = max((weights[k].grad - before[k]).abs().max().item() for k in TRAINED)
    return {"released gr slope": np.array(after)}


def long_directions(random):
    """Norms of the literal z at 224 pixels, h = 3, in float32, for gradients of norms."""
    norms = np.array([1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 0.0])
    unit = torch.tensor(random.normal(size=224 * 224 * 3), dtype=torch.float32)
    unit /= unit.norm()
    lengths = []
    for norm in norms:
        g = float(norm) * unit
        z = 3.0 * (g + 1e-7) / (g.norm() + 1e-7)
        lengths.append(z.norm().item())
    return {"norms": norms, "literal lengths": np.array(lengths)}


if __name__ == "__main__":
    main()

"""Writes fixtures/guidance.npz: the guidance terms as PyTorch computes them, float64.

Run `python tests/diffusion/guidance/make_guidance_fixtures.py` with torch installed.
Everything is written from the formulas: the cosine to a memory by autograd; <P, C> of
kernel-mode Sinkhorn iterations by autograd through them; the cosine of parameter
gradients of a small convolutional network by double backpropagation.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional

PATH = pathlib.Path(__file__).parent / "fixtures" / "guidance.npz"


def main():
    random = np.random.default_rng(0)
    made = deviation(random) | unrolled(random) | influence(random)
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **made)


def double(x, **options):
    return torch.tensor(x, dtype=torch.float64, **options)


def deviation(random):
    """The largest cosine of z to the last 3 of 5 finished ones, and its gradient."""
    z, memory = random.normal(size=12), random.normal(size=(8, 12))
    point = double(z, requires_grad=True)
    cosines = functional.cosine_similarity(point[None], double(memory[2:5]), dim=1)
    cosines.max().backward()
    return {
        "deviation_z": z,
        "deviation_memory": memory,
        "deviation_value": cosines.max().item(),
        "deviation_gradient": point.grad.numpy(),
    }


def unrolled(random):
    """<P, C> on the unit sphere after 5 and 20 kernel iterations from v = 1."""
    points, real = random.normal(size=(4, 6)), random.normal(size=(7, 6))
    masses = random.uniform(0.5, 1.5, 7)
    masses /= masses.sum()
    made = {"sphere_points": points, "sphere_real": real, "sphere_masses": masses}
    for iterations in (5, 20):
        u = double(points[-1], requires_grad=True)
        x = functional.normalize(torch.cat([double(points[:-1]), u[None]]), dim=1)
        y = functional.normalize(double(real), dim=1)
        cost = (x[:, None] - y).norm(dim=2)
        a, b = torch.full((4,), 0.25, dtype=torch.float64), double(masses)
        kernel, right = torch.exp(-cost / 0.1), torch.ones(7, dtype=torch.float64)
        for _ in range(iterations):
            left = a / (kernel @ right)
            right = b / (kernel.T @ left)
        left = a / (kernel @ right)
        value = (left[:, None] * kernel * right * cost).sum()
        value.backward()
        made[f"sphere_value_{iterations}"] = value.item()
        made[f"sphere_gradient_{iterations}"] = u.grad.numpy()
    return made


def influence(random):
    """1 - cos of parameter gradients, averaged over two networks, and its gradient."""
    x = random.uniform(size=(4, 4, 2))
    shapes = {"conv": (3, 2, 3, 3), "head": (3, 48)}
    made, total = {"influence_x": x}, 0.0
    image = double(x.transpose(2, 0, 1)[None], requires_grad=True)
    for e in range(2):
        weights = {}
        for name, shape in shapes.items():
            made[f"influence_{name}{e}"] = 0.3 * random.normal(size=shape)
            made[f"influence_bank_{name}{e}"] = random.normal(size=shape)
            weights[name] = double(made[f"influence_{name}{e}"], requires_grad=True)
        hidden = functional.softplus(
            functional.conv2d(image, weights["conv"], padding=1)
        )
        logits = hidden.flatten(1) @ weights["head"].T
        loss = functional.cross_entropy(logits, torch.tensor([1]))
        g = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        g = torch.cat([v.flatten() for v in g])
        bank = np.concatenate([made[f"influence_bank_{n}{e}"].ravel() for n in shapes])
        bank = double(bank)
        total = total + (1 - g @ bank / (g.norm() * bank.norm() + 1e-6)) / 2
    total.backward()
    made["influence_value"] = total.item()
    made["influence_gradient"] = image.grad.numpy()[0].transpose(1, 2, 0)
    return made


if __name__ == "__main__":
    main()

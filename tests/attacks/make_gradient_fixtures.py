"""Writes fixtures/gradient.npz: what torchattacks finds, so that tests need no PyTorch.

Run `python tests/attacks/make_gradient_fixtures.py` with torch and torchattacks 3.5.1.
The network is a ConvNet of two blocks under our names, trained here for a moment on
coloured noise, so that its gradients are not those of a random one. Weights are exact
in float16, all is computed in float64, and results are stored as float32. Images are
[B, H, W, ch] in the file, and some of their pixels are 0 or 1.
"""

import contextlib
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "fixtures"

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES, WIDTH, SIDE, IMAGES = 5, 6, 8, 16
EPS = 8 / 255
COSTS = (1e-4, 1.0, 10.0)


def main():
    import torch

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    patterns = torch.rand(CLASSES, 3, SIDE, SIDE)
    model = network()
    train(model, patterns)
    images, labels = draw(patterns, IMAGES)
    levels = (images * 255).round()
    images = levels / 255
    weights = {
        name: value.numpy().astype(np.float16)
        for name, value in model[1].state_dict().items()
        if "num_batches" not in name
    }
    found = attacks(model, images, labels)
    arrays = {
        "images": to_nhwc(levels).astype(np.uint8),
        "labels": labels.numpy().astype(np.int8),
        **{f"weights/{name}": value for name, value in weights.items()},
        **found,
    }
    with torch.no_grad():
        print("clean", accuracy(model, images, labels))
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(FOLDER / "gradient.npz", **arrays)


# The network, and images it was trained on. torch is imported late, as in other scripts.


def network():
    import torch
    from torch import nn

    class Normalise(nn.Module):
        def forward(self, x):
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
            return (x - mean) / std

    class ConvNet(nn.Module):
        def __init__(self):
            super().__init__()
            layers = []
            for inputs in (3, WIDTH):
                layers += [nn.Conv2d(inputs, WIDTH, 3, padding=1)]
                layers += [nn.BatchNorm2d(WIDTH), nn.ReLU(), nn.AvgPool2d(2)]
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Linear(WIDTH * (SIDE // 4) ** 2, CLASSES)

        def forward(self, x):
            return self.classifier(self.features(x).flatten(1))

    return nn.Sequential(Normalise(), ConvNet())


def draw(patterns, count):
    """Faint patterns of the classes under noise; clipped, so that pixels saturate."""
    import torch

    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, *patterns.shape[1:])
    return (0.4 + 0.2 * patterns[labels] + 0.25 * noise).clamp(0, 1), labels


def train(model, patterns):
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        images, labels = draw(patterns, 64)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())


# The attacks --------------------------------------------------------------------------


def attacks(model, images, labels):
    import torch
    import torchattacks

    start = {"eps": EPS, "alpha": EPS / 4}
    l2 = {"eps": 0.5, "alpha": 0.1}
    found = {
        "fgsm": torchattacks.FGSM(model, eps=EPS),
        "pgd_start": torchattacks.PGD(model, **start, steps=0),
        "pgd": torchattacks.PGD(model, **start, steps=25),
        "pgd_l2_start": torchattacks.PGDL2(model, **l2, steps=0),
        "pgd_l2": torchattacks.PGDL2(model, **l2, steps=20),
        "mi_fgsm": torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / 4, steps=10),
    }
    results = {}
    for name, attack in found.items():
        torch.manual_seed(1)  # a run without steps returns where the other started
        results[name] = attack(images, labels)
    results["guard_mim"] = guard_mim(model, images, labels, eps=EPS, alpha=EPS)
    for name, result in results.items():
        print(name, accuracy(model, result, labels))
    arrays = {
        name: to_nhwc(result).astype(np.float64 if "start" in name else np.float32)
        for name, result in results.items()
    }
    return arrays | variance_tuned(model, images, labels) | cw(model, images, labels)


def guard_mim(model, images, labels, *, eps, alpha, steps=20, decay=1.0):
    """MIM of GUARD's evaluation: one L1 norm for the batch, from the images."""
    import torch

    moved, momentum = images.clone(), torch.zeros_like(images)
    for _ in range(steps):
        moved.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(moved), labels)
        gradient = torch.autograd.grad(loss, moved)[0]
        momentum = decay * momentum + gradient / gradient.norm(p=1)
        moved = moved.detach() + alpha * momentum.sign()
        moved = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return moved


def variance_tuned(model, images, labels, steps=4, neighbours=3):
    """VMI-FGSM on noise that a small file can hold: multiples of 1/127."""
    import torchattacks

    random = np.random.default_rng(0)
    shape = (steps, neighbours, len(images), SIDE, SIDE, 3)
    noise = random.integers(-127, 128, shape).astype(np.int8)
    attack = torchattacks.VMIFGSM(
        model, eps=EPS, alpha=EPS / 3, steps=steps, N=neighbours
    )
    with replayed(noise.reshape(-1, *shape[2:])):
        result = attack(images, labels)
    print("vmi_fgsm", accuracy(model, result, labels))
    return {"vmi_fgsm": to_nhwc(result).astype(np.float32), "vmi_noise": noise}


@contextlib.contextmanager
def replayed(noise):
    """Tensor.uniform_ takes the next of these instead of drawing."""
    import torch

    draws, original = iter(noise), torch.Tensor.uniform_

    def uniform_(tensor, low, high):
        unit = torch.tensor(next(draws)).permute(0, 3, 1, 2) / 127.0
        return tensor.copy_((low + high) / 2 + (high - low) / 2 * unit)

    torch.Tensor.uniform_ = uniform_
    try:
        yield
    finally:
        torch.Tensor.uniform_ = original


def cw(model, images, labels):
    """CW at several weights, with the number of steps made before it stopped."""
    import torchattacks

    arrays = {"cw_c": np.array(COSTS)}
    results, steps = [], []
    for c in COSTS:
        attack = torchattacks.CW(model, c=c, kappa=0, steps=50, lr=0.01)
        seen = []
        hook = model.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        result = attack(images, labels)
        hook.remove()
        results.append(to_nhwc(result).astype(np.float32))
        steps.append(len(seen))
        print("cw", c, len(seen), accuracy(model, result, labels))
    return arrays | {"cw": np.stack(results), "cw_steps": np.array(steps)}


def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).double().mean().item()


def to_nhwc(images):
    return images.detach().permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    main()

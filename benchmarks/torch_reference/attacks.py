"""PyTorch's side of `benchmarks.attacks`: torchattacks' PGD and the authors' AutoAttack.

    python benchmarks/torch_reference/attacks.py FOLDER

`benchmarks.attacks` starts it, with a Python that has torch, torchattacks 3.5.1 and
pyautoattack 0.2.0 (the authors' code, packaged), and needs neither jax nor ddjax.
FOLDER/given.npz holds the images and weights, FOLDER/given.json the numbers. Each word
on a line of stdin, "logits", "pgd" or "autoattack", is answered by a line of JSON.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import sys
import time

import numpy as np


def network(weights, mean, std):
    """ConvNet-3 with BatchNorm on [N, ch, H, W] in [0, 1], frozen."""
    import torch
    from torch import nn

    layers, inputs = [], 3
    for block in range(3):
        width = len(weights[f"features.{4 * block}.bias"])
        convolution = nn.Conv2d(inputs, width, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.AvgPool2d(2)]
        inputs = width

    class ConvNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Linear(*reversed(weights["classifier.weight"].shape))
            for name, values in (("mean", mean), ("std", std)):
                pixel = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
                self.register_buffer(name, pixel, persistent=False)

        def forward(self, x):
            return self.classifier(self.features((x - self.mean) / self.std).flatten(1))

    model = ConvNet()
    tensors = {name: torch.tensor(value) for name, value in weights.items()}
    missing = model.load_state_dict(tensors, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    return model.eval().requires_grad_(False)


def pgd(model, images, labels, numbers):
    """One stage: seconds, and how many points are left."""
    import torchattacks

    attack = torchattacks.PGD(
        model, eps=numbers["eps"], alpha=numbers["eps"] / 4, steps=numbers["steps"]
    )
    began = time.perf_counter()
    moved = attack(images, labels)
    robust = int((model(moved).argmax(1) == labels).sum())
    seconds = time.perf_counter() - began
    return [{"name": "pgd", "seconds": seconds, "robust": robust}]


def autoattack(model, images, labels, numbers):
    """Its four stages in turn, each on what those before it left."""
    import pyautoattack

    attack = pyautoattack.AutoAttack(
        model, eps=numbers["eps"], version="standard", device=str(images.device)
    )
    attack.square.n_queries = numbers["queries"]
    attack.attacks_to_run, names = [], attack.attacks_to_run
    stages = []
    for name in names:
        attack.attacks_to_run, attacked = [name], len(labels)
        began = time.perf_counter()
        if attacked:
            moved, _ = attack.run_standard_evaluation(images, labels, batch_size=10_000)
            left = model(moved).argmax(1) == labels
            images, labels = images[left], labels[left]
        seconds = time.perf_counter() - began
        stages.append({"name": name, "seconds": seconds, "robust": len(labels)})
    return stages


def versions():
    """Of what is timed here."""
    names = ("torch", "torchattacks", "pyautoattack")
    return {name: importlib.metadata.version(name) for name in names}


def main():
    folder = pathlib.Path(sys.argv[1])
    numbers = json.loads((folder / "given.json").read_text())
    import torch

    torch.set_num_threads(numbers["threads"])
    device = "cuda" if torch.cuda.is_available() and numbers["gpu"] else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with np.load(folder / "given.npz") as given:
        arrays = dict(given)
    images = torch.tensor(arrays.pop("images")).permute(0, 3, 1, 2).contiguous()
    images, labels = images.to(device), torch.tensor(arrays.pop("labels")).to(device)
    model = network(arrays, numbers["mean"], numbers["std"]).to(device)
    attacks = {"pgd": pgd, "autoattack": autoattack}
    # What the attacks print is not an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    with contextlib.redirect_stdout(sys.stderr):
        for word in map(str.strip, sys.stdin):
            if word == "logits":
                answer = {"logits": model(images).tolist(), "device": device}
                answer |= {"threads": torch.get_num_threads(), "versions": versions()}
            else:
                answer = attacks[word](model, images, labels.long(), numbers)
            print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()

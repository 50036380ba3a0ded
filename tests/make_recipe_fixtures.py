"""Writes fixtures/recipes.npz: linear students, as PyTorch trains them, in float64.

Run `python tests/make_recipe_fixtures.py` with torch installed. Every student sees all
images at every step, so that only losses, rates, optimisers and averages are compared.
"""

import copy
import math
import pathlib

import numpy as np
import torch
from torch.nn import functional

PATH = pathlib.Path(__file__).parent / "fixtures" / "recipes.npz"
EPOCHS, RATE = 9, 0.1


def main():
    random = np.random.default_rng(0)
    given = {
        "images": random.integers(0, 256, (12, 3, 3, 1), dtype=np.uint8),
        "labels": np.repeat(np.arange(3), 4),
        "logits": (5 * random.normal(size=(12, 3))).astype(np.float16),
        "kernel": random.normal(size=(9, 3)).astype(np.float32),
        "bias": random.normal(size=3).astype(np.float32),
    }
    made = {
        "dc": dropped(given),
        "wmdd": cosine(given, torch.optim.AdamW, 1, divergence),
        "rded": cosine(given, torch.optim.AdamW, 2, divergence),
        "rd3": cosine(given, torch.optim.Adam, 2, divergence),
        "edc": cosine(given, torch.optim.AdamW, 2, squares),
    }
    results = {
        f"{name}_{part}": value.detach().numpy()
        for name, values in made.items()
        for part, value in values.items()
    }
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **given, **results)


def start(given):
    """Parameters, images in [0, 1], classes and the teacher's logits."""
    params = {
        name: torch.tensor(given[name], dtype=torch.float64, requires_grad=True)
        for name in ("kernel", "bias")
    }
    x = torch.tensor(given["images"].reshape(12, 9) / np.float64(255))
    return params, x, torch.tensor(given["labels"]), torch.tensor(given["logits"])


def dropped(given):
    """DC's and DM's loop: E + 1 epochs, and a new optimiser after that of E/2 + 1."""
    params, x, labels, _ = start(given)
    last, rate = EPOCHS - 1, RATE

    def fresh():
        return torch.optim.SGD(params.values(), rate, momentum=0.9, weight_decay=5e-4)

    optimizer = fresh()
    for epoch in range(last + 1):
        optimizer.zero_grad()
        logits = x @ params["kernel"] + params["bias"]
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        if epoch == last // 2 + 1:
            rate *= 0.1
            optimizer = fresh()
    return params


def cosine(given, kind, stretch, loss):
    """A rate constant in each epoch; decay of the kernel only, and only by AdamW.

    EDC's average begins as a copy and is moved after every step.
    """
    params, x, labels, soft = start(given)
    decay = 0.01 if kind is torch.optim.AdamW else 0.0
    groups = [
        {"params": [params["kernel"]], "weight_decay": decay},
        {"params": [params["bias"]], "weight_decay": 0.0},
    ]
    optimizer, average = kind(groups, RATE), copy.deepcopy(params)
    for epoch in range(EPOCHS):
        share = 0.5 * (1 + math.cos(math.pi * epoch / (stretch * EPOCHS)))
        for group in optimizer.param_groups:
            group["lr"] = RATE * share
        optimizer.zero_grad()
        logits = x @ params["kernel"] + params["bias"]
        loss(logits, soft.double(), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for name, value in average.items():
                value.copy_(0.99 * value + 0.01 * params[name])
    return average if loss is squares else params


def divergence(logits, soft, labels):
    """SRe2L's, WMDD's and RDED's."""
    del labels
    return functional.kl_div(
        functional.log_softmax(logits / 20, 1),
        functional.softmax(soft / 20, 1),
        reduction="batchmean",
    )


def squares(logits, soft, labels):
    """EDC's."""
    hard = functional.cross_entropy(logits, labels)
    return functional.mse_loss(logits, soft) + 0.025 * hard


if __name__ == "__main__":
    main()

"""Writes fixtures/recipes.npz: small students, as PyTorch trains them, in float64.

Run `python tests/make_recipe_fixtures.py` with torch installed. Every student sees all
images at every step, so that only losses, rates, optimisers and averages are compared. Those of "edc" are linear but for
the last two, of two layers, whose every step is kept.
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
    for name, share in (("cosine", cosine_share), ("cosine_linear", cos2_share)):
        results |= {f"{name} {k}": v for k, v in step_by_step(given, share).items()}
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


def cosine_share(epoch, epochs):
    """EDC's "cos" with its `st` 2."""
    return 0.5 * (1 + math.cos(math.pi * epoch / (2 * epochs)))


def cos2_share(epoch, epochs):
    """EDC's "cos2" with its `st` 2."""
    if epoch <= epochs * 5 / 6:
        return cosine_share(epoch, epochs)
    last = 0.5 * (1 + math.cos(math.pi * 5 / (6 * 2)))
    return last * (6 * epochs - 6 * epoch) / (6 * epochs)


def transport(logits, soft, count=50):
    """SinKD's loss as a mean: see losses/make_logit_transport_fixtures.py."""
    p, q = (functional.softmax(x / 2, 1) for x in (logits, soft))
    costs = (p[:, None] - q[None]).abs().sum(-1)
    plan = torch.exp(-costs / 0.1)
    for _ in range(count):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return (plan * costs).sum() / len(logits)


def step_by_step(given, share, steps=20, rate=0.02):
    """EDC's loss and OTM's, its average and a rate, for a network of two layers."""
    _, x, labels, soft = start(given)
    random = np.random.default_rng(1)
    shapes = {"kernel0": (9, 6), "bias0": (6,), "kernel1": (6, 3), "bias1": (3,)}
    first = {
        name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()
    }
    params = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in first.items()
    }
    kernels = [params["kernel0"], params["kernel1"]]
    biases = [params["bias0"], params["bias1"]]
    groups = [
        {"params": kernels, "weight_decay": 0.01},
        {"params": biases, "weight_decay": 0.0},
    ]
    optimizer, average = torch.optim.AdamW(groups, rate), copy.deepcopy(params)
    found = {"loss": [], **{name: [] for name in first}}
    for epoch in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * share(epoch, steps)
        optimizer.zero_grad()
        hidden = functional.relu(x @ params["kernel0"] + params["bias0"])
        logits = hidden @ params["kernel1"] + params["bias1"]
        loss = squares(logits, soft.double(), labels)
        loss = loss + 0.1 * transport(logits, soft.double())
        loss.backward()
        optimizer.step()
        found["loss"].append(loss.item())
        for name, value in average.items():
            with torch.no_grad():
                value.copy_(0.99 * value + 0.01 * params[name])
            found[name].append(value.detach().numpy().copy())
    kept = {name: np.array(values) for name, values in found.items()}
    return {**kept, **{f"first {name}": value for name, value in first.items()}}


if __name__ == "__main__":
    main()

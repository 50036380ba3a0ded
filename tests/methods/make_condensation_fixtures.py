"""Writes fixtures/condensation.npz: DM's and DC's losses and steps by PyTorch, float64.

Run `python tests/methods/make_condensation_fixtures.py` from the root with torch
installed, and nothing else.
"""

import pathlib
import sys

import numpy as np
import torch

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "torch_reference"))

import matching

FOLDER = pathlib.Path(__file__).parent / "fixtures"
CLASSES, WIDTH, DEPTH, SIDE = 3, 6, 3, 16


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    # Weights that float32 has too.
    model = matching.ConvNet(3, CLASSES, WIDTH, DEPTH, SIDE).float().double()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    # Images that float16 has too: the file is smaller.
    real, first = (
        torch.randn(CLASSES, n, 3, SIDE, SIDE).half().double() for n in (8, 2)
    )
    arrays = {f"w/{k}": v.float().numpy() for k, v in weights.items()}
    arrays |= {"real": real.half().numpy(), "synthetic": first.half().numpy()}
    arrays["features"] = model.embed(real[0]).detach().numpy()
    for name, loss in (
        ("dm", matching.mean_distance),
        ("dc", matching.gradient_distance),
    ):
        synthetic = first.clone().requires_grad_(True)
        value = loss(model, real, synthetic)
        (gradient,) = torch.autograd.grad(value, synthetic)
        arrays[f"{name}_loss"] = value.detach().numpy()
        arrays[f"{name}_gradient"] = gradient.numpy()
    # Three outer steps of DC with one network, which learns for two epochs between.
    synthetic = first.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([synthetic], lr=0.1, momentum=0.5)
    model.load_state_dict(weights)
    for _ in range(3):
        optimizer.zero_grad()
        matching.gradient_distance(model, real, synthetic).backward()
        optimizer.step()
        matching.learn(model, synthetic, 2, 0.01)
    arrays["dc_moved"] = synthetic.detach().numpy()
    # Twenty steps of DM's optimiser on its loss, with one network.
    synthetic = first.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([synthetic], lr=1.0, momentum=0.5)
    model.load_state_dict(weights)
    for _ in range(20):
        optimizer.zero_grad()
        matching.mean_distance(model, real, synthetic).backward()
        optimizer.step()
    arrays["dm_moved"] = synthetic.detach().numpy()
    # DC seen through each operator: the loss, and its slope towards real images.
    torch.manual_seed(2)
    model.load_state_dict(weights)
    arrays["draws"] = torch.rand(len(matching.OPERATORS), 3).float().numpy()
    found = []
    for operator, draw in zip(matching.OPERATORS.values(), arrays["draws"]):
        synthetic = first.clone().requires_grad_(True)
        draw = torch.tensor(draw, dtype=torch.float64)[None]
        seen = [[operator(x, draw) for x in images] for images in (real, synthetic)]
        value = matching.gradient_distance(model, *seen)
        (gradient,) = torch.autograd.grad(value, synthetic)
        found.append([value.item(), (gradient * real[:, :2]).sum().item()])
    arrays["dsa"] = np.array(found)
    # Torch's initialisation at the reference's size.
    torch.manual_seed(1)
    large = matching.ConvNet(3, 10, 128, 3, 32)
    for key in ("features.0", "features.4", "classifier"):
        for leaf in ("weight", "bias"):
            drawn = large.state_dict()[f"{key}.{leaf}"]
            arrays[f"init/{key}.{leaf}"] = np.array(
                [drawn.abs().max(), drawn.std(), drawn.mean()]
            )
    np.savez_compressed(FOLDER / "condensation.npz", **arrays)


if __name__ == "__main__":
    main()

"""Writes fixtures/generator_weights.npz: small generators' files as PyTorch writes them.

Run `python tests/models/make_generator_weight_fixtures.py` with torch, safetensors and
diffusers installed. Of each file the bytes are kept. "published.pt" has the layout of
DiT-XL-2-256x256.pt: most matrices lie transposed in the file. "tuned.pt" has the layout of
Minimax's: several sets of weights, DiffFit's factors and options. "diffusers" is
Diffusers' transformer, with what it computes at time 0, where its frequencies do not
matter. The first two's numbers are drawn by name, here and in the test.
"""

import argparse
import collections
import io
import pathlib
import zlib

import numpy as np
import safetensors.torch
import torch
from diffusers import DiTTransformer2DModel
from torch import nn

PATH = pathlib.Path(__file__).parent / "fixtures" / "generator_weights.npz"
WIDTH, DEPTH, CLASSES, CHANNELS, SIDE = 8, 2, 5, 4, 4  # tokens a side


def main():
    state = {name: drawn(name, t.shape) for name, t in layout().state_dict().items()}
    state["pos_embed"] = places()
    file = collections.OrderedDict((k, stored(k, v)) for k, v in state.items())
    share(file)
    made = {"published.pt": saved(file), "tuned.pt": saved(tuned(state))}
    made |= diffusers()
    np.savez_compressed(PATH, **made)


def layout():
    """The modules of the published network, for their names and shapes alone."""

    def block():
        return nn.ModuleDict(
            {
                "attn": nn.ModuleDict(
                    {
                        "qkv": nn.Linear(WIDTH, 3 * WIDTH),
                        "proj": nn.Linear(WIDTH, WIDTH),
                    }
                ),
                "mlp": nn.ModuleDict(
                    {
                        "fc1": nn.Linear(WIDTH, 4 * WIDTH),
                        "fc2": nn.Linear(4 * WIDTH, WIDTH),
                    }
                ),
                "adaLN_modulation": modulation(6),
            }
        )

    def modulation(count):
        return nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, count * WIDTH))

    time = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
    table = nn.Embedding(CLASSES + 1, WIDTH)
    last = {"linear": nn.Linear(WIDTH, 8 * CHANNELS), "adaLN_modulation": modulation(2)}
    return nn.ModuleDict(
        {
            "x_embedder": nn.ModuleDict({"proj": nn.Conv2d(CHANNELS, WIDTH, 2, 2)}),
            "t_embedder": nn.ModuleDict({"mlp": time}),
            "y_embedder": nn.ModuleDict({"embedding_table": table}),
            "blocks": nn.ModuleList([block() for _ in range(DEPTH)]),
            "final_layer": nn.ModuleDict(last),
        }
    )


def drawn(name, shape):
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.tensor(random.standard_normal(tuple(shape)), dtype=torch.float32)


def places():
    """The published table: columns in the first half, rows in the second."""
    omega = torch.tensor([1.0, 0.01], dtype=torch.float64)  # 10000^(-i / 2)
    rows = [
        torch.cat([f(p * omega) for p in (column, row) for f in (torch.sin, torch.cos)])
        for row in range(SIDE)
        for column in range(SIDE)
    ]
    return torch.stack(rows).float()[None]


def stored(name, tensor):
    """The same numbers, in the order of the published file's memory."""
    if name == "x_embedder.proj.weight":
        return tensor.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    if tensor.ndim == 2 and "qkv" not in name and "table" not in name:
        return tensor.t().contiguous().t()
    return tensor


def share(file):
    """Puts the biases of a block into one storage, at different offsets."""
    names = [n for n in file if n.startswith("blocks.1.") and n.endswith("bias")]
    line = torch.cat([file[name] for name in names])
    starts = np.cumsum([0] + [len(file[name]) for name in names])
    for name, start, end in zip(names, starts, starts[1:]):
        file[name] = line[start:end]


def tuned(state):
    factors = {
        "blocks.0.attn.gamma1": 3 * WIDTH,
        "blocks.0.attn.gamma2": WIDTH,
        "blocks.0.gamma1": WIDTH,
        "blocks.0.gamma2": WIDTH,
    }
    ema = state | {name: drawn(name, (n,)) for name, n in factors.items()}
    head = {"final_layer.linear.bias": torch.zeros(8 * CHANNELS)}
    return {
        "model": head,
        "ema": collections.OrderedDict(ema),
        "opt": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1}]},
        "args": argparse.Namespace(model="DiT-XL/2", epochs=8),
    }


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return np.frombuffer(file.getvalue(), np.uint8)


def diffusers():
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=WIDTH // 2,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=DEPTH,
        sample_size=2 * SIDE,
        patch_size=2,
        num_embeds_ada_norm=CLASSES,
        norm_eps=1e-6,
    ).eval()
    state = {n: 0.3 * torch.randn(t.shape) for n, t in network.state_dict().items()}
    copied = ("timestep_embedder", "class_embedder")
    state |= {
        name: state[name.replace("blocks.1.", "blocks.0.")]
        for name in state
        if any(part in name for part in copied)
    }
    network.load_state_dict(state)
    z, labels = torch.randn(3, CHANNELS, 2 * SIDE, 2 * SIDE), torch.tensor([0, 5, 2])
    with torch.no_grad():
        out = network(z, torch.zeros(3, dtype=torch.long), labels).sample
    clones = {name: tensor.clone() for name, tensor in state.items()}
    file = np.frombuffer(safetensors.torch.save(clones), np.uint8)
    z, out = (x.permute(0, 2, 3, 1).numpy() for x in (z, out))
    return {"diffusers": file, "z": z, "labels": labels.numpy(), "out": out}


if __name__ == "__main__":
    main()

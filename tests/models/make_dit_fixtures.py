"""Writes fixtures/dit.npz: a diffusion transformer as PyTorch computes it, float64.

Run `python tests/models/make_dit_fixtures.py` with torch installed. Everything is
written from the formulas of Peebles and Xie's paper and from the layout of its published
weights, and has none of their code. Weights are not stored: `draw` makes them from
their names, here and in dit_test.py.
"""

import math
import pathlib
import zlib

import numpy as np
import torch
from torch.nn import functional

PATH = pathlib.Path(__file__).parent / "fixtures" / "dit.npz"
WIDTH, DEPTH, HEADS, PATCH, CLASSES = 48, 3, 4, 2, 10
SHAPE = (6, 8, 4)  # of a latent: unequal sides, so that a swapped axis shows
TIMES = np.array([0, 1, 612, 999])
LABELS = np.array([3, 0, 10, 9])  # 10 is the null label
TOKENS = np.array([0, 1, 15, 16, 100, 255])


def main():
    z, cotangent, variance_cotangent = (
        draw(name, (4, *SHAPE)) for name in ("z", "cotangent", "variance cotangent")
    )
    made = {"time": time_embedding(torch.tensor(TIMES).double(), 256)}
    made["places_64"] = places(4, 4, 64)
    made["places_1152"] = places(16, 16, 1152)[TOKENS]
    made["places_oblong"] = places(2, 3, 16)
    # Small tokens, so that LayerNorm's epsilon shows.
    tokens, c = (torch.tensor(draw(*a)) for a in (("x", (2, 16, 48)), ("c", (2, 48))))
    made["block"] = block(Weights(), "blocks.0.", 0.01 * tokens, c)
    for sigma in (False, True):
        x = torch.tensor(z).requires_grad_()
        out = network(Weights(), x, torch.tensor(TIMES).double(), LABELS, sigma)
        weighted = (out[..., :4] * torch.tensor(cotangent)).sum()
        if sigma:
            weighted += (out[..., 4:] * torch.tensor(variance_cotangent)).sum()
        made[f"out_{sigma}"] = out.detach()
        made[f"gradient_{sigma}"] = torch.autograd.grad(weighted, x)[0]
    np.savez_compressed(PATH, **{k: np.asarray(v) for k, v in made.items()})


def draw(name, shape):
    """Random numbers that depend on the name alone."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape)
    if name.endswith("bias"):
        return 0.3 * values
    if name.endswith("weight"):
        return values / math.sqrt(np.prod(shape[1:]))
    return values


class Weights:
    """Linear layers by name; each is drawn when it is asked for."""

    def linear(self, name, x, outputs):
        weight = torch.tensor(draw(name + ".weight", (outputs, x.shape[-1])))
        return functional.linear(x, weight, self.bias(name, outputs))

    def bias(self, name, outputs):
        return torch.tensor(draw(name + ".bias", (outputs,)))


def network(weights, z, t, labels, sigma):
    """z [N, h, w, c] to [N, h, w, c or 2 c]."""
    n, h, w, channels = z.shape
    kernel = draw("x_embedder.proj.weight", (WIDTH, channels, PATCH, PATCH))
    bias = weights.bias("x_embedder.proj", WIDTH)
    x = functional.conv2d(z.permute(0, 3, 1, 2), torch.tensor(kernel), bias, PATCH)
    x = x.flatten(2).transpose(1, 2) + places(h // PATCH, w // PATCH, WIDTH)
    c = functional.silu(
        weights.linear("t_embedder.mlp.0", time_embedding(t, 256), WIDTH)
    )
    c = weights.linear("t_embedder.mlp.2", c, WIDTH)
    table = draw("y_embedder.embedding_table.weight", (CLASSES + 1, WIDTH))
    c = c + torch.tensor(table)[labels]
    for index in range(DEPTH):
        x = block(weights, f"blocks.{index}.", x, c)
    modulation = functional.silu(c)[:, None]
    name = "final_layer.adaLN_modulation.1"
    shift, scale = weights.linear(name, modulation, 2 * WIDTH).chunk(2, -1)
    out = channels * (2 if sigma else 1)
    y = weights.linear("final_layer.linear", norm(x, shift, scale), PATCH**2 * out)
    y = y.view(n, h // PATCH, w // PATCH, PATCH, PATCH, out)
    return torch.einsum("nhwpqc->nhpwqc", y).reshape(n, h, w, out)


def block(weights, name, x, c):
    modulation = weights.linear(
        name + "adaLN_modulation.1", functional.silu(c)[:, None], 6 * WIDTH
    )
    shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, -1)
    packed = weights.linear(name + "attn.qkv", norm(x, shift1, scale1), 3 * WIDTH)
    q, k, v = (
        part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in packed.chunk(3, -1)
    )
    y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    x = x + gate1 * weights.linear(name + "attn.proj", y, WIDTH)
    y = weights.linear(name + "mlp.fc1", norm(x, shift2, scale2), 4 * WIDTH)
    y = functional.gelu(y, approximate="tanh")
    return x + gate2 * weights.linear(name + "mlp.fc2", y, WIDTH)


def norm(x, shift, scale):
    return functional.layer_norm(x, (x.shape[-1],), eps=1e-6) * (1 + scale) + shift


def time_embedding(t, width):
    half = width // 2
    angles = [t * math.exp(-math.log(1e4) * i / half) for i in range(half)]
    return torch.stack([a.cos() for a in angles] + [a.sin() for a in angles], -1)


def places(rows, columns, width):
    quarter = width // 4
    omega = [1e4 ** -(i / quarter) for i in range(quarter)]
    omega = torch.tensor(omega, dtype=torch.float64)
    table = [
        torch.cat([f(p * omega) for p in (column, row) for f in (torch.sin, torch.cos)])
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.stack(table)


if __name__ == "__main__":
    main()

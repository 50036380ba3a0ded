"""Writes fixtures/characteristic.npz: NCFM's loss by PyTorch, float64.

Run `python tests/losses/make_characteristic_fixtures.py` with torch installed. The loss
is written from NCFM's formulas with complex numbers, class by class, on the rows that a
class has; the second pair of clouds is one cloud twice, where the clamp is all there is.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional

PATH = pathlib.Path(__file__).parent / "fixtures" / "characteristic.npz"
ROWS = (7, 4)  # real points of the two classes; the second is padded


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    real, synthetic = torch.randn(2, 7, 6) + 0.5, torch.randn(2, 3, 6)
    frequencies = torch.randn(40, 6)
    frequencies[0] = 0  # where every characteristic function is 1
    given = {"real": real, "synthetic": synthetic, "frequencies": frequencies}
    made = {}
    for name, own in (("apart", synthetic), ("same", real)):
        own = own.clone().requires_grad_(True)
        losses = [loss(x[:n], s[:n], frequencies) for x, s, n in zip(real, own, ROWS)]
        (gradient,) = torch.autograd.grad(sum(losses), own)
        made[f"{name} loss"] = sum(losses).detach()
        made[f"{name} gradient"] = gradient
    arrays = {k: v.numpy() for k, v in (given | made).items()}
    np.savez_compressed(PATH, rows=np.array(ROWS), **arrays)


def loss(real, synthetic, frequencies):
    """300 times the mean over the frequencies, of features of length 1."""
    first, second = (
        torch.exp(1j * functional.normalize(x) @ frequencies.T.to(torch.complex128))
        for x in (real.to(torch.complex128), synthetic.to(torch.complex128))
    )
    first, second = first.mean(0), second.mean(0)
    amplitude = (first.abs() - second.abs()) ** 2
    phase = 2 * (first.abs() * second.abs() - (first.conj() * second).real)
    return 300 * torch.sqrt(amplitude / 2 + phase.clamp(min=1e-12) / 2).mean()


if __name__ == "__main__":
    main()

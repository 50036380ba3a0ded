"""Writes fixtures/logit_transport.npz: SinKD's loss by PyTorch, float64; POT's plans.

Run `python tests/losses/make_logit_transport_fixtures.py` with torch and POT installed.
The loss is written from SinKD's description: exp(-C / eps), whose rows and columns are
divided by their sums in turn, and differentiated through that. It is a sum over the
batch; what is kept is divided by N. "long" makes so many iterations that only rounding
is left, for weights that POT's Sinkhorn solver has too.
"""

import pathlib

import numpy as np
import ot as pot
import torch

PATH = pathlib.Path(__file__).parent / "fixtures" / "logit_transport.npz"
EPSILON, TEMPERATURE = 0.1, 2.0


def main():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    teacher = (4 * torch.randn(16, 10)).half()
    logits = 0.4 * teacher.double() + 2 * torch.randn(16, 10)
    arrays = {"logits": logits.numpy(), "teacher": teacher.numpy()}
    for count in (20, 50, 400):
        own = logits.clone().requires_grad_(True)
        value = sinkd(own, teacher.double(), count) / len(own)
        (gradient,) = torch.autograd.grad(value, own)
        arrays |= {f"{count} loss": value.detach().numpy()}
        arrays |= {f"{count} gradient": gradient.numpy()}
    costs = cost(logits, teacher.double()).numpy()
    mass = np.full(16, 1 / 16)
    arrays["pot"] = pot.sinkhorn2(mass, mass, costs, EPSILON, stopThr=1e-13)
    arrays["exact"] = pot.emd2(mass, mass, costs)
    np.savez_compressed(PATH, **arrays)


def cost(logits, teacher):
    """[N, N], L1 distances of softened probabilities."""
    first, second = ((x / TEMPERATURE).softmax(-1) for x in (logits, teacher))
    return (first[:, None] - second[None]).abs().sum(-1)


def sinkd(logits, teacher, count):
    costs = cost(logits, teacher)
    plan = torch.exp(-costs / EPSILON)
    for _ in range(count):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return (plan * costs).sum()


if __name__ == "__main__":
    main()

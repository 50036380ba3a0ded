"""Writes fixtures/objective.npz: the bound's terms as PyTorch computes them, float64.

Run `python tests/diffusion/make_objective_fixtures.py` with torch installed. Written
from Equations 4 to 6 of improved DDPM, with torch's own KL divergence of Gaussians, and
gradients in the noise and the variance by autograd, the noise's stopped in the bound.
"""

import math
import pathlib

import numpy as np
import torch
from torch import distributions

PATH = pathlib.Path(__file__).parent / "fixtures" / "objective.npz"


def main():
    random = np.random.default_rng(0)
    shape = (4, 3, 3, 2)
    index = np.array([0, 1, 400, 999])
    z0 = np.clip(random.normal(size=shape), -1, 1)
    noise = random.normal(size=shape)
    found = noise + 0.3 * random.normal(size=shape)
    variance = random.uniform(-1, 1, shape)
    given = {"index": index, "z0": z0, "noise": noise}
    given |= {"found": found, "variance": variance}
    tensors = {k: torch.tensor(v) for k, v in given.items()}
    tensors["found"].requires_grad_()
    tensors["variance"].requires_grad_()
    mse = ((tensors["found"] - tensors["noise"]) ** 2).mean()
    bound = bound_of(**tensors)
    (mse + bound.mean()).backward()
    made = {"mse": mse, "bound": bound}
    made = {k: v.detach().numpy() for k, v in made.items()}
    made["slope found"] = tensors["found"].grad.numpy()
    made["slope variance"] = tensors["variance"].grad.numpy()
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **given, **made)


def bound_of(index, z0, noise, found, variance):
    """[N], bits for each number."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    befores = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
    posteriors = betas * (1 - befores) / (1 - bars)
    posteriors[0] = posteriors[1]  # as the published code clips its logarithm
    bar, before, beta, posterior = (
        x[index][:, None, None, None] for x in (bars, befores, betas, posteriors)
    )

    def mean_of(clean, z):
        return (before.sqrt() * beta * clean + (1 - before) * (1 - beta).sqrt() * z) / (
            1 - bar
        )

    z = bar.sqrt() * z0 + (1 - bar).sqrt() * noise
    estimate = (z - (1 - bar).sqrt() * found.detach()) / bar.sqrt()
    share = (variance + 1) / 2
    log_variance = share * beta.log() + (1 - share) * posterior.log()
    model = distributions.Normal(mean_of(estimate, z), (0.5 * log_variance).exp())
    true = distributions.Normal(mean_of(z0, z), posterior.sqrt())
    divergence = distributions.kl_divergence(true, model)
    terms = torch.where(
        (index == 0)[:, None, None, None], -log_likelihood(z0, model), divergence
    )
    return terms.flatten(1).mean(1) / math.log(2)


def log_likelihood(x, model):
    """Of a value's bin of width 2 / 255, by the approximate normal distribution."""

    def distribution(value):
        u = (value - model.loc) / model.scale
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))

    above, below = distribution(x + 1 / 255), distribution(x - 1 / 255)
    mass = torch.where(
        x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below)
    )
    return mass.clamp(min=1e-12).log()


if __name__ == "__main__":
    main()

"""Writes fixtures/steps.npz: steps of a diffusion as PyTorch computes them, float32.

Run `python tests/diffusion/make_steps_fixtures.py` with torch installed. Written from
the papers' formulas (DDPM, improved DDPM, DDIM), step by step in float64 tables that
are cast to float32, as the released code of DiT does. The trajectories denoise by the
exact mean noise of a mixture of Gaussians.
"""

import pathlib

import numpy as np
import torch

PATH = pathlib.Path(__file__).parent / "fixtures" / "steps.npz"
KEPT = [round(i * 999 / 49) for i in range(50)]
MEANS, SPREAD = ((1.0, -0.5, 0.3, 0.8), (-0.7, 0.9, -1.1, 0.2)), 0.3


def main():
    random = np.random.default_rng(0)
    index = np.array([0, 1, 30, 49])
    given = {
        name: random.normal(size=(4, 3, 3, 4)).astype(np.float32)
        for name in ("z", "noise", "variance", "draw", "null")
    }
    made = {"index": index}
    tables = tables_of(KEPT)
    z, noise, variance, draw, null = (torch.tensor(x) for x in given.values())
    for learned in (True, False):
        name = f"ddpm {'learned' if learned else 'fixed'}"
        logits = variance if learned else None
        made[name] = ddpm(tables, index, z, noise, logits, draw)
    for eta in (0.0, 0.5, 1.0):
        made[f"ddim {eta}"] = ddim(tables, index, z, noise, draw, eta)
    whole = torch.cat([noise[..., :4], variance], -1)
    made["guided 4"] = null + 4.0 * (noise - null)
    made["guided 3"] = torch.cat(
        [(null + 4.0 * (noise - null))[..., :3], whole[..., 3:4]], -1
    )
    draws = random.normal(size=(51, 5, 4)).astype(np.float32)
    for name, eta in (("ddpm", None), ("ddim", 0.5)):
        made[f"path {name}"] = trajectory(tables, torch.tensor(draws), eta)
    made = {k: np.asarray(v) for k, v in made.items()}
    PATH.parent.mkdir(exist_ok=True)
    np.savez_compressed(PATH, **given, draws=draws, **made)


def tables_of(kept):
    """Float64 tables of the kept steps, written from the papers."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)[kept]
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    beta = 1 - bar / before
    posterior = beta * (1 - before) / (1 - bar)
    low = torch.log(torch.cat([posterior[1:2], posterior[1:]]))
    return {
        "bar": bar,
        "before": before,
        "beta": beta,
        "low": low,
        "from_clean": torch.sqrt(before) * beta / (1 - bar),
        "from_noisy": (1 - before) * torch.sqrt(1 - beta) / (1 - bar),
    }


def at(values, index, like):
    found = values[torch.as_tensor(index)].float()
    return found.reshape(-1, *(1,) * (like.ndim - 1))


def clean(t, index, z, noise):
    first, second = torch.sqrt(1 / t["bar"]), torch.sqrt(1 / t["bar"] - 1)
    return at(first, index, z) * z - at(second, index, z) * noise


def ddpm(t, index, z, noise, variance, draw):
    x0 = clean(t, index, z, noise)
    mean = at(t["from_clean"], index, z) * x0 + at(t["from_noisy"], index, z) * z
    low, high = at(t["low"], index, z), at(torch.log(t["beta"]), index, z)
    share = 0 if variance is None else (variance + 1) / 2
    log_variance = share * high + (1 - share) * low
    later = torch.as_tensor(np.asarray(index) > 0).float()
    later = later.reshape(-1, *(1,) * (z.ndim - 1))
    return mean + later * torch.exp(0.5 * log_variance) * draw


def ddim(t, index, z, noise, draw, eta):
    x0, bar, before = clean(t, index, z, noise), t["bar"], t["before"]
    sigma = eta * torch.sqrt((1 - before) / (1 - bar)) * torch.sqrt(1 - bar / before)
    rest = at(torch.sqrt(1 - before - sigma**2), index, z)
    moved = at(torch.sqrt(before), index, z) * x0 + rest * noise
    later = torch.as_tensor(np.asarray(index) > 0).float()
    later = later.reshape(-1, *(1,) * (z.ndim - 1))
    return moved + later * at(sigma, index, z) * draw


def mixture_noise(bar, z):
    """The mean noise given z, where clean points are a mixture of two Gaussians."""
    means = torch.tensor(MEANS) * torch.sqrt(bar)
    variance = bar * SPREAD**2 + 1 - bar
    apart = z[:, None] - means
    share = torch.softmax(-(apart**2).sum(-1) / (2 * variance), -1)
    return torch.sqrt(1 - bar) * (share[..., None] * apart).sum(1) / variance


def trajectory(t, draws, eta):
    """The end of 50 steps, of fixed draws; the first of them is where it begins."""
    z = draws[-1]
    for i in reversed(range(50)):
        index = [i] * len(z)
        noise = mixture_noise(t["bar"][i].float(), z)
        if eta is None:
            z = ddpm(t, index, z, noise, None, draws[i])
        else:
            z = ddim(t, index, z, noise, draws[i], eta)
    return z


if __name__ == "__main__":
    main()

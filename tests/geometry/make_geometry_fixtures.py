"""Writes fixtures/geometry.npz: what geoopt (float64) and mpmath (60 digits) compute.

Run `python tests/geometry/make_geometry_fixtures.py` with torch, geoopt 0.5.1 and mpmath
installed, and nothing else. Points are normal coordinates at the origin.
"""

import pathlib

import geoopt
import mpmath
import numpy as np
import torch
from geoopt.manifolds.stereographic import math as ball

FOLDER = pathlib.Path(__file__).parent / "fixtures"
KAPPAS = (-2.0, -1.0, -0.3, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.5, 1.0, 2.0)
COUNT, DIM = 12, 4


def main():
    FOLDER.mkdir(exist_ok=True)
    torch.set_default_dtype(torch.float64)
    mpmath.mp.dps = 60
    random = np.random.default_rng(0)
    arrays = {"kappas": np.array(KAPPAS)}
    for i, kappa in enumerate(KAPPAS):
        reach = {1: 1.4, -1: 4.0, 0: 2.0}[int(np.sign(kappa))]
        reach = min(reach / np.sqrt(max(abs(kappa), 1e-12)), 4.0)
        x, y = (points(random, reach) for _ in range(2))
        x[0] = y[0]  # coincident, and at the origin
        y[1] = 0
        found = {
            "x": x,
            "y": y,
            "precise": [precise(a, b, kappa) for a, b in zip(x, y)],
        }
        if abs(kappa) != 1e-9:  # geoopt calls that 0
            found |= oracle(x, y, kappa)
        arrays |= {f"{i}/{name}": np.asarray(value) for name, value in found.items()}
    np.savez_compressed(FOLDER / "geometry.npz", **arrays)


def points(random, reach):
    v = random.normal(size=(COUNT, DIM))
    radius = random.uniform(0.05, reach, (COUNT, 1))
    return v * radius / np.linalg.norm(v, axis=1, keepdims=True)


def precise(x, y, kappa):
    """Squared distance by the law of cosines, in 60 digits."""
    a, b = (mpmath.sqrt(sum(mpmath.mpf(float(c)) ** 2 for c in v)) for v in (x, y))
    dot = sum(mpmath.mpf(float(p)) * mpmath.mpf(float(q)) for p, q in zip(x, y))
    if kappa == 0:
        return float(a**2 + b**2 - 2 * dot)
    angle = dot / (a * b) if a and b else mpmath.mpf(0)
    root = mpmath.sqrt(abs(mpmath.mpf(kappa)))
    if kappa > 0:
        cosine = mpmath.cos(root * a) * mpmath.cos(root * b)
        cosine += mpmath.sin(root * a) * mpmath.sin(root * b) * angle
        return float((mpmath.acos(min(cosine, mpmath.mpf(1))) / root) ** 2)
    cosine = mpmath.cosh(root * a) * mpmath.cosh(root * b)
    cosine -= mpmath.sinh(root * a) * mpmath.sinh(root * b) * angle
    return float((mpmath.acosh(max(cosine, mpmath.mpf(1))) / root) ** 2)


def oracle(x, y, kappa):
    """geoopt's stereographic model; its exp at the origin goes twice as far."""
    k = torch.tensor(kappa, requires_grad=True)
    x, y = (torch.tensor(v, requires_grad=True) for v in (x, y))
    first, second = (ball.expmap0(v / 2, k=k) for v in (x, y))
    square = ball.dist(first, second, k=k) ** 2
    # A coincident pair has no gradient there.
    gradients = torch.autograd.grad(square[1:].sum(), (x, y, k), retain_graph=True)
    base = first[2:3].expand_as(second)  # of the angles
    log = ball.logmap(base, second, k=k)
    inner = ball.inner(base, log, log.roll(1, 0), k=k, keepdim=True)[:, 0]
    mean = ball.weighted_midpoint(first, k=k, reducedim=[0])
    found = {
        "squared": square,
        "gradient_x": gradients[0],
        "gradient_y": gradients[1],
        "gradient_kappa": gradients[2],
        "ball": first,
        "midpoint": 2 * ball.logmap0(mean, k=k),
        "inner": inner,
    }
    if kappa < 0:
        space = geoopt.manifolds.lorentz.math
        radius = torch.tensor(-1 / kappa)  # `k` of this model is the squared radius
        up = torch.cat([torch.zeros(len(x), 1), x], 1)
        found["lorentz"] = space.expmap0(up, k=radius)
    return {name: value.detach().numpy() for name, value in found.items()}


if __name__ == "__main__":
    main()

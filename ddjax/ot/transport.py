"""What every transport solver returns."""

from typing import NamedTuple

import jax

__all__ = ["Transport"]


class Transport(NamedTuple):
    """A plan between two weighted clouds of n and m points, with its certificate.

    `f` and `g` solve the dual  max a.f + b.g  subject to  f_i + g_j <= C_ij.  They are
    fixed only up to a constant moved from one to the other; ours is the one with
    mean(g) = 0.
    """

    plan: jax.Array  # [n, m], non-negative; rows sum to a, columns to b
    f: jax.Array  # [n], cost units
    g: jax.Array  # [m], cost units; d cost / d b on the simplex
    cost: jax.Array  # scalar <C, plan>
    gap: jax.Array  # scalar, (cost - a.f - b.g) / cost: how far from optimal, at most
    converged: jax.Array  # bool

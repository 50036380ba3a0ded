"""What every transport solver takes and returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Transport", "check", "check_cloud", "envelope"]


class Transport(NamedTuple):
    """A plan between two weighted clouds of n and m points, with its certificate.

    `f` and `g` solve the dual  max a.f + b.g  subject to  f_i + g_j <= C_ij.  They are
    fixed only up to a constant moved from one to the other; ours is the one where g has
    mean 0 over the points with mass.
    """

    plan: jax.Array  # [n, m], non-negative; rows sum to a, columns to b
    f: jax.Array  # [n], cost units
    g: jax.Array  # [m], cost units
    cost: jax.Array  # scalar <C, plan>
    objective: jax.Array  # scalar: what was minimised, the cost and its regularisers
    gap: jax.Array  # scalar, (cost - a.f - b.g) / |cost|: how far from optimal, at most
    error: jax.Array  # scalar, L1 distance of the plan's marginals from a and b
    converged: jax.Array  # bool


def check(cost: jax.Array, a: jax.Array, b: jax.Array) -> None:
    """ValueError for a problem that nothing can solve.

    Under `jit` the values are not known, only the shapes: there a bad problem comes
    back with `converged` False and a cost that is not finite.
    """
    shapes = np.shape(cost), np.shape(a), np.shape(b)
    fits = len(shapes[0]) == 2 and shapes[1:] == (shapes[0][:1], shapes[0][1:])
    if not fits or 0 in shapes[0]:
        raise ValueError(
            "a transport problem is a cost [n, m] with masses a [n] and b [m]; got "
            f"shapes {', '.join(map(str, shapes))} (jax.vmap solves many at once)."
        )
    _check_finite("the cost", cost)
    _check_masses("a", a)
    _check_masses("b", b)


def check_cloud(name: str, x: jax.Array, a: jax.Array) -> None:
    """ValueError unless x [n, D] is finite and its masses a [n] make a measure."""
    if np.ndim(x) != 2 or np.shape(a) != np.shape(x)[:1] or 0 in np.shape(x):
        raise ValueError(
            f"{name} must be points [n, D] with n masses; got shapes {np.shape(x)} and "
            f"{np.shape(a)}."
        )
    _check_finite(name, x)
    _check_masses(f"the masses of {name}", a)


def envelope(
    value: jax.Array,
    plan: jax.Array,
    duals: tuple[jax.Array, jax.Array],
    cost: jax.Array,
    masses: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """`value`, with the derivatives of an optimum in its cost and its masses.

    At the optimum the plan and the duals do not move to first order, so the derivative
    is the plan in the cost and the duals in the masses: nothing is differentiated
    through a solver. The masses must keep one sum; the duals are free by a constant.
    """
    stop = jax.lax.stop_gradient
    parts = zip((stop(plan), *map(stop, duals)), (cost, *masses))
    return stop(value) + sum(jnp.sum(d * (x - stop(x))) for d, x in parts)


def _check_finite(name, x):
    if _known(x):
        bad = ~np.isfinite(np.asarray(x)).all(1)
        if bad.any():
            raise ValueError(
                f"{name} has NaN or infinite values in {bad.sum()} of {len(bad)} rows "
                f"(the first is row {int(np.argmax(bad))})."
            )


def _check_masses(name, a):
    if _known(a):
        a = np.asarray(a, np.float64)
        if not (np.isfinite(a).all() and (a >= 0).all() and a.sum() > 0):
            raise ValueError(
                f"{name} must be non-negative and not all zero; got values from "
                f"{a.min():.3g} to {a.max():.3g} with sum {a.sum():.3g}."
            )


def _known(x):
    return not isinstance(x, jax.core.Tracer)

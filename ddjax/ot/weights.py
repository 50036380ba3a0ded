"""Weights of atoms that stay where they are."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ddjax.ot.lp import lp

__all__ = ["nearest_plan", "subgradient_weights", "voronoi_masses"]


def subgradient_weights(
    cost: jax.Array, a: jax.Array, w: jax.Array, solver: Callable = lp, *, steps: int
) -> jax.Array:
    """Weights of fixed atoms, by projected subgradient on the dual of the transport.

        w <- Proj_simplex( w - g (W(a, w) - W*) / ||g||^2 ),   g the dual of the atoms

    The dual is a subgradient of w -> W(a, w) (Cuturi and Doucet 2014, Algorithm 1); less
    its mean it lies in the simplex's plane. The step is Polyak's: for fixed atoms the
    optimum is known, W* = sum_i a_i min_j C_ij. The best weights met are returned.
    WMDD's code takes entropic steps of a fixed size, oscillates, and returns the last.

    Args:
      cost: [n, m].
      a: [n], masses of the points.
      w: [m], where to start, on the simplex.
      solver: `(cost, a, w, start=g) -> Transport`.
      steps: how many; each solves one transport problem.

    Returns:
      [m], non-negative, sum 1. The optimum is `voronoi_masses(cost, a)`.
    """
    optimum = jnp.sum(a * jnp.min(cost, 1))

    def step(_, carry):
        w, best, lowest, g = carry
        transport = solver(cost, a, w, start=g)
        excess = transport.cost - optimum
        best = jnp.where(excess < lowest, w, best)
        g = transport.g
        slope = g - g.mean()  # atoms without mass have a price too
        squares = jnp.maximum(jnp.sum(slope * slope), jnp.finfo(g.dtype).tiny)
        moved = w - jnp.maximum(excess, 0.0) / squares * slope
        projected = optax.projections.projection_simplex(moved)
        return projected, best, jnp.minimum(excess, lowest), g

    infinity = jnp.array(jnp.inf, cost.dtype)
    carry = w, w, infinity, jnp.zeros_like(cost[0])
    w, best, lowest, g = jax.lax.fori_loop(0, steps, step, carry)
    return jnp.where(solver(cost, a, w, start=g).cost - optimum < lowest, w, best)


def voronoi_masses(cost: jax.Array, a: jax.Array) -> jax.Array:
    """Mass that lies nearest to each atom: the optimal weights of fixed atoms.

    Args:
      cost: [n, m].
      a: [n].

    Returns:
      [m].

    Example:
      >>> import jax.numpy as jnp
      >>> cost = jnp.array([[0.0, 9.0], [1.0, 4.0], [9.0, 0.0]])
      >>> mass = jnp.array([0.25, 0.25, 0.5])
      >>> [float(w) for w in voronoi_masses(cost, mass)]
      [0.5, 0.5]
    """
    return nearest_plan(cost, a).sum(0)


def nearest_plan(cost: jax.Array, a: jax.Array) -> jax.Array:
    """The plan [n, m] that sends each point's mass to its nearest atom."""
    nearest = jnp.argmin(cost, 1)
    return a[:, None] * jax.nn.one_hot(nearest, cost.shape[1], dtype=cost.dtype)

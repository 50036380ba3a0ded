"""The scaling iterations of entropic transport, and their derivatives.

In units of epsilon, with u and v the duals of the two sides: the plan has the density
exp(u_i + v_j - C_ij) with respect to a b'.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Problem", "columns", "density", "implicit", "rows", "solve", "unroll"]


class Problem(NamedTuple):
    """A problem in units of epsilon; tau = rho / (rho + epsilon), 1 for a hard side."""

    cost: jax.Array  # [n, m]
    a: jax.Array  # [n]
    b: jax.Array  # [m]
    tau_a: float
    tau_b: float

    def constant(self):
        return Problem(*jax.lax.stop_gradient(self[:3]), self.tau_a, self.tau_b)

    def flipped(self):
        return Problem(self.cost.T, self.b, self.a, self.tau_b, self.tau_a)


def rows(v, problem):
    """The best u for a given v; at points without mass, their price."""
    return problem.tau_a * _softmin(v, problem.b, problem.cost)


def columns(u, problem):
    return rows(u, problem.flipped())


def _softmin(v, mass, cost):
    """-log sum_j mass_j exp(v_j - C_ij), with derivatives where the mass is zero too."""
    x = v - cost
    top = jnp.max(jnp.where(mass > 0, x, -jnp.inf), axis=1)
    top = jax.lax.stop_gradient(top)
    # A sum and not a product of matrices: those may be in TF32.
    return -top - jnp.log(jnp.sum(_bounded_exp(x - top[:, None]) * mass, axis=1))


def density(u, v, problem):
    """[n, m], the density of the plan with respect to a b'."""
    return _bounded_exp(u[:, None] + v - problem.cost)


def _bounded_exp(x):
    # Between two points without mass x can be anything, and inf times 0 is NaN.
    return jnp.exp(jnp.minimum(x, 80.0))


def solve(v, problem, threshold, max_iterations):
    """v by ott's fixed-point loop, from a guess of v."""
    # ott takes three seconds to import: only who asks for it pays.
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as ott_sinkhorn

    cost, a, b, tau_a, tau_b = problem
    # With the masses in the cost ott's potentials are u and v, its entropy KL(P | a b').
    shifted = cost - jnp.log(a)[:, None] - jnp.log(b)
    geom = geometry.Geometry(cost_matrix=shifted, epsilon=1.0)
    solver = ott_sinkhorn.Sinkhorn(
        threshold=threshold,
        max_iterations=max_iterations,
        inner_iterations=min(10, max_iterations),
        # Else a constant in u and v decays by only tau_a tau_b per iteration.
        recenter_potentials=tau_a < 1 and tau_b < 1,
    )
    linear = linear_problem.LinearProblem(geom, a, b, tau_a=tau_a, tau_b=tau_b)
    v = solver(linear, init=(rows(v, problem), v)).g
    # One more: for the points without mass, and beyond the rounding of ott's threshold.
    return columns(rows(v, problem), problem)


def unroll(v, problem, iterations):
    """v after so many iterations; only the v are kept for the derivative."""

    @jax.checkpoint
    def step(v, _):
        u = rows(v, problem)
        v = columns(u, problem)
        if problem.tau_a < 1 and problem.tau_b < 1:
            v = v - _translation(u, v, problem)
        return v, None

    return jax.lax.scan(step, v, length=iterations)[0]


def _translation(u, v, problem):
    """The t for which u + t, v - t is best: Sejourne et al. 2022, Proposition 2."""
    _, a, b, tau_a, tau_b = problem
    rho_a, rho_b = tau_a / (1 - tau_a), tau_b / (1 - tau_b)
    nought = jnp.zeros((1, 1), a.dtype)
    logs = _softmin(-v / rho_b, b, nought) - _softmin(-u / rho_a, a, nought)
    return rho_a * rho_b / (rho_a + rho_b) * logs[0]


def implicit(v, problem):
    """v unchanged, with the derivatives of the fixed point v = T(v).

    dv = (I - dT/dv)^-1 dT, the implicit function theorem.
    """
    _, a, b, tau_a, tau_b = problem
    fixed = problem.constant()
    if len(a) < len(b):  # the system has the size of v
        u = implicit(rows(v, fixed), problem.flipped())
        return columns(u, problem)
    u = rows(v, fixed)
    du_dv = tau_a * jax.nn.softmax(v - fixed.cost + jnp.log(fixed.b), axis=1)
    dv_du = tau_b * jax.nn.softmax(u - fixed.cost.T + jnp.log(fixed.a), axis=1)
    precisely = jax.lax.Precision.HIGHEST
    # The ridge, of rounding's size, is for a plan that falls apart: blocks move freely.
    identity = (1 + 10 * jnp.finfo(b.dtype).eps) * jnp.eye(len(b), dtype=b.dtype)
    system = identity - jnp.matmul(dv_du, du_dv, precision=precisely)
    if tau_a == tau_b == 1:  # the constants solve v = T(v) too: hold b.v
        system += fixed.b / fixed.b.sum()
    moved = columns(rows(v, problem), problem)
    return v + jnp.linalg.solve(system, moved - jax.lax.stop_gradient(moved))

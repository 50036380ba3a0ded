"""Optimal transport between weighted clouds of features.

Problems are `cost [n, m], a [n], b [m]`; `jax.vmap` solves many at once, and points
without mass are padding. Every solver is `(cost, a, b, start=g) -> Transport`: a plan,
duals, the cost with its derivatives, and a gap that certifies them.

    lp          exact, by POT's network simplex on the host, over all cores
    semidual    exact to a certified tolerance, by Newton steps on the device
    sinkhorn    with entropy, balanced or not, three ways to differentiate
    sinkhorn_divergence, sliced_wasserstein, mmd_squared       other discrepancies
    barycenter, sliced_barycenter, mmd_atoms                   atoms that minimise one
    geodesic_barycenter                                        in a curved space

Where the equations of the papers are:

Cuturi and Doucet, "Fast Computation of Wasserstein Barycenters" (ICML 2014)
    W(a, b) = min <C, P>, P 1 = a, P' 1 = b            `lp`, `semidual`
    its dual, max a.f + b.g with f_i + g_j <= C_ij     `Transport.f`, `Transport.g`
    g is a subgradient of b -> W(a, b)                 `Transport.g`, of mean 0
    Algorithm 1, weights of fixed atoms                `subgradient_weights`
    Y <- Y P' diag(b)^-1, positions for a fixed plan   `newton_step`
    Algorithm 2, alternating the two                   `barycenter`
    Algorithm 3, smoothed plan and dual                `sinkhorn`

Liu et al., "Dataset Distillation via the Wasserstein Metric" (WMDD, ICCV 2025)
    barycenter of the features of a class              `barycenter`
      as run (equal weights)                             weights="uniform"
      as written (learned weights)                       weights="learned", or in
                                                         closed form "voronoi"
      as coded for learned weights                       `reference_barycenter`
    the sliced variant (not faster here: see there)    `sliced_barycenter`
    MMD in the place of transport (its Figure 4)       `mmd_atoms`; of means alone,
                                                         `losses.mean_distance`
    || F - B ||, features against their atoms          `losses.barycenter_distance`

Example:
  >>> import jax, jax.numpy as jnp
  >>> from ddjax import ot
  >>> x, y = jax.random.normal(jax.random.key(0), (2, 8, 3))
  >>> mass = jnp.full(8, 1 / 8)
  >>> exact = ot.lp(ot.squared_euclidean(x, y), mass, mass)
  >>> near = ot.semidual(ot.squared_euclidean(x, y), mass, mass, tolerance=1e-4)
  >>> bool(near.cost <= 1.0001 * exact.cost), bool(near.gap < 1e-4)
  (True, True)
"""

from ddjax.ot.atoms import INITS, k_means_plus_plus, sample
from ddjax.ot.barycenter import SMOOTH, WEIGHTS, barycenter, newton_step
from ddjax.ot.cost import cost_scale, euclidean, l1, squared_euclidean
from ddjax.ot.divergence import sinkhorn_divergence
from ddjax.ot.geodesic import geodesic_barycenter
from ddjax.ot.lp import lp
from ddjax.ot.mmd import (
    energy,
    gaussian,
    linear,
    median_bandwidth,
    mmd_atoms,
    mmd_squared,
)
from ddjax.ot.reference import reference_barycenter
from ddjax.ot.semidual import semidual
from ddjax.ot.sinkhorn import sinkhorn
from ddjax.ot.sliced import (
    directions,
    sliced_barycenter,
    sliced_wasserstein,
    wasserstein_1d,
)
from ddjax.ot.transport import Transport
from ddjax.ot.weights import subgradient_weights, voronoi_masses

__all__ = [
    "INITS",
    "SMOOTH",
    "WEIGHTS",
    "Transport",
    "barycenter",
    "cost_scale",
    "directions",
    "energy",
    "euclidean",
    "gaussian",
    "geodesic_barycenter",
    "k_means_plus_plus",
    "l1",
    "linear",
    "lp",
    "median_bandwidth",
    "mmd_atoms",
    "mmd_squared",
    "newton_step",
    "reference_barycenter",
    "sample",
    "semidual",
    "sinkhorn",
    "sinkhorn_divergence",
    "sliced_barycenter",
    "sliced_wasserstein",
    "squared_euclidean",
    "subgradient_weights",
    "voronoi_masses",
    "wasserstein_1d",
]

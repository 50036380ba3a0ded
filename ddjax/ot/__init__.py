"""Optimal transport between feature clouds: exact, entropic, and barycenters."""

from ddjax.ot.atoms import INITS, k_means_plus_plus, sample
from ddjax.ot.barycenter import SMOOTH, WEIGHTS, barycenter, newton_step
from ddjax.ot.cost import cost_scale, euclidean, l1, squared_euclidean
from ddjax.ot.divergence import sinkhorn_divergence
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

"""Optimal transport between feature clouds: exact, entropic, and barycenters."""

from ddjax.ot.barycenter import (
    WEIGHTS,
    barycenter,
    newton_step,
    subgradient_weights,
    voronoi_masses,
)
from ddjax.ot.cost import squared_euclidean
from ddjax.ot.lp import lp
from ddjax.ot.sinkhorn import sinkhorn
from ddjax.ot.transport import Transport

__all__ = [
    "WEIGHTS",
    "Transport",
    "barycenter",
    "lp",
    "newton_step",
    "sinkhorn",
    "squared_euclidean",
    "subgradient_weights",
    "voronoi_masses",
]

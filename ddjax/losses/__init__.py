"""Losses: arrays to a scalar. No model, no state, no loop."""

from ddjax.losses.batchnorm import batch_norm, class_batch_norm, group_moments
from ddjax.losses.characteristic import characteristic_matching
from ddjax.losses.curvature import (
    CURVATURES,
    Curvature,
    curvature,
    direction,
    gauss_newton,
    gradient_difference,
    gradient_norm,
    hessian_norm,
    input_gradient,
    loss_difference,
)
from ddjax.losses.features import barycenter_distance, mean_distance
from ddjax.losses.geometric import (
    MATCHES,
    centroid_matching,
    class_means,
    covariance_matching,
    curvature_penalty,
    energy_matching,
    product_matching,
    product_transport,
    spread,
    tangent_matching,
)
from ddjax.losses.gradients import gradient_distance
from ddjax.losses.labels import (
    cross_entropy,
    mixed_logits,
    soft_label_distance,
    soft_label_divergence,
)
from ddjax.losses.logit_transport import TRANSPORTED, logit_transport
from ddjax.losses.means import mean_matching
from ddjax.losses.priors import total_variation

__all__ = [
    "CURVATURES",
    "MATCHES",
    "TRANSPORTED",
    "Curvature",
    "barycenter_distance",
    "batch_norm",
    "centroid_matching",
    "characteristic_matching",
    "class_batch_norm",
    "class_means",
    "covariance_matching",
    "cross_entropy",
    "curvature",
    "curvature_penalty",
    "direction",
    "energy_matching",
    "gauss_newton",
    "gradient_difference",
    "gradient_distance",
    "gradient_norm",
    "group_moments",
    "hessian_norm",
    "input_gradient",
    "logit_transport",
    "loss_difference",
    "mean_distance",
    "mean_matching",
    "mixed_logits",
    "product_matching",
    "product_transport",
    "soft_label_distance",
    "soft_label_divergence",
    "spread",
    "tangent_matching",
    "total_variation",
]

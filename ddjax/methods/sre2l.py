"""SRe2L: invert a trained network through its BatchNorm statistics.

Reference: Z. Yin, E. Xing and Z. Shen, "Squeeze, Recover and Relabel: Dataset
Condensation at ImageNet Scale From A New Perspective", NeurIPS 2023,
https://arxiv.org/abs/2306.13092.
"""

from collections.abc import Callable

import optax

from ddjax import losses
from ddjax.methods import base
from ddjax.models import Network

__all__ = ["method"]


def method(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    augment: Callable = base.VIEW,
    bn_weight: float = 0.01,
    first_bn_weight: float = 10.0,
    curvature_weight: float = 0.0,
    curvature_form: str = "loss_difference",
    curvature_h: float = 0.7,
) -> base.Method:
    """Cross entropy plus the distance to the teacher's running statistics.

        L = CE(z, y) + bn_weight sum_l s_l (||V_l - v_l|| + ||M_l - m_l||)

    Args:
      network: of the teacher; it must have BatchNorm.
      optimizer: of the pixels.
      augment: `(key, images, count) -> images`.
      bn_weight: 0.01 on ImageNet-1K and CIFAR-100, 1 on Tiny-ImageNet.
      first_bn_weight: s_0; the other layers count once.
      curvature_weight: of one more term; see `base.with_curvature`, as for the others.
      curvature_form: which.
      curvature_h: length of its step.

    Raises:
      ValueError: see `losses.Curvature.check`.
    """

    def loss(images, context, targets):
        logits, out = network.apply(context.teacher, images)
        bn = losses.batch_norm(
            out["moments"], out["running"], first_weight=first_bn_weight
        )
        return {
            "cross_entropy": losses.cross_entropy(logits, targets.labels),
            "batch_norm": bn_weight * bn,
        }

    loss = base.with_curvature(
        loss, network.apply, curvature_weight, curvature_form, curvature_h
    )
    requires = ("teacher", "running")
    return base.from_loss(loss, optimizer, augment=augment, requires=requires)

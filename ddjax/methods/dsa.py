"""DSA: DC with one random augmentation for real and synthetic images alike.

Reference: B. Zhao and H. Bilen, "Dataset Condensation with Differentiable Siamese
Augmentation", ICML 2021, https://arxiv.org/abs/2102.08259.
"""

import optax

from ddjax.data import dsa as siamese
from ddjax.methods import base, dc
from ddjax.models import Network

__all__ = ["method"]


def method(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    dsa: str = siamese.STRATEGY,
    real_batch: int = 256,
    outer: int | None = None,
    inner: int | None = None,
    net_rate: float = 0.01,
    net_batch: int = 256,
    curvature_weight: float = 0.0,
    curvature_form: str = "loss_difference",
    curvature_h: float = 0.7,
) -> base.Method:
    """DC's loss and loops, seen through `data.dsa`.

    Args:
      network: see `methods.dc`, as for all but `dsa`.
      optimizer: of the pixels; the reference starts from random real images.
      dsa: operators; without "flip" where sides matter.
      real_batch: real images of each class in a step.
      outer: steps with one network.
      inner: epochs of the network after a step.
      net_rate: of its SGD.
      net_batch: images of its batches.
      curvature_weight: of GUARD's penalty on the real side.
      curvature_form: which.
      curvature_h: length of its step.

    Raises:
      ValueError: see `methods.dc`.
    """
    return dc.method(
        network,
        optimizer,
        real_batch=real_batch,
        dsa=dsa,
        outer=outer,
        inner=inner,
        net_rate=net_rate,
        net_batch=net_batch,
        curvature_weight=curvature_weight,
        curvature_form=curvature_form,
        curvature_h=curvature_h,
    )

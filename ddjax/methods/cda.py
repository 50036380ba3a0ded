"""CDA: SRe2L whose crops start large and shrink as the run goes on.

Reference: Z. Yin and Z. Shen, "Dataset Distillation via Curriculum Data Synthesis in
Large Data Era", TMLR 2024, https://arxiv.org/abs/2311.18838.
"""

import jax.numpy as jnp
import optax

from ddjax.data.augment import CropFlipRoll
from ddjax.methods import base, sre2l
from ddjax.models import Network

__all__ = ["lowest_scale", "method"]


def method(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
    augment: CropFlipRoll = base.VIEW,
    milestone: float = 1.0,
    bn_weight: float = 0.01,
    first_bn_weight: float = 10.0,
    curvature_weight: float = 0.0,
    curvature_form: str = "loss_difference",
    curvature_h: float = 0.7,
) -> base.Method:
    """SRe2L with the lower bound of the crop's area following `lowest_scale`.

    Args:
      network: of the teacher.
      optimizer: of the pixels.
      num_steps: length of the run.
      augment: its `scale[0]` is where the bound ends.
      milestone: share of the run that the descent takes; 1 in the paper.
      bn_weight: see `sre2l.method`; 0.01 on ImageNet-1K, 0.05 on Tiny-ImageNet.
      first_bn_weight: see `sre2l.method`.
      curvature_weight: see `base.with_curvature`, as for the others.
      curvature_form: which.
      curvature_h: length of its step.

    Raises:
      ValueError: see `losses.Curvature.check`.
    """

    def lowest(count):
        return lowest_scale(count, num_steps, augment.scale[0], milestone)

    return sre2l.method(
        network,
        optimizer,
        augment=augment._replace(lowest=lowest),
        bn_weight=bn_weight,
        first_bn_weight=first_bn_weight,
        curvature_weight=curvature_weight,
        curvature_form=curvature_form,
        curvature_h=curvature_h,
    )


def lowest_scale(count, num_steps: int, low: float = 0.08, milestone: float = 1.0):
    """Lower bound of the crop's area after `count` steps, from 1 down to `low`.

        low + (1 - low) (1 + cos(pi t / (milestone T))) / 2,  then `low`

    Args:
      count: steps made, t; scalar.
      num_steps: T.
      low: the last value.
      milestone: share of the run that the descent takes, in (0, 1].
    """
    progress = jnp.minimum(count / (milestone * num_steps), 1.0)
    return low + (1 - low) * 0.5 * (1 + jnp.cos(jnp.pi * progress))

"""Distance of the images' BatchNorm statistics to the real ones.

All functions read the *per-image* moments that a network reports. The moments of a
group of images follow from them by the law of total variance:

    mean = sum_j w_j m_j,   var = sum_j w_j (v_j + (m_j - mean)^2),   sum_j w_j = 1.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

from ddjax.losses.norm import safe_norm
from ddjax.types import Moments

__all__ = ["batch_norm", "class_batch_norm", "group_moments"]


def group_moments(moments: Moments, weights: jax.Array | None = None) -> Moments:
    """Moments of a group of images, over images and pixels.

    Args:
      moments: of each image, [..., n, c].
      weights: [..., n], non-negative, not all zero; None for equal ones.

    Returns:
      Moments [..., c], with the biased variance.
    """
    if weights is None:
        mean = moments.mean.mean(-2)
        spread = moments.var + (moments.mean - mean[..., None, :]) ** 2
        return Moments(mean, spread.mean(-2))
    weights = (weights / weights.sum(-1, keepdims=True))[..., None]
    mean = jnp.sum(weights * moments.mean, -2)
    spread = moments.var + (moments.mean - mean[..., None, :]) ** 2
    return Moments(mean, jnp.sum(weights * spread, -2))


def class_batch_norm(
    moments: Sequence[Moments],
    targets: Sequence[Moments],
    *,
    weights: jax.Array | None = None,
    first_weight: float = 1.0,
    squared: bool = False,
) -> jax.Array:
    """Per-class BatchNorm distance (WMDD's PCBN) of a chunk of whole classes.

        un-squared (the code):  sum_l s_l (1/q) sum_k ||V_kl - v_kl|| + ||M_kl - m_kl||
        squared (the paper):    sum_l s_l       sum_k ||V_kl - v_kl||^2 + ||M_kl - m_kl||^2

    over layers l and the q classes k of the chunk, with (m, v) the moments of the
    class's synthetic images and (M, V) of its real ones.

    Args:
      moments: per layer, of each image: [q * ipc, c], class-major.
      targets: per layer, of each class: [q, c].
      weights: [q * ipc], mass of each image within its class, or None where equal.
        The paper weighs the statistics with the barycenter's weights; the released
        code dropped that (it accepts the weights and ignores them).
      first_weight: s_0, the factor of the first layer (10 in SRe2L, 1 in WMDD).
      squared: the paper's form, summed over classes instead of averaged.

    Returns:
      Scalar.

    Reference: H. Liu et al., ICCV 2025, https://arxiv.org/abs/2311.18531.
    """
    _check_layers(moments, targets)

    def layer(seen: Moments, target: Moments):
        classes = len(target.mean)
        chex.assert_is_divisible(len(seen.mean), classes)
        grouped = Moments(*(x.reshape(classes, -1, x.shape[-1]) for x in seen))
        mass = None if weights is None else weights.reshape(classes, -1)
        actual = group_moments(grouped, mass)
        terms = _distances(actual, target, squared)
        return terms.sum() if squared else terms.mean()

    return _over_layers(layer, moments, targets, first_weight)


def batch_norm(
    moments: Sequence[Moments],
    running: Sequence[Moments],
    *,
    first_weight: float = 1.0,
    squared: bool = False,
) -> jax.Array:
    """BatchNorm distance of a whole chunk to the teacher's running statistics.

        sum_l s_l (||V_l - v_l|| + ||M_l - m_l||)    (squared norms if `squared`)

    Args:
      moments: per layer, of each image: [N, c].
      running: per layer: [c].
      first_weight: s_0, the factor of the first layer (10 in SRe2L).
      squared: squares both norms.

    Returns:
      Scalar.

    Reference: Z. Yin, E. Xing and Z. Shen, "Squeeze, Recover and Relabel", NeurIPS
      2023, https://arxiv.org/abs/2306.13092.
    """
    _check_layers(moments, running)

    def layer(seen: Moments, target: Moments):
        return _distances(group_moments(seen), target, squared)

    return _over_layers(layer, moments, running, first_weight)


def _distances(actual: Moments, target: Moments, squared: bool) -> jax.Array:
    """||V - v|| + ||M - m|| over channels, [...] for moments [..., c]."""
    total = 0.0
    for a, t in zip(actual, target):
        distance = safe_norm(a - t, axis=-1)
        total += distance**2 if squared else distance
    return total


def _over_layers(layer, moments, targets, first_weight):
    total = 0.0
    for index, (seen, target) in enumerate(zip(moments, targets)):
        total += (first_weight if index == 0 else 1.0) * layer(seen, target)
    return total


def _check_layers(moments, targets):
    if not moments or len(moments) != len(targets):
        raise ValueError(
            f"the network reports {len(moments)} BatchNorm layers and the targets "
            f"have {len(targets)}; both must be equal and at least 1. Use a network "
            "with BatchNorm, and statistics made with this very network."
        )

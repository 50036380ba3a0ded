"""Distance of features to the atoms of a barycenter, or to their mean."""

import chex
import jax
import jax.numpy as jnp

from ddjax.losses.norm import safe_norm

__all__ = ["barycenter_distance", "mean_distance"]


def barycenter_distance(
    features: jax.Array,
    atoms: jax.Array,
    *,
    squared: bool = False,
) -> jax.Array:
    """How far the images' features are from the atoms they stand for.

        un-squared (WMDD's code):  || F - B ||_F, one norm for the whole chunk
        squared (WMDD's paper):    sum_i || f_i - b_i ||^2

    Image i and atom i are paired for good. The authors' diary reports that the squared
    form was tried and was worse; the un-squared one weighs an image's pull by how far
    the whole chunk still is.

    Args:
      features: [N, D], of the synthetic images.
      atoms: [N, D], one for each image.
      squared: the paper's form.

    Returns:
      Scalar, in units of the features (squared units if `squared`).

    Reference: H. Liu et al., "Dataset Distillation via the Wasserstein Metric",
      ICCV 2025, https://arxiv.org/abs/2311.18531.
    """
    chex.assert_equal_shape([features, atoms])
    difference = features - atoms
    return jnp.sum(difference**2) if squared else safe_norm(difference)


def mean_distance(
    features: jax.Array,
    atoms: jax.Array,
    weights: jax.Array,
    *,
    classes: int,
    squared: bool = False,
) -> jax.Array:
    """How far the mean feature of each class is from the mean of its atoms.

        || M(F) - M(B) ||_F,   M(F)_k = sum_{i in class k} w_i f_i

    The ablation of `barycenter_distance` that sees only means: a linear MMD, as
    distribution matching (DM) has it. The weighted mean of the atoms of `ot.barycenter`
    is the mean of the class, so it needs no other target.

    Args:
      features: [N, D], of the synthetic images, class-major.
      atoms: [N, D], one for each image.
      weights: [N], sum 1 over the images of a class.
      classes: how many the N images are of, with as many of each.
      squared: the square of the norm.

    Returns:
      Scalar, in units of the features (squared units if `squared`).

    Reference: B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching",
      WACV 2023, https://arxiv.org/abs/2110.04181.
    """
    chex.assert_equal_shape([features, atoms])
    weighted = weights[:, None] * (features - atoms)
    difference = weighted.reshape(classes, -1, features.shape[1]).sum(1)
    return jnp.sum(difference**2) if squared else safe_norm(difference)

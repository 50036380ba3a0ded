"""DM: match the mean features of each class in random networks.

Reference: B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching", WACV
2023, https://arxiv.org/abs/2110.04181.
"""

import jax
import jax.numpy as jnp
import optax

from ddjax import losses, matching
from ddjax.data import dsa as siamese
from ddjax.methods import base
from ddjax.models import Network

__all__ = ["method"]


def method(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    real_batch: int = 256,
    dsa: str = siamese.STRATEGY,
    networks: str = "random",
    factor: int = 1,
    curvature_weight: float = 0.0,
    curvature_form: str = "loss_difference",
    curvature_h: float = 0.7,
) -> base.Method:
    """The distance between mean features, in a new network at every step.

        L = sum_k || mean_i f(A_k(x_ki)) - mean_j f(A_k(s_kj)) ||^2

    A_k is one draw of Differentiable Siamese Augmentation for both batches of a class.

    Args:
      network: that is drawn anew; the reference has a ConvNet-3 with InstanceNorm.
      optimizer: of the pixels; the reference has SGD at a rate of 1 with momentum 0.5.
      real_batch: real images of each class in a step.
      dsa: operators of the augmentation; "" for none.
      networks: "random" (DM) or "pool", see `matching.network_of`.
      factor: parts along one side of an image, see `matching.mosaics`; 1 in DM.
      curvature_weight: of one more term, see `with_curvature`.
      curvature_form: see `losses.Curvature`.
      curvature_h: length of its step, pixels of [0, 1].

    Raises:
      ValueError: an unknown operator or source of networks; no real images; see
        `losses.Curvature.check`.
    """
    requires = matching.check_source(networks)
    if dsa:
        siamese.parse(dsa)
    bent = losses.Curvature(
        curvature_form, curvature_weight, curvature_h, units="pixels"
    )
    bent.check()

    def loss(key, images, context, targets, batch):
        key_network, key_views = jax.random.split(key)
        variables = matching.network_of(key_network, network, networks, context)
        parts = matching.mosaics.decode(images, factor)
        synthetic = base.split_classes(parts, targets)
        pair = matching.siamese(key_views, dsa, network, batch.images, synthetic)
        real, own = (matching.embed(network, variables, x) for x in pair)
        terms = {"distance": losses.mean_matching(real, own, batch.weights)}
        labels = jnp.repeat(targets.labels, factor**2)
        return with_curvature(terms, network, variables, parts, labels, bent)

    return base.from_matching(loss, optimizer, requires=requires, real_batch=real_batch)


def with_curvature(
    terms: dict,
    network: Network,
    variables: dict,
    images: jax.Array,
    labels: jax.Array,
    options: losses.Curvature,
) -> dict:
    """The terms of a step and how curved its network's loss is at the images.

    Ours: GUARD's penalty acts on a loss of real images, and matching means has none.
    So this is `base.with_curvature`'s term, with the network of the step in place of a
    teacher: one that was never trained for "random", so it may be of use with "pool"
    alone. BatchNorm has the statistics of the synthetic images.

    Args:
      terms: see `base.from_matching`.
      network: of the matching.
      variables: its, of this step.
      images: [N, H, W, ch], synthetic.
      labels: [N].
      options: which, and how far; a weight of 0 gives back the terms.
    """
    if not options.acts:
        return terms

    def logits_fn(images):
        return network.apply_batch(variables, images)[0]

    found = losses.curvature(logits_fn, images, labels, options)
    return {**terms, "curvature": options.weight * found}

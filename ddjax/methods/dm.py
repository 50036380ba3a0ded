"""DM: match the mean features of each class in random networks.

Reference: B. Zhao and H. Bilen, "Dataset Condensation with Distribution Matching", WACV
2023, https://arxiv.org/abs/2110.04181.
"""

import jax
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

    Raises:
      ValueError: an unknown operator or source of networks; no real images.
    """
    requires = matching.check_source(networks)
    if dsa:
        siamese.parse(dsa)

    def loss(key, images, context, targets, batch):
        key_network, key_views = jax.random.split(key)
        variables = matching.network_of(key_network, network, networks, context)
        parts = matching.mosaics.decode(images, factor)
        synthetic = base.split_classes(parts, targets)
        pair = matching.siamese(key_views, dsa, network, batch.images, synthetic)
        real, own = (matching.embed(network, variables, x) for x in pair)
        return {"distance": losses.mean_matching(real, own, batch.weights)}

    return base.from_matching(loss, optimizer, requires=requires, real_batch=real_batch)

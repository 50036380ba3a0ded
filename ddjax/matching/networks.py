"""The network of a step, and what it makes of images."""

import jax

from ddjax.matching.real import by_class

__all__ = ["SOURCES", "check_source", "embed", "network_of"]

SOURCES = ("random", "pool")


def check_source(source: str) -> tuple[str, ...]:
    """What a method requires for its networks.

    Raises:
      ValueError: unknown source.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown networks {source!r}; known: {', '.join(SOURCES)}.")
    return ("pool",) if source == "pool" else ()


def network_of(key: jax.Array, network, source: str, context) -> dict:
    """Variables of the network of one step.

    Args:
      key: consumed.
      network: `models.Network`.
      source: "random", fresh parameters at every step (DM); or "pool", one of the
        context's networks, somewhere on the straight line from its first parameters to
        its last (NCFM: half-trained networks of every age).
      context: with the pool, where there is one.

    Reference: S. Wang et al., "Dataset Distillation with Neural Characteristic Function:
      A Minmax Perspective", CVPR 2025, https://arxiv.org/abs/2502.20653.
    """
    if source == "random":
        return network.init(key)
    key_member, key_age = jax.random.split(key)
    first, last = context.pool
    member = jax.random.randint(key_member, (), 0, len(jax.tree.leaves(first)[0]))
    age = jax.random.uniform(key_age)
    return jax.tree.map(
        lambda a, b: (1 - age) * a[member] + age * b[member], first, last
    )


def embed(network, variables: dict, images: jax.Array) -> jax.Array:
    """Features [q, n, D] of images [q, n, H, W, ch], all classes in one batch.

    BatchNorm, where there is some, sees all of the batch.
    """

    def features(images):
        return network.apply_batch(variables, images)[1]["features"]

    return by_class(features, images)

"""The first atoms of a barycenter, drawn among the points it stands for."""

import jax
import jax.numpy as jnp

from ddjax.ot.transport import check_cloud

__all__ = ["INITS", "check_size", "k_means_plus_plus", "measure", "sample"]


def sample(key: jax.Array, x: jax.Array, size: int, a: jax.Array) -> jax.Array:
    """`size` different points [size, D] of the cloud x [n, D], drawn by mass a [n]."""
    return x[jax.random.choice(key, len(x), (size,), replace=False, p=a)]


def k_means_plus_plus(
    key: jax.Array, x: jax.Array, size: int, a: jax.Array
) -> jax.Array:
    """Points drawn far from each other: each by its cost to those before it.

    Args:
      key: consumed.
      x: [n, D].
      size: how many.
      a: [n], masses.

    Returns:
      [size, D], points of the cloud.

    Reference: D. Arthur and S. Vassilvitskii, "k-means++: The Advantages of Careful
      Seeding", SODA 2007. One candidate a draw, not the best of several.
    """

    def draw(i, carry):
        y, nearest = carry
        costs = a * nearest
        masses = jnp.where(costs.max() > 0, costs, a)  # of the first: a
        key_i = jax.random.fold_in(key, i)
        point = x[jax.random.categorical(key_i, jnp.log(masses))]
        distance = jnp.sum((x - point) ** 2, 1)
        nearest = jnp.where(i == 0, distance, jnp.minimum(nearest, distance))
        return y.at[i].set(point), nearest

    x, a = jnp.asarray(x), jnp.asarray(a)
    first = jnp.zeros((size, x.shape[1]), x.dtype), jnp.zeros(len(x), x.dtype)
    return jax.lax.fori_loop(0, size, draw, first)[0]


INITS = {"data": sample, "k-means++": k_means_plus_plus}


def check_size(x: jax.Array, size: int) -> None:
    """ValueError unless there are at least as many points as atoms, and one atom."""
    if not 1 <= size <= len(x):
        raise ValueError(
            f"{size} atoms for {len(x)} points; a barycenter needs at least as many "
            "points as atoms (lower the images per class)."
        )


def measure(
    name: str, x: jax.Array, a: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Checked points and masses of sum 1; points without mass lie at the mean."""
    x = jnp.asarray(x, jnp.result_type(x, jnp.float32))
    a = jnp.ones(x.shape[:1], x.dtype) if a is None else jnp.asarray(a, x.dtype)
    check_cloud(name, x, a)
    a = jax.lax.stop_gradient(a / a.sum())
    alive = a[:, None] > 0
    mean = jax.lax.stop_gradient(a @ jnp.where(alive, x, 0))
    return jnp.where(alive, x, mean), a

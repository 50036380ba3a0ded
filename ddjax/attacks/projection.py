"""The nearest point of a hyperplane within the box of images."""

import jax
import jax.numpy as jnp

__all__ = ["moves_to_plane"]

_MAX_ROUNDS = 60


def moves_to_plane(
    points: jax.Array, normals: jax.Array, heights: jax.Array
) -> jax.Array:
    """Smallest moves, by their largest component, onto a plane and within [0, 1].

        min_d max_i |d_i|   subject to  w . d = -h,  0 <= a + d <= 1

    Every pixel goes down the plane's slope by the same length lam, or as far as its
    wall: d_i = -sign(h w_i) min(lam, room_i). lam solves

        sum_i |w_i| min(lam, room_i) = |h|

    whose left side is concave and piecewise linear, so that Newton's method from 0
    climbs to the root and, once on its piece, meets it exactly: in three to ten passes,
    measured; sixty halve the error down to rounding in the worst case. A sort of 16
    times 150,528 pixels took 36 times as long on a CPU.

    Args:
      points: [B, H, W, ch] in [0, 1].
      normals: [B, H, W, ch], w; pixels where it is zero stay.
      heights: [B], w . a - b: of the points above the plane. (The reference takes b;
        the height at hand has no cancellation.)

    Returns:
      d, [B, H, W, ch]. Where the plane misses the box, pixels go to their walls. Zero
      for normals of zero.

    Reference: F. Croce and M. Hein, "Minimally distorted adversarial examples with a
      fast adaptive boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044,
      Section 2; equal to the reference code's search of sorted walls.
    """
    batch = len(points)
    slopes = normals.reshape(batch, -1) * jnp.sign(heights)[:, None]
    weights, flat = jnp.abs(slopes), points.reshape(batch, -1)
    room = jnp.where(slopes > 0, flat, jnp.where(slopes < 0, 1 - flat, 0.0))
    length = _common_length(weights, room, jnp.abs(heights))
    moves = -jnp.sign(slopes) * jnp.minimum(length[:, None], room)
    return moves.reshape(points.shape)


def _common_length(weights, room, need):
    """[B], the root lam; the largest room or more where there is none."""

    def newton(length):
        free = room > length[:, None]
        slope = jnp.sum(jnp.where(free, weights, 0.0), 1)
        spent = jnp.sum(jnp.where(free, 0.0, weights * room), 1)
        root = (need - spent) / jnp.where(slope > 0, slope, 1.0)
        # A root never falls but by rounding, which must not go round in circles.
        return jnp.where(slope > 0, jnp.maximum(root, length), length)

    def goes_on(carry):
        count, before, length = carry
        return (count < _MAX_ROUNDS) & jnp.any(length > before)

    def climb(carry):
        count, _, length = carry
        return count + 1, length, newton(length)

    start = jnp.zeros_like(need)
    return jax.lax.while_loop(goes_on, climb, (1, start, newton(start)))[2]

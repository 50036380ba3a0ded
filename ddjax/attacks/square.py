"""Square, the attack that needs no gradient."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.attacks import base

__all__ = ["draws", "side_length", "square"]

_TOGETHER = 10  # queries in a step: one is too little work for a call of a program
_LENGTH = 10_000  # of the paper's run, whose schedule is stretched by `rescale`
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after these queries


@functools.cache
def square(
    *,
    eps: float,
    num_queries: int = 5000,
    p_init: float = 0.8,
    rescale: bool = False,
    shared: bool = False,
) -> base.Attack:
    """Square in L-inf: random windows, kept where they lower the margin.

    The start is vertical stripes of x +- eps. Query i moves each channel of one window
    by 2 eps up or down, clipped to the ball and the box, and keeps that if the margin
    (the class's logit above the best other one) falls or is not positive. The window
    covers a share p of the image: p_init, halved after 10, 50, 200, 500, 1000, 2000,
    4000, 6000 and 8000 queries. A point whose margin is not positive is left as it is.

    As in the authors' code a window never touches the last row or column, unless it
    covers all of them. Unlike there, each image has windows of its own, so that an
    image's result does not depend on the batch.

    Args:
      eps: radius, in pixels of [0, 1].
      num_queries: after the first, at the start.
      p_init: share of the image that the first windows cover.
      rescale: whether the schedule is of 10,000 queries, squeezed into `num_queries`;
        torchattacks does, AutoAttack does not.
      shared: whether all images of a batch have the window of the first one's key, as
        in the authors' code; for comparisons.

    Raises:
      ValueError: no query, a negative radius, or a share outside (0, 1].

    Reference: M. Andriushchenko et al., "Square Attack: a query-efficient black-box
      adversarial attack via random search", ECCV 2020,
      https://arxiv.org/abs/1912.00049, Algorithms 1 and 2.
    """
    if num_queries < 1 or eps < 0 or not 0 < p_init <= 1:
        raise ValueError(
            f"num_queries={num_queries}, eps={eps:g}, p_init={p_init:g}; expected at "
            "least 1, at least 0, and a share above 0 up to 1."
        )

    def init(model, images, labels, keys, round):
        del round
        _, _, width, channels = images.shape
        drawn = jax.vmap(lambda key: draws(key, 0, (1, width, channels)))(keys)
        moved = jnp.clip(images + eps * _signs(drawn, images.dtype), 0, 1)
        # One query each: the reference counts them, and so does the parity test.
        return moved, base.margin(model(moved), labels), jnp.ones(len(images), int)

    def step(model, state, index, images, labels, keys):
        def one(i, state):
            number = index * _TOGETHER + i
            return query(model, state, number, images, labels, keys)

        return jax.lax.fori_loop(0, _TOGETHER, one, state)

    def query(model, state, index, images, labels, keys):
        best, least, queries = state
        shape = images.shape[1:]
        side = side_length(index, shape, num_queries, p_init, rescale)
        source = jnp.broadcast_to(keys[:1], keys.shape) if shared else keys
        drawn = jax.vmap(lambda key: draws(key, index + 1, (2 + shape[2],)))(source)
        signs = _signs(drawn[:, None, None, 2:], best.dtype)
        moved = best + 2 * eps * signs * _windows(drawn[:, :2], side, shape)
        moved = jnp.clip(jnp.clip(moved, images - eps, images + eps), 0, 1)
        margins = base.margin(model(moved), labels)
        asked = (least > 0) & (index < num_queries)
        taken = asked & ((margins < least) | (margins <= 0))
        best = jnp.where(base.per_sample(taken, best), moved, best)
        return best, jnp.where(taken, margins, least), queries + asked

    return base.Attack(
        name="square",
        rounds=1,
        num_steps=-(-num_queries // _TOGETHER),
        init=init,
        step=step,
        result=lambda state: state[0],
        gradients=0,
        forwards=num_queries + 1,
    )


def side_length(index, shape, num_queries: int, p_init: float, rescale: bool):
    """Pixels of the side of query `index`'s window, counted from 0.

    Args:
      index: may be traced.
      shape: (H, W, ch) of an image.
      num_queries: see `square`.
      p_init: see `square`.
      rescale: see `square`.
    """
    height, width, _ = shape
    sides = [
        min(max(round(math.sqrt(p_init / 2**k * height * width)), 1), height, width)
        for k in range(len(_HALVINGS) + 1)
    ]
    starts = np.array(_HALVINGS)
    if rescale:
        # The first query whose stretched number, rounded down, is above.
        starts = np.array([_first_above(start, num_queries) for start in _HALVINGS]) - 1
    return jnp.array(sides)[jnp.sum(index > starts)]


def _first_above(start, num_queries):
    """Each query is checked: where the numbers touch, floating point decides."""
    guess = max(0, start * num_queries // _LENGTH - 2)
    while int(guess / num_queries * _LENGTH) <= start:
        guess += 1
    return guess


def draws(key: jax.Array, number, shape: tuple) -> jax.Array:
    """In [0, 1), for query `number` of one image; that at the start is number 0."""
    return jax.random.uniform(jax.random.fold_in(key, number), shape)


def _windows(drawn, side, shape):
    """[B, H, W, 1] bool, from [B, 2] in [0, 1): the corners, where they may lie."""
    room = jnp.array(shape[:2]) - side
    low = jnp.floor(drawn * room).astype(int)[..., None, None]
    top, left = low[:, 0], low[:, 1]
    rows, columns = jnp.arange(shape[0])[:, None], jnp.arange(shape[1])[None, :]
    inside = (rows >= top) & (rows < top + side)
    inside = inside & (columns >= left) & (columns < left + side)
    return inside[..., None]


def _signs(drawn, dtype):
    return jnp.where(drawn < 0.5, -1, 1).astype(dtype)

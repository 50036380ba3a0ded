"""Attacks whose sign steps follow a running sum of gradients: MI-FGSM, VMI-FGSM."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.attacks import base, gradient

__all__ = ["MomentumState", "VarianceState", "mi_fgsm", "vmi_fgsm"]


class MomentumState(NamedTuple):
    """State of `mi_fgsm`."""

    images: jax.Array  # [B, H, W, ch], the iterate
    momentum: jax.Array  # [B, H, W, ch]


class VarianceState(NamedTuple):
    """State of `vmi_fgsm`."""

    images: jax.Array  # [B, H, W, ch], the iterate
    momentum: jax.Array  # [B, H, W, ch]
    variance: jax.Array  # [B, H, W, ch], of the iterate before
    own: jax.Array  # [B, H, W, ch], the gradient at the iterate
    total: jax.Array  # [B, H, W, ch], sum of its neighbours' gradients so far


@functools.cache
def mi_fgsm(
    *,
    eps: float,
    num_steps: int = 10,
    step_size: float | None = None,
    decay: float = 1.0,
    normalise: str = "sample",
) -> base.Attack:
    """The momentum iterative fast gradient sign method, in the L-inf ball.

        m <- decay m + g / s
        a <- project(a + step_size sign(m)),  from a = x and m = 0

    with g the gradient of the cross entropy at a. The scale s is the mean of |g| over
    an image ("sample", as in torchattacks), or the sum of |g| over the **whole batch**
    ("batch", as in GUARD's own MIM). The latter changes from step to step with all
    images of the batch, and with what pads it: what is found for an image then depends
    on its company. It is there to repeat GUARD's numbers.

    Differs from both: where there is no gradient at all, the step is 0 and not NaN.

    Args:
      eps: L-inf radius, in pixels of [0, 1].
      num_steps: 20 in GUARD's evaluation.
      step_size: in pixels of [0, 1]; None is eps / 4. GUARD's is eps.
      decay: of the momentum.
      normalise: "sample" or "batch".

    Raises:
      ValueError: unknown `normalise`; numbers that attack nothing.

    Reference: Y. Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018,
      https://arxiv.org/abs/1710.06081, Eqs. 6 and 7 (s is a sum over the image there).
    """
    if normalise not in _SCALED:
        raise ValueError(
            f"unknown normalise {normalise!r}; known: {', '.join(_SCALED)}."
        )
    step_size = eps / 4 if step_size is None else step_size
    gradient.check(eps=eps, num_steps=num_steps, step_size=step_size)
    scaled = _SCALED[normalise]

    def init(model, images, labels, keys, round):
        del model, labels, keys, round
        # A copy: the loop donates its state, and the images are used again.
        return MomentumState(jnp.array(images, copy=True), jnp.zeros_like(images))

    def step(model, state, index, images, labels, keys):
        del index, keys
        own = gradient.input_gradient(base.cross_entropy, model, state.images, labels)
        momentum = decay * state.momentum + scaled(own)
        moved = state.images + step_size * jnp.sign(momentum)
        return MomentumState(base.project(moved, images, eps, "linf"), momentum)

    return base.Attack(
        name="mi_fgsm" if normalise == "sample" else "mi_fgsm_batch",
        rounds=1,
        num_steps=num_steps,
        init=init,
        step=step,
        result=lambda state: state.images,
        gradients=num_steps,
        forwards=0,
    )


@functools.cache
def vmi_fgsm(
    *,
    eps: float,
    num_steps: int = 10,
    step_size: float = 2 / 255,
    decay: float = 1.0,
    neighbours: int = 5,
    beta: float = 1.5,
) -> base.Attack:
    """MI-FGSM whose gradient is corrected by what neighbours of the last iterate had.

        m <- decay m + (g + v) / mean|g + v|
        v <- mean_j grad CE(a + u_j) - g,  u_j uniform in [-beta eps, beta eps]
        a <- project(a + step_size sign(m)),  from a = x, m = 0 and v = 0

    with g the gradient at a. Neighbours may leave [0, 1], as in torchattacks.

    A step of this attack is one gradient: `neighbours + 1` of them are one move. So
    it compiles as fast as PGD and needs no more memory, however many neighbours.

    Args:
      eps: L-inf radius, in pixels of [0, 1].
      num_steps: moves.
      step_size: of a move, in pixels of [0, 1].
      decay: of the momentum.
      neighbours: of every iterate; the paper has 20.
      beta: how far they are drawn, in radii.

    Raises:
      ValueError: numbers that attack nothing.

    Reference: X. Wang and K. He, "Enhancing the Transferability of Adversarial Attacks
      through Variance Tuning", CVPR 2021, https://arxiv.org/abs/2103.15571,
      Algorithm 1.
    """
    gradient.check(eps=eps, num_steps=num_steps, step_size=step_size)
    if neighbours < 1 or not beta > 0:
        raise ValueError(
            f"neighbours={neighbours} and beta={beta} should be at least 1 and positive"
            "; without neighbours use mi_fgsm."
        )
    turns = neighbours + 1

    def init(model, images, labels, keys, round):
        del model, labels, keys, round
        zeros = (jnp.zeros_like(images) for _ in VarianceState._fields[1:])
        return VarianceState(jnp.array(images, copy=True), *zeros)

    def step(model, state, index, images, labels, keys):
        # The iterate's turn comes first, then its neighbours'; the last one moves it.
        first, last = index % turns == 0, index % turns == neighbours
        radius = jnp.where(first, 0.0, beta * eps)
        point = state.images + radius * _noise(keys, index, images)
        here = gradient.input_gradient(base.cross_entropy, model, point, labels)
        own = jnp.where(first, here, state.own)
        total = jnp.where(first, 0.0, state.total + here)
        momentum = decay * state.momentum + _by_image(own + state.variance)
        momentum = jnp.where(first, momentum, state.momentum)
        variance = jnp.where(last, total / neighbours - own, state.variance)
        moved = state.images + step_size * jnp.sign(momentum)
        moved = base.project(moved, images, eps, "linf")
        moved = jnp.where(last, moved, state.images)
        return VarianceState(moved, momentum, variance, own, total)

    return base.Attack(
        name="vmi_fgsm",
        rounds=1,
        num_steps=num_steps * turns,
        init=init,
        step=step,
        result=lambda state: state.images,
        gradients=num_steps * turns,
        forwards=0,
    )


def _noise(keys, index, images):
    """[B, H, W, ch] in [-1, 1], of one step."""
    return base.uniform(gradient.fold(keys, index), images)


def _by_image(gradients):
    mean = jnp.abs(gradients).reshape(len(gradients), -1).mean(1)
    tiny = jnp.finfo(gradients.dtype).tiny
    return gradients / base.per_sample(jnp.maximum(mean, tiny), gradients)


def _by_batch(gradients):
    tiny = jnp.finfo(gradients.dtype).tiny
    return gradients / jnp.maximum(jnp.abs(gradients).sum(), tiny)


_SCALED = {"sample": _by_image, "batch": _by_batch}

"""Attacks that follow the sign or the direction of a gradient: FGSM and PGD."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.attacks import base

__all__ = ["LOSSES", "PGDState", "check", "fgsm", "fold", "input_gradient", "pgd"]


def _negative_margin(logits, labels):
    return -base.margin(logits, labels)


# What an attack maximises: (logits [B, C], labels [B]) -> [B].
LOSSES = {"ce": base.cross_entropy, "margin": _negative_margin}


class PGDState(NamedTuple):
    """State of `pgd`."""

    images: jax.Array  # [B, H, W, ch], the iterate


@functools.cache
def fgsm(*, eps: float) -> base.Attack:
    """The fast gradient sign method: one step of PGD, from the image to a corner.

        clip(x + eps sign(grad CE), 0, 1)

    Args:
      eps: L-inf radius, in pixels of [0, 1].

    Raises:
      ValueError: no such radius.

    Reference: I. Goodfellow, J. Shlens and C. Szegedy, "Explaining and Harnessing
      Adversarial Examples", ICLR 2015, https://arxiv.org/abs/1412.6572.
    """
    one_step = pgd(eps=eps, num_steps=1, step_size=eps, random_start=False)
    return one_step._replace(name="fgsm")


@functools.cache
def pgd(
    *,
    eps: float,
    num_steps: int = 100,
    step_size: float | None = None,
    restarts: int = 1,
    norm: str = "linf",
    loss: str = "ce",
    random_start: bool = True,
) -> base.Attack:
    """Projected gradient ascent from a random point of the ball; the last iterate.

        a <- a + step_size sign(g)        "linf"
        a <- a + step_size g / ||g||_2    "l2"
        a <- the nearest point of the ball around x, then of [0, 1]

    with g the gradient of an image's own loss at a. L-inf starts are uniform in the
    ball. L2 starts have a uniform direction and a uniform length, as torchattacks'
    PGDL2 has them, so they crowd around x.

    The loss "margin" is the best other logit minus the class's own. Ascent on it is the
    L-inf attack of Carlini and Wagner as the literature uses it; it has a gradient
    where a confident network's cross entropy rounds to none.

    Differs from torchattacks: a gradient is scaled by its largest entry before its norm
    is taken, since squares of tiny ones round to 0. Madry's own code keeps the iterate
    of the highest loss instead of the last.

    Args:
      eps: radius, in pixels of [0, 1].
      num_steps: of a restart.
      step_size: in the units of `eps`; None is eps / 4, as in GUARD's evaluation and
        torchattacks' defaults.
      restarts: rounds, each from its own random points.
      norm: "linf" or "l2".
      loss: "ce" or "margin".
      random_start: False starts at the images.

    Raises:
      ValueError: unknown norm or loss; numbers that attack nothing; restarts that
        would all start at one point.

    Reference: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial
      Attacks", ICLR 2018, https://arxiv.org/abs/1706.06083; the margin: N. Carlini and
      D. Wagner, "Towards Evaluating the Robustness of Neural Networks", S&P 2017,
      https://arxiv.org/abs/1608.04644, objective f_6.
    """
    _check_choice("norm", norm, base.NORMS)
    _check_choice("loss", loss, LOSSES)
    step_size = eps / 4 if step_size is None else step_size
    check(eps=eps, num_steps=num_steps, step_size=step_size, norm=norm)
    if restarts < 1 or (restarts > 1 and not random_start):
        raise ValueError(
            f"restarts={restarts} with random_start={random_start}: use at least one, "
            "and more than one only with random starts."
        )
    direction = jnp.sign if norm == "linf" else _unit
    draw = base.uniform if norm == "linf" else _in_l2_ball

    def init(model, images, labels, keys, round):
        del model, labels
        if not random_start:
            # A copy: the loop donates its state, and the images are used again.
            return PGDState(jnp.array(images, copy=True))
        noise = draw(fold(keys, round), images)
        return PGDState(jnp.clip(images + eps * noise, 0.0, 1.0))

    def step(model, state, index, images, labels, keys):
        del index, keys
        gradient = input_gradient(LOSSES[loss], model, state.images, labels)
        moved = state.images + step_size * direction(gradient)
        return PGDState(base.project(moved, images, eps, norm))

    suffix = "" if loss == "ce" else f"_{loss}"
    return base.Attack(
        name=f"pgd{num_steps}" + ("" if norm == "linf" else f"_{norm}") + suffix,
        rounds=restarts,
        num_steps=num_steps,
        init=init,
        step=step,
        result=lambda state: state.images,
        gradients=num_steps,
        forwards=0,
    )


def input_gradient(loss: Callable, model: Callable, images, labels) -> jax.Array:
    """[B, H, W, ch], each image's gradient of its own loss.

    That of the sum over the batch, so that it does not shrink with the batch's size.

    Args:
      loss: `(logits [B, C], labels [B]) -> [B]`.
      model: `images -> logits`.
      images: [B, H, W, ch].
      labels: [B].
    """
    return jax.grad(lambda pixels: loss(model(pixels), labels).sum())(images)


def fold(keys: jax.Array, count) -> jax.Array:
    """[B] keys of the round or step `count`, from keys [B]."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, count)


def check(*, eps: float, num_steps: int, step_size: float, norm: str = "linf"):
    """ValueError if an attack with these numbers would not be one."""
    # Written so that NaN fails too. A ball of radius 0 is fine: it holds the image.
    if not 0 <= eps or (norm == "linf" and not eps <= 1):
        raise ValueError(
            f"eps={eps} is no radius in pixels of [0, 1]; write 8 / 255 for 8 levels."
        )
    if not num_steps >= 1:
        raise ValueError(f"num_steps={num_steps} should be at least 1.")
    if not step_size > 0 and eps > 0:
        raise ValueError(f"step_size={step_size} moves nothing; it should be positive.")


def _check_choice(what, got, known):
    if got not in known:
        raise ValueError(f"unknown {what} {got!r}; known: {', '.join(known)}.")


def _unit(gradient):
    """Gradients of length 1; where there is none, it stays 0."""
    tiny = jnp.finfo(gradient.dtype).tiny
    largest = jnp.maximum(base.distance(gradient, "linf"), tiny)
    scaled = gradient / base.per_sample(largest, gradient)
    # At least its largest entry, 1, unless there is no gradient.
    length = jnp.maximum(base.distance(scaled, "l2"), 1.0)
    return scaled / base.per_sample(length, scaled)


def _in_l2_ball(keys, images):
    """[B, H, W, ch] of length at most 1, each image's from its own key."""
    keys = jax.vmap(jax.random.split)(keys)  # [B, 2]

    def direction(key):
        return jax.random.normal(key, images.shape[1:], images.dtype)

    def length(key):
        return jax.random.uniform(key, (), images.dtype)

    directions = _unit(jax.vmap(direction)(keys[:, 0]))
    return directions * base.per_sample(jax.vmap(length)(keys[:, 1]), directions)

"""The L2 attack of Carlini and Wagner, as torchattacks runs it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax.attacks import base

__all__ = ["CWState", "carlini_wagner", "lead"]


class CWState(NamedTuple):
    """State of `carlini_wagner`."""

    latent: jax.Array  # [B, H, W, ch], w; infinite where a pixel is 0 or 1
    opt_state: Any  # Adam's, each leaf [B, ...]
    best: jax.Array  # [B, H, W, ch], the nearest misclassified iterate, or the image
    nearest: jax.Array  # [B], its squared L2 distance; 1e10 where there is none
    cost: jax.Array  # [B], of the whole batch at the last look, in every row
    stopped: jax.Array  # [B] bool, the same in every row


@functools.cache
def carlini_wagner(
    *,
    c: float = 1.0,
    kappa: float = 0.0,
    learning_rate: float = 0.01,
    num_steps: int = 50,
) -> base.Attack:
    """The nearest misclassified image that Adam meets, in the L2 norm.

        minimise  sum_i ||a_i - x_i||_2^2 + c max(lead_i, -kappa)
        a = (tanh(w) + 1) / 2,  from w = artanh(2 x - 1)

    There is **no radius**: the images are in [0, 1] and in no ball. Where no iterate
    fooled the model the image itself is returned. This is torchattacks' CW with its
    peculiarities:

    - No search for c. At 1e-4 (GUARD's) the first step moves every pixel by about
      1.27 / 255, since Adam does not see how small the gradient is; then the distance
      pulls back. That is hardly an attack: use c of 1 to 10, or `pgd` with the margin.
    - `lead` takes the best other logit for 0 if it is negative.
    - Pixels of exactly 0 or 1 never move, as w is infinite there.
    - An iterate is judged before its update, so the last one never is.
    - Every tenth of the steps (and at the first) the cost of the whole batch is looked
      at, and the attack ends if it rose. So what is found for an image **depends on
      its batch**, and on what pads it. Here the number of steps is fixed: after the
      end, the state no longer changes.

    Args:
      c: weight of the lead.
      kappa: how far, in logits, the lead is pushed below 0.
      learning_rate: of Adam, in units of w.
      num_steps: at most.

    Raises:
      ValueError: numbers that attack nothing.

    Reference: N. Carlini and D. Wagner, "Towards Evaluating the Robustness of Neural
      Networks", S&P 2017, https://arxiv.org/abs/1608.04644, Section VI.A.
    """
    positive = {"c": c, "learning_rate": learning_rate, "num_steps": num_steps}
    for name, value in positive.items():
        if not value > 0:
            raise ValueError(f"{name}={value} should be positive.")
    if not kappa >= 0:
        raise ValueError(f"kappa={kappa} should not be negative.")
    optimizer = optax.adam(learning_rate)  # torch's: eps outside of the root
    every = max(num_steps // 10, 1)

    def init(model, images, labels, keys, round):
        del model, labels, keys, round
        latent = jnp.arctanh(jnp.clip(2 * images - 1, -1.0, 1.0))
        far = jnp.full(len(images), 1e10, images.dtype)
        # Image by image, so that its count of steps leads with B as well.
        opt_state = jax.vmap(optimizer.init)(latent)
        best = jnp.array(images, copy=True)  # the loop donates its state
        stopped = jnp.zeros(len(images), bool)
        return CWState(latent, opt_state, best, far, jnp.array(far, copy=True), stopped)

    def objective(latent, model, images, labels):
        moved = (jnp.tanh(latent) + 1) / 2
        squared = jnp.sum((moved - images).reshape(len(images), -1) ** 2, 1)
        logits = model(moved)
        cost = squared.sum() + c * jnp.maximum(lead(logits, labels), -kappa).sum()
        return cost, (moved, squared, logits)

    def step(model, state, index, images, labels, keys):
        del keys
        (cost, (moved, squared, logits)), slope = jax.value_and_grad(
            objective, has_aux=True
        )(state.latent, model, images, labels)
        updates, opt_state = jax.vmap(optimizer.update)(slope, state.opt_state)
        better = (logits.argmax(1) != labels) & (squared < state.nearest)
        look = index % every == 0
        new = CWState(
            latent=state.latent + updates,
            opt_state=opt_state,
            best=jnp.where(base.per_sample(better, moved), moved, state.best),
            nearest=jnp.where(better, squared, state.nearest),
            cost=jnp.where(look, cost, state.cost),
            stopped=look & (cost > state.cost),
        )
        return jax.tree.map(functools.partial(_unless, state.stopped), state, new)

    return base.Attack(
        name=f"cw_c{c:g}",
        rounds=1,
        num_steps=num_steps,
        init=init,
        step=step,
        result=lambda state: state.best,
        gradients=num_steps,
        forwards=0,
    )


def lead(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B], the class's logit above the others', as torchattacks has it.

    It hides logits by multiplying them with 0, so both sides are at least 0: the best
    of other logits that are all negative counts as 0, and so does a negative logit of
    the class. `base.margin` is the honest form.

    Args:
      logits: [B, C].
      labels: [B].
    """
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return (own * logits).max(1) - ((1 - own) * logits).max(1)


def _unless(stopped, old, new):
    return jnp.where(base.per_sample(stopped, new), old, new)

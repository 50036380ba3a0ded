"""AutoPGD: ascent with momentum whose steps shrink where they stop helping."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.attacks import base
from ddjax.attacks.targets import logit_of, target_of_round

__all__ = ["LOSSES", "State", "apgd", "checkpoint_windows", "dlr", "dlr_targeted"]

LOSSES = ("ce", "dlr", "dlr_targeted")

_INERTIA = 0.25  # share of the last move in the next: 1 - alpha of the paper
_RHO = 0.75  # of the steps of a window that must raise the loss


class State(NamedTuple):
    """Between two steps of a round."""

    images: jax.Array  # [B, H, W, ch], where the ascent is
    gradients: jax.Array  # [B, H, W, ch], of the loss there
    before: jax.Array  # [B, H, W, ch], where it was a step ago
    best: jax.Array  # [B, H, W, ch], of the highest loss
    best_gradients: jax.Array  # [B, H, W, ch]
    best_loss: jax.Array  # [B]
    found: jax.Array  # [B, H, W, ch], the latest misclassified, or the clean image
    step_size: jax.Array  # [B], in pixels of [0, 1]
    last_loss: jax.Array  # [B], of the step before; 0 before the first
    increases: jax.Array  # [B] int32, steps of this window that raised the loss
    checked_loss: jax.Array  # [B], the highest loss at the last checkpoint
    halved: jax.Array  # [B] bool, whether the step size fell there
    target: jax.Array  # [B] int32, the class aimed at; the label if untargeted


class _Look(NamedTuple):
    """What a model says of images."""

    gradients: jax.Array  # [B, H, W, ch]
    loss: jax.Array  # [B]
    wrong: jax.Array  # [B] bool


@functools.cache
def apgd(
    eps: float,
    *,
    loss: str = "ce",
    num_steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    norm: str = "linf",
    samples: int = 1,
) -> base.Attack:
    """Auto-PGD: no step size to choose.

    From a random point on the ball's surface it climbs

        u = P(a + eta direction),   a' = P(a + 0.75 (u - a) + 0.25 (a - a_before))

    and starts with eta = 2 eps. At checkpoints that come closer and closer an image
    whose loss rose in too few steps, or whose best loss stayed, halves its eta and
    goes on from the best point. Direction: the gradient's sign ("linf"), or the
    gradient over its length ("l2").

    As in the authors' code, and in places beside the paper: the start's loss counts
    for the best but the first step is compared to a loss of 0; the last move is kept
    as momentum when an image returns to its best point; and the result is the *latest*
    misclassified point, not the one of the highest loss.

    Args:
      eps: radius, in pixels of [0, 1].
      loss: "ce", "dlr" or "dlr_targeted" (APGD-T).
      num_steps: of each round.
      restarts: from new random points.
      targets: of "dlr_targeted", the likeliest other classes, one after another, all
        restarts of one before the next; others ignore it.
      norm: "linf" or "l2".
      samples: of a model that is random, gradients are averaged over so many copies of
        the batch in one call, so that a model whose noise depends on an image's place
        shows as many draws. (AutoAttack's "rand" has 20; the logits are those of the
        last copy, as there.) For any other model it only costs time.

    Returns:
      Attack. Its `result` is the clean image where nothing was misclassified.

    Raises:
      ValueError: unknown loss or norm, counts below 1, a negative eps; by `init`:
        fewer than three classes for "dlr", four for "dlr_targeted", or no more classes
        than targets.

    Reference: F. Croce and M. Hein, "Reliable evaluation of adversarial robustness
      with an ensemble of diverse parameter-free attacks", ICML 2020,
      https://arxiv.org/abs/2003.01690, Algorithm 1; code: fra31/auto-attack.

    Example:
      >>> attack = apgd(8 / 255, loss="dlr_targeted", targets=9)
      >>> attack.name, attack.rounds, attack.gradients
      ('apgd-t', 9, 101)
    """
    _check(eps, loss, norm, num_steps, restarts, targets, samples)
    targeted = loss == "dlr_targeted"
    look = functools.partial(_look, loss, samples)
    windows = checkpoint_windows(num_steps)

    def init(model, images, labels, keys, round) -> State:
        target = labels.astype(jnp.int32)
        if targeted:
            target = target_of_round(
                model(images), round, targets=targets, restarts=restarts
            )
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys, round)
        start = jnp.clip(images + eps * _surface(keys, images, norm), 0.0, 1.0)
        return _begin(start, look(model, start, labels, target), images, eps, target)

    def step(model, state: State, index, images, labels, keys) -> State:
        del keys
        moved = _move(state, index, images, eps, norm)
        seen = look(model, moved, labels, state.target)
        state = _remember(state, moved, seen)
        return _checkpoint(state, jnp.asarray(windows, jnp.int32)[index])

    def result(state: State) -> jax.Array:
        return state.found

    name = "apgd-" + {"dlr_targeted": "t"}.get(loss, loss)
    return base.Attack(
        name if norm == "linf" else f"{name}-{norm}",
        restarts * targets if targeted else restarts,
        num_steps,
        init,
        step,
        result,
        gradients=samples * (num_steps + 1),
        forwards=int(targeted),
    )


def checkpoint_windows(num_steps: int) -> tuple[int, ...]:
    """For each step the length of the window that ends with it, 0 within one.

    Windows shrink from 22 % of the steps by 3 % each down to 6 %, at least 1.

    Example:
      >>> [step + 1 for step, window in enumerate(checkpoint_windows(100)) if window]
      [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window = max(int(0.22 * num_steps), 1)
    less, least = max(int(0.03 * num_steps), 1), max(int(0.06 * num_steps), 1)
    windows, end = [0] * num_steps, window
    while end <= num_steps:
        windows[end - 1] = window
        window = max(window - less, least)
        end += window
    return tuple(windows)


def dlr(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """[B], the difference of logits ratio: the margin's size, whatever their scale.

        -(z_y - max_{i != y} z_i) / (z_(1) - z_(3) + 1e-12)

    where z_(k) is the k-th largest. At least -1, positive where misclassified; flat at
    1 where the label is third. The gradient goes through the denominator too.

    Args:
      logits: [B, C].
      labels: [B].

    Raises:
      ValueError: fewer than three classes.

    Reference: Croce and Hein, https://arxiv.org/abs/2003.01690, Equation 6.
    """
    top = _largest(logits, 3, "dlr")
    return -base.margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: jax.Array, labels: jax.Array, target: jax.Array) -> jax.Array:
    """[B], the difference of logits ratio between the label and a target.

        -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)

    Args:
      logits: [B, C].
      labels: [B].
      target: [B].

    Raises:
      ValueError: fewer than four classes.

    Reference: Croce and Hein, https://arxiv.org/abs/2003.01690, Equation 7.
    """
    top = _largest(logits, 4, "dlr_targeted")
    lead = logit_of(logits, labels) - logit_of(logits, target)
    return -lead / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def _check(eps, loss, norm, num_steps, restarts, targets, samples):
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is unknown; known: {', '.join(LOSSES)}.")
    if norm not in base.NORMS:
        raise ValueError(f"norm {norm!r} is unknown; known: {', '.join(base.NORMS)}.")
    if not eps >= 0:
        raise ValueError(f"eps={eps}, a radius, must not be negative.")
    counts = {"num_steps": num_steps, "restarts": restarts}
    counts |= {"targets": targets, "samples": samples}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be 1 or more.")


def _surface(keys, images, norm):
    """[B, H, W, ch] random directions, of length 1 in the norm."""
    if norm == "linf":
        return _unit(base.uniform(keys, images), norm)

    def draw(key):
        return jax.random.normal(key, images.shape[1:], images.dtype)

    return _unit(jax.vmap(draw)(keys), norm)


def _unit(added, norm):
    return added / base.per_sample(base.distance(added, norm) + 1e-12, added)


def _look(loss, samples, model, images, labels, target) -> _Look:
    """Loss, its gradient and what is misclassified; one call of the model."""

    def total(images):
        copies, names, aims = (_repeat(x, samples) for x in (images, labels, target))
        logits = model(copies)
        losses = _losses(loss, logits, names, aims)
        return losses.sum() / samples, (logits[-batch:], losses[-batch:])

    batch = len(images)
    gradients, (logits, losses) = jax.grad(total, has_aux=True)(images)
    return _Look(gradients, losses, logits.argmax(1) != labels)


def _repeat(array, times):
    return array if times == 1 else jnp.concatenate([array] * times)


def _losses(name, logits, labels, target):
    if name == "ce":
        return base.cross_entropy(logits, labels)
    if name == "dlr":
        return dlr(logits, labels)
    return dlr_targeted(logits, labels, target)


def _begin(start, seen, images, eps, target) -> State:
    batch = len(images)
    return State(
        images=start,
        gradients=seen.gradients,
        before=start,
        best=start,
        best_gradients=seen.gradients,
        best_loss=seen.loss,
        found=_choose(seen.wrong, start, images),
        step_size=jnp.full(batch, 2.0 * eps, images.dtype),
        last_loss=jnp.zeros_like(seen.loss),
        increases=jnp.zeros(batch, jnp.int32),
        checked_loss=seen.loss,
        halved=jnp.ones(batch, bool),  # so that the first checkpoint asks only one
        target=target,
    )


def _move(state, index, images, eps, norm):
    at = state.images
    linf = norm == "linf"
    direction = jnp.sign(state.gradients) if linf else _unit(state.gradients, norm)
    ahead = at + base.per_sample(state.step_size, at) * direction
    ahead = base.project(ahead, images, eps, norm)
    inertia = jnp.where(index == 0, 0.0, _INERTIA)
    moved = at + (1 - inertia) * (ahead - at) + inertia * (at - state.before)
    return base.project(moved, images, eps, norm)


def _remember(state, moved, seen) -> State:
    better = seen.loss > state.best_loss
    rose = seen.loss > state.last_loss
    return state._replace(
        images=moved,
        gradients=seen.gradients,
        before=state.images,
        best=_choose(better, moved, state.best),
        best_gradients=_choose(better, seen.gradients, state.best_gradients),
        best_loss=jnp.where(better, seen.loss, state.best_loss),
        found=_choose(seen.wrong, moved, state.found),
        last_loss=seen.loss,
        increases=state.increases + rose,
    )


def _checkpoint(state, window) -> State:
    """Halves steps and goes back to the best point, where a window ends badly."""
    ends = window > 0
    idle = ~state.halved & (state.checked_loss >= state.best_loss)
    halve = ends & ((state.increases <= _RHO * window) | idle)
    return state._replace(
        images=_choose(halve, state.best, state.images),
        gradients=_choose(halve, state.best_gradients, state.gradients),
        step_size=jnp.where(halve, state.step_size / 2, state.step_size),
        increases=jnp.where(ends, 0, state.increases),
        checked_loss=jnp.where(ends, state.best_loss, state.checked_loss),
        halved=jnp.where(ends, halve, state.halved),
    )


def _choose(which, there, here):
    """Whole images of one or the other, by [B]."""
    return jnp.where(base.per_sample(which, here), there, here)


def _largest(logits, count, loss):
    """[B, count], the largest logits, descending."""
    classes = logits.shape[1]
    if classes < count:
        raise ValueError(
            f"{loss!r} needs the {count} largest logits, but there are {classes} "
            'classes; use loss="ce".'
        )
    return jax.lax.top_k(logits, count)[0]

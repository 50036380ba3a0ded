"""Fast adaptive boundary attack: the nearest misclassified point, by linearisation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.attacks import base
from ddjax.attacks.projection import moves_to_plane
from ddjax.attacks.targets import logit_of, target_of_round

__all__ = ["MAX_CLASSES", "State", "fab"]

_ETA = 1.05  # overshoots the boundary, to be across it
_BETA = 0.9  # how far to stay on the way back from a found point
_ALPHA_MAX = 0.1  # the most weight of the clean image's own projection
MAX_CLASSES = 10  # untargeted: a gradient for each of them in every step


class State(NamedTuple):
    """Between two steps of a round."""

    images: jax.Array  # [B, H, W, ch], where the search is
    found: jax.Array  # [B, H, W, ch], the nearest misclassified within eps, or clean
    distance: jax.Array  # [B], largest move of the nearest, beyond eps too; inf if none
    target: jax.Array  # [B] int32, the class aimed at; the label if untargeted


@functools.cache
def fab(
    eps: float,
    *,
    targets: int | None = 9,
    num_steps: int = 100,
    restarts: int = 1,
) -> base.Attack:
    """FAB and FAB-T, L-inf: seeks small moves, where others fill the ball.

    Each step takes the model for linear where the search is, which makes the boundary
    between two classes a plane, and goes to

        a' = clip((1 - alpha)(a + 1.05 d_a) + alpha (x + 1.05 d_x))

    where d_a, d_x are the smallest moves onto the plane from the point and from the
    clean image, and alpha = min(|d_a| / (|d_a| + |d_x|), 0.1). From a point that is
    misclassified (as any class, target or not) it turns back a tenth of the way.

    The boundary: to the target's class; untargeted, the nearest by the linearisation,
    which needs a gradient for each class.

    Args:
      eps: radius, in pixels of [0, 1]: what is found beyond it does not count. The
        search itself only knows it in restarts.
      targets: the likeliest other classes, one after another, all restarts of one
        before the next; None for untargeted, with at most ten classes.
      num_steps: of each round.
      restarts: the first begins at the clean image, others within eps / 2 of it.

    Returns:
      Attack. Its `result` is the clean image where nothing was found within eps. An
      image that is misclassified as it is stays, at distance 0. `gradients` of the
      untargeted attack are for ten classes.

    Raises:
      ValueError: counts below 1, a negative eps; by `init`: no more classes than
        targets, or untargeted with more than ten.

    Reference: F. Croce and M. Hein, "Minimally distorted adversarial examples with a
      fast adaptive boundary attack", ICML 2020, https://arxiv.org/abs/1907.02044,
      Algorithm 1; code: fra31/auto-attack.

    Example:
      >>> attack = fab(8 / 255)
      >>> attack.name, attack.rounds, attack.gradients, attack.forwards
      ('fab-t', 9, 100, 101)
    """
    _check(eps, targets, num_steps, restarts)

    def init(model, images, labels, keys, round) -> State:
        logits = model(images)
        target = labels.astype(jnp.int32)
        if targets is None:
            _check_classes(logits.shape[1])
        else:
            target = target_of_round(logits, round, targets=targets, restarts=restarts)
        wrong = logits.argmax(1) != labels
        distance = jnp.where(wrong, 0.0, jnp.inf).astype(images.dtype)
        start = _start(images, keys, round, restarts, eps)
        return State(start, images, distance, target)

    def step(model, state: State, index, images, labels, keys) -> State:
        del index, keys
        if targets is None:
            height, normals = _nearest_plane(model, state.images, labels)
        else:
            height, normals = _plane(model, state.images, labels, state.target)
        moved = _move(state.images, images, height, normals)
        wrong = model(moved).argmax(1) != labels
        return _remember(state, moved, wrong, images, eps)

    def result(state: State) -> jax.Array:
        return state.found

    return base.Attack(
        "fab" if targets is None else "fab-t",
        restarts * (targets or 1),
        num_steps,
        init,
        step,
        result,
        gradients=num_steps * (MAX_CLASSES if targets is None else 1),
        forwards=num_steps + 1,
    )


def _check(eps, targets, num_steps, restarts):
    if not eps >= 0:
        raise ValueError(f"eps={eps}, a radius, must not be negative.")
    counts = {"num_steps": num_steps, "restarts": restarts}
    counts |= {} if targets is None else {"targets": targets}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be 1 or more.")


def _check_classes(classes):
    if classes > MAX_CLASSES:
        raise ValueError(
            f"Untargeted FAB takes a gradient for each of {classes} classes in every "
            f"step, and {MAX_CLASSES} at most; use targets=9."
        )


def _start(images, keys, round, restarts, eps):
    """The clean images, or in later restarts a point on half the ball's surface."""
    if restarts == 1:
        return images
    noise = base.uniform(jax.vmap(jax.random.fold_in, (0, None))(keys, round), images)
    noise = noise / base.per_sample(base.distance(noise, "linf"), noise)
    near = jnp.clip(images + 0.5 * eps * noise, 0.0, 1.0)
    return jnp.where(round % restarts > 0, near, images)


def _plane(model, images, labels, target):
    """Target's lead over the label [B], and its gradient [B, H, W, ch]."""

    def lead(images):
        logits = model(images)
        difference = logit_of(logits, target) - logit_of(logits, labels)
        return difference.sum(), difference

    normals, height = jax.grad(lead, has_aux=True)(images)
    return height, normals


def _nearest_plane(model, images, labels):
    """The same for the class whose boundary is nearest, were the model linear."""
    logits, pull = jax.vjp(model, images)
    one_hot = jnp.eye(logits.shape[1], dtype=logits.dtype)
    pairs = one_hot[:, None] - one_hot[labels]  # [C, B, C], class k against the label
    normals = jax.vmap(pull)(pairs)[0]  # [C, B, H, W, ch]
    heights = jnp.sum(pairs * logits, 2)
    steepness = jnp.sum(jnp.abs(normals), (2, 3, 4))
    reach = jnp.abs(heights) / (1e-12 + steepness)
    nearest = jnp.where(one_hot[:, labels] > 0, jnp.inf, reach).argmin(0)
    batch = jnp.arange(len(images))
    return heights[nearest, batch], normals[nearest, batch]


def _move(at, images, height, normals):
    """A step towards the plane, drawn a little to the clean images' side of it."""
    rise = jnp.sum((normals * (images - at)).reshape(len(at), -1), 1)
    here = moves_to_plane(at, normals, height)
    home = moves_to_plane(images, normals, height + rise)
    near = jnp.maximum(base.distance(here, "linf"), 1e-8)
    far = jnp.maximum(base.distance(home, "linf"), 1e-8)
    alpha = base.per_sample(jnp.minimum(near / (near + far), _ALPHA_MAX), at)
    moved = (at + _ETA * here) * (1 - alpha) + (images + _ETA * home) * alpha
    return jnp.clip(moved, 0.0, 1.0)


def _remember(state, moved, wrong, images, eps) -> State:
    distance = base.distance(moved - images, "linf")
    nearer = wrong & (distance < state.distance)
    within = base.per_sample(nearer & (distance <= eps), moved)
    back = images + _BETA * (moved - images)
    return State(
        images=jnp.where(base.per_sample(wrong, moved), back, moved),
        found=jnp.where(within, moved, state.found),
        distance=jnp.where(nearer, distance, state.distance),
        target=state.target,
    )

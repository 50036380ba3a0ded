"""How the loss looks around images: slope, curvature, and a picture of it.

For judging what a penalty on curvature did, and its premise that the gradient points
where the loss is most curved. All lengths are in pixels of [0, 1].
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import loop, losses
from ddjax.attacks import base as attacks

__all__ = ["Curved", "Lanczos", "Surface", "curved", "init", "make_step", "surface"]

_INVARIANT = 1e-6  # of a step's length: below it, rounding is all that is left


class Curved(NamedTuple):
    """What `curved` finds, image by image: the Hessian H is that of the loss, by pixels.

    Attributes:
      loss: [N] nats, cross entropy.
      gradient_norm: [N] nats per pixel, || g ||.
      rayleigh: [N] nats per pixel^2, g^T H g / || g ||^2.
      top: [N] nats per pixel^2, the largest eigenvalue of H.
      cosine: [N], between g and its eigenvector, without the sign.
    """

    loss: np.ndarray
    gradient_norm: np.ndarray
    rayleigh: np.ndarray
    top: np.ndarray
    cosine: np.ndarray


class Lanczos(NamedTuple):
    """State after some steps of Lanczos' method, for each image."""

    basis: jax.Array  # [N, K + 1, D], orthonormal rows; zeros where none was found yet
    diagonal: jax.Array  # [N, K]
    beside: jax.Array  # [N, K], how each row of the basis hangs on the next


class Surface(NamedTuple):
    """The loss on a plane through each image.

    Attributes:
      offsets: [P], of both axes; 1 is a root mean square change of 1/255.
      losses: [N, P, P] nats, along the gradient first.
    """

    offsets: np.ndarray
    losses: np.ndarray


def curved(
    key: jax.Array, apply_fn: Callable, variables, images, labels, num_steps: int = 20
) -> Curved:
    """Slope and curvature of the loss at images.

    Every step costs one exact product with the Hessian, about four forward passes, and
    keeps one more image for each image. A network of ReLUs has a Hessian of rank C - 1
    at most, so C + 1 steps are exact there; else the largest eigenvalue is approached
    from below.

    Args:
      key: consumed; of the random first vectors.
      apply_fn: `(variables, images) -> (logits, out)` with frozen statistics.
      variables: of the network.
      images: [N, H, W, ch] in [0, 1]; one batch.
      labels: [N] integers.
      num_steps: K.

    Reference: C. Lanczos, 1950, with full reorthogonalisation. The premise is that of
      CURE (S. Moosavi-Dezfooli et al., CVPR 2019, https://arxiv.org/abs/1811.09716).
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    shared = variables, images, labels
    found = loop.run(
        make_step(apply_fn),
        init(key, images, num_steps),
        shared,
        (),
        range(min(num_steps, images[0].size)),
    )
    top, vectors = jax.jit(_top)(found)
    return Curved(*jax.device_get(_compiled(_along, apply_fn)(*shared, top, vectors)))


def init(key: jax.Array, images: jax.Array, num_steps: int) -> Lanczos:
    """A random first vector for each image; `key` is consumed."""
    count, size = len(images), images[0].size
    steps = min(num_steps, size)
    first = jax.random.normal(key, (count, size), images.dtype)
    first /= jnp.linalg.norm(first, axis=1, keepdims=True)
    basis = jnp.zeros((count, steps + 1, size), images.dtype).at[:, 0].set(first)
    return Lanczos(basis, *jnp.zeros((2, count, steps), images.dtype))


@functools.cache
def make_step(apply_fn: Callable):
    """One step of Lanczos' method on the Hessians of all images, for `loop.run`.

    Args:
      apply_fn: see `curved`.

    Returns:
      `step(state, index, (variables, images, labels), ()) -> (state, {})`.
    """

    def step(state: Lanczos, index, shared, private):
        del private
        variables, images, labels = shared
        v = state.basis[:, index]
        product = _hessian(apply_fn, variables, images, labels, v)
        alpha = jnp.sum(product * v, 1)
        rest = product
        for _ in range(2):  # once is not enough in float32
            inner = jnp.einsum("nkd,nd->nk", state.basis, rest)
            rest = rest - jnp.einsum("nkd,nk->nd", state.basis, inner)
        beta, scale = _norm(rest), _norm(product)
        goes_on = beta > _INVARIANT * scale
        beta = jnp.where(goes_on, beta, 0.0)
        following = jnp.where(
            goes_on[:, None], rest / jnp.where(goes_on, beta, 1.0)[:, None], 0.0
        )
        # A basis that is complete goes on with zeros; the first entry, which no
        # eigenvalue is above, keeps those rows from being taken for one.
        alive = _norm(v) > 0.5
        alpha = jnp.where(alive, alpha, state.diagonal[:, 0])
        found = Lanczos(
            state.basis.at[:, index + 1].set(following),
            state.diagonal.at[:, index].set(alpha),
            state.beside.at[:, index].set(beta),
        )
        return found, {}

    return step


def surface(
    key: jax.Array,
    apply_fn: Callable,
    variables,
    images,
    labels,
    *,
    radius: float = 8.0,
    points: int = 21,
) -> Surface:
    """The loss on the plane of the gradient and a random direction orthogonal to it.

    Points of the plane may lie outside [0, 1]: nothing is clamped.

    Args:
      key: consumed; of the random direction.
      apply_fn: see `curved`.
      variables: of the network.
      images: [N, H, W, ch] in [0, 1].
      labels: [N] integers.
      radius: largest offset, in root mean square changes of 1/255.
      points: P, for each axis; an odd number has the image itself in the middle.
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    offsets = np.linspace(-radius, radius, points, dtype=images.dtype)
    axes = _compiled(_axes, apply_fn)(key, variables, images, labels)
    at = _compiled(_at, apply_fn)  # point by point: a row at once takes P times as much
    rows = [
        [at(variables, images, labels, axes, (first, second)) for second in offsets]
        for first in offsets
    ]
    return Surface(offsets, np.moveaxis(np.array(jax.device_get(rows)), -1, 0))


# Parts --------------------------------------------------------------------------------


@functools.cache
def _compiled(function, apply_fn):
    return jax.jit(functools.partial(function, apply_fn))


def _logits_of(apply_fn, variables):
    return lambda images: apply_fn(variables, images)[0]


def _norm(x):
    return jnp.sqrt(jnp.sum(x**2, 1))


def _hessian(apply_fn, variables, images, labels, v):
    """[N, D], the product of each image's Hessian with its row of v [N, D]."""
    logits_fn = _logits_of(apply_fn, variables)

    def gradient(x):
        return losses.input_gradient(logits_fn, x, labels)

    product = jax.jvp(gradient, (images,), (v.reshape(images.shape),))[1]
    return product.reshape(v.shape)


def _top(found: Lanczos):
    """Largest eigenvalues [N], and eigenvectors [N, D], of the matrix so far."""
    steps = found.diagonal.shape[1]
    beside = found.beside[:, :-1, None] * jnp.eye(steps, dtype=found.beside.dtype)[1:]
    beside = jnp.pad(beside, ((0, 0), (0, 1), (0, 0)))
    diagonal = found.diagonal[:, :, None] * jnp.eye(steps, dtype=beside.dtype)
    values, vectors = jnp.linalg.eigh(diagonal + beside + beside.swapaxes(1, 2))
    return values[:, -1], jnp.einsum(
        "nkd,nk->nd", found.basis[:, :-1], vectors[..., -1]
    )


def _along(apply_fn, variables, images, labels, top, vectors):
    """The fields of `Curved`."""
    logits_fn = _logits_of(apply_fn, variables)
    gradient = losses.input_gradient(logits_fn, images, labels)
    unit = losses.direction(gradient, 1.0).reshape(vectors.shape)
    rayleigh = jnp.sum(unit * _hessian(apply_fn, variables, images, labels, unit), 1)
    cosine = jnp.abs(jnp.sum(unit * vectors, 1))
    norm = losses.gradient_norm(logits_fn, images, labels)
    loss = attacks.cross_entropy(logits_fn(images), labels)
    return loss, norm, rayleigh, top, cosine


def _axes(apply_fn, key, variables, images, labels):
    """Two directions [N, H, W, ch] of each image, with a root mean square of 1/255."""
    length = images[0].size ** 0.5 / 255
    gradient = losses.input_gradient(_logits_of(apply_fn, variables), images, labels)
    first = losses.direction(gradient, 1.0)
    other = jax.random.normal(key, images.shape, images.dtype)
    other -= first * jnp.sum(first * other, (1, 2, 3), keepdims=True)
    return length * first, length * losses.direction(other, 1.0)


def _at(apply_fn, variables, images, labels, axes, offsets):
    """[N] losses at a pair of offsets, along the first axis and along the second."""
    moved = images + sum(o * axis for o, axis in zip(offsets, axes))
    logits = _logits_of(apply_fn, variables)(moved)
    return attacks.cross_entropy(logits, labels)

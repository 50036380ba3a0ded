"""Influence guidance: images whose loss a network learns from as from real ones.

There are loops over checkpoints, and images with parameters of their own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.losses import cross_entropy

__all__ = [
    "bank",
    "chosen",
    "parameter_gradient",
    "similarities",
    "value_and_gradient",
]

_OFFSET = 1e-6  # of IGD's code, added to the product of the norms


def parameter_gradient(
    apply_fn: Callable, variables: dict, images: jax.Array, label, chunk: int = 50
):
    """The gradient, in the parameters, of the mean cross entropy of one class.

    In pieces, so that the memory is that of a few images.

    Args:
      apply_fn: `(variables, images [N, H, W, ch]) -> (logits [N, C], out)`, with frozen
        statistics where there are some, as `models.Network.apply`.
      variables: {"params", ...}; only the parameters are differentiated.
      images: [m, H, W, ch] in [0, 1], of one class.
      label: integer scalar, the class.
      chunk: images at a time, at most.

    Returns:
      A tree as `variables["params"]`.

    Reference: M. Chen et al., "Influence-Guided Diffusion for Dataset Distillation"
      (IGD), ICLR 2025, https://openreview.net/forum?id=0whx8MhysK; 200 images a class.
    """

    size = min(chunk, len(images))
    absent = -len(images) % size
    padded = jnp.pad(images, ((0, absent), *[(0, 0)] * (images.ndim - 1)))
    there = jnp.pad(jnp.ones(len(images), images.dtype), (0, absent))
    labels = jnp.full(size, label)

    def loss(params, piece, there):
        logits, _ = apply_fn({**variables, "params": params}, piece)
        share = there.sum() / len(images)
        return share * cross_entropy(logits, labels, there)

    def add(total, piece):
        gradient = jax.grad(loss)(variables["params"], *piece)
        return jax.tree.map(jnp.add, total, gradient), None

    pieces = padded.reshape(-1, size, *images.shape[1:]), there.reshape(-1, size)
    zeros = jax.tree.map(jnp.zeros_like, variables["params"])
    return jax.lax.scan(add, zeros, pieces)[0]


def bank(
    apply_fn: Callable, checkpoints: dict, images: jax.Array, label, chunk: int = 50
):
    """`parameter_gradient` of one class at every checkpoint, stacked [E, ...].

    Args:
      apply_fn: see `parameter_gradient`.
      checkpoints: variables, [E, ...] each.
      images: [m, H, W, ch] in [0, 1], of one class.
      label: integer scalar.
      chunk: images at a time, at most.

    Returns:
      A tree as the parameters, [E, ...] each.
    """

    def of(variables):
        return parameter_gradient(apply_fn, variables, images, label, chunk)

    return jax.lax.map(of, checkpoints)


def value_and_gradient(
    apply_fn: Callable, image: jax.Array, label, checkpoints: dict, real
) -> tuple[jax.Array, jax.Array]:
    """How unlike the real gradients an image's is, and the derivative in its pixels.

        G_I(x) = (1 / E) sum_e [ 1 - <g_e, G_e> / (|g_e| |G_e| + 1e-6) ]
        g_e = d/d theta of the cross entropy of x at checkpoint e,  G_e the real mean

    The derivative is exact and needs no derivative of a derivative. With c_e the cosine
    and v = dc/dg at the image's own g held fixed,

        dc_e / dx = d/dx [ d/ds l(theta_e + s v, x) ]_{s = 0}

    one forward-mode pass inside one reverse-mode pass: about four times a plain
    gradient for each checkpoint.

    Vmap it over images of different classes.

    Args:
      apply_fn: see `parameter_gradient`.
      image: [H, W, ch] in [0, 1], or outside: nothing is clipped.
      label: integer scalar, the class.
      checkpoints: variables, [E, ...] each.
      real: G of the class, see `bank`: a tree as the parameters, [E, ...] each.

    Returns:
      G_I, in [0, 2], and its gradient [H, W, ch] per unit of pixels in [0, 1]; both
      finite, also where a gradient vanishes (its cosine is 0 then).

    Reference: as `parameter_gradient`. IGD's surrogates read pixels in [-1, 1], ours
      what `apply_fn` makes of [0, 1]. Its code averages the cross entropy with that of
      a second image, decoded from the unconditional half of the guided batch, which
      only shares the start; ours has the one image.
    """

    def at(pair):
        return _one(apply_fn, image, label, *pair)

    cosines, gradients = jax.lax.map(at, (checkpoints, real))
    return 1 - cosines.mean(), -gradients.mean(0)


def similarities(gradients) -> jax.Array:
    """The cosines between the gradients of one class at several epochs.

        c_ef = <g_e, g_f> / (|g_e| |g_f| + 1e-6)

    Args:
      gradients: tree, [T, ...] each.

    Returns:
      [T, T] in [-1, 1]; their mean over classes is what `chosen` reads.
    """
    leaves = [x.reshape(len(x), -1) for x in jax.tree.leaves(gradients)]
    precisely = jax.lax.Precision.HIGHEST
    products = sum(jnp.matmul(x, x.T, precision=precisely) for x in leaves)
    norms = jnp.sqrt(jnp.diagonal(products))
    return products / (norms[:, None] * norms + _OFFSET)


def chosen(
    similarities: np.ndarray, threshold: float = 0.7, most: int | None = None
) -> tuple[list[int], float]:
    """The epochs at which the gradients of the classes have turned.

    Epoch 0, and every later one whose similarity to the last one chosen is below the
    threshold. Where a network has learnt all it can, its small gradients turn at every
    epoch; so if more than `most` are chosen, the threshold is lowered to the highest of
    the similarities at which there are no more than that.

    Args:
      similarities: [T, T], means over classes of the cosines between two epochs.
      threshold: in (0, 1]; more epochs for a higher one.
      most: 1 or more epochs, at most; None for as many as there are. IGD's rule has
        no such bound, and gave 3 or 4 of 50.

    Returns:
      Ascending indices, and the threshold that gave them.

    Raises:
      ValueError: `most` is below 1.

    Reference: as `parameter_gradient`, which found four chosen ones better than ten at
      regular distances.
    """
    if most is not None and most < 1:
        raise ValueError(f"at most {most} epochs cannot be chosen; allow 1 or more.")
    similarities = np.asarray(similarities)
    kept = _walk(similarities, threshold)
    if most is None or len(kept) <= most:
        return kept, threshold
    lower = np.unique(similarities[similarities < threshold])[::-1]
    # At the lowest of all similarities none is below: epoch 0 alone.
    found = next(x for x in lower if len(_walk(similarities, x)) <= most)
    return _walk(similarities, found), float(found)


def _walk(similarities, threshold) -> list[int]:
    kept = [0]
    for epoch in range(1, len(similarities)):
        if similarities[epoch, kept[-1]] < threshold:
            kept.append(epoch)
    return kept


def _one(apply_fn, image, label, variables, real):
    """The cosine at one checkpoint, and its derivative in the image."""
    params, labels = variables["params"], jnp.reshape(label, (1,))

    def loss(params, image):
        logits, _ = apply_fn({**variables, "params": params}, image[None])
        return cross_entropy(logits, labels)

    g = jax.grad(loss)(params, image)
    cosine, v = jax.value_and_grad(_cosine)(g, real)

    def directional(image):
        return jax.jvp(lambda params: loss(params, image), (params,), (v,))[1]

    return cosine, jax.grad(directional)(image)


def _cosine(g, h):
    """<g, h> / (|g| |h| + 1e-6) of two trees; its derivative is finite at 0."""
    return _dot(g, h) / (_norm(g) * _norm(h) + _OFFSET)


def _norm(tree):
    """The norm of all leaves together, with the derivative 0 at 0."""
    square = _dot(tree, tree)
    there = square > 0
    return jnp.where(there, jnp.sqrt(jnp.where(there, square, 1.0)), 0.0)


def _dot(one, other):
    # Sums and not products of matrices: those may be in TF32.
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), one, other)
    return sum(jax.tree.leaves(products))

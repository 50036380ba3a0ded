"""How curved a classifier's loss is around images: GUARD's penalty, and its kin.

Every form reads a `logits_fn` whose BatchNorm statistics are frozen. Images are then
independent of each other, and one batched gradient of the *summed* loss holds the
gradients of all of them. The weights are what should be differentiated afterwards; the
direction in which one looks is a constant.

Which form: the released code of GUARD trains ImageNette to ImageNet-1K with the
difference of losses, CIFAR with the difference of gradients, both at h = 3 in
normalised units. That is a finite step, which crosses the kinks of a ReLU network. The
exact Hessian of such a network sees only the curvature of the softmax (at h = 3 the
finite difference was 23 times larger on a small one), so h -> 0 is another method, not
a better computed one: its forms have weights of their own.

References: E. Xue, Y. Li, H. Liu, P. Wang, Y. Shen and H. Wang, "Towards Adversarially
Robust Dataset Distillation by Curvature Regularization" (GUARD),
https://arxiv.org/abs/2403.10045; S. Moosavi-Dezfooli, A. Fawzi, J. Uesato and P.
Frossard, "Robustness via Curvature Regularization, and Vice Versa" (CURE), CVPR 2019,
https://arxiv.org/abs/1811.09716.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax.losses.norm import safe_norm

__all__ = [
    "CURVATURES",
    "Curvature",
    "curvature",
    "direction",
    "gauss_newton",
    "gradient_difference",
    "gradient_norm",
    "hessian_norm",
    "input_gradient",
    "loss_difference",
]

CURVATURES = (
    "loss_difference",
    "gradient_difference",
    "gradient_difference_squared",
    "hessian_norm",
    "hessian_norm_squared",
    "gauss_newton",
    "gradient_norm",
)
_LITERAL = ("loss_difference", "gradient_difference")  # what the released code has
_DIRECTIONS = ("gradient", "sign")
_UNITS = ("model", "pixels", "model_rms", "pixels_rms")
_STATISTICS = ("running", "batch")
_LEAST = 1e-12  # a gradient below this has no direction that float32 could tell
_OFFSET = 1e-7  # added by the released code


class Curvature(NamedTuple):
    """A penalty on curvature; a weight of 0 leaves it out.

    Attributes:
      form: one of `CURVATURES`; see the function of that name.
      weight: of the penalty in a loss. The released code's is 1e-4 for the difference
        of losses, where nothing can be seen of it; for the difference of gradients 100
        times the mean over a batch of 128 of gradients that are divided by 128, which
        is 0.78 here.
      h: length of the step; the forms at one point do not read it.
      direction: "gradient", or "sign" of the gradient (CURE's).
      units: of h, and of gradients. "model": what the network computes with, pixels
        divided by the standard deviation; "pixels": of [0, 1]. The same with "_rms":
        h is the root mean square of what is added, so it can be kept where the number
        of pixels changes (3 at 224 pixels is an rms of 0.0077, at 32 pixels 0.054).
      statistics: of BatchNorm, frozen while the images move. "running": the released
        code's, which training lets drift away from the batch's where the penalty is
        strong: a network can then be flat with the ones and learn with the others.
        "batch" (ours): the batch's own, as functions of the weights, which leaves no
        such gap. Read in squeeze alone.
      literal: the released code to the letter: the gradient of the batch's mean, which
        shrinks with the batch, and 1e-7 added to every part of the direction and to its
        norm. Where images are fitted well, that constant is the direction, and is many
        times longer than h.
    """

    form: str = "loss_difference"
    weight: float = 0.0
    h: float = 3.0
    direction: str = "gradient"
    units: str = "model"
    literal: bool = False
    statistics: str = "running"

    @property
    def acts(self) -> bool:
        """Whether it is part of the loss."""
        return self.weight != 0

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
          ValueError: an unknown word; no length or a negative weight; a literal form
            that was never released.
        """
        for name, known in (
            ("form", CURVATURES),
            ("direction", _DIRECTIONS),
            ("units", _UNITS),
            ("statistics", _STATISTICS),
        ):
            if (value := getattr(self, name)) not in known:
                raise ValueError(
                    f"unknown {name} of curvature {value!r}; known: {', '.join(known)}."
                )
        if self.weight < 0 or self.h <= 0:
            raise ValueError(
                f"curvature has weight {self.weight} and h {self.h}; it needs a weight "
                "of 0 or more, and h above 0."
            )
        if self.literal and self.form not in _LITERAL:
            raise ValueError(
                f"the released code has no {self.form!r}; literal is for "
                f"{' and '.join(_LITERAL)}."
            )


def curvature(
    logits_fn: Callable,
    images: jax.Array,
    labels: jax.Array,
    options: Curvature,
    std: tuple[float, ...] = (1.0,),
) -> jax.Array:
    """The penalty of a batch, not multiplied by its weight.

    The steps of gradient descent through it cost, in multiples of a step of plain
    training (operations counted by XLA on a small network; memory in brackets):
    loss_difference 3.3 (2.4), gradient_difference 5.4 (3.7), hessian_norm 4.3 (2.7),
    gauss_newton 3.2 (2.2). Adversarial training with 10 steps of PGD costs about 8.

    Args:
      logits_fn: `images -> logits [B, C]` with frozen BatchNorm statistics; computed
        with in float32 or better.
      images: [B, H, W, ch], what `logits_fn` takes: pixels in [0, 1].
      labels: [B] integers.
      options: which, and how far.
      std: of each channel; what the network divides pixels by.

    Returns:
      Scalar: the mean over the images, but for "loss_difference" the absolute value of
      a mean.

    Raises:
      ValueError: see `Curvature.check`.
    """
    options.check()
    unit = jnp.array(std if options.units.startswith("model") else 1.0, images.dtype)

    def moved(shift):
        return logits_fn(images + unit * shift)

    here = jnp.zeros_like(images)
    form = options.form.removesuffix("_squared")
    if form == "gradient_norm":
        return gradient_norm(moved, here, labels).mean()
    share = 1 / len(images) if options.literal else 1.0  # of the mean in the sum
    length = options.h
    if options.units.endswith("_rms"):
        length *= images[0].size ** 0.5
    at_a_point = form in ("hessian_norm", "gauss_newton")
    towards = direction(
        share * input_gradient(moved, here, labels),
        1.0 if at_a_point else length,
        kind=options.direction,
        literal=options.literal,
    )
    if form == "gauss_newton":
        return gauss_newton(moved, here, towards).mean()
    each = _FORMS[form](moved, here, labels, towards)
    if form == "loss_difference":
        return each
    return jnp.mean(share * (each**2 if form != options.form else each))


def input_gradient(logits_fn, images, labels) -> jax.Array:
    """[B, H, W, ch], of each image's own cross entropy."""
    return jax.grad(lambda x: _cross_entropy(logits_fn(x), labels).sum())(images)


def direction(
    gradient: jax.Array, length, *, kind: str = "gradient", literal: bool = False
) -> jax.Array:
    """Where the loss rises, image by image; not differentiated.

        z = h g / ||g||,  or with g + 1e-7 and ||g|| + 1e-7 in the released code

    An image whose gradient vanishes stays where it is. The literal form moves it by
    (1e-7, 1e-7, ...) / 1e-7 times h instead, 388 h at 224 pixels.

    Args:
      gradient: [B, H, W, ch], g.
      length: h, in the units of the images.
      kind: "gradient", or "sign" for its sign in place of g.
      literal: the released code's constants.

    Returns:
      [B, H, W, ch], z.
    """
    gradient = jax.lax.stop_gradient(gradient)
    if kind == "sign":
        gradient = jnp.sign(gradient)
    norms = jnp.sqrt(jnp.sum(gradient**2, (1, 2, 3), keepdims=True))
    if literal:
        return length * (gradient + _OFFSET) / (norms + _OFFSET)
    return length * gradient / jnp.maximum(norms, _LEAST)


def loss_difference(logits_fn, images, labels, z) -> jax.Array:
    """How much the mean loss rises along a step; the released code's at 224 pixels.

        | L(x + z) - L(x) |

    To second order h ||g|| + h^2/2 g^T H g / ||g||^2: first of all a penalty on the
    slope, and with a weight b the loss (1 - b) L(x) + b L(x + z) of adversarial
    training with one step. The absolute value is of the difference of the batches'
    means, a scalar, as in the released code. Costs 3.3 plain steps.

    Args:
      logits_fn: see `curvature`; in the units of z.
      images: [B, H, W, ch], x.
      labels: [B] integers.
      z: [B, H, W, ch], see `direction`.

    Returns:
      Scalar, nats.
    """
    rise = _cross_entropy(logits_fn(images + z), labels) - _cross_entropy(
        logits_fn(images), labels
    )
    return jnp.abs(rise.mean())


def gradient_difference(logits_fn, images, labels, z) -> jax.Array:
    """How much the gradient turns along a step: CURE's, and the code's for CIFAR.

        || grad l(x + z) - grad l(x) ||

    The norm is not squared (CURE's text and GUARD's square it: the form
    "gradient_difference_squared"). Costs 5.4 plain steps: gradients of gradients.

    Args:
      logits_fn: see `curvature`; in the units of z.
      images: [B, H, W, ch], x.
      labels: [B] integers.
      z: [B, H, W, ch], see `direction`.

    Returns:
      [B], nats per unit.
    """
    change = input_gradient(logits_fn, images + z, labels) - input_gradient(
        logits_fn, images, labels
    )
    return _norms(change)


def hessian_norm(logits_fn, images, labels, v) -> jax.Array:
    """What `gradient_difference` tends to for a short step, divided by its length.

        || H v ||,  by a forward derivative of the gradient

    On a network of ReLUs H is that of the softmax alone. Costs 4.3 plain steps.

    Args:
      logits_fn: see `curvature`; in the units of v.
      images: [B, H, W, ch], x.
      labels: [B] integers.
      v: [B, H, W, ch], of length 1.

    Returns:
      [B], nats per unit squared.
    """
    return _norms(
        jax.jvp(lambda x: input_gradient(logits_fn, x, labels), (images,), (v,))[1]
    )


def gauss_newton(logits_fn, images, v) -> jax.Array:
    """Curvature along v of the loss, the network taken as linear.

        v^T J^T (diag p - p p^T) J v = Var_{k ~ p} (J v)_k,  p = softmax

    by one forward derivative; on a network of ReLUs it is v^T H v. Not negative, and
    independent of the labels. Costs 3.2 plain steps.

    Args:
      logits_fn: see `curvature`; in the units of v.
      images: [B, H, W, ch], x.
      v: [B, H, W, ch], of length 1.

    Returns:
      [B], nats per unit squared.
    """
    logits, change = jax.jvp(logits_fn, (images,), (v,))
    logits, change = _precise(logits), _precise(change)
    p = jax.nn.softmax(logits)
    mean = jnp.sum(p * change, 1, keepdims=True)
    return jnp.sum(p * (change - mean) ** 2, 1)


def gradient_norm(logits_fn, images, labels) -> jax.Array:
    """The slope, || grad l(x) ||: no curvature, but what one compares it with.

    The released code offers it as `--gr`, there made of numbers cut off from the
    weights: that adds a constant to the loss and trains nothing. This one trains, at
    about 3 plain steps.

    Args:
      logits_fn: see `curvature`.
      images: [B, H, W, ch].
      labels: [B] integers.

    Returns:
      [B], nats per unit.
    """
    return _norms(input_gradient(logits_fn, images, labels))


_FORMS = {
    "loss_difference": loss_difference,
    "gradient_difference": gradient_difference,
    "hessian_norm": hessian_norm,
}


def _norms(x):
    return safe_norm(x.reshape(len(x), -1), axis=1)


def _precise(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(_precise(logits), labels)

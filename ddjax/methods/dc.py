"""DC: match the gradients of a network that learns from the synthetic images.

Reference: B. Zhao, K. R. Mopuri and H. Bilen, "Dataset Condensation with Gradient
Matching", ICLR 2021, https://arxiv.org/abs/2006.05929.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax import losses, matching, parallel
from ddjax.data import batches
from ddjax.data import dsa as siamese
from ddjax.methods import base
from ddjax.models import Network

__all__ = ["State", "method"]

# (images per class, outer steps, epochs of the network between them), of DC's code.
_LOOPS = (
    (1, 1, 1),
    (10, 10, 50),
    (20, 20, 25),
    (30, 30, 20),
    (40, 40, 15),
    (50, 50, 10),
)
_TOGETHER = 10  # classes side by side on an accelerator; one by one on a CPU
_SETTLED = 16  # real images of each class that BatchNorm's statistics are from


class State(NamedTuple):
    """Images, and the network that learns from them."""

    moving: base.ImagesState
    variables: Any  # of the network

    @property
    def images(self) -> jax.Array:
        return self.moving.images


def loops(ipc: int) -> tuple[int, int]:
    """Outer steps of an iteration and epochs between them, as DC's code has them.

    It names 1, 10, 20, 30, 40 and 50 images per class; ours between these is the row
    below.

    >>> loops(1), loops(10), loops(25), loops(100)
    ((1, 1), (10, 50), (20, 25), (50, 10))
    """
    return next(row[1:] for row in reversed(_LOOPS) if row[0] <= ipc)


def method(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    real_batch: int = 256,
    dsa: str = "",
    outer: int | None = None,
    inner: int | None = None,
    net_rate: float = 0.01,
    net_batch: int = 256,
    curvature_weight: float = 0.0,
    curvature_form: str = "loss_difference",
    curvature_h: float = 0.7,
) -> base.Method:
    """The distance between a network's gradients on real and on synthetic images.

        L = sum_k D( grad CE(x_k), grad CE(s_k) )

    One step is one outer step of the reference: the images move once, then the network
    learns from them for `inner` epochs, but after the last; every `outer` steps there
    is a new network. So 1,000 iterations are 1,000 `outer` steps. All classes must be
    in one chunk (layout "whole"): the network learns from all.

    Args:
      network: that is drawn anew; the reference has a ConvNet-3 with InstanceNorm.
      optimizer: of the pixels; the reference has SGD at 0.1 with momentum 0.5.
      real_batch: real images of each class in a step.
      dsa: operators of the augmentation, of both batches and of what the network learns
        from; "" for none.
      outer: steps with one network; None for the reference's by images per class.
      inner: epochs of the network after a step; None for the reference's.
      net_rate: of its SGD, without momentum.
      net_batch: images of its batches.
      curvature_weight: of GUARD's penalty on the real side: the synthetic gradient is
        matched to that of the real loss and its curvature. Its authors combine them so
        and have released no code: our reading.
      curvature_form: see `losses.Curvature`.
      curvature_h: length of its step, pixels of [0, 1].

    Raises:
      ValueError: an unknown operator; numbers below 1; see `losses.Curvature.check`.
    """
    if dsa:
        siamese.parse(dsa)
    if min(real_batch, outer or 1, net_batch) < 1 or (inner or 0) < 0:
        raise ValueError(
            f"real_batch {real_batch}, outer {outer} and net_batch {net_batch} must be "
            f"at least 1, and inner {inner} not negative."
        )
    bent = losses.Curvature(
        curvature_form, curvature_weight, curvature_h, units="pixels"
    )
    bent.check()
    cross_entropy = functools.partial(_cross_entropy, network)
    real_loss = functools.partial(_real_loss, network, bent)

    def init(key, context, targets):
        del context
        images = jnp.array(targets.images, copy=True)
        moving = base.ImagesState(images, optimizer.init(images), jnp.int32(0))
        return State(moving, network.init(key))

    def step(key, state: State, context, targets, batch):
        del context
        key_network, key_views, key_inner = jax.random.split(key, 3)
        steps, epochs = loops(len(targets.labels) // len(targets.classes))
        steps, epochs = outer or steps, epochs if inner is None else inner
        place = state.moving.count % steps
        variables = jax.tree.map(
            lambda new, old: jnp.where(place == 0, new, old),
            network.init(key_network),
            state.variables,
        )
        variables = _settled(network, variables, batch)
        params = variables["params"]

        def distance(images):
            own = base.split_classes(images, targets)
            real, own = matching.siamese(key_views, dsa, network, batch.images, own)

            def of_class(data):
                label, real, weights, own = data
                goal = jax.grad(real_loss)(params, variables, real, label, weights)
                ours = jax.grad(cross_entropy)(params, variables, own, label)
                return losses.gradient_distance(jax.lax.stop_gradient(goal), ours)

            classes = targets.classes, real, batch.weights, own
            together = None if parallel.is_cpu() else _TOGETHER
            return jnp.sum(jax.lax.map(of_class, classes, batch_size=together))

        value, gradient = jax.value_and_grad(distance)(state.images)
        metrics = {"loss": value, "distance": value}
        metrics["pixels/outside"] = base.outside(state.images)
        moving = base.move(state.moving, gradient, optimizer, clip=False)
        if steps > 1 and epochs:
            learn = functools.partial(
                _learn, network, key_inner, dsa, epochs, net_rate, net_batch
            )
            variables = jax.lax.cond(
                place < steps - 1,
                learn,
                lambda variables, *_: variables,
                variables,
                moving.images,
                targets.labels,
            )
        return State(moving, variables), metrics

    def finalize(state: State, context, targets):
        return base.finalize(state.moving, context, targets)

    return base.Method(init, step, finalize, (), real_batch)


def _cross_entropy(network, params, variables, images, label, weights=None):
    """Of images of one class."""
    logits = network.apply({**variables, "params": params}, images)[0]
    labels = jnp.full(len(images), label)
    return losses.cross_entropy(logits, labels, weights)


def _real_loss(network, bent, params, variables, images, label, weights):
    """The same, with GUARD's penalty where it has a weight."""
    value = _cross_entropy(network, params, variables, images, label, weights)
    if not bent.acts:
        return value
    labels = jnp.full(len(images), label)

    def logits_fn(images):
        return network.apply({**variables, "params": params}, images)[0]

    return value + bent.weight * losses.curvature(logits_fn, images, labels, bent)


def _settled(network, variables, batch):
    """The network after BatchNorm's look at real images of all classes.

    Its running statistics go a tenth of the way, at every step of the images: so
    PyTorch's do, and DC's code matches with them frozen.
    """
    if not variables["batch_stats"]:
        return variables
    images = batch.images[:, :_SETTLED]
    images = images.reshape(-1, *images.shape[2:])
    return {**variables, "batch_stats": network.apply_train(variables, images)[1]}


def _learn(network, key, dsa, epochs, rate, batch_size, variables, images, labels):
    """The network after so many epochs of plain SGD on the synthetic images."""
    count = len(labels)
    key_order, key_view = jax.random.split(key)
    mean, std = jnp.array(network.mean), jnp.array(network.std)

    def learn(index, variables):
        rows = batches.indices(key_order, index, count, batch_size)
        weights = _first_time(index, count, len(rows))
        seen = images[rows]
        if dsa:
            height, width = images.shape[1:3]
            drawn = siamese.sample(
                jax.random.fold_in(key_view, index),
                height,
                width,
                dsa,
                count=len(rows),
            )
            seen = siamese.apply(drawn, (seen - mean) / std) * std + mean

        def loss(params):
            logits, batch_stats = network.apply_train(
                {**variables, "params": params}, seen
            )
            return losses.cross_entropy(logits, labels[rows], weights), batch_stats

        gradient, batch_stats = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - rate * g, variables["params"], gradient)
        return {"params": params, "batch_stats": batch_stats}

    steps = epochs * batches.steps_per_epoch(count, batch_size)
    return jax.lax.fori_loop(0, steps, learn, variables)


def _first_time(index, count, size):
    """Weights of a batch: 0 for images that fill up the last one of an epoch."""
    slot = index % batches.steps_per_epoch(count, size)
    return (slot * size + jnp.arange(size) < count).astype(jnp.float32)

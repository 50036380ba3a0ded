"""GeoDM: distribution matching in a product of Euclidean, hyperbolic and spherical space.

Reference: "GeoDM: Geometry-aware Distribution Matching for Dataset Distillation", 2025,
https://arxiv.org/abs/2512.08317. Its method could be read only in parts, and it has no
public code: what follows is our reading. The paper's are the product with a weight and
a learnable curvature for each factor, heads for the curved ones, a matching loss "of
any DM objective", a transport loss in the product, and a curvature regulariser. Ours
are how features become points, how clouds are matched there, who learns the geometry
from what, and every number.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax import matching
from ddjax.data import dsa as siamese
from ddjax.matching import compare, learned
from ddjax.matching.frame import factors_of
from ddjax.matching.product import heads, place
from ddjax.methods import base
from ddjax.models import Network

__all__ = ["State", "method"]


class State(NamedTuple):
    """Images, and the geometry that is learned beside them."""

    moving: base.ImagesState
    learner: learned.Learner

    @property
    def images(self) -> jax.Array:
        return self.moving.images


def method(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int = 0,
    real_batch: int = 256,
    dsa: str = siamese.STRATEGY,
    networks: str = "random",
    factor: int = 1,
    weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    curvatures: Sequence[float] = (1.0, 1.0),
    dims: Sequence[int] = (128, 128),
    scale: float = 1.0,
    unit: str = "spread",
    match: str = "tangent",
    frequencies: int = 1024,
    ot_weight: float = 1.0,
    ot_epsilon: float = 0.05,
    policy: str = "freeze",
    learn_weights: bool = False,
    geometry_rate: float = 1e-3,
    update_every: int = 1,
    pretrain_steps: int = 1000,
    entropy: float = 0.01,
    radius_weight: float = 0.1,
    prior_weight: float = 0.01,
) -> base.Method:
    """DM's step, with features as points of a product space.

        L = sum_k [ sum_m w_m match_m(x_k, s_k) + ot_weight OT(x_k, s_k) ]
            + radius_weight mean relu(|u| / R - 1)^2

    With weights (1, 0, 0) and without transport it is DM, bit for bit; a factor whose
    weight is fixed at 0 is left out of the program.

    Args:
      network: see `methods.dm`.
      optimizer: of the pixels.
      num_steps: length of the run.
      real_batch: real images of each class in a step.
      dsa: operators of the augmentation; "" for none.
      networks: "random" or "pool", see `matching.network_of`. With random networks the
        projections are drawn anew too; with a pool they persist and may be learned.
      factor: parts along one side of an image, see `matching.mosaics`.
      weights: of the Euclidean, hyperbolic and spherical factor.
      curvatures: |curvature| of the hyperbolic and the spherical one, at the start.
      dims: of the hyperbolic and the spherical one.
      scale: typical distance of their points from the origin.
      unit: "spread", each factor is stretched until its classes are as wide as those of
        the features (see `matching.product.stretch`); "absolute", squared distances as
        they are.
      match: "tangent" (means of logarithms at the real mean), "centroid", "energy",
        "characteristic" (NCFM's loss on these logarithms, features of length 1), or
        "covariance" (tangent, and second moments as DSDM).
      frequencies: of "characteristic".
      ot_weight: of the debiased transport, see `losses.product_transport`. In units of
        "spread" its gradient at one image per class is DM's in the Euclidean factor.
      ot_epsilon: strength of its entropy, in units of the mean cost of real points.
      policy: who learns the geometry: "freeze", nobody; "min", it falls with the loss,
        as the paper has it (curvatures of "absolute" units then run to their bound);
        "max", it climbs against the images; "supervised", for the first steps it learns
        to tell the classes of real images apart, while the images stand still.
      learn_weights: whether the weights are learned too.
      geometry_rate: of Adam, on logarithms of curvatures, logits of weights, and heads.
      update_every: steps from one update of the geometry to the next.
      pretrain_steps: of "supervised".
      entropy: bonus for learned weights that stay apart from 0 and 1.
      radius_weight: of what reaches beyond the radius where points are clipped.
      prior_weight: of the squared distance of log |curvature| from its start.

    Raises:
      ValueError: a word that is not known, or numbers that are no geometry.
    """
    requires = matching.check_source(networks)
    if dsa:
        siamese.parse(dsa)
    if real_batch < 2:
        raise ValueError(f"real_batch must be at least 2; got {real_batch}.")
    factors, shares, sizes = factors_of(weights, curvatures, dims, scale)
    options = compare.Comparison(
        factors,
        None if learn_weights else shares,
        unit,
        match,
        frequencies,
        ot_weight,
        ot_epsilon,
        radius_weight,
    )
    who = learned.Policy(
        policy,
        learn_weights,
        geometry_rate,
        update_every,
        pretrain_steps,
        entropy,
        prior_weight,
        sizes,
    )
    options.check()
    who.check()
    if policy == "supervised" and num_steps <= pretrain_steps:
        raise ValueError(
            f"images stand still for {pretrain_steps} steps (pretrain_steps) and there "
            f"are {num_steps}: raise num_steps."
        )
    persist = networks == "pool" and bool(factors.dims)

    def init(key, context, targets):
        del context
        kept = heads(key, factors, _width(network, targets)) if persist else ()
        images = jnp.array(targets.images, copy=True)
        moving = base.ImagesState(images, optimizer.init(images), jnp.int32(0))
        return State(moving, learned.start(who, shares, kept))

    def step(key, state: State, context, targets, batch):
        key_network, key_views = jax.random.split(key)  # as in DM
        key_heads, key_drawn = (jax.random.fold_in(key, i) for i in (2, 3))
        variables = matching.network_of(key_network, network, networks, context)

        def see(images):
            parts = matching.mosaics.decode(images, factor)
            synthetic = base.split_classes(parts, targets)
            pair = matching.siamese(key_views, dsa, network, batch.images, synthetic)
            real, own = (matching.embed(network, variables, x) for x in pair)
            return own, real

        own, pull, real = jax.vjp(see, state.images, has_aux=True)
        fresh = () if persist else heads(key_heads, factors, real.shape[-1])

        def terms_of(own, found):
            pair = real, own
            return compare.compare(
                options, key_drawn, fresh, found, pair, batch.weights
            )

        def tell(found):
            product = learned.product_of(factors, found, options.fixed)
            projected = found.heads or fresh
            placed = place(
                factors, projected, product.curvatures, real, real, batch.weights
            )
            return learned.prototype_loss(product, placed, batch.weights)

        found = state.learner.geometry
        if policy == "freeze":  # a slope that nobody reads takes long to compile
            terms_of = functools.partial(terms_of, found=found)
            terms, back, watched = jax.vjp(terms_of, own, has_aux=True)
        else:
            terms, back, watched = jax.vjp(terms_of, own, found, has_aux=True)
        slopes = {
            name: back({k: jnp.float32(k in members) for k in terms})
            for name, members in _groups(terms, policy).items()
        }
        (gradient,) = pull(sum(slope[0] for slope in slopes.values()))
        moving = base.move(state.moving, gradient, optimizer, clip=False)
        still = state.moving._replace(count=moving.count)
        moving = learned.select(who.waits(state.moving.count), still, moving)
        learner = state.learner
        if policy != "freeze":
            pulls = {name: slope[1] for name, slope in slopes.items()}
            learner = learned.learn(who, learner, state.moving.count, pulls, tell)
        metrics = {"loss": base.total(terms), **terms, **watched, **_ratio(slopes)}
        metrics["pixels/outside"] = base.outside(state.images)
        return State(moving, learner), metrics

    def finalize(state: State, context, targets):
        return base.finalize(state.moving, context, targets)

    return base.Method(init, step, finalize, requires, real_batch)


def _width(network, targets) -> int:
    """D of the network's features."""
    variables = jax.eval_shape(network.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *targets.images.shape[1:]), jnp.float32)
    return jax.eval_shape(network.apply, variables, image)[1]["features"].shape[-1]


def _groups(terms, policy) -> dict[str, tuple]:
    """Which terms' slopes are asked for together: each takes time to compile."""
    if policy != "freeze":
        return {name: (name,) for name in terms}
    rest = tuple(name for name in terms if name != "transport")
    apart = {"transport": ("transport",)} if "transport" in terms else {}
    return {"matching": rest} | apart


def _ratio(slopes) -> dict:
    """How strong transport pulls at the features, beside matching."""
    if "transport" not in slopes:
        return {}
    moved, rest = (
        jnp.linalg.norm(slopes[k][0].ravel()) for k in ("transport", "matching")
    )
    return {"ot/gradient_ratio": moved / jnp.maximum(rest, 1e-12)}

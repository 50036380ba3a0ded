"""Curvatures, weights and heads that are learned beside the images.

Minimised together with the images, distances alone would drive every curvature to its
upper bound, for they fall as a space gets rounder, and all weight to the factor that
costs least. So there is a choice of who learns what from which objective.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddjax import geometry
from ddjax.geometry import Product
from ddjax.matching.product import Factors, Points

__all__ = [
    "BOUNDS",
    "POLICIES",
    "Geometry",
    "Learner",
    "Policy",
    "learn",
    "product_of",
    "prototype_loss",
    "select",
    "start",
]

POLICIES = ("freeze", "min", "max", "supervised")
BOUNDS = (0.1, 10.0)  # of |curvature|


class Policy(NamedTuple):
    """Who learns the geometry; numbers and words only."""

    name: str = "freeze"  # one of POLICIES
    weights: bool = False  # whether the weights are learned, beside the curvatures
    learning_rate: float = 1e-3  # of Adam
    update_every: int = 1
    pretrain_steps: int = 1000  # of "supervised"
    entropy: float = 0.01  # bonus for weights that stay apart from 0 and 1
    prior_weight: float = (
        0.01  # of the squared distance of log |curvature| from `prior`
    )
    prior: tuple[float, ...] = ()  # |curvature| at the start

    def check(self) -> None:
        """ValueError for what cannot be."""
        if self.name not in POLICIES:
            known = ", ".join(POLICIES)
            raise ValueError(f"unknown policy {self.name!r}; known: {known}.")
        if self.weights and self.name == "freeze":
            raise ValueError(
                "learn_weights needs a policy that learns: min, max or supervised."
            )
        if self.update_every < 1 or self.pretrain_steps < 1:
            raise ValueError(
                f"update_every {self.update_every} and pretrain_steps "
                f"{self.pretrain_steps} must be at least 1."
            )

    def optimizer(self) -> optax.GradientTransformation:
        """Adam on gradients of norm 1 at most."""
        return optax.chain(
            optax.clip_by_global_norm(1.0), optax.adam(self.learning_rate)
        )

    def waits(self, count: jax.Array) -> jax.Array:
        """Whether the images stand still at this step."""
        return (self.name == "supervised") & (count < self.pretrain_steps)


class Geometry(NamedTuple):
    """What is learned."""

    log_sizes: jax.Array  # [c], logarithms of the curved factors' |curvature|
    logits: jax.Array  # [k], whose softmax are the weights
    heads: tuple[jax.Array, ...]  # projections that persist; () where drawn anew


class Learner(NamedTuple):
    """A geometry, and the state of its optimiser."""

    geometry: Geometry
    opt_state: Any


def start(policy: Policy, weights, heads=()) -> Learner:
    """A geometry of given curvatures (the policy's prior) and weights.

    Args:
      policy: see `Policy`.
      weights: of all factors, positive.
      heads: projections, or ().
    """
    sizes, weights = (jnp.array(x, jnp.float32) for x in (policy.prior, weights))
    found = Geometry(jnp.log(sizes), jnp.log(weights), tuple(heads))
    return Learner(found, policy.optimizer().init(found))


def product_of(factors: Factors, found: Geometry, fixed=None) -> Product:
    """The product space of a geometry; with fixed weights [k], where there are some."""
    weights = tuple(jax.nn.softmax(found.logits)) if fixed is None else fixed
    return Product(factors.curvatures(jnp.exp(found.log_sizes)), weights)


def prototype_loss(product: Product, points: Points, weights: jax.Array) -> jax.Array:
    """Cross entropy of classifying real points by the mean of a class that is nearest.

    The means are those of every other point of the batch; the rest are classified, by
    a softmax of negative squared distances in units of their mean.

    Args:
      product: the space.
      points: real, [q, n, d_m] with n of 2 or more.
      weights: [q, n].

    Returns:
      Scalar, nats; weighted by `weights`.
    """
    known, asked = weights[:, ::2], weights[:, 1::2]
    masses = known / jnp.maximum(known.sum(1, keepdims=True), 1e-12)
    total = jnp.zeros((asked.size, len(weights)))
    for kappa, weight, x in zip(*product, points.parts):
        means = jax.vmap(geometry.centroid, (0, None, 0))(x[:, ::2], kappa, masses)
        rest = x[:, 1::2].reshape(-1, x.shape[-1])
        total += weight * geometry.pairwise_squared(rest, means, kappa)
    logits = -total / jax.lax.stop_gradient(total.mean() + 1e-12)
    scores = jax.nn.log_softmax(logits).reshape(*asked.shape, len(weights))
    own = jnp.einsum("qnq->qn", scores)
    return -jnp.sum(asked * own) / jnp.maximum(asked.sum(), 1e-12)


def learn(
    policy: Policy,
    learner: Learner,
    count: jax.Array,
    slopes: dict[str, Geometry],
    tell=None,
) -> Learner:
    """The geometry after a step.

    Args:
      policy: who learns.
      learner: before the step.
      count: steps made.
      slopes: gradient of each term of the images' loss in the geometry. "max" climbs
        all but "radius", which is no objective but a bound.
      tell: `geometry -> scalar`, what "supervised" minimises.
    """
    found = learner.geometry
    if policy.name == "supervised":
        slopes = {"told": jax.grad(tell)(found)}
    signs = [-1 if policy.name == "max" and name != "radius" else 1 for name in slopes]
    slope = jax.tree.map(
        lambda *parts: sum(s * x for s, x in zip(signs, parts)), *slopes.values()
    )
    slope = jax.tree.map(jnp.add, slope, jax.grad(_held)(found, policy))
    if not policy.weights:
        slope = slope._replace(logits=jnp.zeros_like(slope.logits))
    updates, opt_state = policy.optimizer().update(slope, learner.opt_state, found)
    moved = optax.apply_updates(found, updates)
    low, high = (math.log(x) for x in BOUNDS)
    moved = moved._replace(log_sizes=jnp.clip(moved.log_sizes, low, high))
    due = count % policy.update_every == 0
    if policy.name == "supervised":
        due &= policy.waits(count)
    return select(due, Learner(moved, opt_state), learner)


def select(condition, yes, no):
    """One of two trees, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _held(found: Geometry, policy: Policy):
    """What keeps curvatures near their start, and weights apart from 0 and 1."""
    apart = jnp.sum((found.log_sizes - jnp.log(jnp.array(policy.prior))) ** 2)
    mixed = -jnp.sum(jax.nn.softmax(found.logits) * jax.nn.log_softmax(found.logits))
    return policy.prior_weight * apart - policy.entropy * mixed * policy.weights

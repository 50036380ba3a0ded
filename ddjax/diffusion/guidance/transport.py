"""Transport guidance: what is sampled so far of a class, towards its real latents."""

import jax
import jax.numpy as jnp

from ddjax import ot
from ddjax.diffusion.guidance.presets import PRESETS, Options

__all__ = ["PRESETS", "Options", "row", "target", "value_and_gradient"]


def target(
    key: jax.Array, real: jax.Array, options: Options
) -> tuple[jax.Array, jax.Array]:
    """The weighted points that stand for the real latents of one class.

    All of them with equal masses; or, with `clusters`, the centroids of k-means with
    the masses of their cells. On the sphere, latents are projected before they are
    clustered, and the centroids, which lie inside, once more.

    Args:
      key: of k-means; consumed.
      real: [m, d], latents, flattened.
      options: numbers only.

    Returns:
      Points [m or clusters, d] and their masses, sum 1. Fewer latents than clusters
      stay as they are.

    Raises:
      ValueError: see `Options.check`.
    """
    options.check()
    points = _placed(real, options)
    if not 0 < options.clusters < len(real):
        return points, jnp.full(len(points), 1 / len(points), points.dtype)
    found = ot.barycenter(
        key, points, options.clusters, init="k-means++", weights="voronoi"
    )
    return _placed(found.points, options), found.weights


def row(point: jax.Array, real: jax.Array, options: Options) -> jax.Array:
    """The cost of moving one point to each of the real ones.

        "l1":     C_j = (1 / d) sum_k |x_k - y_jk|
        "sphere": C_j = || x / |x| - y_j ||

    The *mean* of the absolute differences: their sum is in the thousands for latents,
    where exp(-C / 0.1) is 0.

    Args:
      point: [d].
      real: [m, d], as `target` gives them: on the sphere they are there already.
      options: numbers only.

    Returns:
      [m], differentiable in `point`, with derivative 0 at ties.
    """
    if options.cost == "l1":
        return ot.l1(point[None], real)[0] / len(point)
    return ot.euclidean(_placed(point, options)[None], real)[0]


def value_and_gradient(
    u: jax.Array,
    rows: jax.Array,
    count: jax.Array,
    real: jax.Array,
    masses: jax.Array,
    options: Options,
) -> tuple[jax.Array, jax.Array]:
    """How far the finished points and the current one are from the real ones.

        G_W(u) = min_P <C, P> + epsilon KL(P | a b'),   a_i = 1 / n,   P' 1 = b
        grad_u = sum_j P_nj grad_u C_nj                         ("envelope")

    over n points: `count` finished ones and u, the n-th. With the mean l1 cost that is
    sum_j P_nj sign(u - y_j) / d. The envelope theorem makes it the derivative of the
    value at convergence, with epsilon constant. "unrolled" has, in place of G_W,
    <C, P> after exactly `options.iterations` iterations, differentiated through them:
    another gradient, in norm and in direction. Its plan starts at exp(-C / epsilon),
    and makes one half iteration more than SinKD's: then the masses of the rows are
    exact, so the current point moves what it owns.

    Only one row of C depends on u: callers keep the others (see `row`).

    A single point owns all the mass, whatever the plan, and is pulled to the median of
    the class, a blurred image. `options.first` has three ways with that:

      * "keep": so be it (the paper, as far as is known).
      * "skip": no gradient while nothing is finished.
      * "capacity": each point owns 1 / n_max only, from the first on, and takes the
        real mass that suits it best; the rest goes to a row of constant cost. (What
        the constant is does not change the plan.) At n = n_max it is "keep".

    Args:
      u: [d], the current point.
      rows: [n_max, m], costs of finished points in any order, one row for each image
        the class will have; rows from `count` on are not read.
      count: integer scalar below n_max, how many are finished; may be traced.
      real: [m, d], see `target`.
      masses: [m], of the real points, sum 1; 0 for padding.
      options: numbers only.

    Returns:
      The value, in units of the cost (with "capacity" that of what is moved, and the
      entropy of all), and its gradient [d] in these per unit of u. The gradient falls
      as 1 / n, as the mass of a point does.

    Raises:
      ValueError: `count` is known and leaves no row; see `Options.check`.

    Reference: X. Cui, Y. Qin, W. Zhou, H. Li and H. Li, "Optimizing Distributional
      Geometry Alignment with Optimal Transport for Generative Dataset Distillation",
      NeurIPS 2025, https://arxiv.org/abs/2512.00308; Q. Wang et al., "DMGD: Train-Free
      Dataset Distillation with Semantic-Distribution Matching in Diffusion Models",
      CVPR 2026, https://arxiv.org/abs/2605.03877. Neither has its code released whole;
      `PRESETS` says which numbers are ours.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> options = PRESETS["paper"]
      >>> real, masses = jnp.array([[0.0], [1.0]]), jnp.full(2, 0.5)
      >>> rows = jnp.zeros((2, 2)).at[0].set(row(real[0], real, options))
      >>> solve = jax.jit(value_and_gradient, static_argnums=5)
      >>> _, gradient = solve(real[0], rows, 1, real, masses, options)
      >>> round(float(gradient[0]), 2)  # half of it must go to the other point
      -0.25
    """
    options.check()
    _check_room(count, len(rows))
    live, pull = jax.vjp(lambda u: row(u, real, options), u)
    if options.gradient == "envelope":
        found = _solve(live, rows, count, masses, options)
        value, slope = found.objective, found.plan[count]
    else:

        def moved(live):
            return _solve(live, rows, count, masses, options).cost

        value, slope = jax.value_and_grad(moved)(live)
    (gradient,) = pull(slope)
    if options.first == "skip":
        gradient = jnp.where(count > 0, gradient, 0.0)
    return value, gradient


def _solve(live, rows, count, masses, options):
    """The transport of n points, with rows without mass for those to come."""
    index = jnp.arange(len(rows))
    finished, there = index < count, index <= count
    # Rows without mass hold something finite, which is all that matters.
    others = jnp.where(finished[:, None], rows, jax.lax.stop_gradient(live))
    cost = jnp.where((index == count)[:, None], live, others)
    a = there / (count + 1.0)
    # The unit is that of the real pairs, not of the row of constant cost.
    epsilon = options.epsilon * ot.cost_scale(cost, a, masses, options.unit)
    if options.first == "capacity":
        share = (len(rows) - count - 1) / len(rows)
        a = jnp.append(there / len(rows), share)
        cost = jnp.concatenate([cost, jnp.zeros_like(live)[None]])
    how = {"gradient": options.gradient, "max_iterations": options.iterations}
    if options.gradient == "unrolled":  # from P = exp(-C / epsilon): g holds no masses
        how["start"] = -epsilon * jnp.log(jnp.where(masses > 0, masses, 1.0))
    return ot.sinkhorn(
        cost, a, masses, epsilon=epsilon, threshold=options.threshold, **how
    )


def _placed(points, options):
    """Points [..., d] where the cost compares them."""
    if options.cost != "sphere":
        return points
    square = jnp.sum(points * points, -1, keepdims=True)
    return points / jnp.sqrt(jnp.where(square > 0, square, 1.0))


def _check_room(count, size):
    # `int`: what a known number is compared with is traced where other things are.
    if not isinstance(count, jax.core.Tracer) and int(count) >= size:
        raise ValueError(
            f"{count} points are finished and there are rows for {size}: give one row "
            "for each image of the class, the current one included."
        )

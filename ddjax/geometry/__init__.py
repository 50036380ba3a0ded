"""Euclidean, hyperbolic and spherical space as one, and products of them.

A point of the space of curvature kappa is its *normal coordinates* at the origin: the
vector that points to it, as long as it is far. So arrays of any network are points,
and every function is smooth in points and in kappa, which may be traced, learned, of
either sign, and 0.

| function | what |
|---|---|
| `distance_squared`, `distance`, `pairwise_squared` | geodesic distances |
| `log`, `exp` | tangent vectors in an orthonormal frame, and back |
| `log_sums` | weighted sums of these, many at once |
| `centroid`, `frechet_mean` | the extrinsic and the intrinsic mean |
| `clip`, `largest_radius` | keep points where float32 is good |
| `to_ball`, `to_embedded` | stereographic (Poincare) and Lorentz or sphere coordinates |
| `Product`, `product_...` | the same in a weighted product of spaces |

In float32 distances are good to 1e-6 up to sqrt|kappa| rho = 3, for near pairs to 1e-3.

Reference: M. Do Carmo, "Riemannian Geometry", 1992, chapter 8; O. Skopek, O. Ganea and
G. Becigneul, "Mixed-curvature Variational Autoencoders", ICLR 2020,
https://arxiv.org/abs/1911.08411, for the unified trigonometry.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from ddjax import geometry
  >>> x, y = jax.random.normal(jax.random.key(0), (2, 5, 3))
  >>> length = lambda kappa: geometry.distance_squared(x, y, kappa).sum()
  >>> [round(float(length(kappa)), 1) for kappa in (-1.0, 0.0, 0.1)]
  [40.1, 32.6, 31.6]
  >>> bool(jax.grad(length)(0.0) < 0)  # the rounder, the nearer
  True
  >>> space = geometry.Product(jnp.array([0.0, -1.0, 0.5]), jnp.full(3, 1 / 3))
  >>> geometry.product_pairwise_squared(space, (x, x, x), (y, y, y)).shape
  (5, 5)
"""

from ddjax.geometry.charts import from_ball, from_embedded, to_ball, to_embedded
from ddjax.geometry.means import centroid, frechet_mean
from ddjax.geometry.product import (
    Product,
    product_distance_squared,
    product_exp,
    product_log,
    product_mean,
    product_pairwise,
    product_pairwise_squared,
)
from ddjax.geometry.space import (
    clip,
    distance,
    distance_squared,
    exp,
    is_flat,
    largest_radius,
    log,
    log_sums,
    norm,
    pairwise_squared,
)

__all__ = [
    "Product",
    "centroid",
    "clip",
    "distance",
    "distance_squared",
    "exp",
    "frechet_mean",
    "from_ball",
    "from_embedded",
    "is_flat",
    "largest_radius",
    "log",
    "log_sums",
    "norm",
    "pairwise_squared",
    "product_distance_squared",
    "product_exp",
    "product_log",
    "product_mean",
    "product_pairwise",
    "product_pairwise_squared",
    "to_ball",
    "to_embedded",
]

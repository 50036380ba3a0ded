"""A fixed product space, and how a teacher's features become points of it.

For what is not learned: atoms that images are matched to (`methods.wmdd`). They are
made once of all real features, so centre, size and projections are constants of these
features, and not of a batch as in `product.place`. All that comes after (atoms,
nearest images, losses) sees points alone, and the frame with which they were placed.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax import geometry
from ddjax.geometry import Product
from ddjax.matching.learned import BOUNDS
from ddjax.matching.product import SPACES, Factors, heads, within

__all__ = [
    "Frame",
    "Space",
    "costs",
    "embed",
    "factors_of",
    "frame_of",
    "place_all",
    "space_of",
    "tangents",
]

_KEY = 0  # of the projections: sets of one teacher have the same
_ROWS = 1024  # at a time: few shapes, so few programs


class Space(NamedTuple):
    """A product of fixed geometry; numbers only."""

    factors: Factors
    product: Product  # of tuples of numbers

    @property
    def dims(self) -> tuple[int, ...]:
        """Coordinates of each factor; -1 for those of the features themselves."""
        sizes = iter(self.factors.dims)
        names = self.factors.names
        return tuple(-1 if name == "euclidean" else next(sizes) for name in names)

    def width(self, features: int) -> int:
        """Coordinates of a point, for features of such a width."""
        return sum(features if size == -1 else size for size in self.dims)


class Frame(NamedTuple):
    """Constants by which features are placed."""

    centre: jax.Array  # [D], the mean of all real features
    unit: jax.Array  # scalar, a length of 1 in the space, in units of the features
    heads: tuple[jax.Array, ...] = ()  # [D, d] of each curved factor


def factors_of(
    weights: Sequence[float],
    curvatures: Sequence[float],
    dims: Sequence[int],
    scale: float,
) -> tuple[Factors, tuple[float, ...], tuple[float, ...]]:
    """The factors that weigh something, their weights, and their |curvature|.

    Args:
      weights: of the Euclidean, hyperbolic and spherical factor; 0 leaves one out.
      curvatures: |curvature| of the hyperbolic and the spherical one.
      dims: of the hyperbolic and the spherical one.
      scale: typical distance of their points from the origin.

    Raises:
      ValueError: numbers that are no geometry.
    """
    if len(weights) != 3 or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(
            f"weights are {tuple(weights)}; expected three numbers that are not "
            "negative, of the Euclidean, hyperbolic and spherical factor."
        )
    low, high = BOUNDS
    if len(curvatures) != 2 or not all(low <= x <= high for x in curvatures):
        raise ValueError(
            f"curvatures are {tuple(curvatures)}; expected two numbers from {low} to "
            f"{high}, the absolute values of the hyperbolic and spherical factor's."
        )
    if len(dims) != 2 or min(dims) < 1 or scale <= 0:
        raise ValueError(
            f"dims are {tuple(dims)} and scale {scale}; expected two sizes of 1 or "
            "more, of the hyperbolic and spherical factor, and a scale above 0."
        )
    there = [i for i, weight in enumerate(weights) if weight > 0]
    curved = [i - 1 for i in there if i > 0]
    factors = Factors(
        tuple(SPACES[i] for i in there), tuple(dims[i] for i in curved), scale
    )
    shares = tuple(float(weights[i]) for i in there)
    return factors, shares, tuple(float(curvatures[i]) for i in curved)


def space_of(
    weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    curvatures: Sequence[float] = (1.0, 1.0),
    dims: Sequence[int] = (128, 128),
    scale: float = 1.0,
) -> Space:
    """The space of such factors; see `factors_of`."""
    factors, shares, sizes = factors_of(weights, curvatures, dims, scale)
    return Space(factors, Product(factors.curvatures(sizes), shares))


def frame_of(space: Space, features: np.ndarray) -> Frame:
    """How all real features lie, and projections drawn from a constant key.

    A length of 1 is what makes the root of the mean squared distance from the centre
    `scale`, for the curved factors and the Euclidean one alike: the weights of factors
    then mean the same for every teacher. A flat space has no size, and its unit is 1.

    Args:
      space: see `space_of`.
      features: [N, D], of all classes.

    Returns:
      Frame, on the host.
    """
    centre = features.mean(0, dtype=np.float64)
    if not space.factors.curved:
        return Frame(np.float32(centre), np.float32(1))
    # Of the sums of squares, which need no centred copy of all features.
    square = np.einsum("nd,nd->", features, features, dtype=np.float64) / len(features)
    square = max(square - centre @ centre, 1e-12)
    unit = np.sqrt(square) / space.factors.scale
    drawn = heads(jax.random.key(_KEY), space.factors, features.shape[1])
    return Frame(np.float32(centre), np.float32(unit), jax.device_get(drawn))


def embed(space: Space, frame: Frame, features: jax.Array) -> jax.Array:
    """Features [n, D] as points [n, sum_m d_m], the factors one after another."""
    placed = within(
        space.factors,
        frame.heads,
        space.product.curvatures,
        features / frame.unit,
        (features - frame.centre) / frame.unit,
    )
    return jnp.concatenate(placed.parts, -1)


def place_all(
    space: Space | None, features: np.ndarray
) -> tuple[Frame | tuple, np.ndarray]:
    """The frame of all real features, and where they lie.

    Args:
      space: see `space_of`; None for the features as they are, and () for the frame.
      features: [N, D], of all classes.

    Returns:
      (frame, points [N, sum_m d_m]), on the host.
    """
    if space is None:
        return (), features
    frame = frame_of(space, features)
    return frame, _by_rows(functools.partial(_embed, space, frame), features)


def costs(space: Space | None) -> Callable | None:
    """`(atoms, points) -> squared distances [m, n]` on the host, for `recover.nearest`.

    None for None, which is Euclidean space there.
    """
    if space is None:
        return None

    def of(atoms: np.ndarray, points: np.ndarray) -> np.ndarray:
        return _by_rows(functools.partial(_costs, space, atoms), points).T

    return of


def tangents(
    space: Space, frame: Frame, features: jax.Array, atoms: jax.Array
) -> jax.Array:
    """From each image's atom to its features, in units of the features.

    The norm of such a vector is the geodesic distance in the product; in Euclidean
    space of weight 1 it is the difference of the two.

    Args:
      space: see `space_of`.
      frame: see `frame_of`.
      features: [N, D].
      atoms: [N, sum_m d_m], points of the space.

    Returns:
      [N, sum_m d_m].
    """
    points = _split(space, embed(space, frame, features))
    return frame.unit * geometry.product_log(
        space.product, _split(space, atoms), points
    )


def _split(space, points):
    """A point as a tuple of its factors' coordinates; the first takes what is left."""
    sizes = [size for size in space.dims if size != -1]
    left = points.shape[-1] - sum(sizes)
    sizes = [left if size == -1 else size for size in space.dims]
    return jnp.split(points, [int(cut) for cut in np.cumsum(sizes)[:-1]], -1)


@functools.partial(jax.jit, static_argnums=0)
def _embed(space, frame, features):
    return embed(space, frame, features)


@functools.partial(jax.jit, static_argnums=0)
def _costs(space, atoms, points):
    pair = (_split(space, x) for x in (points, atoms))
    return geometry.product_pairwise_squared(space.product, *pair)


def _by_rows(of, x: np.ndarray) -> np.ndarray:
    """A function of rows, so many at a time; the last ones are padded."""
    found = []
    for start in range(0, len(x), _ROWS):
        part = x[start : start + _ROWS]
        padding = np.repeat(part[:1], _ROWS - len(part), 0)
        found.append(np.asarray(of(np.concatenate([part, padding])))[: len(part)])
    return np.concatenate(found)

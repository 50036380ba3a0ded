"""Functions of z = kappa t^2 that are smooth through z = 0.

Circular for z > 0, hyperbolic for z < 0, a power series around 0, where both divide
nothing by nothing. Each derivative is written by the functions themselves, which is
finite everywhere, and much less for a compiler than that of all three pieces.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

__all__ = ["arcsine", "arctangent", "cosine", "sine", "tanh_ratio"]

# (where the series ends, its coefficients, as many of them as float32 can see)
_SINE = 1.0, [(-1) ** n / math.factorial(2 * n + 1) for n in range(11)], 6
_COSINE = 1.0, [(-1) ** n / math.factorial(2 * n) for n in range(11)], 7
_ARCSINE = 0.2, [4**n / (2 * n**2 * math.comb(2 * n, n)) for n in range(1, 23)], 10
_ARCTANGENT = 0.15, [(-1) ** n / (2 * n + 1) for n in range(19)], 9
_TANH = [1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075]


@jax.custom_jvp
def sine(z: jax.Array) -> jax.Array:
    """sin(sqrt z) / sqrt z, or sinh(sqrt -z) / sqrt -z: sn_kappa(t) / t."""
    return _pieces(z, _SINE, lambda t: jnp.sin(t) / t, lambda t: jnp.sinh(t) / t)


@sine.defjvp
def _sine_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    value = sine(z)
    return value, dz * _slope(z, _SINE, lambda z: (cosine(z) - value) / (2 * z))


@jax.custom_jvp
def cosine(z: jax.Array) -> jax.Array:
    """cos(sqrt z), or cosh(sqrt -z)."""
    return _pieces(z, _COSINE, jnp.cos, jnp.cosh)


@cosine.defjvp
def _cosine_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return cosine(z), -dz * sine(z) / 2


def arcsine(z: jax.Array) -> jax.Array:
    """(asin(sqrt z) / sqrt z)^2, or that of asinh; z at most 1.

    The slope is infinite at 1, where two points are antipodes: it is cut off just
    below.
    """
    return _arcsine(jnp.minimum(z, 1 - 2 * jnp.finfo(z.dtype).eps))


@jax.custom_jvp
def _arcsine(z):
    return _pieces(
        z,
        _ARCSINE,
        lambda t: (jnp.arcsin(t) / t) ** 2,
        lambda t: (jnp.arcsinh(t) / t) ** 2,
    )


@_arcsine.defjvp
def _arcsine_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    value = _arcsine(z)

    def slope(z):
        return (jnp.sqrt(value / (1 - z)) - value) / z

    return value, dz * _slope(z, _ARCSINE, slope)


def arctangent(z: jax.Array) -> jax.Array:
    """atan(sqrt z) / sqrt z, or that of atanh; z above -1."""
    return _arctangent(jnp.maximum(z, -1 + 2 * jnp.finfo(z.dtype).eps))


@jax.custom_jvp
def _arctangent(z):
    return _pieces(
        z, _ARCTANGENT, lambda t: jnp.arctan(t) / t, lambda t: jnp.arctanh(t) / t
    )


@_arctangent.defjvp
def _arctangent_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    value = _arctangent(z)
    slope = _slope(z, _ARCTANGENT, lambda z: (1 / (1 + z) - value) / (2 * z))
    return value, dz * slope


def tanh_ratio(square: jax.Array) -> jax.Array:
    """tanh(t) / t of t^2 >= 0."""
    near = square < 0.01
    t = jnp.sqrt(jnp.where(near, 1.0, square))
    series = _polynomial(_TANH, jnp.where(near, square, 0.0))  # which would overflow
    return jnp.where(near, series, jnp.tanh(t) / t)


def _pieces(z, series, circular: Callable, hyperbolic: Callable):
    """Each piece sees only arguments of its own, so that no value is infinite."""
    near, coefficients, single = series
    terms = coefficients if z.dtype == jnp.float64 else coefficients[:single]
    above, below = z > near, z < -near
    middle = _polynomial(terms, jnp.where(above | below, 0.0, z))
    t = jnp.sqrt(jnp.where(above | below, jnp.abs(z), near))
    right, left = circular(jnp.where(above, t, near)), hyperbolic(t)
    return jnp.where(above, right, jnp.where(below, left, middle))


def _slope(z, series, far: Callable):
    """The derivative: of the series near 0, a formula elsewhere."""
    near, coefficients, single = series
    terms = coefficients if z.dtype == jnp.float64 else coefficients[: single + 1]
    inside = jnp.abs(z) <= near
    derived = [n * c for n, c in enumerate(terms)][1:]
    middle = _polynomial(derived, jnp.where(inside, z, 0.0))
    return jnp.where(inside, middle, far(jnp.where(inside, -near, z)))


def _polynomial(coefficients, z):
    total = jnp.zeros_like(z)
    for coefficient in reversed(coefficients):
        total = total * z + coefficient
    return total

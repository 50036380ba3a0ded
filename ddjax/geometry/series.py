"""Functions of z = kappa t^2 that are smooth through z = 0.

Circular for z > 0, hyperbolic for z < 0, a power series around 0, where both divide
nothing by nothing. All derivatives are finite on either side.
"""

import math

import jax
import jax.numpy as jnp

__all__ = ["arcsine", "arctangent", "cosine", "sine", "tanh_ratio"]

_SINE = [(-1) ** n / math.factorial(2 * n + 1) for n in range(9)]
_COSINE = [(-1) ** n / math.factorial(2 * n) for n in range(10)]
_ARCSINE = [4**n / (2 * n**2 * math.comb(2 * n, n)) for n in range(1, 13)]
_ARCTANGENT = [(-1) ** n / (2 * n + 1) for n in range(12)]
_TANH = [1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075]
_SINGLE = 6  # terms that are enough for float32
_NEAR = {"sine": 0.25, "cosine": 0.25, "arcsine": 0.05, "arctangent": 0.04}


def sine(z: jax.Array) -> jax.Array:
    """sin(sqrt z) / sqrt z, or sinh(sqrt -z) / sqrt -z: sn_kappa(t) / t."""
    return _pieces(
        z,
        _NEAR["sine"],
        _SINE,
        lambda t: jnp.sin(t) / t,
        lambda t: jnp.sinh(t) / t,
    )


def cosine(z: jax.Array) -> jax.Array:
    """cos(sqrt z), or cosh(sqrt -z)."""
    return _pieces(z, _NEAR["cosine"], _COSINE, jnp.cos, jnp.cosh)


def arcsine(z: jax.Array) -> jax.Array:
    """(asin(sqrt z) / sqrt z)^2, or that of asinh; z at most 1.

    The slope is infinite at 1, where two points are antipodes: it is cut off just
    below.
    """
    z = jnp.minimum(z, 1 - 2 * jnp.finfo(jnp.result_type(z, jnp.float32)).eps)
    return _pieces(
        z,
        _NEAR["arcsine"],
        _ARCSINE,
        lambda t: (jnp.arcsin(t) / t) ** 2,
        lambda t: (jnp.arcsinh(t) / t) ** 2,
    )


def arctangent(z: jax.Array) -> jax.Array:
    """atan(sqrt z) / sqrt z, or that of atanh; z above -1."""
    z = jnp.maximum(z, -1 + 2 * jnp.finfo(jnp.result_type(z, jnp.float32)).eps)
    return _pieces(
        z,
        _NEAR["arctangent"],
        _ARCTANGENT,
        lambda t: jnp.arctan(t) / t,
        lambda t: jnp.arctanh(t) / t,
    )


def tanh_ratio(square: jax.Array) -> jax.Array:
    """tanh(t) / t of t^2 >= 0."""
    near = square < 0.01
    t = jnp.sqrt(jnp.where(near, 1.0, square))
    return jnp.where(near, _polynomial(_TANH, square), jnp.tanh(t) / t)


def _pieces(z, near, coefficients, circular, hyperbolic):
    """Each piece sees only arguments of its own, so that no slope is infinite."""
    above, below = z > near, z < -near
    series = _polynomial(coefficients, jnp.where(above | below, 0.0, z))
    right = circular(jnp.sqrt(jnp.where(above, z, 0.25)))
    left = hyperbolic(jnp.sqrt(jnp.where(below, -z, 0.25)))
    return jnp.where(above, right, jnp.where(below, left, series))


def _polynomial(coefficients, z):
    # What float32 cannot see would only take time to compile.
    terms = len(coefficients) if z.dtype == jnp.float64 else _SINGLE
    total = jnp.zeros_like(z)
    for coefficient in reversed(coefficients[:terms]):
        total = total * z + coefficient
    return total

"""What a denoiser learns from: the noise, and where it is asked, the variance."""

import math

import jax
import jax.numpy as jnp

from ddjax.diffusion import steps
from ddjax.diffusion.schedule import Schedule

__all__ = ["bound", "dropped", "terms"]


def terms(
    denoise, schedule: Schedule, index: jax.Array, z0: jax.Array, noise: jax.Array
) -> dict[str, jax.Array]:
    """The loss of a batch: mean squared error of the noise, and a bound's term.

    Args:
      denoise: `(z, t) -> (noise, variance)`, see `Generator.denoise`.
      schedule: all steps, not respaced.
      index: [N], of the steps, uniform.
      z0: [N, ...], clean.
      noise: N(0, 1), as z0.

    Returns:
      Scalars, to be summed: "noise", and where there is a variance "bound", which
      teaches the variance alone.

    References: Equation 14 of DDPM, https://arxiv.org/abs/2006.11239; L_hybrid of
      https://arxiv.org/abs/2102.09672, whose weight 0.001 we leave out: DiT's code, of
      loss type MSE, has none.
    """
    z = steps.noised(schedule, index, z0, noise)
    t = jnp.asarray(schedule.timesteps)[index]
    found, variance = denoise(z, t)
    made = {"noise": jnp.mean((found - noise) ** 2)}
    if variance is not None:
        fixed = jax.lax.stop_gradient(found)
        made["bound"] = jnp.mean(bound(schedule, index, z0, z, fixed, variance))
    return made


def bound(
    schedule: Schedule,
    index: jax.Array,
    z0: jax.Array,
    z: jax.Array,
    noise: jax.Array,
    variance: jax.Array,
) -> jax.Array:
    """A step's term of the variational bound, in bits for each number.

    The KL divergence of the network's Gaussian from the posterior; at index 0 the
    negative log likelihood of z0 within 1/255 on both sides, as 8-bit pixels of [-1, 1]
    have it, and as the released code has it of latents too.

    Args:
      schedule: of S steps.
      index: [N], of the steps.
      z0: [N, ...], clean.
      z: as z0, noisy.
      noise: as z0, a network's prediction.
      variance: as z0, a network's; see `steps.log_variance`.

    Returns:
      [N]. Equations 4 to 6 of https://arxiv.org/abs/2102.09672.
    """
    true = steps.posterior_mean(schedule, index, z0, z)
    true_log = steps.log_variance(schedule, index, z, None)
    estimate = steps.clean(schedule, index, z, noise)
    mean = steps.posterior_mean(schedule, index, estimate, z)
    log = steps.log_variance(schedule, index, z, variance)
    apart = (true - mean) ** 2 * jnp.exp(-log)
    divergence = 0.5 * (log - true_log - 1 + jnp.exp(true_log - log) + apart)
    surprise = -_log_likelihood(z0, mean, 0.5 * log)
    first = (index == 0).reshape(-1, *(1,) * (z.ndim - 1))
    found = jnp.where(first, surprise, divergence)
    return found.reshape(len(z), -1).mean(1) / math.log(2)


def dropped(
    key: jax.Array, labels: jax.Array, rate: float, num_classes: int
) -> jax.Array:
    """Labels [N], each the null label `num_classes` with probability `rate`."""
    drop = jax.random.bernoulli(key, rate, labels.shape)
    return jnp.where(drop, num_classes, labels)


def _log_likelihood(x, mean, log_scale):
    """Of 8-bit values of [-1, 1] under a Gaussian that is cut into bins.

    The normal distribution is the approximation of the released code.
    """
    precision = jnp.exp(-log_scale)
    above = _normal_cdf(precision * (x - mean + 1 / 255))
    below = _normal_cdf(precision * (x - mean - 1 / 255))
    inside = jnp.where(x > 0.999, 1 - below, above - below)
    return jnp.log(jnp.maximum(jnp.where(x < -0.999, above, inside), 1e-12))


def _normal_cdf(x):
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

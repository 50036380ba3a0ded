"""One step of a diffusion, forwards or back: pure functions of arrays and a schedule.

Throughout, `z` is [N, ...] (or [...], with a scalar index) of the scale of the clean
latents, `index` counts the kept steps of the schedule, 0 the least noisy; it may be
traced, and be one for all or [N]. Tables are made in float64 and then cast to z's dtype.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.diffusion.schedule import Schedule

__all__ = [
    "classifier_free",
    "clean",
    "ddim_step",
    "ddpm_step",
    "log_variance",
    "noised",
    "posterior_mean",
    "table",
]


def table(values: np.ndarray, index, like: jax.Array) -> jax.Array:
    """Entries of a table at `index`, in shape and dtype to multiply `like` by."""
    found = jnp.asarray(values, jnp.result_type(like))[index]
    return found.reshape(
        found.shape + (1,) * (like.ndim - found.ndim) * (found.ndim > 0)
    )


def noised(schedule: Schedule, index, z: jax.Array, noise: jax.Array) -> jax.Array:
    """What becomes of clean latents: sqrt(alpha_bar) z + sqrt(1 - alpha_bar) noise.

    Args:
      schedule: of S steps.
      index: of the step, scalar or [N].
      z: [N, ...], clean.
      noise: N(0, 1), as z.

    Returns:
      As z. Equation 4 of DDPM, https://arxiv.org/abs/2006.11239.
    """
    signal = table(np.sqrt(schedule.alpha_bar), index, z)
    return signal * z + table(np.sqrt(1 - schedule.alpha_bar), index, z) * noise


def clean(schedule: Schedule, index, z: jax.Array, noise: jax.Array) -> jax.Array:
    """The clean latents that a noise implies, or their mean for the mean noise.

        z0_hat = (z - sqrt(1 - alpha_bar) noise) / sqrt(alpha_bar)

    They are not clipped: latents have no bounds. At the noisiest steps an error of the
    noise is amplified, 71 times at index 45 of 50 steps.

    Args:
      schedule: of S steps.
      index: of the step, scalar or [N].
      z: [N, ...], noisy.
      noise: as z, a network's prediction.

    Returns:
      As z. Equation 15 of DDPM.
    """
    inverse = 1 / schedule.alpha_bar
    signal = table(np.sqrt(inverse), index, z)
    return signal * z - table(np.sqrt(inverse - 1), index, z) * noise


def posterior_mean(schedule: Schedule, index, z0: jax.Array, z: jax.Array) -> jax.Array:
    """Mean of z_{t-1} given clean z_0 and noisy z_t; Equation 7 of DDPM.

        (sqrt(ab_prev) beta z_0 + (1 - ab_prev) sqrt(1 - beta) z_t) / (1 - ab)

    Args:
      schedule: of S steps.
      index: of the step, scalar or [N].
      z0: [N, ...], clean.
      z: as z0, noisy.

    Returns:
      As z0.
    """
    of_clean, of_noisy = schedule.posterior_weights
    return table(of_clean, index, z) * z0 + table(of_noisy, index, z) * z


def log_variance(
    schedule: Schedule, index, z: jax.Array, variance: jax.Array | None
) -> jax.Array:
    """Log variance of z_{t-1}: a network's, or the posterior's.

        w log beta + (1 - w) log posterior variance,   w = (variance + 1) / 2

    Args:
      schedule: of S steps.
      index: of the step, scalar or [N].
      z: gives the shape.
      variance: as z, what a network with a learned range gives, -1 to 1 as a rule;
        None for w = 0 ("fixed small").

    Returns:
      Broadcasts with z. Equation 15 of https://arxiv.org/abs/2102.09672.
    """
    low = table(schedule.posterior_log_variance, index, z)
    if variance is None:
        return low
    share = (variance + 1) / 2
    return share * table(schedule.log_beta, index, z) + (1 - share) * low


def ddpm_step(
    schedule: Schedule,
    index,
    z: jax.Array,
    noise: jax.Array,
    variance: jax.Array | None,
    draw: jax.Array,
) -> jax.Array:
    """An ancestral step from index to index - 1; from index 0 to the clean latents.

        z_prev = posterior mean of (z0_hat, z) + [index > 0] sqrt(variance) draw

    Args:
      schedule: of S steps.
      index: of the step, scalar or [N].
      z: [N, ...].
      noise: as z, a network's prediction.
      variance: as z, or None; see `log_variance`.
      draw: N(0, 1), as z.

    Returns:
      z_prev, as z. Algorithm 2 of DDPM.
    """
    mean = posterior_mean(schedule, index, clean(schedule, index, z, noise), z)
    spread = jnp.exp(0.5 * log_variance(schedule, index, z, variance))
    later = table(np.arange(schedule.num_steps) > 0, index, z)
    return mean + later * spread * draw


def ddim_step(
    schedule: Schedule,
    index,
    z: jax.Array,
    noise: jax.Array,
    draw: jax.Array,
    eta: float = 0.0,
) -> jax.Array:
    """A step of DDIM from index to index - 1; without chance where eta is 0.

        z_prev = sqrt(ab_prev) z0_hat + sqrt(1 - ab_prev - sigma^2) noise + sigma draw,
        sigma^2 = eta^2 * posterior variance

    Args:
      schedule: of S steps.
      index: of the step, scalar or [N].
      z: [N, ...].
      noise: as z, a network's prediction.
      draw: N(0, 1), as z; not read where eta is 0.
      eta: 0 for a deterministic step, 1 for the variance of DDPM's.

    Returns:
      z_prev, as z. J. Song, C. Meng and S. Ermon, "Denoising Diffusion Implicit Models",
      ICLR 2021, https://arxiv.org/abs/2010.02502, Equations 12 and 16.
    """
    variance = eta**2 * schedule.posterior_variance
    rest = np.maximum(1 - schedule.alpha_bar_prev - variance, 0)
    z0 = clean(schedule, index, z, noise)
    moved = table(np.sqrt(schedule.alpha_bar_prev), index, z) * z0
    moved += table(np.sqrt(rest), index, z) * noise
    return moved + table(np.sqrt(variance), index, z) * draw if eta else moved


def classifier_free(
    conditional: jax.Array, null: jax.Array, scale, channels: int | None = None
) -> jax.Array:
    """The noise of classifier-free guidance: null + scale (conditional - null).

    Args:
      conditional: [..., c], the noise predicted for the class.
      null: as conditional, without a class.
      scale: 1 for the class alone, 0 for none, above 1 to exaggerate.
      channels: how many of the c, from the first, are guided; the others are those of
        the class. None for all. DiT's released code guides 3 of 4, a slip that all its
        published numbers have.

    Returns:
      As conditional. J. Ho and T. Salimans, "Classifier-Free Diffusion Guidance",
      https://arxiv.org/abs/2207.12598, Equation 6, with scale = 1 + w.
    """
    guided = null + scale * (conditional - null)
    if channels is None:
        return guided
    acts = np.arange(conditional.shape[-1]) < channels
    return jnp.where(acts, guided, conditional)

"""Images of given classes from noise, and what a network says at one step."""

import jax
import jax.numpy as jnp

from ddjax.diffusion import steps
from ddjax.diffusion.generator import Generator
from ddjax.diffusion.schedule import Schedule

__all__ = ["SAMPLERS", "check_sampler", "predict", "sample"]

SAMPLERS = ("ddpm", "ddim")


def predict(
    generator: Generator,
    variables,
    z: jax.Array,
    t: jax.Array,
    labels: jax.Array,
    *,
    scale: float = 1.0,
    channels: int | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """The noise with classifier-free guidance, by one call on a batch of two N.

    Args:
      generator: see `Generator`.
      variables: of it.
      z: [N, h, w, c].
      t: [N], what the network is told.
      labels: [N], classes.
      scale: of `steps.classifier_free`; 1 asks for the classes alone, N rows.
      channels: how many are guided; None for all.

    Returns:
      noise [N, h, w, c], and the variance of the conditional half, alike or None.
    """
    if scale == 1:
        return generator.denoise(variables, z, t, labels)
    null = jnp.full_like(labels, generator.num_classes)
    twice = [jnp.concatenate([x, x]) for x in (z, t)]
    noise, variance = generator.denoise(
        variables, *twice, jnp.concatenate([labels, null])
    )
    count = len(z)
    guided = steps.classifier_free(noise[:count], noise[count:], scale, channels)
    return guided, None if variance is None else variance[:count]


def sample(
    key: jax.Array,
    generator: Generator,
    variables,
    labels: jax.Array,
    *,
    schedule: Schedule,
    sampler: str = "ddpm",
    scale: float = 1.0,
    channels: int | None = None,
    eta: float = 0.0,
) -> jax.Array:
    """Clean latents of given classes; `generator.decode` makes images of them.

    Row by row independent of the others but for the keys; pure, to be jitted.

    Args:
      key: consumed.
      generator: see `Generator`.
      variables: of it.
      labels: [N], classes.
      schedule: the steps to make, `schedule.respaced` of the one trained with.
      sampler: "ddpm" (`steps.ddpm_step`) or "ddim" (`steps.ddim_step`).
      scale: of classifier-free guidance; 1 for none.
      channels: how many are guided; None for all.
      eta: of DDIM.

    Returns:
      z [N, h, w, c].

    Raises:
      ValueError: another sampler.
    """
    check_sampler(sampler)
    key_start, key_draws = jax.random.split(key)
    shape = (len(labels), *generator.latent_shape)

    def body(z, index):
        t = jnp.full(len(labels), jnp.asarray(schedule.timesteps)[index])
        noise, variance = predict(
            generator, variables, z, t, labels, scale=scale, channels=channels
        )
        draw = jax.random.normal(jax.random.fold_in(key_draws, index), z.shape)
        if sampler == "ddpm":
            return steps.ddpm_step(schedule, index, z, noise, variance, draw), None
        return steps.ddim_step(schedule, index, z, noise, draw, eta), None

    start = jax.random.normal(key_start, shape)
    order = jnp.arange(schedule.num_steps)[::-1]
    return jax.lax.scan(body, start, order)[0]


def check_sampler(name: str) -> None:
    """ValueError for a sampler that there is not."""
    if name not in SAMPLERS:
        known = ", ".join(SAMPLERS)
        raise ValueError(f"unknown sampler {name!r}; known: {known}.")

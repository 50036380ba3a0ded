"""One step back in the making of an image of each class, bent towards a better set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.diffusion import steps
from ddjax.diffusion.generator import Generator
from ddjax.diffusion.guidance import deviation, influence, transport
from ddjax.diffusion.guidance.deviation import IGD
from ddjax.diffusion.guidance.deviation import Options as DeviationOptions
from ddjax.diffusion.guidance.presets import PRESETS, Options
from ddjax.diffusion.guidance.step import WINDOW, normalised, rms, window
from ddjax.diffusion.sampling import check_sampler, predict
from ddjax.diffusion.schedule import Schedule

__all__ = ["Guidance", "Memory", "Sampler", "make_step", "remember"]

_TERMS = ("transport", "deviation", "influence")
_INFLUENCE = 0.0015  # of IGD's code, beside its k


class Sampler(NamedTuple):
    """How images are sampled, guided or not."""

    schedule: Schedule  # the steps that are made
    kind: str = "ddpm"  # or "ddim"
    eta: float = 0.0  # of DDIM
    scale: float = 4.0  # of classifier-free guidance; 1 for none
    channels: int | None = None  # that it acts on; None for all


class Guidance(NamedTuple):
    """Strengths of the terms, where a strength of 0 leaves one out, and their options."""

    transport: float = 0.0  # beta_1
    deviation: float = 0.0  # gamma
    influence: float = 0.0  # k
    window: tuple[float, float] = WINDOW  # alpha_bar, of the steps it acts on
    moved: Options = PRESETS["paper"]
    remembered: DeviationOptions = IGD

    def check(self) -> None:
        """ValueError for what cannot be."""
        self.moved.check()
        self.remembered.check()
        for name in _TERMS:
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(
                    f"the strength of {name} guidance is {getattr(self, name)}; it must "
                    "be 0 (none) or more."
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The terms that act."""
        return tuple(name for name in _TERMS if getattr(self, name))

    @property
    def estimates(self) -> bool:
        """Whether a term is one of the clean estimate, through the network."""
        return bool(self.influence or (self.transport and self.moved.at == "z0"))


class Memory(NamedTuple):
    """What the images in the making are held to, class by class."""

    done: jax.Array  # [q, ipc, d], latents of finished images, flattened
    count: jax.Array  # scalar int, how many are finished
    rows: jax.Array  # [q, ipc, k], costs of moving each of these to the real points
    real: jax.Array  # [q, k, d], real points, see `guidance.transport.target`
    masses: jax.Array  # [q, k], theirs; sum 1
    bank: Any = ()  # [q, E, ...], see `guidance.influence.bank`


def remember(memory: Memory, z: jax.Array, now: jax.Array, guidance: Guidance):
    """The Memory with one more finished image of each class, z [q, h, w, c], if `now`."""
    flat, place = z.reshape(len(z), -1), memory.count

    def entered(table, new):
        return table.at[:, place].set(jnp.where(now, new, table[:, place]))

    if guidance.transport:
        cost = jax.vmap(lambda x, y: transport.row(x, y, guidance.moved))
        rows = entered(memory.rows, cost(flat, memory.real))
        memory = memory._replace(rows=rows)
    return memory._replace(done=entered(memory.done, flat), count=place + now)


def make_step(
    generator: Generator,
    sampler: Sampler,
    guidance: Guidance,
    surrogate: Callable | None = None,
):
    """A step from z_t to z_{t-1} of one image of each class.

        z_{t-1} = s(z_t) - gamma grad G_D(z_t) - |sum| of J' (k c_I + beta c_W)

    s is a whole step of the sampler, its noise included, and all gradients are those at
    z_t. G_W and G_I speak of the clean estimate z0(z_t): c_W and c_I are their
    gradients there, each scaled to a root mean square of 1, and J' takes their weighted
    sum through the network once. What comes out is scaled so that, class by class, a
    term alone moves z by exactly

        rms(move) = w sqrt(1 - alpha_bar) rms(noise),  w = 0.0015 k  or  beta

    (IGD's rule for its own term; ours for G_W, whose gradient falls as 1 / n). Where
    both act, w is the rms of the weighted sum. Outside the window, and where no term
    acts, the step is the sampler's, bit for bit.

    Args:
      generator: see `Generator`.
      sampler: numbers only.
      guidance: numbers only.
      surrogate: `apply` of the network whose gradients G_I compares.

    Returns:
      `step(variables, surrogates, memory, z, labels, index, draw, before)`
      `-> (z_prev, clean, values)`, with z, z_prev, clean (the estimate z0) and draw
      [q, h, w, c], labels [q], index a scalar, and values the mean of each term over
      the classes; outside the window `before`.

    Reference: X. Cui et al., https://arxiv.org/abs/2512.00308; M. Chen et al., IGD,
      https://openreview.net/forum?id=0whx8MhysK. IGD's code takes the two halves of a
      guided batch through its surrogates, and each checkpoint through the networks by
      itself; ours the half with the class, and all terms at once.
    """
    check_sampler(sampler.kind)
    guidance.check()
    schedule = sampler.schedule
    inside = window(schedule, guidance.window)
    terms = _make_terms(generator, guidance, surrogate)

    def estimate(variables, labels, index, z):
        t = jnp.full(len(z), jnp.asarray(schedule.timesteps)[index])
        noise, variance = predict(
            generator,
            variables,
            z,
            t,
            labels,
            scale=sampler.scale,
            channels=sampler.channels,
        )
        return steps.clean(schedule, index, z, noise), (noise, variance)

    def back(index, z, noise, variance, draw):
        if sampler.kind == "ddim":
            return steps.ddim_step(schedule, index, z, noise, draw, sampler.eta)
        return steps.ddpm_step(schedule, index, z, noise, variance, draw)

    def step(variables, surrogates, memory, z, labels, index, draw, before):
        def plain(z):
            clean, (noise, variance) = estimate(variables, labels, index, z)
            return back(index, z, noise, variance, draw), clean, before

        def guided(z):
            def of_z(z):
                return estimate(variables, labels, index, z)

            if guidance.estimates:
                clean, pull, (noise, variance) = jax.vjp(of_z, z, has_aux=True)
            else:
                (clean, (noise, variance)), pull = of_z(z), None
            found = terms(variables, surrogates, memory, z, clean, labels)
            moved = back(index, z, noise, variance, draw)
            alpha_bar = jnp.asarray(schedule.alpha_bar, z.dtype)[index]

            def share(gradient, of_noise):
                sized = jax.vmap(normalised, (0, 0, None, 0))
                return sized(gradient, noise, alpha_bar, of_noise)

            if "deviation" in found:
                moved -= guidance.deviation * found["deviation"].gradient
            if pull is not None:
                through = _weighted(found, guidance)
                moved -= share(pull(through)[0], jax.vmap(rms)(through))
            if "transport" in found and guidance.moved.at != "z0":
                beta = jnp.full(len(z), guidance.transport)
                moved -= share(found["transport"].gradient, beta)
            values = {name: term.value.mean() for name, term in found.items()}
            return moved, clean, values

        if not guidance.names or not inside:
            return plain(z)
        acts = (inside.start <= index) & (index < inside.stop)
        return jax.lax.cond(acts, guided, plain, z)

    return step


class Term(NamedTuple):
    """What one term says of each class."""

    value: jax.Array  # [q]
    gradient: jax.Array  # [q, h, w, c], in z or in the clean estimate


def _make_terms(generator, guidance, surrogate):
    """`(variables, surrogates, memory, z, clean, labels) -> {name: Term}`."""

    def deviate(memory, z):
        def of_class(z, done):
            return deviation.value_and_gradient(
                z, done, memory.count, guidance.remembered
            )

        value, gradient = jax.vmap(of_class)(z.reshape(len(z), -1), memory.done)
        return Term(value, gradient.reshape(z.shape))

    def move(memory, u):
        def of_class(u, rows, real, masses):
            return transport.value_and_gradient(
                u, rows, memory.count, real, masses, guidance.moved
            )

        flat = u.reshape(len(u), -1)
        value, gradient = jax.vmap(of_class)(
            flat, memory.rows, memory.real, memory.masses
        )
        return Term(value, gradient.reshape(u.shape))

    def influenced(variables, surrogates, memory, clean, labels):
        def of_class(image, label, bank):
            return influence.value_and_gradient(
                surrogate, image, label, surrogates, bank
            )

        images, pull = jax.vjp(lambda z: generator.decode(variables, z), clean)
        value, gradient = jax.vmap(of_class)(images, labels, memory.bank)
        return Term(value, pull(gradient)[0])

    def terms(variables, surrogates, memory, z, clean, labels):
        found = {}
        if guidance.transport:
            found["transport"] = move(memory, z if guidance.moved.at == "zt" else clean)
        if guidance.deviation:
            found["deviation"] = deviate(memory, z)
        if guidance.influence:
            found["influence"] = influenced(
                variables, surrogates, memory, clean, labels
            )
        return found

    return terms


def _weighted(found, guidance):
    """The terms of the clean estimate in one direction, of their weights in rms."""
    weights = {"influence": _INFLUENCE * guidance.influence}
    if guidance.moved.at == "z0":
        weights["transport"] = guidance.transport

    def unit(x):
        length = rms(x)
        return x / jnp.where(length > 0, length, 1.0)

    return sum(
        weights[name] * jax.vmap(unit)(term.gradient)
        for name, term in found.items()
        if name in weights
    )

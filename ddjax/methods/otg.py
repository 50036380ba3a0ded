"""OTG: images of a class sampled one after another, each guided by those before it.

References: X. Cui, Y. Qin, W. Zhou, H. Li and H. Li, "Optimizing Distributional Geometry
Alignment with Optimal Transport for Generative Dataset Distillation", NeurIPS 2025,
https://arxiv.org/abs/2512.00308, which could be read in notes only and has no code; its
guidance stands on M. Chen et al., "Influence-Guided Diffusion for Dataset Distillation"
(IGD), ICLR 2025, https://openreview.net/forum?id=0whx8MhysK, whose code could.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddjax.diffusion import Generator, guided
from ddjax.diffusion import schedule as schedules
from ddjax.diffusion.guidance import deviation, influence, transport
from ddjax.diffusion.guidance.step import WINDOW
from ddjax.methods import base
from ddjax.models import Network
from ddjax.types import Context, DistilledSet, Targets

__all__ = ["State", "method"]


class State(NamedTuple):
    """The images that are finished, and the one of each class in the making."""

    memory: guided.Memory
    z: jax.Array  # [q, h, w, c], z_t of the latter
    clean: jax.Array  # [q, h, w, c], the estimate of what it will be
    values: dict  # of the terms, as they were when they last acted
    count: jax.Array  # scalar int32, steps made


def method(
    network: Network,
    *,
    generator: Generator,
    num_steps: int = 50,
    scale: float = 4.0,
    channels: int | None = None,
    sampler: str = "ddpm",
    transport_weight: float = 0.02,
    preset: str = "paper",
    first: str = "",
    at: str = "",
    epsilon: float = 0.0,
    deviation_weight: float = 0.0,
    memory_size: int = deviation.IGD.size,
    influence_weight: float = 0.0,
    window: Sequence[float] = WINDOW,
    real_set: int = 200,
) -> base.Method:
    """Samples from a generator, bent towards sets that stand for their class.

        z_{t-1} = s(z_t) - rho grad G_I(z_t) - gamma grad G_D(z_t) - beta grad G_W(z_t)

    G_W is the entropic transport between the latents of the class that are finished,
    with the one in the making, and real ones; G_D its largest cosine to a finished one;
    G_I how little its gradient in surrogate networks agrees with that of real images.
    `diffusion.guided.make_step` says how each is scaled. With all weights 0 it is the
    plain sampler, and with IGD's numbers (influence 5, deviation 50, transport 0) IGD's.

    All classes of a chunk go together; images of a class, one after another. The noise
    of an image depends on its class, its number there and the step alone: neither
    chunks nor devices matter, nor (but with first="capacity") how many images follow.

    Args:
      network: the surrogate, of which `Context.surrogates` has several epochs; read
        where influence_weight is not 0.
      generator: see `diffusion.Generator`.
      num_steps: of one image, at most those that the generator was trained with.
      scale: of classifier-free guidance, 4 in IGD's code; 1 for none.
      channels: that it acts on: 3 of the 4 in DiT's code, None for all.
      sampler: "ddpm", or "ddim" without noise.
      transport_weight: beta_1: rms of a move, see `guided.make_step`. Ours; the paper's
        is not known.
      preset: "paper", "dmgd" or "sinkd", see `diffusion.guidance.transport.PRESETS`.
      first: in place of the preset's: "keep", "skip" or "capacity".
      at: in place of the preset's: "z0", "zt" or "z0_detached".
      epsilon: in place of the preset's, in its unit; 0 for the preset's.
      deviation_weight: gamma, literal; 50 in IGD's code at 10 images per class, and 120
        beyond.
      memory_size: the last finished images that G_D compares with.
      influence_weight: k; 5 in IGD's code.
      window: alpha_bar of the steps that are guided, from and to. The default is
        IGD's: steps 30 to 45 of 50. Images of few pixels keep less at the same
        alpha_bar, and want it shifted up.
      real_set: real images of each class, drawn once; the classes that have fewer set
        the number for all.

    Raises:
      ValueError: unknown words, or numbers that cannot be.
    """
    moved = _moved(preset, first, at, epsilon)
    guidance = guided.Guidance(
        transport_weight,
        deviation_weight,
        influence_weight,
        tuple(window),
        moved,
        deviation.Options(memory_size),
    )
    steps = schedules.respaced(generator.schedule, num_steps)
    sampling = guided.Sampler(steps, sampler, 0.0, scale, channels)
    apply_fn = network.apply if influence_weight else None
    back = guided.make_step(generator, sampling, guidance, apply_fn)

    def init(key: jax.Array, context: Context, targets: Targets) -> State:
        classes, ipc = len(targets.classes), len(targets.images) // len(targets.classes)
        real = targets.real / jnp.float32(255)

        def of_class(one):
            label, images = one
            z = generator.encode(context.generator, images).reshape(len(images), -1)
            goal = transport.target(jax.random.fold_in(key, label), z, moved)
            if not guidance.influence:
                return *goal, ()
            return *goal, influence.bank(apply_fn, context.surrogates, images, label)

        found, masses, bank = jax.lax.map(of_class, (targets.classes, real))
        memory = guided.Memory(
            jnp.zeros((classes, ipc, found.shape[-1])),
            jnp.int32(0),
            jnp.zeros((classes, ipc, found.shape[1])),
            found,
            masses,
            bank,
        )
        z = jnp.zeros((classes, *generator.latent_shape))
        values = {name: jnp.float32(0) for name in guidance.names}
        return State(memory, z, z, values, jnp.int32(0))

    def step(key, state: State, context: Context, targets: Targets, batch):
        del key, batch  # an image has its own key
        turn, index = state.count // num_steps, num_steps - 1 - state.count % num_steps
        keys = jnp.asarray(targets.keys).reshape(len(targets.classes), -1, 2)[:, turn]
        start, draw = (
            _noise(keys, at, generator.latent_shape) for at in (num_steps, index)
        )
        z = jnp.where(index == num_steps - 1, start, state.z)
        z, clean, values = back(
            context.generator,
            context.surrogates,
            state.memory,
            z,
            targets.classes,
            index,
            draw,
            state.values,
        )
        memory = guided.remember(state.memory, z, index == 0, guidance)
        state = State(memory, z, clean, values, state.count + 1)
        # A sum of terms, and NaN where the latents are: the loop watches it.
        return state, {"loss": base.total(values) + 0 * z.mean(), **values}

    def finalize(state: State, context: Context, targets: Targets) -> DistilledSet:
        classes, ipc = state.memory.done.shape[:2]
        place, shape = jnp.arange(ipc), generator.latent_shape
        done = state.memory.done.reshape(classes, ipc, *shape)
        making = (place == state.memory.count) & (state.count % num_steps > 0)
        z = jnp.where(_wide(making), state.clean[:, None], done)
        images = jax.lax.map(lambda z: generator.decode(context.generator, z), z)
        begun = making | (place < state.memory.count)
        start = targets.images.reshape(images.shape)
        images = jnp.where(_wide(begun), images, start)
        images = jnp.clip(images, 0.0, 1.0).reshape(targets.images.shape)
        return DistilledSet(images, targets.labels, targets.weights)

    requires = ("generator", *(("surrogates",) if guidance.influence else ()))
    return base.Method(init, step, finalize, requires, real_set=real_set, in_turn=True)


def _moved(preset, first, at, epsilon) -> transport.Options:
    """The preset, with what is said beside it."""
    if preset not in transport.PRESETS:
        known = ", ".join(transport.PRESETS)
        raise ValueError(f"unknown preset {preset!r} of OTG; known: {known}.")
    said = {"first": first, "at": at, "epsilon": epsilon}
    options = transport.PRESETS[preset]._replace(**{k: v for k, v in said.items() if v})
    options.check()
    return options


def _noise(keys, index, shape) -> jax.Array:
    """[q, h, w, c], of the keys' data [q, 2] and the step."""

    def draw(data):
        key = jax.random.fold_in(jax.random.wrap_key_data(data), index)
        return jax.random.normal(key, shape)

    return jax.vmap(draw)(keys)


def _wide(mask):
    """[ipc] as it broadcasts with [q, ipc, H, W, ch]."""
    return mask[:, None, None, None]

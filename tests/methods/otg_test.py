"""OTG beside the plain sampler, on a mixture whose score is known, and on digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax import diffusion, methods, recover
from ddjax.diffusion import steps
from ddjax.types import Context

MODES = np.array([[np.cos(a), np.sin(a)] for a in np.arange(8) * np.pi / 4])
SPREAD = 0.05  # of a mode
STEPS = 50


@pytest.fixture(scope="module")
def mixture(tiny_info):
    """A generator of points in the plane: one class, eight modes, its exact score."""
    schedule = diffusion.schedule.linear()
    info = tiny_info._replace(classes=("all",), shape=(1, 1, 2))

    def denoise(variables, z, t, labels):
        del variables, labels
        alpha_bar = jnp.asarray(schedule.alpha_bar, z.dtype)[t][:, None]
        point = z.reshape(len(z), 2)
        var = alpha_bar * SPREAD**2 + 1 - alpha_bar
        away = point[:, None] - jnp.sqrt(alpha_bar)[..., None] * MODES
        share = jax.nn.softmax(-(away**2).sum(-1) / (2 * var), axis=1)
        score = -(share[..., None] * away).sum(1) / var
        return (-jnp.sqrt(1 - alpha_bar) * score).reshape(z.shape), None

    def encode(variables, images):  # pixels of [0, 1] are points of [-2, 2]
        del variables
        return 4 * images - 2

    def decode(variables, z):
        del variables
        return (z + 2) / 4

    generator = diffusion.Generator(
        lambda key: {}, denoise, encode, decode, (1, 1, 2), 1
    )
    return generator, info


def made(mixture, ipc, seed=0, batch_size=100, **options):
    """[ipc, 2], the points of one class."""
    generator, _ = mixture
    options = {"scale": 1.0, "window": (2e-4, 0.5), "real_set": 64, **options}
    method = methods.create(
        "otg",
        None,
        None,
        num_steps=STEPS,
        generator=generator,
        options=tuple(sorted(options.items())),
    )
    rng = np.random.default_rng(seed)
    real = MODES[rng.permutation(64) % 8] + SPREAD * rng.normal(size=(64, 2))
    real = np.rint((real + 2) / 4 * 255).astype(np.uint8).reshape(1, 64, 1, 1, 2)

    def goals(rows):
        return recover.targets(
            rows,
            np.zeros((len(rows), 1, 1, 2), np.float32),
            ipc,
            real=real,
            keys=recover.image_keys(jax.random.key(seed), rows, ipc),
        )

    found = recover.recover(
        jax.random.key(0),
        method,
        Context(generator={}),
        goals,
        recover.chunks(1, ipc, batch_size, "classes"),
        method.length(STEPS, ipc),
    )
    return 4 * found.images.reshape(ipc, 2) - 2


PLAIN = {"transport_weight": 0.0}


def modes_of(points):
    """How many modes have a point near them."""
    distances = np.linalg.norm(points[:, None] - MODES, axis=-1)
    near = distances.min(1) < 6 * SPREAD
    return len(set(distances.argmin(1)[near]))


class TestPlain:
    def test_is_the_sampler_bit_for_bit(self, mixture, optimised):
        generator, _ = mixture
        schedule = diffusion.schedule.respaced(generator.schedule, STEPS)
        data = recover.image_keys(jax.random.key(0), np.arange(2), 2)

        def draw(data, index):
            key = jax.random.fold_in(jax.random.wrap_key_data(data), index)
            return jax.random.normal(key, (1, 1, 1, 2))

        @jax.jit
        def back(z, index, draw):
            t = jnp.full(1, jnp.asarray(schedule.timesteps)[index])
            noise, _ = generator.denoise({}, z, t, None)
            return steps.ddpm_step(schedule, index, z, noise, None, draw)

        points = []
        for image in data:
            z = draw(image, STEPS)
            for index in reversed(range(STEPS)):
                z = back(z, index, draw(image, index))
            points.append(np.clip((z + 2) / 4, 0, 1) * 4 - 2)
        np.testing.assert_array_equal(
            made(mixture, 2, **PLAIN), np.reshape(points, (2, 2))
        )

    def test_an_empty_window_is_the_same(self, mixture):
        plain = made(mixture, 2, **PLAIN)
        np.testing.assert_array_equal(made(mixture, 2, window=(0.99999, 1.0)), plain)

    def test_draws_the_mixture(self, mixture):
        points = made(mixture, 64, **PLAIN)
        assert modes_of(points) == 8
        near = np.linalg.norm(points[:, None] - MODES, axis=-1).min(1)
        assert np.mean(near < 4 * SPREAD) > 0.9


class TestTransport:
    def test_covers_modes_that_plain_sampling_misses(self, mixture):
        """Eight points for eight modes; independent draws find 5.3 of them."""
        guided, plain = (
            [modes_of(made(mixture, 8, seed=s, **options)) for s in range(5)]
            for options in ({"transport_weight": 0.2, "first": "capacity"}, PLAIN)
        )
        assert min(guided) >= 7
        assert max(plain) <= 6

    def test_first_images_do_not_depend_on_how_many_follow(self, mixture):
        few, many = (made(mixture, n, transport_weight=0.3) for n in (2, 5))
        np.testing.assert_allclose(many[:2], few, atol=1e-5)


class TestOptions:
    @pytest.mark.parametrize(
        "options, told",
        [
            ({"preset": "papr"}, "unknown preset 'papr'.*paper"),
            ({"at": "z1"}, "unknown at 'z1'.*z0_detached"),
            ({"sampler": "euler"}, "unknown sampler 'euler'.*ddpm"),
            ({"deviation_weight": -1.0}, "strength of deviation guidance is -1"),
            ({"window": (0.1, 0.01)}, "from 0.1 to 0.01; it needs"),
        ],
    )
    def test_unknown_words_are_refused(self, mixture, options, told):
        with pytest.raises(ValueError, match=told):
            made(mixture, 2, **options)


def test_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="'otg' samples from a generator; none"):
        methods.create("otg", None, None, num_steps=5)


@pytest.fixture(scope="module")
def digits():
    """A generator with weights of no use, a problem of three classes."""
    from ddjax import data

    info = data.load("digits").info
    info = info._replace(classes=info.classes[:3])
    model = {"width": 16, "depth": 1, "heads": 2, "patch": 2}
    generator = diffusion.create(info, model=model)
    variables = generator.init(jax.random.key(0))
    variables = jax.tree.map(
        lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape),
        variables,
    )
    return generator, info, variables


def test_classes_alone_are_what_they_are_together(digits):
    generator, info, variables = digits
    rng, ipc = np.random.default_rng(0), 2
    real = rng.integers(0, 256, (3, 10, *info.shape), dtype=np.uint8)
    method = methods.create(
        "otg",
        None,
        None,
        num_steps=5,
        generator=generator,
        options=(("deviation_weight", 5.0), ("window", (0.0, 1.0))),
    )

    def goals(rows):
        return recover.targets(
            rows,
            np.zeros((len(rows), *info.shape), np.float32),
            ipc,
            real=real[np.unique(rows // ipc)],
            keys=recover.image_keys(jax.random.key(0), rows, ipc),
        )

    run = functools.partial(
        recover.recover,
        jax.random.key(0),
        method,
        Context(generator=variables),
        goals,
    )
    together = run(recover.chunks(3, ipc, 6, "classes"), method.length(5, ipc))
    alone = run(recover.chunks(3, ipc, 2, "classes"), method.length(5, ipc))
    np.testing.assert_allclose(alone.images, together.images, atol=1e-4)
    assert np.ptp(together.images, axis=0).max() > 0.1

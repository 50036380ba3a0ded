"""The autoencoder beside Diffusers' (see make_autoencoder_fixtures.py)."""

import functools
import math
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.models.autoencoder import Autoencoder

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
TORCH = dict(np.load(FIXTURES / "autoencoder.npz"))
CASES = {
    "three": (
        {"widths": (32, 64, 64), "blocks": 1},
        *((2, 16, 24, 3), (2, 4, 6, 4)),
    ),
    "two": (
        {
            "widths": (8, 12),
            "blocks": 1,
            "channels": 2,
            "image_channels": 1,
            "groups": 4,
        },
        *((2, 10, 6, 1), (2, 5, 3, 2)),
    ),
}
PARTS = {"encoder": 34.16, "decoder": 49.49, "quant_conv": 0, "post_quant_conv": 0}


def draw(name, shape):
    """As in make_autoencoder_fixtures.py."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("bias"):
        return 0.3 * values
    if name.endswith("weight") and len(shape) == 1:
        return 1 + 0.3 * values
    if name.endswith("weight"):
        return values / math.sqrt(np.prod(shape[1:]))
    return values


def torch_name(path):
    *modules, last = (part.key for part in path[1:])
    return ".".join([*modules, "bias" if last == "bias" else "weight"])


def torch_shape(path, shape):
    kernel = path[-1].key == "kernel"
    return (shape[-1], shape[-2], *shape[:-2]) if kernel else shape


@functools.cache
def case(name, **options):
    """The network, its variables as PyTorch had them, images and latents."""
    fields, images, z = CASES[name]
    network = Autoencoder(**fields, **options)
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(images))

    def leaf(path, like):
        values = draw(torch_name(path), torch_shape(path, like.shape))
        if path[-1].key == "kernel":
            values = np.moveaxis(values, (1, 0), (-2, -1))
        return jnp.asarray(values, jnp.float32)

    variables = jax.tree.map_with_path(leaf, like)
    images, z = (
        jnp.float32(draw(f"{name} {what}", shape))
        for what, shape in (("images", images), ("z", z))
    )
    return network, variables, images, z


def bound(network, variables, method):
    return lambda x: network.apply(variables, x, method=method)


@functools.cache
def compiled(name, method):
    """(variables, x) -> what the method gives; compiled once."""
    network = case(name)[0]
    return jax.jit(lambda variables, x: network.apply(variables, x, method=method))


@functools.cache
def published():
    init = Autoencoder().init
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def relative(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


class TestOutputs:
    @pytest.mark.parametrize("name", CASES)
    def test_moments_are_diffusers(self, name):
        _, variables, images, _ = case(name)
        mean, logvar = compiled(name, "moments")(variables, images)
        assert relative(mean, TORCH[f"{name}/mean"]) < 1e-5
        assert relative(logvar, TORCH[f"{name}/logvar"]) < 1e-5

    @pytest.mark.parametrize("name", CASES)
    def test_images_are_diffusers(self, name):
        network, variables, _, z = case(name)
        images = compiled(name, "decode")(variables, z * network.scale)
        assert relative(images, TORCH[f"{name}/images"]) < 1e-5

    def test_the_gradient_in_the_latent_is_diffusers(self):
        network, variables, _, z = case("two")
        cotangent = jnp.float32(draw("two images cotangent", (2, 10, 6, 1)))

        @jax.jit
        def gradient(z):
            return jax.vjp(bound(network, variables, "decode"), z)[1](cotangent)[0]

        got = gradient(z * network.scale) * network.scale
        assert relative(got, TORCH["two/images gradient"]) < 1e-4

    def test_the_gradient_in_the_images_is_diffusers(self):
        network, variables, images, _ = case("two", remat=True)
        cotangent = jnp.float32(draw("two moments cotangent", (2, 5, 3, 4)))

        @jax.jit
        def gradient(images):
            pull = jax.vjp(bound(network, variables, "moments"), images)[1]
            return pull(tuple(jnp.split(cotangent, 2, axis=-1)))[0]

        assert relative(gradient(images), TORCH["two/moments gradient"]) < 1e-4


class TestPublished:
    def test_names_and_shapes_are_diffusers(self):
        leaves = jax.tree.leaves_with_path(published())
        ours = {
            f"{torch_name(path)} {' '.join(map(str, torch_shape(path, leaf.shape)))}"
            for path, leaf in leaves
        }
        assert len(leaves) == 248
        assert ours == set(TORCH["published"])

    @pytest.mark.parametrize(("part", "millions"), PARTS.items())
    def test_each_part_has_the_published_number_of_parameters(self, part, millions):
        leaves = jax.tree.leaves(published()["params"][part])
        count = sum(leaf.size for leaf in leaves)
        assert count / 1e6 == pytest.approx(millions, abs=0.005)


class TestScale:
    def test_it_is_stable_diffusions(self):
        assert Autoencoder().scale == 0.18215

    def test_it_multiplies_the_means(self):
        network, variables, images, _ = case("two", scale=0.5)
        z = jax.jit(bound(network, variables, "encode"))(images)
        np.testing.assert_allclose(z, 0.5 * TORCH["two/mean"], atol=1e-5)

    def test_the_drawn_latent_has_the_standard_deviation(self):
        # Of another scale, which decoding takes away again.
        network, variables, images, z = case("two", scale=0.5)
        apply, scale = jax.jit(network.apply), case("two")[0].scale
        for draw in (jnp.zeros_like(z), z):
            made, mean, logvar = apply(variables, images, draw)
            latent = mean + jnp.sqrt(jnp.exp(logvar)) * draw
            wanted = compiled("two", "decode")(variables, scale * latent)
            assert relative(made, wanted) < 1e-5

    def test_the_log_variance_is_clipped(self):
        _, variables, images, _ = case("two")
        layer = variables["params"]["quant_conv"]
        far = layer | {"bias": jnp.array([0.0, 0.0, -99.0, 99.0])}
        params = variables["params"] | {"quant_conv": far}
        logvar = compiled("two", "moments")({"params": params}, images)[1]
        assert (logvar[..., 0] == -30).all() and (logvar[..., 1] == 20).all()


class TestShapes:
    def test_each_width_but_the_last_halves_the_sides(self):
        assert Autoencoder().latent_shape((256, 512, 3)) == (32, 64, 4)
        small = Autoencoder(widths=(32, 64), channels=3)
        assert small.latent_shape((28, 64, 3)) == (14, 32, 3)

    @pytest.mark.parametrize(
        ("options", "shape", "message"),
        [
            ({}, (28, 32, 3), "28x32 pixels are not multiples of 8"),
            (
                {},
                (32, 32, 1),
                "images have 1 channels instead of 3; set image_channels=1",
            ),
            ({"widths": (48,)}, (8, 8, 3), "width 48 is not a multiple of groups 32"),
        ],
    )
    def test_what_does_not_fit_is_named(self, options, shape, message):
        network = Autoencoder(**options)
        with pytest.raises(ValueError, match=message):
            network.check(shape)
        with pytest.raises(ValueError, match=message):
            network.latent_shape(shape)

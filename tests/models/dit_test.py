"""Diffusion transformers beside PyTorch's (see make_dit_fixtures.py)."""

import functools
import math
import pathlib
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddjax.models import dit

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
TORCH = dict(np.load(FIXTURES / "dit.npz"))
SMALL = {"num_classes": 10, "width": 48, "depth": 3, "heads": 4, "patch": 2}
SHAPE = (6, 8, 4)
TIMES = np.array([0, 1, 612, 999])
LABELS = np.array([3, 0, 10, 9])  # 10 is the null label
NULL = 2  # the place of the null label


def draw(name, shape):
    """As in make_dit_fixtures.py."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("bias"):
        return 0.3 * values
    if name.endswith("weight"):
        return values / math.sqrt(np.prod(shape[1:]))
    return values


def inputs():
    z = jnp.asarray(draw("z", (4, *SHAPE)), jnp.float32)
    return z, jnp.asarray(TIMES), jnp.asarray(LABELS)


def shapes(network, *arguments):
    return jax.eval_shape(network.init, jax.random.key(0), *arguments)


def drawn(network, *arguments, prefix=""):
    """Variables with the weights that PyTorch had, whose matrices are [out, in]."""

    def leaf(path, like):
        *modules, last = (part.key for part in path[1:])
        kind = "bias" if last == "bias" else "weight"
        shape = like.shape
        if last == "kernel":
            shape = (shape[-1], shape[-2], *shape[:-2])
        values = draw(prefix + ".".join([*modules, kind]), shape)
        if last == "kernel":
            values = np.moveaxis(values, (1, 0), (-2, -1))
        return jnp.asarray(values, jnp.float32)

    return jax.tree.map_with_path(leaf, shapes(network, *arguments))


@functools.cache
def small(**options):
    network = dit.DiT(**SMALL, **options)
    return network, drawn(network, *inputs())


@functools.cache
def fresh():
    """What one of a single block gives at the start, and its variables."""
    network = dit.DiT(**(SMALL | {"depth": 1}))
    return jax.jit(network.init_with_output)(jax.random.key(0), *inputs())


@functools.cache
def compiled(**options):
    return jax.jit(small(**options)[0].apply)


@functools.cache
def results(**options):
    return compiled(**options)(small(**options)[1], *inputs())


class TestPublished:
    # With the table of positions, which the published files count and ours lack.
    @pytest.mark.parametrize(
        ("size", "millions"), [("S", 33.0), ("B", 130.5), ("L", 458.1), ("XL", 675.13)]
    )
    def test_sizes_have_the_published_number_of_parameters(self, size, millions):
        network = dit.SIZES[size](num_classes=1000, patch=2, learn_sigma=True)
        like = shapes(
            network, jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, int)
        )
        count = sum(leaf.size for leaf in jax.tree.leaves(like)) + 256 * network.width
        assert count / 1e6 == pytest.approx(millions, abs=0.05)

    def test_the_largest_has_as_many_numbers_as_its_published_file(self):
        network = dit.SIZES["XL"](num_classes=1000, patch=2, learn_sigma=True)
        like = shapes(
            network, jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), jnp.zeros(1, int)
        )
        by_hand = 28 * (18 * 1152**2 + 15 * 1152)  # the blocks: matrices and biases
        by_hand += 16 * 1152 + 1152  # patches
        by_hand += 256 * 1152 + 1152 + 1152**2 + 1152 + 1001 * 1152  # time and label
        by_hand += 2 * 1152**2 + 2 * 1152 + 32 * 1152 + 32  # the last layer
        assert sum(leaf.size for leaf in jax.tree.leaves(like)) == by_hand


class TestTables:
    def test_time_embedding_is_torchs(self):
        with jax.enable_x64(True):
            ours = dit.time_embedding(jnp.asarray(TIMES, jnp.float64), 256)
        np.testing.assert_allclose(ours, TORCH["time"], atol=1e-12)

    def test_time_embedding_in_float32_errs_by_the_rounding_of_the_angle(self):
        ours = dit.time_embedding(jnp.asarray(TIMES), 256)
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, TORCH["time"], atol=999 * 2**-23)

    def test_cosines_come_first_and_the_divisor_is_half_the_width(self):
        row = dit.time_embedding(jnp.ones(1), 256)[0]
        assert row[0] == pytest.approx(math.cos(1))
        assert row[128] == pytest.approx(math.sin(1))
        # Were the divisor 127, this would be exactly 1e-4.
        assert row[255] == pytest.approx(10 ** (-4 * 127 / 128), rel=1e-5)

    @pytest.mark.parametrize(
        ("name", "grid", "tokens"),
        [
            ("places_64", (4, 4, 64), slice(None)),
            ("places_1152", (16, 16, 1152), [0, 1, 15, 16, 100, 255]),
            ("places_oblong", (2, 3, 16), slice(None)),
        ],
    )
    def test_positions_are_torchs(self, name, grid, tokens):
        ours = dit.positions(*grid)[tokens]
        np.testing.assert_allclose(ours, TORCH[name], atol=1e-12)

    def test_the_column_comes_before_the_row(self):
        table = dit.positions(2, 3, 8).reshape(2, 3, 8)
        assert (table[0, :, :4] == table[1, :, :4]).all()
        assert (table[:, 0, 4:] == table[:, 2, 4:]).all()
        assert table[0, 1, 0] == pytest.approx(math.sin(1))


class TestOutputs:
    def test_a_block_is_torchs(self):
        block = dit.Block(4, None)
        x, c = (jnp.asarray(draw(*a), jnp.float32) for a in BLOCK_INPUTS)
        variables = drawn(block, x, c, prefix="blocks.0.")
        np.testing.assert_allclose(
            jax.jit(block.apply)(variables, 0.01 * x, c), TORCH["block"], atol=1e-5
        )

    def test_the_noise_is_torchs(self):
        noise, variance = results()
        assert variance is None
        np.testing.assert_allclose(noise, TORCH["out_False"], atol=2e-5)

    def test_noise_and_variance_are_torchs_in_float64(self):
        # In float32 the rounding of the angles of large times costs 2e-5.
        network, variables = small(learn_sigma=True)
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
            z, t = (draw("z", (4, *SHAPE)), TIMES.astype(np.float64))
            noise, variance = jax.jit(network.apply)(wide, z, t, LABELS)
        # The softmax is float32 always, and so are the numbers drawn.
        np.testing.assert_allclose(noise, TORCH["out_True"][..., :4], atol=3e-6)
        np.testing.assert_allclose(variance, TORCH["out_True"][..., 4:], atol=3e-6)

    @pytest.mark.parametrize(
        "options", [{}, {"learn_sigma": True, "remat": True, "scan": True}]
    )
    def test_the_gradient_in_the_latent_is_torchs(self, options):
        network, variables = small(**options)
        z, t, labels = inputs()
        sigma = network.learn_sigma
        noise_cotangent = jnp.float32(draw("cotangent", z.shape))
        other = jnp.float32(draw("variance cotangent", z.shape)) if sigma else None

        @jax.jit
        def gradient(z):
            pull = jax.vjp(lambda z: network.apply(variables, z, t, labels), z)[1]
            return pull((noise_cotangent, other))[0]

        np.testing.assert_allclose(gradient(z), TORCH[f"gradient_{sigma}"], atol=1e-4)

    def test_a_scan_compiles_one_block_for_the_same_variables(self):
        network = dit.DiT(**SMALL, scan=True)
        variables = small()[1]
        like = shapes(network, *inputs())
        chex.assert_trees_all_equal_shapes_and_dtypes(like, variables)
        text = str(jax.make_jaxpr(network.apply)(variables, *inputs()))
        assert text.count("scan[") == 1
        # Seven products of one block, and five outside.
        assert text.count("dot_general[") == 12

    def test_bfloat16_is_close_and_comes_back_as_float32(self):
        exact, rounded = results()[0], results(dtype="bfloat16")[0]
        assert rounded.dtype == jnp.float32
        error = jnp.sqrt(jnp.mean((exact - rounded) ** 2) / jnp.mean(exact**2))
        assert 1e-4 < error < 0.01  # three blocks; a bfloat16 has 8 bits

    def test_only_the_null_label_reads_the_last_row(self):
        _, variables = small()
        table = variables["params"]["y_embedder.embedding_table"]["embedding"]
        before = results()[0]

        def after(rows):
            changed = {"y_embedder.embedding_table": {"embedding": rows}}
            params = variables["params"] | changed
            return compiled()({"params": params}, *inputs())[0]

        moved = np.abs(after(table.at[-1].add(1.0)) - before).max((1, 2, 3)) > 1e-3
        assert moved.tolist() == [n == NULL for n in range(4)]
        moved = np.abs(after(table.at[:-1].add(1.0)) - before).max((1, 2, 3)) > 1e-3
        assert moved.tolist() == [n != NULL for n in range(4)]

    def test_a_label_beyond_the_table_shows(self):
        z, t, _ = inputs()
        out = compiled()(small()[1], z, t, jnp.array([0, 1, 2, 11]))[0]
        assert np.isnan(out[3]).all() and np.isfinite(out[:3]).all()


class TestFresh:
    def test_it_predicts_no_noise(self):
        (noise, _), _ = fresh()
        assert noise.shape == (4, *SHAPE) and not np.any(noise)

    def test_weights_start_as_published(self):
        params = fresh()[1]["params"]
        for name, layer in params.items():
            if name.startswith("final_layer"):
                assert not np.any(layer["kernel"]), name
        block = params["blocks.0"]
        assert not np.any(block["adaLN_modulation.1"]["kernel"])
        for name, fans in {"attn.qkv": 48 * 4, "mlp.fc1": 48 * 5}.items():
            bound = math.sqrt(6 / fans)
            largest = np.abs(block[name]["kernel"]).max()
            assert 0.98 * bound < largest <= bound, name
        bound = math.sqrt(6 / (16 + 48))  # of the patches seen as a matrix
        kernel = np.asarray(params["x_embedder.proj"]["kernel"])
        assert kernel.shape == (2, 2, 4, 48)
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        for name in ("t_embedder.mlp.0", "t_embedder.mlp.2"):
            assert np.std(params[name]["kernel"]) == pytest.approx(0.02, rel=0.05)
        table = params["y_embedder.embedding_table"]["embedding"]
        assert table.shape == (11, 48)
        assert np.std(table) == pytest.approx(0.02, rel=0.1)

    def test_it_has_no_convolution(self):
        network, variables = small()
        text = str(jax.make_jaxpr(network.apply)(variables, *inputs()))
        assert "dot_general" in text and "conv_general" not in text


class TestBadOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"heads": 5}, "width 48 is not a multiple of heads 5"),
            ({"width": 6, "heads": 3}, "not a multiple of 4"),
            ({"patch": 4}, "patch 4 does not divide .* set patch to one of 1, 2"),
            ({"dtype": "float16"}, "unknown dtype 'float16'; known: float32, bfloat16"),
        ],
    )
    def test_they_are_named(self, options, message):
        network = dit.DiT(**(SMALL | options))
        with pytest.raises(ValueError, match=message):
            network.check(SHAPE)
        with pytest.raises(ValueError, match=message):
            shapes(network, *inputs())


BLOCK_INPUTS = (("x", (2, 16, 48)), ("c", (2, 48)))

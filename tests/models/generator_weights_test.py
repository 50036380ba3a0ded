"""Published generators into ours (see make_generator_weight_fixtures.py)."""

import functools
import os
import pathlib
import pickle
import re
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from ddjax import models
from ddjax.models import dit, generator_weights
from ddjax.models.autoencoder import Autoencoder

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
FILES = dict(np.load(FIXTURES / "generator_weights.npz"))
SMALL = {"num_classes": 5, "width": 8, "depth": 2, "heads": 2, "patch": 2}


def drawn(name, shape):
    """As in make_generator_weight_fixtures.py."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return random.standard_normal(shape).astype(np.float32)


def manifest(width, depth, classes):
    """Names and shapes of the published files, by the rule; without the positions."""
    layers = {
        "x_embedder.proj": (width, 4, 2, 2),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
    }
    for index in range(depth):
        layers |= {
            f"blocks.{index}.attn.qkv": (3 * width, width),
            f"blocks.{index}.attn.proj": (width, width),
            f"blocks.{index}.mlp.fc1": (4 * width, width),
            f"blocks.{index}.mlp.fc2": (width, 4 * width),
            f"blocks.{index}.adaLN_modulation.1": (6 * width, width),
        }
    layers["final_layer.linear"] = (32, width)
    layers["final_layer.adaLN_modulation.1"] = (2 * width, width)
    shapes = {"y_embedder.embedding_table.weight": (classes + 1, width)}
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


@functools.cache
def like(**options):
    network = dit.DiT(**(SMALL | {"learn_sigma": True} | options))
    z = jnp.zeros((1, 8, 8, 4))
    given = (jax.random.key(0), z, jnp.zeros(1), jnp.zeros(1, int))
    return jax.eval_shape(network.init, *given)


@functools.cache
def autoencoder():
    network = Autoencoder(widths=(4, 8), blocks=1, groups=2)
    like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))

    def leaf(path, like):
        return jnp.asarray(drawn(jax.tree_util.keystr(path), like.shape))

    return jax.tree.map_with_path(leaf, like)


def torch_entry(path, leaf):
    *modules, last = (part.key for part in path[1:])
    shape = leaf.shape
    if last == "kernel":
        shape = (shape[-1], shape[-2], *shape[:-2])
    return ".".join([*modules, "bias" if last == "bias" else "weight"]), shape


@pytest.fixture
def file(tmp_path):
    """Writes a fixture's bytes, or tensors by name, and gives the path."""

    def write(content):
        path = tmp_path / "generator.pt"
        if isinstance(content, dict):
            safetensors.save_file(content, path)
        else:
            path.write_bytes(FILES[content].tobytes())
        return path

    return write


def numbers():
    """What published.pt holds, but for the positions."""
    return {name: drawn(name, shape) for name, shape in manifest(8, 2, 5).items()}


def check(loaded, wanted):
    """Every leaf has the numbers, exactly."""
    got = models.to_torch(loaded)
    assert got.keys() == wanted.keys()
    for name, array in got.items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)


class TestPublishedTransformer:
    def test_names_and_shapes_of_the_largest_are_those_of_the_file(self):
        wanted = manifest(1152, 28, 1000)
        assert len(wanted) + 1 == 292  # with the positions
        options = {"width": 1152, "depth": 28, "heads": 16, "num_classes": 1000}
        leaves = jax.tree.leaves_with_path(like(**options))
        assert dict(torch_entry(*leaf) for leaf in leaves) == wanted

    def test_a_file_of_its_layout_is_read(self, file):
        # Transposed matrices, square ones among them; biases that share a storage.
        check(generator_weights.load_dit(file("published.pt"), like()), numbers())

    def test_of_a_tuned_file_the_average_is_read_with_its_factors(self, file):
        loaded = generator_weights.load_dit(file("tuned.pt"), like())
        wanted = numbers()

        def factor(name, n):
            return drawn(f"blocks.0.{name}", (n,))

        factors = {
            "attn.qkv": factor("attn.gamma1", 24),
            "attn.proj": factor("attn.gamma2", 8) * factor("gamma1", 8),
            "mlp.fc2": factor("gamma2", 8),
        }
        for layer, values in factors.items():
            wanted[f"blocks.0.{layer}.weight"] *= values[:, None]
            wanted[f"blocks.0.{layer}.bias"] *= values
        got = models.to_torch(loaded)
        assert got.keys() == wanted.keys()
        for name, array in got.items():
            np.testing.assert_allclose(array, wanted[name], rtol=1e-6, err_msg=name)

    def test_factors_are_linear_in_the_network(self, file):
        """The same as to multiply what the layers give (attention, then the gate)."""
        loaded = generator_weights.load_dit(file("tuned.pt"), like())["params"]
        plain = generator_weights.load_dit(file("published.pt"), like())["params"]
        x = drawn("x", (3, 8))

        def linear(params, name, x):
            layer = params["blocks.0"][name]
            return x @ layer["kernel"] + layer["bias"]

        after = drawn("blocks.0.gamma1", 8) * drawn("blocks.0.attn.gamma2", 8)
        np.testing.assert_allclose(
            linear(loaded, "attn.proj", x),
            after * linear(plain, "attn.proj", x),
            rtol=1e-5,
            atol=1e-6,
        )

    def test_a_stranger_in_the_file_is_refused(self, tmp_path):
        class Stranger:
            def __reduce__(self):
                return os.system, ("true",)

        path = tmp_path / "stranger.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"x": Stranger()}, 2))
        with pytest.raises(ValueError, match=r"refused: it names .*system"):
            generator_weights.load_dit(path, like())


class TestDiffusersTransformer:
    def test_noise_and_variance_are_its(self, file):
        variables = generator_weights.load_dit(file("diffusers"), like())
        network = dit.DiT(**SMALL, learn_sigma=True)
        time = jnp.zeros(3)  # where its other frequencies do not matter
        apply = jax.jit(network.apply)
        out = apply(variables, FILES["z"], time, FILES["labels"])
        np.testing.assert_allclose(jnp.concatenate(out, -1), FILES["out"], atol=1e-5)

    @pytest.mark.parametrize(
        "copy",
        [
            "timestep_embedder.linear_1.bias",
            "timestep_embedder.linear_2.weight",
            "class_embedder.embedding_table.weight",
        ],
    )
    def test_copies_that_differ_are_refused(self, file, copy):
        tensors = safetensors.load(FILES["diffusers"].tobytes())
        name = f"transformer_blocks.1.norm1.emb.{copy}"
        tensors[name] = tensors[name] + 1e-3
        with pytest.raises(ValueError, match=rf"{re.escape(name)} differs"):
            generator_weights.load_dit(file(tensors), like())

    def test_a_missing_part_of_the_attention_is_listed(self, file):
        tensors = safetensors.load(FILES["diffusers"].tobytes())
        del tensors["transformer_blocks.1.attn1.to_k.weight"]
        with pytest.raises(ValueError) as caught:
            generator_weights.load_dit(file(tensors), like())
        assert "missing: 1 (blocks.1.attn.qkv.weight)" in str(caught.value)
        assert "extra: 2 (blocks.1.attn.q.weight, blocks.1.attn.v" in str(caught.value)
        assert "generator.pt" in str(caught.value)


class TestWhatDoesNotFit:
    def positions(self, side=4):
        return dit.positions(side, side, 8)[None].astype(np.float32)

    @pytest.mark.parametrize("side", [4, 8])  # of any size: they are not stored
    def test_the_positions_must_be_the_fixed_ones(self, file, side):
        path = file(numbers() | {"pos_embed": self.positions(side)})
        check(generator_weights.load_dit(path, like()), numbers())
        half = self.positions(side).astype(np.float16)
        path = file(numbers() | {"pos_embed": half})
        check(generator_weights.load_dit(path, like()), numbers())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: p[:, ::-1], "up to .* from the fixed sines and cosines"),
            (lambda p: p + 0.01, "up to 0.01 from the fixed"),
            (lambda p: np.full_like(p, np.nan), "up to nan from the fixed"),
            (lambda p: p[:, :12], "has 12 tokens of width 8; expected a square"),
        ],
    )
    def test_other_positions_are_refused(self, file, change, message):
        table = np.ascontiguousarray(change(self.positions()))
        path = file(numbers() | {"pos_embed": table})
        with pytest.raises(ValueError, match=message):
            generator_weights.load_dit(path, like())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_classes": 7}, "labels are 6, .* instead of 8; .* num_classes=5"),
            ({"learn_sigma": False}, "32 outputs instead of 16; .*learn_sigma=True"),
            ({"depth": 1}, r"extra: 10 \(blocks.1.attn.qkv.weight"),
            ({"depth": 3}, r"missing: 10 \(blocks.2."),
            ({"width": 16}, "of another shape: .*instead of"),
        ],
    )
    def test_another_network_is_named(self, file, options, message):
        with pytest.raises(ValueError, match=message):
            generator_weights.load_dit(file("published.pt"), like(**options))

    def test_factors_of_no_layer_are_listed(self, file):
        path = file(numbers() | {"blocks.2.gamma1": np.ones(8, np.float32)})
        with pytest.raises(ValueError, match=r"extra: 1 \(blocks.2.gamma1\)"):
            generator_weights.load_dit(path, like())


class TestAutoencoder:
    @pytest.mark.parametrize("names", ["new", "old", "convolutions"])
    def test_all_names_of_the_attention_are_read(self, file, names):
        variables = autoencoder()
        tensors, moved = {}, 0
        pairs = {"to_q": "query", "to_k": "key", "to_v": "value"}
        pairs["to_out.0"] = "proj_attn"
        for name, array in models.to_torch(variables).items():
            found = re.fullmatch(r"(.*attentions\.0\.)(to_\w+(?:\.0)?)\.(\w+)", name)
            if found and names != "new":
                moved += 1
                start, layer, last = found.groups()
                name = f"{start}{pairs[layer]}.{last}"
                if names == "convolutions" and last == "weight":
                    array = array[..., None, None]
            tensors[name] = array
        assert moved == (0 if names == "new" else 16)
        loaded = generator_weights.load_autoencoder(file(tensors), variables)
        jax.tree.map(np.testing.assert_array_equal, loaded, variables)

    def test_what_is_left_over_is_listed(self, file):
        tensors = models.to_torch(autoencoder())
        tensors["encoder.mid_block.attentions.0.norm.bias"] = np.zeros(8, np.float32)
        del tensors["quant_conv.bias"]
        with pytest.raises(ValueError) as caught:
            generator_weights.load_autoencoder(file(tensors), autoencoder())
        assert "missing: 1 (quant_conv.bias)" in str(caught.value)
        assert "extra: 1 (encoder.mid_block.attentions.0.norm.bias)" in str(
            caught.value
        )

    def test_the_original_names_are_told_apart(self, file):
        tensors = {"encoder.down.0.block.0.norm1.weight": np.ones(4, np.float32)}
        with pytest.raises(ValueError, match="original latent diffusion; expected"):
            generator_weights.load_autoencoder(file(tensors), autoencoder())

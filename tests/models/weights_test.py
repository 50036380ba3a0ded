"""Checkpoints into trees, and what is said where they do not fit."""

import collections
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from ddjax import models
from ddjax.models import norms, weights

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
WEIGHTS = dict(np.load(FIXTURES / "weights.npz"))


class Net(nn.Module):
    """The twin of make_weight_fixtures.py's network."""

    classes: int = 5

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 2), padding="VALID", name="stem.0")(x)
        x, *_ = norms.BatchNorm(name="stem.1")(x, train=False)
        depthwise = nn.Conv(
            *(4, (3, 3)),
            padding="VALID",
            feature_group_count=4,
            use_bias=False,
            name="depthwise",
        )
        x = nn.relu(depthwise(nn.relu(x))).reshape(len(x), -1, 4)
        x = x + self.param("cls_token", nn.initializers.zeros, (1, 1, 4))
        x = nn.LayerNorm(epsilon=1e-6, name="norm")(x)
        x = nn.Dense(6, name="expand")(x).mean(1)
        return nn.Dense(self.classes, name="head")(x)


def init(**options):
    return Net(**options).init(jax.random.key(0), jnp.zeros((1, 8, 9, 3)))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "network.pth"
    path.write_bytes(WEIGHTS["network"].tobytes())
    return path


@pytest.mark.parametrize("like", [init, lambda: jax.eval_shape(init)])
def test_logits_are_torchs(path, like):
    variables = models.load(path, like())
    assert jax.tree.structure(variables) == jax.tree.structure(init())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    logits = Net().apply(variables, WEIGHTS["images"])
    np.testing.assert_allclose(logits, WEIGHTS["logits"], atol=1e-5)


def test_to_torch_is_the_inverse(path):
    arrays = models.to_torch(models.load(path, init()))
    assert set(arrays) == set(WEIGHTS["network_names"])
    read = weights.read(path)
    for name, array in arrays.items():
        assert array.flags.c_contiguous
        # Ours is a linear layer, and a 1x1 convolution in the file.
        wanted = read[name][..., 0, 0] if name == "expand.weight" else read[name]
        np.testing.assert_array_equal(array, wanted, strict=True)


def test_a_round_trip_through_safetensors(tmp_path):
    variables, path = init(), tmp_path / "weights.safetensors"
    safetensors.save_file(models.to_torch(variables), path)
    loaded = models.load(path, variables)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_types_are_the_networks(path):
    like = jax.eval_shape(init)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), like)
    loaded = models.load(path, like)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(loaded))
    again = weights.from_torch(models.to_torch(loaded), like)
    jax.tree.map(np.testing.assert_array_equal, again, loaded)


def test_embeddings_keep_their_axes():
    like = {"params": {"table": {"embedding": jnp.zeros((3, 2))}}}
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    loaded = weights.from_torch({"table.weight": table}, like)
    np.testing.assert_array_equal(loaded["params"]["table"]["embedding"], table)


def test_prefixes_are_stripped_only_from_all(tmp_path):
    def read(*names):
        path = tmp_path / "prefixed.safetensors"
        safetensors.save_file({n: np.ones(1, np.float32) for n in names}, path)
        return set(weights.read(path))

    assert read("module.a", "module.b.c") == {"a", "b.c"}
    assert read("module._orig_mod.a", "n_averaged") == {"a"}
    assert read("_orig_mod.module.a") == {"a"}
    assert read("module.a", "b") == {"module.a", "b"}


# What does not fit --------------------------------------------------------------------


def changed(change):
    arrays = collections.OrderedDict(models.to_torch(init()))
    change(arrays)
    return arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("norm.bias"), r"missing: 1 \(norm.bias\)"),
        (lambda a: a.update(new=np.ones(2)), r"extra: 1 \(new\)"),
        (lambda a: a.clear(), r"missing: 14 \(stem.1.running_mean, .*, \.\.\.\)"),
        (
            lambda a: a.update({"stem.0.weight": np.ones((4, 3, 2, 3))}),
            r"shape: 1 \(stem.0.weight \(4, 3, 2, 3\) instead of \(4, 3, 3, 2\)\)",
        ),
        (
            lambda a: a.update({"head.bias": np.ones(5, np.int8)}),
            r"quantised\?\): 1 \(head.bias\)",
        ),
    ],
)
def test_what_does_not_fit_is_listed(change, message):
    with pytest.raises(ValueError, match=message):
        weights.from_torch(changed(change), init())


def test_another_number_of_classes_is_said(path):
    with pytest.raises(
        ValueError, match=r"has 5 classes instead of 7 .*head"
    ) as caught:
        models.load(path, init(classes=7))
    assert "network.pth" in str(caught.value)


def test_tables_that_follow_from_the_architecture_are_ignored():
    def add(arrays):
        arrays["stem.1.num_batches_tracked"] = np.array(3)
        arrays["layers.0.attn.relative_position_index"] = np.ones((4, 4), int)

    loaded = weights.from_torch(changed(add), init())
    jax.tree.map(np.testing.assert_array_equal, loaded, init())

"""Published weights of diffusion transformers and autoencoders into our networks.

Our leaves have the names of the first publication: Peebles and Xie's for `DiT`, Diffusers'
for `Autoencoder`. Files that name the same tensors otherwise are renamed here, and
`ddjax.models.weights` does the rest.
"""

import math
import re

import numpy as np

from ddjax.models import dit, weights

__all__ = ["load_autoencoder", "load_dit"]

_BLOCK = r"transformer_blocks\.(\d+)\."
# Diffusers' names, up to ".weight" or ".bias". It keeps a copy of the time's and the
# label's layers in every block.
_DIFFUSERS_DIT = {
    r"pos_embed\.proj": "x_embedder.proj",
    _BLOCK + r"norm1\.emb\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    _BLOCK + r"norm1\.emb\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    _BLOCK + r"norm1\.emb\.class_embedder\.embedding_table": (
        "y_embedder.embedding_table"
    ),
    _BLOCK + r"norm1\.linear": r"blocks.\1.adaLN_modulation.1",
    _BLOCK + r"attn1\.to_([qkv])": r"blocks.\1.attn.\2",
    _BLOCK + r"attn1\.to_out\.0": r"blocks.\1.attn.proj",
    _BLOCK + r"ff\.net\.0\.proj": r"blocks.\1.mlp.fc1",
    _BLOCK + r"ff\.net\.2": r"blocks.\1.mlp.fc2",
    r"proj_out_1": "final_layer.adaLN_modulation.1",
    r"proj_out_2": "final_layer.linear",
}
# The factors of DiffFit's fine-tuning, and the linear layer whose outputs each scales.
_FACTORS = {
    r"(blocks\.\d+\.attn)\.gamma1": r"\1.qkv",
    r"(blocks\.\d+\.attn)\.gamma2": r"\1.proj",
    r"(blocks\.\d+)\.gamma1": r"\1.attn.proj",
    r"(blocks\.\d+)\.gamma2": r"\1.mlp.fc2",
}
# The attention's layers as Diffusers first named them, and the files of sd-vae-ft-* do.
_ATTENTION = r"(.*\.mid_block\.attentions\.0)\."
_OLD_AUTOENCODER = {
    _ATTENTION + "query": r"\1.to_q",
    _ATTENTION + "key": r"\1.to_k",
    _ATTENTION + "value": r"\1.to_v",
    _ATTENTION + "proj_attn": r"\1.to_out.0",
}


def load_dit(path, variables_like):
    """Reads a diffusion transformer's checkpoint.

    Args:
      path: a file of `torch.save` or of safetensors, see `ddjax.models.weights.read`: of the
        published code (`DiT-XL-2-256x256.pt`), of Diffusers, or fine-tuned by DiffFit
        as Minimax's are, whose factors are multiplied into the weights (exact). Of several
        sets of weights the running average is taken.
      variables_like: the variables of a `DiT`, or their shapes (`jax.eval_shape` of
        its `init`).

    Returns:
      Variables of the same structure, shapes and types.

    Raises:
      ValueError: the file cannot be read; its table of positions is not
        `dit.positions`; Diffusers' copies differ; or names or shapes do, and then which.

    The weights of Diffusers' files are the published ones, but Diffusers computes other
    frequencies of the time with them; ours are those of the training.
    """
    return _load(path, variables_like, _dit_arrays)


def load_autoencoder(path, variables_like):
    """Reads the checkpoint of an autoencoder with Diffusers' names.

    Args:
      path: as for `load_dit`, such as `diffusion_pytorch_model.safetensors` of
        sd-vae-ft-mse. The attention's layers may have their old names, and may be 1x1
        convolutions. The original latent diffusion's names are not known.
      variables_like: the variables of an `Autoencoder`, or their shapes.

    Returns:
      Variables of the same structure, shapes and types.

    Raises:
      ValueError: the file cannot be read; or names or shapes differ, and then which.
    """
    return _load(path, variables_like, _autoencoder_arrays)


def _load(path, variables_like, renamed):
    arrays = weights.read(path)
    try:
        return weights.from_torch(renamed(arrays, variables_like), variables_like)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _dit_arrays(arrays, variables_like):
    arrays = _packed(_renamed(arrays, _DIFFUSERS_DIT))
    if "pos_embed" in arrays:
        _check_positions(arrays.pop("pos_embed"))
    _check_options(arrays, variables_like["params"])
    return _multiplied(arrays)


def _autoencoder_arrays(arrays, variables_like):
    del variables_like
    if any(name.startswith(("encoder.down.", "first_stage_model.")) for name in arrays):
        raise ValueError(
            "it has the names of the original latent diffusion; expected those of "
            "Diffusers, as in the file diffusion_pytorch_model.safetensors."
        )
    return _renamed(arrays, _OLD_AUTOENCODER)


def _renamed(arrays, table):
    """Arrays by our names; those that get the same name must be the same."""
    renamed = {}
    for name, array in arrays.items():
        ours = _translated(name, table)
        first = renamed.setdefault(ours, array)
        if first is not array and not np.array_equal(first, array):
            raise ValueError(
                f"{name} differs from its copies of the name {ours}: every block should "
                "have the same."
            )
    return renamed


def _translated(name, table):
    layer, dot, last = name.rpartition(".")
    for pattern, ours in table.items():
        if match := re.fullmatch(pattern, layer):
            return match.expand(ours) + dot + last
    return name


def _packed(arrays):
    """Queries, keys and values one below another, as the published code has them."""
    packed = dict(arrays)
    for name in arrays:
        if match := re.fullmatch(r"(blocks\.\d+\.attn\.)q\.(weight|bias)", name):
            start, last = match.groups()
            parts = [f"{start}{part}.{last}" for part in "qkv"]
            if all(part in packed for part in parts):  # or else they are extra
                rows = [packed.pop(part) for part in parts]
                packed[f"{start}qkv.{last}"] = np.concatenate(rows)
    return packed


def _multiplied(arrays):
    """DiffFit's factors, one for each output, in the weights and biases they scale."""
    multiplied = dict(arrays)
    for name in arrays:
        for pattern, ours in _FACTORS.items():
            match = re.fullmatch(pattern, name)
            layer = match and match.expand(ours)
            if layer and f"{layer}.weight" in arrays and f"{layer}.bias" in arrays:
                factor = multiplied.pop(name)
                multiplied[f"{layer}.weight"] = (
                    factor[:, None] * multiplied[f"{layer}.weight"]
                )
                multiplied[f"{layer}.bias"] = factor * multiplied[f"{layer}.bias"]
    return multiplied


def _check_positions(table):
    """The file's table [1, T, width] must be ours, which is not stored."""
    table = np.atleast_2d(table)
    tokens, width = table.shape[-2:]
    side = math.isqrt(tokens)
    if side**2 != tokens or width % 4:
        raise ValueError(
            f"its pos_embed has {tokens} tokens of width {width}; expected a square "
            "number of tokens, and a width that is a multiple of 4."
        )
    ours = dit.positions(side, side, width)
    far = np.abs(table.reshape(ours.shape) - ours).max()
    if not far < 2e-3:  # float16's and bfloat16's rounding; what else differs is 1
        raise ValueError(
            f"its pos_embed is up to {far:.2g} from the fixed sines and cosines: it was "
            "trained, or is of another network, and ours has none to hold it."
        )


def _check_options(arrays, params):
    """Clearer errors for the two options that change the rows of one layer only."""
    table = arrays.get("y_embedder.embedding_table.weight", np.empty(0))
    wanted = params["y_embedder.embedding_table"]["embedding"].shape
    if table.shape[1:] == wanted[1:] and table.shape != wanted:
        raise ValueError(
            f"its labels are {len(table)}, the null label included, instead of {wanted[0]}; "
            f"build the network with num_classes={len(table) - 1}."
        )
    last = arrays.get("final_layer.linear.bias", np.empty(0))
    outputs = params["final_layer.linear"]["bias"].shape[0]
    if last.size in (2 * outputs, outputs / 2):
        raise ValueError(
            f"its last layer has {last.size} outputs instead of {outputs}; build the "
            f"network with learn_sigma={last.size > outputs}."
        )

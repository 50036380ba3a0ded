"""Published weights into our networks, and ours into PyTorch's names.

Our networks name their modules so that a leaf's path, joined by dots, is the name of
the tensor in torchvision or timm: {"params": {"layer1.0": {"conv1": {"kernel": ...}}}}
is "layer1.0.conv1.weight". What differs is the last part of the name and the order of
the axes, and both are said here once, for all networks.

    ours                     torch           axes
    kernel                   weight          [..., in, out] is [out, in, ...] there
    scale, embedding         weight          the same
    batch_stats mean, var    running_mean, running_var
    anything else            the same name   the same
"""

import jax
import jax.numpy as jnp
import numpy as np

from ddjax.models import torch_file

__all__ = ["from_torch", "load", "read", "to_torch"]

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "embedding"): "weight",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
# Counters, and tables that follow from the architecture.
_DERIVED = {
    "num_batches_tracked",
    "n_averaged",
    "relative_position_index",
    "attn_mask",
}
# What DataParallel, AveragedModel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")


def read(path) -> dict[str, np.ndarray]:
    """Reads the tensors of a checkpoint; no code of the file is run.

    Args:
      path: a file of `torch.save` (of any version since 0.1.10) or of safetensors; its
        contents decide, not its ending. It may hold more than a state dict: the
        first of "ema", "model_ema", "state_dict_ema", "state_dict" and "model" is
        taken, so a running average before the weights that it averages.

    Returns:
      Arrays by PyTorch's names and in PyTorch's layout; bfloat16 as float32. The
      prefixes "module." and "_orig_mod." are gone.

    Raises:
      ValueError: no such file, not a checkpoint, damaged, or holding more than weights.
    """
    try:
        with open(path, "rb") as file:
            safetensors = file.read(9)[8:] == b"{"  # a header follows its length
            file.seek(0)
            arrays = _read_safetensors(path) if safetensors else torch_file.read(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    arrays.pop("n_averaged", None)  # AveragedModel's, which has no prefix
    for prefix in (*_PREFIXES, *_PREFIXES):  # one may be inside the other
        if all(name.startswith(prefix) for name in arrays):
            arrays = {n.removeprefix(prefix): array for n, array in arrays.items()}
    return arrays


def _read_safetensors(path):
    import safetensors  # only such files need it

    try:
        # jax has taught NumPy the name bfloat16, which safe_open looks up.
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.offset_keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from error
    except TypeError as error:  # a type that NumPy lacks
        raise ValueError(f"tensors of an unknown type ({error})") from error
    # NumPy counts the types it was taught as "V".
    return {
        name: array.astype(np.float32) if array.dtype.kind == "V" else array
        for name, array in arrays.items()
    }


def load(path, variables_like):
    """Reads a checkpoint into the tree of a network.

    Args:
      path: see `read`.
      variables_like: the network's variables, or their shapes (`jax.eval_shape` of its
        `init`). Every leaf must be in the file, and every tensor of the file a leaf.

    Returns:
      Variables of the same structure, shapes and types, as arrays of jax.

    Raises:
      ValueError: the file cannot be read; or names or shapes differ, and then which.

    Example:
      >>> import tempfile
      >>> import jax
      >>> from safetensors import numpy as safetensors
      >>> from ddjax import data, models
      >>> network = models.create("convnet", data.load("digits").info, width=4)
      >>> variables = network.init(jax.random.key(0))
      >>> folder = tempfile.TemporaryDirectory()
      >>> path = f"{folder.name}/weights.safetensors"
      >>> safetensors.save_file(models.to_torch(variables), path)
      >>> loaded = models.load(path, jax.eval_shape(network.init, jax.random.key(0)))
      >>> jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), loaded, variables))
      True
      >>> folder.cleanup()
    """
    arrays = read(path)
    try:
        return from_torch(arrays, variables_like)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def from_torch(arrays: dict[str, np.ndarray], variables_like):
    """Arrays by PyTorch's names and in its layout, as variables; see `load`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(variables_like)
    wanted = {_name(path): _torch_shape(path, leaf.shape) for path, leaf in leaves}
    found = {
        name: array
        for name, array in arrays.items()
        if name in wanted or name.rpartition(".")[2] not in _DERIVED
    }
    _check(found, wanted)
    filled = []
    for path, leaf in leaves:
        name = _name(path)
        array = found[name].reshape(wanted[name])
        if _is_kernel(path):
            array = np.moveaxis(array, (0, 1), (-1, -2))
        filled.append(jnp.asarray(array, leaf.dtype))
    return jax.tree_util.tree_unflatten(structure, filled)


def to_torch(variables) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: what `load_state_dict` takes, as NumPy arrays."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        array = np.asarray(leaf)
        if _is_kernel(path):
            array = np.moveaxis(array, (-1, -2), (0, 1))
        # Contiguous: safetensors writes the memory as it lies, whatever the strides.
        arrays[_name(path)] = np.ascontiguousarray(array).reshape(array.shape)
    return arrays


def _name(path):
    """PyTorch's name of a leaf; its path begins with the collection."""
    collection, *modules, leaf = (part.key for part in path)
    return ".".join([*modules, _LEAVES.get((collection, leaf), leaf)])


def _is_kernel(path):
    return path[-1].key == "kernel"


def _torch_shape(path, shape):
    if _is_kernel(path):
        return (shape[-1], shape[-2], *shape[:-2])
    return tuple(shape)


# What does not fit --------------------------------------------------------------------


def _check(found, wanted):
    """Every name and every shape is accounted for, or ValueError lists the others."""
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    common = [name for name in wanted if name in found]
    other = [n for n in common if not _fits(found[n].shape, wanted[n])]
    # jnp: NumPy does not count bfloat16.
    integers = [n for n in common if not jnp.issubdtype(found[n].dtype, jnp.floating)]
    if other and not missing and not extra:
        _check_classes(found, wanted, other)
    texts = [f"{n} {found[n].shape} instead of {wanted[n]}" for n in other]
    parts = {"missing": missing, "extra": extra, "of another shape": texts}
    parts["not of floating point (quantised?)"] = integers
    if any(parts.values()):
        listed = (f"{what}: {_first(names)}" for what, names in parts.items() if names)
        raise ValueError(
            f"its tensors are not those of this network; {'; '.join(listed)}. Is it of "
            "another architecture, or of other options (width, depth, stem)?"
        )


def _check_classes(found, wanted, other):
    """The clearer error where only the last layer has another number of rows."""
    sizes = {(found[n].shape[:1], wanted[n][:1]) for n in other}
    layers = {name.rpartition(".")[0] for name in other}
    if len(sizes) == 1 and len(layers) == 1 and _rest_fits(found, wanted, other):
        (got,), (expected,) = sizes.pop()
        raise ValueError(
            f"it has {got} classes instead of {expected} (its layer {layers.pop()}); "
            f"build the network for data with {got} classes, or train it on yours."
        )


def _rest_fits(found, wanted, other):
    return all(
        found[n].ndim and wanted[n] and _fits(found[n].shape[1:], wanted[n][1:])
        for n in other
    )


def _fits(shape, wanted):
    """Whether shapes are equal up to sides of 1, as of a 1x1 convolution."""
    return [n for n in shape if n != 1] == [n for n in wanted if n != 1]


def _first(names):
    dots = ", ..." if len(names) > 4 else ""
    return f"{len(names)} ({', '.join(names[:4])}{dots})"

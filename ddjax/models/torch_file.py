"""The tensors of a file that `torch.save` wrote, without torch.

Two formats exist. Since PyTorch 1.6 it is a zip file: `data.pkl`, which says what the
tensors are, and one uncompressed entry `data/<key>` per storage. Before, it was one
stream: a magic number, a version and facts about the machine, the same pickle, the
list of the storages' keys, and the storages, each after its length. torchvision still
serves files of both kinds.
"""

import io
import math
import mmap
import zipfile

import ml_dtypes
import numpy as np

from ddjax.models import torch_pickle

__all__ = ["read", "read_all"]

_MAGIC = 0x1950A86A20F9469CFC6C
# Where training programs put the weights, in the order of search: running averages
# of the weights come before the weights, as they are what was evaluated.
_WRAPPERS = ("ema", "model_ema", "state_dict_ema", "state_dict", "model")


def read(file) -> dict[str, np.ndarray]:
    """Reads every tensor of the state dict.

    Args:
      file: on disk, open for reading in binary mode, at its start.

    Returns:
      Arrays by name, in the file's order; each owns its memory. bfloat16 becomes
      float32, which NumPy has; all else keeps its type.

    Raises:
      ValueError: not such a file, a damaged one, or one that names more than tensors.
    """
    return _read(file, _state_dict)


def read_all(file) -> dict[str, np.ndarray]:
    """Reads every tensor, wherever it is in the file's dicts and lists.

    Args:
      file: as for `read`.

    Returns:
      Arrays by place, such as "data/0/1" for `tree["data"][0][1]`, and "" for a file
      that is one tensor.

    Raises:
      ValueError: as `read`.
    """
    return _read(file, _everywhere)


def _read(file, select):
    """The tensors that `select` finds in the pickle's tree."""
    head = file.read(64)
    file.seek(0)
    if head.startswith(b"PK"):
        return _read_zip(file, select)
    if head.startswith(b"\x80"):  # a pickle's first instruction
        return _read_stream(file, select)
    raise ValueError(f"not a checkpoint; {_guess(head)}")


def _guess(head):
    if not head:
        return "it is empty: download it again"
    if head.lstrip().startswith(b"<"):
        return "it is a web page: the download failed, and the server's answer was kept"
    if head.startswith(b"version https://git-lfs"):
        return "it is Git LFS's pointer to one: run `git lfs pull`"
    return f"it begins with {head[:8]!r}: expected torch.save's zip or pickle"


def _read_zip(file, select):
    try:
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, select)
    # What zipfile raises for damaged entries; all of them mean the same here.
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise ValueError(
            f"its zip container is damaged or cut short ({error}): download it again"
        ) from error


def _read_archive(archive, select):
    names = set(archive.namelist())
    roots = [n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(f"a zip file with {len(roots)} entries data.pkl instead of 1")
    root = roots[0]

    def fetch(name):
        if root + name not in names:
            raise ValueError(f"its zip container lacks {name}: download it again")
        entry = archive.getinfo(root + name)
        # torch never compresses; a small entry could unpack to more than the memory.
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed, which torch.save never does")
        return archive.read(entry)

    order = fetch("byteorder") if root + "byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"byte order {order[:20]!r}; known: little, big")
    tree, _ = torch_pickle.load(io.BytesIO(fetch("data.pkl")))
    big = order == b"big"
    return _arrays(select(tree), lambda storage: fetch(f"data/{storage.key}"), big)


def _read_stream(file, select):
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        if torch_pickle.load(stream)[0] != _MAGIC:
            raise ValueError(
                "a pickle, but not of torch.save: expected its magic number"
            )
        for _ in ("version", "machine"):
            torch_pickle.load(stream)
        tree, storages = torch_pickle.load(stream)
        keys, _ = torch_pickle.load(stream)
        keys = keys if isinstance(keys, list) else []
        named = [key for key in keys if isinstance(key, str)]
        if set(named) != set(storages):
            raise ValueError("its list of storages is not that of its tensors")
        places = _places(stream, [storages[key] for key in named])
        # This format is little-endian, whatever machine wrote it.
        tensors = select(tree)
        return _arrays(tensors, lambda storage: stream[places[storage.key]], False)


def _places(stream, storages):
    """The bytes of each storage, which follow one another."""
    places, position = {}, stream.tell()
    for storage in storages:
        start = position + 8
        size = int.from_bytes(stream[position:start], "little")
        position = start + storage.size * storage.dtype.itemsize
        if size != storage.size or position > len(stream):
            raise ValueError(
                f"storage {storage.key} should have {storage.size} numbers, and the "
                "file ends or says otherwise: cut short? Download it again"
            )
        places[storage.key] = slice(start, position)
    return places


def _arrays(tensors, fetch, swapped):
    """Reads storage after storage, so that each is in memory once, and for a while."""
    sharing = {}
    for name, tensor in tensors.items():
        _check(tensor, name)
        sharing.setdefault(tensor.storage, []).append(name)
    arrays = {}
    for storage, names in sharing.items():
        flat = _flat(fetch(storage), storage, swapped)
        arrays |= {name: _view(flat, tensors[name]) for name in names}
    return {name: arrays[name] for name in tensors}


def _state_dict(tree):
    found = _find(tree, 3)
    if not found:
        raise ValueError(
            "no tensors by name in it; expected a state_dict, or one under "
            f"{', '.join(_WRAPPERS)}"
        )
    return found


def _find(tree, levels):
    """The tensors by name, under wrappers first; a damaged tree may contain itself."""
    if not isinstance(tree, dict) or not levels:
        return {}
    for key in _WRAPPERS:
        if found := _find(tree.get(key), levels - 1):
            return found
    return {
        name: value
        for name, value in tree.items()
        if isinstance(name, str) and isinstance(value, torch_pickle.Tensor)
    }


def _everywhere(tree):
    found, seen, left = {}, set(), [("", tree)]
    while left:
        place, value = left.pop(0)
        if isinstance(value, torch_pickle.Tensor):
            found[place] = value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))  # a damaged tree may contain itself
            items = value.items() if isinstance(value, dict) else enumerate(value)
            left += [(f"{place}/{key}".lstrip("/"), below) for key, below in items]
    if not found:
        raise ValueError("no tensors in it")
    return found


def _check(tensor, name):
    """Refuses a tensor that would read outside its storage."""
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    if not (
        isinstance(storage, torch_pickle.Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= 32
        and all(type(n) is int and n >= 0 for n in (tensor.offset, *shape, *strides))
    ):
        raise ValueError(f"tensor {name} has no storage, shape or strides that fit")
    count = math.prod(shape)
    last = sum((side - 1) * stride for side, stride in zip(shape, strides))
    # `count` too: with strides of 0 a small file could fill the memory.
    if count and max(tensor.offset + last + 1, count) > storage.size:
        raise ValueError(
            f"tensor {name} {shape} reaches outside its storage of {storage.size} "
            "numbers, or repeats them"
        )


def _flat(data, storage, swapped):
    itemsize = storage.dtype.itemsize
    if len(data) != storage.size * itemsize:
        raise ValueError(
            f"storage {storage.key} has {len(data)} bytes; expected "
            f"{storage.size} times {itemsize}"
        )
    if swapped:  # as integers: bfloat16 knows no byte order
        data = np.frombuffer(data, f">u{itemsize}").astype(f"=u{itemsize}")
    return np.frombuffer(data, storage.dtype)


def _view(flat, tensor):
    """A copy of the tensor, whose strides need not be those of a fresh array."""
    sides = zip(tensor.shape, tensor.strides)
    # The stride of a side of 1 is never used, and may be anything.
    strides = [flat.itemsize * stride if side > 1 else 0 for side, stride in sides]
    start = tensor.offset if math.prod(tensor.shape) else 0
    view = np.lib.stride_tricks.as_strided(
        flat[start:], tensor.shape, strides, writeable=False
    )
    wide = np.float32 if flat.dtype == ml_dtypes.bfloat16 else flat.dtype
    return np.array(view, wide, order="C")

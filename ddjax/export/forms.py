"""The forms of a distilled set on disk: of each, how pixels are written and read.

    folder    <class>/<number>.png; a class named otherwise than a file may be is quoted
    npz       set.npz, all in one file
    tfds      <name>/1.0.0/, ArrayRecord files that tensorflow-datasets reads
    parquet   data/train-00000-of-00001.parquet, as Hugging Face's `datasets` has it

What is not pixels is in set.json beside them (in npz: inside), so that every form gives
back the same set. Nothing here is ever unpickled.
"""

import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddjax.data import decode, sets
from ddjax.data.prepare import writing
from ddjax.export.stored import StoredSet, from_header, header

__all__ = ["FORMS", "JSON", "NPZ", "PARQUET", "read_header", "set_name"]

NPZ = "set.npz"
PARQUET = pathlib.PurePosixPath("data", "train-00000-of-00001.parquet")
JSON, _SOFT = "set.json", "soft_labels.npy"
_TOGETHER = 100  # images
_UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|%]')  # in names of folders
# What a damaged archive, array or text raises.
_DAMAGED = (OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError)
_DAMAGED += (ArithmeticError, zipfile.BadZipFile, zlib.error)


class Form(NamedTuple):
    """How a set is written into an empty folder, and read from there."""

    write: Callable  # (folder, StoredSet)
    read: Callable  # folder -> StoredSet


# A folder of class folders -----------------------------------------------------------


def _write_folder(folder, stored):
    names = _file_names(stored.info.classes)
    for name in names:
        (folder / name).mkdir()
    paths = list(_paths(stored.labels, names))
    for path, image in zip(paths, stored.images):
        (folder / path).write_bytes(decode.encode(image))
    # For other readers: ours makes no paths out of a stranger's file.
    _write_rest(folder, stored, "folder", paths=[path.as_posix() for path in paths])


def _read_folder(folder):
    told = read_header(folder)
    return _with_rest(folder, told, _decoded(_files(folder, told), told, folder))


def _files(folder, told):
    """The bytes of each image."""
    for path in _paths(told["labels"], _file_names(told["classes"])):
        yield (folder / path).read_bytes()


def _file_names(classes) -> list[str]:
    """Names of folders, in label order; what no folder can be called is quoted."""
    names = [_UNSAFE.sub(lambda m: f"%{ord(m[0]):02X}", name) for name in classes]
    # Some disks know no case; and a name may be that of a file beside the folders.
    taken = {"", JSON, _SOFT, "readme.md", "grid.png"}
    taken |= {name.lower() for name in names if name.startswith(".")}
    if len({name.lower() for name in names} - taken) == len(names):
        return names
    return [f"{label:05d} {name}" for label, name in enumerate(names)]


def _paths(labels, names):
    """Of each image; numbered within its class."""
    seen = dict.fromkeys(range(len(names)), 0)
    for label in labels:
        yield pathlib.PurePosixPath(names[label], f"{seen[label]:05d}.png")
        seen[label] += 1


def _decoded(encoded, told, where) -> np.ndarray:
    """[N, H, W, ch] of the PNGs that a header speaks of, each decoded to its place."""
    try:
        shape = tuple(int(side) for side in told["shape"])
        images = np.empty((len(told["labels"]), *shape), np.uint8)
        count = 0
        for count, data in enumerate(encoded, 1):
            image = decode.decode(data, shape[-1])
            if image.shape != shape:
                raise ValueError(f"image {count} is {image.shape}, not {shape}")
            images[count - 1] = image
        if count != len(images):
            raise ValueError(f"{count} images instead of {len(images)}")
    except (*_DAMAGED, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{where}: an image is missing or damaged: {reason}."
        ) from error
    return images


# One file ----------------------------------------------------------------------------


def _write_npz(folder, stored):
    told = header(stored, "npz")
    # For those who read the file with NumPy alone, labels and weights are arrays too.
    arrays = {
        "images": stored.images,
        "labels": stored.labels,
        "weights": stored.weights,
        "set_json": np.array(json.dumps(told)),
    }
    if told["soft_labels"]:
        arrays["soft_labels"] = stored.soft_labels
    with open(folder / NPZ, "wb") as file:
        np.savez(file, **arrays)


def _read_npz(folder):
    path = folder / NPZ
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        told = json.loads(str(found["set_json"]))
        images = found["images"]
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is no distilled set, or a damaged one ({error}); export it again."
        ) from error
    return from_header(told, images, found.get("soft_labels", ()), path)


# tensorflow-datasets -----------------------------------------------------------------


def set_name(stored: StoredSet) -> str:
    """The name that TFDS finds an exported set by."""
    plain = re.sub(r"[^a-z0-9]+", "_", stored.info.name.lower()).strip("_")
    return f"distilled_{plain}" if plain else "distilled"


def _write_tfds(folder, stored):
    target = folder / set_name(stored) / "1.0.0"
    target.mkdir(parents=True)
    info = stored.info
    further = {"weight": stored.weights}
    if len(stored.soft_labels):
        further["soft_label"] = stored.soft_labels.astype(np.float32)
    encoded = map(decode.encode, stored.images)
    notes = {"about": stored.about, "mean": info.mean, "std": info.std}
    writing.write(
        target,
        set_name(stored),
        info.classes,
        info.shape,
        {"train": (stored.labels, encoded)},
        notes,
        stored.images[0].nbytes,
        further=further,
    )
    _write_rest(folder, stored, "tfds")


def _read_tfds(folder):
    told, found = read_header(folder), sets.versions(folder)
    if len(found) != 1:
        raise ValueError(f"{folder} holds {len(found)} sets of TFDS instead of 1.")
    prepared = sets.describe(found[0])
    return _with_rest(folder, told, _decoded(prepared.encoded("train"), told, folder))


# Parquet -----------------------------------------------------------------------------


def _write_parquet(folder, stored):
    import pyarrow as pa  # slow to import
    from pyarrow import parquet

    paths = _paths(stored.labels, _file_names(stored.info.classes))
    images = [
        {"bytes": decode.encode(image), "path": str(path)}
        for image, path in zip(stored.images, paths)
    ]
    pair = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        "image": pa.array(images, pair),
        "label": pa.array(stored.labels, pa.int64()),
        "weight": pa.array(stored.weights, pa.float32()),
    }
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(stored.info.classes), "_type": "ClassLabel"},
        "weight": {"dtype": "float32", "_type": "Value"},
    }
    if len(stored.soft_labels):
        rows = stored.soft_labels.astype(np.float32)
        columns["soft_label"] = pa.array(rows.tolist(), pa.list_(pa.float32()))
        value = {"dtype": "float32", "_type": "Value"}
        features["soft_label"] = {"feature": value, "_type": "Sequence"}
    told = json.dumps({"info": {"features": features}})
    table = pa.table(columns).replace_schema_metadata({"huggingface": told})
    (folder / PARQUET.parent).mkdir()
    # Groups of few rows: the hub shows a table group by group.
    parquet.write_table(table, folder / PARQUET, row_group_size=_TOGETHER)
    _write_rest(folder, stored, "parquet")


def _read_parquet(folder):
    told, path = read_header(folder), folder / PARQUET
    return _with_rest(folder, told, _decoded(_column(path), told, path))


def _column(path):
    """The bytes of each image, some at a time."""
    from pyarrow import parquet  # slow to import

    with parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=_TOGETHER, columns=["image"]):
            yield from batch.column("image").field("bytes").to_pylist()


# What is not pixels ------------------------------------------------------------------


def _write_rest(folder, stored, form, **further):
    told = header(stored, form) | further
    # A line for each field, however many images there are.
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in told.items())
    (folder / JSON).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if told["soft_labels"]:
        np.save(folder / _SOFT, stored.soft_labels)


def read_header(folder) -> dict:
    """What set.json says.

    Raises:
      ValueError: it is not there, or damaged.
    """
    path = folder / JSON
    try:
        told = json.loads(path.read_text())
        return {**told}
    except _DAMAGED as error:
        raise ValueError(f"{path} is missing or damaged: {error}.") from error


def _with_rest(folder, told, images):
    soft = ()
    if told.get("soft_labels"):
        try:
            with open(folder / _SOFT, "rb") as file:
                soft = np.load(file, allow_pickle=False)
        except _DAMAGED as error:
            what = f"{folder / _SOFT} is missing or damaged: {error}."
            raise ValueError(what) from error
    return from_header(told, images, soft, str(folder))


FORMS = {
    "folder": Form(_write_folder, _read_folder),
    "npz": Form(_write_npz, _read_npz),
    "tfds": Form(_write_tfds, _read_tfds),
    "parquet": Form(_write_parquet, _read_parquet),
}

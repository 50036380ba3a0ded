"""Prepared sets on disk: where they lie, what is in them, and which labels.

A set is a folder `<where sets are kept>/<name>/<version>/` as tensorflow-datasets (TFDS)
writes it, in ArrayRecord form: named ones and the user's own alike. It is read without
TensorFlow.
"""

import contextlib
import functools
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Prepared", "Reader", "describe", "find", "image_and_label", "kept_in"]
__all__ += ["notes", "versions"]

_DESCRIPTION = "dataset_info.json"  # TFDS's; a folder that has one is a set
_AGAIN = "Remove it, and prepare it again with `python -m launch.prepare`."
_CHUNK = 1024  # records that are read together
_TEST = ("test", "validation")  # the first that a set has
_UNLABELLED = {"imagenet2012"}  # test splits of a challenge: every label is -1


class Prepared(NamedTuple):
    """What a set says of itself."""

    folder: str  # with the version
    name: str
    version: str
    classes: tuple[str, ...]  # names in label order
    shape: tuple  # (H, W, ch) of every image; H and W None where they differ
    lengths: dict[str, tuple[int, ...]]  # images in each shard of each split
    num_bytes: dict[str, int]  # of each split's records
    written: int  # when; nanoseconds
    keys: tuple[str, str]  # of the image and of the label in a record

    def split(self, split: str) -> str:
        """The set's own name of "train" or "test".

        Raises:
          ValueError: it has no such split.
        """
        unlabelled = {"test"} if self.name in _UNLABELLED else ()
        for known in _TEST if split == "test" else (split,):
            if known in self.lengths and known not in unlabelled:
                return known
        raise ValueError(
            f"{self.name} has no {split} split; it has: {', '.join(self.lengths)}. "
            f"The set lies in {self.folder}."
        )

    def labels(self, split: str) -> np.ndarray:
        """[N] int32, in the order of the records.

        They lie between the images; so they are read once and kept beside them.
        """
        path = pathlib.Path(self.folder) / f"labels-{split}.npy"
        count = sum(self.lengths[split])
        with contextlib.suppress(OSError, ValueError, EOFError):
            labels = np.load(path, allow_pickle=False)
            if labels.shape == (count,):
                return labels
        labels = np.empty(count, np.int32)
        for rows, records in _chunks(self, split):
            labels[rows] = [label for _, label in records]
        beside = path.with_name(f".{path.name}.{os.getpid()}.npy")
        with contextlib.suppress(OSError):  # a shared folder may be read-only
            np.save(beside, labels)
            os.replace(beside, path)
        with contextlib.suppress(OSError):
            beside.unlink()
        return labels

    def encoded(self, split: str) -> Iterator[bytes]:
        """All images of a split as they are stored, one after another."""
        for _, records in _chunks(self, split):
            yield from (image for image, _ in records)


def kept_in(folder: str | os.PathLike = "") -> pathlib.Path:
    """Where sets are kept: `folder`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    folder = folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(folder).expanduser()


def find(name: str, folder: str | os.PathLike = "") -> Prepared:
    """A prepared set by its name.

    Args:
      name: "cifar10"; where there are several configurations or versions of a set, any
        of "imagenette/160px-v2" and "imagenette/160px-v2/1.0.0" says which.
      folder: see `kept_in`.

    Raises:
      ValueError: no such set (says where it was looked for, what is there and how to
        prepare it), several, or one that cannot be read.
    """
    kept = kept_in(folder)
    found = versions(kept / name) if name and ".." not in name else []
    if not found:
        raise ValueError(_missing(name, kept, folder))
    configurations = {path.parent for path in found}
    if len(configurations) > 1:
        known = sorted(str(path.relative_to(kept)) for path in configurations)
        raise ValueError(f"{name} is several sets; name one of: {', '.join(known)}.")
    return describe(max(found, key=_version))


def describe(folder: str | os.PathLike) -> Prepared:
    """The set in a folder that ends in its version.

    Raises:
      ValueError: it is damaged, not in ArrayRecord form, or not of labelled images.
    """
    folder = os.path.abspath(folder)
    written = os.stat(os.path.join(folder, _DESCRIPTION)).st_mtime_ns
    return _describe(folder, written)


def versions(folder: pathlib.Path) -> list[pathlib.Path]:
    """The sets in a folder: itself, and at most two levels below (TFDS's configs)."""
    patterns = ("", "*/", "*/*/")
    found = (path for p in patterns for path in folder.glob(p + _DESCRIPTION))
    return [path.parent for path in found]


def notes(folder: str | os.PathLike) -> dict:
    """What `prepare` noted of a set; nothing for others."""
    try:
        return json.loads((pathlib.Path(folder) / "metadata.json").read_text())
    except (OSError, ValueError):
        return {}


@functools.lru_cache(maxsize=16)
def _describe(folder, written):  # a set that was written anew is read anew
    import tensorflow_datasets as tfds  # slow to import

    try:
        info = tfds.builder_from_directory(folder).info
        lengths = {n: tuple(s.shard_lengths) for n, s in info.splits.items()}
    except Exception as error:  # TFDS raises many kinds
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{folder} is damaged: {reason}. {_AGAIN}") from error
    if info.file_format is None or info.file_format.value != "array_record":
        kind = info.file_format.value if info.file_format else "an unknown format"
        raise ValueError(f"{folder} is kept as {kind}, not as array_record. {_AGAIN}")
    keys = image_and_label(info)
    image, label = (info.features[key] for key in keys)
    if np.dtype(image.np_dtype) != np.uint8:
        raise ValueError(f"{folder} has pixels of {image.np_dtype}; uint8 is needed.")
    *sides, channels = image.shape
    return Prepared(
        folder,
        info.name,
        str(info.version),
        tuple(label.names),
        (*sides, 1 if channels == 1 else 3),
        lengths,
        {n: int(s.num_bytes) for n, s in info.splits.items()},
        written,
        keys,
    )


def image_and_label(info) -> tuple[str, str]:
    """The keys of a set's image and label.

    Args:
      info: tfds.core.DatasetInfo.

    Returns:
      (image key, label key): what the set says is learned from what, if that is an
      image and a class; else "image" and "label", if they are; else, if the set says
      nothing, its only image and its only class.

    Raises:
      ValueError: there is no such pair.
    """
    import tensorflow_datasets as tfds  # slow to import

    kinds = (tfds.features.Image, tfds.features.ClassLabel)
    named = isinstance(info.features, tfds.features.FeaturesDict)
    features = dict(info.features.items()) if named else {}
    of_kind = [{k for k, f in features.items() if isinstance(f, i)} for i in kinds]
    pairs = [(info.supervised_keys or ())[:2], ("image", "label")]
    if info.supervised_keys is None and [len(keys) for keys in of_kind] == [1, 1]:
        pairs.append(tuple(min(keys) for keys in of_kind))
    for pair in pairs:
        if pair in itertools.product(*of_kind):
            return pair
    has = ", ".join(f"{key} ({type(f).__name__})" for key, f in features.items())
    raise ValueError(
        f"{info.full_name} is no set of images with one class each: it has "
        f"{has or type(info.features).__name__}. An Image and a ClassLabel are needed."
    )


class Reader:
    """Random access to the records of one split; opens its files on first use."""

    def __init__(self, prepared: Prepared, split: str):
        import tensorflow_datasets as tfds  # slow to import

        self._prepared = prepared
        builder = tfds.builder_from_directory(prepared.folder)
        decoders = {prepared.keys[0]: tfds.decode.SkipDecoding()}
        self._source = builder.as_data_source(split, decoders=decoders)

    def read(self, rows: Sequence[int]) -> list[tuple[bytes, int]]:
        """(encoded image, label) of some rows.

        Raises:
          ValueError: a file is missing, or its bytes are not those that were written.
        """
        image, label = self._prepared.keys
        try:
            records = self._source.__getitems__(rows)
        except (OSError, RuntimeError, ValueError) as error:  # ArrayRecord's
            reason = str(error).partition("\n")[0]
            told = f"{self._prepared.folder} cannot be read: {reason}. {_AGAIN}"
            raise ValueError(told) from error
        return [(record[image], record[label]) for record in records]


def _chunks(prepared, split):
    """(rows, records) of a whole split, some at a time."""
    reader, count = Reader(prepared, split), sum(prepared.lengths[split])
    for first in range(0, count, _CHUNK):
        rows = range(first, min(first + _CHUNK, count))
        yield slice(rows.start, rows.stop), reader.read(rows)


def _version(path):
    return [int(x) if x.isdigit() else -1 for x in path.name.split(".")]


def _missing(name, kept, folder):
    there = []
    if kept.is_dir():
        there = [p.name for p in kept.iterdir() if p.name[0] != "." and versions(p)]
    option = f" --folder={folder}" if folder else ""
    return (
        f"unknown data set {name!r}; known: digits, and in {kept}: "
        f"{', '.join(sorted(there)) or 'none'}. Prepare a set of TFDS with `python -m "
        f"launch.prepare --name={name}{option}`, or your own images with `python -m "
        f"launch.prepare --source=PATH --name={name}{option}`."
    )

"""A user's images as Parquet files, in the layout of the Hugging Face hub.

The files of a split are called `<split>-00000-of-00002.parquet`; a row has `image`
(`bytes`, an encoded file, and `path`) and `label`. The names of the classes, in label
order, stand in the schema's metadata; where they do not, the labels are the names.
"""

import json
import re

import numpy as np

from ddjax.data.prepare.sources import SPLITS, Source, fingerprint

__all__ = ["from_parquet"]


def from_parquet(path, tables) -> Source:
    """The source of Parquet files.

    Args:
      path: the folder, for messages.
      tables: the files.

    Raises:
      ValueError: a file is damaged, missing or of another kind, names other classes
        than the first one, or has a label out of range; names the file.
    """
    shards = _shards(path, tables)
    parts = {file: _labels(file) for files in shards.values() for file in files}
    (first, (classes, _)), *others = parts.items()
    for file, (names, _) in others:
        if names != classes:
            raise ValueError(
                f"{file} and {first} name different classes, or the same ones in "
                "another order; prepare them again from one source."
            )
    if classes is None:
        highest = max(int(labels.max()) for _, labels in parts.values())
        classes = tuple(str(label) for label in range(highest + 1))
    for file, (_, labels) in parts.items():
        _check_range(file, labels, len(classes))
    status = {file: file.stat() for file in parts}
    used = [(f.name, s.st_size, s.st_mtime_ns) for f, s in status.items()]
    return Source(
        str(path),
        classes,
        {
            split: np.concatenate([parts[file][1] for file in files]).astype(np.int32)
            for split, files in shards.items()
        },
        sum(size for _, size, _ in used),
        fingerprint(classes, used),
        lambda split: _rows(shards[split]),
    )


def _check_range(file, labels, count):
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if wrong.size:
        raise ValueError(
            f"{file}: label {labels[wrong[0]]} of row {wrong[0]} is out of range; "
            f"{count} classes are named, so labels must lie in 0..{count - 1}. (A split "
            "without labels cannot be used: move its files away.)"
        )


def _shards(path, tables):
    """The files of each split, all there and in order."""
    found = {}
    for file in tables:
        match = re.fullmatch(r"(\w+)-(\d+)-of-(\d+)\.parquet", file.name)
        if not match or match[1] not in SPLITS:
            raise ValueError(
                f"{file}: the name says no split; wanted is "
                "<split>-00000-of-00001.parquet with train, test or validation."
            )
        found.setdefault((match[1], int(match[3])), {})[int(match[2])] = file
    shards = {}
    for (name, count), files in found.items():
        if missing := sorted(set(range(count)) - set(files)):
            raise ValueError(
                f"{path}: of the {count} files of {name}, number {missing[0]:05d} is "
                "missing; download it again."
            )
        ordered = [files[number] for number in sorted(files)]
        if SPLITS[name] in shards:
            twice = (shards[SPLITS[name]][0].name, ordered[0].name)
            raise ValueError(f"{path} has a split twice: {' and '.join(twice)}.")
        shards[SPLITS[name]] = ordered
    return shards


def _labels(file):
    """(class names or None, labels [n] int64) of one file."""
    import pyarrow as pa  # slow to import
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            _check_columns({name: schema.field(name).type for name in schema.names})
            labels = table.read(columns=["label"]).column("label")
        if not len(labels):
            raise ValueError("it has no rows")
        if labels.null_count:
            raise ValueError("a row has no label")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be used: {error}.") from error
    told = json.loads((schema.metadata or {}).get(b"huggingface", "{}"))
    feature = told.get("info", {}).get("features", {}).get("label", {})
    names = feature.get("names")
    return names and tuple(names), labels.to_numpy()


def _check_columns(columns):
    """Refuses other columns than an image and its label."""
    import pyarrow as pa  # slow to import

    image, label = columns.get("image"), columns.get("label")
    encoded = isinstance(image, pa.StructType) and image.get_field_index("bytes") >= 0
    if not encoded or label is None or not pa.types.is_integer(label):
        found = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
        raise ValueError(
            "wanted are the columns image (with bytes) and label (an integer); it has: "
            f"{found}"
        )


def _rows(files):
    """(file and row, bytes) of all rows, a part of each file at a time."""
    from pyarrow import parquet  # slow to import

    for file in files:
        row = 0
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=256, columns=["image"]):
                for data in batch.column("image").field("bytes").to_pylist():
                    yield f"{file} row {row}", data or b""
                    row += 1

"""A user's images, made a set like TFDS's own.

    from_source(source, name, folder) -> <folder>/<name>/1.0.0/

The encoded images are kept byte for byte, in the order of the source; those that other
readers could not decode to the same pixels become PNG. All is checked before anything is
written, and what is written appears under its name when it is complete.
"""

import collections
import concurrent.futures
import itertools
import os
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddjax.data import decode, sets
from ddjax.data.prepare import folders, parquet, writing
from ddjax.data.prepare.sources import Source, fingerprint

__all__ = ["from_source", "open_source"]

_VERSION = "1.0.0"
_TOGETHER = 32  # images that a thread takes at a time
_NAMED = 10  # skipped images that are named


def from_source(
    source: str | os.PathLike,
    name: str,
    folder: str | os.PathLike = "",
    *,
    size: int = 0,
    test_share: float = 0.2,
    on_error: str = "stop",
    overwrite: bool = False,
    observe: Callable | None = None,
) -> pathlib.Path:
    """Writes a set that `load(name)` finds, and `tfds.builder_from_directory` reads.

    The same call again does nothing. Beside TFDS's own files the set has metadata.json,
    which says what it was made from and what was left out or encoded anew.

    Args:
      source: a folder `train/<class>/*.jpg`, `test/<class>/*.jpg` (or `val`, which is
        the test split where there is no other), a folder of class folders, a zip file
        of one of them, or a folder of Parquet files (see `parquet`). Classes are
        numbered in the order of their sorted names; Parquet names them in order.
      name: of the set: small letters, digits and underscores.
      folder: where sets are kept, see `sets.kept_in`.
      size: stores images resized and cropped to it (`decode.resize_and_crop`), as PNG;
        0 stores them as they are.
      test_share: of each class, drawn (with seed 0) as the test split where the source
        has only one split.
      on_error: what an image that cannot be decoded does: "stop", or "skip" it.
      overwrite: replace a set of this name that was prepared from another source.
      observe: called as observe("check" or "write", images done, images in all).

    Returns:
      The set's folder.

    Raises:
      ValueError: what is wrong with the source or an image, by the name of the file; a
        name that is taken; no room on the disk. Nothing is left behind then.
    """
    _check_options(name, size, test_share, on_error)
    kept = sets.kept_in(folder)
    target = kept / name / _VERSION
    opened = open_source(source)
    identity = fingerprint(opened.fingerprint, size, test_share)
    if _is_there(target, identity, overwrite):
        return target
    writing.check_room(kept, opened.num_bytes)
    observe = observe or (lambda what, done, total: None)
    checked = _check(opened, on_error == "skip", observe)
    splits = _splits(opened, checked, test_share)
    try:
        with writing.appears_whole(target) as unfinished:
            _write(opened, checked, splits, unfinished, name, size, identity, observe)
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the second
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ValueError(
            f"cannot write {target}: {reason}. Nothing is left of it; make room, or "
            "choose another --folder, and run the same command again."
        ) from error
    return target


def open_source(path: str | os.PathLike) -> Source:
    """Looks at a folder, a zip file, or a folder of Parquet files, but at no image.

    Raises:
      ValueError: it is none of them, or its splits, classes or labels are not right;
        names the file.
    """
    path = pathlib.Path(path).expanduser().absolute()
    if not path.exists():
        raise ValueError(f"the source {path} does not exist.")
    try:
        if path.is_file():
            source = folders.from_zip(path)
        # As they lie on the hub, and in the folder `data` of most of its sets.
        elif tables := sorted(path.glob("*.parquet")) or sorted(
            path.glob("data/*.parquet")
        ):
            source = parquet.from_parquet(path, tables)
        else:
            source = folders.from_folder(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error}.") from error
    source.check()
    return source


class _Checked(NamedTuple):
    """What all images of a source were found to be."""

    good: dict[str, np.ndarray]  # of each split, [N] bool
    plain: dict[str, np.ndarray]  # likewise: stored as they are
    shape: tuple  # (H, W, ch); H and W None where they differ
    smallest: tuple[int, int]  # (height, width)
    largest: tuple[int, int]
    skipped: list[str]  # files and reasons


def _check_options(name, size, test_share, on_error):
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "digits":
        raise ValueError(
            f"the name {name!r} cannot be used: it must be small letters, digits and "
            "underscores, begin with a letter, and not be that of the embedded digits."
        )
    if size < 0:
        raise ValueError(f"size must not be negative; got {size}.")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie in (0, 1); got {test_share}.")
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error must be stop or skip; got {on_error!r}.")


def _is_there(target, identity, overwrite):
    """Whether this very set is prepared; another one of its name is refused."""
    there = sets.versions(target.parent)
    if not there:
        return False
    if there != [target] or "fingerprint" not in (notes := sets.notes(target)):
        raise ValueError(
            f"{target.parent} holds a set that was not made from a source; choose "
            "another --name, or remove it."
        )
    if overwrite:
        return False
    if notes["fingerprint"] != identity:
        raise ValueError(
            f"{target} was prepared from another source, or with other options (from "
            f"{notes.get('source')}); choose another --name, or --overwrite to replace "
            "it."
        )
    return True


def _check(source, skip, observe):
    """Decodes every image once.

    Raises:
      ValueError: the first that cannot be, unless `skip`.
    """
    good, plain, sizes, grey, skipped = {}, {}, set(), True, []
    done, total = 0, sum(map(len, source.labels.values()))
    for split, labels in source.labels.items():
        good[split], plain[split] = (np.zeros(len(labels), bool) for _ in range(2))
        for row, seen in enumerate(_mapped(_look, _read(source, split))):
            if isinstance(seen, decode.Seen):
                good[split][row], plain[split][row] = True, seen.plain
                sizes.add((seen.height, seen.width))
                grey &= seen.grey
            elif skip:
                skipped.append(seen)
            else:
                raise ValueError(
                    f"{seen} Mend or remove it, or leave such images out with "
                    "--on_error=skip."
                )
            done += 1
            observe("check", done, total)
    if not sizes:
        raise ValueError(f"{source.path}: no image can be decoded ({skipped[0]})")
    smallest, largest = (f(sizes, key=np.prod) for f in (min, max))
    shape = (*(smallest if len(sizes) == 1 else (None, None)), 1 if grey else 3)
    return _Checked(good, plain, shape, smallest, largest, skipped)


def _look(item):
    """What an image is, or what is wrong with it."""
    file, data = item
    try:
        return decode.inspect(data)
    except ValueError as error:
        return f"{file}: {error}"


def _splits(source, checked, test_share):
    """{name: (the source's split, [N] bool of its rows)} of the splits to write."""
    splits = {split: (split, good) for split, good in checked.good.items()}
    if len(splits) == 1:
        good = checked.good["train"]
        held = _draw(source, good, test_share)
        splits = {"train": ("train", good & ~held), "test": ("train", held)}
    elif "test" not in splits:
        splits["test"] = splits.pop("validation")
    for split, (own, rows) in splits.items():
        counts = np.bincount(source.labels[own][rows], minlength=len(source.classes))
        if not counts.all():
            raise ValueError(
                f"{source.path}: no image of class "
                f"{source.classes[int(np.argmin(counts))]} is left for the {split} "
                "split; add images, or remove the class from all splits."
            )
    return splits


def _draw(source, good, share):
    """[N] bool: a share of each class, rounded, at least one image."""
    rng, labels = np.random.default_rng(0), source.labels["train"]
    held = np.zeros(len(labels), bool)
    for label in range(len(source.classes)):
        rows = np.flatnonzero(good & (labels == label))
        held[rng.permutation(rows)[: max(1, round(share * len(rows)))]] = True
    return held


def _write(source, checked, splits, folder, name, size, identity, observe):
    anew = {split: rows & ~checked.plain[own] for split, (own, rows) in splits.items()}
    total = sum(int(rows.sum()) for _, rows in splits.values())
    notes = {
        "source": source.path,
        "fingerprint": identity,
        "smallest": checked.smallest,
        "largest": checked.largest,
        "skipped": len(checked.skipped),
        "skipped_files": checked.skipped[:_NAMED],
        "encoded_anew": total if size else sum(int(r.sum()) for r in anew.values()),
        "test_drawn": len(checked.good) == 1,
    }
    shape = (size, size, checked.shape[-1]) if size else checked.shape
    done = itertools.count(1)

    def images(split):
        own, rows = splits[split]
        items = zip(_read(source, own), rows, anew[split])
        chosen = ((data, new) for (_, data), wanted, new in items if wanted)
        for data in _mapped(lambda item: _stored(*item, shape[-1], size), chosen):
            observe("write", next(done), total)
            yield data

    streams = {
        split: (source.labels[own][rows], images(split))
        for split, (own, rows) in splits.items()
    }
    each = source.num_bytes // sum(map(len, source.labels.values()))
    writing.write(folder, name, source.classes, shape, streams, notes, each)


def _stored(data, anew, channels, size):
    """The bytes to store of an image."""
    if not (anew or size):
        return data
    image = decode.decode(data, channels)
    return decode.encode(decode.resize_and_crop(image, size) if size else image)


def _read(source, split):
    """(file, bytes) of a split, with the file in what goes wrong."""
    try:
        yield from source.read(split)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {source.path}: {error}") from error


def _mapped(function, items):
    """`map` in as many threads as there are cores, in order, a little ahead."""
    items, workers = iter(items), os.cpu_count()
    pending = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        while group := list(itertools.islice(items, _TOGETHER)):
            pending.append(pool.submit(lambda group: list(map(function, group)), group))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()

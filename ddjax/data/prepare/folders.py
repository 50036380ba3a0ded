"""A user's images as a folder of class folders, or a zip of one."""

import os
import pathlib
import zipfile

import numpy as np

from ddjax.data.prepare.sources import LAYOUT, SPLITS, Source, fingerprint

__all__ = ["from_folder", "from_zip"]

_IMAGES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


def from_folder(path: pathlib.Path) -> Source:
    """The source of a folder; links are followed, as torchvision's ImageFolder does.

    Raises:
      ValueError: its folders are no splits and classes, or differ between splits.
    """
    files, folders = {}, set()
    for parent, below, names in os.walk(path, followlinks=True):
        below[:] = sorted(name for name in below if _shown(name))
        inside = pathlib.Path(parent).relative_to(path).parts
        folders |= {(*inside, name) for name in below}
        for name in filter(_shown, names):
            status = os.stat(os.path.join(parent, name))
            files[(*inside, name)] = (status.st_size, status.st_mtime_ns)

    def read(names):
        for name in names:
            file = path.joinpath(*name)
            yield str(file), file.read_bytes()

    return _tree(path, files, folders, read)


def from_zip(path: pathlib.Path) -> Source:
    """The source of a zip file, which is read where it is and not unpacked.

    Raises:
      ValueError: as `from_folder`, or it is no zip file that can be read.
    """
    files, folders = {}, set()
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        told = f"{path} is no zip file, or a damaged one; {LAYOUT}."
        raise ValueError(told) from error
    for entry in entries:
        name = tuple(part for part in entry.filename.split("/") if part)
        if not all(map(_shown, name)):
            continue
        if entry.is_dir():
            folders.add(name)
            continue
        if name in files:
            raise ValueError(f"{path} holds {entry.filename} twice.")
        if entry.flag_bits & 1:
            raise ValueError(f"{path} is encrypted; unpack it and prepare the folder.")
        folders |= {name[:depth] for depth in range(1, len(name))}
        files[name] = (entry.file_size, entry.CRC)

    def read(names):
        with zipfile.ZipFile(path) as archive:
            for name in names:
                try:
                    data = archive.read("/".join(name))
                except (zipfile.BadZipFile, EOFError):
                    data = b""  # a wrong checksum: as bad as an empty file
                yield f"{path}/{'/'.join(name)}", data

    return _tree(path, files, folders, read)


def _shown(name):
    """Whether a file is the user's, and not the operating system's."""
    return name[0] != "." and name not in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _tree(path, files, folders, read):
    """The source of a tree of files {parts of the name: (size, stamp)}."""
    root = _root(folders)
    tops = sorted(f[-1] for f in folders if f[:-1] == root and len(f) == len(root) + 1)
    splits = {}
    if any(top.lower() in SPLITS for top in tops):
        for top in tops:
            if top.lower() not in SPLITS:
                raise ValueError(
                    f"{path}: the folder {top} lies beside split folders; move it away "
                    f"({LAYOUT})."
                )
            _add_split(splits, SPLITS[top.lower()], (*root, top), path)
    else:
        splits["train"] = root
    classes = _classes(path, folders, splits)
    label_of = {name: label for label, name in enumerate(classes)}
    names = {split: [] for split in splits}
    of_folder = {folder: split for split, folder in splits.items()}
    for name in sorted(files):
        split = of_folder.get(name[: len(next(iter(of_folder)))])
        depth = len(splits[split]) if split else 0
        if split and len(name) > depth + 1:
            names[split].append(name)
        elif name[-1].lower().endswith(_IMAGES):
            raise ValueError(f"{path}: {'/'.join(name)} lies in no class folder.")
    labels = {
        split: np.array([label_of[n[len(splits[split])]] for n in found], np.int32)
        for split, found in names.items()
    }
    used = [(name, files[name]) for found in names.values() for name in found]
    return Source(
        str(path),
        classes,
        labels,
        sum(size for _, (size, _) in used),
        fingerprint(classes, used),
        lambda split: read(names[split]),
    )


def _root(folders):
    """The folder that holds splits or classes: a zip often has one folder at its top."""
    root = ()
    while True:
        below = [f for f in folders if f[: len(root)] == root and len(f) > len(root)]
        tops = {f[len(root)] for f in below}
        deeper = any(len(f) > len(root) + 1 for f in below)
        if (
            len(tops) != 1
            or not deeper
            or {top.lower() for top in tops} & SPLITS.keys()
        ):
            return root
        root = (*root, *tops)


def _classes(path, folders, splits):
    """Sorted names of the class folders, the same in all splits."""
    found = {
        split: sorted(f[-1] for f in folders if f[:-1] == folder)
        for split, folder in splits.items()
    }
    first = next(iter(found))
    for split, names in found.items():
        if not names:
            where = "/".join(splits[split]) or "it"
            raise ValueError(f"{path}: no class folders in {where}; {LAYOUT}.")
        if other := sorted(set(names) ^ set(found[first])):
            raise ValueError(
                f"{path}: the splits {first} and {split} have different classes: only "
                f"one of them has {', '.join(other[:5])}."
            )
    return tuple(found[first])


def _add_split(splits, split, where, path):
    if split in splits:
        raise ValueError(
            f"{path} has the {split} split twice: {splits[split]} and {where}."
        )
    splits[split] = where

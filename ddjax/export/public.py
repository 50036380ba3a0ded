"""Sets that others have released, made ours: class folders, and tensors of PyTorch.

Their files say neither how the pixels were transformed nor in which order the classes
are. A wrong guess costs accuracy without an error: so both must be said, and a set whose
are not is refused.

    <class>/*.jpg                              SRe2L, RDED and what followed them
    {"data": [[images, labels], ...]} in .pt   DC, DSA, DM
    images_best.pt and labels_best.pt          trajectory matching (MTT)

The last two are normalised floats [N, ch, H, W], those of MTT often ZCA-whitened too.
The .pt files are read as data; nothing in them is called.
"""

import json
import pathlib
import re
from typing import NamedTuple

import numpy as np

from ddjax import data
from ddjax.data import decode, sets, zca
from ddjax.export.stored import StoredSet, checked
from ddjax.models import torch_file
from ddjax.types import DataInfo, Dataset

__all__ = ["Reference", "from_folders", "from_tensors", "reference"]

_IMAGES = (".jpg", ".jpeg", ".png")
_UNDO = ("normalisation", "zca", "nothing")


class Reference(NamedTuple):
    """What a set was made from, as its user says."""

    name: str  # of the data
    classes: tuple[str, ...]  # in label order
    mean: tuple[float, ...]  # of the transform, per channel of pixels in [0, 1]
    std: tuple[float, ...]
    channels: int  # 0 where it is not known


def reference(
    classes: str, mean=(), std=(), *, folder: str = "", size: int = 0
) -> Reference:
    """The class order and the transform.

    Args:
      classes: a file, with one name a line or a JSON list, in label order; or the name
        of a data set that `data.load` knows.
      mean: per channel; of the data set's training images where it is left out.
      std: likewise.
      folder: where prepared data sets are kept.
      size: that the data set is loaded at.

    Raises:
      ValueError: the order or the transform is missing or cannot be read.
    """
    if not classes:
        raise ValueError(
            "the class order is not known: which label is which class is not in such "
            "files. Say it with --classes=FILE (one name a line, in label order), or "
            "--classes=NAME of a data set that is prepared."
        )
    if bool(mean) != bool(std) or len(mean) != len(std) or min(std, default=1) <= 0:
        raise ValueError(
            f"mean {tuple(mean)} and std {tuple(std)} must have one number each for "
            "every channel, std above 0."
        )
    path, transform = pathlib.Path(classes), (tuple(mean), tuple(std))
    if path.is_file():
        if not mean:
            raise ValueError(
                f"the transform is not known: {path} has class names alone. Say it "
                "with --mean and --std, or name the data set with --classes=NAME."
            )
        return Reference(path.stem, _names(path), *transform, len(mean))
    if mean and classes not in data.EMBEDDED:  # decodes no images
        found = sets.find(classes, folder)
        return Reference(classes, found.classes, *transform, found.shape[-1])
    info = data.load(classes, folder=folder, size=size).info
    transform = transform if mean else (info.mean, info.std)
    return Reference(classes, info.classes, *transform, info.shape[-1])


def _names(path) -> tuple[str, ...]:
    try:
        text = path.read_text()
        listed = text.lstrip().startswith("[")
        names = json.loads(text) if listed else text.splitlines()
        names = tuple(str(name).strip() for name in names)
        names = names if listed else tuple(name for name in names if name)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read class names from {path}: {error}.") from error
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{path} names no class, or one of them twice.")
    return names


# Class folders -----------------------------------------------------------------------


def from_folders(path, told: Reference, name: str, *, size: int = 0) -> StoredSet:
    """A set of class folders of JPEG or PNG files.

    Args:
      path: its folder.
      told: the class order and the transform.
      name: of the set, as it will be called.
      size: images are resized and cropped to it; 0 takes them as they are.

    Raises:
      ValueError: folders that cannot be put into the order of the classes, an image
        that cannot be decoded, images of several sizes and no `size`.
    """
    path = pathlib.Path(path)
    folders = sorted(p for p in path.iterdir() if p.is_dir() and p.name[0] != ".")
    order = _order([folder.name for folder in folders], told.classes, path)
    files, labels = [], []
    for folder in folders:
        own = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in _IMAGES]
        files += own
        labels += [order[folder.name]] * len(own)
    if not files:
        raise ValueError(f"{path}: no image (.jpg, .jpeg, .png) in its class folders.")
    images = _decoded(files, told.channels, size)
    about = {"layout": "class folders of images", "undone": "nothing"}
    return _stored(images, np.array(labels), told, name, path, about)


def _order(names, classes, path) -> dict[str, int]:
    """The label of each folder."""
    if set(names) == set(classes):
        return {name: classes.index(name) for name in names}
    parts = [re.fullmatch(r"(\D*)(\d+)", name) for name in names]
    if all(parts) and len({part[1] for part in parts}) == 1:
        numbers = [int(part[2]) for part in parts]
        if sorted(numbers) == list(range(len(classes))):
            return dict(zip(names, numbers))
    unknown = sorted(set(names) - set(classes))[:3]
    raise ValueError(
        f"{path}: its {len(names)} folders cannot be put into the order of the "
        f"{len(classes)} classes (such as {', '.join(unknown) or 'too few'}). Wanted are "
        f"folders called as the classes are ({', '.join(classes[:3])}, ...), or numbered "
        f"from 0 to {len(classes) - 1}, as new000 or 00000. Give the list of classes "
        "that the set was made with by --classes, or rename the folders."
    )


def _decoded(files, channels, size):
    """[N, H, W, ch] uint8."""
    first, images = {}, []
    for file in files:
        try:
            image = decode.decode(file.read_bytes(), channels or 3)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
        image = decode.resize_and_crop(image, size) if size else image
        first.setdefault(image.shape, file)
        images.append(image)
    if len(first) > 1:
        (a, i), (b, j) = list(first.items())[:2]
        raise ValueError(
            f"images of several sizes ({a[0]}x{a[1]} and {b[0]}x{b[1]}: {i} and {j}); "
            "set --size to resize and crop them, such as to 224."
        )
    return np.stack(images)


# Tensors -----------------------------------------------------------------------------


def from_tensors(
    path,
    told: Reference,
    name: str,
    *,
    undo: str,
    labels: str = "",
    which: int = 0,
    whitened: Dataset | None = None,
) -> StoredSet:
    """A set of tensors that `torch.save` wrote.

    Args:
      path: of the .pt file.
      told: the class order and the transform.
      name: of the set, as it will be called.
      undo: "normalisation" (pixels are x * std + mean), "zca", or "nothing" (they are
        in [0, 1] already).
      labels: the file of the labels, where they are in one of their own.
      which: of the sets in a file of several runs.
      whitened: for "zca", the Dataset whose images the whitening was fitted on,
        normalised by the transform before.

    Returns:
      StoredSet; in its record "clipped", the values that were outside [0, 1].

    Raises:
      ValueError: another layout, a shape or transform that does not fit, a file that
        is damaged or would run code.
    """
    images, found, layout = _tensors(path, labels, which)
    if not np.issubdtype(images.dtype, np.floating) or images.ndim != 4:
        raise ValueError(
            f"{path}: images are {images.dtype} {images.shape}; expected floats "
            "[N, ch, H, W]."
        )
    if images.shape[1] != len(told.mean):
        raise ValueError(
            f"{path}: images of {images.shape[1]} channels (the second of "
            f"{images.shape}), and mean and std have {len(told.mean)} numbers."
        )
    if not np.all(np.isfinite(images)):
        raise ValueError(f"{path}: an image has values that are not finite.")
    pixels = _undone(images.transpose(0, 2, 3, 1), told, undo, whitened, path)
    levels = np.rint(np.asarray(pixels, np.float64) * 255)
    outside = int(np.sum((levels < 0) | (levels > 255)))
    about = {
        "layout": layout,
        "undone": undo,
        "clipped": outside,
        "clipped_share": outside / levels.size,
    }
    images = np.clip(levels, 0, 255).astype(np.uint8)
    return _stored(images, found, told, name, pathlib.Path(path), about)


def _undone(images, told, undo, whitened, path):
    """Pixels, of which those in [0, 1] can be seen."""
    if undo == "nothing":
        return images
    if undo == "normalisation":
        return images * np.array(told.std) + np.array(told.mean)
    if undo != "zca" or whitened is None:
        raise ValueError(f"unknown undo {undo!r}; known: {', '.join(_UNDO)}.")
    if whitened.info.shape != images.shape[1:]:
        raise ValueError(
            f"{path}: images of {images.shape[1:]}, and the whitening's data set "
            f"{whitened.info.name} has {whitened.info.shape}."
        )
    fitted = zca.fit(whitened.images[:], mean=told.mean, std=told.std)
    return zca.invert(fitted, images.astype(np.float32))


def _tensors(path, labels, which):
    """(images, labels, what the layout is called) of one or two files."""
    found = _read(path)
    if "data/0/0" in found and not labels:
        count = sum(1 for key in found if re.fullmatch(r"data/\d+/0", key))
        if not 0 <= which < count:
            raise ValueError(
                f"{path} holds {count} sets, numbered from 0; got {which}."
            )
        if f"data/{which}/1" not in found:
            raise ValueError(f"{path}: set {which} has images and no labels.")
        layout = f"tensors of DC's line, set {which} of {count}"
        return (
            found[f"data/{which}/0"],
            _classes(found[f"data/{which}/1"], path),
            layout,
        )
    if set(found) == {""} and labels:
        other = _read(labels)
        if set(other) != {""}:
            raise ValueError(f"{labels} is not one tensor of labels.")
        return found[""], _classes(other[""], labels), "tensors of MTT's line"
    if set(found) == {""}:
        raise ValueError(
            f"{path} is one tensor, without labels; name their file with --labels, "
            "such as labels_best.pt beside images_best.pt."
        )
    raise ValueError(
        f"{path}: unknown layout, with tensors at {', '.join(list(found)[:4])}; known "
        "are {'data': [[images, labels], ...]}, and images and --labels in two files."
    )


def _read(path):
    try:
        with open(path, "rb") as file:
            return torch_file.read_all(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error


def _classes(labels, path):
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: labels are {labels.dtype} {labels.shape}; expected whole numbers "
            "[N]. Learned soft labels cannot be brought in."
        )
    return labels


def _stored(images, labels, told, name, path, about):
    """The checked set; each image weighs the same within its class."""
    info = DataInfo(told.name, told.classes, images.shape[1:], told.mean, told.std)
    known = np.maximum(labels, 0)  # those below are refused at the end
    weights = 1 / np.bincount(known)[known]
    about = {
        "arm": name,
        "method": f"brought in from {path.name}; see its authors' publication",
        "data": told.name,
        "image_bytes": int(images.nbytes),
        "licence": "that of the source, and of the data it was made from",
        **about,
    }
    stored = StoredSet(images, labels, weights, (), info, about)
    return checked(stored, str(path))

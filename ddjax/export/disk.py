"""A distilled set to disk and back; all or nothing."""

import contextlib
import io
import os
import pathlib
import shutil

import numpy as np

from ddjax import checkpoint, report
from ddjax.data.prepare import writing
from ddjax.export import card, forms
from ddjax.export.stored import StoredSet, checked, data_info, decoded

__all__ = ["FORMS", "describe", "load_distilled", "save_distilled"]

FORMS = tuple(forms.FORMS)
_CARD, _GRID, _MANIFEST = "README.md", "grid.png", "manifest.json"
_SHOWN = 10  # images of each class in the picture
_WIDE = 20  # classes in the picture


def load_distilled(path: str | os.PathLike, *, decode: bool = True) -> StoredSet:
    """Reads a distilled set: a run's recover folder, or any form that is exported.

    Nothing is unpickled, and what was damaged since it was written is refused.

    Args:
      path: the folder; of the npz form also the file.
      decode: whether images that hold several are taken apart, as networks are to see
        them (see `matching.mosaics`). Without, they come as they are stored.

    Returns:
      StoredSet, class-major, with everything needed to train on it.

    Raises:
      ValueError: no distilled set is there, or a damaged one.

    Example:
      >>> import ddjax
      >>> ddjax.load_distilled("nowhere")
      Traceback (most recent call last):
      ValueError: nowhere does not exist; expected the folder of a distilled set.
    """
    found = _load(pathlib.Path(path))
    return decoded(found) if decode else found


def _load(folder) -> StoredSet:
    """A set as it is stored."""
    if not folder.exists():
        raise ValueError(
            f"{folder} does not exist; expected the folder of a distilled set."
        )
    if folder.is_file():
        if folder.name != forms.NPZ:
            raise ValueError(
                f"{folder} is a file; expected a folder, or a file called {forms.NPZ}."
            )
        folder = folder.parent
    if (folder / forms.NPZ).exists():
        return forms.FORMS["npz"].read(folder)
    if (folder / forms.JSON).exists():
        form = str(forms.read_header(folder).get("form"))
        if form not in forms.FORMS:
            raise ValueError(
                f"{folder}: unknown form {form!r}; known: {', '.join(FORMS)}."
            )
        return forms.FORMS[form].read(folder)
    if (folder / _MANIFEST).exists():
        return _from_run(folder)
    raise ValueError(
        f"{folder} is no distilled set: it has neither {_MANIFEST} (of a run), nor "
        f"{forms.NPZ} or {forms.JSON} (exported). A run's sets lie in "
        "<workdir>/recover/; public ones are brought in by `python -m "
        "launch.import_set`."
    )


def _from_run(folder) -> StoredSet:
    """The set of a stage `recover`."""
    arrays, record = checkpoint.load(folder), checkpoint.record(folder)
    needed = {"images", "labels", "weights"}
    fields = {"data", "classes", "mean", "std"}
    if not needed <= set(arrays) or not fields <= set(record):
        raise ValueError(
            f"{folder} is another stage's artifact, not a distilled set; those lie in "
            "<workdir>/recover/."
        )
    try:
        info = data_info(record, arrays["images"].shape[1:])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / _MANIFEST} is damaged: {error}.") from error
    about = {key: value for key, value in record.items() if key not in fields}
    parts = (arrays[key] for key in ("images", "labels", "weights"))
    soft = arrays.get("soft_labels", ())
    return checked(StoredSet(*parts, soft, info, about), str(folder))


def save_distilled(
    stored: StoredSet, path: str | os.PathLike, form: str = "npz"
) -> pathlib.Path:
    """Writes a distilled set for others, with its card and a picture.

    The folder appears under its name when it is complete; nothing is overwritten.

    Args:
      stored: the set; sorted by class on the way.
      path: of the new folder.
      form: "folder" of PNGs by class, "npz", "tfds" or "parquet" (Hugging Face).

    Returns:
      The folder.

    Raises:
      ValueError: an unknown form, a set with holes, something at `path`, or a disk that
        is full or refuses.
    """
    if form not in forms.FORMS:
        raise ValueError(f"unknown form {form!r}; known: {', '.join(FORMS)}.")
    target = pathlib.Path(path)
    stored = checked(stored, "the set to save")
    if os.path.lexists(target):
        raise ValueError(f"{target} exists already; remove it, or choose another one.")
    try:
        with _appears_whole(target) as unfinished:
            forms.FORMS[form].write(unfinished, stored)
            _describe(unfinished, stored, form)
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the second
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise ValueError(
            f"cannot write {target}: {reason}. Nothing is left of it; make room, or "
            "choose another place, and run the same command again."
        ) from error
    return target


@contextlib.contextmanager
def _appears_whole(target):
    """A folder beside `target` that is renamed to it, or removed."""
    own = target.with_name(f".{target.name}.{os.getpid()}")
    own.parent.mkdir(parents=True, exist_ok=True)
    writing.remove_left(own.parent, target.name)
    try:
        own.mkdir()
        yield own
        os.rename(own, target)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def describe(folder: str | os.PathLike) -> None:
    """Writes the card of a run's set, and its picture, where there is none.

    Args:
      folder: of the finished stage.
    """
    folder = pathlib.Path(folder)
    if not (folder / _CARD).exists():
        _describe(folder, load_distilled(folder, decode=False), "run")


def _describe(folder, stored, form) -> None:
    if not (folder / _GRID).exists():
        picture = io.BytesIO()
        _picture(stored).savefig(picture, format="png")
        data = picture.getvalue()
        checkpoint.write_atomically(folder / _GRID, lambda file: file.write(data))
    # The card comes last: where it is, nothing is missing.
    text = card.text(stored, form, _parts(folder)).encode()
    checkpoint.write_atomically(folder / _CARD, lambda file: file.write(text))


def _parts(folder) -> dict[str, int]:
    """Bytes on disk: of the pixels' files, and of what stands beside them."""
    sizes = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).parts
        if name in {(_CARD,), (_GRID,)}:
            continue
        key = name[0] + ("/" if len(name) > 1 else "")
        sizes[key] = sizes.get(key, 0) + path.stat().st_size
    return sizes


def _picture(stored):
    """The first images of each class, a column for each."""
    shown = min(stored.info.num_classes, _WIDE)
    rows = [np.flatnonzero(stored.labels == label)[:_SHOWN] for label in range(shown)]
    count = min(map(len, rows))
    order = np.concatenate([np.array(own[:count]) for own in rows])
    order = order.reshape(shown, count).T.ravel()
    title = stored.about.get("arm", "distilled")
    return report.grid([(str(title), stored.images[order])], shown)

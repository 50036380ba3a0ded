"""Sets in TFDS's ArrayRecord form, written without TensorFlow, all or nothing."""

import contextlib
import glob
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator

import numpy as np

__all__ = ["appears_whole", "check_room", "remove_left", "write"]

_SHARD_BYTES = 1 << 28
_TOGETHER = 64  # images that are written at a time; TFDS then counts them on disk


def write(
    folder: pathlib.Path,
    name: str,
    classes: tuple[str, ...],
    shape: tuple,
    splits: dict[str, tuple[np.ndarray, Iterable[bytes]]],
    notes: dict,
    image_bytes: int = 1,
    further: dict[str, np.ndarray] | None = None,
) -> None:
    """Writes a whole set; TFDS's SequentialWriter needs no memory for it.

    Its builders would shuffle the examples, through TensorFlow's files where they are
    more than 1 GiB.

    Args:
      folder: there, and empty; its name is the version.
      name: of the set.
      classes: names in label order.
      shape: (H, W, ch) of all images; H and W None where they differ.
      splits: (labels [N], encoded images in the same order) of each split.
      notes: plain values for the set's metadata.json.
      image_bytes: of an image, about; decides how many make a shard.
      further: of a set with one split, more of each image by name: [N, ...] each.
    """
    import tensorflow_datasets as tfds  # slow to import

    identity = tfds.core.DatasetIdentity(
        name=name,
        version=tfds.core.Version(folder.name),
        data_dir=str(folder),
        module_name="ddjax.data.prepare",
    )
    further = further or {}
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape),
            "label": tfds.features.ClassLabel(names=classes),
        }
        | {
            key: tfds.features.Tensor(shape=array.shape[1:], dtype=array.dtype)
            for key, array in further.items()
        }
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features,
        supervised_keys=("image", "label"),
        disable_shuffling=True,
        metadata=tfds.core.MetadataDict(notes),
    )
    per_shard = max(1, _SHARD_BYTES // max(1, image_bytes))
    writer = tfds.core.SequentialWriter(info, per_shard, file_format="array_record")
    writer.initialize_splits(list(splits))
    try:
        for split, (labels, images) in splits.items():
            examples = (
                {"image": image, "label": int(label), **dict(zip(further, more))}
                for label, image, *more in zip(
                    labels, images, *further.values(), strict=True
                )
            )
            while group := list(itertools.islice(examples, _TOGETHER)):
                writer.add_examples({split: group})
            np.save(folder / f"labels-{split}.npy", labels.astype(np.int32))
    finally:
        writer.close_all()


@contextlib.contextmanager
def appears_whole(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write to, which becomes `target` at the end and is removed otherwise.

    Args:
      target: <kept>/<name>/<version>; what is there is replaced.
    """
    kept, name = target.parent.parent, target.parent.name
    kept.mkdir(parents=True, exist_ok=True)
    remove_left(kept, name)
    own = kept / f".{name}.{os.getpid()}"
    new, old = own / target.name, own / "replaced"
    try:
        new.mkdir(parents=True)
        yield new
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(new, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(own, ignore_errors=True)
        with contextlib.suppress(OSError):
            target.parent.rmdir()  # only an empty one goes


def remove_left(kept: pathlib.Path, name: str) -> None:
    """Removes the folders `kept`/.<name>.<process> of processes that were killed."""
    for left in kept.glob(f".{glob.escape(name)}.*"):
        if not _runs(left.suffix[1:]):
            shutil.rmtree(left, ignore_errors=True)


def check_room(kept: pathlib.Path, num_bytes: int) -> None:
    """Refuses to begin what the disk has no room for.

    Raises:
      ValueError: says what is needed and what is free.
    """
    there = next(p for p in (kept, *kept.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes:
        raise ValueError(
            f"the set needs {num_bytes / 2**20:.0f} MiB, and {kept} has "
            f"{free / 2**20:.0f} MiB free; make room, or choose another --folder."
        )


def _runs(pid):
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True

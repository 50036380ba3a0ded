"""Makes a data set ready: one that TFDS knows by name, or the user's own images.

    python -m launch.prepare --name=cifar10
    python -m launch.prepare --source=PATH --name=mine

PATH is a folder of class folders (`train/<class>/*.jpg` and `test/<class>/*.jpg`, or
`<class>/*.jpg` alone), a zip file of one, or a folder of Parquet files. The set is
written to <folder>/<name>/<version>/; --config.data.name=mine then trains on it.
"""

import contextlib
import pathlib

from absl import flags, logging

from ddjax.data import prepare, sets
from launch import command, progress

_SOURCE = flags.DEFINE_string(
    "source", "", "Your images; without it, --name is a set of tensorflow-datasets."
)
_NAME = flags.DEFINE_string("name", "", "What the set is called.")
_FOLDER = flags.DEFINE_string(
    "folder", "", "Where sets are kept; $TFDS_DATA_DIR or ~/tensorflow_datasets."
)
_MANUAL = flags.DEFINE_string(
    "manual", "", "Where archives lie that you have fetched by hand."
)
_OWN = {
    "size": flags.DEFINE_integer(
        "size", 0, "Store images resized and cropped to it, as PNG; 0: as they are."
    ),
    "test_share": flags.DEFINE_float(
        "test_share", 0.2, "Drawn of each class for testing, if there is no split."
    ),
    "on_error": flags.DEFINE_enum(
        "on_error", "stop", ["stop", "skip"], "At an image that cannot be decoded."
    ),
    "overwrite": flags.DEFINE_bool(
        "overwrite", False, "Replace a set of the name from another source."
    ),
}
_SHOWN = 5  # classes that are named


def main() -> None:
    """Prepares one set and says what is in it."""
    if not _NAME.value:
        raise ValueError("no --name given; it is what the set is called.")
    unused = [_MANUAL] if _SOURCE.value else _OWN.values()
    for flag in unused:
        if flags.FLAGS[flag.name].present:
            kind = "a named set" if _SOURCE.value else "your own images (--source)"
            raise ValueError(f"--{flag.name} is for {kind}; leave it away.")
    with contextlib.closing(_Observer()) as observe:
        folder = _prepare(observe)
    if _SOURCE.value and not observe.called:
        logging.info("It is prepared already, from the same source: nothing to do.")
    print("\n".join(summary(folder, _NAME.value, _FOLDER.value)))


def _prepare(observe):
    if _SOURCE.value:
        options = {name: flag.value for name, flag in _OWN.items()}
        return prepare.from_source(
            _SOURCE.value, _NAME.value, _FOLDER.value, observe=observe, **options
        )
    kept = str(sets.kept_in(_FOLDER.value))
    return prepare.by_name(_NAME.value, kept, _MANUAL.value, logging.info)


class _Observer:
    """A bar for the check of the images, and one for the writing."""

    def __init__(self):
        self.called, self._what, self._bar = False, None, None

    def __call__(self, what: str, done: int, total: int) -> None:
        self.called = True
        if what != self._what:
            self.close()
            self._what, self._bar = what, progress.bar(what, total, unit="image")
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def summary(folder: pathlib.Path, name: str, kept: str = "") -> list[str]:
    """What a prepared set holds, in lines.

    Args:
      folder: of the set, with its version.
      name: that it is loaded by.
      kept: the --folder it was prepared in.
    """
    prepared, notes = sets.describe(folder), sets.notes(folder)
    splits = [f"{split} {sum(n):,}" for split, n in prepared.lengths.items()]
    drawn = ", drawn from the only split" if notes.get("test_drawn") else ""
    classes = ", ".join(prepared.classes[:_SHOWN])
    more = ", ..." if len(prepared.classes) > _SHOWN else ""
    lines = [
        f"{name} lies in {folder}",
        f"  images   {', '.join(splits)}{drawn}",
        f"  classes  {len(prepared.classes)}: {classes}{more}",
        f"  pixels   {_pixels(prepared, notes)}",
        f"  bytes    {sum(prepared.num_bytes.values()) / 2**20:,.1f} MiB",
    ]
    if notes.get("encoded_anew"):
        lines.append(f"  as PNG   {notes['encoded_anew']:,} images")
    if notes.get("skipped"):
        lines.append(f"  skipped  {notes['skipped']:,} images that cannot be decoded:")
        lines += [f"    {told}" for told in notes["skipped_files"]]
    use = f"--config.data.name={name}" + (
        f" --config.data.folder={kept}" if kept else ""
    )
    if None in prepared.shape:
        use += " --config.data.size=224"
    return [*lines, f"Use it with {use}"]


def _pixels(prepared, notes):
    """Sizes and channels."""
    *sides, channels = prepared.shape
    colour = "grey" if channels == 1 else "RGB"
    if None not in sides:
        return f"{sides[0]}x{sides[1]}, {colour}"
    if "smallest" not in notes:
        return f"of several sizes, {colour}"
    (h, w), (height, width) = notes["smallest"], notes["largest"]
    return f"{h}x{w} to {height}x{width} (height x width), {colour}"


if __name__ == "__main__":
    command.main(
        main,
        ("source", "name", "folder", "manual", *_OWN),
        stopped="Nothing is left of the unfinished set; the same command begins again.",
    )

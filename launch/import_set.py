"""Brings a public distilled set in, so that it can be scored and exported like ours.

    python -m launch.import_set --source=syn_data --classes=imagenette --name=rded \
        --out=sets/rded
    python -m launch.import_set --source=res_DM.pt --classes=cifar10 --name=dm \
        --mean=0.4914,0.4822,0.4465 --std=0.2023,0.1994,0.2010 --out=sets/dm
    python -m launch.import_set --source=images_best.pt --labels=labels_best.pt \
        --zca=cifar10 --classes=cifar10 --name=mtt --out=sets/mtt

The source is a folder of class folders (SRe2L, RDED), or tensors of PyTorch (DC, DM,
MTT), which are read as data and never unpickled. How its pixels were transformed, and in
which order its classes are, must be said: no file has it.
"""

import pathlib

from absl import flags

from ddjax import data, export
from ddjax.export import public
from launch import command
from launch.export import summary

_FLAGS = (
    (flags.DEFINE_string, "source", "", "The folder, or the .pt file of images."),
    (flags.DEFINE_string, "name", "", "What the set is called."),
    (flags.DEFINE_string, "out", "", "The new folder."),
    (flags.DEFINE_enum, "to", "npz", ("npz", "folder"), "The form to write."),
    (
        flags.DEFINE_string,
        "classes",
        "",
        "A file of class names in label order, or a data set's name.",
    ),
    (flags.DEFINE_list, "mean", [], "The transform's, per channel of [0, 1]."),
    (flags.DEFINE_list, "std", [], "Likewise."),
    (flags.DEFINE_string, "folder", "", "Where prepared data sets are kept."),
    (
        flags.DEFINE_integer,
        "size",
        0,
        "Of the images in folders, and of the named data set; 0: as they are.",
    ),
    (flags.DEFINE_string, "labels", "", "The .pt file of the labels."),
    (
        flags.DEFINE_enum,
        "pixels",
        "normalised",
        ("normalised", "unit"),
        "What tensors hold: values normalised by --mean and --std, or in [0, 1].",
    ),
    (
        flags.DEFINE_string,
        "zca",
        "",
        "The data set that the ZCA whitening of tensors was fitted on.",
    ),
    (flags.DEFINE_integer, "which", 0, "Of the sets in a file of several."),
)


def main(source: str, name: str, out: str, to: str, **options) -> None:
    """Brings one set in and says what is in it.

    Args:
      source: the folder or file.
      name: of the set.
      out: the new folder.
      to: its form.
      **options: the other flags.
    """
    for flag, value in (("source", source), ("name", name), ("out", out)):
        if not value:
            raise ValueError(f"no --{flag} given; see --help.")
    path = pathlib.Path(source)
    if not path.exists():
        raise ValueError(f"the source {path} does not exist.")
    read = _from_folders if path.is_dir() else _from_tensors
    stored = read(path, name, **options)
    print("\n".join(summary(stored, export.save_distilled(stored, out, to))))
    if stored.about.get("clipped"):
        print(
            f"Clipped were {stored.about['clipped']:,} values outside [0, 1] "
            f"({stored.about['clipped_share']:.2%}). Many of them mean that the "
            "transform is another one, or that the method keeps to no range."
        )


def _from_folders(path, name, *, labels, pixels, zca, which, **said):
    if labels or zca or which or pixels == "unit":
        raise ValueError(
            f"--labels, --pixels, --zca and --which are for tensors, and {path} is a "
            "folder; leave them away."
        )
    return public.from_folders(path, _reference(**said), name, size=said["size"])


def _from_tensors(path, name, *, labels, pixels, zca, which, **said):
    unit = pixels == "unit"
    if zca and unit:
        raise ValueError("--zca and --pixels=unit exclude one another.")
    if not (zca or unit or said["mean"]):
        raise ValueError(
            f"the transform is not known: {path} does not say how its values became "
            "what they are. Say it with --mean and --std (such as "
            "--mean=0.4914,0.4822,0.4465 --std=0.2023,0.1994,0.2010), with --zca=NAME "
            "of the data set that was whitened, or with --pixels=unit."
        )
    told, whitened = _reference(**said), None
    if zca:
        whitened = data.load(zca, folder=said["folder"], size=said["size"])
    undo = "zca" if zca else "nothing" if unit else "normalisation"
    return public.from_tensors(
        path, told, name, undo=undo, labels=labels, which=which, whitened=whitened
    )


def _reference(classes, mean, std, folder, size):
    try:
        numbers = [tuple(map(float, values)) for values in (mean, std)]
    except ValueError as error:
        raise ValueError(
            f"--mean and --std must be numbers with commas between them; {error}."
        ) from error
    return public.reference(classes, *numbers, folder=folder, size=size)


if __name__ == "__main__":
    command.main_with(_FLAGS, main, stopped="Nothing is left of the unfinished set.")

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

_SOURCE = flags.DEFINE_string("source", "", "The folder, or the .pt file of images.")
_NAME = flags.DEFINE_string("name", "", "What the set is called.")
_OUT = flags.DEFINE_string("out", "", "The new folder.")
_TO = flags.DEFINE_enum("to", "npz", ("npz", "folder"), "The form to write.")
_CLASSES = flags.DEFINE_string(
    "classes", "", "A file of class names in label order, or a data set's name."
)
_MEAN = flags.DEFINE_list("mean", [], "The transform's, per channel of [0, 1].")
_STD = flags.DEFINE_list("std", [], "Likewise.")
_FOLDER = flags.DEFINE_string("folder", "", "Where prepared data sets are kept.")
_SIZE = flags.DEFINE_integer(
    "size", 0, "Of the images (and of the named data set); 0: as they are."
)
_OF_TENSORS = {
    "labels": flags.DEFINE_string("labels", "", "The .pt file of the labels."),
    "pixels": flags.DEFINE_enum(
        "pixels",
        "normalised",
        ("normalised", "unit"),
        "What the values are: normalised by --mean and --std, or in [0, 1].",
    ),
    "zca": flags.DEFINE_string(
        "zca", "", "The data set that the ZCA whitening was fitted on."
    ),
    "which": flags.DEFINE_integer("which", 0, "Of the sets in a file of several."),
}


def main() -> None:
    """Brings one set in and says what is in it."""
    for flag in (_SOURCE, _NAME, _OUT):
        if not flag.value:
            raise ValueError(f"no --{flag.name} given; see --help.")
    source = pathlib.Path(_SOURCE.value)
    if not source.exists():
        raise ValueError(f"the source {source} does not exist.")
    stored = _from_folders(source) if source.is_dir() else _from_tensors(source)
    folder = export.save_distilled(stored, _OUT.value, _TO.value)
    print("\n".join(summary(stored, folder)))
    if stored.about.get("clipped"):
        print(
            f"Clipped were {stored.about['clipped']:,} values outside [0, 1] "
            f"({stored.about['clipped_share']:.2%}). Many of them mean that the "
            "transform is another one, or that the method keeps to no range."
        )


def _from_folders(source):
    for name, flag in _OF_TENSORS.items():
        if flags.FLAGS[name].present:
            raise ValueError(
                f"--{flag.name} is for tensors, and {source} is a folder; leave it away."
            )
    told = _reference(_SIZE.value)
    return public.from_folders(source, told, _NAME.value, size=_SIZE.value)


def _from_tensors(source):
    fitted_on = _OF_TENSORS["zca"].value
    unit = _OF_TENSORS["pixels"].value == "unit"
    if fitted_on and unit:
        raise ValueError("--zca and --pixels=unit exclude one another.")
    if not (fitted_on or unit or _MEAN.value):
        raise ValueError(
            f"the transform is not known: {source} does not say how its values became "
            "what they are. Say it with --mean and --std (such as "
            "--mean=0.4914,0.4822,0.4465 --std=0.2023,0.1994,0.2010), with --zca=NAME "
            "of the data set that was whitened, or with --pixels=unit."
        )
    told = _reference(_SIZE.value)
    whitened = None
    if fitted_on:
        whitened = data.load(fitted_on, folder=_FOLDER.value, size=_SIZE.value)
    return public.from_tensors(
        source,
        told,
        _NAME.value,
        undo="zca" if fitted_on else "nothing" if unit else "normalisation",
        labels=_OF_TENSORS["labels"].value,
        which=_OF_TENSORS["which"].value,
        whitened=whitened,
    )


def _reference(size):
    numbers = []
    for flag in (_MEAN, _STD):
        try:
            numbers.append(tuple(float(number) for number in flag.value))
        except ValueError as error:
            raise ValueError(
                f"--{flag.name}={','.join(flag.value)} are no numbers; expected one "
                "for each channel, with commas."
            ) from error
    return public.reference(_CLASSES.value, *numbers, folder=_FOLDER.value, size=size)


if __name__ == "__main__":
    command.main(
        main,
        ("source", "name", "out", "to", "classes", "mean", "std", "folder", "size")
        + tuple(_OF_TENSORS),
        stopped="Nothing is left of the unfinished set.",
    )

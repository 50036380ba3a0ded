"""Named data sets of tensorflow-datasets, prepared as ArrayRecord without TensorFlow.

    by_name("cifar10", folder)  ->  folder/cifar10/3.0.2/

Tried with archives of few images: mnist, fashion_mnist, cifar10, cifar100,
svhn_cropped, imagenette, imagenet2012 and cats_vs_dogs. By their sources, most of the
77 sets of TFDS with an image and a class ask no more of TensorFlow than these do;
cifar10_h, dmlab, imagenet2012_corrupted and sun397 do, and are refused with a reason.
"""

import contextlib
import difflib
import fcntl
import os
import pathlib
import re
import shlex
import shutil
from collections.abc import Callable

from ddjax.data import sets
from ddjax.data.prepare import archives, no_tensorflow

__all__ = ["by_name"]


def by_name(
    name: str, folder: str, manual: str = "", observe: Callable | None = None
) -> pathlib.Path:
    """Makes a named set ready to be read; does nothing where it is ready.

    Archives are looked for in `manual`, then downloaded. The set is written to a folder
    of its own and renamed when it is complete, so that a killed run leaves nothing that
    counts as prepared; what it leaves is removed by the next run.

    Args:
      name: of TFDS, such as "cifar10" or "imagenette/320px-v2".
      folder: where sets are kept.
      manual: where archives put there by hand are; "" is `folder`/downloads/manual.
        Sets whose files have the same names (mnist, fashion_mnist) may have folders of
        their own in it, named after the set.
      observe: called with lines that say what is being done.

    Returns:
      The folder of the prepared set, for `tfds.builder_from_directory`.

    Raises:
      ValueError: an unknown name; a set without images and labels; an archive that is
        missing and cannot be downloaded, or is not what it should be; too small a
        disk; a builder that needs TensorFlow or another package; a folder that is
        incomplete or in another format.
    """
    root = pathlib.Path(folder).expanduser().absolute()
    by_hand = pathlib.Path(manual or root / "downloads" / "manual")
    by_hand = by_hand.expanduser().absolute()
    command = ["python", "-m", "launch.prepare", f"--name={name}", f"--folder={root}"]
    command += [f"--manual={by_hand}"] if manual else []
    repeat = shlex.join(command)
    observe = observe or (lambda line: None)
    with no_tensorflow.stand_in(name):
        builder = _builder(name, root)
        sets.image_and_label(builder.info)
        path = pathlib.Path(builder.data_path)
        if not _complete(builder, path):
            if (by_hand / builder.name).is_dir():
                by_hand = by_hand / builder.name
            archives.require_manual(builder, by_hand, repeat)
            archives.watch(builder, by_hand, repeat, observe)
            with _alone(root, builder.name, observe):
                if not path.exists():  # nobody else has made it meanwhile
                    _make(builder, root, by_hand, repeat, observe)
    return path


def _builder(name: str, root: pathlib.Path):
    """TFDS's builder of a set, or the reader of one that is in the folder."""
    import tensorflow_datasets as tfds  # slow to import

    base = re.split("[/:]", name)[0]
    try:
        if not re.fullmatch(r"\w+([/:][\w.,:=/*-]*[\w*])?", name):
            raise tfds.core.DatasetNotFoundError(name)
        return tfds.builder(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(base, known, n=5, cutoff=0.5)
        like = f"did you mean {', '.join(close)}?" if close else "none is alike."
        raise ValueError(
            f"unknown data set {name!r}: it is neither in {root} nor among the "
            f"{len(known)} of tensorflow-datasets; {like}"
        ) from None
    except Exception as error:  # an unknown version or configuration, a package missing
        message = f"{name}: {str(error).splitlines()[0]}"
        if "BuilderConfig" in message:
            configs = ", ".join(tfds.builder_cls(base).builder_configs) or "none"
            message += f" Configurations of {base}: {configs}."
        raise ValueError(message) from error


def _complete(builder, path: pathlib.Path) -> bool:
    """Whether the set is there; refuses half of one."""
    if not path.exists():
        return False
    again = f"Remove the folder {path}, and prepare the set again."
    if not (path / "dataset_info.json").exists():
        raise ValueError(f"{path} is there, and is no prepared set. {again}")
    kind = builder.info.file_format.value
    if kind != "array_record":
        raise ValueError(
            f"{path} holds {kind} files, and ddjax reads array_record. {again} Another "
            "--folder does as well."
        )
    files = [f for split in builder.info.splits.values() for f in split.filepaths]
    missing = [f for f in files if not pathlib.Path(f).exists()]
    if missing or not files:
        first = f", the first {pathlib.Path(missing[0]).name}" if missing else ""
        raise ValueError(
            f"{path} is incomplete: {len(missing)} of {len(files)} files are "
            f"missing{first}. {again}"
        )
    return True


@contextlib.contextmanager
def _alone(root: pathlib.Path, name: str, observe: Callable):
    """One process at a time prepares a set; a killed one holds nobody up."""
    lock = root / "downloads" / f"{name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise ValueError(
            f"cannot write to {lock.parent}: {error.strerror}. Choose another --folder."
        ) from error
    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            observe(f"{name}: waiting for another process that prepares it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(builder, root, manual, repeat, observe) -> None:
    """Prepares a set, and leaves nothing of an attempt that failed."""
    import tensorflow_datasets as tfds  # slow to import

    config = tfds.download.DownloadConfig(
        manual_dir=manual, extract_dir=_extracted(builder, root)
    )
    _clean(builder, root)  # what a killed process left
    observe(f"{builder.name}: preparing {builder.data_path}")
    try:
        with (
            archives.few_retries(),
            archives.own_threads(),
            _explained(builder, manual, repeat),
        ):
            builder.download_and_prepare(
                download_dir=root / "downloads",
                download_config=config,
                file_format="array_record",
            )
    finally:
        _clean(builder, root)


def _extracted(builder, root: pathlib.Path) -> pathlib.Path:
    """Where the archives of this set alone are unpacked."""
    return root / "downloads" / "extracted" / builder.name


def _clean(builder, root: pathlib.Path) -> None:
    """Removes unpacked archives, half of a download and half of a set."""
    shutil.rmtree(_extracted(builder, root), ignore_errors=True)
    versions = pathlib.Path(builder.data_path).parent
    unfinished = [*versions.glob("incomplete.*")]
    # Not rglob: TFDS's threads remove some of these while we look.
    for folder, inner, _ in os.walk(root / "downloads" / builder.name):
        unfinished += [pathlib.Path(folder, name) for name in inner if ".tmp." in name]
    for path in unfinished:
        shutil.rmtree(path, ignore_errors=True)
    for path in (versions, *versions.parents):
        if root not in path.parents:
            break
        if path.is_dir():
            if any(inner.name != ".config" for inner in path.iterdir()):
                break
            shutil.rmtree(path)


@contextlib.contextmanager
def _explained(builder, manual, repeat):
    """Errors of TFDS as a ValueError that says what to do."""
    import requests
    from tensorflow_datasets import download
    from tensorflow_datasets.core.download import download_manager  # slow to import

    name = builder.name
    try:
        yield
    except download_manager.NonMatchingChecksumError as error:
        what = str(error).partition("\nTo debug")[0]
        raise ValueError(
            f"{name}: {what}\nThe file is damaged, or another one is offered now: get "
            f"it again, into {manual}, and run: {repeat}"
        ) from error
    except (requests.exceptions.RequestException, download.DownloadError) as error:
        raise ValueError(
            f"{name}: a download failed: {error}\nRun the command again (files that "
            f"are complete are kept), or put the file into {manual}: {repeat}"
        ) from error
    except ModuleNotFoundError as error:
        if error.name == "tensorflow":
            raise  # the stand-in has more to say
        raise ValueError(
            f"{name}: this set's builder needs the package {error.name}; install it, "
            f"and run: {repeat}"
        ) from error
    except (AssertionError, FileNotFoundError) as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise
        raise ValueError(
            f"{name}: {error}\nLook into the folder {manual}, and run: {repeat}"
        ) from error
    except Exception as error:  # the disk is full: OSError, ExtractError, RuntimeError
        if not re.search("No space left|disk space", str(error)):
            raise
        raise ValueError(
            f"{name}: {error}\nMake room, or choose another --folder, and run: {repeat}"
        ) from error

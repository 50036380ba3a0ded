"""TFDS's own builders, run without TensorFlow.

A builder of images asks little of TensorFlow: to open and list files, to make text of
bytes, to encode an image. All modules of TFDS reach it through one object, which
imports it on first use; so one place is enough to put a small stand-in.
"""

import contextlib
import glob
import importlib.util
import io
import os
import resource
import shutil

import numpy as np

__all__ = ["stand_in"]

# TFDS shuffles a large set through 1000 files, all open at once, and 1024 is the usual
# limit of a process. It may raise it itself, up to the hard one.
_MANY_FILES = 4096


@contextlib.contextmanager
def stand_in(name: str):
    """While it is entered, TFDS finds what its builders need where TensorFlow was.

    Does nothing where TensorFlow is installed. All is as it was afterwards.

    Args:
      name: the data set, for the messages.

    Raises:
      ValueError: a builder asked for something of TensorFlow that is not here.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    from tensorflow_datasets.core.utils import lazy_imports_utils  # slow to import

    # A LazyModule keeps the module it has imported under this name; a stand-in among
    # `sys.modules` would be found by other packages too, which look up its `__spec__`.
    lazy = vars(lazy_imports_utils.tensorflow)
    lazy["_module"] = _tensorflow()
    try:
        with _many_files():
            yield
    except Exception as error:
        wanted = _asked_for(error)
        if wanted is None:
            raise
        raise ValueError(
            f"{name}: this set's builder needs TensorFlow to be prepared (it asks for "
            f"{wanted}): `pip install tensorflow`, once, on any machine, and prepare "
            "it there; the prepared set is then read without it."
        ) from error
    finally:
        del lazy["_module"]


@contextlib.contextmanager
def _many_files():
    """While it is entered, this process may open some thousand files."""
    unlimited = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if unlimited != soft < _MANY_FILES:
        most = _MANY_FILES if hard == unlimited else min(_MANY_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _MissingError(AttributeError):
    """A builder asked for what the stand-in does not have."""

    def __init__(self, wanted: str):
        super().__init__(wanted)
        self.wanted = wanted


def _asked_for(error: BaseException | None) -> str | None:
    """What of TensorFlow was missing, if that is behind an error."""
    while error is not None:
        if isinstance(error, _MissingError):
            return error.wanted
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            return error.name
        error = error.__cause__ or error.__context__
    return None


class _Part:
    """A part of TensorFlow: the members it is given, and no other."""

    def __init__(self, name: str, **members):
        vars(self).update(members, _name=name)

    def __getattr__(self, member):
        if member.startswith("__"):
            raise AttributeError(member)  # Python itself is asking
        raise _MissingError(f"{self._name}.{member}")


def _tensorflow() -> _Part:
    gfile = _Part(
        "tf.io.gfile",
        GFile=_open,
        copy=lambda source, target, overwrite=False: shutil.copyfile(source, target),
        exists=os.path.exists,
        glob=lambda pattern: sorted(glob.glob(os.fspath(pattern))),
        isdir=os.path.isdir,
        listdir=lambda path: sorted(os.listdir(path)),
        makedirs=lambda path: os.makedirs(path, exist_ok=True),
        mkdir=os.mkdir,
        remove=os.remove,
        rename=lambda source, target, overwrite=False: os.replace(source, target),
        rmtree=shutil.rmtree,
        walk=os.walk,
    )
    # They stand in `except` clauses, next to calls that raise Python's own errors here.
    errors = ("Aborted", "FailedPrecondition", "OutOfRange", "PermissionDenied")
    errors += ("ResourceExhausted", "Unimplemented")
    return _Part(
        "tf",
        compat=_Part(
            "tf.compat", as_bytes=_as_bytes, as_str=_as_text, as_text=_as_text
        ),
        errors=_Part(
            "tf.errors", **{f"{e}Error": type(e, (Exception,), {}) for e in errors}
        ),
        executing_eagerly=lambda: True,
        image=_Part(
            "tf.image",
            decode_image=_decode,
            decode_jpeg=_decode,
            decode_png=_decode,
            encode_jpeg=_encode_jpeg,
            encode_png=_encode_png,
        ),
        io=_Part("tf.io", encode_jpeg=_encode_jpeg, gfile=gfile),
        shape=np.shape,
    )


def _open(path, mode: str = "r"):
    """GFile: text is UTF-8, and ends of lines stay what they are."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    return open(path, mode, **text)


def _as_text(value, encoding: str = "utf-8") -> str:
    return value.decode(encoding) if isinstance(value, bytes) else value


def _as_bytes(value, encoding: str = "utf-8") -> bytes:
    return value.encode(encoding) if isinstance(value, str) else value


class _Pixels(np.ndarray):
    """A decoded image, [h, w, ch], that gives its array as a tensor would."""

    def numpy(self) -> np.ndarray:
        return self.view(np.ndarray)


class _Encoded(bytes):
    """An encoded image, likewise."""

    def numpy(self) -> bytes:
        return bytes(self)


def _encode_png(image) -> _Encoded:
    return _encoded(image, "PNG")


def _encode_jpeg(image, format: str = "", quality: int = 95) -> _Encoded:
    del format  # the channels say it
    return _encoded(image, "JPEG", quality=quality)


def _encoded(image, kind: str, **options) -> _Encoded:
    from PIL import Image  # slow to import

    image = np.asarray(image)
    file = io.BytesIO()
    image = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(image).save(file, kind, **options)
    return _Encoded(file.getvalue())


def _decode(contents: bytes, channels: int = 0) -> _Pixels:
    from PIL import Image  # slow to import

    with Image.open(io.BytesIO(contents)) as image:
        if channels:
            image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
        elif image.mode not in ("L", "LA", "RGB", "RGBA"):
            image = image.convert("RGB")  # CMYK, a palette
        pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels.view(_Pixels)

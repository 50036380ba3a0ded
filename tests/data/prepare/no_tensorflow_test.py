"""The stand-in for TensorFlow: what it has, what it refuses, and that it goes again."""

import importlib.util
import io
import os
import resource
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.utils import image_utils
from tensorflow_datasets.core.utils import lazy_imports_utils as lazy

from ddjax.data.prepare import named, no_tensorflow


class OfTensors(tfds.core.GeneratorBasedBuilder):
    """Asks for what the stand-in does not have, in the place `asks`."""

    VERSION = tfds.core.Version("1.0.0")
    asks = ""

    def _info(self):
        if self.asks == "info":
            lazy.tensorflow.constant(1)
        features = {
            "image": tfds.features.Image(shape=(4, 4, 3)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        if self.asks == "splits":
            lazy.tensorflow.data.TFRecordDataset("records")
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(600):
            image = np.full((4, 4, 3), i % 256, np.uint8)
            if self.asks == "examples" and i == 5:
                image = lazy.tensorflow.image.resize(image, (8, 8))
            yield i, {"image": image, "label": i % 2}


@pytest.fixture
def entered():
    with no_tensorflow.stand_in("a set"):
        yield lazy.tensorflow


class TestRefusal:
    @pytest.mark.parametrize(
        ("asks", "wanted"),
        [
            ("info", "tf.constant"),
            ("splits", "tf.data"),
            ("examples", "tf.image.resize"),
        ],
    )
    def test_says_what_was_asked_and_what_to_do(
        self, monkeypatch, tmp_path, asks, wanted
    ):
        monkeypatch.setattr(OfTensors, "asks", asks)
        with pytest.raises(ValueError, match="needs TensorFlow") as caught:
            named.by_name("of_tensors", tmp_path)
        assert f"(it asks for {wanted})" in str(caught.value)
        assert "`pip install tensorflow`" in str(caught.value)
        assert not list(tmp_path.rglob("*1.0.0*"))

    def test_tensorflow_imported_by_its_name(self):
        with (
            pytest.raises(ValueError, match="it asks for tensorflow"),
            no_tensorflow.stand_in("a set"),
        ):
            import tensorflow  # noqa: F401

    def test_other_errors_are_left_alone(self):
        with (
            pytest.raises(AttributeError, match="nothing"),
            no_tensorflow.stand_in("a set"),
        ):
            raise AttributeError("nothing to do with it")

    def test_asking_whether_it_is_there_is_allowed(self, entered):
        assert not hasattr(entered, "keras")
        assert hasattr(entered.io.gfile, "GFile")


class TestRestored:
    def check(self):
        assert "_module" not in vars(lazy.tensorflow)
        assert "tensorflow" not in sys.modules
        for name, module in sorted(sys.modules.items()):
            if name.startswith("tensorflow_datasets.") and "tf" in vars(module):
                assert vars(module)["tf"] is lazy.tensorflow, name
        with pytest.raises(ModuleNotFoundError):
            lazy.tensorflow.constant(1)

    def test_after_a_set_was_prepared(self, tmp_path):
        assert len(list(named.by_name("of_tensors", tmp_path).iterdir())) > 2
        self.check()

    def test_after_an_error(self):
        with pytest.raises(KeyboardInterrupt), no_tensorflow.stand_in("a set"):
            raise KeyboardInterrupt
        self.check()

    def test_tensorflow_itself_is_used_where_it_is(self, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n: n == "tensorflow" or find(n)
        )
        with no_tensorflow.stand_in("a set"):
            assert "_module" not in vars(lazy.tensorflow)


class TestImages:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_png_is_read_by_opencv_as_it_was(self, entered, channels):
        shape = (7, 5, channels)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        feature = tfds.features.Image(shape=shape)
        got = cv2.imdecode(
            np.frombuffer(feature.encode_example(pixels), np.uint8),
            cv2.IMREAD_UNCHANGED,
        )
        if channels > 1:
            got = cv2.cvtColor(
                got, [cv2.COLOR_BGR2RGB, cv2.COLOR_BGRA2RGBA][channels - 3]
            )
        np.testing.assert_array_equal(got.reshape(shape), pixels)

    def test_sixteen_bits_and_floats(self, entered):
        pixels = np.arange(6, dtype=np.uint16).reshape(2, 3, 1) * 10000
        feature = tfds.features.Image(shape=pixels.shape, dtype=np.uint16)
        data = np.frombuffer(feature.encode_example(pixels), np.uint8)
        got = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(got, pixels[..., 0])
        floats = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3, 1)
        feature = tfds.features.Image(shape=floats.shape, dtype=np.float32)
        with Image.open(io.BytesIO(feature.encode_example(floats))) as image:
            bits = np.asarray(image)
        np.testing.assert_array_equal(bits.copy().view(np.float32), floats)

    def test_jpeg(self, entered):
        pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
        feature = tfds.features.Image(shape=(16, 16, 3), encoding_format="jpeg")
        data = feature.encode_example(pixels)
        assert data[:3] == b"\xff\xd8\xff"
        got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_allclose(got[..., ::-1], pixels, atol=3)

    @pytest.mark.parametrize(
        ("mode", "shape"),
        [("L", (4, 6, 1)), ("P", (4, 6, 3)), ("RGBA", (4, 6, 4)), ("CMYK", (4, 6, 3))],
    )
    def test_decoding_keeps_the_channels_of_an_image(self, entered, mode, shape):
        file = io.BytesIO()
        kind = "JPEG" if mode == "CMYK" else "PNG"
        Image.new("RGB", (6, 4), (90, 60, 30)).convert(mode).save(file, kind)
        assert image_utils.decode_image(file.getvalue()).shape == shape

    def test_cmyk_becomes_rgb_as_opencv_reads_it(self, entered):
        file = io.BytesIO()
        Image.new("CMYK", (16, 16), (40, 200, 90, 30)).save(file, "JPEG", quality=100)
        wanted = cv2.imdecode(
            np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR
        )[..., ::-1]
        data = tfds.core.utils.jpeg_cmyk_to_rgb(file.getvalue())
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGB"
            np.testing.assert_allclose(np.asarray(image, int), wanted, atol=4)


class TestFiles:
    def test_text_is_utf8_and_keeps_its_ends_of_lines(self, entered, tmp_path):
        path = tmp_path / "labels.txt"
        path.write_bytes("Größe\r\nzwei\n".encode())
        with entered.io.gfile.GFile(path) as file:
            assert list(file) == ["Größe\r\n", "zwei\n"]
        assert entered.compat.as_text("Größe".encode()) == "Größe"
        assert entered.compat.as_bytes("Größe") == "Größe".encode()

    def test_folders(self, entered, tmp_path):
        gfile = entered.io.gfile
        gfile.makedirs(tmp_path / "b" / "c")
        gfile.makedirs(tmp_path / "b" / "c")  # is no error
        with gfile.GFile(os.fspath(tmp_path / "b" / "a.txt"), "wb") as file:
            file.write(b"a")
        gfile.copy(tmp_path / "b" / "a.txt", tmp_path / "b" / "z.txt", overwrite=True)
        gfile.rename(tmp_path / "b" / "z.txt", tmp_path / "b" / "d.txt")
        assert gfile.listdir(tmp_path / "b") == ["a.txt", "c", "d.txt"]
        found = gfile.glob(os.fspath(tmp_path / "b" / "*.txt"))
        assert [os.path.basename(path) for path in found] == ["a.txt", "d.txt"]
        gfile.remove(found[0])
        assert not gfile.exists(found[0]) and gfile.isdir(tmp_path / "b")
        gfile.rmtree(tmp_path / "b")
        assert not gfile.exists(tmp_path / "b")

    def test_a_set_too_large_for_memory_is_shuffled_through_many_files(
        self, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        try:
            path = named.by_name("of_tensors", tmp_path)
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, hard)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        rows = tfds.builder_from_directory(path).as_data_source(split="train")
        got = sorted(int(row["image"][0, 0, 0]) for row in rows)
        assert got == sorted(i % 256 for i in range(600))
        assert [p.name for p in tmp_path.rglob("*bucket*")] == []

"""TFDS's real builders on archives written here: no network, no TensorFlow."""

import errno
import fcntl
import gzip
import hashlib
import io
import json
import pathlib
import shutil
import socket
import tarfile
import threading
import time
import zipfile
from http import server

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from scipy import io as scipy_io
from tensorflow_datasets.core.download import checksums, downloader
from tensorflow_datasets.image_classification import cats_vs_dogs, mnist

from ddjax.data import sets
from ddjax.data.prepare import archives, named

_GETADDRINFO = socket.getaddrinfo


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """put(name, file, content): an archive by hand, and its checksum into TFDS."""

    def put(name, file, content):
        infos = tfds.builder_cls(name).url_infos
        url = next(url for url in infos if url.endswith("/" + file))
        checksum = hashlib.sha256(content).hexdigest()
        info = checksums.UrlInfo(len(content), checksum, infos[url].filename)
        monkeypatch.setitem(infos, url, info)
        path = tmp_path / "downloads" / "manual" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return put


def packed(files, mode="w:gz"):
    """A tar of {name: bytes}."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def jpeg(colour, mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, (20, 16), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def put_mnist(put, monkeypatch, name="mnist", count=30):
    """Images and labels of a MNIST with few images."""
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", count)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", count)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        pixels = gzip.compress(bytes(16) + images.tobytes(), 1)
        put(name, f"{part}-images-idx3-ubyte.gz", pixels)
        put(
            name,
            f"{part}-labels-idx1-ubyte.gz",
            gzip.compress(bytes(8) + bytes(labels)),
        )
    return images, labels


def put_cifar(put, count=40):
    """Pixels, labels and class names of a CIFAR-10 with `count` images a file."""
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(count) % 10
    rows = b"".join(bytes([k]) + p.tobytes() for k, p in zip(labels, pixels))
    parts = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    files = {f"cifar-10-batches-bin/{part}": rows for part in parts}
    words = [f"class {letter}" for letter in "abcdefghij"]
    files["cifar-10-batches-bin/batches.meta.txt"] = "\n".join(words).encode()
    put("cifar10", "cifar-10-binary.tar.gz", packed(files))
    return pixels.transpose(0, 2, 3, 1), labels, words


def read(path, split="train"):
    return list(tfds.builder_from_directory(path).as_data_source(split=split))


def left_over(root):
    """What is in a folder of sets, but locks, archives put by hand, empty folders."""
    return [
        path
        for path in root.rglob("*")
        if "manual" not in path.parts
        and path.suffix != ".lock"
        and path.name not in ("downloads", "extracted")
    ]


class TestRealBuilders:
    @pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
    def test_mnist(self, put, monkeypatch, tmp_path, name):
        images, labels = put_mnist(put, monkeypatch, name)
        path = named.by_name(name, tmp_path)
        assert path == tmp_path / name / "3.0.1"
        for split in ("train", "test"):
            rows = read(path, split)
            assert len(rows) == len(images)
            wanted = {i.tobytes(): k for i, k in zip(images, labels)}
            got = {row["image"].tobytes(): row["label"] for row in rows}
            assert got == wanted

    def test_cifar10(self, put, tmp_path):
        pixels, labels, words = put_cifar(put)
        path = named.by_name("cifar10", tmp_path)
        info = tfds.builder_from_directory(path).info
        assert info.features["label"].names == words
        rows = read(path)
        assert len(rows) == 5 * len(pixels) and len(read(path, "test")) == len(pixels)
        for row in rows:
            index = int(row["id"].decode().removeprefix("train_")) % len(pixels)
            np.testing.assert_array_equal(row["image"], pixels[index])
            assert row["label"] == labels[index]

    def test_cifar100_is_labelled_by_its_fine_classes(self, put, tmp_path):
        words = {"fine": [f"f{k}" for k in range(100)]}
        words["coarse"] = [f"c{k}" for k in range(20)]
        rows = b"".join(bytes([k // 5, k]) + bytes([k]) * 3072 for k in range(100))
        files = {f"cifar-100-binary/{part}.bin": rows for part in ("train", "test")}
        for kind, names in words.items():
            content = "\n".join(names).encode()
            files[f"cifar-100-binary/{kind}_label_names.txt"] = content
        put("cifar100", "cifar-100-binary.tar.gz", packed(files))
        path = named.by_name("cifar100", tmp_path)
        info = tfds.builder_from_directory(path).info
        assert sets.image_and_label(info) == ("image", "label")
        assert info.features["label"].names == words["fine"]
        rows = read(path)
        assert [row["image"][0, 0, 0] for row in rows] == [r["label"] for r in rows]

    def test_svhn_is_read_from_matlab_s_files(self, put, tmp_path):
        random = np.random.default_rng(2)
        pixels = random.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8)
        digits = np.arange(1, 11, dtype=np.uint8)[:, None]  # ten stands for zero
        buffer = io.BytesIO()
        scipy_io.savemat(buffer, {"X": pixels, "y": digits})
        for part in ("train", "test", "extra"):
            put("svhn_cropped", f"{part}_32x32.mat", buffer.getvalue())
        rows = read(named.by_name("svhn_cropped", tmp_path), "test")
        assert sorted(row["label"] for row in rows) == list(range(10))
        for row in rows:
            wanted = pixels[..., (row["label"] - 1) % 10]
            np.testing.assert_array_equal(row["image"], wanted)

    def test_imagenette_keeps_the_bytes_and_asks_for_its_own_archive_only(
        self, put, tmp_path
    ):
        colours = {"n01440764": (250, 0, 0), "n02102040": (0, 0, 250)}
        files = {
            f"imagenette2-320/{part}/{wnid}/{wnid}_{part}{i}.JPEG": jpeg(colour)
            for part in ("train", "val")
            for wnid, colour in colours.items()
            for i in range(2)
        }
        put("imagenette", "imagenette2-320.tgz", packed(files))
        path = named.by_name("imagenette/320px-v2", tmp_path)
        assert path == tmp_path / "imagenette" / "320px-v2" / "1.0.0"
        decoders = {"image": tfds.decode.SkipDecoding()}
        builder = tfds.builder_from_directory(path)
        rows = builder.as_data_source(split="validation", decoders=decoders)
        got = sorted((row["label"], row["image"]) for row in rows)
        wanted = sorted((i, jpeg(c)) for i, c in enumerate(colours.values()))
        assert got[::2] == got[1::2] == wanted
        names = builder.info.features["label"].names
        assert names[:2] == list(colours)

    def test_imagenet_with_an_image_in_cmyk_and_one_in_png(self, put, tmp_path):
        png = io.BytesIO()
        Image.new("RGB", (20, 16), (10, 200, 30)).save(png, "PNG")
        train = {
            "n01739381": {
                "n01739381_1309.JPEG": jpeg((255, 0, 0, 0), "CMYK"),
                "n01739381_1.JPEG": jpeg((1, 2, 3)),
            },
            "n02105855": {"n02105855_2933.JPEG": png.getvalue()},
        }
        train = {f"{k}.tar": packed(files, "w") for k, files in train.items()}
        val = {f"ILSVRC2012_val_0000000{i}.JPEG": jpeg((i, i, i)) for i in (1, 2)}
        put("imagenet2012", "ILSVRC2012_img_train.tar", packed(train, "w"))
        put("imagenet2012", "ILSVRC2012_img_val.tar", packed(val, "w"))
        path = named.by_name("imagenet2012", tmp_path)
        rows = {row["file_name"].decode(): row for row in read(path)}
        assert len(rows) == 3
        cyan = rows["n01739381_1309.JPEG"]["image"]
        assert cyan.shape == (16, 20, 3)
        np.testing.assert_allclose(cyan[8, 10], (0, 255, 255), atol=3)
        green = rows["n02105855_2933.JPEG"]["image"]
        np.testing.assert_allclose(green[8, 10], (10, 200, 30), atol=3)
        assert len(read(path, "validation")) == 2

    def test_cats_and_dogs_are_encoded_again(self, put, monkeypatch, tmp_path):
        monkeypatch.setattr(cats_vs_dogs, "_NUM_CORRUPT_IMAGES", 1)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("PetImages/Cat/0.jpg", jpeg((200, 0, 0)))
            archive.writestr("PetImages/Dog/0.jpg", jpeg((0, 0, 200)))
            archive.writestr("PetImages/Dog/1.jpg", b"no image, and skipped")
        put("cats_vs_dogs", "kagglecatsanddogs_5340.zip", buffer.getvalue())
        rows = sorted(
            read(named.by_name("cats_vs_dogs", tmp_path)), key=lambda row: row["label"]
        )
        assert [row["label"] for row in rows] == [0, 1]
        for row, colour in zip(rows, [(200, 0, 0), (0, 0, 200)]):
            np.testing.assert_allclose(row["image"][8, 10], colour, atol=4)

    def test_prepared_once(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = named.by_name("mnist", tmp_path)
        before = {p: p.stat().st_mtime_ns for p in path.iterdir()}
        shutil.rmtree(tmp_path / "downloads" / "manual")
        assert named.by_name("mnist", tmp_path) == path
        assert {p: p.stat().st_mtime_ns for p in path.iterdir()} == before

    def test_nothing_but_the_set_is_left(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = named.by_name("mnist", tmp_path)
        rest = [p for p in left_over(tmp_path) if path not in (p, *p.parents)]
        assert rest == [tmp_path / "mnist"]

    def test_archives_may_be_anywhere(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        (tmp_path / "downloads" / "manual").rename(tmp_path / "mine")
        lines = []
        named.by_name("mnist", tmp_path, str(tmp_path / "mine"), lines.append)
        assert len(lines) == 1 and "preparing" in lines[0]


class TestMissing:
    def test_no_network_fails_at_once_and_lists_what_to_put_where(
        self, put, monkeypatch, tmp_path
    ):
        put_mnist(put, monkeypatch)
        manual = tmp_path / "downloads" / "manual"
        (manual / "t10k-images-idx3-ubyte.gz").unlink()
        (manual / "train-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(ValueError) as caught:
            named.by_name("mnist", tmp_path)
        text = str(caught.value)
        assert "2 of 4 files are missing" in text
        assert "storage.googleapis.com cannot be reached" in text
        assert f"the folder {manual}\n" in text
        for line in text.splitlines()[1:3]:
            assert "B  https://storage.googleapis.com/cvdf-datasets/mnist/" in line
        assert "train-images" not in text
        assert f"python -m launch.prepare --name=mnist --folder={tmp_path}" in text
        assert not left_over(tmp_path)

    def test_a_host_that_never_answers_is_given_up(self, monkeypatch, tmp_path):
        never = threading.Event()

        def getaddrinfo(*args, **kwargs):
            never.wait(20)
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(archives, "_PATIENCE", 0.2)
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(ValueError, match="does not answer within 0.2 s"):
            named.by_name("cifar10", tmp_path)
        never.set()

    def test_the_proxy_is_who_must_answer(self, monkeypatch, tmp_path):
        monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
        with pytest.raises(ValueError, match="proxy.example cannot be reached"):
            named.by_name("cifar10", tmp_path)

    def test_imagenet_names_its_archives_and_their_folder(self, tmp_path):
        with pytest.raises(ValueError) as caught:
            named.by_name("imagenet2012", tmp_path, str(tmp_path / "archives"))
        text = str(caught.value)
        assert f"the folder {tmp_path / 'archives'}." in text
        assert "ILSVRC2012_img_train.tar  147.9 GB  (missing)" in text
        assert "ILSVRC2012_img_val.tar  6.7 GB  (missing)" in text
        assert f"--folder={tmp_path} --manual={tmp_path / 'archives'}" in text

    def test_imagenet_is_not_made_of_half_its_archives(self, put, tmp_path):
        put("imagenet2012", "ILSVRC2012_img_train.tar", packed({}, "w"))
        with pytest.raises(ValueError) as caught:
            named.by_name("imagenet2012", tmp_path)
        assert "val.tar  6.7 GB  (missing)" in str(caught.value)
        assert "train.tar  " not in str(caught.value)

    def test_an_archive_that_was_cut_off(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = tmp_path / "downloads" / "manual" / "t10k-labels-idx1-ubyte.gz"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-1])
        message = f"{path} has {size - 1} bytes, and should have {size}. .* into "
        with pytest.raises(ValueError, match=message):
            named.by_name("mnist", tmp_path)

    def test_sets_whose_files_have_the_same_names(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        manual = tmp_path / "downloads" / "manual"
        own = tmp_path / "mnist"
        manual.rename(own)
        manual.mkdir()
        own.rename(manual / "mnist")
        (manual / "t10k-labels-idx1-ubyte.gz").write_bytes(b"of another set")
        assert len(read(named.by_name("mnist", tmp_path))) == 30

    def test_a_wrong_checksum_names_the_file(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = tmp_path / "downloads" / "manual" / "t10k-labels-idx1-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(ValueError, match="wrong checksum") as caught:
            named.by_name("mnist", tmp_path)
        assert str(path) in str(caught.value)
        assert not left_over(tmp_path)

    def test_a_disk_too_small(self, monkeypatch, tmp_path):
        usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        monkeypatch.setattr(archives, "_unreachable", lambda *server: "")
        with pytest.raises(ValueError, match="cifar10 needs about 340.1 MB"):
            named.by_name("cifar10", tmp_path)

    def test_a_package_that_a_builder_needs(self, put, monkeypatch, tmp_path):
        put_cifar(put)
        cls = tfds.builder_cls("cifar10")

        def generate(self, *args):
            raise ModuleNotFoundError("No module named 'skimage'", name="skimage")

        monkeypatch.setattr(cls, "_split_generators", generate)
        with pytest.raises(ValueError, match="needs the package skimage"):
            named.by_name("cifar10", tmp_path)


class TestDownload:
    """From a server of this process: the only one that can be reached."""

    @pytest.fixture
    def served(self, put, monkeypatch, tmp_path):
        """MNIST at the server: its folder, the paths asked for, those it fails at."""
        put_mnist(put, monkeypatch)
        source = tmp_path / "downloads" / "manual"
        source = source.rename(tmp_path / "served")
        asked, broken = [], set()

        class Handler(server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=source)

            def do_GET(self):
                asked.append(self.path)
                if self.path in broken:
                    self.close_connection = True  # without a word
                else:
                    super().do_GET()

            def log_message(self, *args):
                del args

        with server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
            thread = threading.Thread(target=http.serve_forever)
            thread.start()
            url = f"http://127.0.0.1:{http.server_port}/"
            cls = tfds.builder_cls("mnist")
            monkeypatch.setattr(cls, "URL", url)
            for old, info in list(cls.url_infos.items()):
                monkeypatch.setitem(cls.url_infos, url + info.filename, info)
                monkeypatch.delitem(cls.url_infos, old)
            yield source, asked, broken
            http.shutdown()
            thread.join()

    @pytest.fixture(autouse=True)
    def _reach_this_process(self, monkeypatch, _no_network):
        monkeypatch.setattr(socket, "getaddrinfo", _GETADDRINFO)

    def test_downloads_once(self, served, tmp_path):
        _, asked, _ = served
        lines = []
        path = named.by_name("mnist", tmp_path, observe=lines.append)
        assert len(read(path)) == 30
        assert sorted(asked) == sorted(set(asked)) and len(asked) == 4
        assert "downloading 4 files" in lines[1]
        shutil.rmtree(path)
        named.by_name("mnist", tmp_path, observe=lines.append)
        assert len(asked) == 4 and len(lines) == 3

    def test_a_file_that_the_server_lacks(self, served, tmp_path):
        (served[0] / "t10k-images-idx3-ubyte.gz").unlink()
        with pytest.raises(ValueError, match="a download failed.*404"):
            named.by_name("mnist", tmp_path)
        assert not [p for p in tmp_path.rglob("*") if ".tmp." in p.name]
        assert not (tmp_path / "mnist").exists()

    def test_a_server_that_breaks_off_is_given_up_soon(
        self, served, monkeypatch, tmp_path
    ):
        monkeypatch.setattr(archives, "_RETRIES", 1)
        _, asked, broken = served
        broken.add("/t10k-images-idx3-ubyte.gz")
        with pytest.raises(ValueError, match="a download failed"):
            named.by_name("mnist", tmp_path)
        assert sum(path in broken for path in asked) == 2
        assert downloader.MAX_RETRIES == 10  # as it was

    def test_a_file_that_was_changed(self, served, tmp_path):
        path = served[0] / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes() + b"!")
        with pytest.raises(ValueError, match="wrong checksum"):
            named.by_name("mnist", tmp_path)
        # The other files may still be on their way; nobody waits for them.
        deadline = time.monotonic() + 10
        while [p for p in tmp_path.rglob("*") if ".tmp." in p.name]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("cifar", "did you mean cifar10, cifar100"),
            ("cfiar10", "did you mean cifar10"),
            ("qqqqqq", "none is alike"),
            ("mnist/", "did you mean mnist"),
            ("../mnist", "none is alike"),
        ],
    )
    def test_unknown(self, tmp_path, name, wanted):
        with pytest.raises(ValueError, match="unknown data set") as caught:
            named.by_name(name, tmp_path)
        assert wanted in str(caught.value)

    def test_an_unknown_configuration_lists_the_known(self, tmp_path):
        with pytest.raises(ValueError, match="320px-v2, 160px-v2"):
            named.by_name("imagenette/99px", tmp_path)

    def test_an_unknown_version_lists_the_known(self, tmp_path):
        with pytest.raises(ValueError, match="only: 3.0.1"):
            named.by_name("mnist:9.9.9", tmp_path)

    @pytest.mark.parametrize(
        ("name", "has"),
        [
            ("clic", "image (Image)"),
            ("ag_news_subset", "title (Text)"),
            ("chexpert", "label (Sequence), image_view (ClassLabel)"),
        ],
    )
    def test_a_set_without_image_and_label_is_refused(self, tmp_path, name, has):
        with pytest.raises(ValueError, match="no set of images") as caught:
            named.by_name(name, tmp_path)
        assert has in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            ("cifar100", ("image", "label")),
            ("cifar10_n", ("image", "label")),
            ("coil100", ("image", "angle_label")),
        ],
    )
    def test_keys(self, tmp_path, name, keys):
        info = tfds.builder(name, data_dir=tmp_path).info
        assert sets.image_and_label(info) == keys


class TestWhole:
    """What is there is a whole set, or it is not there."""

    def test_what_a_killed_run_left_is_not_the_set_and_is_removed(
        self, put, monkeypatch, tmp_path
    ):
        put_mnist(put, monkeypatch)
        rests = [
            tmp_path / "mnist" / "incomplete.A1B2C3_3.0.1",
            tmp_path / "downloads" / "extracted" / "mnist" / "GZIP.train",
            tmp_path / "downloads" / "mnist" / "train.tmp.0123",
        ]
        for rest in rests:
            rest.mkdir(parents=True)
            (rest / "dataset_info.json").write_text("{")
        path = named.by_name("mnist", tmp_path)
        assert len(read(path)) == 30
        assert not [rest for rest in rests if rest.exists()]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("broken")])
    def test_an_attempt_that_fails_leaves_nothing(
        self, put, monkeypatch, tmp_path, error
    ):
        images, _ = put_mnist(put, monkeypatch)

        def generate(self, num_examples, data_path, label_path):
            yield 0, {"image": images[0][..., None], "label": 1}
            raise error

        cls = tfds.builder_cls("mnist")
        monkeypatch.setattr(cls, "_generate_examples", generate)
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            named.by_name("mnist", tmp_path)
        assert not left_over(tmp_path)

    def test_a_disk_that_runs_full_leaves_nothing(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)

        def generate(self, num_examples, data_path, label_path):
            raise OSError(errno.ENOSPC, "No space left on device")
            yield

        cls = tfds.builder_cls("mnist")
        monkeypatch.setattr(cls, "_generate_examples", generate)
        with pytest.raises(ValueError, match="(?s)No space left.*Make room"):
            named.by_name("mnist", tmp_path)
        assert not left_over(tmp_path)

    def test_half_a_copy_of_a_set_is_refused(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = named.by_name("mnist", tmp_path)
        next(path.glob("mnist-test.array_record*")).unlink()
        with pytest.raises(ValueError, match="1 of 2 files are missing") as caught:
            named.by_name("mnist", tmp_path)
        assert f"Remove the folder {path}" in str(caught.value)

    def test_a_folder_that_is_no_set(self, tmp_path):
        (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
        with pytest.raises(ValueError, match="is no prepared set"):
            named.by_name("mnist", tmp_path)

    def test_another_format_is_refused(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = named.by_name("mnist", tmp_path)
        info = json.loads((path / "dataset_info.json").read_text())
        info["fileFormat"] = "tfrecord"
        (path / "dataset_info.json").write_text(json.dumps(info))
        with pytest.raises(ValueError, match="holds tfrecord files"):
            named.by_name("mnist", tmp_path)

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "downloads").write_text("a file")
        with pytest.raises(ValueError, match="cannot write to"):
            named.by_name("mnist", tmp_path)

    def test_a_second_process_waits_and_finds_the_set(self, put, monkeypatch, tmp_path):
        put_mnist(put, monkeypatch)
        path = named.by_name("mnist", tmp_path)
        aside = path.with_name("aside")
        path.rename(aside)
        waiting = threading.Event()
        lines, found = [], []

        def observe(line):
            lines.append(line)
            waiting.set()

        def second():
            found.append(named.by_name("mnist", tmp_path, observe=observe))

        with open(tmp_path / "downloads" / "mnist.lock") as first:
            fcntl.flock(first, fcntl.LOCK_EX)
            thread = threading.Thread(target=second)
            thread.start()
            assert waiting.wait(10)
            aside.rename(path)  # the first process has finished
        thread.join(10)
        assert found == [path]
        assert len(lines) == 1 and "waiting for another process" in lines[0]


def test_sizes_for_people():
    sizes = (147897477120, 1648877, 4542)
    assert [archives.readable(size) for size in sizes] == [
        "147.9 GB",
        "1.6 MB",
        "4.5 kB",
    ]


def test_the_package_s_checksums_are_never_written():
    source = pathlib.Path(named.__file__).parent.glob("*.py")
    assert not [p for p in source if "register_checksums" in p.read_text()]

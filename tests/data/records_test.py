"""Sets that TFDS itself has written: in memory, on disk, and what is wrong with them."""

import os
import pickle
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from ddjax import data
from ddjax.data import decode, sets
from ddjax.data.records import Records

CLASSES = ("wolf", "ape", "bee")  # not in alphabetical order


def builder_class(name, images, shape=(8, 8, 3), splits=("train", "test"), **features):
    """A TFDS builder of {split: (images, labels)}; TFDS shuffles them."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("2.0.1")

        def _info(self):
            image = tfds.features.Image(shape=shape, encoding_format="png")
            label = tfds.features.ClassLabel(names=CLASSES)
            fields = {"image": image, "label": label, **features}
            keys = ("image", "label")
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(fields),
                supervised_keys=keys if set(keys) <= set(fields) else None,
            )

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for number, (image, label) in enumerate(zip(*images[split])):
                yield number, {"image": Image.fromarray(image), "label": label}

    Builder.name = name
    return Builder


def write(folder, name, images, file_format="array_record", **options):
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = builder_class(name, images, **options)
    made = builder(data_dir=folder, file_format=file_format)
    made.download_and_prepare()
    return made


@pytest.fixture(scope="module")
def images():
    """{split: (images [N, 8, 8, 3], labels)}, no class in order."""
    random = np.random.default_rng(0)
    return {
        split: (
            random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
            random.permutation(np.arange(count) % 3),
        )
        for split, count in (("train", 40), ("test", 13))
    }


@pytest.fixture(scope="module")
def kept(images, tmp_path_factory):
    """Where the set "zoo" of TFDS's making is kept; not to be changed."""
    folder = tmp_path_factory.mktemp("kept")
    write(folder, "zoo", images)
    return folder


@pytest.fixture
def own(kept, tmp_path):
    """A copy, to be damaged; its folder zoo/2.0.1."""
    return shutil.copytree(kept, tmp_path / "own") / "zoo" / "2.0.1"


@pytest.fixture(scope="module")
def in_memory(kept):
    return data.load("zoo", folder=kept)


@pytest.fixture(scope="module")
def on_disk(kept):
    return data.load("zoo", folder=kept, memory_gb=0)


def pairs(images, labels):
    """Each image with its label, in a fixed order."""
    return sorted((image.tobytes(), int(k)) for image, k in zip(images, labels))


class TestLoad:
    @pytest.mark.parametrize("split", ["train", "test"])
    @pytest.mark.parametrize("memory_gb", [0.0, 1.0])
    def test_images_and_labels_are_the_source_s(self, split, memory_gb, kept, images):
        loaded = data.load("zoo", split, folder=kept, memory_gb=memory_gb)
        assert isinstance(loaded.images, Records) == (memory_gb == 0)
        assert loaded.images.dtype == np.uint8 and loaded.labels.dtype == np.int32
        assert pairs(loaded.images[:], loaded.labels) == pairs(*images[split])
        assert np.all(np.diff(loaded.labels) >= 0)
        assert loaded.info.classes == CLASSES and loaded.info.name == "zoo"

    def test_info_is_the_training_split_s(self, kept, images, in_memory):
        pixels = images["train"][0] / 255
        for split in ("train", "test"):
            info = data.load("zoo", split, folder=kept).info
            np.testing.assert_allclose(info.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
            np.testing.assert_allclose(info.std, pixels.std((0, 1, 2)), rtol=1e-12)
            assert info == in_memory.info

    def test_training_split_is_decoded_once_for_both(self, own, monkeypatch):
        decoded, whole = [], decode.decode

        def counted(*arguments):
            decoded.append(1)
            return whole(*arguments)

        monkeypatch.setattr(decode, "decode", counted)
        for split in ("train", "test"):
            data.load("zoo", split, folder=own.parents[1])
        assert len(decoded) == 40 + 13

    def test_test_split_alone_has_the_same_info(self, own, in_memory):
        assert data.load("zoo", "test", folder=own.parents[1]).info == in_memory.info

    def test_validation_stands_in_for_a_test_split(self, images, tmp_path):
        named = {"train": images["train"], "validation": images["test"]}
        write(tmp_path, "zoo", named, splits=tuple(named))
        loaded = data.load("zoo", "test", folder=tmp_path)
        assert pairs(loaded.images, loaded.labels) == pairs(*images["test"])

    def test_a_test_split_without_labels_is_passed_over(self, images, tmp_path):
        """ImageNet-1K's, where its archive was there too."""
        named = {"train": images["train"], "validation": images["test"]}
        named["test"] = images["train"]
        write(tmp_path, "imagenet2012", named, splits=tuple(named))
        (folder,) = (tmp_path / "imagenet2012").iterdir()
        assert sets.describe(folder).split("test") == "validation"
        loaded = data.load("imagenet2012", "test", folder=tmp_path)
        assert pairs(loaded.images, loaded.labels) == pairs(*images["test"])

    def test_folder_is_tfds_data_dir_by_default(self, kept, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(kept))
        assert len(data.load("zoo").labels) == 40
        monkeypatch.delenv("TFDS_DATA_DIR")
        assert sets.kept_in() == sets.kept_in("~/tensorflow_datasets")

    def test_labels_are_read_once(self, own, monkeypatch):
        first = data.load("zoo", folder=own.parents[1])
        monkeypatch.setattr(sets, "_chunks", lambda *arguments: pytest.fail("read"))
        again = data.load("zoo", folder=own.parents[1])
        np.testing.assert_array_equal(first.labels, again.labels)
        (own / "labels-train.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(pytest.fail.Exception):
            data.load("zoo", folder=own.parents[1])

    @pytest.mark.parametrize("refusing", ["save", "replace"])
    def test_folder_may_be_read_only(self, own, refusing, monkeypatch):
        def refuse(*arguments):
            raise PermissionError

        for path in own.glob("labels-*"):
            path.unlink()
        module = np if refusing == "save" else os
        monkeypatch.setattr(module, refusing, refuse)
        assert len(data.load("zoo", folder=own.parents[1]).labels) == 40
        assert not [path for path in own.iterdir() if path.suffix == ".npy"]

    def test_size(self, kept, in_memory):
        for memory_gb in (0, 1):
            loaded = data.load("zoo", folder=kept, size=5, memory_gb=memory_gb)
            wanted = [decode.resize_and_crop(image, 5) for image in in_memory.images]
            assert loaded.info.shape == (5, 5, 3)
            np.testing.assert_array_equal(loaded.images[:], wanted)

    def test_newest_version_is_taken_and_an_old_one_on_request(self, own, images):
        newer = own.with_name("2.0.10")
        write(own.parents[2] / "x", "zoo", {**images, "train": images["test"]})
        shutil.copytree(own.parents[2] / "x" / "zoo" / "2.0.1", newer)
        assert sets.find("zoo", own.parents[1]).folder == str(newer)
        assert sets.find("zoo/2.0.1", own.parents[1]).folder == str(own)


class TestSizes:
    def test_several_sizes_ask_for_a_size(self, tmp_path):
        random = np.random.default_rng(0)
        shapes = [(8, 8, 3), (9, 12, 3)] * 6
        pictures = [random.integers(0, 256, s, dtype=np.uint8) for s in shapes]
        split = (pictures, np.arange(12) % 3)
        write(tmp_path, "zoo", {"train": split, "test": split}, shape=(None, None, 3))
        match = "several sizes .(8x8 and 9x12|9x12 and 8x8),.*set data.size"
        with pytest.raises(ValueError, match=match):
            data.load("zoo", folder=tmp_path)
        assert data.load("zoo", folder=tmp_path, size=6).images.shape == (12, 6, 6, 3)

    def test_one_size_need_not_be_declared(self, images, tmp_path, in_memory):
        write(tmp_path, "zoo", images, shape=(None, None, 3))
        loaded = data.load("zoo", folder=tmp_path)
        np.testing.assert_array_equal(loaded.images, in_memory.images)

    def test_grey_set(self, images, tmp_path):
        grey = {k: (x[..., 0], labels) for k, (x, labels) in images.items()}
        write(tmp_path, "zoo", grey, shape=(8, 8, 1))
        loaded = data.load("zoo", folder=tmp_path)
        wanted = (images["train"][0][..., :1], images["train"][1])
        assert pairs(loaded.images, loaded.labels) == pairs(*wanted)


class TestRecords:
    """Rows on disk are rows of the array in memory, however they are asked for."""

    @pytest.mark.parametrize(
        "rows",
        [
            3,
            -1,
            np.int64(5),
            slice(None),
            slice(30, 2, -3),
            slice(5, 5),
            [7, 2, 7],
            np.array([[1, 2, 3], [4, 5, 6]]),
            np.arange(40) % 4 == 0,
            np.array([], int),
        ],
        ids=str,
    )
    def test_rows(self, rows, in_memory, on_disk):
        got = on_disk.images[rows]
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, in_memory.images[rows])

    def test_looks_like_an_array(self, in_memory, on_disk):
        for name in ("shape", "dtype", "ndim", "nbytes"):
            assert getattr(on_disk.images, name) == getattr(in_memory.images, name)
        assert len(on_disk.images) == 40
        np.testing.assert_array_equal(list(on_disk.images), in_memory.images)
        with pytest.raises(IndexError):
            on_disk.images[40]

    def test_is_not_decoded_by_accident(self, on_disk):
        with pytest.raises(TypeError, match=r"zoo is on disk; take rows of it"):
            np.asarray(on_disk.images)

    def test_encoded(self, in_memory, on_disk):
        for row in (0, 17, 39):
            image = decode.decode(on_disk.images.encoded(row), 3)
            np.testing.assert_array_equal(image, in_memory.images[row])

    def test_subset(self, in_memory, on_disk):
        part = on_disk.images.subset(np.arange(30, 10, -2)).subset(slice(2, 5))
        assert isinstance(part, Records) and part.shape == (3, 8, 8, 3)
        np.testing.assert_array_equal(part[:], in_memory.images[[26, 24, 22]])

    def test_can_be_pickled_also_when_it_is_open(self, in_memory, on_disk):
        on_disk.images[0]
        copy = pickle.loads(pickle.dumps(on_disk.images))
        np.testing.assert_array_equal(copy[5:9], in_memory.images[5:9])

    def test_many_rows_are_decoded_in_threads(self, images, tmp_path, in_memory):
        rows = np.random.default_rng(0).integers(0, 40, 1000)
        records = data.load("zoo", folder=self.kept(images, tmp_path), memory_gb=0)
        np.testing.assert_array_equal(records.images[rows], in_memory.images[rows])

    @staticmethod
    def kept(images, folder):
        write(folder, "zoo", images)
        return folder

    def test_hold_out_and_slices_are_those_in_memory(self, in_memory, on_disk):
        assert data.class_slices(on_disk) == data.class_slices(in_memory)
        wanted = data.hold_out(in_memory, 0.2)
        for part, other in zip(data.hold_out(on_disk, 0.2), wanted):
            assert isinstance(part.images, Records)
            np.testing.assert_array_equal(part.images[:], other.images)
            np.testing.assert_array_equal(part.labels, other.labels)

    def test_fingerprint(self, kept, own, on_disk, images):
        same = data.load("zoo", folder=own.parents[1], memory_gb=0)
        assert data.fingerprint(same) == data.fingerprint(on_disk)  # another folder
        shutil.rmtree(own)
        longer = np.concatenate([images["train"][0][:, ::-1]] * 2)[:41]
        write(own.parents[1], "zoo", {**images, "train": (longer, np.arange(41) % 3)})
        others = [
            data.load("zoo", folder=own.parents[1], memory_gb=0),
            data.load("zoo", "test", folder=kept, memory_gb=0),
            data.load("zoo", folder=kept, memory_gb=0, size=4),
            *data.hold_out(on_disk, 0.2),
            on_disk._replace(info=on_disk.info._replace(classes=("a", "b", "c"))),
        ]
        prints = [data.fingerprint(dataset) for dataset in (on_disk, *others)]
        assert len(set(prints)) == len(prints)

    def test_mean_of_a_large_set_is_of_a_sample(self, on_disk, in_memory, monkeypatch):
        # The function hides the module of the same name.
        monkeypatch.setattr(sys.modules["ddjax.data.load"], "_SAMPLE", 10)
        info = data.normalise_info("zoo", on_disk.images, CLASSES)
        pixels = in_memory.images[::4] / 255
        np.testing.assert_allclose(info.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
        whole = data.normalise_info("zoo", in_memory.images, CLASSES)
        assert whole == in_memory.info


class TestBadSets:
    def test_missing_set_says_where_and_what_to_do(self, kept):
        with pytest.raises(ValueError, match="unknown data set 'zo'") as caught:
            data.load("zo", folder=kept)
        told = str(caught.value)
        assert f"known: digits, and in {kept}: zoo." in told
        for command in (
            f"`python -m launch.prepare --name=zo --folder={kept}`",
            f"`python -m launch.prepare --source=PATH --name=zo --folder={kept}`",
        ):
            assert command in told

    def test_nothing_is_prepared(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
        with pytest.raises(ValueError, match="none: none. .* --name=zoo`") as caught:
            data.load("zoo")
        assert "--folder" not in str(caught.value)

    def test_name_leads_nowhere_else(self, kept):
        for name in ("", "..", "../zoo"):
            with pytest.raises(ValueError, match="unknown data set"):
                data.load(name, folder=kept / "zoo")

    def test_several_configurations(self, own):
        for config in ("large", "small"):
            shutil.copytree(own, own.parents[1] / "meadow" / config / "1.0.0")
        with pytest.raises(ValueError, match="name one of: meadow/large, meadow/small"):
            data.load("meadow", folder=own.parents[1])
        assert len(data.load("meadow/small", folder=own.parents[1]).labels) == 40

    def test_missing_split(self, images, tmp_path):
        write(tmp_path, "zoo", images, splits=("train",))
        with pytest.raises(ValueError, match="zoo has no test split; it has: train"):
            data.load("zoo", "test", folder=tmp_path)

    def test_damaged_or_missing_file(self, own):
        path = next(own.glob("*train.array_record*"))
        content = path.read_bytes()
        path.write_bytes(content.replace(b"IHDR", b"IHDX", 1))
        with pytest.raises(ValueError, match=f"{own} cannot be read: .*prepare it ag"):
            data.load("zoo", folder=own.parents[1])
        path.unlink()
        with pytest.raises(ValueError, match=f"{own} cannot be read: .*prepare it ag"):
            data.load("zoo", folder=own.parents[1])

    def test_image_of_another_size_than_declared(self, images, tmp_path):
        mixed = (
            [*images["train"][0][:5], np.zeros((9, 8, 3), np.uint8)],
            [0, 1, 2] * 2,
        )
        write(tmp_path, "zoo", {"train": mixed, "test": images["test"]})
        match = r"image \d of train in .*zoo/2.0.1: it is \(9, 8, 3\), not \(8, 8, 3\)"
        with pytest.raises(ValueError, match=match):
            data.load("zoo", folder=tmp_path)

    def test_damaged_description(self, own):
        (own / "dataset_info.json").write_text("{")
        with pytest.raises(ValueError, match=f"{own} is damaged: .*Remove it"):
            data.load("zoo", folder=own.parents[1])

    def test_class_without_images(self, images, tmp_path):
        few = (images["train"][0][:4], [0, 1, 0, 1])
        write(tmp_path, "zoo", {"train": few, "test": images["test"]})
        with pytest.raises(ValueError, match=r"zoo: 1 of 3 classes .* 2 \(bee\)"):
            data.load("zoo", folder=tmp_path)

    def test_numbers_out_of_range(self, kept):
        for options in ({"size": -1}, {"memory_gb": -1}):
            with pytest.raises(ValueError, match="must not be negative"):
                data.load("zoo", folder=kept, **options)

    def test_digits_have_their_size(self):
        assert data.load("digits", size=8).info.shape == (8, 8, 1)
        with pytest.raises(ValueError, match="images of 8x8 pixels; set the size to 0"):
            data.load("digits", size=32)

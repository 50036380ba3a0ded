"""Every form gives back the set; what is damaged is refused; others read it too."""

import io
import json
import os
import pathlib
import pickle
import shutil
import subprocess

import numpy as np
import pytest

import ddjax
from ddjax import checkpoint, export
from ddjax.export import StoredSet, card, forms
from ddjax.types import DataInfo

CLASSES = ("tench, Tinca", "b/c", "..", "Ö 'quoted': \"x\"", "con")
# What is at the end of the names of files that a set cannot be read without.
NEEDED = ("0.png", "set.json", "soft_labels.npy", "set.npz", ".parquet", "00001")
NEEDED += ("dataset_info.json",)
ABOUT = {"arm": "wmdd/noise", "ipc": 2, "seed": 3, "config": {"a": [1, 0.5]}}


def made(channels=3, soft=True, counts=(2, 2, 2, 2, 2), classes=CLASSES):
    """A set of 6x5 noise with odd class names and weights."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    count = len(labels)
    images = random.integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    weights = random.random(count, dtype=np.float32)
    logits = random.normal(size=(count, len(classes))).astype(np.float16)
    mean = tuple(random.random(channels).tolist())
    info = DataInfo("CIFAR 10!", classes, (6, 5, channels), mean, (1 / 3,) * channels)
    return StoredSet(images, labels, weights, logits if soft else (), info, ABOUT)


def assert_same(got, wanted):
    assert got.info == wanted.info and got.about == wanted.about
    for a, b in zip(got[:4], wanted[:4]):
        np.testing.assert_array_equal(a, b, strict=True)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A set with soft labels in every form."""
    root = tmp_path_factory.mktemp("kept")
    return {
        form: ddjax.save_distilled(made(), root / form, form) for form in export.FORMS
    }


@pytest.mark.parametrize("form", export.FORMS)
class TestEveryForm:
    def test_gives_back_the_set(self, kept, form):
        assert_same(ddjax.load_distilled(kept[form]), made())
        assert not [p for p in kept[form].parent.iterdir() if p.name[0] == "."]

    def test_grey_uneven_and_without_soft_labels(self, form, tmp_path):
        stored = made(1, soft=False, counts=(1, 3, 2, 1, 1))
        path = ddjax.save_distilled(stored, tmp_path / "deep" / "set", form)
        assert_same(ddjax.load_distilled(path), stored)
        assert stored.ipc is None

    def test_has_a_card_and_a_picture(self, kept, form):
        from PIL import Image

        text = (kept[form] / "README.md").read_text()
        for said in (
            "wmdd",
            "ICCV 2025",
            "ipc-2",
            "2 per class",
            "CIFAR 10!",
            "privacy",
        ):
            assert said in text
        with Image.open(kept[form] / "grid.png") as picture:
            assert picture.width > 100

    def test_the_card_loads_it_without_ddjax(self, kept, form, monkeypatch):
        if form == "parquet":
            pytest.skip("needs the package datasets")
        code = (kept[form] / "README.md").read_text().split("```python\n")[1]
        names = {}
        monkeypatch.chdir(kept[form])
        exec(code.partition("```")[0], names)  # noqa: S102
        for key in ("images", "labels", "weights"):
            np.testing.assert_array_equal(names[key], getattr(made(), key))
        assert names["about"]["classes"] == list(CLASSES)

    def test_nothing_is_overwritten(self, kept, form):
        with pytest.raises(ValueError, match="exists already"):
            ddjax.save_distilled(made(), kept[form], form)

    def test_a_full_disk_leaves_nothing(self, form, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(card, "text", full)
        with pytest.raises(
            ValueError, match="No space left on device. Nothing is left"
        ):
            ddjax.save_distilled(made(), tmp_path / "set", form)
        assert not list(tmp_path.iterdir())

    def test_what_was_damaged_is_refused(self, kept, form, tmp_path):
        paths = [p for p in sorted(kept[form].rglob("*")) if p.name.endswith(NEEDED)]
        assert paths
        for number, path in enumerate(paths):
            copy = tmp_path / str(number)
            shutil.copytree(kept[form], copy)
            file = copy / path.relative_to(kept[form])
            file.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            with pytest.raises(ValueError) as caught:
                ddjax.load_distilled(copy)
            assert "\n" not in str(caught.value)


def test_tfds_reads_its_form(kept):
    import tensorflow_datasets as tfds

    (folder,) = (kept["tfds"]).glob("*/1.0.0")
    builder = tfds.builder_from_directory(folder)
    assert tuple(builder.info.features["label"].names) == CLASSES
    rows = builder.as_data_source("train")
    wanted = made()
    for row, image, label, weight, soft in zip(rows, *wanted[:4], strict=True):
        np.testing.assert_array_equal(row["image"], image)
        assert row["label"] == label and row["weight"] == weight
        np.testing.assert_array_equal(row["soft_label"], soft)


def test_parquet_says_what_hugging_face_reads(kept):
    from pyarrow import parquet

    table = parquet.read_table(kept["parquet"] / forms.PARQUET)
    told = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert told["label"] == {"names": list(CLASSES), "_type": "ClassLabel"}
    assert told["image"] == {"_type": "Image"}
    assert table.column("label").to_pylist() == made().labels.tolist()
    assert table.column("weight").to_numpy().tolist() == made().weights.tolist()


def test_the_head_of_the_card_is_yaml(kept):
    import yaml

    head = (kept["parquet"] / "README.md").read_text().split("---\n")[1]
    told = yaml.safe_load(head)
    names = told["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert tuple(names[str(label)] for label in range(5)) == CLASSES
    assert told["tags"] == ["dataset-distillation", "ipc-2"]


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ("random", "These are real images"),
        ("random+guard", "These are real images"),
        ("sre2l+guard/noise", "method: SRe2L: Z. Yin"),
        ("wmdd/real", "method: WMDD: H. Liu"),
    ],
)
def test_the_card_knows_methods_whatever_their_teacher(arm, told, tmp_path):
    about = {"arm": arm, "seed": 0}
    path = ddjax.save_distilled(made()._replace(about=about), tmp_path / "set", "npz")
    assert told in (path / "README.md").read_text()


class TestRun:
    def test_a_recover_folder_is_read_and_described(self, tmp_path):
        stored = made(soft=False)
        stage = checkpoint.Stage(tmp_path, "recover", "random-ipc2-seed3", {"x": 1})
        record = ABOUT | {"data": stored.info.name, "classes": list(CLASSES)}
        record |= {"mean": stored.info.mean, "std": stored.info.std}
        arrays = {k: getattr(stored, k) for k in ("images", "labels", "weights")}
        stage.finish(arrays, record)
        export.describe(stage.folder)
        got = ddjax.load_distilled(stage.folder)
        assert_same(got, stored._replace(about=ABOUT | {"made_from": {"x": 1}}))
        assert (stage.folder / "grid.png").exists()
        assert "artifact.npz" in (stage.folder / "README.md").read_text()

    def test_another_stage_is_refused(self, tmp_path):
        stage = checkpoint.Stage(tmp_path, "squeeze", "net", {})
        stage.finish({"kernel": np.zeros(3)}, {})
        with pytest.raises(ValueError, match="another stage's artifact"):
            ddjax.load_distilled(stage.folder)


class TestRefused:
    def test_a_pickle_is_not_read(self, tmp_path):
        class Runs:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        file = io.BytesIO()
        np.save(file, np.array([Runs()], object), allow_pickle=True)
        assert pickle.dumps(Runs()) and not (tmp_path / "ran").exists()
        stored = made()
        for form, name in (("folder", "soft_labels.npy"), ("npz", "set.npz")):
            path = ddjax.save_distilled(stored, tmp_path / form, form)
            (path / name).write_bytes(file.getvalue())
            with pytest.raises(ValueError, match="damaged"):
                ddjax.load_distilled(path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"labels": np.full(10, 5)}, "label 5 of image 0 names no class"),
            ({"labels": np.zeros(10, int)}, "4 of 5 classes have no image"),
            (
                {"labels": np.zeros(9, int)},
                r"labels are \(9,\), and there are 10 images",
            ),
            ({"labels": np.zeros(10)}, "expected integers"),
            ({"weights": np.full(10, np.nan)}, "negative or not finite"),
            ({"images": np.zeros((10, 6, 5, 3))}, "expected uint8"),
            ({"images": np.zeros((10, 6, 5, 2), np.uint8)}, "ch 1 or 3"),
            (
                {"images": np.zeros((10, 6, 6, 3), np.uint8)},
                "the set's record says shape",
            ),
            ({"soft_labels": np.zeros((10, 4))}, r"expected \(10, 5\)"),
        ],
    )
    def test_what_does_not_fit(self, change, told, tmp_path):
        with pytest.raises(ValueError, match=told):
            ddjax.save_distilled(made()._replace(**change), tmp_path / "set")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("form", ["folder", "parquet", "tfds"])
    def test_any_wrong_field_of_the_record(self, kept, form, tmp_path):
        path = shutil.copytree(kept[form], tmp_path / "set") / "set.json"
        told = json.loads(path.read_text())
        needed = sorted(set(told) - {"format", "paths", "soft_labels"})
        for key in needed:
            for wrong in ("x", None, -1, [], [None], ["x"], {}, 1e999, [[1], 2]):
                if (key, wrong) == ("about", {}):
                    continue  # of a set nothing need be known
                path.write_text(json.dumps(told | {key: wrong}))
                with pytest.raises(ValueError) as caught:
                    ddjax.load_distilled(path.parent)
                    pytest.fail(f"{key} = {wrong}")
                assert "\n" not in str(caught.value)

    def test_other_places(self, tmp_path):
        (tmp_path / "file").write_text("x")
        for path, told in ((tmp_path, "neither"), (tmp_path / "file", "is a file")):
            with pytest.raises(ValueError, match=told):
                ddjax.load_distilled(path)
        with pytest.raises(ValueError, match="unknown form 'zip'"):
            ddjax.save_distilled(made(), tmp_path / "set", "zip")


def test_unsorted_sets_become_class_major():
    stored = made()
    order = np.random.default_rng(1).permutation(10)
    mixed = stored._replace(
        **{k: getattr(stored, k)[order] for k in stored._fields[:4]}
    )
    got = export.checked(mixed, "here")
    assert (np.diff(got.labels) >= 0).all()
    back = np.lexsort((order, stored.labels[order]))
    assert {x.tobytes() for x in got.images} == {x.tobytes() for x in stored.images}
    assert len(back) == 10
    for image, weight in zip(got.images, got.weights):
        row = next(i for i, x in enumerate(stored.images) if np.array_equal(x, image))
        assert weight == stored.weights[row]


def test_what_a_killed_process_left_goes(tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    theirs, other = tmp_path / f".set.{process.pid}", tmp_path / ".set.mine"
    for left in (theirs, tmp_path / f".sets.{process.pid}"):
        left.mkdir()
    other.write_text("a file of the user's")
    ddjax.save_distilled(made(), tmp_path / "set")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"set", f".sets.{process.pid}", ".set.mine"}


@pytest.mark.parametrize(
    "classes",
    [
        ("a", "A", "b", "c", "d"),
        ("set.json", "b", "README.md", "c", "d"),
        tuple("%/:*."),
    ],
)
def test_names_that_no_folder_should_have(classes, tmp_path):
    stored = made(classes=classes)
    path = ddjax.save_distilled(stored, tmp_path / "set", "folder")
    assert_same(ddjax.load_distilled(path), stored)


def test_plain_names_are_the_folders(tmp_path):
    classes = ("n01440764", "great white shark", "Ö", "tench, Tinca", "x.y")
    path = ddjax.save_distilled(made(classes=classes), tmp_path / "set", "folder")
    assert {p.name for p in path.iterdir() if p.is_dir()} == set(classes)


def test_the_file_of_the_npz_form_is_enough(kept, tmp_path):
    file = pathlib.Path(shutil.copy(kept["npz"] / "set.npz", tmp_path))
    assert_same(ddjax.load_distilled(file), made())

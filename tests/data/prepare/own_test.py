"""A folder, a zip or Parquet to a set that TFDS reads; what is wrong is named."""

import builtins
import errno
import json
import os
import pathlib
import resource
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from ddjax import data
from ddjax.data import decode, prepare, sets


@pytest.fixture
def kept(tmp_path):
    """Where sets are kept."""
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def tfds():
    return pytest.importorskip("tensorflow_datasets")


def contents(tfds, folder, split):
    """(encoded image, label) of all records, as TFDS reads them."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    builder = tfds.builder_from_directory(folder)
    records = builder.as_data_source(split, decoders=decoders)
    return [(record["image"], record["label"]) for record in records]


def contents_of(tree, split):
    """(bytes, label) of a tree's files in the order of their names."""
    classes = sorted(path.name for path in (tree / split).iterdir())
    files = sorted((tree / split).glob("*/*"))
    return [(f.read_bytes(), classes.index(f.parent.name)) for f in files]


def zipped(tree, path, inside=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*")):
            archive.write(file, pathlib.Path(inside) / file.relative_to(tree))
    return path


def table(path, rows, names=("cat", "dog"), column="image"):
    """A Parquet file of (bytes, label)."""
    images = [{"bytes": data, "path": None} for data, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        column: pa.array(images, kind),
        "label": pa.array([label for _, label in rows], pa.int64()),
    }
    told = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    metadata = {"huggingface": json.dumps({"info": {"features": told}})}
    path.parent.mkdir(exist_ok=True)
    whole = pa.table(columns).replace_schema_metadata(metadata)
    parquet.write_table(whole, path, row_group_size=3)
    return path


@pytest.fixture
def tables(tree, tmp_path):
    """The tree as Parquet, its training split in two files."""
    folder = tmp_path / "tables"
    rows = contents_of(tree, "train")
    table(folder / "train-00000-of-00002.parquet", rows[:4])
    table(folder / "train-00001-of-00002.parquet", rows[4:])
    table(folder / "validation-00000-of-00001.parquet", contents_of(tree, "val"))
    return folder


def leftovers(kept):
    return sorted(str(path.relative_to(kept)) for path in kept.rglob("*"))


def refused(source, kept, match, **options):
    """The message, one line; nothing is left behind."""
    before = leftovers(kept)
    with pytest.raises(ValueError, match=match) as caught:
        prepare.from_source(source, "mine", kept, **options)
    assert "\n" not in str(caught.value)
    assert leftovers(kept) == before
    return str(caught.value)


class TestSources:
    """Three forms of the same images become the same set, read by TFDS itself."""

    @pytest.fixture(params=["folder", "zip", "zip of a folder", "parquet", "hub"])
    def source(self, request, tree, tmp_path):
        if request.param == "folder":
            return tree
        if "zip" in request.param:
            inside = "mine" if "folder" in request.param else ""
            return zipped(tree, tmp_path / "images.zip", inside)
        tables = request.getfixturevalue("tables")
        if request.param == "hub":
            (tmp_path / "hub").mkdir()
            shutil.move(tables, tmp_path / "hub" / "data")
            return tmp_path / "hub"
        return tables

    def test_bytes_labels_classes_and_splits_are_kept(self, source, tree, kept, tfds):
        folder = prepare.from_source(source, "mine", kept)
        assert folder == kept / "mine" / "1.0.0"
        info = tfds.builder_from_directory(folder).info
        assert info.features["label"].names == ["cat", "dog"]
        assert info.features["image"].shape == (8, 8, 3)
        assert list(info.splits) == ["train", "test"]
        assert contents(tfds, folder, "train") == contents_of(tree, "train")
        assert contents(tfds, folder, "test") == contents_of(tree, "val")
        assert [path.name for path in kept.iterdir()] == ["mine"]

    def test_it_is_loaded(self, source, tree, kept):
        prepare.from_source(source, "mine", kept)
        for split, own in (("train", "train"), ("test", "val")):
            loaded = data.load("mine", split, folder=kept)
            images, labels = zip(*contents_of(tree, own))
            wanted = np.stack([decode.decode(image, 3) for image in images])
            np.testing.assert_array_equal(loaded.images, wanted)
            np.testing.assert_array_equal(loaded.labels, labels)
            assert loaded.info.classes == ("cat", "dog")

    def test_progress_counts_every_image_twice(self, tree, kept):
        seen = []
        prepare.from_source(tree, "mine", kept, observe=lambda *told: seen.append(told))
        assert seen == [(w, n, 14) for w in ("check", "write") for n in range(1, 15)]


class TestSplits:
    def test_share_of_each_class_is_drawn_where_there_is_one_split(
        self, write_tree, tmp_path, kept, tfds
    ):
        tree = write_tree(tmp_path / "images", {"": {"a": 10, "b": 5, "c": 2}})
        folder = prepare.from_source(tree, "mine", kept)
        train, test = (contents(tfds, folder, s) for s in ("train", "test"))
        assert np.bincount([label for _, label in test]).tolist() == [2, 1, 1]
        assert sorted(train + test) == sorted(contents_of(tree, ""))
        assert test != sorted(contents_of(tree, ""))[:4]
        assert sets.notes(folder)["test_drawn"]
        again = prepare.from_source(tree, "again", kept)
        assert contents(tfds, again, "test") == test
        other = prepare.from_source(tree, "other", kept, test_share=0.5)
        assert np.bincount([k for _, k in contents(tfds, other, "test")])[0] == 5

    def test_validation_is_kept_beside_a_test_split(self, write_tree, tmp_path, kept):
        splits = {"training": {"a": 3}, "valid": {"a": 1}, "Test": {"a": 2}}
        folder = prepare.from_source(
            write_tree(tmp_path / "images", splits), "mine", kept
        )
        lengths = sets.describe(folder).lengths
        assert lengths == {"train": (3,), "validation": (1,), "test": (2,)}

    def test_parquet_without_names_numbers_its_classes(self, encoded, tmp_path, kept):
        image = encoded(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
        rows = [(image, label) for label in (0, 0, 1, 1, 2, 2)]
        table(tmp_path / "t" / "train-00000-of-00001.parquet", rows, names=None)
        folder = prepare.from_source(tmp_path / "t", "mine", kept)
        assert sets.describe(folder).classes == ("0", "1", "2")

    def test_order_of_parquet_s_names_is_kept(self, tree, tmp_path, kept, tfds):
        rows = contents_of(tree, "train")
        table(tmp_path / "t" / "train-00000-of-00001.parquet", rows, ("zebra", "ape"))
        table(tmp_path / "t" / "test-00000-of-00001.parquet", rows, ("zebra", "ape"))
        folder = prepare.from_source(tmp_path / "t", "mine", kept)
        assert sets.describe(folder).classes == ("zebra", "ape")
        assert contents(tfds, folder, "train") == rows


class TestFormats:
    """What readers decode differently becomes PNG; the rest is not touched."""

    @pytest.fixture
    def mixed(self, encoded, tmp_path):
        smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8), (24, 24))
        colour = Image.fromarray(np.stack([smooth, smooth.T, smooth // 2], -1))
        deep = Image.fromarray(smooth.astype(np.uint16) * 257)
        folder = tmp_path / "images" / "train"
        files = {
            "a.jpg": encoded(colour, "JPEG"),
            "b.jpg": encoded(colour.convert("L"), "JPEG"),
            "c.jpg": encoded(colour.convert("CMYK"), "JPEG"),
            "d.png": encoded(colour),
            "e.png": encoded(deep),
            "f.png": encoded(colour.convert("P")),
            "g.png": encoded(colour.convert("RGBA")),
            "h.bmp": encoded(colour, "BMP"),
            "i.tiff": encoded(colour, "TIFF"),
            "j.gif": encoded(colour, "GIF"),
            "k.webp": encoded(colour, "WEBP", lossless=True),
        }
        for split in ("train", "test"):
            folder = tmp_path / "images" / split / "only"
            folder.mkdir(parents=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
        return tmp_path / "images", files

    def test_only_uncommon_files_are_encoded_anew(self, mixed, kept, tfds):
        source, files = mixed
        folder = prepare.from_source(source, "mine", kept)
        stored = [image for image, _ in contents(tfds, folder, "train")]
        for name, before, after in zip(files, files.values(), stored):
            if name in ("a.jpg", "b.jpg", "d.png"):
                assert after == before
            else:
                assert after.startswith(b"\x89PNG")
            np.testing.assert_array_equal(
                decode.decode(after, 3), decode.decode(before, 3), name
            )
        assert sets.notes(folder)["encoded_anew"] == 2 * 8

    def test_tfds_decodes_all_to_our_pixels(self, mixed, kept, tfds):
        folder = prepare.from_source(mixed[0], "mine", kept)
        ours = data.load("mine", folder=kept).images
        theirs = tfds.builder_from_directory(folder).as_data_source("train")
        for mine, record in zip(ours, theirs):
            np.testing.assert_allclose(
                mine.astype(int), record["image"].astype(int), atol=2
            )

    def test_grey_set_has_one_channel(self, encoded, write_tree, tmp_path, kept):
        tree = write_tree(tmp_path / "images", {"": {"a": 3, "b": 3}}, (8, 8))
        deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
        (tree / "a" / "deep.png").write_bytes(encoded(deep))
        prepare.from_source(tree, "mine", kept)
        train, test = (data.load("mine", s, folder=kept) for s in ("train", "test"))
        assert train.info.shape == (8, 8, 1)
        images = np.concatenate([train.images, test.images])[..., 0].tolist()
        assert (deep >> 8).tolist() in images

    def test_size_stores_resized_images(self, write_tree, tmp_path, kept):
        tree = write_tree(tmp_path / "images", {"train": {"a": 2}}, (40, 50, 3))
        write_tree(tree, {"test": {"a": 2}}, (64, 33, 3))
        folder = prepare.from_source(tree, "mine", kept, size=16)
        loaded = data.load("mine", folder=kept)
        wanted = [
            decode.resize_and_crop(decode.decode(image, 3), 16)
            for image, _ in contents_of(tree, "train")
        ]
        np.testing.assert_array_equal(loaded.images, wanted)
        assert sets.describe(folder).shape == (16, 16, 3)
        assert sets.notes(folder)["encoded_anew"] == 4


class TestBadImages:
    @pytest.fixture(params=["truncated", "text", "empty"])
    def bad(self, request, tree):
        """The name of a file that is no image."""
        file = tree / "train" / "dog" / "2.png"
        whole = file.read_bytes()
        content = {"truncated": whole[:100], "text": b"<html>", "empty": b""}
        file.write_bytes(content[request.param])
        return str(file)

    def test_stops_and_names_the_file(self, bad, tree, kept):
        assert bad in refused(tree, kept, "(damaged|not an image|no bytes).*Mend or")

    def test_skips_and_counts(self, bad, tree, kept):
        folder = prepare.from_source(tree, "mine", kept, on_error="skip")
        notes = sets.notes(folder)
        assert notes["skipped"] == 1 and bad in notes["skipped_files"][0]
        assert data.class_slices(data.load("mine", folder=kept))[1] == slice(5, 8)

    def test_only_the_first_ten_are_named(self, write_tree, tmp_path, kept):
        tree = write_tree(tmp_path / "images", {"": {"a": 20, "b": 5}})
        for number in range(12):
            (tree / "a" / f"{number}.png").write_bytes(b"?")
        notes = sets.notes(prepare.from_source(tree, "mine", kept, on_error="skip"))
        assert notes["skipped"] == 12 and len(notes["skipped_files"]) == 10

    def test_class_that_skipping_empties_is_refused(self, tree, kept):
        for file in (tree / "val" / "cat").iterdir():
            file.write_bytes(b"?")
        refused(tree, kept, "no image of class cat is left.*test", on_error="skip")

    def test_no_image_at_all(self, tree, kept):
        for file in tree.rglob("*.png"):
            file.write_bytes(b"?")
        refused(tree, kept, "no image can be decoded", on_error="skip")

    def test_row_of_parquet_is_named(self, tables, tree, kept):
        file = tables / "train-00001-of-00002.parquet"
        dogs = contents_of(tree, "train")[5:]
        table(file, [*dogs, (b"?", 1), (None, 1)])
        refused(tables, kept, f"{file} row 4: not an image")
        folder = prepare.from_source(tables, "mine", kept, on_error="skip")
        assert sets.notes(folder)["skipped"] == 2

    def test_wrong_checksum_in_a_zip(self, tree, tmp_path, kept):
        path = zipped(tree, tmp_path / "images.zip")
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT") + 20] ^= 255
        path.write_bytes(content)
        refused(path, kept, r"images.zip/train/cat/0.png: no bytes .an empty or unread")


class TestBadTrees:
    def test_empty_class(self, tree, kept):
        for split in ("train", "val"):
            (tree / split / "ape").mkdir()
        refused(tree, kept, "1 of 3 classes have no images in the train split: ape")

    def test_empty_class_of_a_zip(self, tree, tmp_path, kept):
        for split in ("train", "val"):
            (tree / split / "ape").mkdir()
        path = zipped(tree, tmp_path / "images.zip")
        refused(path, kept, "no images in the train split: ape")

    def test_splits_with_different_classes(self, tree, kept):
        (tree / "val" / "cat").rename(tree / "val" / "cats")
        refused(tree, kept, "train and val.* different classes: .* cat, cats")

    def test_split_twice(self, tree, kept):
        shutil.copytree(tree / "val", tree / "validation")
        refused(tree, kept, "has the validation split twice: .*val.*validation")

    def test_folder_beside_the_splits(self, tree, kept):
        (tree / "extra").mkdir()
        refused(tree, kept, "the folder extra lies beside split folders")

    def test_image_outside_the_classes(self, tree, kept):
        shutil.copy(tree / "train" / "cat" / "0.png", tree / "train" / "lost.png")
        refused(tree, kept, "train/lost.png lies in no class folder")

    def test_no_training_split(self, tree, kept):
        shutil.rmtree(tree / "train")
        refused(tree, kept, "has no train split, only validation; wanted are train/<c")

    def test_no_folders(self, tmp_path, kept):
        (tmp_path / "none").mkdir()
        refused(tmp_path / "none", kept, "no class folders in it; wanted are train/<cl")
        refused(tmp_path / "nowhere", kept, "nowhere does not exist")

    def test_class_too_small_to_be_drawn_from(self, write_tree, tmp_path, kept):
        tree = write_tree(tmp_path / "images", {"": {"a": 1, "b": 3}})
        refused(tree, kept, "no image of class a is left for the train split")

    def test_what_systems_leave_is_not_read(self, tree, kept, tfds):
        (tree / ".DS_Store").write_bytes(b"x")
        (tree / "train" / "cat" / ".0.png").write_bytes(b"x")
        (tree / "train" / "cat" / "Thumbs.db").write_bytes(b"x")
        (tree / "README.txt").write_text("cats and dogs")
        (tree / "__MACOSX").mkdir()
        folder = prepare.from_source(tree, "mine", kept)
        assert len(contents(tfds, folder, "train")) == 9

    def test_folders_inside_a_class_are_read(self, tree, kept, tfds):
        inside = tree / "train" / "cat" / "more"
        inside.mkdir()
        shutil.copy(tree / "train" / "dog" / "0.png", inside / "0.png")
        folder = prepare.from_source(tree, "mine", kept)
        assert [k for _, k in contents(tfds, folder, "train")] == [0] * 6 + [1] * 4

    def test_no_zip(self, tmp_path, kept):
        (tmp_path / "images.zip").write_bytes(b"PK")
        refused(tmp_path / "images.zip", kept, "images.zip is no zip file")


class TestBadTables:
    def test_label_out_of_range(self, tables, kept):
        file = tables / "train-00001-of-00002.parquet"
        table(file, [(b"", 0), (b"", 2)])
        refused(tables, kept, f"{file}: label 2 of row 1 is out of range; 2 classes")
        table(file, [(b"", -1)])
        refused(tables, kept, "label -1 of row 0 .*without labels.*move its files away")

    def test_other_order_of_classes(self, tables, kept):
        file = tables / "validation-00000-of-00001.parquet"
        table(file, [(b"", 0)], names=("dog", "cat"))
        refused(tables, kept, f"{file} and .*train-00000.* different classes, or the s")

    def test_missing_file(self, tables, kept):
        (tables / "train-00000-of-00002.parquet").unlink()
        refused(tables, kept, "of the 2 files of train, number 00000 is missing")

    def test_split_twice(self, tables, kept):
        table(tables / "train-00000-of-00001.parquet", [(b"", 0)])
        refused(tables, kept, "has a split twice: train-0.*and train-0")

    def test_unknown_split(self, tables, kept):
        table(tables / "extra-00000-of-00001.parquet", [(b"", 0)])
        refused(tables, kept, "extra-00000-of-00001.parquet: the name says no split")

    def test_empty_files(self, tables, kept):
        file = tables / "validation-00000-of-00001.parquet"
        table(file, [])
        refused(tables, kept, f"{file} cannot be used: it has no rows")
        file.write_bytes(b"")
        refused(tables, kept, f"{file} cannot be used: ")

    def test_other_columns(self, tables, kept):
        file = tables / "validation-00000-of-00001.parquet"
        table(file, [(b"", 0)], column="picture")
        refused(tables, kept, f"{file}.*columns image .*and label .*has: picture .str")

    def test_row_without_label(self, tables, kept):
        table(tables / "validation-00000-of-00001.parquet", [(b"", None), (b"", 1)])
        refused(tables, kept, "a row has no label")


class TestNames:
    def test_same_source_again_does_nothing(self, tree, kept, monkeypatch):
        folder = prepare.from_source(tree, "mine", kept)
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        monkeypatch.setattr(decode, "inspect", lambda data: pytest.fail("looked again"))
        assert prepare.from_source(tree, "mine", kept) == folder
        assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before

    def test_other_source_or_options_are_refused(self, tree, kept):
        prepare.from_source(tree, "mine", kept)
        refused(tree, kept, "from another source, or with other options", size=4)
        (tree / "train" / "cat" / "0.png").unlink()
        refused(tree, kept, f"{kept}.*from another source.*{tree}.*--overwrite")

    def test_overwrite_replaces(self, tree, kept):
        prepare.from_source(tree, "mine", kept)
        first = data.load("mine", folder=kept)
        shutil.copy(tree / "train" / "dog" / "0.png", tree / "train" / "dog" / "9.png")
        prepare.from_source(tree, "mine", kept, overwrite=True)
        second = data.load("mine", folder=kept)
        assert len(first.labels) == 9 and len(second.labels) == 10
        assert first.info != second.info
        assert [path.name for path in kept.glob("**/")] == ["kept", "mine", "1.0.0"]

    def test_set_of_another_maker_is_never_replaced(self, tree, kept):
        folder = prepare.from_source(tree, "mine", kept)
        (folder / "metadata.json").unlink()
        refused(tree, kept, "was not made from a source; choose", overwrite=True)
        folder.rename(folder.with_name("3.0.2"))
        refused(tree, kept, "was not made from a source; choose", overwrite=True)

    @pytest.mark.parametrize("name", ["", "Mine", "my/set", "../x", "1st", "digits"])
    def test_impossible_name(self, tree, kept, name):
        with pytest.raises(ValueError, match=f"the name '{name}' cannot be used"):
            prepare.from_source(tree, name, kept)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"size": -1}, "size must not be negative"),
            ({"test_share": 1.0}, r"test_share must lie in \(0, 1\); got 1.0"),
            ({"on_error": "ignore"}, "on_error must be stop or skip; got 'ignore'"),
        ],
    )
    def test_impossible_options(self, tree, kept, options, match):
        refused(tree, kept, match, **options)


class TestDisk:
    def test_too_small_a_disk_is_seen_before_anything_is_written(
        self, tree, kept, monkeypatch
    ):
        needed = sum(path.stat().st_size for path in tree.rglob("*.png"))
        usage = shutil.disk_usage(tree)
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: usage._replace(free=needed - 1)
        )
        refused(tree, kept, "the set needs 0 MiB, and .*kept has 0 MiB free; make room")
        assert not kept.exists()
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: usage._replace(free=needed)
        )
        prepare.from_source(tree, "mine", kept)

    def test_disk_that_fills_up_leaves_nothing(self, write_tree, tmp_path, kept):
        """The system itself refuses to let a file grow."""
        tree = write_tree(tmp_path / "images", {"": {"a": 20}}, (64, 64, 3))
        kept.mkdir()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        try:
            refused(tree, kept, "cannot write .*File too large.*Nothing is left of it")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        prepare.from_source(tree, "mine", kept)

    def test_full_disk_at_the_rename_keeps_the_old(self, tree, kept, monkeypatch):
        prepare.from_source(tree, "mine", kept)
        before = data.load("mine", folder=kept)
        replace = os.replace

        def full(source, target):
            if pathlib.Path(target).name == "1.0.0" and "replaced" not in str(source):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        monkeypatch.setattr(os, "replace", full)
        refused(tree, kept, "cannot write .*No space left", overwrite=True)
        after = data.load("mine", folder=kept)
        np.testing.assert_array_equal(after.images, before.images)

    def test_interrupt_leaves_nothing(self, tree, kept):
        def stop(what, done, total):
            if (what, done) == ("write", 3):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare.from_source(tree, "mine", kept, observe=stop)
        assert leftovers(kept) == []

    def test_what_a_killed_process_left_is_removed(self, tree, kept):
        dead, alive = kept / f".mine.{2**22 + 1}", kept / f".mine.{os.getppid()}"
        for left in (dead, alive):
            left.mkdir(parents=True)
        prepare.from_source(tree, "mine", kept)
        assert not dead.exists() and alive.exists()

    def test_source_that_goes_away(self, tree, kept, monkeypatch):
        def gone(path):
            raise OSError(errno.EIO, "Input/output error", str(path))

        monkeypatch.setattr(pathlib.Path, "read_bytes", gone)
        refused(tree, kept, "cannot read .*Input/output error")


def test_neither_source_nor_reader_needs_tensorflow(tree, kept, monkeypatch):
    importing = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name=name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    prepare.from_source(tree, "mine", kept)
    assert data.load("mine", folder=kept).images.shape == (9, 8, 8, 3)

"""Public sets: every layout gives its pixels, and what is not known is refused."""

import io
import json
import os
import pathlib
import pickle

import numpy as np
import pytest
from PIL import Image

from ddjax import data
from ddjax.export import public
from ddjax.types import DataInfo, Dataset

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
STORED = dict(np.load(FIXTURES / "public.npz"))
PIXELS = STORED["pixels"].transpose(0, 1, 3, 4, 2)  # [2, 6, H, W, ch]
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
TOLD = public.Reference("data", ("x", "a", "m"), MEAN, STD, 3)
MTT = {"labels": str(FIXTURES / "labels_best.pt")}


def tensors(name, told=TOLD, undo="normalisation", **options):
    return public.from_tensors(FIXTURES / name, told, "mine", undo=undo, **options)


class TestTensors:
    @pytest.mark.parametrize("name", ["dc.pt", "dc_stream.pt"])
    @pytest.mark.parametrize("which", [0, 1])
    def test_dc(self, name, which):
        got = tensors(name, which=which)
        np.testing.assert_array_equal(got.images, PIXELS[which], strict=True)
        assert got.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert got.weights.tolist() == [0.5] * 6 and got.ipc == 2
        assert got.info == DataInfo("data", TOLD.classes, (4, 4, 3), MEAN, STD)
        assert got.about["clipped"] == 0 and got.about["arm"] == "mine"

    def test_mtt_whose_labels_are_not_sorted(self):
        got = tensors("images_best.pt", **MTT)
        labels = np.array([2, 0, 1, 0, 2, 1])
        order = np.argsort(labels, kind="stable")
        np.testing.assert_array_equal(got.images, PIXELS[0][order])
        assert got.labels.tolist() == [0, 0, 1, 1, 2, 2]

    def test_zca_is_undone(self):
        train = STORED["train"].transpose(0, 2, 3, 1)
        info = DataInfo("data", TOLD.classes, (4, 4, 3), (0.1,) * 3, (0.7,) * 3)
        whitened = Dataset(train, np.zeros(len(train), np.int32), info)
        got = tensors("whitened.pt", undo="zca", whitened=whitened, **MTT)
        order = np.argsort([2, 0, 1, 0, 2, 1], kind="stable")
        np.testing.assert_array_equal(got.images, train[:6][order])
        small = whitened._replace(info=info._replace(shape=(5, 5, 3)))
        with pytest.raises(ValueError, match=r"images of \(4, 4, 3\), and the whiten"):
            tensors("whitened.pt", undo="zca", whitened=small, **MTT)

    def test_values_outside_are_clipped_and_counted(self):
        got = tensors("dc.pt", undo="nothing")  # they are normalised, in truth
        x = (PIXELS[0] / np.float64(255) - MEAN) / STD
        outside = np.sum((np.rint(x * 255) < 0) | (np.rint(x * 255) > 255))
        assert got.about["clipped"] == outside > 50
        assert got.about["clipped_share"] == outside / x.size
        assert got.images.min() == 0 and got.images.max() == 255

    @pytest.mark.parametrize(
        ("name", "options", "told"),
        [
            ("images_best.pt", {}, "without labels; name their file with --labels"),
            ("dc.pt", {"which": 2}, "holds 2 sets, numbered from 0; got 2"),
            ("labels_best.pt", MTT, r"images are int64 \(6,\)"),
            ("images_best.pt", {"labels": str(FIXTURES / "dc.pt")}, "not one tensor"),
            (
                "images_best.pt",
                {"labels": str(FIXTURES / "images_best.pt")},
                r"labels are float32 \(6, 3, 4, 4\)",
            ),
            ("nowhere.pt", {}, "cannot read .*No such file"),
            ("public.npz", {}, "entries data.pkl"),
            ("dc.pt", {"told": TOLD._replace(mean=(0.5,), std=(1.0,))}, "3 channels"),
            (
                "dc.pt",
                {"told": TOLD._replace(classes=("a", "b"))},
                "label 2 of image 4 names no class",
            ),
            (
                "dc.pt",
                {"told": TOLD._replace(classes=tuple("abcd"))},
                "1 of 4 classes have no image",
            ),
        ],
    )
    def test_what_is_refused(self, name, options, told):
        with pytest.raises(ValueError, match=told) as caught:
            tensors(name, **options)
        assert "\n" not in str(caught.value)

    def test_a_call_in_the_file_does_not_run(self, tmp_path):
        class Runs:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        path = tmp_path / "dc.pt"
        path.write_bytes(pickle.dumps({"data": [[Runs(), Runs()]]}, 2))
        with pytest.raises(ValueError, match="refused: it names|not of torch.save"):
            tensors(path)
        assert not (tmp_path / "ran").exists()

    def test_every_cut_of_a_file_is_refused(self, tmp_path):
        for name in ("dc.pt", "dc_stream.pt"):
            whole = (FIXTURES / name).read_bytes()
            for size in range(0, len(whole) - 1, 97):
                (tmp_path / name).write_bytes(whole[:size])
                with pytest.raises(ValueError) as caught:
                    tensors(tmp_path / name)
                assert "\n" not in str(caught.value)


def write_folders(root, names, kind="png", sides=(4, 4, 4)):
    """Two images a folder, filled with the number of the folder's label."""
    for label, (name, side) in enumerate(zip(names, sides, strict=True)):
        (root / name).mkdir(parents=True)
        for number in range(2):
            image = np.full((side, 4, 3), 40 * label + number, np.uint8)
            Image.fromarray(image).save(root / name / f"id{number}.{kind}")
    return root


class TestFolders:
    @pytest.mark.parametrize(
        "names", [("x", "a", "m"), ("new000", "new001", "new002"), ("0", "1", "2")]
    )
    @pytest.mark.parametrize("kind", ["png", "jpg"])
    def test_in_the_order_of_the_classes(self, names, kind, tmp_path):
        write_folders(tmp_path, names, kind)
        got = public.from_folders(tmp_path, TOLD, "mine")
        # Of JPEG too: an image of one colour is kept by it.
        assert got.images[:, 0, 0, 0].tolist() == [0, 1, 40, 41, 80, 81]
        assert got.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert got.info.classes == TOLD.classes and got.about["arm"] == "mine"

    def test_more_than_ten_numbers_without_zeros(self, tmp_path):
        names = [f"new{k}" for k in range(11)]
        write_folders(tmp_path, names[:6], sides=(4,) * 6)
        write_folders(tmp_path, names[6:], sides=(4,) * 5)
        told = TOLD._replace(classes=tuple("abcdefghijk"))
        got = public.from_folders(tmp_path, told, "mine")
        assert got.labels[np.flatnonzero(got.images[:, 0, 0, 0] == 160)].tolist() == [
            4,
            10,
        ]

    @pytest.mark.parametrize(
        "names",
        [("x", "a", "y"), ("1", "2", "3"), ("new0", "old1", "new2"), ("x", "a")],
    )
    def test_an_unknown_order_is_refused(self, names, tmp_path):
        write_folders(tmp_path, names, sides=(4,) * len(names))
        with pytest.raises(ValueError, match="cannot be put into the order"):
            public.from_folders(tmp_path, TOLD, "mine")

    def test_sizes(self, tmp_path):
        write_folders(tmp_path, TOLD.classes, sides=(4, 6, 8))
        with pytest.raises(ValueError, match="several sizes .6x4 and 8x4"):
            public.from_folders(tmp_path, TOLD, "mine")
        got = public.from_folders(tmp_path, TOLD, "mine", size=4)
        assert got.images.shape == (6, 4, 4, 3)

    def test_damaged_and_empty(self, tmp_path):
        write_folders(tmp_path, TOLD.classes)
        (tmp_path / "a" / "id0.png").write_bytes(b"?")
        with pytest.raises(ValueError, match="id0.png: not an image"):
            public.from_folders(tmp_path, TOLD, "mine")
        for path in (tmp_path / "a").iterdir():
            path.unlink()
        with pytest.raises(ValueError, match=r"have no image, the first 1 \(a\)"):
            public.from_folders(tmp_path, TOLD, "mine")


class TestReference:
    def test_files_of_names(self, tmp_path):
        lines, listed = tmp_path / "lines.txt", tmp_path / "listed.json"
        lines.write_text("x\na \n\nm\n")
        listed.write_text(json.dumps(TOLD.classes))
        for path in (lines, listed):
            got = public.reference(str(path), MEAN, STD)
            assert got == TOLD._replace(name=path.stem)

    def test_a_data_set(self):
        info = data.load("digits").info
        got = public.reference("digits")
        assert got == public.Reference("digits", info.classes, info.mean, info.std, 1)
        assert public.reference("digits", (0.5,), (0.1,)).mean == (0.5,)

    def test_what_is_refused(self, tmp_path):
        path = tmp_path / "names.txt"
        path.write_text("a\nb")
        for arguments, told in (
            (("",), "the class order is not known"),
            ((str(path),), "the transform is not known"),
            ((str(path), (0.5,), ()), "must have one number each"),
            ((str(path), (0.5,), (0.0,)), "std above 0"),
            (("no_such_set",), "unknown data set 'no_such_set'"),
            (("no_such_set", (0.5,), (0.5,)), "unknown data set 'no_such_set'"),
        ):
            with pytest.raises(ValueError, match=told):
                public.reference(*arguments)
        for text in ("a\na", "", "[1", io.BytesIO(b"\xff").getvalue()):
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            with pytest.raises(ValueError, match="names no class|cannot read"):
                public.reference(str(path), MEAN, STD)

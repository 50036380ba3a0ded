"""Checkpoints that PyTorch wrote (fixtures/weights.npz), and damaged ones."""

import io
import pathlib
import zipfile

import numpy as np
import pytest

from ddjax.models import torch_file, weights

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
WEIGHTS = dict(np.load(FIXTURES / "weights.npz"))
FILES = ("zip", "protocol4", "stream", "wrapped", "wrapped_stream", "ancient")


def bytes_of(name):
    return WEIGHTS[name].tobytes()


def read(path, data):
    path.write_bytes(data)
    return weights.read(path)


def repacked(data, change):
    """The zip file with its entries passed through `change(name, bytes)`."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


@pytest.mark.parametrize("name", (*FILES, "safetensors"))
def test_every_tensor_is_what_torch_reads(name, tmp_path):
    arrays = read(tmp_path / "any.name", bytes_of(name))
    wanted = {
        key.removeprefix(f"{name}/"): value
        for key, value in WEIGHTS.items()
        if key.startswith(f"{name}/")
    }
    assert set(arrays) == set(wanted)
    for key, array in arrays.items():
        assert array.dtype == wanted[key].dtype
        np.testing.assert_array_equal(array, wanted[key], strict=True)


def test_the_order_is_the_files(tmp_path):
    arrays = read(tmp_path / "a.pth", bytes_of("zip"))
    assert list(arrays)[:3] == ["square", "permuted", "channels_last"]


def test_arrays_do_not_share_memory(tmp_path):
    arrays = read(tmp_path / "a.pth", bytes_of("zip"))
    arrays["head"][:] = -1
    assert arrays["tail"][0] == 5


def test_big_endian_numbers(tmp_path):
    def change(name, data):
        if name.endswith("byteorder"):
            return b"big"
        if "/data/" not in name or len(data) == 0:
            return data
        return np.frombuffer(data, f"u{width[name]}").byteswap().tobytes()

    # In the fixture's order of storages (head and tail share the fourth).
    widths = (4, 4, 4, 4, 4, 2, 2, 8, 8, 1, 1, 4, 4)
    width = {f"archive/data/{key}": width for key, width in enumerate(widths)}
    arrays = read(tmp_path / "a.pth", repacked(bytes_of("zip"), change))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, WEIGHTS[f"zip/{name}"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x93NUMPY", "not a checkpoint"),
        (b"\x80\x02}q\x00.", "magic number"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut short"),
        (b"\x10\0\0\0\0\0\0\0{}", "not a whole safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_named(data, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "weights.pth", data)
    assert "weights.pth" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.pth: No such file"):
        weights.read(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", (*FILES, "safetensors"))
@pytest.mark.parametrize("share", (0.02, 0.3, 0.8, 0.99, 1.0))
def test_a_file_cut_short_is_refused(name, share, tmp_path):
    data = bytes_of(name)
    with pytest.raises(ValueError, match=r"a\.pth"):
        read(tmp_path / "a.pth", data[: int(share * len(data)) - 1])


@pytest.mark.parametrize("name", ("zip", "stream", "ancient", "safetensors"))
def test_a_flipped_byte_is_an_error_or_nothing(name, tmp_path):
    random = np.random.default_rng(0)
    whole, refused = bytes_of(name), 0
    for _ in range(200):
        data = bytearray(whole)
        data[random.integers(len(data))] ^= random.integers(1, 256)
        try:
            read(tmp_path / "a.pth", bytes(data))
        except ValueError:
            refused += 1
    assert 0 < refused < 200


def test_flipped_bytes_of_the_pickle_reach_no_code():
    """Inside the zip file, where the checksum does not see them."""
    random = np.random.default_rng(0)
    data, flipped = bytes_of("wrapped"), 0

    def change(name, entry):
        if not name.endswith("data.pkl"):
            return entry
        entry = bytearray(entry)
        entry[random.integers(len(entry))] ^= random.integers(1, 256)
        return bytes(entry)

    for _ in range(200):
        try:
            torch_file.read(io.BytesIO(repacked(data, change)))
        except ValueError:
            flipped += 1
    assert 0 < flipped < 200


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x02K\x03\x86", b"K\x02K\x17\x86"),  # shape (2, 3) becomes (2, 23)
        (b"K\x03K\x01\x86", b"K\x63K\x01\x86"),  # strides (3, 1) become (99, 1)
        (b"QK\x02K\x02K\x03", b"QK\x13K\x02K\x03"),  # the offset 2 becomes 19
        (b"K\x03K\x01\x86", b"K\x00K\x00\x86"),  # no outside, but a repeated number
    ],
)
def test_a_view_outside_its_storage_is_refused(old, new):
    def change(name, data):
        return data.replace(old, new) if name.endswith("data.pkl") else data

    data = repacked(bytes_of("zip"), change)
    if b"\x00K\x00" in new:  # within the 24 numbers: allowed
        np.testing.assert_array_equal(torch_file.read(io.BytesIO(data))["head"], 2.0)
        return
    with pytest.raises(ValueError, match="tensor head .* reaches outside"):
        torch_file.read(io.BytesIO(data))


def test_a_compressed_entry_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(ValueError, match="data.pkl is compressed"):
        weights.read(path)


def test_a_missing_or_short_storage_is_refused():
    def shorten(name, data):
        return data[:-4] if name.endswith("data/0") else data

    with pytest.raises(ValueError, match="storage 0 has 96 bytes; expected 25 times 4"):
        torch_file.read(io.BytesIO(repacked(bytes_of("zip"), shorten)))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02}.",
        b"\x80\x02].",
        b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s.",  # a dict under its own "model"
        b"\x80\x02}X\x01\0\0\0aK\x01s.",
    ],
)
def test_a_file_without_tensors_is_refused(program):
    def change(name, data):
        return program if name.endswith("data.pkl") else data

    with pytest.raises(ValueError, match="no tensors by name"):
        torch_file.read(io.BytesIO(repacked(bytes_of("zip"), change)))


def test_all_tensors_by_their_place(tmp_path):
    path = tmp_path / "a.pth"
    for name in ("zip", "stream"):
        path.write_bytes(bytes_of(name))
        with open(path, "rb") as file:
            found = torch_file.read_all(file)
        for key, array in weights.read(path).items():
            np.testing.assert_array_equal(found.pop(key), array, strict=True)
        assert not found
    path.write_bytes(bytes_of("wrapped"))
    with open(path, "rb") as file:
        found = torch_file.read_all(file)
    assert set(found) == {"model/head", "ema/module.head", "ema/module.half"}
    np.testing.assert_array_equal(found["model/head"], [5, 9, 13, 17, 21])


def test_a_tree_that_contains_itself_ends(tmp_path):
    own = []
    own += [own] * 50
    for tree in (own, {"a": own, "b": (own, own)}):
        with pytest.raises(ValueError, match="no tensors in it"):
            torch_file._everywhere(tree)

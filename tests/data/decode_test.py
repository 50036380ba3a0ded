"""Decoding and resizing against torchvision, and every mode that files come in."""

import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ddjax.data import decode

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "decode.npz"


@pytest.fixture(scope="module")
def torchvision():
    """(JPEG bytes, resized and cropped, box, box resized) by make_decode_fixtures.py."""
    with np.load(FIXTURE) as arrays:
        ends = np.cumsum(arrays["lengths"])
        whole = arrays["bytes"].tobytes()
        files = [whole[end - n : end] for end, n in zip(ends, arrays["lengths"])]
        columns = (arrays[name] for name in ("resized", "boxes", "cropped"))
        return list(zip(files, *columns))


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def distance(a, b):
    return int(np.abs(a.astype(int) - b.astype(int)).max())


class TestTorchvision:
    """Equal to 2 of 255; by the same version of Pillow, equal."""

    def test_resize_and_crop(self, torchvision):
        others = 0
        for data, wanted, _, _ in torchvision:
            image = decode.decode(data, 3)
            if image.shape != wanted.shape:  # else it is kept
                got = decode.resize_and_crop(image, len(wanted))
                assert got.shape == wanted.shape and got.dtype == np.uint8
                assert distance(got, wanted) <= 2
                others += 1
        assert others == 19

    def test_crop_and_resize(self, torchvision):
        for data, _, box, wanted in torchvision:
            image = decode.decode(data, 3)
            got = decode.crop_and_resize(image, box, len(wanted))
            assert distance(got, wanted) <= 2

    def test_grey_is_resized_as_colour_is(self, torchvision):
        image = decode.decode(torchvision[4][0], 1)
        colour = np.repeat(image, 3, axis=-1)
        for resize in (
            lambda image: decode.resize_and_crop(image, 16),
            lambda image: decode.crop_and_resize(image, (1, 2, 20, 30), 16),
        ):
            assert resize(image).shape == (16, 16, 1)
            np.testing.assert_array_equal(resize(image)[..., 0], resize(colour)[..., 1])

    def test_image_of_the_size_is_kept(self, pixels):
        square = pixels[:, :6]
        assert decode.resize_and_crop(square, 6) is square


class TestModes:
    def test_colour(self, pixels):
        image = Image.fromarray(pixels)
        np.testing.assert_array_equal(decode.decode(encoded(image), 3), pixels)
        grey = decode.decode(encoded(image), 1)
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        assert grey.shape == (6, 9, 1)
        assert distance(grey[..., 0], luma) <= 1

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_grey(self, pixels, kind):
        image = Image.fromarray(pixels[..., 0])
        data = encoded(image, kind)
        grey = decode.decode(data, 1)
        np.testing.assert_array_equal(decode.decode(data, 3), np.repeat(grey, 3, -1))
        if kind == "PNG":
            np.testing.assert_array_equal(grey[..., 0], pixels[..., 0])

    def test_transparency_is_dropped(self, pixels):
        alpha = Image.fromarray(np.dstack([pixels, pixels[..., 0]]))
        np.testing.assert_array_equal(decode.decode(encoded(alpha), 3), pixels)
        grey = Image.fromarray(pixels[..., 0])
        data = encoded(Image.merge("LA", (grey, grey)))
        np.testing.assert_array_equal(decode.decode(data, 1)[..., 0], pixels[..., 0])

    @pytest.mark.parametrize("transparency", [None, 3, bytes(range(16))])
    def test_palette_is_looked_up(self, transparency):
        palette = np.random.default_rng(0).integers(0, 256, (16, 3), dtype=np.uint8)
        rows = np.random.default_rng(1).integers(0, 16, (5, 4), dtype=np.uint8)
        image = Image.fromarray(rows).convert("P")
        image.putdata(rows.ravel())
        image.putpalette(palette.ravel())
        options = {} if transparency is None else {"transparency": transparency}
        data = encoded(image, **options)
        np.testing.assert_array_equal(decode.decode(data, 3), palette[rows])

    def test_cmyk(self, pixels):
        smooth = np.broadcast_to(pixels[:1, :1], (16, 16, 3)).astype(np.uint8)
        data = encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=100)
        assert decode.decode(data, 3).shape == smooth.shape
        assert distance(decode.decode(data, 3), smooth) <= 4

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_sixteen_bits_are_scaled_and_not_clipped(self, kind):
        values = np.array([[0, 255, 256], [32768, 65279, 65535]], np.uint16)
        data = encoded(Image.fromarray(values), kind)
        wanted = [[0, 0, 1], [128, 254, 255]]
        np.testing.assert_array_equal(decode.decode(data, 1)[..., 0], wanted)
        np.testing.assert_array_equal(decode.decode(data, 3)[..., 2], wanted)

    def test_sixteen_bits_of_colour(self):
        """Pillow cannot write them, so this is a PNG by its specification."""
        values = np.array([[[0, 255, 256], [32768, 65279, 65535]]], np.uint16)
        header = struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)
        rows = zlib.compress(b"\0" + values.astype(">u2").tobytes())
        data = b"\x89PNG\r\n\x1a\n"
        for kind, content in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            checksum = struct.pack(">I", zlib.crc32(kind + content))
            data += struct.pack(">I", len(content)) + kind + content + checksum
        wanted = [[[0, 0, 1], [128, 254, 255]]]
        np.testing.assert_array_equal(decode.decode(data, 3), wanted)
        assert decode.inspect(data) == decode.Seen(1, 2, grey=False, plain=False)

    @pytest.mark.parametrize(
        ("mode", "kind", "grey", "plain"),
        [
            ("RGB", "JPEG", False, True),
            ("L", "PNG", True, True),
            ("1", "PNG", True, False),
            ("P", "PNG", False, False),
            ("RGBA", "PNG", False, False),
            ("CMYK", "JPEG", False, False),
            ("RGB", "WEBP", False, False),
        ],
    )
    def test_inspect(self, pixels, mode, kind, grey, plain):
        data = encoded(Image.fromarray(pixels).convert(mode), kind)
        assert decode.inspect(data) == decode.Seen(6, 9, grey, plain)

    def test_first_frame_of_an_animation(self):
        first, second = (Image.new("L", (4, 3), level) for level in (40, 200))
        data = encoded(first, "GIF", save_all=True, append_images=[second])
        np.testing.assert_array_equal(decode.decode(data, 1), np.full((3, 4, 1), 40))

    def test_orientation_is_left_as_it_is_stored(self, pixels):
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by a quarter
        data = encoded(Image.fromarray(pixels), "JPEG", exif=exif)
        assert decode.decode(data, 3).shape == (6, 9, 3)

    def test_size_is_in_the_header(self, pixels):
        assert decode.measure(encoded(Image.fromarray(pixels))) == (6, 9)


class TestBadImages:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF"])
    def test_truncated(self, kind):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        data = encoded(Image.fromarray(noise), kind)
        with pytest.raises(ValueError, match="damaged|not an image"):
            decode.decode(data[: len(data) // 2], 3)

    def test_not_an_image(self):
        with pytest.raises(ValueError, match="not an image"):
            decode.decode(b"<html>404</html>", 3)
        with pytest.raises(ValueError, match="no bytes .an empty or"):
            decode.decode(b"", 3)

    def test_no_defined_white(self):
        image = Image.fromarray(np.zeros((3, 3), np.float32))
        with pytest.raises(ValueError, match=r"mode F .32 bits.*convert the image"):
            decode.decode(encoded(image, "TIFF"), 3)

    def test_too_large(self, pixels, monkeypatch):
        data = encoded(Image.fromarray(pixels))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(ValueError, match="exceeds limit"):
            decode.decode(data, 3)

    def test_channels(self, pixels):
        with pytest.raises(ValueError, match="1 .grey. or 3 .RGB.; got 4"):
            decode.decode(encoded(Image.fromarray(pixels)), 4)

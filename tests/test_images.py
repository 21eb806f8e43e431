"""Image files: formats, limits, modes and ranges; what is odd is converted or refused in a line."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_xreid.data import images
from keras_xreid.data.datasets import Record
from keras_xreid.errors import InputError


def refusal(path):
    with pytest.raises(InputError) as caught:
        Record(str(path), 1, 1).read()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def png(path, width, height):
    """A PNG of a few bytes that claims to be of any size."""

    def chunk(name, content):
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_of_several_images_in_a_file_none_is_taken_for_all(tmp_path, kind):
    one, two = (Image.new("RGB", (8, 16), colour) for colour in ("red", "blue"))
    one.save(tmp_path / "x", kind, save_all=True, append_images=[two])
    assert "holds 2 images: store each" in refusal(tmp_path / "x")
    one.save(tmp_path / "x", kind, save_all=True)
    assert Record(str(tmp_path / "x"), 1, 1).read().shape == (16, 8, 3)
    one.save(tmp_path / "x", "MPO", save_all=True, append_images=[two])  # a camera's, with preview
    assert Record(str(tmp_path / "x"), 1, 1).read()[0, 0, 0] > 200


@pytest.mark.parametrize("kind", ["EPS", "GIF", "ICO", "PDF", "TGA"])
def test_other_formats_are_not_opened_whatever_their_name(tmp_path, kind, monkeypatch):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (8, 16)).save(path, kind)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)  # calling it would say so
    assert "is no image that can be read (JPEG, PNG, " in refusal(path)


@pytest.mark.parametrize("suffix", sorted(images.SUFFIXES))
def test_every_listed_ending_is_read(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    Image.new("RGB", (8, 16), (90, 90, 90)).save(path)
    assert np.abs(Record(str(path), 1, 1).read().astype(int) - 90).max() <= 2


def test_limits(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    png(path, 13_300, 13_300)
    assert "is not read: 13,300 x 13,300 are 176,890,000 pixels, and at most 64,000,000" in refusal(
        path
    )
    png(path, 8001, 8000)
    assert "at most 64,000,000" in refusal(path)
    png(path, 8000, 8000)
    assert "pixels" not in refusal(path)  # but cut short
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    assert "at most 10 are read" in refusal(path)


def test_a_decoder_that_fails_in_its_own_way(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 16)).save(path)
    for error in (IndexError("a\nb"), MemoryError(), RecursionError("deep"), struct.error("short")):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
        assert "is broken (" in refusal(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    assert "this is no file" in refusal(tmp_path / "x.jpg")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.2, 0.5, 1.0]], "float32"), [0, 51, 128, 255]),
        (np.array([[0.0, 1.4, 128.0, 255.0]], "float32"), [0, 1, 128, 255]),
        (np.array([[-0.5, 1.0]], "float32"), "its values are -0.5 to 1"),
        (np.array([[0.0, np.nan]], "float32"), "its values are nan to nan"),
        (np.array([[0.0, 300.0]], "float32"), "its values are 0 to 300"),
        (np.array([[0, 257, 65535]], "uint16"), [0, 1, 255]),
        (np.array([[0, 0]], "uint16"), [0, 0]),
        (np.array([[0, 200]], "uint16"), "its values are 0 to 200"),  # it would be black
        (np.array([[0, 70000]], "int32"), "its values are 0 to 70000"),
        (np.array([[-9, 7000]], "int32"), "its values are -9 to 7000"),
    ],
)
def test_ranges(tmp_path, values, expected):
    path = tmp_path / "x.tif"
    Image.fromarray(values).save(path)
    if isinstance(expected, str):
        assert expected in refusal(path)
    else:
        np.testing.assert_array_equal(Record(str(path), 1, 1).read()[0, :, 1], expected)

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

import keras_xreid as xr
from keras_xreid.data.datasets import DataSet, Record
from keras_xreid.data.manifest import manifest_rows, write_manifest
from keras_xreid.data.resolution import (
    KERNELS,
    check_rates,
    degrade,
    prepare_images,
    resize,
    told_of_large,
)
from keras_xreid.errors import InputError


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def checkerboard(height, width):
    board = 255 * (np.indices((height, width)).sum(0) % 2)
    return np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)


# --- degrade and resize ----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [2, 4, 8])
def test_area_is_the_mean_of_each_block(rate):
    image = noise(32, 16)
    blocks = image.reshape(32 // rate, rate, 16 // rate, rate, 3).astype(float)
    # Pillow rounds after each of its two passes.
    np.testing.assert_allclose(degrade(image, rate), blocks.mean((1, 3)), atol=1.01)


@pytest.mark.parametrize(
    ("rate", "size"), [(2, (64, 32)), (3, (43, 21)), (2.5, (51, 26)), (8, (16, 8)), (500, (1, 1))]
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_any_rate_and_kernel(rate, size, kernel):
    constant = np.full((128, 64, 3), (10, 120, 250), np.uint8)
    small = degrade(constant, rate, kernel)
    assert small.shape == (*size, 3) and small.dtype == np.uint8
    assert (small == (10, 120, 250)).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_shrinking_is_anti_aliased(kernel):
    # A filter that did not widen with the rate would pick black or white pixels.
    small = degrade(checkerboard(64, 32), 4, kernel)[2:-2, 2:-2]
    assert abs(small.astype(int) - 127).max() <= 8


def test_rate_1_is_the_image_itself():
    image = noise(8, 8)
    assert degrade(image, 1) is image
    assert resize(image, (8, 8)) is image


def test_resize_takes_height_and_width():
    assert resize(noise(10, 20), (128, 64)).shape == (128, 64, 3)
    ramp = np.repeat(np.linspace(0, 255, 16).astype(np.uint8)[:, None, None], 8, 1).repeat(3, 2)
    assert (np.diff(resize(ramp, (64, 8))[:, 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("height", [1, 2, 64, 117, 255, 256, 300])
@pytest.mark.parametrize("stored", [1, 2, 3, 29, 64, 116, 117, 255])
def test_resize_gives_the_pixels_of_pillow(stored, height):
    for width, image in ((40, noise(stored, 24)), (24, 255 * (noise(stored, 24, 1) // 128))):
        expected = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(resize(image, (height, width)), expected)


@pytest.mark.parametrize("rate", [0.5, 0, -2, float("nan")])
def test_rates_below_1_are_refused(rate):
    with pytest.raises(InputError, match="below 1"):
        degrade(noise(8, 8), rate)
    with pytest.raises(InputError, match="below 1"):
        prepare_images([noise(8, 8)], (8, 8), rates=rate)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="area, bilinear"):
        degrade(noise(8, 8), 2, "nearest")
    with pytest.raises(InputError, match="float32"):
        degrade(noise(8, 8).astype("float32"), 2)
    with pytest.raises(InputError, match="shape"):
        resize(noise(8, 8)[:, :, 0], (4, 4))
    with pytest.raises(InputError, match="no rates"):
        check_rates([])


# --- prepare_images --------------------------------------------------------------------------


def test_images_are_shrunk_from_the_stored_size_and_then_enlarged(tmp_path):
    # Shrinking by 2 after enlarging would give the checkerboard back nearly unharmed.
    board = checkerboard(64, 32)
    Image.fromarray(board).save(tmp_path / "a.png")
    record = Record(str(tmp_path / "a.png"), 1, 1)
    (low,), (high,) = (prepare_images([record], (128, 64), rates=rate) for rate in (2, 1))
    assert low.dtype == np.uint8 and low.shape == (128, 64, 3)
    assert low.std() < 2 and high.std() > 30
    bilinear = Image.Resampling.BILINEAR
    small = Image.fromarray(board).resize((16, 32), Image.Resampling.BOX)
    np.testing.assert_array_equal(low, np.asarray(small.resize((64, 128), bilinear)))
    np.testing.assert_array_equal(high, Image.fromarray(board).resize((64, 128), bilinear))


def test_one_rate_for_each_image():
    images = [noise(128, 64, 1), noise(40, 30, 2)]
    prepared = prepare_images(images, (128, 64), rates=np.array([4, 1]))
    np.testing.assert_array_equal(prepared[0], resize(degrade(images[0], 4), (128, 64)))
    np.testing.assert_array_equal(prepared[1], resize(images[1], (128, 64)))
    with pytest.raises(InputError, match="2 images but rates of shape"):
        prepare_images(images, (128, 64), rates=[4])
    assert prepare_images([], (128, 64), rates=2).shape == (0, 128, 64, 3)


def test_the_size_is_that_of_the_image_as_it_is_read(tmp_path):
    """Not the stored one, where a protocol shrinks it."""
    Image.new("RGB", (64, 128)).save(tmp_path / "a.png")
    stored = xr.Record(str(tmp_path / "a.png"), 1, 1, rate=4, size=(128, 64))
    shrunk = dataclasses.replace(stored, kernel="area")
    np.testing.assert_allclose(xr.rates_from_sizes([stored, shrunk], 128), [1, 4])
    assert told_of_large([stored], (32, 16), (2,))
    assert not told_of_large([shrunk], (32, 16), (2,))


def test_rates_from_sizes():
    records = [
        xr.Record("a.png", "a", 1, size=(64, 32)),
        xr.Record("b.png", "b", 1, size=(300, 150)),
        np.zeros((100, 40, 3), "uint8"),
    ]
    np.testing.assert_allclose(xr.rates_from_sizes(records), [4, 1, 2.56])
    np.testing.assert_allclose(xr.rates_from_sizes(records, full_height=128), [2, 1, 1.28])
    with pytest.raises(xr.InputError, match="full_height"):
        xr.rates_from_sizes(records, full_height=0)


# --- manifest --------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    records = {}
    for i, role in enumerate(("train", "query", "gallery")):
        (tmp_path / role).mkdir()
        records[role] = [
            Record(str(tmp_path / role / f"{j}.png"), f"p{j}", j + 1) for j in range(2)
        ]
        for j, record in enumerate(records[role]):
            Image.fromarray(noise(8, 4, 10 * i + j)).save(record.path)
    return DataSet("own", **records, root=str(tmp_path))


def test_manifest_lists_every_image_and_rate(data, tmp_path):
    rows = manifest_rows(data, rates=(1, 2, 8), train_rates=(2, 3, 4))
    assert len(rows) == 2 + 2 * 3 + 2
    path = tmp_path / "manifest.jsonl"
    digest = write_manifest(path, rows)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    (row,) = [row for row in written if row["path"] == "query/1.png" and row["rate"] == 8]
    assert row == {
        "split": "test",
        "role": "query",
        "path": "query/1.png",
        "person": "p1",
        "camera": 2,
        "rate": 8,
        "kernel": "area",
        "sha256": hashlib.sha256((tmp_path / "query" / "1.png").read_bytes()).hexdigest(),
    }
    assert [row["rate"] for row in written if row["role"] == "train"] == [[2, 3, 4]] * 2
    assert [row["rate"] for row in written if row["role"] == "gallery"] == [1, 1]
    assert list(tmp_path.glob("manifest*")) == [path]  # nothing half-written is left


def test_manifest_bytes_depend_on_what_is_used_alone(data, tmp_path):
    first = write_manifest(tmp_path / "a", manifest_rows(data, (1, 4), train_rates=[2, 3]))
    turned = DataSet("own", data.train[::-1], data.query[::-1], data.gallery, root=data.root)
    rows = manifest_rows(turned, np.array([4.0, 1.0]), train_rates=np.array([3, 2]))
    assert write_manifest(tmp_path / "b", rows) == first
    assert write_manifest(tmp_path / "b", manifest_rows(data, (1, 8), train_rates=[2, 3])) != first
    Image.fromarray(noise(8, 4, 99)).save(data.query[0].path)
    assert write_manifest(tmp_path / "b", manifest_rows(data, (1, 4), train_rates=[2, 3])) != first


def test_manifest_of_a_missing_image(data):
    (record, _) = data.gallery
    gone = DataSet("own", [], [], [Record(record.path + "x", 1, 1)])
    with pytest.raises(InputError, match="cannot read image"):
        manifest_rows(gone, (1,))

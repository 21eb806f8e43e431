"""Weights files: stored small, published by name, and what is said of those that are not right."""

import hashlib
import json

import h5py
import numpy as np
import pytest
from small import couples, fill

import keras_xreid as xr
from keras_xreid import weights


@pytest.fixture(scope="module")
def model():
    return fill(xr.Baseline(5, backbone="osnet_x0_25", image_size=(64, 32)))


def test_kernels_as_float16(model, tmp_path):
    xr.save(model, tmp_path / "whole.weights.h5")
    xr.save(model, tmp_path / "half.weights.h5", half=True)
    sizes = [(tmp_path / f"{name}.weights.h5").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.9 * sizes[0]  # of so small a network half is names
    kinds = set()
    with h5py.File(tmp_path / "half.weights.h5") as file:
        file.visititems(
            lambda name, item: (
                kinds.add((str(item.dtype), item.ndim > 1))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert kinds == {("float16", True), ("float32", False)}
    again = xr.load(tmp_path / "half.weights.h5")
    for ours, stored in zip(model.get_weights(), again.get_weights(), strict=True):
        assert stored.dtype == np.float32
        rounded = ours.astype("float16") if ours.ndim > 1 else ours
        np.testing.assert_array_equal(stored, rounded.astype("float32"))
    images = couples()["hr"]
    a, b = model.embed(images), again.embed(images)
    assert np.abs(a - b).max() < 0.01 * np.abs(a).max()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "half.weights.h5", "whole.weights.h5",
    ]  # fmt: skip


@pytest.fixture
def zoo(model, tmp_path, monkeypatch):
    """A folder of published weights: one that is there, one nobody hosts, one elsewhere."""
    folder = tmp_path / "weights"
    folder.mkdir()
    xr.save(model, folder / "tiny.weights.h5", half=True)
    content = (folder / "tiny.weights.h5").read_bytes()
    entry = {"file": "tiny.weights.h5", "sha256": hashlib.sha256(content).hexdigest(), "url": None}
    index = {
        "tiny": entry,
        "large": {**entry, "file": None, "command": "python recipes/rain.py"},
        "far": {**entry, "file": "far.weights.h5", "url": "http://127.0.0.1:9/far.weights.h5"},
    }
    (folder / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(weights, "PUBLISHED", (folder,))
    xr.published.cache_clear()
    yield folder
    xr.published.cache_clear()


def test_by_name(zoo, model):
    assert list(xr.published()) == ["tiny", "large", "far"]
    images = couples()["hr"]
    features = xr.load("tiny").embed(images)
    np.testing.assert_array_equal(features, xr.load(zoo / "tiny.weights.h5").embed(images))


def test_what_is_not_right(zoo, tmp_path):
    with pytest.raises(xr.InputError, match=r"no weights at nothing: .*tiny, large, far"):
        xr.load("nothing")
    with pytest.raises(xr.InputError, match=r"nobody hosts large yet: .*recipes/rain\.py"):
        xr.load("large")
    with pytest.raises(xr.InputError, match=r"far cannot be downloaded from http://127"):
        xr.load("far")
    with pytest.raises(xr.InputError, match=r"no weights at .*renamed\.weights\.h5"):
        xr.load(zoo / "renamed.weights.h5")
    path = zoo / "tiny.weights.h5"
    content = path.read_bytes()
    (tmp_path / "cut.weights.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(xr.InputError, match="was cut short"):
        xr.load(tmp_path / "cut.weights.h5")
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(xr.InputError, match="is not the published tiny"):
        xr.load("tiny")


def test_the_published_files_are_what_the_index_says():
    for name, entry in xr.published().items():
        if entry["file"]:
            path = weights.PUBLISHED[0] / entry["file"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"], name
            assert path.stat().st_size == entry["bytes"] <= 16e6
            assert (weights.PUBLISHED[0] / f"{name}.md").exists()
    assert sum(e["bytes"] for e in xr.published().values() if e["file"]) <= 64e6

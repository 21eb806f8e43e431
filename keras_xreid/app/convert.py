"""Converts torchreid's OSNet weights to ours, in about 10 s and without PyTorch.

    xreid convert osnet_x1_0_market.pth osnet_x1_0_market.weights.h5

`xr.load("osnet_x1_0_market.weights.h5")` opens the result, a baseline, and so does every command
that takes weights. Printed is the largest difference between torchreid's arrays and those of the
model loaded again, under torchreid's names and in its order of axes: 0.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

import keras_xreid as xr
from keras_xreid import app
from keras_xreid.app import later
from keras_xreid.backbones.torch_weights import read_state_dict
from keras_xreid.errors import InputError

keras, osnet = later("keras"), later("keras_xreid.backbones.osnet")


@dataclasses.dataclass
class Options:
    file: tyro.conf.Positional[str]
    """torchreid's .pth or .pth.tar file."""
    out: tyro.conf.Positional[str]
    """The .weights.h5 file to write."""
    name: Literal["osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25"] = "osnet_x1_0"
    """The OSNet's width."""


def main(options):
    convert(Path(options.file), Path(options.out), options.name)


def convert(file, out, name):
    """Writes the weights of torchreid's `file` to `out`, and loads them again.

    Returns:
        The OSNet's name, torchreid's arrays, and the network that was loaded.
    """
    if not out.name.endswith(".weights.h5") or not out.parent.is_dir() or out.exists():
        raise InputError(
            f"cannot write {out}: give a new file ending in .weights.h5, in an existing folder"
        )
    arrays = read_state_dict(file)
    if "classifier.weight" not in arrays:
        raise InputError(f"{file} has no classifier.weight: it is not a file of torchreid's OSNet")
    people = len(arrays["classifier.weight"])
    model = xr.Baseline(people, backbone=name, image_size=(256, 128))
    osnet.load_torchreid_weights(model.network, file)
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


def cli():
    app.command(main, Options, __doc__)

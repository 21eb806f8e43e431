"""Weights files that say themselves which model they belong to."""

import json
import os
from pathlib import Path

import h5py

from keras_xreid.errors import InputError
from keras_xreid.models.adaptive import Adaptive, OnePerRate
from keras_xreid.models.baseline import Baseline
from keras_xreid.models.cadnet import CADNet
from keras_xreid.models.intact import INTACT
from keras_xreid.models.rain import RAIN

SYSTEMS = {
    "Adaptive": Adaptive,
    "Baseline": Baseline,
    "CADNet": CADNet,
    "INTACT": INTACT,
    "OnePerRate": OnePerRate,
    "RAIN": RAIN,
}
ATTRIBUTE = "keras_xreid"


def save(model, path):
    """Saves a model's weights together with what is needed to build it again.

    The file is HDF5 and holds no code: weights, and a JSON configuration as an attribute. It
    holds no optimizer. It appears under its name only when it is whole.

    Args:
        model: a system of this library with a named backbone.
        path: the file to write, `*.weights.h5`.

    Example:

    >>> save(model, "runs/intact/model.weights.h5")

    Raises:
        InputError: where the name does not end so, or the backbone is not one of ours.
    """
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise InputError(f"{path}: the name of a weights file ends in .weights.h5")
    if not isinstance(model.backbone, str):
        raise InputError(
            f"a model on {model.backbone['class_name']} cannot be rebuilt from a weights file: "
            "save it whole, model.save('name.keras')"
        )
    config = {
        name: value
        for name, value in model.get_config().items()
        if name not in ("name", "trainable")
    }
    # A compiled model would save its optimizers' state too.
    bare = type(model).from_config(config)
    bare.set_weights(model.get_weights())
    unfinished = path.with_name("unfinished-" + path.name)
    bare.save_weights(unfinished, overwrite=True)
    with h5py.File(unfinished, "a") as file:
        file.attrs[ATTRIBUTE] = json.dumps({"class": type(model).__name__, "config": config})
    os.replace(unfinished, path)


def load(path):
    """Builds the model that a weights file belongs to and loads it.

    Args:
        path: a file written by `save`, such as a run folder's `model.weights.h5`, or the folder.

    Returns:
        The model, ready to `embed`.

    Raises:
        InputError: where there is no such file, or it is not one of this library's.

    Example:

    >>> model = load("runs/intact-synthetic/model.weights.h5")
    >>> features = model.embed(images, rates=4)
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.weights.h5"
    if not path.is_file():
        raise InputError(f"no weights at {path}: give a .weights.h5 file or a finished run folder")
    try:
        with h5py.File(path) as file:
            description = json.loads(file.attrs[ATTRIBUTE])
    except (OSError, KeyError) as error:
        raise InputError(
            f"{path} is no weights file of keras_xreid: it says nothing about its model"
        ) from error
    name = description["class"]
    if name not in SYSTEMS:
        raise InputError(f"{path} holds a {name}; this version knows {', '.join(SYSTEMS)}")
    model = SYSTEMS[name].from_config(description["config"])
    model.load_weights(path)
    return model

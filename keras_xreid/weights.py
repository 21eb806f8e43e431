"""Weights files that say themselves which model they belong to."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import textwrap
import threading
import warnings
from pathlib import Path

import h5py
import numpy as np

import keras_xreid
from keras_xreid import files, hub
from keras_xreid._backend import place
from keras_xreid.errors import InputError

ATTRIBUTE = "keras_xreid"
PRECISIONS = ("float32", "mixed_bfloat16")
# What a file is believed about sizes. Compression makes kernels four times smaller at most.
MOST_PER_BYTE = 20  # bytes of arrays that a byte of the file may stand for
_BUILDING = threading.RLock()
MOST_LEFT_OUT = 100_000_000  # numbers of a critic that is not there; the papers' largest has 72 M


def save(model, path, half=False, critics=True):
    """Saves a model's weights together with what is needed to build it again.

    The file is HDF5 and holds no code: weights, and a JSON configuration as an attribute. It
    holds no optimizer. It appears under its name only when it is whole. It says the SHA-256 of its
    arrays, by which `load` notices a bit that was flipped. Of several processes that train together
    the first one writes it.

    Args:
        model: a system of this library with a named backbone.
        path: the file to write, `*.weights.h5`.
        half: store kernels as compressed float16, for publishing; biases and statistics of batch
            normalization stay float32, and so does the model that is loaded.
        critics: False leaves out what only judges while training (`ReIDModel.critics`), for
            publishing. A model that is loaded from such a file embeds and recovers as ever; its
            critics begin anew.

    Raises:
        InputError: where the name does not end so, the backbone is not one of ours, a weight is
            not finite, or too large for float16, or a critic's name sorts behind `layers`.
        DiskError: the disk is full, or the place cannot be written.

    Example:

    >>> save(model, "runs/intact/model.weights.h5")
    """
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise InputError(f"{path}: the name of a weights file ends in .weights.h5")
    if not isinstance(getattr(model, "backbone", ""), str):  # `Panning` has none
        raise InputError(
            f"a model on {model.backbone['class_name']} cannot be rebuilt from a weights file: "
            "save it whole, model.save('name.keras')"
        )
    config = {
        name: value
        for name, value in model.get_config().items()
        if name not in ("name", "trainable")
    }
    if half:
        _check_float16(model)
    for variable, value in zip(model.weights, model.get_weights(), strict=True):
        if not np.isfinite(value).all():
            raise InputError(f"{variable.path} is not finite (NaN): {path} is not written")
    if place()[0]:
        return
    left_out = [name for name in model.critics if not critics and getattr(model, name) is not None]
    description = {"class": type(model).__name__, "config": config, "left_out": left_out}
    unfinished = path.with_name("unfinished-" + path.name)
    files_at_once = 1 + bool(half or left_out)
    with files.writing(path, files_at_once * files.room_of(model.weights), reserve=True):
        try:
            with _without_optimizers(model):
                model.save_weights(unfinished, overwrite=True)
            if half or left_out:
                _rewrite(unfinished, half, left_out)
            with h5py.File(unfinished, "a") as file:
                description["arrays_sha256"] = _sha256_of_arrays(file)
                file.attrs[ATTRIBUTE] = json.dumps(description)
            os.replace(unfinished, path)
        finally:
            for left in (unfinished, unfinished.with_name("half-" + unfinished.name)):
                with contextlib.suppress(OSError):
                    left.unlink()


@contextlib.contextmanager
def _without_optimizers(model):
    """Inside, Keras saves the weights of a compiled model alone."""
    names = ("optimizer", "_part_optimizers")
    parts = [vars(part) for part in model._flatten_layers()]
    kept = [(part, name, part[name]) for part in parts for name in names if name in part]
    for part, name, _ in kept:
        part[name] = None
    try:
        yield
    finally:
        for part, name, optimizers in kept:
            part[name] = optimizers


def _check_float16(model):
    """Refuses kernels that would become infinite."""
    kernels = [(v.path, w) for v, w in zip(model.weights, model.get_weights(), strict=True)]
    largest, name = max((np.abs(w).max(), name) for name, w in kernels if w.ndim > 1)
    if largest > np.finfo("float16").max:
        raise InputError(
            f"{name} has a weight of size {largest:.3g}, and float16 ends at 65504: save with "
            "half=False"
        )


def _rewrite(path, half, left_out):
    """Compresses a weights file, its kernels as float16 if `half`, and leaves out parts.

    What HDF5 deletes leaves a hole, so a new file takes the place of the old one.
    """
    whole = path.with_name("half-" + path.name)
    with h5py.File(path) as source, h5py.File(whole, "w") as target:
        for name in left_out:
            if name not in source:
                raise InputError(
                    f"{name} cannot be left out of a weights file: Keras stores a part by the "
                    "first attribute that holds it, and `layers` comes before this one. Give it a "
                    "name that sorts before `layers`"
                )

        def copy(name, item):
            if name.split("/")[0] in left_out:
                return
            if isinstance(item, h5py.Group):
                target.require_group(name).attrs.update(item.attrs)
                return
            value = item[()]
            if half and value.ndim > 1 and value.dtype == np.float32:
                value = value.astype("float16")
            options = {"compression": "gzip", "shuffle": True} if value.size > 1000 else {}
            target.create_dataset(name, data=value, **options).attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    os.replace(whole, path)


def load(path=None, precision=None, kinds=None):
    """Builds the model that a weights file belongs to and loads it.

    Args:
        path: the name of published weights, see `published`; or a file written by `save`, such as
            a run folder's `model.weights.h5`, or the folder; or "hf://user/name"; or
            "https://host/file.weights.h5#sha256=HEX". None takes the best published weights. What
            comes from the network is downloaded once, and checked against its SHA-256.
        precision: "float32" or "mixed_bfloat16", how the model computes; None as it was trained.
            Published weights are float32.
        kinds: names of the classes that are taken, such as ("Panning",); None takes any system.

    Returns:
        The model, ready to `embed`. Critics that the file leaves out, as published ones do, begin
        anew.

    Raises:
        InputError: no such file and no such name; a file that is not one of this library's, not
            the one published, damaged, renamed or of a version that builds other models; or no
            network where it is needed.

    Example:

    >>> model = load()
    >>> model = load("runs/intact-synthetic")
    >>> features = model.embed(images, rates=4)
    """
    if precision not in (None, *PRECISIONS):
        raise InputError(f"precision {precision!r}: give {' or '.join(PRECISIONS)}")
    path = hub.find(path)
    try:
        with h5py.File(path) as file:
            description = json.loads(file.attrs[ATTRIBUTE])
            numbers = _numbers_in(file)
        name, config = str(description["class"]), _checked(description["config"])
        left_out = description.get("left_out", [])
    except InputError as error:
        raise InputError(f"{path} is no weights file of keras_xreid: {error}") from error
    except OSError as error:
        raise InputError(
            f"{path} is no weights file of keras_xreid, or was cut short ({error}): copy it again"
        ) from error
    except KeyError as error:
        raise InputError(
            f"{path} is no weights file of keras_xreid: it says nothing about its model"
        ) from error
    except Exception as error:  # a damaged file makes h5py raise this and that
        raise InputError(
            f"{path} is damaged: what it says about its model cannot be read ({_short(error)}); "
            "copy it again"
        ) from error
    if not path.name.endswith(".weights.h5"):
        raise InputError(f"{path} was renamed: give it a name that ends in .weights.h5 again")
    kinds = kinds or _systems()
    if name not in kinds:
        new = ": update keras_xreid; a class of your own is saved whole, model.save('name.keras')"
        told = "" if name in keras_xreid._PLACES else new
        raise InputError(f"{path} holds a {name}; this takes {', '.join(kinds)}{told}")
    system = getattr(keras_xreid, name)
    if not isinstance(left_out, list) or any(part not in system.critics for part in left_out):
        raise InputError(
            f"{path} leaves out {left_out!r}, and a {name} can do without "
            f"{' and '.join(system.critics) or 'nothing'} only: copy it again"
        )
    if precision:
        config = {**config, "dtype": precision}
    # Not to the number: a constructor may build a part twice, to copy it.
    most = 2 * numbers + 1_000_000 + MOST_LEFT_OUT * len(left_out)
    asked, undrawn = [], []
    try:
        with _at_most(most, asked, undrawn):
            model = system.from_config(config)
    except Exception as error:  # whatever a constructor says to what it does not know
        if sum(asked) > most:
            raise InputError(
                f"{path} does not hold the weights of the {name} that it describes: it has "
                f"{numbers:,} numbers, and that asks for {sum(asked):,} or more; copy it again"
            ) from error
        raise InputError(
            f"{path} describes a {name} that this version cannot build ({_short(error)}): update "
            "keras_xreid, or copy the file again"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is missing, in many lines
            if left_out:
                _draw(model, undrawn, left_out)
                _load_without(model, path, left_out)
            else:
                model.load_weights(path)
    except Exception as error:  # of missing and damaged weights alike, Keras's own
        raise InputError(
            f"{path} does not hold the weights of the {name} that it describes "
            f"({_short(error)}): copy it again"
        ) from error
    told = description.get("arrays_sha256")  # older files do not say
    if told is not None:
        with h5py.File(path) as file:
            if _sha256_of_arrays(file) != told:
                raise InputError(
                    f"{path} is damaged: its arrays are not those that were saved (their SHA-256 "
                    "differs); copy it again"
                )
    return model


def _checked(config):
    """A configuration that builds a model and does no more: no other class, and no download."""
    if not isinstance(config, dict):
        raise InputError(f"its configuration is a {type(config).__name__}")
    # Weights to begin from are there already, in the file.
    config = {name: value for name, value in config.items() if name != "weights"}
    if not isinstance(config.get("backbone", ""), str):
        raise InputError("its backbone has no name")
    policy = config.get("dtype")
    if isinstance(policy, dict):
        policy = config["dtype"] = dict(policy.get("config", {})).get("name")
    if not isinstance(policy, str | None):
        raise InputError("its dtype has no name")
    return config


def _arrays(file):
    """The data sets of an open HDF5 file by name, in order."""
    names = []
    file.visit(names.append)
    items = [(name, file[name]) for name in sorted(names)]
    return [(name, item) for name, item in items if isinstance(item, h5py.Dataset)]


def _sha256_of_arrays(file):
    digest = hashlib.sha256()
    for name, array in _arrays(file):
        value = array[()]
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _numbers_in(file):
    """How many numbers a file holds; refuses one that claims more than fit in it."""
    arrays = [array for _, array in _arrays(file)]
    claimed, size = sum(array.nbytes for array in arrays), os.path.getsize(file.filename)
    if claimed > MOST_PER_BYTE * size:
        raise InputError(f"it claims arrays of {claimed:,} bytes, and has {size:,}")
    return sum(array.size for array in arrays)


@contextlib.contextmanager
def _at_most(most, asked, undrawn):
    """Inside, no model is built of more numbers: it ends before the weight that is too much.

    Keras fills weights as they are added, so that a look at the finished model comes too late. And
    what would be random is 0, as it is read from the file next: JAX compiles the drawing of every
    shape, and that took 9 tenths of the time.

    Args:
        most: int, how many numbers.
        asked: list that takes how many each weight has.
        undrawn: list that takes each weight that would be random, and its initializer.
    """
    import keras

    _BUILDING.acquire()  # of two threads the second would keep the first one's in its place
    add_weight, here = keras.layers.Layer.add_weight, threading.get_ident()

    def counted(layer, *given, **options):
        if threading.get_ident() != here:
            return add_weight(layer, *given, **options)
        options |= dict(zip(("shape", "initializer", "dtype"), given, strict=False))
        asked.append(math.prod(options.get("shape") or ()))
        if sum(asked) > most:
            raise InputError("the model is larger than its file")
        draw = keras.initializers.get(options.get("initializer"))
        if "seed" not in getattr(draw, "get_config", dict)():
            return add_weight(layer, **options)
        weight = add_weight(layer, **{**options, "initializer": "zeros"})
        undrawn.append((weight, draw))
        return weight

    keras.layers.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight
        _BUILDING.release()


def _systems():
    """The names of the systems that `keras_xreid` lists."""
    others = ("FeatureBatches", "Panning", "ReIDModel")
    places = keras_xreid._PLACES.items()
    return [name for name, place in places if place.startswith("models.") and name not in others]


def _draw(model, undrawn, parts):
    """Draws the weights of some parts, which were set to 0 when they were built."""
    wanted = {id(v) for part in parts for v in getattr(model, part).weights}
    for weight, draw in undrawn:
        if id(weight) in wanted:
            weight.assign(draw(weight.shape, weight.dtype))


def _load_without(model, path, left_out):
    """Loads a file that has not all parts; Keras wants all, so the model's own fill it up."""
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder) / path.name
        model.save_weights(filled)
        with h5py.File(path) as source, h5py.File(filled, "a") as target:
            for name in set(target) - set(left_out):
                del target[name]
                source.copy(source[name], target, name)
        model.load_weights(filled)


def _short(error):
    """One line of an error that may have many."""
    return textwrap.shorten(str(error), 240, placeholder=" ...")

"""What galleries are told: of a model, of embeddings, and of what stands beside them."""

import collections
import re

import numpy as np

from keras_xreid.errors import InputError

LARGE = 1e15
FLOAT32 = float(np.finfo("float32").max)
HEX = re.compile(r"[0-9a-fA-F]{64}")


def about_model(model):
    """What a gallery must know of the model whose embeddings it holds.

    Args:
        model: a `ReIDModel`.

    Returns:
        A dict: "system", "weights_sha256" (of the weights that embed), "image_size", "dimension",
        "flip", "kind", "lengths" and "rates" (see `Metric`).

    Raises:
        InputError: a system that embeds the gallery anew at each query's rate.
    """
    from keras_xreid.adaptation import weights_sha256  # with Keras, which a help text does without

    if getattr(model, "gallery_at_query_rate", False):
        raise InputError(
            f"{type(model).__name__} embeds the gallery anew at each query's rate: no gallery can "
            "hold its embeddings, take another system"
        )
    width = model.embed(np.zeros((0, *model.image_size, 3), "uint8")).shape[1]
    kind = {"1 - cosine": "cosine", "Euclidean": "euclidean", "squared Euclidean": "squared"}
    lengths, rates = [width], []
    if getattr(model, "varying_length", False):
        lengths, rates = np.cumsum(model.sizes).tolist(), [float(rate) for rate in model.rates]
    return {
        "system": type(model).__name__, "weights_sha256": weights_sha256(model),
        "image_size": list(model.image_size), "dimension": width, "flip": bool(model.flip),
        "kind": kind[model.metric], "lengths": lengths, "rates": rates,
    }  # fmt: skip


def check_model(place, known, model):
    """Refuses a model that is not the one whose embeddings a gallery holds.

    Args:
        place: the gallery, in words.
        known: what it says of its model.
        model: a `ReIDModel`, or what `about_model` says of one.
    """
    about = dict(model) if isinstance(model, dict) else about_model(model)
    differ = [name for name, theirs in known.items() if about.get(name) != theirs]
    for name in sorted(differ, key="weights_sha256".__eq__):  # a size says more than a hash
        theirs, here = (str(of.get(name))[:16] for of in (known, about))
        raise InputError(
            f"{place} holds embeddings of another model (its {name} is {theirs}, here it is "
            f"{here}): give the weights that it was made with, or another gallery"
        )


def check_embeddings(embeddings, width):
    """Embeddings as (n, width) float32; refuses others, and what is not finite."""
    embeddings = np.ascontiguousarray(embeddings, "float32")
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise InputError(f"embeddings of shape {embeddings.shape}: give (n, {width})")
    # The square of a larger number is no float32. Of NaN both are False.
    if embeddings.size and not -LARGE < embeddings.min() <= embeddings.max() < LARGE:
        raise InputError("an embedding is not finite (NaN) or too large: the weights are damaged")
    return embeddings


def told_of(n, keys, camera, time, rate, sha256):
    """What stands beside n embeddings, see `Gallery.add`; refuses what is no such thing.

    Returns:
        Lists of n keys, cameras' names, times, rates and SHA-256; None where one is not known.
    """
    keys = texts_of(keys)
    if len(keys) != n:
        raise InputError(f"{len(keys)} keys for {n} embeddings")
    if len(set(keys)) < n:
        twice = collections.Counter(keys).most_common(1)[0][0]
        raise InputError(f"key {twice!r} is given twice: each image has a key of its own")
    cameras = [_name(one) for one in _each(camera, n, "cameras")]
    times = [_number("time", one) for one in _each(time, n, "times")]
    rates = [_number("rate", one, FLOAT32) for one in _each(rate, n, "rates")]
    low = [one for one in rates if one is not None and one < 1]
    if low:
        raise InputError(f"rate {low[0]:g} is below 1: give 1 (high resolution) or more")
    sha256 = [None if one is None else str(one) for one in _each(sha256, n, "hashes")]
    for one in sha256:
        if one is not None and not HEX.fullmatch(one):
            raise InputError(f"{one[:80]!r} is no SHA-256: give 64 hexadecimal digits")
    return keys, cameras, times, rates, sha256


def texts_of(keys):
    """Keys as a list of texts that a file can hold."""
    keys = [keys] if isinstance(keys, str) else [str(key) for key in keys]
    for key in keys:
        try:
            right = bytes_of(key).decode("utf-8", "surrogateescape") == key
        except UnicodeEncodeError:
            right = False
        if not right:
            raise InputError(f"key {key!r} cannot be written as UTF-8: give another")
    return keys


def names_of(cameras, known):
    """Names of cameras to search, of one or several; refuses those that a gallery has not."""
    if isinstance(cameras, (str, int, float, np.generic)):
        cameras = [cameras]
    names = [_name(camera) for camera in cameras]
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(sorted(known)) or "none"
        raise InputError(f"no camera {unknown[0]} in the gallery: it has {there}")
    return names


def check_between(between):
    """The first and the last second of a span, None where it is open."""
    try:
        first, last = (None if one is None else float(one) for one in between)
    except (TypeError, ValueError):
        raise InputError(f"between is {between}: give the first and the last second") from None
    ends = [-np.inf if first is None else first, np.inf if last is None else last]
    if not ends[0] <= ends[1]:  # of NaN, too
        raise InputError(f"between is {first} to {last}: no second lies in it")
    return first, last


def new_cameras(known, names, statistics, has_rows=lambda name: True):
    """The table of cameras with new ones; refuses statistics that have changed.

    Args:
        known: dict from a camera's name to {"number", "statistics"}.
        names: set of the names in a batch.
        statistics: dict from a camera to the hash of its adapted statistics.
        has_rows: whether a known camera has rows, whose statistics these must be.
    """
    table, told = dict(known), {_name(camera): value for camera, value in statistics.items()}
    for name in sorted(names):
        entry = table.get(name, {"number": len(table), "statistics": told.get(name)})
        if entry["statistics"] != told.get(name) and has_rows(name):
            raise InputError(
                f"rows of camera {name} have the statistics {entry['statistics']}, and these "
                f"{told.get(name)}: embed that camera's images anew"
            )
        table[name] = {**entry, "statistics": told.get(name)}
    return table


def _name(camera):
    """A camera's name: 2, 2.0 and "2" are one; none, if it is not known."""
    if camera is None or camera != camera:
        return ""
    if isinstance(camera, (float, np.floating)) and float(camera).is_integer():
        camera = int(camera)
    return str(camera)


def _number(what, value, below=np.inf):
    """A number, or None where it is not known."""
    if value is None or value != value:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.inf
    if not abs(found) < below:  # of NaN, too
        raise InputError(f"{what} is {str(value)[:80]!r}: give a number")
    return found


def _each(values, n, what):
    """n values, where one may stand for all."""
    several = hasattr(values, "__iter__") and not isinstance(values, (str, bytes))
    if not several or getattr(values, "shape", None) == ():
        return [values] * n
    values = list(values)
    if len(values) != n:
        raise InputError(f"{len(values)} {what} for {n} embeddings: give one, or one for each")
    return values


def bytes_of(key):
    """What a file holds of a key."""
    return key.encode("utf-8", "surrogateescape")

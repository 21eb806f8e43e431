"""What a run folder says of itself: its scores, the images it has seen, the data it had."""

import math
import sys

from keras_xreid.errors import InputError
from keras_xreid.files import read_json

# Stages whose batches are pairs, of runs before a history counted images. No stage is added.
PAIRED = ("intact", "rain", "cadnet", "adaptive")


def images_seen(rows):
    """Counts the training images that each stage has seen.

    Args:
        rows: rows of a history, dictionaries with "stage", "seconds" and "images_per_second";
            the values may be text, as read from history.csv.

    Returns:
        A dictionary from stage to int; a pair of an HR and an LR image counts as two.

    Example:

    >>> with open("runs/mine/history.csv", newline="") as file:
    ...     images_seen(csv.DictReader(file))
    {'reid': 16000, 'intact': 12800}
    """
    seen = {}
    for row in rows:
        if row.get("images") not in (None, ""):
            images = round(float(row["images"]))
        else:
            images = round(float(row["seconds"]) * float(row["images_per_second"]))
            images *= 2 if row["stage"] in PAIRED else 1
        seen[row["stage"]] = seen.get(row["stage"], 0) + images
    return seen


# Options that older runs of a network for each rate have, for they were another recipe's.
ADAPTIVE_ALONE = ("without", "end_to_end", "mask_epochs", "restart", "mask_stddev", "mask_shared",
                  "mask_speed", "prefixes")  # fmt: skip


# What is read of a metrics.json: kind of value, and how many objects it lies in. All may be missing
# or null.
SCORES, COUNTS = (float, 1), (float, 2)
KINDS = {
    "system": (str, 0), "dataset": (str, 0), "split": (str, 0), "protocol": (str, 0),
    "preset": (str, 0), "backbone": (str, 0), "backend": (str, 0), "manifest_sha256": (str, 0),
    "seed": (int, 0), "fold": (int, 0), "split_id": (int, 0), "parameters": (float, 0),
    "seconds": (float, 0), "queries": (float, 0), "query_ms": (float, 0), "short_run": (bool, 0),
    "per_rate": COUNTS, "mean_lr": SCORES, "mixed": SCORES, "standard_error": SCORES,
    "image_quality": COUNTS, "images_seen": SCORES, "to_embed": SCORES, "data": COUNTS,
    "queries_per_rate": SCORES, "options": (object, 1), "summary": (object, 1),
    "adapted": (object, 1), "embedded_per_second": (float, 0), "train_rates": (list, 0),
    "about": (str, 0), "strength": (float, 0), "test_cameras": (list, 0),
}  # fmt: skip
INSIDE = {
    "enlarged": {name: KINDS[name] for name in ("per_rate", "mean_lr", "mixed", "image_quality")},
    "flip": {name: KINDS[name] for name in ("per_rate", "mean_lr", "standard_error")},
    "adapted": {"on": (str, 0), "images": SCORES},
    "options": {
        **dict.fromkeys(("preset", "data", "data_dir", "command", "weights", "reid"), (str, 0)),
        **dict.fromkeys(("rates", "train_rates"), (list, 0)),
    },
}


def read_metrics(path, needed=()):
    """Reads a metrics.json.

    Args:
        path: the file.
        needed: names that have to be in it, beside scores.

    Returns:
        A dictionary, whose values are of the kinds that a run writes.

    Raises:
        InputError: the file is missing, broken, without scores or without what is needed.

    Example:

    >>> read_metrics(Path("runs/mine/metrics.json"))["per_rate"]["4"]["rank1"]
    """
    if not path.exists():
        raise InputError(f"no metrics.json in {path.parent}: is this a finished run?")
    metrics = read_json(path)
    if not (metrics.get("per_rate") or metrics.get("mixed")):
        raise InputError(f"{path} holds no scores: expected an object with per_rate")
    _check_kinds(path, metrics, KINDS)
    for name, kinds in INSIDE.items():
        _check_kinds(path, metrics, {name: (object, 1)})
        _check_kinds(path, metrics.get(name) or {}, kinds, f"{name}.")
    for name in needed:
        if metrics.get(name) is None:
            raise InputError(f"{path} says nothing of {name}: is this a finished run?")
    for part in (metrics, metrics.get("enlarged") or {}, metrics.get("flip") or {}):
        per_rate = part.get("per_rate") or {}
        if wrong := [rate for rate in per_rate if not _is_rate(rate)]:
            raise InputError(f"{path}: {wrong[0]!r} in per_rate is no rate")
        found = [part[name] for name in ("mixed", "mean_lr") if part.get(name) is not None]
        if any((scores or {}).get("rank1") is None for scores in (*found, *per_rate.values())):
            raise InputError(f"{path} holds scores without rank1")
    options = metrics.get("options") or {}
    if options.pop("one_per_rate", False):  # once an option of the resolution-adaptive recipe
        metrics["system"] = "one_per_rate"
        metrics["options"] = {k: v for k, v in options.items() if k not in ADAPTIVE_ALONE}
    return metrics


def _check_kinds(path, told, kinds, where=""):
    """Refuses what a run does not write: the file was edited, cut, or is somebody else's."""
    for name, (kind, depth) in kinds.items():
        values = [told.get(name)]
        for _ in range(depth):
            if not all(value is None or isinstance(value, dict) for value in values):
                raise InputError(f"{path}: {where}{name} is not an object as a run writes it")
            values = [part for value in values if value is not None for part in value.values()]
        if not all(value is None or _is(value, kind) for value in values):
            names = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}
            wanted = names.get(kind, "numbers")
            raise InputError(f"{path}: {where}{name} does not hold {wanted} as a run writes it")


def _is(value, kind):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = number and abs(value) <= sys.float_info.max
    if kind is float:
        return number
    if kind is list:
        return isinstance(value, list) and all(_is(part, float) or _is(part, str) for part in value)
    return (number and isinstance(value, int)) if kind is int else isinstance(value, kind)


def _is_rate(text):
    try:
        return 1 <= float(text) < math.inf
    except ValueError:
        return False


def count_data(data):
    """Counts the images, people and cameras of a data set, for metrics.json.

    Args:
        data: a `DataSet`.

    Returns:
        A dictionary from "train", "query" and "gallery" to {"images", "people", "cameras"}.
        Distractors (person 0) and images without a label count as images and not as people.

    Example:

    >>> metrics["data"] = count_data(data)
    """
    return {
        role: {
            "images": len(records),
            "people": len({record.person for record in records} - {0, None}),
            "cameras": len({record.camera for record in records}),
        }
        for role in ("train", "query", "gallery")
        for records in [getattr(data, role)]
    }

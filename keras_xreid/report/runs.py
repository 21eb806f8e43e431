"""What a run folder says of itself: its scores, the images it has seen, the data it had."""

import json

from keras_xreid.errors import InputError

# Stages whose batches are pairs, an image at high and one at low resolution.
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
        if row.get("images"):
            images = round(float(row["images"]))
        else:
            images = round(float(row["seconds"]) * float(row["images_per_second"]))
            images *= 2 if row["stage"] in PAIRED else 1
        seen[row["stage"]] = seen.get(row["stage"], 0) + images
    return seen


# Options that older runs of a network for each rate have, for they were another recipe's.
ADAPTIVE_ALONE = ("without", "end_to_end", "mask_epochs", "restart", "mask_stddev", "mask_shared",
                  "mask_speed", "prefixes")  # fmt: skip


def read_metrics(path):
    """Reads a metrics.json.

    Args:
        path: the file.

    Returns:
        A dictionary.

    Raises:
        InputError: the file is missing, broken or without scores.

    Example:

    >>> read_metrics(Path("runs/mine/metrics.json"))["per_rate"]["4"]["rank1"]
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no metrics.json in {path.parent}: is this a finished run?") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(metrics, dict) or not (metrics.get("per_rate") or metrics.get("mixed")):
        raise InputError(f"{path} holds no scores: expected an object with per_rate")
    options = metrics.get("options") or {}
    if options.pop("one_per_rate", False):  # once an option of the resolution-adaptive recipe
        metrics["system"] = "one_per_rate"
        metrics["options"] = {k: v for k, v in options.items() if k not in ADAPTIVE_ALONE}
    return metrics


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

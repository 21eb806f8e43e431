"""The scores of each query, as a file beside metrics.json: what two runs are compared by."""

import csv
import math
import os
from pathlib import Path

import numpy as np

from keras_xreid.data.manifest import query_names
from keras_xreid.errors import InputError
from keras_xreid.evaluation.ranking import SCORES
from keras_xreid.files import write_csv_atomic

COLUMNS = ("query", "person", "camera", "rate", "variant", "rank1", "AP", "INP")
KEPT = [SCORES.index(name) for name in ("rank1", "mAP", "mINP")]


def write_queries(path, result):
    """Writes the scores of every query that counts, in percent and full precision.

    `variant` is "plain", the model as it is; "upscaled", the control without recovery; or "flip",
    image and mirror image averaged.

    Args:
        path: the file, queries.csv of a run folder; written whole or not at all.
        result: what `evaluate` returned.

    Example:

    >>> write_queries("runs/mine/queries.csv", evaluate(model, data))
    """
    data, names = result.data, query_names(result.data)
    rows = [COLUMNS]
    for variant in ("plain", "upscaled", "flip"):
        for trial in result.trials:
            of_each = trial.scores.get(variant, np.empty((0, len(SCORES))))
            for row in np.flatnonzero(~np.isnan(of_each[:, -1])):
                record, rate = data.query[row], trial.query_rates[row]
                shown = "" if np.isnan(rate) else f"{rate:g}"  # a rate that nobody knows
                who = [names[row], record.person, record.camera, shown, variant]
                rows.append([*who, *of_each[row, KEPT].tolist()])
    write_csv_atomic(path, rows)


def read_queries(path, variant="plain"):
    """Reads the scores of each query.

    Args:
        path: a queries.csv.
        variant: "plain", "upscaled" or whatever else was scored.

    Returns:
        A dictionary from (query, rate), as written, to (person, rank1, AP, INP): person is text,
        the others are in percent.

    Raises:
        InputError: the file is missing or broken, or holds nothing of this variant.

    Example:

    >>> read_queries("runs/mine/queries.csv")["query/0001_c1s1_001051_00.jpg", "4"]
    ('1', 100.0, 83.3, 66.7)
    """
    path, found = Path(path), {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["variant"] == variant:
                    scores = [float(row[name]) for name in COLUMNS[-3:]]
                    found[row["query"], row["rate"]] = (row["person"], *scores)
                    if not all(map(math.isfinite, [*scores, float(row["rate"] or 1)])):
                        raise ValueError(f"no number in {row}")
    except OSError as error:
        reason = os.strerror(error.errno)
        raise InputError(f"{path} cannot be read ({reason}): run again what wrote it") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} is no list of queries with the columns {', '.join(COLUMNS)}: run again what "
            "wrote it"
        ) from error
    if not found:
        raise InputError(f"{path} holds no {variant} scores")
    return found

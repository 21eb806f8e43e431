"""What a run or published weights say about themselves: how they were made, and on whom."""

import json
import os
import shlex
import sys
from pathlib import Path

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.data.manifest import file_sha256
from keras_xreid.errors import InputError

# Data sets whose splits differ in who is to be trained on and who is to be found.
HALVED = ("viper", "caviar", "cuhk03")
# Data sets that are named alike whoever is on them; their folder tells them apart.
ANYBODY = ("csv", "mlr")


def trained_on(weights):
    """Data set, split, fold and split_id that weights were trained on; {} where nothing says it.

    Args:
        weights: a published name, or a run folder or a file in it, be the run finished or not.
    """
    if entry := xr.published().get(str(weights)):
        return entry
    path = hub.find(weights) if hub.is_address(weights) else Path(weights)
    folder = path if path.is_dir() else path.parent
    for name in ("options.json", "metrics.json", hub.ENTRY):
        if (folder / name).is_file():
            try:
                told = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{folder / name} is not valid JSON: {error}") from error
            return {"dataset": told.get("data"), **told} if name == "options.json" else told
    return {}


def refuse_overlap(weights, wanted, data_dir=None):
    """Refuses weights trained on people whom a run is to find.

    Args:
        weights: as `trained_on` takes them.
        wanted: options of the run: `data`, `split`, `fold` and `split_id` are read.
        data_dir: folder of the run's data set, by which two of one name are told apart.

    Returns:
        What `trained_on` says.

    Raises:
        InputError: with the option to give.
    """
    told = trained_on(weights)
    same = told.get("dataset") == wanted.data
    if same and wanted.data in ANYBODY and data_dir:
        same = told.get("data_dir", data_dir) == data_dir
    if not same:
        return told
    split, split_id = told.get("split"), told.get("split_id", 0)
    # What says nothing is of fold 0.
    fold = told.get("fold") or 0
    reason = f"{weights} was trained on people whom this run is to find: give"
    if wanted.split == "dev" and split != "dev":
        raise InputError(f"{reason} --split test")
    if wanted.split == "dev" and fold != wanted.fold:
        raise InputError(f"{reason} the --fold that it had, {fold}")
    if wanted.data in HALVED and split_id != wanted.split_id:
        raise InputError(f"{reason} the --split-id that it had, {split_id}")
    return told


def began_from(options):
    """The trained weights that a run's options name to begin from, or None."""
    weights = options.get("weights")
    return options.get("reid") or (None if weights in ("imagenet", "random") else weights)


def started_as(options, known=None):
    """What a run began from, as others know it.

    Args:
        options: a run's options.
        known: published weights; those that can be loaded if None.

    Returns:
        A published name where its weights are known by one; else its own word, such as "imagenet"
        or a folder.
    """
    told, sha256 = began_from(options), options.get("began_from_sha256")
    known = xr.published() if known is None else known
    if told in known or not sha256:
        return told
    same = [n for n, e in known.items() if sha256 in (e["sha256"], e.get("run_sha256"))]
    return same[0] if same else told


def trained_file(weights):
    """The file of trained weights, where the name or path leads to one that lies here."""
    entry = xr.published().get(str(weights))
    path = Path(weights) / "model.weights.h5" if Path(weights).is_dir() else Path(weights)
    return None if entry or not path.is_file() else path


def command_typed(recipe, arguments=None):
    """The command line of a recipe, without what is true of this machine alone.

    A folder of data is DIR, and weights in a file are RUN. They are told apart by their SHA-256,
    by which `xreid publish` finds their name.

    Returns:
        The command, and the SHA-256 of the weights in a file, or None.
    """
    words, began = ["python", f"recipes/{recipe}.py"], None
    arguments = iter(sys.argv[1:] if arguments is None else arguments)
    for word in arguments:
        name, joined, value = word.partition("=")
        if name in ("--resume", "--overwrite"):
            continue
        if name in ("--out", "--data-dir", "--weights", "--reid"):
            value = value if joined else next(arguments, "")
            if name == "--out":
                continue
            if name == "--data-dir":
                value = "DIR"
            elif path := trained_file(value):
                value, began = "RUN", file_sha256(path)
            words += [name, value]
            continue
        words.append(word)
    return f"KERAS_BACKEND={os.environ['KERAS_BACKEND']} {shlex.join(words)}", began

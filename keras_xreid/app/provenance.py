"""What a run or published weights say about themselves: how they were made, and on whom."""

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid._backend import place
from keras_xreid.data.manifest import MANIFEST, file_sha256, read_rows, relative
from keras_xreid.errors import InputError
from keras_xreid.files import read_json

# Data sets whose splits differ in who is to be trained on and who is to be found.
HALVED = ("viper", "caviar", "caviar-native", "cuhk03")
# Data sets that are named alike whoever is on them; their folder tells them apart.
ANYBODY = ("csv", "mlr")
# Data sets of another one's people.
PEOPLE_OF = {"synthetic-b": "synthetic", "caviar-native": "caviar"}


def trained_on(weights):
    """Data set, split, fold and split_id that weights were trained on; {} where nothing says it.

    Args:
        weights: a published name, or a run folder or a file in it, be the run finished or not.
            Published weights are known by their file, too.
    """
    entry = hub.entry_of(weights) or {}
    if hub.named(weights):
        return entry
    path = hub.find(weights) if hub.is_address(weights) else Path(weights)
    folder = path if path.is_dir() else path.parent
    for name in ("options.json", "metrics.json", hub.ENTRY):
        if (folder / name).is_file():
            told = read_json(folder / name)
            told = {"dataset": told.get("data"), **told} if name == "options.json" else told
            return {**told, **entry}
    return entry


def refuse_overlap(weights, wanted, data_dir=None, query=()):
    """Refuses weights trained on people whom a run is to find, or begun from such weights.

    What cannot be known is printed.

    Args:
        weights: as `trained_on` takes them.
        wanted: options of the run: `data`, `split`, `fold` and `split_id` are read.
        data_dir: folder of the run's data set, by which two of one name are told apart.
        query: records of the people whom the run is to find; where it is known who was trained on,
            their names decide.

    Returns:
        What `trained_on` says.

    Raises:
        InputError: with the option to give.
    """
    first = told = trained_on(weights)
    who, seen, last = str(weights), set(), weights
    while told:
        _refuse_people(who, told, wanted, data_dir, {str(record.person) for record in query})
        before, told = _told_before(told)
        if before is None or before in seen:
            return first
        seen.add(before)
        who, last = f"{weights}, which began from {before},", before
    print(f"Nothing beside {last} says on whom it was trained: not checked")
    return first


def _refuse_people(who, told, wanted, data_dir, asked):
    """The same of one training, of which `trained_on` tells; `who` are the weights, in words."""
    options = told.get("options") or told
    ours = _origin(vars(wanted), wanted.data, data_dir)
    theirs = _origin(told, told.get("dataset"), options.get("data_dir"))
    data = ours["dataset"]
    if PEOPLE_OF.get(data, data) != PEOPLE_OF.get(theirs["dataset"], theirs["dataset"]):
        return
    if data in ANYBODY and (ours["built"] or theirs["built"]):
        print(f"Nothing says from which {data} a set was built: people of {who} are not checked")
        return
    places = [_place(part["data_dir"]) for part in (ours, theirs) if part["data_dir"]]
    if data in ANYBODY and len(set(places)) > 1:
        return
    # A set that was built may spell its people otherwise.
    alike = data not in ANYBODY and not ours["built"] and not theirs["built"]
    known = set(_people_of(told)) if alike else set()
    if known and asked and not known & asked:
        return  # another part of the same data set
    if is_of_everyone(told) and not getattr(wanted, "everyone", False):
        raise InputError(
            f"{who} was trained on everyone of {theirs['dataset']} (--everyone): nobody is left to "
            "search for; give other weights"
        )
    reason = f"{who} was trained on people whom this run is to find: give"
    reason += " a set built with" if ours["built"] else ""
    if ours["split"] == "dev" and theirs["split"] != "dev":
        raise InputError(f"{reason} --split test")
    if ours["split"] == "dev" and theirs["fold"] != ours["fold"]:
        raise InputError(f"{reason} the --fold that it had, {theirs['fold']}")
    if data in HALVED and theirs["split_id"] != ours["split_id"]:
        raise InputError(f"{reason} the --split-id that it had, {theirs['split_id']}")
    if (both := known & asked) and not getattr(wanted, "everyone", False):
        raise InputError(
            f"{who} was trained on {len(both):,} of the people whom this run is to find: give "
            "other weights, or the folder of images that they were trained on"
        )


def _people_of(told):
    """Names of those who were trained on, where they are known."""
    inputs = (told.get("options") or told).get("inputs") or {}
    return inputs.get("people") or (told.get("people") or "").split()


def _origin(told, data, data_dir):
    """Data set, folder, split, fold and split_id; of a set that was built, those it is of."""
    built = data == "mlr" and data_dir and (Path(data_dir) / MANIFEST).is_file()
    if built:
        told = read_rows(Path(data_dir) / MANIFEST)[0]
        data, data_dir = told.get("dataset"), None
    return {
        "dataset": data,
        "data_dir": data_dir,
        "built": built,
        "split": told.get("split"),
        "fold": told.get("fold") or 0,  # what says nothing is of fold 0
        "split_id": told.get("split_id") or 0,
    }


def _place(data_dir):
    """A folder of images, or the list in it: it may be named by either."""
    path = Path(data_dir).resolve()
    tables = list(path.glob("*.csv"))
    return tables[0] if len(tables) == 1 else path


def _told_before(told):
    """What trained weights began from, or None; and what `trained_on` tells of that, or {}."""
    options = told.get("options") or told
    before = told.get("began_from") or started_as(options)
    if before is None or hub.named(before):
        return before, before and trained_on(before)
    file, sha256 = trained_file(before), options.get("began_from_sha256")
    there = file and sha256 in (None, file_sha256(file))  # or others lie there now
    return before, trained_on(before) if there else {}


def is_of_everyone(told):
    """Whether a run, or what `trained_on` says, was trained on the people searched for, too."""
    told = told.get("options") or told
    return bool(told.get("everyone"))


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
    if not sha256:
        return told
    same = [n for n, e in known.items() if sha256 in (e["sha256"], e.get("run_sha256"))]
    # With a SHA-256 it was a file, be its folder named like published weights.
    return same[0] if same else f"./{told}" if told in known else told


def same_start(name, options, value):
    """Whether a run began from what another one is told to; a file is known by its SHA-256.

    Args:
        name: "weights" or "reid".
        options: the run's.
        value: the other's option of this name.
    """
    found = options.get(name, value)
    trained = [began_from({name: told}) for told in (found, value)]
    if not all(trained):
        return found == value
    sha256, file = options.get("began_from_sha256"), trained_file(value)
    entry = hub.named(value)
    known = {entry["sha256"], entry.get("run_sha256")} if entry else file and {file_sha256(file)}
    return found == value or not (sha256 and known) or sha256 in known


def trained_file(weights):
    """The file of trained weights, where the name or path leads to one that lies here."""
    path = Path(weights) / "model.weights.h5" if Path(weights).is_dir() else Path(weights)
    return path if path.is_file() else None


def inputs_of(data, options):
    """What a run depends on beside its options: images by their content, people, weights.

    Args:
        data: a `DataSet`.
        options: the run's.

    Returns:
        A dictionary for options.json.
    """
    import keras  # here, for --help does without

    hashes, inputs = {}, {"keras_xreid": xr.__version__, "keras": keras.__version__}
    for role in ("train", "query", "gallery"):
        digest = hashlib.sha256()
        for record in getattr(data, role):
            if record.path not in hashes:  # a container holds many images
                hashes[record.path] = file_sha256(record.path)
            told = (relative(record, data), record.key, record.person, record.camera, record.rate,
                    record.kernel, hashes[record.path])  # fmt: skip
            digest.update(json.dumps(told, default=str).encode())
        inputs[role] = {"images": len(getattr(data, role)), "sha256": digest.hexdigest()}
    # Classes are people in this order.
    people = {record.person for record in data.train} - {None}
    inputs["people"] = [str(person) for person in sorted(people)]
    began = began_from(vars(options))
    path = began and trained_file(began)
    inputs["began_from_sha256"] = file_sha256(path) if path else None
    return inputs


def refuse_other_inputs(folder, begun, now):
    """Refuses to go on with other images, people or weights than a run began with.

    Args:
        folder: the run's.
        begun: what its options.json notes of them; a run of an earlier version notes nothing.
        now: `inputs_of` what is there today.

    Raises:
        InputError: with what has changed.
    """
    if not isinstance(begun, dict):
        print(f"Nothing in {folder} says which images it began with: not checked")
        return
    for name in ("keras_xreid", "keras"):
        if begun.get(name) != now[name]:
            print(f"The run was begun with {name} {begun.get(name)}; this is {now[name]}")
    if begun.get("people") != now["people"]:
        old, new = set(begun.get("people") or ()), set(now["people"])
        gone, come = (", ".join(sorted(some)[:3]) or "nobody" for some in (old - new, new - old))
        what = f"its classes would mean other people (gone: {gone}; new: {come})"
    elif begun.get("began_from_sha256") != now["began_from_sha256"]:
        what = "the weights that it began from are others now"
    else:
        other = [role for role in ("train", "query", "gallery") if begun.get(role) != now[role]]
        if not other:
            return
        what = f"its {other[0]} images, or what is told of them, are others now"
    raise InputError(
        f"the run in {folder} cannot go on: {what}; restore them, or start again with --overwrite"
    )


def command_typed(recipe, arguments=None):
    """The command line of a recipe, without what is true of this machine alone.

    A folder of data is DIR, and weights in a file are RUN. They are told apart by their SHA-256,
    by which `xreid publish` finds their name.

    Returns:
        The command, and the SHA-256 of the weights in a file, or None.
    """
    words, began = ["python", f"recipes/{recipe}.py"], None
    if (processes := place()[1]) > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        nodes = ["--nnodes", str(processes // here)] if here < processes else []
        words = ["torchrun", *nodes, "--nproc-per-node", str(here), words[1]]
    arguments = iter(sys.argv[1:] if arguments is None else arguments)
    for word in arguments:
        name, joined, value = word.partition("=")
        name = name.replace("_", "-")  # as the parser takes it too
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

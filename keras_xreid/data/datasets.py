"""Data sets as lists of `Record`: `load`, and what shares out people and labels after reading."""

import collections
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_xreid.data.images import SUFFIXES as IMAGE_SUFFIXES
from keras_xreid.data.people import DISTRACTOR, people_in
from keras_xreid.data.protocols import MANIFEST, ROLES, apply_protocol, find_protocol
from keras_xreid.data.readers.csv_list import read_csv
from keras_xreid.data.readers.cuhk03 import read_cuhk03
from keras_xreid.data.readers.market import read_dukemtmc, read_market1501
from keras_xreid.data.readers.mlr_folder import protocol_of_mlr, read_mlr
from keras_xreid.data.readers.mot import cut_people
from keras_xreid.data.readers.viper_caviar import read_caviar, read_viper
from keras_xreid.data.records import DataSet, Record
from keras_xreid.data.resolution import check_size
from keras_xreid.data.synthetic.people import load_synthetic
from keras_xreid.errors import InputError, check_number

__all__ = [
    "IMAGE_SUFFIXES",
    "DataSet",
    "Record",
    "cut_people",
    "hide_labels",
    "hold_out_people",
    "load",
    "read_caviar",
    "read_csv",
    "read_cuhk03",
    "read_dukemtmc",
    "read_market1501",
    "read_mlr",
    "read_viper",
]


class _Row(NamedTuple):
    """How a data set is read: by `read(data_dir, ...)` with the options that it `takes`.

    `protocol` is the one where none is asked for. A reader that takes `split_id` shares out the
    people anew for each split; `states_rates` says that queries may have rates of their own.
    """

    read: Callable
    takes: tuple
    protocol: str | None = None
    states_rates: bool = False


def _read_synthetic(data_dir, image_size, **style):
    return load_synthetic(image_size=check_size(image_size), **style)


def _read_caviar_native(data_dir, split_id):
    return read_caviar(data_dir, split_id, native=True)


READERS = {
    "market1501": _Row(read_market1501, ("need",)),
    "dukemtmc": _Row(read_dukemtmc, ("need",)),
    "cuhk03": _Row(read_cuhk03, ("split_id", "boxes")),
    "viper": _Row(read_viper, ("split_id",)),
    # Really of low resolution: nothing is shrunk once more.
    "caviar": _Row(read_caviar, ("split_id", "one_camera_people"), protocol="paper"),
    "caviar-native": _Row(_read_caviar_native, ("split_id",), protocol="paper"),
    "mlr": _Row(read_mlr, ("need",)),
    "csv": _Row(read_csv, ("need",), states_rates=True),
    "synthetic": _Row(_read_synthetic, ("image_size",)),
    "synthetic-b": _Row(functools.partial(_read_synthetic, style="b"), ("image_size",)),
}
NAMES = tuple(READERS)
DRAWN = ("synthetic", "synthetic-b")
DEV_PEOPLE, FOLDS = 50, 3


def load(
    name,
    data_dir=None,
    *,
    split="test",
    fold=0,
    limit=None,
    image_size=(128, 64),
    need=ROLES,
    protocol=None,
    split_id=0,
    seed=0,
    rates=(2, 3, 4),
    kernel=None,
    boxes=None,
    train_people=None,
    train_cameras=(),
    test_cameras=(),
):
    """Loads a data set's lists of images; the images themselves are read later, by `Record.read`.

    No data set is downloaded: most are released on request, and DukeMTMC-reID was withdrawn by its
    authors. Give the folder you have, as it was distributed.

    Args:
        name: "market1501", "dukemtmc", "cuhk03", "viper", "caviar", "caviar-native"
            (rates from the stored heights), "mlr" (a folder of images at low and high resolution,
            see `read_mlr`), "csv" (own folders, see `read_csv`), "synthetic" (the built-in set) or
            "synthetic-b" (its people in four other cameras).
        data_dir: the data set's folder; for "csv" the file or a folder that holds one `.csv`;
            built-in sets take none.
        split: "test", the data set's own, or "dev": see `hold_out_people`. Settings are chosen
            on "dev", so that the test people are scored once.
        fold: which people "dev" holds out: 0, 1 or 2, no person in two of them.
        limit: take the first so many people only, of those to train on and of those to find.
        image_size: (height, width) in pixels at which "synthetic" is drawn; no other set uses it.
        need: the lists wanted. Evaluating needs ("query", "gallery"), and no training folder.
        protocol: one of `PROTOCOLS`, which fixes queries, rates and gallery; None is "each-rate":
            query and gallery as distributed, for every query to be scored at every rate. Queries
            of low resolution by themselves are not shrunk again: for "caviar" None is "paper", for
            "mlr" the protocol that the folder was built by, or "multi-shot", and for a "csv" whose
            queries state rates above 1 "multi-shot".
        split_id: which split. "cuhk03" has 20 official ones, 0 to 19; "viper" and "caviar" are
            halved anew for each number (by hash of number and person, whatever the seed). The
            people of the others are fixed: a protocol then redraws cameras and rates.
        seed: 0 or more; what the protocol draws. See `keras_xreid.data.protocols.apply_protocol`.
        rates: rates that the protocol draws from.
        kernel: how queries are shrunk, see `degrade`; the protocol's if None.
        boxes: images of "cuhk03": "detected", "labeled", "both", or the protocol's if None.
        train_people: train on so many people only, the same on every machine, and the first 100
            among the first 200; None: all. Who is to be found stays as it is.
        train_cameras: take training images of these cameras only; a person with a single image
            left is left out. Empty: all cameras.
        test_cameras: take queries and gallery images of these cameras only, and draw a protocol's
            LR camera among them. Empty: all.

    Returns:
        A `DataSet`; lists not needed are empty.

    Raises:
        InputError: unknown name, folder missing or of another layout, or given for a built-in
            set, empty image file, no such split or fold, or each-rate asked for queries that are
            of low resolution already.

    Example:

    >>> data = load("market1501", "/data/Market-1501-v15.09.15")
    >>> len(data.train), len(data.query), len(data.gallery)
    (12936, 3368, 15913)
    >>> data = load("cuhk03", "/data/cuhk03_release", protocol="paper", split_id=3)
    >>> data.query[0].rate, data.gallery_shots
    (2, 1)
    """
    if name not in NAMES:
        raise InputError(f"unknown data set {name!r}: known are {', '.join(NAMES)}")
    if split not in ("test", "dev"):
        raise InputError(f"unknown split {split!r}: give 'test' or 'dev'")
    if fold and split != "dev":
        raise InputError(f"fold {fold} of split {split!r}: folds are of 'dev' (--split dev)")
    if limit is not None:
        check_number("limit", limit)
    check_number("split_id", split_id, None)
    check_number("seed", seed, 0)
    wrong = (
        [role for role in need if role not in ROLES] if isinstance(need, (tuple, list)) else [need]
    )
    if wrong:
        raise InputError(f"need holds {wrong[0]!r}: give some of {', '.join(ROLES)}")
    if name not in DRAWN and not isinstance(data_dir, (str, os.PathLike)):
        raise InputError(f"data set {name!r} needs its folder: give data_dir (--data-dir DIR)")
    if name in DRAWN and data_dir is not None:
        raise InputError(
            f"data set {name!r} is drawn and takes no folder, but {data_dir} is given: give --data "
            "too, or leave out --data-dir"
        )
    built = name == "mlr" and (Path(data_dir) / MANIFEST).is_file()
    if name == "mlr":
        protocol = protocol_of_mlr(data_dir, protocol, split)
        if split_id or seed:
            raise InputError(
                f"split {split_id}, seed {seed} of mlr: these images are drawn already, so it has "
                "split 0 and seed 0 only"
            )
    if built and (kernel is not None or tuple(np.ravel(rates)) != (2, 3, 4)):
        what = f"rates {rates}" if kernel is None else f"kernel {kernel}"
        raise InputError(
            f"{what} of mlr: {data_dir} was built, and its images are shrunk already; leave it out"
        )
    row = READERS[name]
    protocol = row.protocol if protocol is None else protocol
    rule = find_protocol(protocol or "each-rate")
    # A list may state rates, which then fix the protocol, and that takes both lists.
    fixed = rule.low or row.states_rates
    test_lists = ("query", "gallery") if fixed and set(need) - {"train"} else ()
    # The development people come out of the training people, so that is the folder to read.
    wanted = ("train",) if split == "dev" else tuple(dict.fromkeys((*need, *test_lists)))
    if split_id and rule.low is None and "split_id" not in row.takes:
        raise InputError(
            f"split {split_id} of {name}: its people are fixed and each-rate draws nothing, so it "
            "has split 0 only"
        )
    if boxes is not None and "boxes" not in row.takes:
        raise InputError(f"boxes {boxes!r} of {name}: they are of cuhk03 only, leave them out")
    options = {
        "need": wanted,
        "split_id": split_id,
        "boxes": boxes or rule.boxes,
        "one_camera_people": rule.one_camera_people,
        "image_size": image_size,
    }
    try:
        data = row.read(data_dir, **{option: options[option] for option in row.takes})
    except OSError as error:  # a folder that may not be read, a name that is too long
        raise InputError(f"{name}: cannot read {data_dir} ({error.strerror or error})") from error
    if split == "dev":
        data = hold_out_people(data, fold)
    root = data.root or os.path.commonpath(
        [os.path.dirname(os.path.abspath(r.path)) for r in data.train + data.query + data.gallery]
    )
    data = dataclasses.replace(data, root=str(root))
    # First of all: a protocol draws among the cameras that are kept.
    data = _of_cameras(data, train_cameras, test_cameras)
    low = [record for record in data.query if (record.rate or 1) > 1]
    if low and rule.low is None:
        if protocol is not None:
            raise InputError(
                f"{name}: {len(low)} queries such as {low[0].path} are of low resolution already, "
                f"and {protocol} would shrink them again: choose paper or multi-shot"
            )
        protocol, rule = "multi-shot", find_protocol("multi-shot")
    if low and split_id and "split_id" not in row.takes and not built:
        raise InputError(
            f"split {split_id} of {name}: its queries are of low resolution already, and nothing "
            "is drawn, so it has split 0 only"
        )
    if not built:  # or else the manifest has said it all
        data = dataclasses.replace(
            data, protocol=protocol or "each-rate", split_id=split_id, seed=seed
        )
    if test_lists and rule.low and not built:
        data = apply_protocol(
            data, protocol, split_id=split_id, seed=seed, rates=rates, kernel=kernel
        )
    if test_cameras and "query" in need and not data.query:
        raise InputError(
            f"{name}: no query is by test_cameras {' '.join(map(str, test_cameras))}: give others, "
            "or leave them out"
        )
    if train_people is not None:
        data = _fewer_people(data, train_people)
    if limit is not None:
        data = _first_people(data, limit)
    return dataclasses.replace(
        data, **{role: getattr(data, role) if role in need else [] for role in ROLES}
    )


def hold_out_people(data, fold=0):
    """Holds out some of the training people, to choose settings by (the "dev" split).

    The people are chosen by the SHA-256 of their name (numbers written as Market-1501 does, with
    four digits), the 50 smallest, of fold 1 the next 50, of fold 2 those after them: never by a
    result, and the same on every machine. Of fewer than 100 training people half are held out, and
    of fewer than 150 there is fold 0 only. As in Market-1501's test set, the first image of each
    person and camera becomes a query, and all the others the gallery.

    Args:
        data: a `DataSet` with training images; its query and gallery are not looked at.
        fold: 0, 1 or 2.

    Returns:
        A `DataSet` of the training images alone, with split "dev".

    Raises:
        InputError: there is but one training person, no such fold, or too few people for it.
    """
    people = sorted({record.person for record in data.train}, key=_name_hash)
    if len(people) < 2:
        raise InputError(
            f"{data.name}: {len(people)} training people: the dev split needs 2 or more"
        )
    if fold not in range(FOLDS):
        raise InputError(f"fold {fold} of the dev split: give 0, 1 or 2")
    if fold and len(people) < FOLDS * DEV_PEOPLE:
        raise InputError(
            f"{data.name}: fold {fold} of {len(people)} training people: {FOLDS} folds of "
            f"{DEV_PEOPLE} people need {FOLDS * DEV_PEOPLE} or more; of fewer there is fold 0 only"
        )
    size = min(DEV_PEOPLE, len(people) // 2)
    held_out = set(people[fold * size :][:size])
    query, gallery, seen = [], [], set()
    for record in sorted(data.train, key=lambda record: (record.path, record.key or "")):
        if record.person not in held_out:
            continue
        view = record.person, record.camera
        (gallery if view in seen else query).append(record)
        seen.add(view)
    train = [record for record in data.train if record.person not in held_out]
    return dataclasses.replace(
        data, train=train, query=query, gallery=gallery, split="dev", fold=fold
    )


def hide_labels(records, labeled_fraction, seed=0):
    """Hides who is shown, for all but a share of each person's images (RAIN, Figure 5).

    Each person's share is rounded; who keeps a label keeps it on two images or more, which a pair
    needs. With one seed, the labels of a smaller share are among those of a larger one.

    Args:
        records: list of `Record`, training images.
        labeled_fraction: float in [0, 1]; 0 hides all labels, 1 none.
        seed: 0 or more.

    Returns:
        List of `Record` in the same order, those without a label with `person=None`.

    Raises:
        InputError: a share outside [0, 1].

    Example:

    >>> batches = PairBatches(hide_labels(data.train, 0.2), people_per_batch=8)
    """
    check_number("labeled fraction", labeled_fraction, 0, 1, whole=False)
    check_number("seed", seed, 0)
    rng = np.random.default_rng(seed)
    hidden = [dataclasses.replace(record, person=None) for record in records]
    images_of = {person: [] for person in people_in(records)}
    for i, record in enumerate(records):
        if record.person is not None:
            images_of[record.person].append(i)
    for images in images_of.values():
        keeps = round(labeled_fraction * len(images))
        for i in rng.permutation(images)[: max(2, keeps) if keeps else 0]:
            hidden[i] = records[i]
    return hidden


def _name_hash(person):
    name = f"{person:04d}" if isinstance(person, int) else str(person)
    return hashlib.sha256(name.encode()).hexdigest()


def _of_cameras(data, train_cameras, test_cameras):
    """Leaves cameras out: of the images to train on, and of those to find."""
    kept = {}
    for cameras, roles in ((train_cameras, ROLES[:1]), (test_cameras, ROLES[1:])):
        asked = {str(camera) for camera in cameras}
        known = {str(record.camera) for role in roles for record in getattr(data, role)}
        if known and asked - known:
            raise InputError(
                f"{data.name} has no camera {min(asked - known)} among those to "
                f"{'train on' if roles == ROLES[:1] else 'find'}: it has "
                + ", ".join(sorted(known))
            )
        for role in roles if asked else ():
            kept[role] = [r for r in getattr(data, role) if str(r.camera) in asked]
    if "train" in kept:
        count = collections.Counter(record.person for record in kept["train"])
        kept["train"] = [r for r in kept["train"] if r.person is None or count[r.person] > 1]
    return dataclasses.replace(data, **kept)


def _fewer_people(data, number):
    """Keeps `number` of the training people: those last in the order that dev takes first."""
    check_number("train_people", number, 2)
    people = sorted({record.person for record in data.train} - {None}, key=_name_hash)
    if data.train and number > len(people):
        raise InputError(f"train_people is {number}: {data.name} has {len(people)} to train on")
    kept = set(people[-number:])
    return dataclasses.replace(data, train=[r for r in data.train if r.person in kept])


def _first_people(data, limit):
    """Keeps the first `limit` people to train on, and the first `limit` to find."""
    train = set(people_in(data.train)[:limit])
    # Queries first: of a gallery alone nobody can say whether its 0 is looked for.
    sought = data.query or [r for r in data.gallery if r.person != DISTRACTOR]
    test = set(people_in(sought)[:limit])
    return dataclasses.replace(
        data,
        train=[record for record in data.train if record.person in train],
        query=[record for record in data.query if record.person in test],
        gallery=[record for record in data.gallery if record.person in test],
    )

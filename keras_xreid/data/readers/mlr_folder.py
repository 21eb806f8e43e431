"""Folders of images that are of low resolution already: built by a protocol, or by others."""

import dataclasses
import logging
import re
from pathlib import Path

from keras_xreid.data.manifest import MANIFEST, ROLES, read_rows
from keras_xreid.data.people import is_junk, note_zero
from keras_xreid.data.protocols import find_protocol
from keras_xreid.data.readers.folders import (
    check_answers,
    describe,
    folders_in,
    note_names,
    note_trained,
    read_folder,
    wrong_folder,
)
from keras_xreid.data.records import DataSet, Record
from keras_xreid.errors import InputError

MLR_NAME = re.compile(
    r"(-1|\d{1,9})_(?:c(\d{1,9})|[^_]+_(\d)).*?(?:_([1-9]\d{0,2})x)?"
    r"\.(?:jpg|jpeg|png|bmp)$",
    re.IGNORECASE,
)
# pair_person_view_image: read as the above, all people of a pair of cameras would be one.
CUHK03_NAME = re.compile(r"[1-5]_\d{3}_[12]_\d\d(_\d+x)?\.")
MLR_EXPECTED = (
    "expected train/, query/ and gallery/, each with lr/ and hr/ inside (names like "
    "0001_c2_....jpg: person, camera) or with names like 00020_c0_00000.jpg, camera 0 being of low "
    "resolution, or a folder that xreid build made"
)


def read_mlr(data_dir, need=ROLES):
    """Reads a folder of images at low and high resolution: one that was built, or one of others.

    Three layouts: what `xreid build` writes, where `manifest.jsonl` says everything;
    `{train,query,gallery}/{lr,hr}/` as VersReID has it (query/lr, gallery/hr, train/hr); and
    `{train,query,gallery}/` where camera 0 in names like `00020_c0_00000.jpg` is the one of low
    resolution; both with a folder for each person or without. Images at high resolution have rate
    1; of the others the rate is unknown, unless the name ends in `_3x`. Training images of low
    resolution are left out, with a warning: the systems shrink those of high resolution.

    Args:
        data_dir: the folder that holds `train/`, `query/` and `gallery/`.
        need: the lists wanted; other folders may be missing.

    Returns:
        A `DataSet`. Without a manifest a person is a str, as in the file's name; person -1 is left
        out, and one numbered 0 is a distractor, 0, where no query shows it.

    Raises:
        InputError: folder missing, of another layout or half empty, or names of CUHK03; empty image
            file.
    """
    root = Path(data_dir)
    if (root / MANIFEST).is_file():
        return _read_built(root, need)

    def parse(file):
        match = MLR_NAME.match(file)
        return match and (match[1], int(match[2] or match[3]), match[4] and int(match[4]))

    def holds(folder):
        return all((folder / role).is_dir() for role in need)

    missing = [f"{role}/" for role in need if not (root / role).is_dir()]
    if missing:
        looked = " and no ".join(missing)
        raise InputError(wrong_folder("mlr", root, looked, MLR_EXPECTED, parse, holds))
    lists, passed_over = {role: [] for role in ROLES}, []
    for role in need:
        levels = {"train": ("lr", "hr"), "query": ("lr",), "gallery": ("hr",)}[role]
        by_folder = any((root / role / level).is_dir() for level in ("lr", "hr"))
        places = [root / role / level for level in levels] if by_folder else [root / role]
        absent = [f"{role}/{place.name}/" for place in places if not place.is_dir()]
        if len(absent) == len(places):
            inside = ", ".join(f"{folder.name}/" for folder in folders_in(root / role))
            raise InputError(
                f"mlr: no {' and no '.join(absent)} in {root}; found {inside} in {role}/; "
                f"{MLR_EXPECTED}"
            )
        found, others, low = [], [], 0
        for place in filter(Path.is_dir, places):
            for folder in (place, *sorted(path for path in place.iterdir() if path.is_dir())):
                here, rest = read_folder(folder, parse)
                found, others = found + here, others + rest
                for record in here:
                    if CUHK03_NAME.match(Path(record.path).name):
                        raise InputError(
                            f"mlr: {record.path} has a name of CUHK03, a pair of cameras and then "
                            "the person: put the person first (1001_01_1_01.png for "
                            "1_001_1_01.png), or give a list, --data csv"
                        )
                    if is_junk(record.person):
                        continue
                    if place.name == "hr" or (not by_folder and record.camera != 0):
                        lists[role].append(dataclasses.replace(record, rate=1))
                    elif role == "train":
                        low += 1
                    else:
                        lists[role].append(record)
        passed_over += others
        if not lists[role]:
            of = " at high resolution" if role == "train" else ""
            raise InputError(
                f"mlr: no image of a person{of} in {root / role}: found "
                f"{describe(found, others)}; {MLR_EXPECTED}"
            )
        if low:
            logging.getLogger("keras_xreid").warning(
                f"mlr: {low:,} training images are of low resolution and left out: those of high "
                "resolution are shrunk while training"
            )
    check_answers("mlr", lists, root / "query", root / "gallery", MLR_EXPECTED)
    known = {record.person for record in lists["query"] + lists["train"]}
    lists["gallery"] = [
        dataclasses.replace(r, person=0) if not int(r.person) and r.person not in known else r
        for r in lists["gallery"]
    ]
    note_names("mlr", passed_over)
    note_zero("mlr", [record for role in ROLES for record in lists[role]])
    note_trained("mlr", lists)
    return DataSet("mlr", **lists, root=str(root))


def _read_built(root, need):
    rows = read_rows(root / MANIFEST)
    lists = {role: [] for role in ROLES}
    for row in rows:
        if row["role"] in need:
            path = root / row["path"]
            if not path.is_file():
                raise InputError(
                    f"mlr: {path} is missing, though {MANIFEST} lists it: run xreid build "
                    f"--verify {root} to name every such image"
                )
            if not is_junk(row["person"]):
                who = row["person"], row["camera"], row["rate"]
                lists[row["role"]].append(Record(str(path), *who, sha256=row["sha256"]))
    note_trained("mlr", lists)
    first = rows[0]
    return DataSet(
        "mlr", **lists, split=first["split"], root=str(root), protocol=first["protocol"],
        split_id=first["split_id"], seed=first["seed"], fold=first.get("fold", 0),
    )  # fmt: skip


def protocol_of_mlr(data_dir, asked, split):
    """The protocol of an MLR folder: none that would shrink its images a second time."""
    if split == "dev":
        raise InputError("mlr: its queries are given: take the dev split of the original data set")
    manifest = Path(data_dir) / MANIFEST
    if manifest.is_file():
        own = read_rows(manifest)[0]["protocol"]
        if asked not in (None, own):
            raise InputError(
                f"mlr: {data_dir} was built by protocol {own}, not {asked}: choose {own}, or give "
                "the original data set"
            )
        return own
    rule = find_protocol(asked or "multi-shot")
    if rule.low is None or rule.every_rate:
        raise InputError(
            f"mlr: protocol {asked} would shrink images that are of low resolution already: "
            "choose paper or multi-shot"
        )
    return asked or "multi-shot"

"""What all readers share: listing folders, and saying in one line what is wrong with one."""

import contextlib
import logging
import os
from pathlib import Path

from keras_xreid.data.images import SUFFIXES
from keras_xreid.data.people import note_both
from keras_xreid.data.records import Record
from keras_xreid.errors import InputError


def _look_into(folder, parse):
    """Lists a folder's own images as records, and the names of its other files.

    `parse` turns a file's name into (person, camera) or (person, camera, rate), None for others.
    """
    records, others = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            found = parse(entry.name) if entry.is_file() else None
            if found is not None:
                records.append(Record(entry.path, *found))
            elif entry.is_file():
                others.append(entry.name)
    return records, others


def read_folder(folder, parse):
    """As `_look_into`, and refuses an empty image."""
    records, others = _look_into(folder, parse)
    for record in records:
        check_not_empty(record.path, os.path.getsize(record.path))
    return records, others


def note_names(name, others):
    """Warns of images whose names do not say who is shown: they would vanish without a word.

    Args:
        name: of the data set.
        others: names of files that were passed over.
    """
    # macOS leaves "._0001_c1s1_001051_00.jpg" beside a file, which is no image.
    images = [f for f in others if Path(f).suffix.lower() in SUFFIXES and not f.startswith("._")]
    if images:
        logging.getLogger("keras_xreid").warning(
            f"{name}: {_count(images, 'image')} such as {images[0]!r} left out: a name of another "
            "form does not say person and camera"
        )


def note_trained(name, lists):
    """Warns of people of a folder tree who are trained on and to be found, see `note_both`."""
    first = {role: {r.person: r.path for r in reversed(lists[role])} for role in lists}
    note_both(name, first["train"], {**first["gallery"], **first["query"]})


def check_not_empty(path, size):
    if not size:
        raise InputError(f"image {path} is empty (0 bytes): restore or remove it")


def wrong_folder(name, root, missing, expected, parse, holds):
    """Says in one line what was looked for, what lies there instead, and where to look.

    Args:
        name: of the data set.
        root: the folder given.
        missing: what is not there.
        expected: the layout, with its numbers.
        parse: gives (person, camera) for an image's name, else None.
        holds: tells of a folder whether the data set lies in it.
    """
    looked = f"{name}: no {missing} in {root}"
    if not root.exists():
        return f"{looked}: this folder does not exist; {expected}"
    if not root.is_dir():
        return f"{looked}: this is a file, not a folder; {expected}"
    folders = folders_in(root)
    found = [describe(*_look_into(root, parse))]
    for folder in folders[:5]:
        found.append(f"{folder.name}/ with {describe(*_look_into(folder, parse))}")
    if len(folders) > 5:
        found.append(f"{len(folders) - 5} more folders")
    deeper = [below for folder in folders for below in folders_in(folder)]
    for folder in (root.resolve().parent, *folders, *deeper):
        with contextlib.suppress(OSError):  # a neighbour that may not be read
            if holds(folder):
                looked += f", but {folder} holds them: give that folder"
                break
    return f"{looked}; found {', '.join(found)}; {expected}"


def folders_in(folder, most=50):
    try:
        found = sorted(path for path in folder.resolve().iterdir() if path.is_dir())
    except OSError:  # not ours to read
        return []
    return [path for path in found[:most] if os.access(path, os.R_OK)]


def describe(records, others):
    people, cameras = {r.person for r in records}, {r.camera for r in records}
    parts = [
        f"{_count(records, 'image')} of {_count(people, 'person', 'people')} by "
        f"{_count(cameras, 'camera')}"
        if records
        else "no images"
    ]
    if others:
        parts.append(f"{_count(others, 'other file')} such as {others[0]}")
    return " and ".join(parts)


def _count(things, one, many=None):
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"


def check_answers(name, lists, query, gallery, expected):
    """Refuses a gallery that lacks most of the people who are looked for."""
    people = {record.person for record in lists["query"]}
    absent = people - {record.person for record in lists["gallery"]}
    if lists["gallery"] and 2 * len(absent) > len(people):
        such_as = min(record.path for record in lists["query"] if record.person in absent)
        raise InputError(
            f"{name}: {len(absent):,} of the {_count(people, 'person', 'people')} in {query} (such "
            f"as in {Path(such_as).name}) are not in {gallery}, which holds "
            f"{describe(lists['gallery'], [])}: one of the two was copied in part; {expected}"
        )


def note_counts(name, lists, expected):
    """Warns where a list has another length than the distributed one's."""
    parts = []
    for role, (images, people) in expected.items():
        records = lists[role]
        if records and len(records) != images:
            found = len({record.person for record in records} - {0})
            parts.append(
                f"{role} {len(records):,} images of {found:,} people (expected {images:,} of "
                f"{people:,})"
            )
    if parts:
        logging.getLogger("keras_xreid").warning(
            f"{name}: {', '.join(parts)}: right for a part of the data set, else the copy is "
            "incomplete"
        )

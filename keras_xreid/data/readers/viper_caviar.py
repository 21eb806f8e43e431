"""VIPeR and CAVIAR4REID: small sets without a fixed split, halved anew for each split number."""

import dataclasses
import functools
import hashlib
import re
from pathlib import Path

from keras_xreid.data.readers.folders import (
    describe,
    note_counts,
    note_names,
    read_folder,
    wrong_folder,
)
from keras_xreid.data.records import DataSet
from keras_xreid.data.resolution import rates_from_sizes
from keras_xreid.errors import InputError

VIPER_FOLDERS = {"cam_a": 1, "cam_b": 2}
VIPER_NAME = re.compile(r"(\d+)_\d+\.(?:bmp|png|jpg)$", re.IGNORECASE)
VIPER_EXPECTED = (
    "expected cam_a/ and cam_b/ with one image of each of 632 people, names like 000_45.bmp"
)
CAVIAR_NAME = re.compile(r"(\d{4})(\d{3,4})\.(?:jpg|jpeg|png)$", re.IGNORECASE)
FULL_HEIGHT = 128  # pixels of an image of rate 1, where rates come from heights
CAVIAR_CLOSE = 10  # images by the closer camera come first
CAVIAR_EXPECTED = (
    "expected one folder with 1,220 images of 72 people by 2 cameras, names like 0001001.jpg "
    "(person, image); 50 people have 20 images, 1 to 10 by the closer camera, and 22 have 10"
)


def read_viper(data_dir, split_id=0):
    """Reads VIPeR as distributed: 632 people, one image of each by each of two cameras.

    Half of the people are for training, drawn by the SHA-256 of `split_id` and the person. Of the
    others, `cam_a` is the query and `cam_b` the gallery.

    Args:
        data_dir: the folder that holds `cam_a/` and `cam_b/`.
        split_id: number of the split, any from 0; ten are usual.

    Returns:
        A `DataSet`; person is a str, as in the file's name (there is a person "000").

    Raises:
        InputError: folder missing, of another layout or half empty; empty image file.

    Reference:
        Gray et al., Evaluating Appearance Models for Recognition, Reacquisition, and Tracking,
        PETS 2007.
    """
    root = Path(data_dir)

    def parse(file, camera=0):
        match = VIPER_NAME.match(file)
        return match and (match[1], camera)

    def holds(folder):
        return all((folder / name).is_dir() for name in VIPER_FOLDERS)

    missing = [f"{name}/" for name in VIPER_FOLDERS if not (root / name).is_dir()]
    if missing:
        looked = " and no ".join(missing)
        raise InputError(wrong_folder("viper", root, looked, VIPER_EXPECTED, parse, holds))
    records, people, passed_over = [], [], []
    for name, camera in VIPER_FOLDERS.items():
        found, others = read_folder(root / name, functools.partial(parse, camera=camera))
        if not found:
            raise InputError(
                f"viper: no image of a person in {root / name}: found {describe(found, others)}; "
                f"{VIPER_EXPECTED}"
            )
        records += found
        passed_over += others
        people.append({record.person for record in found})
    alone = people[0] ^ people[1]
    if alone:
        raise InputError(
            f"viper: {len(alone)} of {len(people[0] | people[1])} people in {root} (such as "
            f"{min(alone)}) are in one of cam_a/ ({len(people[0])} people) and cam_b/ "
            f"({len(people[1])}) only: the copy is incomplete; {VIPER_EXPECTED}"
        )
    train = _half_of_people("viper", people[0], split_id)
    test = [record for record in records if record.person not in train]
    lists = {
        "train": [record for record in records if record.person in train],
        "query": [record for record in test if record.camera == 1],
        "gallery": [record for record in test if record.camera == 2],
    }
    note_counts("viper", lists, {"train": (632, 316), "query": (316, 316), "gallery": (316, 316)})
    note_names("viper", passed_over)
    return DataSet("viper", **lists, root=str(root))


def read_caviar(data_dir, split_id=0, one_camera_people=False, native=False):
    """Reads CAVIAR4REID as distributed: images whose resolutions really differ.

    A person's images 1 to 10 are by the closer camera, 1 here, and 11 to 20 by the distant one, 2.
    The 22 people whom only the closer camera saw are left out. Half of the 50 others are for
    training, drawn by the SHA-256 of `split_id` and the person. The distant camera is the query
    (ours) and counts as rate 2, as in Wu et al.; the closer one is the gallery, rate 1.

    `train` holds both cameras' images. The recipes learn from high resolution, so from the closer
    camera's alone: they see no pair of images of a person across cameras.

    Args:
        data_dir: the folder that holds the images.
        split_id: number of the split, any from 0; ten are usual.
        native: take the rate of a query from the height that it is stored at, rounded; rate 1 is
            128 pixels. `load("caviar-native")` asks for it.
        one_camera_people: keep the 22 people for training, as RAIN's authors do (47 / 25).

    Returns:
        A `DataSet`; person and camera are ints.

    Raises:
        InputError: folder missing, of another layout or half empty; empty image file.

    Reference:
        Cheng et al., Custom Pictorial Structures for Re-identification, BMVC 2011.
    """
    root = Path(data_dir)

    def parse(file):
        match = CAVIAR_NAME.match(file)
        camera = match and (1 if int(match[2]) <= CAVIAR_CLOSE else 2)
        return match and (int(match[1]), camera, camera)  # the camera's number is its rate, too

    def holds(folder):
        return folder.is_dir() and any(parse(path.name) for path in folder.iterdir())

    if not root.is_dir() or not holds(root):
        looked = "image with a name like 0001001.jpg"
        raise InputError(wrong_folder("caviar", root, looked, CAVIAR_EXPECTED, parse, holds))
    records, others = read_folder(root, parse)
    cameras = {}
    for record in records:
        cameras.setdefault(record.person, set()).add(record.camera)
    seen_by_both = {person for person, mine in cameras.items() if mine == {1, 2}}
    distant_only = [person for person, mine in cameras.items() if mine == {2}]
    if distant_only or len(seen_by_both) < 2:
        raise InputError(
            f"caviar: {len(seen_by_both)} people in {root} are seen by both cameras and "
            f"{len(distant_only)} by the distant one only: the copy is incomplete; found "
            f"{describe(records, others)}; {CAVIAR_EXPECTED}"
        )
    if native:
        far = [record for record in records if record.camera == 2]
        rates = dict(zip(far, rates_from_sizes(far, FULL_HEIGHT).round(), strict=True))
        records = [
            dataclasses.replace(record, rate=int(rates[record])) if record in rates else record
            for record in records
        ]
    train = _half_of_people("caviar", seen_by_both, split_id)
    test = [record for record in records if record.person in seen_by_both - train]
    if one_camera_people:
        train |= set(cameras) - seen_by_both
    lists = {
        "train": [record for record in records if record.person in train],
        "query": [record for record in test if record.camera == 2],
        "gallery": [record for record in test if record.camera == 1],
    }
    train_counts = (720, 47) if one_camera_people else (500, 25)
    note_counts("caviar", lists, {"train": train_counts, "query": (250, 25), "gallery": (250, 25)})
    note_names("caviar", others)
    return DataSet("caviar-native" if native else "caviar", **lists, root=str(root))


def _half_of_people(name, people, split_id):
    """Draws half of the people, rounded down, to train on."""
    if split_id < 0:
        raise InputError(f"split {split_id} of {name}: give a number of 0 or more")
    if len(people) < 2:
        raise InputError(f"{name}: {len(people)} people: halves to train on and to find need 2")

    def by_hash(person):
        return hashlib.sha256(f"{split_id} {person}".encode()).hexdigest()

    return set(sorted(people, key=by_hash)[: len(people) // 2])

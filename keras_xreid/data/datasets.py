"""Data sets as lists of `Record`: one short reader for each layout, and `load` in front of them."""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import logging
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from keras_xreid.data.mlr import (
    MANIFEST,
    PROTOCOLS,
    ROLES,
    apply_protocol,
    find_protocol,
    read_rows,
)
from keras_xreid.data.resolution import degrade
from keras_xreid.errors import InputError

NAMES = (
    "market1501", "dukemtmc", "cuhk03", "viper", "caviar", "mlr", "csv", "synthetic",
)  # fmt: skip
DEV_PEOPLE = 50
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".webp"}


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of one person, not yet read.

    Args:
        path: the file.
        person: the person's name or number as the data set gives it; None for a training image
            without a label.
        camera: the camera's number.
        rate: down-sampling rate, where the data set states it (1 = high resolution), else None.
        size: stored (height, width) in pixels where known, else None.
        key: the entry inside a container file such as CUHK03's `.mat`, else None.
        kernel: how `read` shrinks the stored image by `rate`, see `degrade`; None: not at all.

    Example:

    >>> image = data.query[0].read()  # (h, w, 3) uint8 at its stored size
    """

    path: str
    person: str | int | None
    camera: int
    rate: int | None = None
    size: tuple[int, int] | None = None
    key: str | None = None
    kernel: str | None = None

    def read(self):
        """Reads the image at its stored size, or shrunk where a protocol asks for that.

        Returns:
            (h, w, 3) uint8 array, RGB.

        Raises:
            InputError: the file is missing, empty or no complete image.
        """
        image = self._stored() if self.key is None else _read_cuhk03_image(self.path, self.key)
        return image if self.kernel is None else degrade(image, self.rate, self.kernel)

    def original(self):
        """Returns the record of the image before `read` shrinks it, to compare with.

        Returns:
            A `Record` of rate 1, or the record itself where `read` does not shrink.
        """
        return self if self.kernel is None else dataclasses.replace(self, rate=1, kernel=None)

    def _stored(self):
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise InputError(f"cannot read image {self.path}: {error.strerror}") from error
        if not content:
            raise InputError(f"image {self.path} is empty (0 bytes): restore or remove it")
        try:
            with Image.open(io.BytesIO(content)) as image:
                return np.array(image.convert("RGB"))
        except Image.UnidentifiedImageError as error:
            raise InputError(
                f"image {self.path} is no image that can be read: restore or remove it"
            ) from error
        # Pillow reports damage in several ways, SyntaxError for a bad PNG among them.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"image {self.path} is broken ({reason}): restore or remove it"
            ) from error


@dataclasses.dataclass
class DataSet:
    """A data set, or one split of it: three lists of `Record`.

    Args:
        name: the data set's name, as given to `load`.
        train: images to train on.
        query: images that are looked for.
        gallery: images that are searched.
        split: "test" (as distributed) or "dev" (held out of the training people).
        root: folder that the manifest's paths are relative to.
        protocol: what fixed the queries, their rates and the gallery, see `PROTOCOLS`.
        split_id: which of the data set's splits.
        seed: what the protocol's draws started from.

    Attributes:
        gallery_shots: 1, a gallery of one image a person, or None, of all; for `evaluate_ranking`.
        gallery_draws: number of such galleries that the protocol draws; None: the expectation.
    """

    name: str
    train: list[Record]
    query: list[Record]
    gallery: list[Record]
    split: str = "test"
    root: str = ""
    protocol: str = "each-rate"
    split_id: int = 0
    seed: int = 0

    @property
    def gallery_shots(self):
        return PROTOCOLS[self.protocol].gallery_shots

    @property
    def gallery_draws(self):
        return PROTOCOLS[self.protocol].gallery_draws


def load(
    name,
    data_dir=None,
    *,
    split="test",
    limit=None,
    image_size=(128, 64),
    need=ROLES,
    protocol=None,
    split_id=0,
    seed=0,
    rates=(2, 3, 4),
    kernel=None,
    boxes=None,
):
    """Loads a data set's lists of images; the images themselves are read later, by `Record.read`.

    No data set is downloaded: most are released on request, and DukeMTMC-reID was withdrawn by its
    authors. Give the folder you have, as it was distributed.

    Args:
        name: "market1501", "dukemtmc", "cuhk03", "viper", "caviar", "mlr" (a folder of images at
            low and high resolution, see `read_mlr`), "csv" (own folders, see `read_csv`) or
            "synthetic" (the embedded set).
        data_dir: the data set's folder; for "csv" the file or a folder that holds one `.csv`;
            "synthetic" needs none.
        split: "test", the data set's own, or "dev": see `hold_out_people`. Settings are chosen
            on "dev", so that the test people are scored once.
        limit: take the first so many people only, of those to train on and of those to find.
        image_size: (height, width) in pixels at which "synthetic" is drawn; no other set uses it.
        need: the lists wanted. Evaluating needs ("query", "gallery"), and no training folder.
        protocol: one of `PROTOCOLS`, which fixes queries, rates and gallery; None is "each-rate":
            query and gallery as distributed, for every query to be scored at every rate. For
            "caviar" None is "paper", for "mlr" the protocol that the folder was built by, or
            "multi-shot".
        split_id: which split. "cuhk03" has 20 official ones, 0 to 19; "viper" and "caviar" are
            halved anew for each number (by hash of number and person, whatever the seed). The
            people of the others are fixed: a protocol then redraws cameras and rates.
        seed: 0 or more; what the protocol draws. See `keras_xreid.data.mlr.apply_protocol`.
        rates: rates that the protocol draws from.
        kernel: how queries are shrunk, see `degrade`; the protocol's if None.
        boxes: images of "cuhk03": "detected", "labeled", "both", or the protocol's if None.

    Returns:
        A `DataSet`; lists not needed are empty.

    Raises:
        InputError: unknown name, folder missing or of another layout, empty image file, no such
            split.

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
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}: give the number of people to take, 1 or more")
    if data_dir is None and name != "synthetic":
        raise InputError(f"data set {name!r} needs its folder: give data_dir (--data-dir DIR)")
    built = name == "mlr" and (Path(data_dir) / MANIFEST).is_file()
    if name == "mlr":
        protocol = _protocol_of_mlr(data_dir, protocol, split)
        if split_id or seed:
            raise InputError(
                f"split {split_id}, seed {seed} of mlr: these images are drawn already, so it has "
                "split 0 and seed 0 only"
            )
    if name == "caviar" and protocol is None:
        protocol = "paper"  # really of low resolution: nothing is shrunk once more
    rule = find_protocol(protocol or "each-rate")
    test_lists = ("query", "gallery") if rule.low and set(need) - {"train"} else ()
    # The development people come out of the training people, so that is the folder to read.
    wanted = ("train",) if split == "dev" else tuple(dict.fromkeys((*need, *test_lists)))
    if name in ("market1501", "dukemtmc", "csv", "synthetic") and split_id and rule.low is None:
        raise InputError(
            f"split {split_id} of {name}: its people are fixed and each-rate draws nothing, so it "
            "has split 0 only"
        )
    if name == "market1501":
        data = read_market1501(data_dir, wanted)
    elif name == "dukemtmc":
        data = read_dukemtmc(data_dir, wanted)
    elif name == "cuhk03":
        data = read_cuhk03(data_dir, split_id, boxes or rule.boxes)
    elif name == "viper":
        data = read_viper(data_dir, split_id)
    elif name == "caviar":
        data = read_caviar(data_dir, split_id, rule.one_camera_people)
    elif name == "mlr":
        data = read_mlr(data_dir, wanted)
    elif name == "csv":
        data = read_csv(data_dir, wanted)
    else:
        from keras_xreid.data.synthetic import load_synthetic

        data = load_synthetic(image_size=tuple(image_size))
    if split == "dev":
        data = hold_out_people(data)
    root = data.root or os.path.commonpath(
        [os.path.dirname(os.path.abspath(r.path)) for r in data.train + data.query + data.gallery]
    )
    data = dataclasses.replace(data, root=str(root))
    if not built:  # or else the manifest has said it all
        data = dataclasses.replace(
            data, protocol=protocol or "each-rate", split_id=split_id, seed=seed
        )
    if test_lists and not built:
        data = apply_protocol(
            data, protocol, split_id=split_id, seed=seed, rates=rates, kernel=kernel
        )
    if limit is not None:
        data = _first_people(data, limit)
    return dataclasses.replace(
        data, **{role: getattr(data, role) if role in need else [] for role in ROLES}
    )


# --- folders: what all readers share ---------------------------------------------------------


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


def _read_folder(folder, parse):
    """As `_look_into`, and refuses an empty image."""
    records, others = _look_into(folder, parse)
    for record in records:
        _check_not_empty(record.path, os.path.getsize(record.path))
    return records, others


def _check_not_empty(path, size):
    if not size:
        raise InputError(f"image {path} is empty (0 bytes): restore or remove it")


def _wrong_folder(name, root, missing, expected, parse, holds):
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
    folders = _folders_in(root)
    found = [_describe(*_look_into(root, parse))]
    for folder in folders[:5]:
        found.append(f"{folder.name}/ with {_describe(*_look_into(folder, parse))}")
    if len(folders) > 5:
        found.append(f"{len(folders) - 5} more folders")
    deeper = [below for folder in folders for below in _folders_in(folder)]
    for folder in (root.resolve().parent, *folders, *deeper):
        with contextlib.suppress(OSError):  # a neighbour that may not be read
            if holds(folder):
                looked += f", but {folder} holds them: give that folder"
                break
    return f"{looked}; found {', '.join(found)}; {expected}"


def _folders_in(folder, most=50):
    try:
        found = sorted(path for path in folder.resolve().iterdir() if path.is_dir())
    except OSError:  # not ours to read
        return []
    return [path for path in found[:most] if os.access(path, os.R_OK)]


def _describe(records, others):
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


def _check_answers(name, lists, query, gallery, expected):
    """Refuses a gallery that lacks most of the people who are looked for."""
    people = {record.person for record in lists["query"]}
    absent = people - {record.person for record in lists["gallery"]}
    if lists["gallery"] and 2 * len(absent) > len(people):
        such_as = min(record.path for record in lists["query"] if record.person in absent)
        raise InputError(
            f"{name}: {len(absent):,} of the {_count(people, 'person', 'people')} in {query} (such "
            f"as in {Path(such_as).name}) are not in {gallery}, which holds "
            f"{_describe(lists['gallery'], [])}: one of the two was copied in part; {expected}"
        )


def _note_counts(name, lists, expected):
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


# --- Market-1501 and DukeMTMC-reID -----------------------------------------------------------

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_NAME = re.compile(r"(-1|\d+)_c(\d+)s\d+_\d+_\d+\.(?:jpg|jpeg|png)$", re.IGNORECASE)
MARKET_EXPECTED = (
    "expected bounding_box_train/ (12,936 images of 751 people), query/ (3,368 of 750) and "
    "bounding_box_test/ (19,732 files), 6 cameras, names like 0001_c1s1_001051_00.jpg"
)
MARKET_COUNTS = {"train": (12936, 751), "query": (3368, 750), "gallery": (15913, 750)}
DUKE_NAME = re.compile(r"(\d+)_c(\d+)_f\d+\.(?:jpg|jpeg|png)$", re.IGNORECASE)
DUKE_EXPECTED = (
    "expected, in a folder that you have (its authors withdrew the data set), "
    "bounding_box_train/ (16,522 images of 702 people), query/ (2,228 of 702) and "
    "bounding_box_test/ (17,661 of 1,110), 8 cameras, names like 0001_c2_f0046182.jpg"
)
DUKE_COUNTS = {"train": (16522, 702), "query": (2228, 702), "gallery": (17661, 1110)}


def read_market1501(data_dir, need=ROLES):
    """Reads Market-1501's folders as distributed: person and camera stand in each file's name.

    Person -1 (junk) is left out everywhere; person 0 (distractors) stays in the gallery only.
    Files that are no images (`Thumbs.db`) are passed over.

    Args:
        data_dir: the folder that holds `bounding_box_train/`, `query/`, `bounding_box_test/`.
        need: the lists wanted; other folders may be missing.

    Returns:
        A `DataSet`; person and camera are ints.

    Raises:
        InputError: folder missing, of another layout or half empty; empty image file.

    Reference:
        Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.
    """
    return _read_three_folders(
        "market1501", Path(data_dir), need, MARKET_NAME, MARKET_EXPECTED, MARKET_COUNTS
    )


def read_dukemtmc(data_dir, need=ROLES):
    """Reads DukeMTMC-reID's folders as they were distributed, in Market-1501's layout.

    The data set was withdrawn by its authors and cannot be had any more: this reads a folder that
    you have. 408 people of the gallery are distractors, seen by one camera and by no query.

    Args:
        data_dir: the folder that holds `bounding_box_train/`, `query/`, `bounding_box_test/`.
        need: the lists wanted; other folders may be missing.

    Returns:
        A `DataSet`; person and camera are ints.

    Raises:
        InputError: folder missing, of another layout or half empty; empty image file.

    Reference:
        Zheng et al., Unlabeled Samples Generated by GAN Improve the Person Re-identification
        Baseline in vitro, ICCV 2017.
    """
    return _read_three_folders(
        "dukemtmc", Path(data_dir), need, DUKE_NAME, DUKE_EXPECTED, DUKE_COUNTS
    )


def _read_three_folders(name, root, need, pattern, expected, counts):
    def parse(file):
        match = pattern.match(file)
        return match and (int(match[1]), int(match[2]))

    missing = [MARKET_FOLDERS[role] for role in need if not (root / MARKET_FOLDERS[role]).is_dir()]
    if missing:

        def holds(folder):
            return all((folder / MARKET_FOLDERS[role]).is_dir() for role in need)

        looked = "/ and no ".join(missing) + "/"
        raise InputError(_wrong_folder(name, root, looked, expected, parse, holds))
    lists = {role: [] for role in ROLES}
    for role in need:
        folder = root / MARKET_FOLDERS[role]
        records, others = _read_folder(folder, parse)
        lists[role] = [r for r in records if r.person > 0 or (r.person == 0 and role == "gallery")]
        if not lists[role]:
            raise InputError(
                f"{name}: no image of a person in {folder}: found {_describe(records, others)}; "
                f"{expected}"
            )
    places = [root / MARKET_FOLDERS[role] for role in ("query", "gallery")]
    _check_answers(name, lists, *places, expected)
    _note_counts(name, lists, counts)
    return DataSet(name, **lists, root=str(root))


# --- CUHK03 ----------------------------------------------------------------------------------

CUHK03_FILE = "cuhk-03.mat"
CUHK03_BOXES = {"detected": ("detected",), "labeled": ("labeled",), "both": ("detected", "labeled")}
CUHK03_EXPECTED = (
    "expected cuhk03_release/cuhk-03.mat (HDF5, 1.9 GB): labeled (14,096 images), detected "
    "(14,097), 1,467 people by 5 pairs of cameras, and testsets (20 of 100 people)"
)


def read_cuhk03(data_dir, split_id=0, boxes="detected"):
    """Reads CUHK03's `cuhk-03.mat` as distributed, by one of its 20 official test sets.

    Person 12 of camera pair 3 is number 3012, and its views 1 and 2 are cameras 5 and 6. Of the
    100 test people the first view is the query, the second the gallery (ours; protocols of
    multiple low resolution share them out anew). A record's `key`, "detected/3_012_2_06", is box
    type, pair, person, view and number of the image.

    Args:
        data_dir: the folder that holds `cuhk-03.mat` or `cuhk03_release/`, or the file itself.
        split_id: number of the test set, from 0.
        boxes: "detected" (found by a detector, usual in this field), "labeled" (drawn by hand) or
            "both".

    Returns:
        A `DataSet`; person and camera are ints.

    Raises:
        InputError: no such file, another layout in it, or no such split.

    Reference:
        Li et al., DeepReID: Deep Filter Pairing Neural Network for Person Re-identification, CVPR
        2014.
    """
    if boxes not in CUHK03_BOXES:
        raise InputError(f"unknown boxes {boxes!r}: known are {', '.join(CUHK03_BOXES)}")
    path = _find_cuhk03(Path(data_dir))
    data = DataSet("cuhk03", [], [], [], root=str(path.parent))
    with _open_cuhk03(path) as file:
        missing = [name for name in ("detected", "labeled", "testsets") if name not in file]
        if missing:
            raise InputError(
                f"cuhk03: no {' and no '.join(missing)} in {path}: found "
                f"{', '.join(file) or 'nothing'}; {CUHK03_EXPECTED}"
            )
        splits = file["testsets"][0]
        if not 0 <= split_id < len(splits):
            raise InputError(
                f"split {split_id} of cuhk03: it has {len(splits)} official ones, 0 to "
                f"{len(splits) - 1}"
            )
        test = {1000 * int(pair) + int(number) for pair, number in file[splits[split_id]][:].T}
        for kind in CUHK03_BOXES[boxes]:
            for key, person, camera in _cuhk03_entries(file, kind):
                query = "query" if camera % 2 else "gallery"
                role = query if person in test else "train"
                getattr(data, role).append(Record(str(path), person, camera, key=key))
    found = {record.person for record in data.query + data.gallery}
    if found != test or not data.train:
        raise InputError(
            f"cuhk03: test set {split_id} in {path} names {len(test)} people, but {len(found)} of "
            f"them have images, and {len(data.train):,} images are left to train on; "
            f"{CUHK03_EXPECTED}"
        )
    return data


def _find_cuhk03(root):
    if root.is_file():
        return root
    places = (CUHK03_FILE, f"cuhk03_release/{CUHK03_FILE}")

    def holds(folder):
        return any((folder / place).is_file() for place in places)

    if not holds(root):
        missing = " and no ".join(places)
        message = _wrong_folder("cuhk03", root, missing, CUHK03_EXPECTED, lambda file: None, holds)
        raise InputError(message)
    return next(root / place for place in places if (root / place).is_file())


def _open_cuhk03(path):
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"cuhk03: {path} is no whole HDF5 file ({reason}): copy it again; {CUHK03_EXPECTED}"
        ) from error


def _cuhk03_entries(file, kind):
    """Yields (key, person, camera) of the images in one of the two cell arrays.

    MATLAB stores arrays by columns, so that HDF5 shows them transposed: a pair's cells are
    (10, people), an image is (3, width, height), and an empty cell is an array of one dimension.
    """
    for pair, reference in enumerate(file[kind][0], 1):
        cells = file[reference][:]
        for number, person_cells in enumerate(cells.T, 1):
            for i, cell in enumerate(person_cells, 1):
                if file[cell].ndim == 3:
                    view = 1 if i <= 5 else 2
                    key = f"{kind}/{pair}_{number:03d}_{view}_{i:02d}"
                    yield key, 1000 * pair + number, 2 * (pair - 1) + view


def _read_cuhk03_image(path, key):
    kind, name = key.split("/")
    pair, number, _, i = (int(part) for part in name.split("_"))
    with _open_cuhk03(path) as file:
        try:
            pixels = file[file[file[kind][0, pair - 1]][i - 1, number - 1]][:]
        except (OSError, KeyError, IndexError, ValueError) as error:
            raise InputError(f"cannot read image {key} in {path}: {error}") from error
    return np.ascontiguousarray(pixels.T)


# --- VIPeR -----------------------------------------------------------------------------------

VIPER_FOLDERS = {"cam_a": 1, "cam_b": 2}
VIPER_NAME = re.compile(r"(\d+)_\d+\.(?:bmp|png|jpg)$", re.IGNORECASE)
VIPER_EXPECTED = (
    "expected cam_a/ and cam_b/ with one image of each of 632 people, names like 000_45.bmp"
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
        raise InputError(_wrong_folder("viper", root, looked, VIPER_EXPECTED, parse, holds))
    records, people = [], []
    for name, camera in VIPER_FOLDERS.items():
        found, others = _read_folder(root / name, functools.partial(parse, camera=camera))
        if not found:
            raise InputError(
                f"viper: no image of a person in {root / name}: found {_describe(found, others)}; "
                f"{VIPER_EXPECTED}"
            )
        records += found
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
    _note_counts("viper", lists, {"train": (632, 316), "query": (316, 316), "gallery": (316, 316)})
    return DataSet("viper", **lists, root=str(root))


def _half_of_people(name, people, split_id):
    """Draws half of the people, rounded down, to train on."""
    if split_id < 0:
        raise InputError(f"split {split_id} of {name}: give a number of 0 or more")
    if len(people) < 2:
        raise InputError(f"{name}: {len(people)} people: halves to train on and to find need 2")

    def by_hash(person):
        return hashlib.sha256(f"{split_id} {person}".encode()).hexdigest()

    return set(sorted(people, key=by_hash)[: len(people) // 2])


# --- CAVIAR4REID -----------------------------------------------------------------------------

CAVIAR_NAME = re.compile(r"(\d{4})(\d{3,4})\.(?:jpg|jpeg|png)$", re.IGNORECASE)
CAVIAR_CLOSE = 10  # images by the closer camera come first
CAVIAR_EXPECTED = (
    "expected one folder with 1,220 images of 72 people by 2 cameras, names like 0001001.jpg "
    "(person, image); 50 people have 20 images, 1 to 10 by the closer camera, and 22 have 10"
)


def read_caviar(data_dir, split_id=0, one_camera_people=False):
    """Reads CAVIAR4REID as distributed: images whose resolutions really differ.

    A person's images 1 to 10 are by the closer camera, 1 here, and 11 to 20 by the distant one, 2.
    The 22 people whom only the closer camera saw are left out. Half of the 50 others are for
    training, drawn by the SHA-256 of `split_id` and the person. The distant camera is the query
    (ours) and counts as rate 2, as in Wu et al.; the closer one is the gallery, rate 1.

    Args:
        data_dir: the folder that holds the images.
        split_id: number of the split, any from 0; ten are usual.
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
        raise InputError(_wrong_folder("caviar", root, looked, CAVIAR_EXPECTED, parse, holds))
    records, others = _read_folder(root, parse)
    cameras = {}
    for record in records:
        cameras.setdefault(record.person, set()).add(record.camera)
    seen_by_both = {person for person, mine in cameras.items() if mine == {1, 2}}
    distant_only = [person for person, mine in cameras.items() if mine == {2}]
    if distant_only or len(seen_by_both) < 2:
        raise InputError(
            f"caviar: {len(seen_by_both)} people in {root} are seen by both cameras and "
            f"{len(distant_only)} by the distant one only: the copy is incomplete; found "
            f"{_describe(records, others)}; {CAVIAR_EXPECTED}"
        )
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
    _note_counts("caviar", lists, {"train": train_counts, "query": (250, 25), "gallery": (250, 25)})
    return DataSet("caviar", **lists, root=str(root))


# --- folders of multiple low resolution ------------------------------------------------------

MLR_NAME = re.compile(
    r"(-1|\d+)_(?:c(\d+)|[^_]+_(\d)).*?(?:_(\d+)x)?\.(?:jpg|jpeg|png|bmp)$", re.IGNORECASE
)
MLR_EXPECTED = (
    "expected train/, query/ and gallery/, each with lr/ and hr/ inside (names like "
    "0001_c2_....jpg: person, camera) or with names like 00020_c0_00000.jpg, camera 0 being of low "
    "resolution, or a folder that build_mlr.py made"
)


def read_mlr(data_dir, need=ROLES):
    """Reads a folder of images at low and high resolution: one that was built, or one of others.

    Three layouts: what `build_mlr.py` writes, where `manifest.jsonl` says everything;
    `{train,query,gallery}/{lr,hr}/` as VersReID has it (query/lr, gallery/hr, both of train); and
    `{train,query,gallery}/`, with a folder for each person or without, where camera 0 in names
    like `00020_c0_00000.jpg` is the one of low resolution. Images at high resolution have rate 1;
    of the others the rate is unknown, unless the name ends in `_3x`.

    Args:
        data_dir: the folder that holds `train/`, `query/` and `gallery/`.
        need: the lists wanted; other folders may be missing.

    Returns:
        A `DataSet`. Without a manifest a person is a str, as in the file's name; person -1 is left
        out, and one numbered 0 is a distractor, 0, where no query shows it.

    Raises:
        InputError: folder missing, of another layout or half empty; empty image file.
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
        raise InputError(_wrong_folder("mlr", root, looked, MLR_EXPECTED, parse, holds))
    lists = {role: [] for role in ROLES}
    for role in need:
        levels = {"train": ("lr", "hr"), "query": ("lr",), "gallery": ("hr",)}[role]
        by_folder = any((root / role / level).is_dir() for level in ("lr", "hr"))
        places = [root / role / level for level in levels] if by_folder else [root / role]
        absent = [f"{role}/{place.name}/" for place in places if not place.is_dir()]
        if len(absent) == len(places):
            inside = ", ".join(f"{folder.name}/" for folder in _folders_in(root / role))
            raise InputError(
                f"mlr: no {' and no '.join(absent)} in {root}; found {inside} in {role}/; "
                f"{MLR_EXPECTED}"
            )
        found, others = [], []
        for place in filter(Path.is_dir, places):
            for folder in (place, *_folders_in(place, most=None)):
                here, rest = _read_folder(folder, parse)
                found, others = found + here, others + rest
        for record in found:
            level = Path(record.path).parent.name if by_folder else ""
            high = level == "hr" or (not by_folder and record.camera != 0)
            if record.person != "-1":
                lists[role].append(dataclasses.replace(record, rate=1) if high else record)
        if not lists[role]:
            raise InputError(
                f"mlr: no image of a person in {root / role}: found {_describe(found, others)}; "
                f"{MLR_EXPECTED}"
            )
    _check_answers("mlr", lists, root / "query", root / "gallery", MLR_EXPECTED)
    known = {record.person for record in lists["query"] + lists["train"]}
    lists["gallery"] = [
        dataclasses.replace(r, person=0) if not int(r.person) and r.person not in known else r
        for r in lists["gallery"]
    ]
    return DataSet("mlr", **lists, root=str(root))


def _read_built(root, need):
    rows = read_rows(root / MANIFEST)
    lists = {role: [] for role in ROLES}
    for row in rows:
        if row["role"] in need:
            path = root / row["path"]
            if not path.is_file():
                raise InputError(
                    f"mlr: {path} is missing, though {MANIFEST} lists it: run build_mlr.py "
                    f"--verify {root} to name every such image"
                )
            record = Record(str(path), row["person"], row["camera"], row["rate"])
            lists[row["role"]].append(record)
    first = rows[0]
    return DataSet(
        "mlr", **lists, split=first["split"], root=str(root), protocol=first["protocol"],
        split_id=first["split_id"], seed=first["seed"],
    )  # fmt: skip


def _protocol_of_mlr(data_dir, asked, split):
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


# --- csv -------------------------------------------------------------------------------------

CSV_COLUMNS = ("path", "person", "camera", "split")


def read_csv(data_dir, need=ROLES):
    """Reads a list of images of one's own, in any folders.

    The file has a header and the columns `path` (relative paths start at the file's folder),
    `person` (any name), `camera` (a number), `split` (train, query or gallery) and, optionally,
    `rate` (the down-sampling rate, 1 = high resolution, where it is known).

    Args:
        data_dir: the `.csv` file, or a folder that holds exactly one.
        need: the lists wanted.

    Returns:
        A `DataSet`; person is a str, camera an int.

    Raises:
        InputError: names the line of a missing file, an unknown split or a wrong number.

    Example:

    >>> Path("people.csv").write_text("path,person,camera,split\\na/1.jpg,anna,1,train\\n")
    >>> data = read_csv("people.csv", need=("train",))
    """
    table = _find_csv(Path(data_dir))
    lists = {role: [] for role in ROLES}
    with open(table, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        try:
            columns = rows.fieldnames or []
            missing = [name for name in CSV_COLUMNS if name not in columns]
            if missing:
                raise InputError(
                    f"{table}, line 1: no column {', '.join(missing)}: found "
                    f"{', '.join(columns) or 'nothing'}; expected {', '.join(CSV_COLUMNS)} "
                    "and, optionally, rate"
                )
            for row in rows:
                record, role = _csv_record(table, rows.line_num, row)
                if role in need:
                    lists[role].append(record)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{table} is no UTF-8 text with commas: {error}") from error
    for role in need:
        if not lists[role]:
            raise InputError(f"{table}: no row of split {role}: add some, or choose another file")
    return DataSet("csv", **lists, root=str(table.parent))


def _find_csv(path):
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"csv: no file or folder {path}: give a .csv file or a folder with one")
    found = sorted(path.glob("*.csv"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise InputError(f"csv: expected exactly one .csv file in {path}, found {names}: name it")
    return found[0]


def _csv_record(table, line, row):
    where = f"{table}, line {line}"
    values = {name: (row[name] or "").strip() for name in (*CSV_COLUMNS, "rate") if name in row}
    for name in CSV_COLUMNS:
        if not values[name]:
            raise InputError(f"{where}: {name} is empty: fill it in")
    if values["split"] not in ROLES:
        raise InputError(f"{where}: split is {values['split']!r}: expected {', '.join(ROLES)}")
    if not re.fullmatch(r"\d+", values["camera"]):
        raise InputError(f"{where}: camera is {values['camera']!r}: expected a number such as 1")
    rate = values.get("rate") or None
    if rate is not None and not re.fullmatch(r"[1-9]\d*", rate):
        raise InputError(f"{where}: rate is {rate!r}: expected a whole number, 1 or more, or none")
    path = table.parent / values["path"]
    if not path.is_file():
        raise InputError(f"{where}: no file {path}: paths are relative to the .csv file's folder")
    _check_not_empty(path, path.stat().st_size)
    rate = rate and int(rate)
    return Record(str(path), values["person"], int(values["camera"]), rate), values["split"]


# --- splits ----------------------------------------------------------------------------------


def hold_out_people(data):
    """Holds out some of the training people, to choose settings by (the "dev" split).

    The people are chosen by the SHA-256 of their name (numbers written as Market-1501 does, with
    four digits), the 50 smallest: never by a result, and the same on every machine. Of fewer than
    100 training people half are held out. As in Market-1501's test set, the first image of each
    person and camera becomes a query, and all the others the gallery.

    Args:
        data: a `DataSet` with training images; its query and gallery are not looked at.

    Returns:
        A `DataSet` of the training images alone, with split "dev".

    Raises:
        InputError: there is but one training person.
    """
    people = sorted({record.person for record in data.train}, key=_name_hash)
    if len(people) < 2:
        raise InputError(
            f"{data.name}: {len(people)} training people: the dev split needs 2 or more"
        )
    held_out = set(people[: min(DEV_PEOPLE, len(people) // 2)])
    query, gallery, seen = [], [], set()
    for record in sorted(data.train, key=lambda record: (record.path, record.key or "")):
        if record.person not in held_out:
            continue
        view = record.person, record.camera
        (gallery if view in seen else query).append(record)
        seen.add(view)
    train = [record for record in data.train if record.person not in held_out]
    return dataclasses.replace(data, train=train, query=query, gallery=gallery, split="dev")


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
    if not 0 <= labeled_fraction <= 1:
        raise InputError(f"labeled fraction is {labeled_fraction}: give 0 (no labels) to 1 (all)")
    rng = np.random.default_rng(seed)
    hidden = [dataclasses.replace(record, person=None) for record in records]
    images_of = {person: [] for person in sorted({record.person for record in records} - {None})}
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


def _first_people(data, limit):
    """Keeps the first `limit` people to train on, and the first `limit` to find."""
    train = set(sorted({record.person for record in data.train})[:limit])
    test = set(sorted({record.person for record in data.query or data.gallery} - {0})[:limit])
    return dataclasses.replace(
        data,
        train=[record for record in data.train if record.person in train],
        query=[record for record in data.query if record.person in test],
        gallery=[record for record in data.gallery if record.person in test],
    )

"""Data sets as lists of `Record`: one short reader for each layout, and `load` in front of them."""

import csv
import dataclasses
import hashlib
import io
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image

from keras_xreid.errors import InputError

NAMES = ("market1501", "csv", "synthetic")
ROLES = ("train", "query", "gallery")
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

    Example:

    >>> image = data.query[0].read()  # (h, w, 3) uint8 at its stored size
    """

    path: str
    person: str | int | None
    camera: int
    rate: int | None = None
    size: tuple[int, int] | None = None
    key: str | None = None

    def read(self):
        """Reads the image at its stored size.

        Returns:
            (h, w, 3) uint8 array, RGB.

        Raises:
            InputError: the file is missing, empty or no complete image.
        """
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
    """

    name: str
    train: list[Record]
    query: list[Record]
    gallery: list[Record]
    split: str = "test"
    root: str = ""


def load(
    name,
    data_dir=None,
    *,
    split="test",
    limit=None,
    image_size=(128, 64),
    need=ROLES,
):
    """Loads a data set's lists of images; the images themselves are read later, by `Record.read`.

    Args:
        name: "market1501", "csv" (own folders, see `read_csv`) or "synthetic" (the embedded set).
        data_dir: the data set's folder; for "csv" the file or a folder that holds one `.csv`;
            "synthetic" needs none.
        split: "test", the data set's own, or "dev": see `hold_out_people`. Settings are chosen
            on "dev", so that the test people are scored once.
        limit: take the first so many people only, of those to train on and of those to find.
        image_size: (height, width) in pixels at which "synthetic" is drawn; no other set uses it.
        need: the lists wanted. Evaluating needs ("query", "gallery"), and no training folder.

    Returns:
        A `DataSet`; lists not needed are empty.

    Raises:
        InputError: unknown name, folder missing or of another layout, empty image file.

    Example:

    >>> data = load("market1501", "/data/Market-1501-v15.09.15")
    >>> len(data.train), len(data.query), len(data.gallery)
    (12936, 3368, 15913)
    """
    if name not in NAMES:
        raise InputError(f"unknown data set {name!r}: known are {', '.join(NAMES)}")
    if split not in ("test", "dev"):
        raise InputError(f"unknown split {split!r}: give 'test' or 'dev'")
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}: give the number of people to take, 1 or more")
    # The development people come out of the training people, so that is the folder to read.
    wanted = ("train",) if split == "dev" else tuple(need)
    if name == "synthetic":
        from keras_xreid.data.synthetic import load_synthetic

        data = load_synthetic(image_size=tuple(image_size))
    elif data_dir is None:
        raise InputError(f"data set {name!r} needs its folder: give data_dir (--data-dir DIR)")
    elif name == "csv":
        data = read_csv(data_dir, wanted)
    else:
        data = read_market1501(data_dir, wanted)
    if split == "dev":
        data = hold_out_people(data)
    if limit is not None:
        data = _first_people(data, limit)
    root = data.root or os.path.commonpath(
        [os.path.dirname(os.path.abspath(r.path)) for r in data.train + data.query + data.gallery]
    )
    lists = {role: getattr(data, role) if role in need else [] for role in ROLES}
    return dataclasses.replace(data, root=str(root), **lists)


# --- Market-1501 -----------------------------------------------------------------------------

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_NAME = re.compile(r"(-1|\d+)_c(\d+)s\d+_\d+_\d+\.(?:jpg|jpeg|png)$", re.IGNORECASE)
MARKET_EXPECTED = (
    "expected bounding_box_train/ (12,936 images of 751 people), query/ (3,368 of 750) and "
    "bounding_box_test/ (19,732 files), 6 cameras, names like 0001_c1s1_001051_00.jpg"
)


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
        InputError: folder missing or of another layout, empty image file.

    Reference:
        Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.
    """
    root = Path(data_dir)
    missing = [MARKET_FOLDERS[role] for role in need if not (root / MARKET_FOLDERS[role]).is_dir()]
    if missing:
        raise InputError(_wrong_market_folder(root, missing))
    lists = {role: [] for role in ROLES}
    for role in need:
        folder = root / MARKET_FOLDERS[role]
        records, others = _market_images(folder)
        lists[role] = [r for r in records if r.person > 0 or (r.person == 0 and role == "gallery")]
        if not lists[role]:
            raise InputError(
                f"market1501: no image of a person in {folder}: found "
                f"{_describe(records, others)}; {MARKET_EXPECTED}"
            )
    return DataSet("market1501", **lists, root=str(root))


def _market_images(folder):
    """Returns the folder's images as records, junk included, and the names of its other files."""
    records, others = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            match = MARKET_NAME.match(entry.name)
            if match is None:
                others.append(entry.name)
                continue
            _check_not_empty(entry.path, entry.stat().st_size)
            records.append(Record(entry.path, int(match[1]), int(match[2])))
    return records, others


def _wrong_market_folder(root, missing):
    """Says in one line what was looked for, what lies there instead, and where to look."""
    looked = f"market1501: no {' and no '.join(name + '/' for name in missing)} in {root}"
    if not root.exists():
        return f"{looked}: this folder does not exist; {MARKET_EXPECTED}"
    if not root.is_dir():
        return f"{looked}: this is a file, not a folder; {MARKET_EXPECTED}"
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    names = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
    records, others = _market_images(root)
    images = _describe(records, [name for name in others if name not in folders])
    found = f"found {len(folders)} folders{f' ({names})' if names else ''}, {images}"
    absolute = root.resolve()
    for near in (absolute.parent, *(absolute / name for name in folders)):
        if all((near / name).is_dir() for name in missing):
            return f"{looked}: {found}; {near} holds them: give that folder"
    return f"{looked}: {found}; {MARKET_EXPECTED}"


def _describe(records, others):
    people, cameras = {r.person for r in records}, {r.camera for r in records}
    return (
        f"{len(records):,} images of {len(people)} people by {len(cameras)} cameras and "
        f"{len(others):,} other files" + (f" (such as {others[0]})" if others else "")
    )


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


def _check_not_empty(path, size):
    if not size:
        raise InputError(f"image {path} is empty (0 bytes): restore or remove it")


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

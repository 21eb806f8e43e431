"""CUHK03, by one of its official test sets."""

from pathlib import Path

from keras_xreid.data.readers.cuhk03_file import CUHK03_EXPECTED, cuhk03_entries, open_cuhk03
from keras_xreid.data.readers.folders import wrong_folder
from keras_xreid.data.records import DataSet, Record
from keras_xreid.errors import InputError

CUHK03_FILE = "cuhk-03.mat"
CUHK03_BOXES = {"detected": ("detected",), "labeled": ("labeled",), "both": ("detected", "labeled")}


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
    try:
        test = _read_lists(path, data, split_id, boxes)
    except InputError:
        raise
    except Exception as error:  # h5py raises this and that of what is damaged
        raise InputError(
            f"cuhk03: {path} is damaged, or laid out in another way ({error}); {CUHK03_EXPECTED}"
        ) from error
    found = {record.person for record in data.query + data.gallery}
    if found != test or not data.train:
        raise InputError(
            f"cuhk03: test set {split_id} in {path} names {len(test)} people, but {len(found)} of "
            f"them have images, and {len(data.train):,} images are left to train on; "
            f"{CUHK03_EXPECTED}"
        )
    return data


def _read_lists(path, data, split_id, boxes):
    """Fills the lists of a `DataSet`, and returns the people of the test set."""
    with open_cuhk03(path) as file:
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
            for key, person, camera in cuhk03_entries(file, kind):
                query = "query" if camera % 2 else "gallery"
                role = query if person in test else "train"
                getattr(data, role).append(Record(str(path), person, camera, key=key))
    return test


def _find_cuhk03(root):
    if root.is_file():
        return root
    places = (CUHK03_FILE, f"cuhk03_release/{CUHK03_FILE}")

    def holds(folder):
        return any((folder / place).is_file() for place in places)

    if not holds(root):
        missing = " and no ".join(places)
        message = wrong_folder("cuhk03", root, missing, CUHK03_EXPECTED, lambda file: None, holds)
        raise InputError(message)
    return next(root / place for place in places if (root / place).is_file())

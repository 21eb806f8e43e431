"""A list of images of one's own."""

import csv
import re
from pathlib import Path

from keras_xreid.data.protocols import ROLES
from keras_xreid.data.readers.folders import check_not_empty
from keras_xreid.data.records import DataSet, Record
from keras_xreid.errors import InputError

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
    check_not_empty(path, path.stat().st_size)
    rate = rate and int(rate)
    return Record(str(path), values["person"], int(values["camera"]), rate), values["split"]

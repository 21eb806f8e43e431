"""A list of images of one's own."""

import csv
import logging
import os
import re
import unicodedata
from pathlib import Path

from keras_xreid.data.people import is_junk, note_both, note_zero
from keras_xreid.data.protocols import ROLES
from keras_xreid.data.readers.folders import check_not_empty
from keras_xreid.data.records import DataSet, Record
from keras_xreid.errors import InputError

# What `cut_people` writes has a column `frame`.
OVER_TIME = "one camera over time: far images are searched for among near ones"
CSV_COLUMNS = ("path", "person", "camera", "split")


def read_csv(data_dir, need=ROLES):
    """Reads a list of images of one's own, in any folders.

    The file has a header and the columns `path` (relative paths start at the file's folder),
    `person` (any name), `camera` (a number), `split` (train, query or gallery) and, optionally,
    `rate` (the down-sampling rate, 1 = high resolution, where it is known). Rows of person -1 are
    junk and left out; a person 0 is one like any other.

    Args:
        data_dir: the `.csv` file, or a folder that holds exactly one.
        need: the lists wanted; images of the others may be missing.

    Returns:
        A `DataSet`; person is a str, camera an int.

    Raises:
        InputError: names the line of a missing file, an unknown split, a wrong number, or a row
            that says something else of an image than an earlier one.

    Example:

    >>> Path("people.csv").write_text("path,person,camera,split\\na/1.jpg,anna,1,train\\n")
    >>> data = read_csv("people.csv", need=("train",))
    """
    table = _find_csv(Path(data_dir))
    lists, junk = {role: [] for role in ROLES}, 0
    seen = _Seen(table)
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
            twice = next((name for name in columns if name and columns.count(name) > 1), None)
            if twice:
                raise InputError(f"{table}, line 1: column {twice} is there twice: keep one")
            for row in rows:
                record, role = _csv_record(table, rows.line_num, row, need)
                if is_junk(record.person):
                    junk += 1
                    continue
                seen.add(rows.line_num, record, role)
                if role in need:
                    lists[role].append(record)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{table} is no UTF-8 text with commas: {error}") from error
    for role in need:
        if not lists[role]:
            raise InputError(f"{table}: no row of split {role}: add some, or choose another file")
    if junk:
        _warn(f"{table}: {junk:,} rows of person -1 are junk and left out")
    note_zero("csv", [record for role in ROLES for record in lists[role]])
    seen.warn(need)
    about = OVER_TIME if {"frame", "height"} <= set(columns) else ""
    return DataSet("csv", **lists, root=str(table.parent), about=about)


class _Seen:
    """The rows so far: refuses one that says something else than an earlier one."""

    def __init__(self, table):
        self.table = table
        self.images = {}  # path -> (record, {role: line})
        self.people = {role: {} for role in ROLES}  # person -> line

    def add(self, line, record, role):
        first, lines = self.images.setdefault(os.path.abspath(record.path), (record, {}))
        for what in ("person", "camera", "rate"):
            here, there = getattr(record, what), getattr(first, what)
            if here != there:
                self._refuse(line, f"{what} is {here} here and {there}", record, lines)
        if role in lines:
            self._refuse(line, f"it is in {role} here and", record, lines)
        if {"query", "gallery"} <= {role, *lines}:
            self._refuse(line, f"it is in {role} here and in {min(lines)}", record, lines)
        lines[role] = line
        self.people[role].setdefault(record.person, line)

    def _refuse(self, line, what, record, lines):
        raise InputError(
            f"{self.table}, line {line}: {record.path} is listed again: {what} in line "
            f"{min(lines.values())}: keep one"
        )

    def warn(self, need):
        """Says what is allowed, and hardly ever meant."""
        train = self.people["train"] if "train" in need else {}
        if len(train) == 1:
            ((person, line),) = train.items()
            _warn(f"{self.table}, line {line}: {person} is the only person to train on")
        test = {**self.people["gallery"], **self.people["query"]}
        if not {"query", "gallery"}.isdisjoint(need):
            note_both(
                self.table, *({k: f"line {v}" for k, v in who.items()} for who in (train, test))
            )


def _warn(text):
    logging.getLogger("keras_xreid").warning(text)


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


def _csv_record(table, line, row, need):
    where = f"{table}, line {line}"
    values = {name: (row[name] or "").strip() for name in (*CSV_COLUMNS, "rate") if name in row}
    surplus = [cell for cell in row.get(None, ()) if cell.strip()]
    if surplus:
        raise InputError(f"{where}: {surplus[0]!r} is in no column: quote what holds a comma")
    for name in CSV_COLUMNS:
        if not values[name]:
            raise InputError(f"{where}: {name} is empty: fill it in")
    if values["split"] not in ROLES:
        raise InputError(f"{where}: split is {values['split']!r}: expected {', '.join(ROLES)}")
    # Spreadsheets write 2 as 2.0 where a cell of the column is empty.
    camera = re.fullmatch(r"([0-9]{1,9})(\.0)?", values["camera"])
    if not camera:
        raise InputError(
            f"{where}: camera is {values['camera'][:40]!r}: expected a number such as 1"
        )
    rate = values.get("rate") or None
    whole = rate and re.fullmatch(r"([1-9][0-9]{0,2})(\.0)?", rate)
    if rate and not whole:
        raise InputError(
            f"{where}: rate is {rate[:40]!r}: expected a whole number, 1 to 999, or none"
        )
    path = table.parent / values["path"]
    if values["split"] in need:
        if not path.is_file():
            raise InputError(
                f"{where}: no file {path}: paths are relative to the .csv file's folder"
            )
        check_not_empty(path, path.stat().st_size)
    rate = whole and int(whole[1])
    person = unicodedata.normalize("NFC", values["person"])  # macOS may write é as e and an accent
    return Record(str(path), person, int(camera[1]), rate), values["split"]

"""Files that are there complete or not at all, and text that is safe to show."""

import contextlib
import csv
import errno
import io
import json
import math
import os
import re
import secrets
import shutil
from pathlib import Path

import numpy as np

from keras_xreid.errors import InputError

# Control characters but tab and newline, marks that turn the order of letters, and what a file
# name has in the place of bytes that are no UTF-8.
_HARMFUL = (
    r"(?:\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff])"
)
# Colours, and what a progress bar goes back to its line with.
_BAR = r"\x1b\[[0-9;]*[mK]|[\r\x08]"
# What a disk answers that is full, broken or not to be written.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


class DiskError(InputError):
    """A file could not be written; the message says which, why, and what room it needs."""


def harmless(text, bar=False, name=False):
    """Text that commands no terminal and can be written as UTF-8: harm is spelled out, `\\x1b`.

    Args:
        text: str, of which a file's name may be a part.
        bar: let colours and the steps of a progress bar through.
        name: of a file, in which a new line is harm too.

    Example:

    >>> harmless("a\\x1b[2Jb.png")
    'a\\\\x1b[2Jb.png'
    """
    if not bar:
        return re.sub(rf"[\t\r\n]|{_HARMFUL}" if name else _HARMFUL, _spelled, text)
    return re.sub(f"({_BAR})|{_HARMFUL}", lambda m: m[1] or _spelled(m), text)


def _spelled(match):
    return match[0].encode("unicode_escape").decode()


def disk_reason(error, any_reason=False):
    """What the disk answered, where an error comes from a write that failed; else None.

    HDF5 wraps the disk's answer in errors of its own.

    Args:
        error: an exception.
        any_reason: take every answer of the system, not only those of full and broken disks.
    """
    while error is not None:
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number in _DISK or (any_reason and number):
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def writing(path, needed=0, reserve=False):
    """Says in one line what could not be written, why, and how much room it needs.

    Args:
        path: the file.
        needed: its bytes, where they are known.
        reserve: try first whether there is so much room. HDF5 needs this: on a disk that gets full
            it prints 100 lines, and may end the process.

    Raises:
        DiskError: the disk is full, or the place cannot be written.

    Example:

    >>> with writing(path, len(content)):
    ...     path.write_bytes(content)
    """
    path = Path(path)
    try:
        if reserve:
            _reserve(path, needed)
        yield
    except (OSError, RuntimeError) as error:  # HDF5 raises either
        reason = disk_reason(error, any_reason=True)
        if reason is None:
            raise
        room = f"; make room: it needs {needed / 1e6:.1f} MB, {_free(path) / 1e6:.1f} MB are free"
        full = bool(needed) and reason == os.strerror(errno.ENOSPC)
        raise DiskError(f"cannot write {path}: {reason}{room * full}") from error


@contextlib.contextmanager
def whole_folder(path, meanwhile=None):
    """A folder that gets its name when it is whole; what was not finished goes.

    Args:
        path: a new or empty folder.
        meanwhile: where it is made, on the same disk; beside it, if not given.

    Yields:
        The `Path` to write into.

    Raises:
        InputError: something is there already.
        DiskError: the disk is full, or the place cannot be written.

    Example:

    >>> with whole_folder("built") as building:
    ...     (building / "list.csv").write_text(text)
    """
    path = Path(path).resolve()  # a link to an empty folder is filled, and not replaced
    if os.path.ismount(path):
        raise InputError(f"{path} is where a disk is mounted: give a new folder in it")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already: give a new folder, nothing is overwritten")
    building = Path(meanwhile or path.with_name(f".{path.name}-{os.getpid()}"))
    try:
        with writing(path):
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
            yield building
            if path.exists():
                path.rmdir()
            building.rename(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def room_of(variables):
    """The bytes that Keras's variables take in an HDF5 file.

    Args:
        variables: list of them.

    Example:

    >>> room_of(model.weights)
    """
    return sum(4 * math.prod(variable.shape) + 1024 for variable in variables)


def _reserve(path, needed):
    """Takes room and gives it back; a quota may leave less than the disk has."""
    if needed > _free(path):
        raise OSError(errno.ENOSPC, "")
    if not hasattr(os, "posix_fallocate"):
        return
    room = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(room, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, needed)
    except OSError as error:
        if error.errno in _DISK:  # others: this file system cannot do it
            raise
    finally:
        room.unlink(missing_ok=True)


def _free(path):
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:  # the write says what is wrong
        return math.inf


def read_json(path, kind=dict):
    """Reads JSON that a person may have edited or a disk have cut.

    Args:
        path: the file.
        kind: dict or list, what it has to hold.

    Raises:
        InputError: it cannot be read, is no JSON or holds something else.

    Example:

    >>> read_json("runs/mine/options.json")["seed"]
    """
    try:
        value = json.loads(Path(path).read_bytes().decode("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: it is not valid JSON ({error})") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise InputError(f"{path} cannot be read: it does not hold {wanted}")
    return value


def write_json_atomic(path, value):
    """Writes JSON so that the file is there complete or not at all.

    Args:
        path: file to write.
        value: dictionary or list; NumPy numbers and arrays become plain ones, and what is not
            finite becomes null, for JSON has no such number.

    Example:

    >>> write_json_atomic("runs/mine/metrics.json", metrics)
    """
    write_text_atomic(path, json.dumps(_plain(value), indent=2, allow_nan=False) + "\n")


def write_text_atomic(path, text):
    """Writes text so that the file is there complete or not at all.

    Args:
        path: file to write; its folder is made if missing.
        text: str; see `harmless`.

    Example:

    >>> write_text_atomic("runs/mine/notes.md", "One line.")
    """
    write_bytes_atomic(path, harmless(text).encode("utf-8"))


def write_csv_atomic(path, rows):
    """Writes a table so that the file is there complete or not at all.

    Args:
        path: file to write; its folder is made if missing.
        rows: lists of cells, the first of them the header; None is an empty cell.

    Example:

    >>> write_csv_atomic("rejected.csv", [["path", "reason"], ["a.png", "not an image"]])
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text_atomic(path, text.getvalue())


def write_bytes_atomic(path, content, sync=False):
    """Writes bytes so that the file is there complete or not at all.

    Args:
        path: file to write; its folder is made if missing.
        content: bytes.
        sync: return when it is on the disk, for what must outlive a loss of power.

    Raises:
        DiskError: the disk is full, or the place cannot be written.

    Example:

    >>> write_bytes_atomic("weights/mine.weights.h5", content)
    """
    path = Path(path)
    # Machines that share a folder may have processes of one number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{secrets.randbelow(10**9):09}.tmp")
    with writing(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            if sync:
                sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def sync_folder(folder):
    """Makes names in a folder last."""
    with contextlib.suppress(OSError):  # Windows has no descriptor of a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

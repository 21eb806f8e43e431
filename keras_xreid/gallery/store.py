"""The files of a gallery on disk: their names, the header that commits them, and the lock."""

import contextlib
import errno
import json
import os

import numpy as np

from keras_xreid import files
from keras_xreid.errors import InputError

HEADER, LOCK, VERSION = "gallery.json", ".lock", 1
EMBEDDINGS, ROWS, KEYS, REMOVED = "embeddings.f32", "rows.bin", "keys.txt", "removed.u64"
NORMS, CODES, SCALES = "norms.f32", "codes.i8", "scales.f32"
ROW = np.dtype([
    ("hash", "<u8"), ("time", "<f8"), ("key_end", "<u8"), ("camera", "<i4"), ("rate", "<f4"),
    ("crc", "<u4"), ("sha256", "u1", 32),
])  # fmt: skip


def sizes_of(header):
    """The bytes that each file has, of what is committed."""
    n, model = header["rows"], header["model"]
    width = model["lengths"][-1]
    return {
        EMBEDDINGS: 4 * width * n, ROWS: ROW.itemsize * n, KEYS: header["key_bytes"],
        NORMS: 4 * len(model["lengths"]) * n, CODES: width * n, SCALES: 4 * n,
        REMOVED: 8 * header["removed"],
    }  # fmt: skip


def file_of(path, name, header):
    """Where a file lies: under another name after each `compact`."""
    generation = header["generation"]
    return path / (f"{generation}-{name}" if generation else name)


def clear(path, header):
    """Removes the files of other generations: compacted away, or of a writer that was killed."""
    names = sizes_of(header)
    own = {file_of(path, name, header) for name in names}
    for other in path.iterdir():
        generation, _, name = other.name.rpartition("-")
        if name in names and other not in own and (generation.isdecimal() or not generation):
            with contextlib.suppress(OSError):  # Windows keeps what a reader has open
                other.unlink()


def header_of(path):
    """A gallery's header, whose fields are what they have to be."""
    if not (path / HEADER).is_file():
        raise InputError(f"no gallery at {path}: make one with xreid gallery add")
    header = {"generation": 0, **files.read_json(path / HEADER)}
    check_header(path, header)
    return header


def check_header(path, header):
    try:
        if header["version"] != VERSION:
            raise InputError(
                f"{path} is a gallery of version {header['version']}; this keras_xreid reads "
                f"{VERSION}: update it"
            )
        model = header["model"]
        whole = [header[name] for name in ("rows", "key_bytes", "removed", "generation")]
        numbers = [camera["number"] for camera in header["cameras"].values()]
        right = all(type(n) is int and n >= 0 for n in (*whole, *model["lengths"], *numbers))
        right &= model["kind"] in ("cosine", "euclidean", "squared")
        right &= len(model["rates"]) == (0 if len(model["lengths"]) == 1 else len(model["lengths"]))
        right &= list(model["lengths"]) == sorted(model["lengths"]) and model["lengths"][-1] > 0
        right &= header["removed"] <= header["rows"] and type(header["int8"]) is bool
        right &= sorted(numbers) == list(range(len(numbers)))
        right &= all("statistics" in camera for camera in header["cameras"].values())
        right &= all(type(rate) in (int, float) for rate in model["rates"])
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path / HEADER} is damaged ({error}): restore it") from error
    if not right:
        raise InputError(f"{path / HEADER} is damaged: its numbers do not fit: restore it")


def refuse_full(path):
    """Refuses a folder with files, but those of a process that was killed as it began."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a new folder")
    if path.is_dir() and any(p.name != LOCK and p.suffix != ".tmp" for p in path.iterdir()):
        raise InputError(f"{path} is there already: open it, or give a new folder")


def commit(path, header):
    """Replaces the header, on the disk when this returns."""
    content = json.dumps(header, indent=1).encode()
    files.write_bytes_atomic(path / HEADER, content, sync=True)


def mapped(path, kind, shape):
    """The committed part of a file, read as it is needed."""
    if 0 in shape:
        return np.empty(shape, kind)
    try:
        return np.memmap(path, kind, "r", shape=shape).view(np.ndarray)
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}): restore it") from error


def locked(path):
    """Locks a gallery for this process; the system takes the lock away when it ends, however."""
    with files.writing(path / LOCK):
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            import msvcrt

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        os.close(lock)
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # some disks have no locks
            raise InputError(f"cannot lock {path}: {error.strerror}") from error
        raise InputError(
            f"{path} is being written by another process, or open here already: wait, or close it"
        ) from None
    return lock


def unlocked(lock):
    """Lets a lock go, also where a process that was forked meanwhile still holds its file."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)

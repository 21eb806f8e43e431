"""Decoded images: each is decoded once, into a file that later runs and all workers map.

The file lies in `keras_xreid/decoded` in the Keras home directory (`KERAS_HOME`, else `~/.keras`)
and is named by the content of the images, so that a changed image gives a new file and equal images
share one. It takes three bytes a pixel: 0.2 GB for 7,500 images of 128x64. Nothing is deleted by
itself; the folder may be deleted at any time, and is built again when it is wanted.
"""

import collections.abc
import contextlib
import dataclasses
import hashlib
import logging
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import PIL

from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.records import OtherImage, check_sha256
from keras_xreid.progress import Progress

# Smaller sets take longer to look up than to decode (0.1 ms an image), and would litter the folder.
STORE_FROM = 200
# Where nothing can be stored, images stay in memory up to this many bytes.
MEMORY_BYTES = 2 * 1024**3
# The last bytes of a whole file, after the key. Raise the number when the layout changes, or what
# is read of an image.
END = b"keras_xreid 0002"


def decode(records):
    """Decodes images, or finds them decoded.

    200 images and more are kept in a file, see above. Fewer stay in memory; so do all, after a
    warning, where the file cannot be written or an image changes meanwhile.

    Args:
        records: list of `Record`; their images may differ in size.

    Returns:
        Sequence of (h, w, 3) uint8 arrays, RGB and read-only. It is shorter than `records` where
        memory was to be used, and did not hold all: the rest is read from `records` every time.

    Raises:
        InputError: an image is missing or broken.

    Example:

    >>> images = decode(data.train)
    >>> (images[0] == data.train[0].read()).all()
    True
    """
    if len(records) < STORE_FROM:
        return _in_memory(records)
    key, hashes = _content(records)
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / "keras_xreid" / "decoded" / key.hex()
    images = open_store(path, key, len(records))
    if images is None:
        reason = None
        try:
            _write(path, key, records, hashes)
        except OSError as error:
            reason = error.strerror or error
        except OtherImage:
            reason = "an image was changed while they were read"
        if reason:
            logging.getLogger("keras_xreid").warning(
                f"cannot keep decoded images in {path.parent} ({reason}): "
                "they stay in memory, and are decoded again in the next run"
            )
        images = open_store(path, key, len(records))
    return _in_memory(records) if images is None else images


class DecodedImages(collections.abc.Sequence):
    """The images of one file, see `open_store`; a pickle of it holds the file's path only.

    Args:
        origin: arguments of `open_store`.
        content: the mapped file.
        sizes: (n, 2) int64, height and width of each image.
    """

    def __init__(self, origin, content, sizes):
        self._origin, self._content, self._sizes = origin, content, sizes
        self._starts = np.concatenate([[0], 3 * np.cumsum(sizes.prod(1))])

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, position):
        height, width = self._sizes[position]
        pixels = np.frombuffer(self._content, np.uint8, 3 * height * width, self._starts[position])
        return pixels.reshape(height, width, 3)

    def __reduce__(self):
        return open_store, self._origin


def open_store(path, key, count):
    """Maps a file of decoded images.

    Args:
        path: the file.
        key: its 32 bytes of SHA-256.
        count: number of images.

    Returns:
        `DecodedImages`, or None where there is no such file or it is not whole.
    """
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    end = key + END
    start = len(content) - len(end) - 8 * count
    if start < 0 or content[-len(end) :] != end:
        return None
    sizes = np.frombuffer(content, "<i4", 2 * count, start).reshape(count, 2).astype(np.int64)
    if (sizes < 1).any() or 3 * sizes.prod(1).sum() != start:
        return None
    return DecodedImages((path, key, count), content, sizes)


def _content(records):
    """SHA-256 over the content of the files, in order, and whatever else the pixels depend on.

    Returns:
        (its 32 bytes, a dict from each file's path to the SHA-256 of its content).
    """
    files = {}
    key = hashlib.sha256(f"{END} Pillow {PIL.__version__}".encode())
    for record in records:
        if record.path not in files:  # a container holds many images
            files[record.path] = file_sha256(record.path)
        check_sha256(record, files[record.path])
        shrunk = "" if record.kernel is None else f" {record.rate} {record.kernel}"
        key.update(f"{files[record.path]} {record.key}{shrunk}\n".encode())
    return key.digest(), files


def _write(path, key, records, hashes):
    """Writes pixels, sizes, key and END; the file gets its name when it is whole.

    What is decoded must still be what the key was made of, or the file would be wrong for good.
    """
    listed = [dataclasses.replace(record, sha256=hashes[record.path]) for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written, not mapped: a full disk is then an error, and not the end of the process.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            sizes = []
            for image in _with_progress(listed):
                file.write(image.tobytes())
                sizes.append(image.shape[:2])
            for record in {r.path: r for r in listed if r.key is not None}.values():
                check_sha256(record, file_sha256(record.path))  # a container, which `read` does not
            file.write(np.array(sizes, "<i4").tobytes() + key + END)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(file.name, path)
        finally:
            file.close()
            with contextlib.suppress(OSError):
                os.unlink(file.name)


def _in_memory(records):
    images, size = [], 0
    for image in _with_progress(records):
        image.flags.writeable = False
        images.append(image)
        size += image.nbytes
        if size > MEMORY_BYTES:
            break
    return images


def _with_progress(records):
    """Reads the images, and shows progress where that takes more than two seconds."""
    progress = Progress(f"Decoding {len(records):,} images, once", len(records), after=2)
    for record in records:
        yield record.read()
        progress.add()

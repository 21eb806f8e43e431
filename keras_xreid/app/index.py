"""Images of one's own, and their embeddings: each is computed once, and kept by content."""

import collections
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import time
import zipfile
import zlib
from mimetypes import guess_type
from pathlib import Path

import numpy as np
import PIL

import keras_xreid as xr
from keras_xreid import files
from keras_xreid.app import later
from keras_xreid.data.datasets import IMAGE_SUFFIXES
from keras_xreid.data.images import read_image
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.readers import mot
from keras_xreid.progress import Progress

keras = later("keras")

AT_A_TIME = 256  # images; what is done of them is kept
CAMERA = re.compile(r"(?:^|_)c(\d+)(?:s\d+)?(?:_|$)")  # in the name of a file
BOX = re.compile(r"(.+)#xywh=(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})")
SETTLED = 2_000_000_000  # nanoseconds: file systems' clocks tick every 2 s at the slowest


def own_images(place):
    """The images of a folder and its folders, or of a CSV.

    Args:
        place: a folder of images; a folder that has a folder for each person, who is named by it;
            or a CSV file with a column `path`, and `person` and `camera` if known. Its paths are
            relative to the CSV's own folder.

    Returns:
        List of `Record`, by path. The person is None where nothing names them.

    Raises:
        InputError: nothing is there, no image is, or a sequence is, whose people are in boxes.
    """
    place = Path(place)
    if place.suffix.lower() == ".csv":
        return _listed_images(place)
    if not place.is_dir():
        raise xr.InputError(f"no images at {place}: give a folder of images, or a CSV")
    if mot.boxes_of(place):
        raise xr.InputError(
            f"{place} is a sequence with boxes: xreid embed cuts people out of it, or give its "
            "folder of frames to take them whole"
        )
    there = [p for p in _files_in(place) if not p.name.startswith(".") and p.is_file()]
    paths = sorted(path for path in there if path.suffix.lower() in IMAGE_SUFFIXES)
    others = [p for p in set(there).difference(paths) if "image/" in str(guess_type(p.name)[0])]
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
        print(f"Left out: {len(others):,} images of a kind that is not read ({kinds})")
    if not paths:
        raise xr.InputError(
            f"no images in {place}, nor in its folders: they end in "
            + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    by_person = all(len(path.relative_to(place).parts) > 1 for path in paths)
    return [
        xr.Record(str(path), path.relative_to(place).parts[0] if by_person else None, 0)
        for path in paths
    ]


def _files_in(place):
    """All files below a folder, through links, each folder once; hidden folders are left out."""
    seen = set()

    def refuse(error):  # os.walk would go on without the folder
        raise xr.InputError(
            f"cannot read {error.filename} ({error.strerror}): its images would be left out"
        )

    for folder, folders, names in os.walk(place, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        yield from () if real in seen else (Path(folder) / name for name in names)
        seen.add(real)


def _listed_images(place):
    try:
        with open(place, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise xr.InputError(f"cannot read {place}: {error}") from error
    if not rows or "path" not in rows[0][1]:
        found = ", ".join(filter(None, rows[0][1])) if rows else "nothing"
        raise xr.InputError(f"{place} has {found}: give a column path, and an image a line")
    empty = [line for line, row in rows if not (row["path"] or "").strip()]
    if empty:
        raise xr.InputError(
            f"{place}, line {empty[0]}: path is empty: fill it in, or remove the line"
        )
    records = [
        xr.Record(
            str(place.parent / row["path"]), row.get("person") or None, row.get("camera") or 0
        )
        for _, row in rows
    ]
    twice = [
        path for path, count in collections.Counter(r.path for r in records).items() if count > 1
    ]
    if twice:
        raise xr.InputError(f"{place} lists {twice[0]} more than once: keep one row")
    missing = [record.path for record in records if not Path(record.path).is_file()]
    if missing:
        raise xr.InputError(
            f"{place} names {missing[0]}, which is not there: write paths "
            "from the folder of the CSV"
        )
    return records


def image_of(name, sha256=None):
    """The pixels of an image of a gallery, by its name.

    Args:
        name: a path, perhaps with a place in it, as `xreid embed` calls people in a frame:
            `000001.jpg#xywh=10,20,40,80`.
        sha256: of the file when it was embedded; None or 64 zeros where it is not known.

    Returns:
        (h, w, 3) uint8 array.

    Raises:
        InputError: it lies there no more, is another file now, or cannot be read.
    """
    found = None if os.path.isfile(name) else BOX.fullmatch(name)
    pixels, content = read_image(found[1] if found else name)
    if sha256 not in (None, "0" * 64, hashlib.sha256(content).hexdigest()):
        raise xr.InputError(f"{name} is another file than the one that was embedded")
    if not found:
        return pixels
    box = mot.Box(0, 0, *map(int, found.groups()[1:]))
    if not mot.lies_in(box, pixels.shape[:2]):
        raise xr.InputError(f"{name} reaches out of its image")
    return mot.cut(pixels, box)


def cameras_of(records, camera=None, place=""):
    """The camera of each image of one's own.

    It is what a CSV says, or a number in the file's name, as `_c3` in Market-1501's; or else the
    folder in which the image lies, where the images are in folders.

    Args:
        records: list of `Record`, of `own_images`.
        camera: the camera of all, where it is known.
        place: where they are from; a person of a CSV is no camera, whatever the folders are called.

    Returns:
        List of str.

    Raises:
        InputError: nothing says an image's camera.
    """
    found, in_folders = [], Path(place).suffix.lower() != ".csv"
    for record in records:
        named = CAMERA.search(Path(record.path).stem)
        is_folder = in_folders and record.person in Path(record.path).parent.parts
        folder = record.person if is_folder else None
        told = camera or record.camera or (named and named[1]) or folder
        if not told:
            raise xr.InputError(
                f"nothing says which camera took {record.path}: give a CSV with a column camera, a "
                "folder for each camera, names such as 0001_c3.jpg, or --camera NAME"
            )
        found.append(str(told))
    return found


def cache_folder(cache, weights_sha256, model, rate=1, statistics=""):
    """Where embeddings lie that depend on the same as ours, the image aside."""
    height, width = model.image_size
    depends_on = (
        f"weights {weights_sha256} size {height}x{width} keras_xreid {xr.__version__} "
        f"Pillow {PIL.__version__} backend {keras.backend.backend()}"
    )
    if rate != 1:
        depends_on += f" rate {rate}"
    if statistics:
        depends_on += f" statistics {statistics}"
    key = hashlib.sha256(depends_on.encode()).hexdigest()
    return Path(cache).expanduser() / "embeddings" / key[:32]


class NothingReadable(xr.InputError):
    """No image can be read; `unreadable` says why of each."""

    def __init__(self, message, unreadable):
        super().__init__(message)
        self.unreadable = unreadable


def embed_by_camera(model, records, cameras, adapted, cache, weights_sha256, rate=1):
    """As `embed_once`, with statistics of each image's camera; changed ones embed it anew.

    Args:
        model: the model.
        records: list of `Record`.
        cameras: the camera of each, as text.
        adapted: a `CameraStatistics`.
        cache: folder that keeps the embeddings.
        weights_sha256: of the model's file.
        rate: down-sampling rate of the images.

    Returns:
        What `embed_once` returns.
    """
    places, unreadable = {record.path: i for i, record in enumerate(records)}, {}
    found = []
    for camera in sorted(set(cameras)):
        own = [r for r, name in zip(records, cameras, strict=True) if name == camera]
        statistics = adapted.hash_of(camera)
        folder = cache_folder(cache, weights_sha256, model, rate, statistics)
        print(f"Camera {camera}: ", end="")
        options = {"cameras": camera, "adapted": adapted}
        try:
            *parts, wrong = embed_once(model, own, folder, rate, **options)
        except NothingReadable as error:  # of this camera
            unreadable |= error.unreadable
            continue
        found += zip(*parts, strict=True)
        unreadable |= wrong
    if not found:
        raise xr.InputError("no image of any camera can be read")
    found.sort(key=lambda row: places[row[0].path])
    records, hashes, features = zip(*found, strict=True)
    return list(records), list(hashes), np.stack(features), unreadable


def embed_once(model, records, folder, rate=1, **options):
    """Embeds images, or finds them embedded.

    Args:
        model: the model.
        records: list of `Record`.
        folder: where embeddings are kept, by the SHA-256 of their image.
        rate: down-sampling rate of the images, as `embed` takes it.
        **options: more that `embed` takes, and that `folder` is named by.

    Returns:
        The records that could be read; the SHA-256 of each one's file; an (n, d) float32 array;
        and a dictionary from the paths of all others to what is wrong with them.

    Raises:
        InputError: none can be read, or one changed meanwhile.
    """
    unreadable = {}
    hashes = hashes_of([record.path for record in records], folder, unreadable)
    row_of = {sha256: row for row, sha256 in enumerate(dict.fromkeys(hashes.values()))}
    embedded, known = read_kept(folder, row_of)
    new = {}  # equal images are embedded once
    for path, sha256 in hashes.items():
        if not known[row_of[sha256]]:
            new.setdefault(sha256, path)
    print(f"{len(records):,} images, {len(new):,} to embed")
    progress = Progress(f"Embedding {len(new):,} images", len(new), show=bool(new))
    kept, todo = True, list(new.items())
    for start in range(0, len(todo), AT_A_TIME):
        part, images = todo[start : start + AT_A_TIME], {}
        for sha256, path in part:
            with noting(unreadable, path):
                record = xr.Record(path, None, 0)
                images[sha256] = xr.prepare_images([record], model.image_size)[0]
        if images:
            pixels = np.stack(list(images.values()))
            features = np.asarray(model.embed(pixels, rates=rate, **options))
            check_finite(features, [new[sha256] for sha256 in images])
            for sha256 in images:
                if file_sha256(new[sha256]) != sha256:
                    raise xr.InputError(f"{new[sha256]} changed while it was read: start again")
            rows = [row_of[sha256] for sha256 in images]
            if embedded is None:
                embedded = np.empty((len(row_of), features.shape[1]), "float32")
            if features.shape[1:] != embedded.shape[1:]:
                raise xr.InputError(f"kept embeddings are not of these weights: remove {folder}")
            embedded[rows], known[rows] = features, True
            kept = kept and keep(folder, list(images), features)
        progress.add(len(part))
    for path, sha256 in hashes.items():  # a copy of what could not be read cannot be read either
        if not known[row_of[sha256]]:
            unreadable.setdefault(path, unreadable[new[sha256]].replace(new[sha256], path))
    for reason in unreadable.values():
        print(f"Left out: {files.harmless(reason, name=True)}")
    readable = [record for record in records if record.path not in unreadable]
    if not readable:
        raise NothingReadable(f"no image can be read, such as this one: {reason}", unreadable)
    hashes = [hashes[record.path] for record in readable]
    rows = [row_of[sha256] for sha256 in hashes]
    if rows != list(range(len(embedded))):  # or else it is not copied
        embedded = embedded[rows]
    return readable, hashes, embedded, unreadable


def hashes_of(paths, folder, unreadable):
    """SHA-256 of images; a file whose size and times are those of an earlier search is not read.

    A file that was just written may be written again in the same tick of its clock: its hash is
    not kept.
    """
    table, kept, fresh, hashes = folder / "hashes.json", {}, {}, {}
    here, settled = os.getcwd(), time.time_ns() - SETTLED
    if table.exists():
        with contextlib.suppress(xr.InputError):
            kept = files.read_json(table)
    for path in paths:
        name, state = os.path.join(here, path), None
        with contextlib.suppress(OSError):  # reading the file says what is wrong
            stat = os.stat(path)
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        row = kept.get(name)
        if isinstance(row, list) and row[:-1] == state:
            hashes[path] = str(row[-1])
            continue
        with noting(unreadable, path):
            hashes[path] = file_sha256(path)
            if state and max(state[1:]) < settled:
                fresh[name] = [*state, hashes[path]]
    if fresh:
        with contextlib.suppress(xr.InputError):  # the cache says itself that it cannot be written
            files.write_text_atomic(table, json.dumps(kept | fresh))
    return hashes


def check_finite(features, paths):
    """Refuses embeddings that rank nothing."""
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise xr.InputError(
            f"the weights turn {paths[wrong[0]]} into numbers that are not finite (NaN): they are "
            "damaged, take others"
        )


@contextlib.contextmanager
def noting(unreadable, path):
    """Notes what is wrong with an image, and goes on."""
    try:
        yield
    except xr.InputError as error:
        unreadable[path] = str(error)


def read_kept(folder, row_of):
    """Reads kept embeddings, file by file, into one array; a broken file holds none.

    Args:
        folder: where they are kept.
        row_of: dict from an image's SHA-256 to its row.

    Returns:
        (n, d) float32 array, or None where nothing is kept, and (n,) bool: which rows are filled.
    """
    embedded, known, width = None, np.zeros(len(row_of), bool), None
    broken = (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
    for path in sorted(folder.glob("*.npz")):
        with contextlib.suppress(*broken), np.load(path) as kept:
            features = kept["features"]
            width = width or features.shape[1:]
            if features.shape[1:] != width or not np.isfinite(features).all():
                print(f"{path} is damaged: its images are embedded anew")
                continue
            images = kept["images"].tolist()
            found = [i for i, sha256 in enumerate(images) if sha256 in row_of]
            rows = [row_of[images[i]] for i in found]
            if embedded is None:
                embedded = np.empty((len(row_of), *width), "float32")
            embedded[rows], known[rows] = features[found], True
    return embedded, known


def keep(folder, hashes, features):
    """Keeps embeddings in a file of their own; says so, once, where that cannot be done."""
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
    content = io.BytesIO()
    np.savez(content, images=np.array(hashes), features=features)
    try:
        files.write_bytes_atomic(folder / f"{name}.npz", content.getvalue())
    except files.DiskError as error:
        print(f"\nEmbeddings cannot be kept in {folder} ({error}): going on without")
        return False
    return True

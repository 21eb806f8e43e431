"""Bulk embedding into Parquet parts: stopped and gone on, shared among machines."""

import contextlib
import hashlib
import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

import keras_xreid as xr
from keras_xreid import files
from keras_xreid.app.index import SETTLED, check_finite, noting
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.readers import mot
from keras_xreid.gallery import about_model
from keras_xreid.gallery.parquet import PLAN, arrow, part_of
from keras_xreid.progress import Progress

PART = 4096  # images a file
AT_A_TIME = 256  # images a call of the network; the next ones are decoded meanwhile
REJECTED = "rejected.csv"
BOX = ("frame", "left", "top", "width", "height")  # pixels, the first of which are 0


class Row(NamedTuple):
    """An image, not yet read: what a part says of it."""

    path: str
    """What it is called; of a box in a frame, the file and where in it."""
    file: str
    person: str | None
    camera: str
    time: float | None
    box: mot.Box | None = None


class Images:
    """Images that are files of their own.

    Args:
        records: list of `Record`.
        times: dict from a path to seconds.
    """

    threads = min(4, os.cpu_count() or 1)

    def __init__(self, records, times):
        self.rows = [
            Row(r.path, r.path, None if r.person is None else str(r.person), str(r.camera or ""),
                times.get(r.path))
            for r in records
        ]  # fmt: skip

    def read(self, row, size):
        """The pixels at a size, and the SHA-256 of the file."""
        # Hashed first: what is rewritten meanwhile differs from its hash, and is made anew.
        record, sha256 = xr.Record(row.file, None, 0), file_sha256(row.file)
        return xr.prepare_images([record], size)[0], sha256


class Boxes:
    """People in the frames of a sequence in MOT's format, cut out as they are asked for.

    The camera is the folder's name, and the person a number of the sequence. Boxes are known by
    their frame's file and their place: `000001.jpg#xywh=10,20,40,80`, `walk.mp4#frame=1&xywh=...`.
    Of people with one box in one frame the first is taken: a gallery takes a name once.

    Args:
        folder: as of `cut_people`.
    """

    threads = 1  # a frame is decoded once, and a video from its beginning to its end

    def __init__(self, folder):
        self.frames, boxes = mot.Frames(Path(folder)), sorted(mot.read_boxes(Path(folder)))
        rate, camera = self.frames.per_second(), Path(folder).resolve().name
        rows = [
            Row(self._name(box), str(self._file(box)), str(box.person), camera,
                None if rate is None else (box.frame - 1) / rate, box)
            for box in boxes
        ]  # fmt: skip
        first = {}
        for row in rows:
            first.setdefault(row.path, row)
        self.rows = list(first.values())
        if count := len(rows) - len(first):
            print(f"Left out: {count:,} boxes that another person of their frame has, too")
        self._frame = self._sha256 = (None, None)
        self._stream = None

    def _file(self, box):
        # One that is not there is said when it is read.
        images = self.frames.images
        return images.get(box.frame, "") if images else self.frames.video

    def _name(self, box):
        frame = "" if self.frames.images else f"frame={box.frame}&"
        place = f"xywh={box.left},{box.top},{box.width},{box.height}"
        return f"{self._file(box) or f'frame {box.frame}'}#{frame}{place}"

    def begin(self, rows):
        """Says which rows will be read, in their order: of a video no other frames are kept."""
        self._wanted = sorted({row.box.frame for row in rows})

    def read(self, row, size):
        pixels, box = self._pixels(row.box.frame), row.box
        if not mot.lies_in(box, pixels.shape[:2]):
            raise xr.InputError(f"{row.path} is not read: the box reaches out of its frame")
        if self._sha256[0] != row.file:
            self._sha256 = row.file, file_sha256(row.file)
        return xr.prepare_images([mot.cut(pixels, box)], size)[0], self._sha256[1]

    def _pixels(self, number):
        if self._frame[0] == number:
            return self._frame[1]
        if self.frames.images:
            self._frame = next(self.frames.read([number]))
            return self._frame[1]
        if self._stream is None:
            self._stream = self.frames.read(self._wanted)
        for frame in self._stream:
            if frame[0] == number:
                self._frame = frame
                return frame[1]
        raise xr.InputError(f"{self.frames.video} has no frame {number} that can be read")


def embed_in_parts(source, out, model, rate, shard=(0, 1), part=PART, *, engine=None):
    """Embeds images into Parquet files, each of which appears only when it is whole.

    A part that is there is made again only where a file of it has changed since. An image that
    cannot be read is a row of rejected.csv.

    Args:
        source: `Images` or `Boxes`.
        out: folder; of an earlier run of the same images and model it is gone on with.
        model: the model.
        rate: down-sampling rate of the images.
        shard: (i, n): this process makes the parts i, i + n, i + 2 n, ...
        part: images a file.
        engine: makes the parts elsewhere, as `on_ray.made`; this process does, if not given.

    Returns:
        (images embedded now, images rejected in all parts that are there).

    Raises:
        InputError: the folder holds other parts, or pyarrow is missing.
    """
    pa, out, rows = arrow(), Path(out), source.rows
    about = about_model(model)
    digest = hashlib.sha256(json.dumps(rows).encode())
    plan = {"images": len(rows), "list": digest.hexdigest(), "part": part, "rate": rate,
            "model": about}  # fmt: skip
    _begin(out, plan)
    parts = [rows[start : start + part] for start in range(0, len(rows), part)]
    mine = [number for number in range(len(parts)) if number % shard[1] == shard[0]]
    todo = []
    for number in mine:
        path = part_of(out, number)
        changed = path.exists() and _changed(pa, path, parts[number])
        if changed:
            print(f"{path.name} is made anew: {changed:,} of its images have changed")
        if changed or not path.exists():
            todo.append(number)
    count = sum(len(parts[number]) for number in todo)
    print(f"{len(rows):,} images in {len(parts):,} parts, {len(mine):,} of them here, "
          f"{count:,} images to embed")  # fmt: skip
    if hasattr(source, "begin"):
        source.begin([row for number in todo for row in parts[number]])
    progress, began = Progress(f"Embedding {count:,} images", count, show=bool(todo)), time.time()
    work = [(part_of(out, number), parts[number]) for number in todo]
    if engine is None:
        fast = model.for_inference() if work else model
        for path, some in work:
            make_part(source, path, some, fast, rate, about, progress.add)
    elif work:
        for images in engine(source, work, rate, about):
            progress.add(images)
    rejected = _collect(pa, out)
    if count:
        seconds = time.time() - began
        print(f"{count / seconds:.1f} images/s")
    return count, rejected


def make_part(source, path, rows, model, rate, about, add=lambda images: None):
    """Embeds the images of one part, and writes it whole.

    Args:
        source: `Images` or `Boxes`.
        path: the part's file.
        rows: list of `Row`.
        model: the model.
        rate: down-sampling rate of the images.
        about: what `about_model` says of the model.
        add: called with the number of images that were embedded since it was called last.
    """
    pa, content = arrow(), io.BytesIO()
    with ThreadPoolExecutor(source.threads) as pool:
        table = _part(pa, source, rows, model, rate, about, pool, add)
    pa.parquet.write_table(table, content, compression="zstd")
    files.write_bytes_atomic(path, content.getbuffer(), sync=True)


def _begin(out, plan):
    if out.exists() and not out.is_dir():
        raise xr.InputError(f"{out} is a file: give a folder, or a name ending in .npz")
    # Other shards may begin at the same time: files with a dot are theirs, not yet whole.
    full = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if not (out / PLAN).is_file():
        if full:
            raise xr.InputError(f"{out} holds other files: give another --out")
        files.write_json_atomic(out / PLAN, plan)
    begun = files.read_json(out / PLAN)
    other = [name for name in plan if begun.get(name) != plan[name]]
    if other:
        both = f"{begun.get(other[0])} then, {plan[other[0]]} now"
        told = {
            "images": f"another number of images ({both})",
            "list": "other names, people, cameras or times of its images",
            "part": f"another number of images a part ({both})",
            "rate": f"another rate ({both})",
            "model": "another model",
        }
        raise xr.InputError(f"{out} was begun with {told[other[0]]}: give another --out")


def _changed(pa, path, rows):
    """How many images of a part are other files than those that it was made of."""
    with _damaged(pa, path):
        names = ["path", "bytes", "modified", "sha256"]
        table = pa.parquet.read_table(path, columns=names)
        columns = [table[name].to_pylist() for name in names]
        known = {name: told for name, *told in zip(*columns, strict=True)}
        told = json.loads(table.schema.metadata[b"rejected"])
        known |= {name: state for name, (_, *state) in told.items()}
    found = {}  # of a file, which may hold many images

    def is_new(row):
        size, modified, sha256 = known.get(row.path, (None, None, None))
        if (row.file, sha256) not in found:
            now = _state(row.file)
            same = now == [size, modified] and modified is not None
            found[row.file, sha256] = not same and sha256_of(row.file) != sha256
        return found[row.file, sha256]

    return sum(map(is_new, rows))


def _state(path):
    """Size and time of modification; no time of a file that was just written, and may be again."""
    try:
        found = os.stat(path)
    except OSError:
        return [None, None]
    settled = found.st_mtime_ns < time.time_ns() - SETTLED
    return [found.st_size, found.st_mtime_ns if settled else None]


def sha256_of(path):
    """SHA-256 of a file; None where it cannot be read."""
    try:
        return file_sha256(path)
    except xr.InputError:
        return None


def _read(source, rows, size, rejected):
    """Decodes images: their rows, pixels, SHA-256, and states of their files before."""
    found, unreadable = [], {}
    for row in rows:
        state = _state(row.file)
        with noting(unreadable, row.path):
            if not _is_text(row.path):
                raise xr.InputError(f"{row.path}: the name is not UTF-8, rename the file")
            found.append((row, *source.read(row, size), state))
        if row.path in unreadable:
            rejected[row.path] = [unreadable[row.path], *state, sha256_of(row.file)]
    return found


def _is_text(path):
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _part(pa, source, rows, model, rate, about, pool, add):
    rejected, told, features = {}, [], []
    slices = [rows[i : i + AT_A_TIME] for i in range(0, len(rows), AT_A_TIME)]

    def begin(one):
        return pool.submit(_read, source, one, model.image_size, rejected)

    waiting = [begin(one) for one in slices[:2]]
    for number, one in enumerate(slices):
        read = waiting.pop(0).result()
        if number + 2 < len(slices):  # decoded while the network runs
            waiting.append(begin(slices[number + 2]))
        if read:
            found = np.asarray(model.embed(np.stack([pixels for _, pixels, *_ in read]), rate))
            check_finite(found, [row.path for row, *_ in read])
            features.append(found)
            told += [(row, sha256, *state) for row, _, sha256, state in read]
        add(len(one))
    width = about["dimension"]
    flat = np.concatenate([*features, np.zeros((0, width), "float32")]).ravel()
    rows, sha256, size, modified = zip(*told, strict=True) if told else ((),) * 4
    place = pa.struct([(name, pa.int32()) for name in BOX])
    boxes = [
        None if row.box is None else {name: getattr(row.box, name) for name in BOX} for row in rows
    ]
    columns = {
        "path": pa.array([row.path for row in rows], pa.string()),
        "sha256": pa.array(sha256, pa.string()),
        "bytes": pa.array(size, pa.int64()),
        "modified": pa.array(modified, pa.int64()),
        "person": pa.array([row.person for row in rows], pa.string()),
        "camera": pa.array([row.camera for row in rows], pa.string()),
        "time": pa.array([row.time for row in rows], pa.float64()),
        "rate": pa.array([float(rate)] * len(rows), pa.float32()),
        "box": pa.array(boxes, place),
        "model": pa.array([about["weights_sha256"]] * len(rows), pa.string()).dictionary_encode(),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(flat), width),
    }
    metadata = {"model": json.dumps(about), "rejected": json.dumps(rejected)}
    return pa.table(columns, metadata=metadata)


@contextlib.contextmanager
def _damaged(pa, path):
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise xr.InputError(f"{path} is damaged ({error}): remove it, and embed again") from error


def _collect(pa, out):
    """Writes rejected.csv of all parts that are there."""
    rejected = {}
    for path in sorted(out.glob("part-*.parquet")):
        with _damaged(pa, path):
            told = json.loads(pa.parquet.read_schema(path).metadata[b"rejected"])
            rejected |= {name: reason for name, (reason, *_) in told.items()}
    files.write_csv_atomic(out / REJECTED, [("path", "reason"), *rejected.items()])
    return len(rejected)

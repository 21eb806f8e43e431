"""The embedded gallery: float32 in a memory map, searched exactly, with no dependency."""

import hashlib
import os
import weakref
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_xreid import files
from keras_xreid.errors import InputError, check_number
from keras_xreid.gallery import store
from keras_xreid.gallery.metric import Metric, unit
from keras_xreid.gallery.nearest import BLOCK, Rows, codes_of, nearest
from keras_xreid.gallery.parquet import read_parts
from keras_xreid.gallery.store import CODES, EMBEDDINGS, KEYS, NORMS, REMOVED, ROW, ROWS, SCALES
from keras_xreid.gallery.told import (
    about_model,
    bytes_of,
    check_between,
    check_embeddings,
    check_model,
    names_of,
    new_cameras,
    texts_of,
    told_of,
)

TOLD = np.dtype([(name, ROW[name]) for name in ("time", "camera", "rate", "sha256")])
QUERIES = 256  # at a time


class Found(NamedTuple):
    """What a search found.

    Args:
        keys: a list for each query, the nearest first; shorter than k where fewer are allowed.
        distances: a (k,) float32 array for each query, as the model's `distances` measures.
    """

    keys: list
    distances: list


class Gallery:
    """Embeddings on disk, searched exactly, by camera and time if wanted.

    One process writes, any number read. What `add` and `remove` did is there when they return, and
    whole or not at all after a crash. A gallery holds embeddings of one model only.

    Example:

    >>> with Gallery.create("gallery", model) as gallery:
    ...     gallery.add(model.embed(images, rates=1), keys=paths, camera=cameras, time=seconds)
    >>> gallery = Gallery.open("gallery", model)
    >>> keys, distances = gallery.search(model.embed(queries, rates=4), rates=4, k=10,
    ...                                  only_cameras=["2"], between=(noon, None))
    """

    def __init__(self, path, header):
        self.path, self._lock = Path(path), None
        self._known = np.empty(0, "uint64")  # hashes of all keys, sorted, where it is written to
        self._header = header
        self._use(header)

    # --- opening -------------------------------------------------------------------------------

    @classmethod
    def create(cls, path, model, int8=False):
        """Makes an empty gallery, open to write.

        Args:
            path: a new or empty folder.
            model: a `ReIDModel`, or what `about_model` says of one.
            int8: search codes of 8 bits, a quarter of the bytes, and measure the best 1,000 anew
                in float32: nearly exact.

        Returns:
            A `Gallery`.

        Raises:
            InputError: the folder holds something.
        """
        path = Path(path)
        about = dict(model) if isinstance(model, dict) else about_model(model)
        header = {"version": store.VERSION, "model": about, "int8": bool(int8), "rows": 0,
                  "key_bytes": 0, "removed": 0, "cameras": {}, "generation": 0}  # fmt: skip
        store.check_header(path, header)
        store.refuse_full(path)
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = store.locked(path)
        try:
            store.refuse_full(path)  # once more: another process may have made one in between
            store.commit(path, header)
        except BaseException:
            store.unlocked(lock)
            raise
        return cls(path, header)._holding(lock)

    @classmethod
    def open(cls, path, model=None, write=False):
        """Opens a gallery.

        Args:
            path: its folder.
            model: a `ReIDModel`, or what `about_model` says of one, that must be the gallery's.
            write: whether to add and remove; one process at a time may.

        Returns:
            A `Gallery`.

        Raises:
            InputError: no gallery, of another model, damaged, or written by another process.
        """
        path = Path(path)
        header = store.header_of(path)
        if model is not None:
            check_model(path, header["model"], model)
        lock = store.locked(path) if write else None
        if not write:
            return cls(path, header)
        try:
            for left in path.glob(".*.tmp"):  # of a writer that was killed
                left.unlink(missing_ok=True)
            gallery = cls(path, header)
            gallery.refresh()  # another writer may have ended in between
            store.clear(path, gallery._header)
            return gallery._holding(lock)
        except BaseException:
            store.unlocked(lock)
            raise

    @classmethod
    def from_parquet(cls, path, parts, model=None, int8=False):
        """Makes a gallery of what `xreid embed` has written.

        Args:
            path: a new or empty folder.
            parts: the folder of the parts, or the .npz file.
            model: what they must be of, see `open`; None takes theirs.
            int8: see `create`.

        Returns:
            A `Gallery`, open to write.

        Raises:
            InputError: no parts, damaged or missing ones, or parts of different models.

        Example:

        >>> gallery = Gallery.from_parquet("gallery", "embedded")
        """
        path, gallery = Path(path), None
        store.refuse_full(path)
        with files.whole_folder(path) as building:
            try:
                for columns, embeddings, about in read_parts(parts):
                    if about is None:  # an old file does not say whose it is
                        if model is None:
                            raise InputError(f"{parts} does not say its model: give the model")
                        about = about_model(model)
                    if gallery is None:
                        if model is not None:
                            check_model(parts, about, model)
                        gallery = cls.create(building, about, int8)
                    check_model(parts, gallery._header["model"], about)
                    columns.pop("person")
                    gallery.add(embeddings, columns.pop("path"), **columns)
                if gallery is None:
                    raise InputError(f"{parts} holds no part-000000.parquet: run xreid embed")
            finally:
                if gallery is not None:
                    gallery.close()
        return cls.open(path, write=True)

    def close(self):
        """Lets another process write; so does the last reference that goes."""
        self._maps = {}
        if self._lock is not None:
            self._dropped.detach()
            store.unlocked(self._lock)
            self._lock = None

    def _holding(self, lock):
        self._lock = lock
        self._dropped = weakref.finalize(self, _let_go, lock, os.getpid())
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self):
        return self._header["rows"] - self._header["removed"]

    @property
    def about(self):
        """What it is: model, rows, cameras with the hash of their statistics, span of times."""
        self._check_open()
        there = set(self._column("camera")[~self._gone].tolist())
        cameras = {
            name: camera
            for name, camera in self._header["cameras"].items()
            if camera["number"] in there
        }
        times = self._column("time")[~self._gone]
        times = times[~np.isnan(times)]
        span = [float(times.min()), float(times.max())] if len(times) else None
        return {**self._header, "cameras": cameras, "images": len(self), "time": span}

    def refresh(self):
        """Sees what another process has added since it was opened.

        Raises:
            InputError: it was made anew with another model.
        """
        header = store.header_of(self.path)
        if header != self._header:
            self._use(header)

    # --- writing -------------------------------------------------------------------------------

    def add(
        self, embeddings, keys, camera="", time=None, rate=1, sha256=None, statistics=None,
        replace=False,
    ):  # fmt: skip
        """Adds rows; all of them are there when it returns, and none if it fails.

        Args:
            embeddings: (n, d) array, of `embed`.
            keys: n texts, one for each image.
            camera: text or number, or n of them.
            time: seconds, or n of them; None where it is not known.
            rate: number, or n of them: the images' down-sampling rates; None where not known.
            sha256: n hexadecimal SHA-256 of the images; None where they are not known.
            statistics: dict from a camera to the hash of its adapted statistics. A camera's rows
                that are there must all have the same.
            replace: whether a row of a key that is there gives way to the new one, at once;
                refused if False.

        Raises:
            InputError: embeddings of another width or not finite, a key that is there, a time,
                rate or SHA-256 that is none, a camera whose statistics have changed, or a gallery
                that is not open to write.

        Example:

        >>> gallery.add(features, keys=["a.jpg", "b.jpg"], camera=[1, 2], time=[0.0, 3.2])
        """
        self._check_writable()
        embeddings = check_embeddings(embeddings, self.metric.lengths[-1])
        n = len(embeddings)
        keys, cameras, times, rates, sha256 = told_of(n, keys, camera, time, rate, sha256)
        rows = np.zeros(n, ROW)
        hashes = np.array([_hash(key) for key in keys], "uint64")
        old = self._old_rows(keys, hashes)
        if len(old) and not replace:
            raise InputError(f"{self.path} has {self._keys_of(old)[0]!r} already: remove it first")
        rows["hash"] = hashes
        rows["time"] = np.array(times, "float64")  # of None it makes NaN
        rows["rate"] = np.array(rates, "float64")
        known = self._header["cameras"]
        table = new_cameras(known, set(cameras), statistics or {}, self._has_rows)
        rows["camera"] = [table[name]["number"] for name in cameras]
        digests = b"".join(bytes.fromhex(one or "0" * 64) for one in sha256)
        rows["sha256"] = np.frombuffer(digests, "u1").reshape(n, 32)
        texts = [bytes_of(key) for key in keys]
        ends = np.cumsum([len(text) for text in texts], dtype="uint64")
        rows["key_end"] = ends + np.uint64(self._header["key_bytes"])
        if not n:
            return
        parts = {KEYS: b"".join(texts)}
        if self.metric.stores_unit:
            embeddings = unit(embeddings)
        parts[EMBEDDINGS] = embeddings.data
        if self.metric.stores_unit is False:
            parts[NORMS] = self.metric.norms(embeddings).data
        if self._header["int8"]:
            codes, scales = codes_of(embeddings)
            parts |= {CODES: codes.data, SCALES: scales.data}
        rows["crc"] = _crcs(embeddings, texts, rows)
        parts[ROWS] = rows.data
        if len(old):
            parts[REMOVED] = old.data
        header = {**self._header, "rows": self._header["rows"] + n, "cameras": table}
        header["key_bytes"] += sum(map(len, texts))
        header["removed"] += len(old)
        self._write(parts, header)
        hashes.sort()  # all of them are never sorted again
        self._known = np.insert(self._known, np.searchsorted(self._known, hashes), hashes)

    def remove(self, keys):
        """Removes rows; their room stays taken until `compact`.

        Args:
            keys: texts, or one.

        Returns:
            How many there were.

        Raises:
            InputError: a key that is not there; nothing is removed then.
        """
        self._check_writable()
        keys = list(dict.fromkeys(texts_of(keys)))
        rows = self._rows_of(keys, ": nothing was removed").astype("<u8")
        if not keys:
            return 0
        header = {**self._header, "removed": self._header["removed"] + len(rows)}
        self._write({REMOVED: rows.data}, header)
        return len(rows)

    def compact(self):
        """Leaves out removed rows, and gives their room back; damaged ones too, see `verify`.

        The rows that are left are copied, which needs their room once more meanwhile. After a crash
        the gallery is the old or the new one. Who has it open goes on reading the old files, until
        `refresh`.

        Returns:
            How many rows were left out.

        Raises:
            InputError: the gallery is not open to write.
            DiskError: there is no room for the copy.

        Example:

        >>> gallery.remove(keys)
        >>> gallery.compact()
        """
        self._check_writable()
        old, kept = self._header, np.flatnonzero(~self._gone & ~self._damaged())
        if len(kept) == old["rows"]:
            return 0
        sizes = np.diff(self._maps[ROWS]["key_end"], prepend=np.uint64(0))[kept]
        header = {**old, "rows": len(kept), "removed": 0, "key_bytes": int(sizes.sum())}
        header["generation"] += 1
        ends = np.cumsum(sizes, dtype="uint64")
        try:
            needed = sum(map(store.sizes_of(header).get, self._maps))
            with files.writing(store.file_of(self.path, EMBEDDINGS, header), needed, reserve=True):
                for name in self._maps:
                    with open(store.file_of(self.path, name, header), "wb") as file:
                        for start in range(0, len(kept), BLOCK):
                            part = slice(start, start + BLOCK)
                            file.write(self._copied(name, kept[part], ends[part]))
                        file.flush()
                        os.fsync(file.fileno())
            files.sync_folder(self.path)  # the new names, before the header that counts them
            store.commit(self.path, header)
        except BaseException:
            store.clear(self.path, store.header_of(self.path))
            raise
        self._known = np.empty(0, "uint64")  # by their number alone they might seem to be all
        self._use(header)
        store.clear(self.path, header)
        return old["rows"] - len(kept)

    def _copied(self, name, rows, ends):
        """What a file holds of some rows, whose keys end elsewhere now."""
        if name == KEYS:
            return b"".join(map(bytes_of, self._keys_of(rows)))
        found = self._maps[name][rows]
        if name == ROWS:
            found["key_end"] = ends
        return found.data

    def _write(self, parts, header):
        """Appends to the files, and then says so in the header: the rows are there from then on."""
        sizes = store.sizes_of(self._header)
        needed = sum(len(memoryview(content).cast("B")) for content in parts.values())
        with files.writing(store.file_of(self.path, EMBEDDINGS, header), needed, reserve=True):
            for name, content in parts.items():
                with open(store.file_of(self.path, name, header), "ab") as file:
                    # What a process that was killed has left behind.
                    file.truncate(sizes[name])
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        store.commit(self.path, header)
        self._use(header)

    def _check_writable(self):
        if self._lock is None:
            raise InputError(f"{self.path} is open to read: Gallery.open(path, write=True)")
        self.refresh()  # an `add` that was interrupted may have ended

    def _has_rows(self, camera):
        number = self._header["cameras"][camera]["number"]
        return (self._column("camera")[~self._gone] == number).any()

    def _old_rows(self, keys, hashes):
        """The rows of those keys that are there already."""
        if len(self._known) != self._header["rows"]:
            self._known = np.sort(self._column("hash"))
        known = np.flatnonzero(_member(self._known, hashes))
        found = [self._row_of(keys[place]) for place in known]
        return np.array([row for row in found if row is not None], "<u8")

    # --- searching -----------------------------------------------------------------------------

    def search(self, queries, rates=None, k=10, only_cameras=None, between=None):
        """Finds the nearest rows of each query.

        Args:
            queries: (q, d) array, of `embed`.
            rates: number or (q,) array, the queries' rates, where the metric depends on them.
            k: int, how many.
            only_cameras: the cameras to search; None: all.
            between: (first, last) second, both included; None for an open end. Rows without a time
                are left out.

        Returns:
            A `Found`.

        Raises:
            InputError: queries of another width or not finite, an unknown camera, or no span of
                time.

        Example:

        >>> keys, distances = gallery.search(features, rates=4, k=5, only_cameras=["1"])
        """
        queries = check_embeddings(queries, self.metric.lengths[-1])
        check_number("k", k)
        self._check_open()
        allowed = self._allowed(only_cameras, between)
        levels = self.metric.levels(rates, len(queries))
        there = Rows(*map(self._maps.get, (EMBEDDINGS, NORMS, CODES, SCALES)))
        keys, distances = [None] * len(queries), [None] * len(queries)
        for level in np.unique(levels):
            mine = np.flatnonzero(levels == level)
            for start in range(0, len(mine), QUERIES):
                part = mine[start : start + QUERIES]
                query, own = self.metric.query(queries[part], level)
                for place, (scores, rows) in zip(
                    part, nearest(self.metric, there, query, level, k, allowed), strict=True
                ):
                    keys[place] = self._keys_of(rows)
                    length = own[part == place][0]
                    distances[place] = self.metric.distances(scores, length).astype("float32")
        return Found(keys, distances)

    def _allowed(self, only_cameras, between):
        """(rows,) bool of those to search; None for all."""
        parts = []
        if self._header["removed"]:
            parts.append(~self._gone)
        if only_cameras is not None:
            known = self._header["cameras"]
            names = names_of(only_cameras, known)
            numbers = [known[name]["number"] for name in names]
            chosen = np.zeros(len(known), bool)
            chosen[numbers] = True
            # Those of removed rows may be damaged.
            parts.append(chosen.take(self._column("camera"), mode="clip"))
        if between is not None:
            first, last = check_between(between)
            time = self._column("time")
            low = -np.inf if first is None else first
            high = np.inf if last is None else last
            parts.append((time >= low) & (time <= high))  # of NaN this is False
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else np.logical_and.reduce(parts)

    # --- the files -----------------------------------------------------------------------------

    def _use(self, header):
        if header["model"] != self._header["model"]:
            raise InputError(f"{self.path} was made anew with another model: open it again")
        try:
            self._use_files(header)
        except InputError:  # a writer may have compacted them away in between
            newer = store.header_of(self.path)
            if newer["generation"] == header["generation"]:
                raise
            self._use(newer)

    def _use_files(self, header):
        self._header = header
        about, n = header["model"], header["rows"]
        self.metric = Metric(about["kind"], tuple(about["lengths"]), tuple(about["rates"]))
        width = self.metric.lengths[-1]
        shapes = {EMBEDDINGS: ("<f4", (n, width)), ROWS: (ROW, (n,))}
        shapes[KEYS] = ("u1", (header["key_bytes"],))
        if not self.metric.stores_unit:
            shapes[NORMS] = ("<f4", (n, len(self.metric.lengths)))
        if header["int8"]:
            shapes |= {CODES: ("i1", (n, width)), SCALES: ("<f4", (n,))}
        self._maps = {}
        for name, (kind, shape) in shapes.items():
            self._maps[name] = store.mapped(store.file_of(self.path, name, header), kind, shape)
        self._gone, removed = np.zeros(n, bool), store.file_of(self.path, REMOVED, header)
        gone = store.mapped(removed, "<u8", (header["removed"],))
        if len(gone) and gone.max() >= n:
            raise InputError(f"{removed} is damaged: it names rows that are not there")
        self._gone[gone] = True
        self._columns = {}

    def _column(self, name):
        """A column of the rows, side by side in memory: kept, for every filter reads it."""
        if name not in self._columns:
            found = np.ascontiguousarray(self._maps[ROWS][name])
            if name == "camera":
                wrong = (found < 0) | (found >= len(self._header["cameras"]))
                if (wrong & ~self._gone).any():
                    raise InputError(f"{self.path} is damaged: xreid gallery verify {self.path}")
            self._columns[name] = found
        return self._columns[name]

    def _row_of(self, key):
        """The row of a key that is there, or None."""
        for row in np.flatnonzero(self._column("hash") == np.uint64(_hash(key))):
            if not self._gone[row] and self._keys_of([row])[0] == key:
                return int(row)
        return None

    def _rows_of(self, keys, then=""):
        """(n,) rows of keys; refuses one that is not there."""
        found = [self._row_of(key) for key in keys]
        if None in found:
            raise InputError(f"{self.path} has no {keys[found.index(None)]!r}{then}")
        return np.array(found, "int64")

    def _keys_of(self, rows):
        rows, ends = np.asarray(rows, "int64"), self._maps[ROWS]["key_end"]
        begins = np.where(rows > 0, ends[rows - 1], 0) if len(rows) else rows
        text = memoryview(self._maps[KEYS])
        return [
            str(text[begin:end], "utf-8", "surrogateescape")
            for begin, end in zip(begins.tolist(), ends[rows].tolist(), strict=True)
        ]

    def keys(self):
        """The keys of all rows, in the order in which they came."""
        self._check_open()
        return self._keys_of(np.flatnonzero(~self._gone))

    def columns(self, keys=None):
        """What stands beside rows.

        Args:
            keys: texts, the rows asked for; None: all, in the order in which they came.

        Returns:
            A dict of lists: "key", "camera", "time", "rate" and "sha256"; None where a time or rate
            is not known, and 64 zeros for a SHA-256.

        Raises:
            InputError: a key that is not there.
        """
        self._check_open()
        if keys is None:
            there = np.flatnonzero(~self._gone)
            keys = self._keys_of(there)
        else:
            there = self._rows_of(keys)
        rows = self._maps[ROWS][there]
        names = [name for name, _ in sorted(self._header["cameras"].items(), key=_number_of)]
        return {
            "key": keys,
            "camera": [names[number] for number in self._column("camera")[there]],
            "time": [None if one != one else one for one in rows["time"].tolist()],
            "rate": [None if one != one else one for one in rows["rate"].tolist()],
            "sha256": [bytes(one).hex() for one in rows["sha256"]],
        }

    def verify(self):
        """Compares every row with the checksum that it was written with.

        What is computed of embeddings and kept (norms, codes of 8 bits) is computed anew.

        Returns:
            List of the keys of rows that are damaged.
        """
        self._check_open()
        return self._keys_of(np.flatnonzero(self._damaged()))

    def _damaged(self):
        """(rows,) bool: which of those that are there are damaged."""
        maps, found = self._maps, ~self._gone
        sizes = np.diff(maps[ROWS]["key_end"], prepend=np.uint64(0))
        for start in range(0, self._header["rows"], BLOCK):
            part = slice(start, min(start + BLOCK, self._header["rows"]))
            embeddings, rows = maps[EMBEDDINGS][part], maps[ROWS][part]
            keys = self._keys_of(range(part.start, part.stop))
            texts = [bytes_of(key) for key in keys]
            bad = np.array(_crcs(embeddings, texts, rows)) != rows["crc"]
            bad |= sizes[part] != np.array([len(text) for text in texts], "uint64")
            bad |= np.array([_hash(key) for key in keys], "uint64") != rows["hash"]
            if NORMS in maps:
                norms = self.metric.norms(embeddings)
                bad |= ~np.isclose(norms, maps[NORMS][part], rtol=1e-4, atol=0).all(1)
            if CODES in maps:
                codes, scales = codes_of(embeddings)
                bad |= np.abs(codes.astype("int16") - maps[CODES][part]).max(1) > 1
                bad |= ~np.isclose(scales, maps[SCALES][part], rtol=1e-4, atol=0)
            found[part] &= bad
        return found

    def _check_open(self):
        if not self._maps:
            raise InputError(f"{self.path} was closed: open it again")


def _let_go(lock, process):
    if os.getpid() == process:  # one that was forked has no say
        store.unlocked(lock)


def _number_of(camera):
    return camera[1]["number"]


def _crcs(embeddings, texts, rows):
    """A checksum for each row: of its embedding, its key and what stands beside it."""
    told = np.empty(len(rows), TOLD)
    for name in TOLD.names:
        told[name] = rows[name]
    beside, size = told.tobytes(), TOLD.itemsize
    return [
        zlib.crc32(beside[i * size : (i + 1) * size], zlib.crc32(text, zlib.crc32(embedding)))
        for i, (embedding, text) in enumerate(zip(embeddings, texts, strict=True))
    ]


def _hash(key):
    return int.from_bytes(hashlib.blake2b(bytes_of(key), digest_size=8).digest(), "little")


def _member(known, values):
    """Which values are in a sorted array."""
    places = np.minimum(np.searchsorted(known, values), max(0, len(known) - 1))
    return known[places] == values if len(known) else np.zeros(len(values), bool)

"""The embedded gallery: float32 in a memory map, searched exactly, with no dependency."""

import collections
import contextlib
import hashlib
import json
import os
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_xreid import files
from keras_xreid.errors import InputError, check_number
from keras_xreid.gallery.metric import Metric
from keras_xreid.gallery.parquet import read_parts

HEADER, LOCK, VERSION = "gallery.json", ".lock", 1
EMBEDDINGS, ROWS, KEYS, REMOVED = "embeddings.f32", "rows.bin", "keys.txt", "removed.u64"
NORMS, CODES, SCALES = "norms.f32", "codes.i8", "scales.f32"
ROW = np.dtype([
    ("hash", "<u8"), ("time", "<f8"), ("key_end", "<u8"), ("camera", "<i4"), ("rate", "<f4"),
    ("crc", "<u4"), ("sha256", "u1", 32),
])  # fmt: skip
TOLD = np.dtype([(name, ROW[name]) for name in ("time", "camera", "rate", "sha256")])
BLOCK = 16384  # rows a product; the scores of 64 queries are 4 MB then
QUERIES = 256  # at a time
LARGE = 1e15
HEX = re.compile(r"[0-9a-fA-F]{64}")
RESCORED = 1000  # candidates of int8 codes that are measured in float32
GATHERED = 0.5  # of all rows: if fewer are allowed, they are copied together first
GATHER = 512  # rows that are copied at a time


class Found(NamedTuple):
    """What a search found.

    Args:
        keys: a list for each query, the nearest first; shorter than k where fewer are allowed.
        distances: a (k,) float32 array for each query, as the model's `distances` measures.
    """

    keys: list
    distances: list


def about_model(model):
    """What a gallery must know of the model whose embeddings it holds.

    Args:
        model: a `ReIDModel`.

    Returns:
        A dict: "system", "weights_sha256" (of the weights that embed), "image_size", "dimension",
        "flip", "kind", "lengths" and "rates" (see `Metric`).

    Raises:
        InputError: a system that embeds the gallery anew at each query's rate.
    """
    from keras_xreid.adaptation import weights_sha256  # with Keras, which a help text does without

    if getattr(model, "gallery_at_query_rate", False):
        raise InputError(
            f"{type(model).__name__} embeds the gallery anew at each query's rate: no gallery can "
            "hold its embeddings, take another system"
        )
    width = model.embed(np.zeros((0, *model.image_size, 3), "uint8")).shape[1]
    kind = {"1 - cosine": "cosine", "Euclidean": "euclidean", "squared Euclidean": "squared"}
    lengths, rates = [width], []
    if getattr(model, "varying_length", False):
        lengths, rates = np.cumsum(model.sizes).tolist(), [float(rate) for rate in model.rates]
    return {
        "system": type(model).__name__, "weights_sha256": weights_sha256(model),
        "image_size": list(model.image_size), "dimension": width, "flip": bool(model.flip),
        "kind": kind[model.metric], "lengths": lengths, "rates": rates,
    }  # fmt: skip


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

    def __init__(self, path, header, lock=None):
        self.path, self._lock = Path(path), lock
        self._known = np.empty(0, "uint64")  # hashes of all keys, sorted, where it is written to
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
        header = {"version": VERSION, "model": about, "int8": bool(int8), "rows": 0,
                  "key_bytes": 0, "removed": 0, "cameras": {}, "generation": 0}  # fmt: skip
        _check_header(path, header)
        _refuse_full(path)
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
        lock = _locked(path)
        try:
            _refuse_full(path)  # once more: another process may have made one in between
            _commit(path, header)
        except BaseException:
            _unlocked(lock)
            raise
        return cls(path, header, lock)

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
        header = _header(path)
        if model is not None:
            check_model(path, header["model"], model)
        lock = _locked(path) if write else None
        if not write:
            return cls(path, header)
        try:
            for left in path.glob(".*.tmp"):  # of a writer that was killed
                left.unlink(missing_ok=True)
            # Once more: another writer may have ended in between.
            gallery = cls(path, _header(path), lock)
            _clear(path, gallery._header)
            return gallery
        except BaseException:
            _unlocked(lock)
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
        _refuse_full(path)
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
        """Lets another process write."""
        self._maps = {}
        if self._lock is not None:
            _unlocked(self._lock)
            self._lock = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self):
        return self._header["rows"] - self._header["removed"]

    @property
    def about(self):
        """What it is: model, rows, cameras with the hash of their statistics, span of times."""
        times = self._column("time")[~self._gone]
        times = times[~np.isnan(times)]
        span = [float(times.min()), float(times.max())] if len(times) else None
        return {**self._header, "images": len(self), "time": span}

    def refresh(self):
        """Sees what another process has added since it was opened."""
        header = _header(self.path)
        if header != self._header:
            self._use(header)

    # --- writing -------------------------------------------------------------------------------

    def add(self, embeddings, keys, camera="", time=None, rate=1, sha256=None, statistics=None):
        """Adds rows; all of them are there when it returns, and none if it fails.

        Args:
            embeddings: (n, d) array, of `embed`.
            keys: n texts, one for each image, none of which is there.
            camera: text or number, or n of them.
            time: seconds, or n of them; None where it is not known.
            rate: number, or n of them: the images' down-sampling rates; None where not known.
            sha256: n hexadecimal SHA-256 of the images; None where they are not known.
            statistics: dict from a camera to the hash of its adapted statistics. A camera's rows
                must all have the same.

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
        self._refuse_known(keys, hashes)
        rows["hash"] = hashes
        rows["time"] = np.array(times, "float64")  # of None it makes NaN
        rows["rate"] = np.array(rates, "float64")
        table = new_cameras(self._header["cameras"], set(cameras), statistics or {})
        rows["camera"] = [table[name]["number"] for name in cameras]
        digests = b"".join(bytes.fromhex(one or "0" * 64) for one in sha256)
        rows["sha256"] = np.frombuffer(digests, "u1").reshape(n, 32)
        texts = [_bytes(key) for key in keys]
        ends = np.cumsum([len(text) for text in texts], dtype="uint64")
        rows["key_end"] = ends + np.uint64(self._header["key_bytes"])
        if not n:
            return
        parts = {KEYS: b"".join(texts)}
        if self.metric.stores_unit:
            embeddings = _unit(embeddings)
        parts[EMBEDDINGS] = embeddings.data
        if self.metric.stores_unit is False:
            parts[NORMS] = self.metric.norms(embeddings).data
        if self._header["int8"]:
            codes, scales = _codes(embeddings)
            parts |= {CODES: codes.data, SCALES: scales.data}
        rows["crc"] = _crcs(embeddings, texts, rows)
        parts[ROWS] = rows.data
        header = {**self._header, "rows": self._header["rows"] + n, "cameras": table}
        header["key_bytes"] += sum(map(len, texts))
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
        """Gives the room of removed rows back; what is searched stays the same.

        The rows that are left are copied, which needs their room once more meanwhile. After a crash
        the gallery is the old or the new one. Who has it open goes on reading the old files, until
        `refresh`.

        Returns:
            How many removed rows there were.

        Raises:
            InputError: the gallery is not open to write.
            DiskError: there is no room for the copy.

        Example:

        >>> gallery.remove(keys)
        >>> gallery.compact()
        """
        self._check_writable()
        old, kept = self._header, np.flatnonzero(~self._gone)
        if not old["removed"]:
            return 0
        sizes = np.diff(self._maps[ROWS]["key_end"], prepend=np.uint64(0))[kept]
        header = {**old, "rows": len(kept), "removed": 0, "key_bytes": int(sizes.sum())}
        header["generation"] += 1
        ends = np.cumsum(sizes, dtype="uint64")
        try:
            needed = sum(_sizes(header)[name] for name in self._maps)  # the others are not there
            with files.writing(_file(self.path, EMBEDDINGS, header), needed, reserve=True):
                for name in self._maps:
                    with open(_file(self.path, name, header), "wb") as file:
                        for start in range(0, len(kept), BLOCK):
                            part = slice(start, start + BLOCK)
                            file.write(self._copied(name, kept[part], ends[part]))
                        file.flush()
                        os.fsync(file.fileno())
            _commit(self.path, header)
        except BaseException:
            _clear(self.path, _header(self.path))
            raise
        self._use(header)
        _clear(self.path, header)
        return old["removed"]

    def _copied(self, name, rows, ends):
        """What a file holds of some rows, whose keys end elsewhere now."""
        if name == KEYS:
            return b"".join(map(_bytes, self._keys_of(rows)))
        found = self._maps[name][rows]
        if name == ROWS:
            found["key_end"] = ends
        return found.data

    def _write(self, parts, header):
        """Appends to the files, and then says so in the header: the rows are there from then on."""
        sizes = _sizes(self._header)
        needed = sum(len(memoryview(content).cast("B")) for content in parts.values())
        with files.writing(_file(self.path, EMBEDDINGS, header), needed, reserve=True):
            for name, content in parts.items():
                with open(_file(self.path, name, header), "ab") as file:
                    # What a process that was killed has left behind.
                    file.truncate(sizes[name])
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        _commit(self.path, header)
        self._use(header)

    def _check_writable(self):
        if self._lock is None:
            raise InputError(f"{self.path} is open to read: Gallery.open(path, write=True)")
        self.refresh()  # an `add` that was interrupted may have ended

    def _refuse_known(self, keys, hashes):
        if len(self._known) != self._header["rows"]:
            self._known = np.sort(self._column("hash"))
        for place in np.flatnonzero(_member(self._known, hashes)):
            if self._row_of(keys[place]) is not None:
                raise InputError(f"{self.path} has {keys[place]!r} already: remove it first")

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
        keys, distances = [None] * len(queries), [None] * len(queries)
        for level in np.unique(levels):
            mine = np.flatnonzero(levels == level)
            for start in range(0, len(mine), QUERIES):
                part = mine[start : start + QUERIES]
                query, own = self.metric.query(queries[part], level)
                for place, (scores, rows) in zip(
                    part, self._nearest(query, level, k, allowed), strict=True
                ):
                    keys[place] = self._keys_of(rows)
                    length = own[part == place][0]
                    distances[place] = self.metric.distances(scores, length).astype("float32")
        return Found(keys, distances)

    def _nearest(self, query, level, k, allowed):
        """For each query the k best scores and their rows, the best first; of equals the older."""
        coarse = self._header["int8"]
        best = _Best(len(query), max(k, RESCORED) if coarse else k)
        n, matrix = self._header["rows"], self._maps[CODES if coarse else EMBEDDINGS]
        if allowed is not None and np.count_nonzero(allowed) < GATHERED * n:
            chosen = np.flatnonzero(allowed)
            # One buffer that stays in the processor's cache: memory is read once.
            buffer = np.empty((min(len(chosen), GATHER), matrix.shape[1]), matrix.dtype)
            for start in range(0, len(chosen), GATHER):
                rows = chosen[start : start + GATHER]
                block = buffer[: len(rows)]
                np.take(matrix, rows, axis=0, out=block, mode="clip")
                best.add(self._scores(query, block, rows, level, coarse), rows)
        else:
            for start in range(0, n, BLOCK):
                rows = slice(start, min(start + BLOCK, n))
                scores = self._scores(query, matrix[rows], rows, level, coarse)
                free = None if allowed is None else allowed[rows]
                best.add(scores, np.arange(rows.start, rows.stop), free)
        found = best.sorted()
        if coarse:
            found = [
                _sorted(self._exact(one[None], rows, level)[0], rows, k)
                for one, (_, rows) in zip(query, found, strict=True)
            ]
        return found

    def _scores(self, query, block, rows, level, coarse):
        norms = self._maps.get(NORMS)
        norms = None if norms is None else norms[rows]
        if not coarse:
            return self.metric.scores(query, block, norms, level)
        found = self.metric.products(query, block.astype("float32"), level)
        found *= self._maps[SCALES][rows]
        return self.metric.refine(found, norms, level)

    def _exact(self, query, rows, level):
        return self._scores(query, self._maps[EMBEDDINGS][rows], rows, level, False)

    def _allowed(self, only_cameras, between):
        """(rows,) bool of those to search; None for all."""
        parts = []
        if self._header["removed"]:
            parts.append(~self._gone)
        if only_cameras is not None:
            known = self._header["cameras"]
            names = names_of(only_cameras, known, self.path)
            numbers = [known[name]["number"] for name in names]
            chosen = np.zeros(len(known), bool)
            chosen[numbers] = True
            parts.append(chosen[self._column("camera")])
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
        try:
            self._use_files(header)
        except InputError:  # a writer may have compacted them away in between
            newer = _header(self.path)
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
            self._maps[name] = _map(_file(self.path, name, header), kind, shape)
        self._gone, removed = np.zeros(n, bool), _file(self.path, REMOVED, header)
        gone = _map(removed, "<u8", (header["removed"],))
        if len(gone) and gone.max() >= n:
            raise InputError(f"{removed} is damaged: it names rows that are not there")
        self._gone[gone] = True
        self._columns = {}

    def _column(self, name):
        """A column of the rows, side by side in memory: kept, for every filter reads it."""
        if name not in self._columns:
            self._columns[name] = np.ascontiguousarray(self._maps[ROWS][name])
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
            "camera": [names[number] for number in rows["camera"]],
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
        wrong, maps = [], self._maps
        for start in range(0, self._header["rows"], BLOCK):
            part = slice(start, min(start + BLOCK, self._header["rows"]))
            embeddings, rows = maps[EMBEDDINGS][part], maps[ROWS][part]
            keys = self._keys_of(range(part.start, part.stop))
            bad = np.array(_crcs(embeddings, map(_bytes, keys), rows)) != rows["crc"]
            bad |= np.array([_hash(key) for key in keys], "uint64") != rows["hash"]
            if NORMS in maps:
                norms = self.metric.norms(embeddings)
                bad |= ~np.isclose(norms, maps[NORMS][part], rtol=1e-4, atol=0).all(1)
            if CODES in maps:
                codes, scales = _codes(embeddings)
                bad |= np.abs(codes.astype("int16") - maps[CODES][part]).max(1) > 1
                bad |= ~np.isclose(scales, maps[SCALES][part], rtol=1e-4, atol=0)
            bad &= ~self._gone[part]
            wrong += [keys[row] for row in np.flatnonzero(bad)]
        return wrong

    def _check_open(self):
        if not self._maps:
            raise InputError(f"{self.path} was closed: open it again")


def _number_of(camera):
    return camera[1]["number"]


def check_model(place, known, model):
    """Refuses a model that is not the one whose embeddings a gallery holds.

    Args:
        place: the gallery, in words.
        known: what it says of its model.
        model: a `ReIDModel`, or what `about_model` says of one.
    """
    about = dict(model) if isinstance(model, dict) else about_model(model)
    for name, theirs in known.items():
        if about.get(name) != theirs:
            raise InputError(
                f"{place} holds embeddings of another model (its {name} is {theirs}, here it is "
                f"{about.get(name)}): make a gallery of its own for this one"
            )


def check_embeddings(embeddings, width):
    """Embeddings as (n, width) float32; refuses others, and what is not finite."""
    embeddings = np.ascontiguousarray(embeddings, "float32")
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise InputError(f"embeddings of shape {embeddings.shape}: give (n, {width})")
    # The square of a larger number is no float32. Of NaN both are False.
    if embeddings.size and not -LARGE < embeddings.min() <= embeddings.max() < LARGE:
        raise InputError("an embedding is not finite (NaN) or too large: the weights are damaged")
    return embeddings


def told_of(n, keys, camera, time, rate, sha256):
    """What stands beside n embeddings, see `Gallery.add`; refuses what is no such thing.

    Returns:
        Lists of n keys, cameras' names, times, rates and SHA-256; None where one is not known.
    """
    keys = texts_of(keys)
    if len(keys) != n:
        raise InputError(f"{len(keys)} keys for {n} embeddings")
    if len(set(keys)) < n:
        twice = collections.Counter(keys).most_common(1)[0][0]
        raise InputError(f"key {twice!r} is given twice: each image has a key of its own")
    cameras = [_name(one) for one in _each(camera, n, "cameras")]
    times = [_number("time", one) for one in _each(time, n, "times")]
    rates = [_number("rate", one) for one in _each(rate, n, "rates")]
    low = [one for one in rates if one is not None and one < 1]
    if low:
        raise InputError(f"rate {low[0]:g} is below 1: give 1 (high resolution) or more")
    sha256 = [None if one is None else str(one) for one in _each(sha256, n, "hashes")]
    for one in sha256:
        if one is not None and not HEX.fullmatch(one):
            raise InputError(f"{one[:80]!r} is no SHA-256: give 64 hexadecimal digits")
    return keys, cameras, times, rates, sha256


def texts_of(keys):
    """Keys as a list of texts that a file can hold."""
    keys = [keys] if isinstance(keys, str) else [str(key) for key in keys]
    for key in keys:
        try:
            right = _bytes(key).decode("utf-8", "surrogateescape") == key
        except UnicodeEncodeError:
            right = False
        if not right:
            raise InputError(f"key {key!r} cannot be written as UTF-8: give another")
    return keys


def names_of(cameras, known, place):
    """Names of cameras to search, of one or several; refuses those that a gallery has not."""
    if isinstance(cameras, (str, int, float, np.generic)):
        cameras = [cameras]
    names = [_name(camera) for camera in cameras]
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(sorted(known)) or "none"
        raise InputError(f"no camera {unknown[0]} in {place}: it has {there}")
    return names


def check_between(between):
    """The first and the last second of a span, None where it is open."""
    try:
        first, last = (None if one is None else float(one) for one in between)
    except (TypeError, ValueError):
        raise InputError(f"between is {between}: give the first and the last second") from None
    ends = [-np.inf if first is None else first, np.inf if last is None else last]
    if not ends[0] <= ends[1]:  # of NaN, too
        raise InputError(f"between is {first} to {last}: no second lies in it")
    return first, last


def new_cameras(known, names, statistics):
    """The table of cameras with new ones; refuses statistics that have changed.

    Args:
        known: dict from a camera's name to {"number", "statistics"}.
        names: set of the names in a batch.
        statistics: dict from a camera to the hash of its adapted statistics.
    """
    table, told = dict(known), {_name(camera): value for camera, value in statistics.items()}
    for name in sorted(names):
        entry = table.setdefault(name, {"number": len(table), "statistics": told.get(name)})
        if entry["statistics"] != told.get(name):
            raise InputError(
                f"rows of camera {name} have the statistics {entry['statistics']}, and these "
                f"{told.get(name)}: embed that camera's images anew"
            )
    return table


class _Best:
    """The best scores of each query so far."""

    def __init__(self, queries, k):
        self.k = k
        self.scores = [np.empty(0, "float32")] * queries
        self.rows = [np.empty(0, "int64")] * queries
        self.least = np.full(queries, -np.inf, "float32")

    def add(self, scores, rows, allowed=None):
        """Looks at the scores (q, n) of some rows, in ascending order; `allowed` is (n,) bool."""
        # Nearly all are worse than the k best of the blocks before, and are never sorted.
        hits = scores > self.least[:, None]
        if allowed is not None:
            hits &= allowed
        for query in np.flatnonzero(hits.any(1)):
            new = np.flatnonzero(hits[query])
            values = np.concatenate([self.scores[query], scores[query, new]])
            places = np.concatenate([self.rows[query], rows[new]])
            if len(values) > self.k:
                # The k-th best value; of those that equal it the older rows stay.
                least = np.partition(values, len(values) - self.k)[len(values) - self.k]
                above = values > least
                equal = np.flatnonzero(values == least)[: self.k - np.count_nonzero(above)]
                above[equal] = True
                values, places = values[above], places[above]
                self.least[query] = least
            self.scores[query], self.rows[query] = values, places

    def sorted(self):
        return [
            _sorted(scores, rows, self.k)
            for scores, rows in zip(self.scores, self.rows, strict=True)
        ]


def _sorted(scores, rows, k):
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def _sizes(header):
    """The bytes that each file has, of what is committed."""
    n, model = header["rows"], header["model"]
    width = model["lengths"][-1]
    return {
        EMBEDDINGS: 4 * width * n, ROWS: ROW.itemsize * n, KEYS: header["key_bytes"],
        NORMS: 4 * len(model["lengths"]) * n, CODES: width * n, SCALES: 4 * n,
        REMOVED: 8 * header["removed"],
    }  # fmt: skip


def _file(path, name, header):
    """Where a file lies: under another name after each `compact`."""
    generation = header["generation"]
    return path / (f"{generation}-{name}" if generation else name)


def _clear(path, header):
    """Removes the files of other generations: compacted away, or of a writer that was killed."""
    names = _sizes(header)
    own = {_file(path, name, header) for name in names}
    for other in path.iterdir():
        generation, _, name = other.name.rpartition("-")
        if name in names and other not in own and (generation.isdecimal() or not generation):
            with contextlib.suppress(OSError):  # Windows keeps what a reader has open
                other.unlink()


def _header(path):
    """A gallery's header, whose fields are what they have to be."""
    if not (path / HEADER).is_file():
        raise InputError(f"no gallery at {path}: make one with xreid gallery add")
    header = {"generation": 0, **files.read_json(path / HEADER)}
    _check_header(path, header)
    return header


def _check_header(path, header):
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


def _refuse_full(path):
    """Refuses a folder with files, but those of a process that was killed as it began."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give a new folder")
    if path.is_dir() and any(p.name != LOCK and p.suffix != ".tmp" for p in path.iterdir()):
        raise InputError(f"{path} is there already: open it, or give a new folder")


def _commit(path, header):
    """Replaces the header, on the disk when this returns."""
    content = json.dumps(header, indent=1).encode()
    files.write_bytes_atomic(path / HEADER, content, sync=True)


def _map(path, kind, shape):
    """The committed part of a file, read as it is needed."""
    if 0 in shape:
        return np.empty(shape, kind)
    try:
        return np.memmap(path, kind, "r", shape=shape).view(np.ndarray)
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path} is damaged or cut short ({error}): restore it") from error


def _locked(path):
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
    except OSError:
        os.close(lock)
        raise InputError(f"{path} is being written by another process: wait for it") from None
    return lock


def _unlocked(lock):
    """Lets a lock go, also where a process that was forked meanwhile still holds its file."""
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _codes(embeddings):
    """Embeddings in 8 bits, and what a step of each row is worth."""
    scales = np.maximum(np.abs(embeddings).max(1), 1e-12) / 127
    return np.rint(embeddings / scales[:, None]).astype("int8"), scales.astype("<f4")


def _unit(embeddings):
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


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


def _bytes(key):
    return key.encode("utf-8", "surrogateescape")


def _hash(key):
    return int.from_bytes(hashlib.blake2b(_bytes(key), digest_size=8).digest(), "little")


def _member(known, values):
    """Which values are in a sorted array."""
    places = np.minimum(np.searchsorted(known, values), max(0, len(known) - 1))
    return known[places] == values if len(known) else np.zeros(len(values), bool)


def _name(camera):
    """A camera's name: 2, 2.0 and "2" are one; none, if it is not known."""
    if camera is None or camera != camera:
        return ""
    if isinstance(camera, (float, np.floating)) and float(camera).is_integer():
        camera = int(camera)
    return str(camera)


def _number(what, value):
    """A number, or None where it is not known."""
    if value is None or value != value:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.inf
    if not np.isfinite(found):
        raise InputError(f"{what} is {str(value)[:80]!r}: give a number")
    return found


def _each(values, n, what):
    """n values, where one may stand for all."""
    if values is None or isinstance(values, (str, bytes)) or np.ndim(values) == 0:
        return [values] * n
    values = list(values)
    if len(values) != n:
        raise InputError(f"{len(values)} {what} for {n} embeddings: give one, or one for each")
    return values

"""A gallery in Qdrant: the doors of `Gallery`, on a server or, for tests, in a folder.

What a system measures is one dot product. With g_k the first k parts of a gallery's vector, a
squared Euclidean distance on k of m parts is |q|^2 - 2 s, where

    s = [q_k, 0, ..., 1 in place k, ...] . [g, -|g_1|^2 / 2, ..., -|g_m|^2 / 2],

so that one index of d + m numbers serves all levels. Cosines on parts take a named vector each.
"""

import json
import uuid

import numpy as np

from keras_xreid.errors import InputError, check_number
from keras_xreid.gallery.memory import Found
from keras_xreid.gallery.metric import Metric, unit
from keras_xreid.gallery.told import (
    about_model,
    check_between,
    check_embeddings,
    check_model,
    names_of,
    new_cameras,
    texts_of,
    told_of,
)

AT_A_TIME = 1000  # points a request
SECONDS = 600  # that an exact search may take; the client's own 5 are few
CAMERA = "camera "  # and its name: what the gallery knows of it
WHOLE = "embedding"  # the name of the vector, where there is one


class QdrantGallery:
    """A gallery that lies in Qdrant, a server for many machines; see `Gallery`.

    It has no `from_parquet`, `columns`, `verify` and `compact`: Qdrant keeps its own files.
    Searches are exact. What `add` did is there when it returns; if it fails, what it had sent is
    taken back. Qdrant's local mode is for tests: it is slow above 20,000 rows.

    Args of `create` and `open`:
        place: "http://host:6333", a folder (local mode), or ":memory:".
        model: a `ReIDModel`, or what `about_model` says of one.
        name: of the collection.

    Example:

    >>> gallery = QdrantGallery.create("http://localhost:6333", model, name="station")
    >>> gallery.add(model.embed(images, rates=1), keys=paths, camera=cameras, time=seconds)
    >>> keys, distances = gallery.search(model.embed(queries, rates=4), rates=4, k=10)
    """

    def __init__(self, client, name, header):
        self.client, self.name, self._header = client, name, header
        about = header["model"]
        self.metric = Metric(about["kind"], tuple(about["lengths"]), tuple(about["rates"]))

    # --- opening -------------------------------------------------------------------------------

    @classmethod
    def create(cls, place, model, name="people"):
        """Makes an empty gallery.

        Raises:
            InputError: the collection is there, or nobody answers.
        """
        models, client = _models(), _client(place)
        about = dict(model) if isinstance(model, dict) else about_model(model)
        if _asked(client.collection_exists, name):
            raise InputError(f"{place} has a collection {name}: open it, or give another name")
        if _asked(client.collection_exists, _about(name)):  # of a process that was killed, perhaps
            raise InputError(
                f"{place} has a collection {_about(name)}: delete it, or give another name"
            )
        metric = Metric(about["kind"], tuple(about["lengths"]), tuple(about["rates"]))
        nothing = np.zeros((1, metric.lengths[-1]), "float32")
        sizes = {key: vector.shape[1] for key, vector in _stored(metric, nothing).items()}
        gallery = cls(client, name, {"model": about, "cameras": {}})
        dot = models.Distance.DOT
        try:
            vector = models.VectorParams(size=1, distance=dot)
            _asked(client.create_collection, _about(name), vectors_config=vector)
            gallery._keep()
            vectors = {key: models.VectorParams(size=n, distance=dot) for key, n in sizes.items()}
            _asked(client.create_collection, name, vectors_config=vectors)
        except BaseException:
            for made in (name, _about(name)):
                if client.collection_exists(made):
                    client.delete_collection(made)
            raise
        return gallery

    @classmethod
    def open(cls, place, model=None, name="people", write=True):
        """Opens a gallery; `write` is there for likeness: Qdrant has no lock.

        Raises:
            InputError: no such collection, or one of another model.
        """
        client = place if hasattr(place, "query_points") else _client(place)
        if not all(_asked(client.collection_exists, one) for one in (name, _about(name))):
            raise InputError(f"{place} has no gallery {name}: make one with QdrantGallery.create")
        header = _header(client, name)
        if model is not None:
            check_model(f"{place}, {name},", header["model"], model)
        return cls(client, name, header)

    def refresh(self):
        """Sees the cameras that another process has added since it was opened."""
        header = _header(self.client, self.name)
        if header["model"] != self._header["model"]:
            raise InputError(f"{self.name} was made anew with another model: open it again")
        self._header = header

    def close(self):
        """Lets the client go."""
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self):
        return _asked(self.client.count, self.name, exact=True).count

    @property
    def about(self):
        """What it is: model, cameras with the hash of their statistics, images."""
        return {**self._header, "images": len(self)}

    def _keep(self):
        point = _models().PointStruct(
            id=0, vector=[0.0], payload={"header": json.dumps(self._header)}
        )
        _asked(self.client.upsert, _about(self.name), points=[point], wait=True)

    # --- writing -------------------------------------------------------------------------------

    def add(
        self, embeddings, keys, camera="", time=None, rate=1, sha256=None, statistics=None,
        replace=False,
    ):  # fmt: skip
        """Adds rows; see `Gallery.add`. What was replaced before it failed stays replaced."""
        models = _models()
        embeddings = check_embeddings(embeddings, self.metric.lengths[-1])
        n = len(embeddings)
        keys, *columns = told_of(n, keys, camera, time, rate, sha256)
        columns = dict(zip(("camera", "time", "rate", "sha256"), columns, strict=True))
        ids = [_id(key) for key in keys]
        old = set()
        for start in range(0, n, AT_A_TIME):
            known = _asked(self.client.retrieve, self.name, ids=ids[start : start + AT_A_TIME])
            if known and not replace:
                key = known[0].payload["key"]
                raise InputError(f"{self.name} has {key!r} already: remove it first")
            old |= {point.id for point in known}
        self.refresh()
        known = self._header["cameras"]
        table = new_cameras(known, set(columns["camera"]), statistics or {}, self._has_rows)
        vectors = _stored(self.metric, embeddings)
        # First: a row of an unknown camera is never found. Each on its own: others write, too.
        new = {CAMERA + name: one for name, one in table.items() if known.get(name) != one}
        if new:
            about = _about(self.name)
            _asked(self.client.set_payload, about, payload=new, points=[0], wait=True)
            self._header["cameras"] = table
        sent = []
        try:
            for start in range(0, n, AT_A_TIME):
                rows = range(start, min(start + AT_A_TIME, n))
                points = [
                    models.PointStruct(
                        id=ids[row],
                        vector={key: one[row].tolist() for key, one in vectors.items()},
                        payload={"key": keys[row], **{k: v[row] for k, v in columns.items()}},
                    )
                    for row in rows
                ]
                sent += ids[start : start + AT_A_TIME]
                _asked(self.client.upsert, self.name, points=points, wait=True)
        except BaseException:
            new = [one for one in sent if one not in old]
            if new:
                selected = models.PointIdsList(points=new)
                _asked(self.client.delete, self.name, points_selector=selected, wait=True)
            raise

    def _has_rows(self, camera):
        wanted = self._filter([camera], None)
        return _asked(self.client.count, self.name, count_filter=wanted, exact=True).count > 0

    def remove(self, keys):
        """Removes rows; see `Gallery.remove`."""
        keys = list(dict.fromkeys(texts_of(keys)))
        if not keys:
            return 0
        there = _asked(self.client.retrieve, self.name, ids=[_id(key) for key in keys])
        known = {point.payload["key"] for point in there}
        missing = [key for key in keys if key not in known]
        if missing:
            raise InputError(f"{self.name} has no {missing[0]!r}: nothing was removed")
        selected = _models().PointIdsList(points=[_id(key) for key in keys])
        _asked(self.client.delete, self.name, points_selector=selected, wait=True)
        return len(keys)

    # --- searching -----------------------------------------------------------------------------

    def search(self, queries, rates=None, k=10, only_cameras=None, between=None):
        """Finds the nearest rows of each query; see `Gallery.search`."""
        models = _models()
        queries = check_embeddings(queries, self.metric.lengths[-1])
        check_number("k", k)
        levels = self.metric.levels(rates, len(queries))
        asked, own = [], []
        wanted = self._filter(only_cameras, between)
        for query, level in zip(queries, levels, strict=True):
            name, vector, length = _query(self.metric, query[None], level)
            own.append(length)
            asked.append(
                models.QueryRequest(
                    query=vector.tolist(), using=name, limit=k, filter=wanted,
                    params=models.SearchParams(exact=True), with_payload=["key"],
                )
            )  # fmt: skip
        found = []
        for start in range(0, len(asked), AT_A_TIME):
            part = asked[start : start + AT_A_TIME]
            found += _asked(self.client.query_batch_points, self.name, requests=part)
        keys = [[point.payload["key"] for point in one.points] for one in found]
        distances = [
            self.metric.distances(np.float32([p.score for p in one.points]), length)
            for one, length in zip(found, own, strict=True)
        ]
        return Found(keys, [one.astype("float32").reshape(-1) for one in distances])

    def _filter(self, only_cameras, between):
        models, conditions = _models(), []
        if only_cameras is not None:
            cameras = names_of(only_cameras, self._header["cameras"])
            match = models.MatchAny(any=cameras)
            conditions.append(models.FieldCondition(key="camera", match=match))
        if between is not None:
            first, last = check_between(between)
            conditions.append(  # numbers, not dates: qdrant #5595
                models.FieldCondition(
                    key="time",
                    range=models.Range(gte=-1e300 if first is None else first, lte=last),
                )
            )
        return models.Filter(must=conditions) if conditions else None

    def keys(self):
        """The keys of all rows, sorted."""
        found, place = [], None
        while True:
            points, place = _asked(
                self.client.scroll, self.name, limit=AT_A_TIME, offset=place,
                with_payload=["key"], with_vectors=False,
            )  # fmt: skip
            found += [point.payload["key"] for point in points]
            if place is None:
                return sorted(found)


def _stored(metric, embeddings):
    """The named vectors that are stored of embeddings."""
    if metric.kind == "cosine":
        names = [WHOLE] if len(metric.lengths) == 1 else [f"first-{n}" for n in metric.lengths]
        return {
            name: unit(embeddings[:, :length])
            for name, length in zip(names, metric.lengths, strict=True)
        }
    halves = np.square(metric.norms(embeddings)) / -2
    return {WHOLE: np.concatenate([embeddings, halves], axis=1)}


def _query(metric, query, level):
    """The name and the vector that a query is asked with, and its length."""
    cut, own = metric.query(query, level)
    if metric.kind == "cosine":
        single = len(metric.lengths) == 1
        return (WHOLE if single else f"first-{metric.lengths[level]}"), cut[0], own[0]
    vector = np.zeros(metric.lengths[-1] + len(metric.lengths), "float32")
    vector[: metric.lengths[level]] = cut[0]
    vector[metric.lengths[-1] + level] = 1
    return WHOLE, vector, own[0]


def _header(client, name):
    told = _asked(client.retrieve, _about(name), ids=[0], with_payload=True)
    if not told or "header" not in (told[0].payload or {}):
        raise InputError(f"{_about(name)} says of no model: delete it and {name}, and begin anew")
    payload = told[0].payload
    header = json.loads(payload["header"])
    for name in payload:
        if name.startswith(CAMERA):
            header["cameras"][name.removeprefix(CAMERA)] = payload[name]
    return header


def _models():
    try:
        from qdrant_client import models
    except ImportError:
        raise InputError('this gallery needs qdrant-client: pip install -e ".[qdrant]"') from None
    return models


def _client(place):
    _models()
    from qdrant_client import QdrantClient

    place = str(place)
    if place == ":memory:":
        return QdrantClient(place)
    if "://" in place:
        return QdrantClient(url=place, timeout=SECONDS)
    try:
        return QdrantClient(path=place)
    except RuntimeError as error:  # another process has it
        raise InputError(f"{place} cannot be opened: {error}") from error


def _asked(function, *arguments, **options):
    """Calls the client; what the server does not answer is one line."""
    try:
        return function(*arguments, **options)
    except (ConnectionError, TimeoutError, OSError) as error:
        raise InputError(f"Qdrant does not answer: {error}") from error
    except Exception as error:
        if type(error).__module__.startswith(("qdrant_client", "httpx", "grpc")):
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"Qdrant refuses: {reason or type(error).__name__}") from error
        raise


def _about(name):
    return f"{name}-about"


def _id(key):
    try:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, key))
    except UnicodeEncodeError:  # of a file whose name is bytes in no encoding
        raise InputError(f"Qdrant keeps UTF-8 alone, and {key!r} is not: rename it") from None

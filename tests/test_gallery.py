"""A gallery finds what a slow search finds, and holds what was acknowledged."""

import errno
import functools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
import small

import keras_xreid as xr
from keras_xreid.gallery import memory, nearest, qdrant, store, told
from keras_xreid.gallery.metric import Metric
from keras_xreid.gallery.told import check_model

D = 8
COSINE = {
    "system": "Baseline", "weights_sha256": "a" * 64, "dimension": D, "flip": False,
    "kind": "cosine", "lengths": [D], "rates": [],
}  # fmt: skip
KINDS = {
    "cosine": COSINE,
    "euclidean": {**COSINE, "kind": "euclidean"},
    "squared on prefixes": {**COSINE, "kind": "squared", "lengths": [2, 4, 6, 8],
                            "rates": [4.0, 3.0, 2.0, 1.0]},
    "cosine on prefixes": {**COSINE, "lengths": [2, 4, 6, 8], "rates": [4.0, 3.0, 2.0, 1.0]},
}  # fmt: skip


def vectors(n, seed=0, d=D):
    return np.random.default_rng(seed).normal(size=(n, d)).astype("float32") * 2


def names(n, prefix="k"):
    return [f"{prefix}{i}" for i in range(n)]


ENGINES = {"memory": xr.Gallery, "qdrant": xr.QdrantGallery}
both = pytest.mark.parametrize("engine", ENGINES)


def created(engine, path, about=COSINE, **options):
    """An empty gallery of an engine: the server's, where XREID_QDRANT_URL says where one is."""
    if engine == "memory":
        return xr.Gallery.create(path, about, **options)
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    url = os.environ.get("XREID_QDRANT_URL")
    if url:
        return xr.QdrantGallery.create(url, about, name=f"test-{uuid.uuid4()}")
    return xr.QdrantGallery.create(path, about)


def filled(path, about=COSINE, n=300, engine="memory", **options):
    """Three cameras in turn, a second each."""
    gallery = created(engine, path, about, **options)
    gallery.add(vectors(n), names(n), camera=[i % 3 for i in range(n)], time=np.arange(n), rate=1)
    return gallery


def slow(about, query, gallery, rate):
    """Distances by their definition, one pair at a time, in float64."""
    length = about["lengths"][-1]
    if about["rates"]:
        nearest = min(range(4), key=lambda i: (abs(about["rates"][i] - rate), i))
        length = about["lengths"][nearest]
    q, g = query[:length].astype("float64"), gallery[:, :length].astype("float64")
    if about["kind"] == "cosine":
        return 1 - (g @ q) / np.linalg.norm(q) / np.linalg.norm(g, axis=1)
    squared = ((g - q) ** 2).sum(1)
    return squared if about["kind"] == "squared" else np.sqrt(squared)


@both
@pytest.mark.parametrize("kind", KINDS)
def test_finds_what_a_slow_search_finds(tmp_path, kind, engine, monkeypatch):
    """Over blocks, several queries of several rates, with and without filters."""
    monkeypatch.setattr(nearest, "BLOCK", 32)
    about, n = KINDS[kind], 300
    gallery, queries = filled(tmp_path / "g", about, engine=engine), vectors(7, seed=1)
    rates = np.array([1, 2, 3, 4, 8, 2.4, 3.5])
    camera, seconds = np.arange(n) % 3, np.arange(n)
    for only, between in (
        (None, None), ([1], None), (["0", 2], (20, 200.5)), (None, (290, None)), ([2], (5, 7)),
        (1, (None, 31)),
    ):  # fmt: skip
        keys, distances = gallery.search(queries, rates, 5, only, between)
        wanted = np.ones(n, bool)
        if only is not None:
            wanted &= np.isin(camera, [int(c) for c in np.atleast_1d(only)])
        if between is not None:
            low, high = (between[0] or 0), (n if between[1] is None else between[1])
            wanted &= (seconds >= low) & (seconds <= high)
        for i, query in enumerate(queries):
            apart = np.where(wanted, slow(about, query, vectors(n), rates[i]), np.inf)
            order = np.argsort(apart, kind="stable")[: min(5, wanted.sum())]
            assert keys[i] == [f"k{row}" for row in order]
            np.testing.assert_allclose(distances[i], apart[order], rtol=1e-3, atol=1e-4)


def test_equal_rows_come_in_the_order_in_which_they_were_added(tmp_path, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK", 4)
    gallery = xr.Gallery.create(tmp_path / "g", COSINE)
    gallery.add(np.repeat(vectors(1), 20, 0), names(20))
    assert gallery.search(vectors(1), k=6).keys == [names(6)]
    gallery.remove(["k1", "k3"])
    assert gallery.search(vectors(1), k=3).keys == [["k0", "k2", "k4"]]


@both
def test_rows_are_added_and_removed(tmp_path, engine):
    path = tmp_path / "g"
    with filled(path, n=10, engine=engine) as gallery:
        gallery.add(vectors(2, seed=2), ["x", "é/ü.jpg"], camera="door", sha256=["ab" * 32] * 2)
        assert len(gallery) == 12 and gallery.keys()[-2:] == ["x", "é/ü.jpg"]
        assert gallery.remove(["k3", "x", "x"]) == 2 and len(gallery) == 10
        assert all("k3" not in keys for keys in gallery.search(vectors(10), k=10).keys)
        gallery.add(vectors(1, seed=3), ["k3"])  # free again
        with pytest.raises(xr.InputError, match=r"no 'nobody'.*nothing was removed"):
            gallery.remove(["k1", "nobody"])
    if engine == "qdrant" and os.environ.get("XREID_QDRANT_URL"):
        return  # the name of its collection is random
    again = ENGINES[engine].open(path, COSINE)
    assert len(again) == 11 and sorted(again.keys()) == sorted(
        [*(f"k{i}" for i in range(10)), "é/ü.jpg"]
    )
    assert again.search(vectors(1, seed=3), k=1).keys == [["k3"]]
    found = again.search(vectors(1, seed=2), k=20, only_cameras="door")
    assert found.keys == [["é/ü.jpg"]]
    if engine == "memory":
        assert again.keys()[-1] == "k3" and again.verify() == []
        with pytest.raises(xr.InputError, match="open to read"):
            again.add(vectors(1), ["new"])


@both
def test_rows_are_replaced(tmp_path, engine):
    gallery = filled(tmp_path / "g", n=5, engine=engine)
    gallery.add(vectors(2, seed=2), ["k3", "new"], camera="door", replace=True)
    assert len(gallery) == 6 and sorted(gallery.keys()) == [*names(5), "new"]
    assert gallery.search(vectors(2, seed=2), k=1).keys == [["k3"], ["new"]]
    assert gallery.search(vectors(1), k=9, only_cameras=[0]).keys[0].count("k3") == 0
    gallery.add(vectors(1, seed=3), ["k3"], replace=True)
    with pytest.raises(xr.InputError, match="'k3' already"):
        gallery.add(vectors(2), ["other", "k3"])
    assert len(gallery) == 6 and gallery.search(vectors(1, seed=3), k=1).keys == [["k3"]]
    if engine == "memory":
        assert gallery.verify() == [] and gallery.compact() == 2 and len(gallery) == 6


def test_what_stands_beside_rows(tmp_path):
    """Of all, or of those that are named, in the order in which they are named."""
    gallery = xr.Gallery.create(tmp_path / "g", COSINE)
    assert gallery.about["time"] is None
    cameras, times = {"k0": "a", "k1": "b", "k2": "c"}, (5, None, 2)
    gallery.add(vectors(3), names(3), cameras.values(), time=(t for t in times), rate=[1, 2, None])
    assert gallery.about["time"] == [2.0, 5.0]
    columns = gallery.columns(["k2", "k0"])
    assert columns["key"] == ["k2", "k0"] and columns["camera"] == ["c", "a"]
    assert columns["time"] == [2.0, 5.0] and columns["rate"] == [None, 1.0]
    assert gallery.columns([])["key"] == []
    gallery.remove("k0")
    assert gallery.columns()["key"] == ["k1", "k2"] and gallery.about["time"] == [2.0, 2.0]
    with pytest.raises(xr.InputError, match=r"has no 'k0'$"):
        gallery.columns(["k0"])


@both
def test_what_is_not_known(tmp_path, engine):
    """None and NaN are no time, no rate, no camera; nothing is added of nothing."""
    gallery = created(engine, tmp_path / "g")
    gallery.add(vectors(0), [])
    gallery.add(
        vectors(4), names(4), camera=[None, np.nan, np.float32(2), np.int64(2)],
        time=[None, np.nan, 1, np.float32(2)], rate=[None, np.nan, 1, 2],
        sha256=[None, *["0" * 64] * 3],
    )  # fmt: skip
    assert set(gallery.about["cameras"]) == {"", "2"}
    found = gallery.search(vectors(1), k=9, between=(None, None)).keys[0]
    assert sorted(found) == ["k2", "k3"]
    assert sorted(gallery.search(vectors(1), k=9, only_cameras=np.int64(2)).keys[0]) == ["k2", "k3"]
    assert sorted(gallery.search(vectors(1), k=9, only_cameras={2.0}).keys[0]) == ["k2", "k3"]
    assert gallery.search(vectors(1), only_cameras=[]).keys == [[]]
    assert gallery.remove([]) == 0 and gallery.remove("k2") == 1 and len(gallery) == 3


def test_cameras_of_another_writer():
    """In Qdrant many may write: what one adds does not hide what another added."""
    first = created("qdrant", ":memory:")
    second = xr.QdrantGallery.open(first.client, COSINE, name=first.name)
    first.add(vectors(1), ["a"], camera=1)
    second.add(vectors(1), ["b"], camera=2)
    with pytest.raises(xr.InputError, match="no camera 2"):
        first.search(vectors(1), only_cameras=[2])
    first.refresh()
    assert first.search(vectors(1), only_cameras=[2]).keys == [["b"]]
    assert set(first.about["cameras"]) == {"1", "2"}
    seen = second.refresh

    def late():
        seen()
        first.add(vectors(1), ["c"], camera=3)  # at the same time

    second.refresh = late
    second.add(vectors(1), ["d"], camera=4)
    assert set(xr.QdrantGallery.open(first.client, name=first.name).about["cameras"]) == set("1234")


def test_a_server_where_making_a_gallery_failed(tmp_path, monkeypatch):
    """Nothing is left; of a process that was killed something may be, and is said."""
    first = created("qdrant", ":memory:")
    client = first.client
    monkeypatch.setattr(qdrant, "_client", lambda place: client)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    for owner, name in ((xr.QdrantGallery, "_keep"), (client, "create_collection")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(owner, name, stopped)
            xr.QdrantGallery.create("here", COSINE, name="half")
        assert {one.name for one in client.get_collections().collections} == {
            first.name, f"{first.name}-about"
        }  # fmt: skip
    xr.QdrantGallery.create("here", COSINE, name="half").add(vectors(1), ["a"])
    client.delete(qdrant._about("half"), points_selector=[0])
    with pytest.raises(xr.InputError, match="half-about says of no model"):
        xr.QdrantGallery.open("here", name="half")
    client.delete_collection("half")
    with pytest.raises(xr.InputError, match="no gallery half"):
        xr.QdrantGallery.open("here", name="half")
    with pytest.raises(xr.InputError, match="half-about: delete it, or give another name"):
        xr.QdrantGallery.create("here", COSINE, name="half")
    assert not client.collection_exists("half")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"embeddings": vectors(2, d=5)}, r"\(2, 5\).*\(n, 8\)"),
        ({"embeddings": vectors(2) * np.nan}, "not finite"),
        ({"embeddings": vectors(2) * np.float32(1e20)}, "too large"),
        ({"keys": ["a"]}, "1 keys for 2"),
        ({"keys": ["a", "a"]}, "'a' is given twice"),
        ({"keys": ["a", "k1"]}, "'k1' already"),
        ({"camera": [1, 2, 3]}, "3 cameras for 2"),
        ({"time": [1.0]}, "1 times for 2"),
        ({"time": "noon"}, "time is 'noon'"),
        ({"time": np.inf}, "time is 'inf'"),
        ({"rate": 0.5}, r"rate 0\.5 is below 1"),
        ({"rate": 1e300}, r"rate is '1e\+300'"),  # no float32
        ({"sha256": ["ab", "cd"]}, "'ab' is no SHA-256"),
        ({"sha256": "zz" * 32}, "is no SHA-256"),
        ({"keys": ["a", "\ud800"]}, "UTF-8"),
        ({"keys": ["a", "\udcc3\udca9"]}, "UTF-8"),  # its bytes are those of another text
        ({"keys": "ab"}, "1 keys for 2"),
        ({"statistics": {0: "other"}, "camera": 0}, "camera 0.*embed that camera's images anew"),
    ],
)
@both
def test_nothing_is_added_where_something_is_wrong(tmp_path, options, words, engine):
    gallery = filled(tmp_path / "g", n=5, engine=engine)

    def content():
        if engine == "qdrant":
            return sorted(gallery.keys()), gallery.about
        return {p.name: p.read_bytes() for p in gallery.path.iterdir()}

    before = content()
    with pytest.raises(xr.InputError, match=words):
        gallery.add(**{"embeddings": vectors(2), "keys": ["a", "b"], **options})
    assert content() == before


def test_names_that_are_no_text(tmp_path):
    """A file may be called so; a server's payload may not."""
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    gallery = created("memory", tmp_path / "memory")
    gallery.add(vectors(1), [name])
    assert gallery.keys() == [name]
    gallery = created("qdrant", tmp_path / "qdrant")
    with pytest.raises(xr.InputError, match="keeps UTF-8 alone"):
        gallery.add(vectors(2), ["a", name])
    assert len(gallery) == 0


@both
def test_searches_that_are_refused(tmp_path, engine):
    gallery = filled(tmp_path / "g", n=5, engine=engine)
    for options, words in (
        ({"queries": vectors(1, d=3)}, r"\(1, 3\)"),
        ({"queries": vectors(1) * np.inf}, "not finite"),
        ({"k": 0}, "k is 0"),
        ({"only_cameras": ["garage"]}, "no camera garage.*0, 1, 2"),
        ({"between": (5, 1)}, r"between is 5\.0 to 1\.0"),
        ({"between": (np.nan, 1)}, "no second lies in it"),
        ({"between": (5,)}, "the first and the last second"),
    ):
        with pytest.raises(xr.InputError, match=words):
            gallery.search(**{"queries": vectors(1), **options})
    empty = created(engine, tmp_path / "empty")
    assert empty.search(vectors(2)).keys == [[], []]
    assert gallery.search(vectors(0)).keys == []


def test_a_gallery_knows_its_model(tmp_path):
    model = small.baseline()
    gallery = xr.Gallery.create(tmp_path / "g", model)
    people = small.couples(0)["hr"]
    gallery.add(model.embed(people, 1), names(len(people)))
    gallery.close()
    again = xr.Gallery.open(tmp_path / "g", model)
    found = again.search(model.embed(people, 4), 4, k=4)
    wanted = model.distances(model.embed(people, 4), model.embed(people, 1), query_rates=4)
    for i, distances in enumerate(found.distances):
        np.testing.assert_allclose(distances, np.sort(wanted[i]), atol=1e-5)
    model.network.layers[-1].kernel.assign(model.network.layers[-1].kernel + 1)
    with pytest.raises(xr.InputError, match=r"another model.*weights_sha256"):
        xr.Gallery.open(tmp_path / "g", model)


def test_critics_are_no_part_of_what_embeds():
    model = small.intact()
    before = told.about_model(model)["weights_sha256"]
    model.discriminator.set_weights([w + 1 for w in model.discriminator.get_weights()])
    assert told.about_model(model)["weights_sha256"] == before
    model.generator.set_weights([w + 1 for w in model.generator.get_weights()])
    assert told.about_model(model)["weights_sha256"] != before


@both
@pytest.mark.parametrize("make", [small.adaptive, small.rain])
def test_the_metric_of_each_system(tmp_path, make, engine):
    """Distances are the model's own, whatever it measures."""
    model = make()
    people = small.couples(0)
    gallery = created(engine, tmp_path / "g", model)
    of_hr = model.embed(people["hr"], 1)
    gallery.add(of_hr, names(len(of_hr)))
    rates = np.array([4, 3, 2, 1])
    queries = model.embed(people["lr"], rates)
    wanted = model.distances(queries, of_hr, query_rates=rates)
    keys, distances = gallery.search(queries, rates, k=len(of_hr))
    for i in range(len(queries)):
        order = np.argsort(wanted[i], kind="stable")
        assert keys[i] == [f"k{row}" for row in order]
        np.testing.assert_allclose(distances[i], wanted[i][order], rtol=1e-3, atol=1e-4)


def test_codes_of_8_bits(tmp_path):
    """The best candidates are measured in float32; with fewer rows than those it is exact."""
    gallery = filled(tmp_path / "g", int8=True)
    exact = filled(tmp_path / "exact")
    queries = vectors(9, seed=4)
    for options in ({}, {"only_cameras": [2]}):
        ours, theirs = (one.search(queries, k=7, **options) for one in (gallery, exact))
        assert ours.keys == theirs.keys
        np.testing.assert_allclose(ours.distances, theirs.distances, atol=1e-6)
    codes, scales = nearest.codes_of(np.float32([[1, -2, 0.5]]))
    np.testing.assert_array_equal(codes, [[64, -127, 32]])
    assert scales[0] == pytest.approx(2 / 127)


def test_levels_are_those_of_the_adaptive_system():
    from keras_xreid.models.adaptive import nearest_level

    metric = Metric("squared", (2, 4, 6, 8), (4.0, 3.0, 2.0, 1.0))
    rates = np.array([1, 1.5, 2.5, 3.5, 8, 2.4], "float32")
    ours = nearest_level(rates, [4.0, 3.0, 2.0, 1.0])
    np.testing.assert_array_equal(metric.levels(rates, 6) + 1, np.asarray(ours))
    np.testing.assert_array_equal(metric.levels(None, 2), [3, 3])
    with pytest.raises(xr.InputError, match="rates of queries are nan"):
        metric.levels(np.nan, 2)


# --- files ---------------------------------------------------------------------------------------


def test_one_process_writes(tmp_path):
    gallery = filled(tmp_path / "g", n=5)
    code = f"import keras_xreid as xr; xr.Gallery.open({str(gallery.path)!r}, write=True)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "is being written by another process" in child.stderr
    with pytest.raises(xr.InputError, match="or open here already: wait, or close it"):
        xr.Gallery.open(gallery.path, write=True)
    gallery.close()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_writer_that_nobody_has_any_more_lets_others_write(tmp_path):
    """Not so in a process that was forked meanwhile."""
    gallery = filled(tmp_path / "g", n=5)
    memory._let_go(gallery._lock, os.getpid() + 1)
    with pytest.raises(xr.InputError, match="being written"):
        xr.Gallery.open(gallery.path, write=True)
    del gallery
    with xr.Gallery.open(tmp_path / "g", write=True) as again:
        again.add(vectors(1), ["a"])


@pytest.mark.skipif(os.name == "nt", reason="flock is a POSIX matter")
def test_a_disk_without_locks_is_named(tmp_path, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(xr.InputError, match=r"cannot lock .*g: No locks available$"):
        xr.Gallery.create(tmp_path / "g", COSINE)


def test_what_was_not_acknowledged_is_not_there(tmp_path):
    """A process that was killed leaves bytes behind the committed ones: the next go there."""
    gallery = filled(tmp_path / "g", n=5)
    gallery.close()
    for name in (store.EMBEDDINGS, store.ROWS, store.KEYS):
        with open(gallery.path / name, "ab") as file:
            file.write(b"half of a row")
    assert len(xr.Gallery.open(gallery.path)) == 5
    with xr.Gallery.open(gallery.path, write=True) as again:
        again.add(vectors(2, seed=5), ["a", "b"])
    reader = xr.Gallery.open(gallery.path)
    assert reader.keys() == [*names(5), "a", "b"] and reader.verify() == []
    assert reader.search(vectors(2, seed=5), k=1).keys == [["a"], ["b"]]


def test_damage_is_found(tmp_path):
    gallery = filled(tmp_path / "g", n=5)
    gallery.close()
    content = bytearray((gallery.path / store.EMBEDDINGS).read_bytes())
    content[4 * D * 2 + 1] ^= 1  # a bit of the third row
    (gallery.path / store.EMBEDDINGS).write_bytes(content)
    assert xr.Gallery.open(gallery.path).verify() == ["k2"]
    (gallery.path / store.EMBEDDINGS).write_bytes(content[:-4])
    with pytest.raises(xr.InputError, match="cut short"):
        xr.Gallery.open(gallery.path)
    header = json.loads((gallery.path / store.HEADER).read_text())
    for name, value in (
        ("rows", -1), ("rows", "5"), ("model", {}), ("version", 9), ("int8", 3), ("rows", 2**64),
        ("cameras", {"0": {"number": 7, "statistics": None}}), ("cameras", {"0": {"number": 0}}),
    ):  # fmt: skip
        (gallery.path / store.HEADER).write_text(json.dumps({**header, name: value}))
        with pytest.raises(xr.InputError, match=r"damaged|version 9"):
            xr.Gallery.open(gallery.path)
    with pytest.raises(xr.InputError, match="no gallery"):
        xr.Gallery.open(tmp_path)


@pytest.mark.parametrize("name", [store.NORMS, store.CODES, store.SCALES, store.ROWS])
def test_damage_beside_the_embeddings_is_found(tmp_path, name):
    """What is computed and kept decides ranks, too; what was removed is nobody's loss."""
    gallery = filled(tmp_path / "g", KINDS["cosine on prefixes"], n=5, int8=True)
    gallery.remove(["k1"])
    gallery.close()
    path = gallery.path / name
    content = bytearray(path.read_bytes())
    row = len(content) // 5
    for number in (1, 2):
        content[row * number + 3] ^= 0x40  # of a row's hash, too, by which it is found
    path.write_bytes(content)
    assert xr.Gallery.open(gallery.path).verify() == ["k2"]


def test_a_damaged_camera_is_said(tmp_path):
    """Of a row that was removed it is nobody's loss."""
    gallery = filled(tmp_path / "g", n=5)
    gallery.close()
    path, row = gallery.path / store.ROWS, store.ROW.itemsize
    content = bytearray(path.read_bytes())
    content[row * 3 + store.ROW.fields["camera"][1]] = 99
    path.write_bytes(content)
    with xr.Gallery.open(gallery.path, write=True) as again:
        for call in (again.columns, lambda: again.search(vectors(1), only_cameras=[1])):
            with pytest.raises(xr.InputError, match="is damaged: xreid gallery verify"):
                call()
        assert again.verify() == ["k3"]
        again.remove("k3")
        assert again.columns()["camera"] == ["0", "1", "2", "1"]
        assert again.search(vectors(1), only_cameras=[0]).keys == [["k0"]]


def test_a_gallery_made_anew_with_another_model(tmp_path):
    """Who has it open does not search it on with embeddings of the old one."""
    gallery = filled(tmp_path / "g", n=5)
    gallery.close()
    reader, old = xr.Gallery.open(gallery.path, COSINE), gallery._header
    shutil.rmtree(gallery.path)
    other = filled(tmp_path / "g", {**COSINE, "weights_sha256": "b" * 64}, n=9)
    with pytest.raises(xr.InputError, match="made anew with another model: open it again"):
        reader.refresh()
    assert len(reader) == 5
    other.remove("k0")
    other.compact()
    with pytest.raises(xr.InputError, match="made anew with another model: open it again"):
        xr.Gallery(gallery.path, old)  # its header was read before


@pytest.mark.parametrize(
    "name, at, wrong",
    [
        (store.KEYS, 2 * 3 + 1, 1),  # the key, by which a row is removed
        (store.ROWS, 3 * store.ROW.itemsize + store.ROW.fields["key_end"][1], 2),  # and the next
        (store.ROWS, 9 * store.ROW.itemsize + store.ROW.fields["key_end"][1] + 3, 1),
        (store.ROWS, 3 * store.ROW.itemsize + store.ROW.fields["key_end"][1] + 7, 2),
        (store.ROWS, 3 * store.ROW.itemsize + store.ROW.fields["camera"][1] + 3, 1),
        (store.EMBEDDINGS, 4 * D * 3 + 1, 1),
    ],
)
def test_damaged_rows_are_compacted_away(tmp_path, name, at, wrong):
    with filled(tmp_path / "g", n=10) as gallery:
        gallery.remove("k7")
    path = gallery.path / name
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)
    with xr.Gallery.open(gallery.path, write=True) as again:
        assert len(again.verify()) == wrong
        assert again.compact() == 1 + wrong and len(again) == 9 - wrong
        assert again.verify() == [] and again.compact() == 0
        lost = sorted(set(names(10)) - set(again.keys()))
        assert len(lost) == 1 + wrong
        again.add(vectors(len(lost)), lost)
    whole = xr.Gallery.open(gallery.path)
    assert sorted(whole.keys()) == names(10) and whole.verify() == []


@both
def test_a_camera_without_rows_takes_other_statistics(tmp_path, engine):
    gallery = created(engine, tmp_path / "g")
    gallery.add(vectors(3), names(3), camera=[1, 1, 2], statistics={1: "x", 2: "z"})
    gallery.remove("k0")
    with pytest.raises(xr.InputError, match=r"camera 1.*embed that camera's images anew"):
        gallery.add(vectors(1), ["new"], camera=1, statistics={1: "y"})
    gallery.remove("k1")
    if engine == "memory":
        assert set(gallery.about["cameras"]) == {"2"}
        gallery.compact()
    gallery.add(vectors(1), ["new"], camera=1, statistics={1: "y"})
    told = {camera: one["statistics"] for camera, one in gallery.about["cameras"].items()}
    assert told == {"1": "y", "2": "z"}
    assert gallery.search(vectors(1), only_cameras=[1]).keys == [["new"]]


def test_a_gallery_that_was_closed(tmp_path):
    gallery = filled(tmp_path / "g", n=5)
    gallery.close()
    about = functools.partial(getattr, gallery, "about")
    for call in (lambda: gallery.search(vectors(1)), gallery.keys, gallery.verify, about):
        with pytest.raises(xr.InputError, match="was closed"):
            call()


def test_made_after_a_process_that_was_killed(tmp_path):
    """A lock and unfinished files are no gallery; a writer clears the latter away."""
    path = tmp_path / "g"
    path.mkdir()
    for name in (store.LOCK, f".{store.HEADER}.123.tmp"):
        (path / name).write_text("{")
    filled(path, n=5).close()
    xr.Gallery.open(path, write=True).close()
    assert not list(path.glob(".*.tmp"))
    with pytest.raises(xr.InputError, match="is there already"):
        xr.Gallery.create(path, COSINE)
    with pytest.raises(xr.InputError, match="damaged"):
        xr.Gallery.create(tmp_path / "bad", {"kind": "cosine"})
    assert not (tmp_path / "bad").exists()


def test_made_by_two_at_once(tmp_path, monkeypatch):
    """Who gets the lock second finds a gallery, and leaves it alone."""
    path, locked = tmp_path / "g", store.locked

    def late(place):
        monkeypatch.setattr(store, "locked", locked)
        filled(path, n=5).close()
        return locked(place)

    monkeypatch.setattr(store, "locked", late)
    with pytest.raises(xr.InputError, match="is there already"):
        xr.Gallery.create(path, COSINE)
    assert len(xr.Gallery.open(path, write=True)) == 5


def test_replaced_or_as_before(tmp_path, monkeypatch):
    """Stopped before the one header that says so, a replacing `add` has done nothing."""
    gallery = filled(tmp_path / "g", n=5)
    before, commit = gallery.columns(), store.commit

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "commit", stopped)
    with pytest.raises(KeyboardInterrupt):
        gallery.add(vectors(2, seed=2), ["k1", "k2"], replace=True)
    monkeypatch.setattr(store, "commit", commit)
    assert gallery.columns() == xr.Gallery.open(gallery.path).columns() == before
    gallery.add(vectors(1, seed=3), ["k1"], replace=True)
    assert sorted(gallery.keys()) == names(5) and gallery.verify() == []


def test_interrupted_after_the_rows_were_written(tmp_path, monkeypatch):
    """What the header says is there stays: a reader may have it mapped."""
    gallery, use = filled(tmp_path / "g", n=5), xr.Gallery._use

    def interrupted(*_):
        raise KeyboardInterrupt

    def add_late(key):
        monkeypatch.setattr(xr.Gallery, "_use", interrupted)
        with pytest.raises(KeyboardInterrupt):
            gallery.add(vectors(1, seed=1), [key])
        monkeypatch.setattr(xr.Gallery, "_use", use)

    add_late("late")
    with pytest.raises(xr.InputError, match="'late' already"):
        gallery.add(vectors(1, seed=2), ["late"])
    gallery.add(vectors(1, seed=2), ["later"])
    assert gallery.keys() == [*names(5), "late", "later"] and gallery.verify() == []
    add_late("last")  # as many rows as before it are left
    assert gallery.remove("k0") == gallery.compact() == 1
    with pytest.raises(xr.InputError, match="'last' already"):
        gallery.add(vectors(1, seed=2), ["last"])


# --- compacting ----------------------------------------------------------------------------------


def data_of(path):
    """The files of a gallery's rows, by the names that they had at first."""
    found = {p.name.rpartition("-")[2]: p.read_bytes() for p in path.iterdir()}
    return {name: found[name] for name in sorted(set(found) - {store.HEADER, store.LOCK})}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("int8", [False, True])
def test_compacted_as_if_removed_rows_had_never_been(tmp_path, kind, int8, monkeypatch):
    """Byte by byte, twice; who reads meanwhile goes on, and what is added then is there."""
    monkeypatch.setattr(memory, "BLOCK", 16)
    about, n = KINDS[kind], 100
    gallery = filled(tmp_path / "g", about, n, int8=int8)
    assert gallery.compact() == 0 and not list(gallery.path.glob("1-*"))
    reader = xr.Gallery.open(gallery.path)
    queries, gone = vectors(3, seed=1), [0, 3, 4, 17, 50, 99]
    for generation, part in enumerate((gone[:4], gone[4:]), start=1):
        before = reader.search(queries, 1, k=200)
        gallery.remove([f"k{i}" for i in part])
        size = sum(p.stat().st_size for p in gallery.path.iterdir())
        assert gallery.compact() == len(part) and gallery.about["removed"] == 0
        assert sum(p.stat().st_size for p in gallery.path.iterdir()) < size
        assert {p.name.partition("-")[0] for p in gallery.path.glob("*-*")} == {str(generation)}
        again = reader.search(queries, 1, k=200)
        assert again.keys == before.keys  # of the old files
        np.testing.assert_array_equal(again.distances, before.distances)
        reader.refresh()
        assert len(reader) == len(gallery) == n - sum(map(len, (gone[:4], gone[4:])[:generation]))
    kept = [i for i in range(n) if i not in gone]
    fresh = xr.Gallery.create(tmp_path / "fresh", about, int8=int8)
    fresh.add(vectors(n)[kept], [f"k{i}" for i in kept], [i % 3 for i in kept], kept, 1)
    assert data_of(gallery.path) == data_of(fresh.path) and gallery.verify() == []
    for one in (gallery, fresh):
        with pytest.raises(xr.InputError, match="'k1' already"):
            one.add(vectors(1), ["k1"])
        one.add(vectors(1, seed=9), ["k3"])  # free again
        one.remove(["k7"])
    assert data_of(gallery.path) == data_of(fresh.path)
    for options in ({}, {"only_cameras": [1], "between": (10, 60)}):
        reader.refresh()
        ours, theirs = (one.search(queries, 2, 9, **options) for one in (reader, fresh))
        assert ours.keys == theirs.keys
        np.testing.assert_array_equal(ours.distances, theirs.distances)
    gallery.remove(gallery.keys())
    gallery.compact()
    assert len(gallery) == 0 and set(map(len, data_of(gallery.path).values())) == {0}
    gallery.add(vectors(1), ["first"])
    assert xr.Gallery.open(gallery.path).keys() == ["first"]


def test_opened_while_it_was_compacted(tmp_path):
    """The header was read before, and the files it names are gone: the newer one is taken."""
    gallery = filled(tmp_path / "g", n=5)
    gallery.remove("k0")
    old = dict(gallery._header)
    gallery.compact()
    assert xr.Gallery(gallery.path, old).keys() == names(5)[1:]
    with pytest.raises(xr.InputError, match="open to read"):
        xr.Gallery.open(gallery.path).compact()


def test_no_room_to_compact(tmp_path, monkeypatch):
    gallery, sync = filled(tmp_path / "g", n=5), os.fsync
    gallery.remove("k0")
    before = {p.name: p.read_bytes() for p in gallery.path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(xr.InputError, match="No space left"):
        gallery.compact()
    assert {p.name: p.read_bytes() for p in gallery.path.iterdir()} == before
    monkeypatch.setattr(os, "fsync", sync)
    assert gallery.keys() == names(5)[1:] and gallery.compact() == 1


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
def test_killed_while_it_is_compacted(tmp_path, monkeypatch):
    """At each step that the disk sees: the old or the new is there, whole, and nothing else."""
    fork, ends = multiprocessing.get_context("fork"), []

    def compacts(path, moment):
        left = [moment]

        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        gallery = xr.Gallery.open(path, write=True)
        for owner, name in ((os, "fsync"), (os, "replace"), (type(path), "unlink")):
            setattr(owner, name, counted(getattr(owner, name)))
        gallery.compact()

    for moment in range(99):
        path = tmp_path / str(moment)
        with filled(path, n=20) as gallery:
            gallery.remove(["k0", "k11"])
        child = fork.Process(target=compacts, args=(path, moment))
        child.start()
        child.join()
        wanted = [key for key in names(20) if key not in ("k0", "k11")]
        reader = xr.Gallery.open(path)
        assert reader.keys() == wanted and reader.verify() == []
        ends.append(reader.about["generation"])
        with xr.Gallery.open(path, write=True) as again:
            prefixes = {p.name.rpartition("-")[0] for p in path.glob("*.*") if p.name[0] != "."}
            assert prefixes == {"1", ""} if ends[-1] else prefixes == {""}
            assert reader.search(vectors(1), k=30).keys[0] == again.search(vectors(1), k=30).keys[0]
            assert again.compact() == (0 if ends[-1] else 2)
            again.add(vectors(1), ["k0"])
            assert again.verify() == [] and len(again) == 19
        if not child.exitcode:
            break
    # Three files, the header, its name and its folder; then the old ones go.
    assert ends[:4] == [0] * 4 and ends[-4:] == [1] * 4 and sorted(ends) == ends


def test_no_gallery_for_embeddings_of_each_rate():
    with pytest.raises(xr.InputError, match="OnePerRate embeds the gallery anew"):
        told.about_model(small.one_per_rate())


def adds(path, pipe):
    """A writer that says after each batch that it is there."""
    gallery = xr.Gallery.open(path, write=True)
    for batch in range(10_000):
        keys = [f"{os.getpid()}-{batch}-{i}" for i in range(5)]
        gallery.add(vectors(5, seed=batch), keys)
        pipe.send(keys)


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
def test_killed_while_rows_are_added(tmp_path):
    """Exactly the rows acknowledged are there, and perhaps the batch whose word was cut off."""
    path = tmp_path / "g"
    xr.Gallery.create(path, COSINE).close()
    rng, acknowledged = np.random.default_rng(0), []
    fork = multiprocessing.get_context("fork")
    for _ in range(4):
        ours, theirs = fork.Pipe()
        child = fork.Process(target=adds, args=(path, theirs))
        child.start()
        assert ours.poll(60)  # however busy the machine is, some rows are added
        time.sleep(rng.uniform(0, 0.35))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        theirs.close()
        try:
            while ours.poll():
                acknowledged += ours.recv()
        except EOFError:
            pass
        gallery = xr.Gallery.open(path)
        there = gallery.keys()
        assert there[: len(acknowledged)] == acknowledged
        assert len(there) - len(acknowledged) in (0, 5) and gallery.verify() == []
        acknowledged = there
    assert len(acknowledged) >= 20


@pytest.mark.skipif(os.name == "nt", reason="fork is a POSIX matter")
def test_readers_see_whole_batches(tmp_path):
    path = tmp_path / "g"
    xr.Gallery.create(path, COSINE).close()
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=adds, args=(path, theirs))
    child.start()
    try:
        reader, seen = xr.Gallery.open(path), set()
        until = time.time() + 1.5
        while time.time() < until:
            while ours.poll():  # or the writer waits
                ours.recv()
            reader.refresh()
            seen.add(len(reader))
            for batch in (0, len(reader) // 5 - 1):
                if len(reader):
                    query = vectors(5, seed=batch)
                    found = reader.search(query, k=1)
                    assert [k[0].split("-")[1:] for k in found.keys] == [
                        [str(batch), str(i)] for i in range(5)
                    ]
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert len(seen) > 3 and all(count % 5 == 0 for count in seen)


def test_of_another_model_the_size_is_said_before_the_hash():
    known = {"weights_sha256": "a" * 64, "image_size": [128, 64], "flip": True}
    other = {"weights_sha256": "b" * 64, "image_size": [256, 128], "flip": True}
    with pytest.raises(xr.InputError, match=r"its image_size is \[128, 64\], here it is \[256"):
        check_model("a gallery", known, other)
    with pytest.raises(xr.InputError, match="its weights_sha256 is aaaa"):
        check_model("a gallery", known, {**known, "weights_sha256": "b" * 64})

import collections
import hashlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_xreid.data import datasets
from keras_xreid.data.datasets import DataSet, Record, hide_labels, hold_out_people, load
from keras_xreid.data.resolution import manifest_rows, write_manifest
from keras_xreid.errors import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data" / "market1501-501ids"


def write_image(path, size=(16, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 100, np.uint8)).save(path)


@pytest.fixture
def market(tmp_path):
    """Three training people and two test people, with junk, distractors and a Thumbs.db."""
    root = tmp_path / "market"
    names = {
        "bounding_box_train": [
            f"{person:04d}_c{camera}s1_{person:06d}_0{camera}.jpg"
            for person in (2, 7, 10)
            for camera in (1, 2)
        ]
        + ["0000_c1s1_000009_01.jpg", "-1_c1s1_000009_01.jpg"],
        "query": ["0001_c1s1_001051_00.jpg", "0003_c6s4_001051_00.jpg"],
        "bounding_box_test": [
            "0001_c2s1_000151_01.jpg",
            "0003_c3s3_000151_01.jpg",
            "0000_c4s6_000151_01.jpg",
            "-1_c5s3_000151_01.jpg",
        ],
    }
    for folder, files in names.items():
        for name in files:
            write_image(root / folder / name)
        (root / folder / "Thumbs.db").write_bytes(b"not an image")
    return root


def persons(records):
    return [record.person for record in records]


def message(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Record ----------------------------------------------------------------------------------


def test_read_gives_rgb_at_the_stored_size(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = Record(str(tmp_path / "a.png"), 1, 1).read()
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_read_turns_other_modes_into_rgb(tmp_path, mode):
    Image.new("RGB", (5, 7), (102, 102, 102)).convert(mode).save(tmp_path / "a.png")
    image = Record(str(tmp_path / "a.png"), 1, 1).read()
    assert image.shape == (7, 5, 3)
    assert (image == 102).all()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "folder"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_read_names_a_bad_file(tmp_path, damage, suffix):
    path = tmp_path / f"bad.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("<html>404</html>")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    assert str(path) in message(Record(str(path), 1, 1).read)


# --- Market-1501 -----------------------------------------------------------------------------


def test_market_reads_person_and_camera_and_drops_junk(market):
    data = load("market1501", market)
    assert data.name == "market1501"
    assert persons(data.train) == [2, 2, 7, 7, 10, 10]
    assert [record.camera for record in data.train] == [1, 2] * 3
    assert [(r.person, r.camera) for r in data.query] == [(1, 1), (3, 6)]
    # The distractor (0) stays in the gallery, junk (-1) nowhere.
    assert sorted((r.person, r.camera) for r in data.gallery) == [(0, 4), (1, 2), (3, 3)]
    assert data.train[0].read().shape == (16, 8, 3)


def test_market_needs_only_the_folders_asked_for(market):
    for path in (market / "bounding_box_train").iterdir():
        path.unlink()
    (market / "bounding_box_train").rmdir()
    data = load("market1501", market, need=("query", "gallery"))
    assert (len(data.train), len(data.query), len(data.gallery)) == (0, 2, 3)
    assert "no bounding_box_train/" in message(load, "market1501", market)


def test_market_wrong_folder_says_what_was_found_and_where_to_look(market, tmp_path):
    above = message(load, "market1501", market.parent)
    assert "no query/" in above
    assert "found 1 folders (market)" in above
    assert f"{market} holds them" in above
    below = message(load, "market1501", market / "query")
    assert "2 images of 2 people by 2 cameras and 1 other files (such as Thumbs.db)" in below
    assert f"{market} holds them" in below
    nowhere = message(load, "market1501", tmp_path / "nowhere")
    assert "does not exist" in nowhere and "12,936 images of 751 people" in nowhere
    assert "is a file" in message(load, "market1501", market / "query" / "Thumbs.db")


def test_market_folder_of_another_layout(tmp_path):
    for folder in datasets.MARKET_FOLDERS.values():
        write_image(tmp_path / folder / "0001_c2_f0046182.jpg")  # DukeMTMC-reID's names
    found = message(load, "market1501", tmp_path)
    assert "1 other files (such as 0001_c2_f0046182.jpg)" in found
    assert "0001_c1s1_001051_00.jpg" in found


def test_market_names_an_empty_file(market):
    empty = market / "query" / "0005_c1s1_001051_00.jpg"
    empty.write_bytes(b"")
    assert str(empty) in message(load, "market1501", market)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs {SHARED}")
def test_real_people_are_counted_as_described():
    data = load("market1501", SHARED)
    assert (len(data.train), len(data.query), len(data.gallery)) == (7544, 424, 1221)
    assert len(set(persons(data.train))) == 401
    assert set(persons(data.query)) == set(persons(data.gallery))
    assert len(set(persons(data.query))) == 100
    assert {record.camera for record in data.train} == {1, 2, 3, 4, 5, 6}
    dev = load("market1501", SHARED, split="dev")
    assert len(set(persons(dev.train))) == 351
    assert len(set(persons(dev.query))) == 50
    assert len(dev.train) + len(dev.query) + len(dev.gallery) == 7544


# --- load ------------------------------------------------------------------------------------


def test_load_refuses_what_it_does_not_know(market):
    assert "market1501, csv, synthetic" in message(load, "market", market)
    assert "'val'" in message(load, "market1501", market, split="val")
    assert "limit is 0" in message(load, "market1501", market, limit=0)
    assert "--data-dir" in message(load, "market1501")


def test_limit_takes_the_first_people(market):
    data = load("market1501", market, limit=1)
    assert persons(data.train) == [2, 2]
    assert persons(data.query) == [1]
    assert persons(data.gallery) == [1]  # neither the second person nor the distractor
    assert persons(load("market1501", market, limit=1, need=("gallery",)).gallery) == [1]


def test_synthetic_is_drawn_at_the_size_asked_for(monkeypatch, tmp_path):
    calls = []

    def load_synthetic(image_size):
        calls.append(image_size)
        record = Record(str(tmp_path / "a.png"), "a", 1)
        return DataSet("synthetic", [record], [record], [record])

    module = types.SimpleNamespace(load_synthetic=load_synthetic)
    monkeypatch.setitem(sys.modules, "keras_xreid.data.synthetic", module)
    data = load("synthetic", image_size=[256, 128], need=("query", "gallery"))
    assert calls == [(256, 128)]
    assert (len(data.train), len(data.query)) == (0, 1)
    assert data.root == str(tmp_path)


# --- dev split -------------------------------------------------------------------------------


def many_people(people, cameras=(1, 2), images=3):
    train = [
        Record(f"train/{person:04d}_{camera}_{i}.jpg", person, camera)
        for person in range(1, people + 1)
        for camera in cameras
        for i in range(images)
    ]
    return DataSet("market1501", train, [], [])


def test_dev_holds_out_people_by_the_hash_of_their_name():
    data = many_people(120)
    dev = hold_out_people(data)
    by_hash = sorted(range(1, 121), key=lambda person: hashlib.sha256(b"%04d" % person).hexdigest())
    assert set(persons(dev.query)) == set(persons(dev.gallery)) == set(by_hash[:50])
    assert set(persons(dev.train)) == set(by_hash[50:])
    assert dev.split == "dev"
    # The order in which the file system lists them plays no part.
    shuffled = DataSet("market1501", data.train[::-1], [], [])
    assert hold_out_people(shuffled).query == dev.query


def test_dev_query_is_the_first_image_of_each_person_and_camera():
    dev = hold_out_people(many_people(4, cameras=(1, 5), images=3))
    assert len(set(persons(dev.train))) == 2  # of few people half are held out
    assert len(dev.query) == 4 and len(dev.gallery) == 8
    assert all(record.path.endswith("_0.jpg") for record in dev.query)
    assert len({(record.person, record.camera) for record in dev.query}) == 4
    assert not set(dev.query) & set(dev.gallery)


def test_dev_reads_the_training_people_only(market):
    for folder in ("query", "bounding_box_test"):
        (market / folder).rename(market / f"{folder}-away")
    dev = load("market1501", market, split="dev", need=("query", "gallery"))
    assert dev.train == []
    assert len(set(persons(dev.query))) == 1
    assert "2 or more" in message(hold_out_people, many_people(1))


# --- hidden labels ---------------------------------------------------------------------------


@pytest.fixture
def labelled():
    """10 images of anna, 5 of ben, 2 of cleo, mixed."""
    people = ["ben", "anna", "cleo", "anna"] * 2 + ["anna"] * 6 + ["ben"] * 3
    return [Record(f"{i}.png", person, i % 3, size=(8, 4)) for i, person in enumerate(people)]


@pytest.mark.parametrize(
    "fraction, kept",
    [
        (0.2, {"anna": 2, "ben": 2}),  # 2, 1 and 0.4 images: nobody keeps a single one
        (0.4, {"anna": 4, "ben": 2, "cleo": 2}),
        (0.6, {"anna": 6, "ben": 3, "cleo": 2}),
        (0, {}),
        (1, {"anna": 10, "ben": 5, "cleo": 2}),
    ],
)
def test_a_share_of_each_persons_labels_is_kept(labelled, fraction, kept):
    found = hide_labels(labelled, fraction, seed=3)
    assert collections.Counter(persons(found)) - collections.Counter({None: 17}) == kept
    for record, original in zip(found, labelled, strict=True):
        assert record.person in (None, original.person)
        assert (record.path, record.camera, record.size) == (
            original.path, original.camera, original.size
        )  # fmt: skip


def test_labels_are_hidden_by_the_seed_and_nested(labelled):
    def kept(fraction, seed):
        found = hide_labels(labelled, fraction, seed)
        return {r.path for r in found if r.person is not None}

    assert kept(0.4, 3) == kept(0.4, 3)
    assert len({frozenset(kept(0.4, seed)) for seed in range(5)}) > 1
    for less, more in ((0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
        assert kept(less, 3) < kept(more, 3)
    # What is hidden already stays so.
    assert None not in persons(hide_labels(labelled, 1, 3))
    assert persons(hide_labels(hide_labels(labelled, 0, 3), 1, 3)) == [None] * 17


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_share_of_labels_is_one(labelled, fraction):
    assert f"labeled fraction is {fraction}" in message(hide_labels, labelled, fraction, 0)


def test_a_manifest_says_which_labels_were_hidden(tmp_path):
    for i in range(4):
        write_image(tmp_path / f"{i}.png")
    records = [Record(str(tmp_path / f"{i}.png"), 7, 1) for i in range(4)]
    data = DataSet("csv", hide_labels(records, 0.5, 0), [], [], root=str(tmp_path))
    write_manifest(tmp_path / "manifest.jsonl", manifest_rows(data, (1,), train_rates=(2,)))
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    found = {row["path"]: row["person"] for row in map(json.loads, lines)}
    assert list(found.values()).count(None) == list(found.values()).count(7) == 2
    assert found == {f"{i}.png": record.person for i, record in enumerate(data.train)}


# --- csv -------------------------------------------------------------------------------------

GOOD_CSV = """path,person,camera,split,rate
in/a.jpg,anna,1,train,
in/b.jpg,anna,2,train,
in/q.jpg,ben,1,query,4
in/g.jpg,ben,2,gallery,1
"""


@pytest.fixture
def people_csv(tmp_path):
    for name in "abqg":
        write_image(tmp_path / "in" / f"{name}.jpg")
    path = tmp_path / "people.csv"
    path.write_text(GOOD_CSV)
    return path


def test_csv_reads_a_file_or_its_folder(people_csv):
    data = load("csv", people_csv)
    assert data == load("csv", people_csv.parent)
    assert [(r.person, r.camera, r.rate) for r in data.train] == [
        ("anna", 1, None),
        ("anna", 2, None),
    ]
    assert [(r.person, r.camera, r.rate) for r in data.query] == [("ben", 1, 4)]
    assert data.gallery[0].read().shape == (16, 8, 3)
    assert data.root == str(people_csv.parent)


def test_csv_rate_is_optional_and_paths_may_be_absolute(people_csv):
    lines = ["path,person,camera,split"] + [
        f"{people_csv.parent / 'in' / 'a.jpg'},anna,1,{split}" for split in datasets.ROLES
    ]
    people_csv.write_text("\n".join(lines), encoding="utf-8-sig")  # as Excel writes it
    assert load("csv", people_csv).query[0].rate is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("in/q.jpg", "in/x.jpg", ["line 4", "x.jpg"]),
        ("in/q.jpg", "in", ["line 4", "no file"]),
        (",query,", ",probe,", ["line 4", "'probe'", "train, query, gallery"]),
        ("ben,1,query", "ben,left,query", ["line 4", "'left'"]),
        ("ben,1,query", ",1,query", ["line 4", "person is empty"]),
        ("query,4", "query,0.5", ["line 4", "'0.5'"]),
        ("query,4", "query,0", ["line 4", "'0'"]),
        ("path,person", "file,person", ["line 1", "path"]),
        ("path,person,camera,split,rate", "path;person;camera;split", ["path;person"]),
        ("in/q.jpg,ben,1,query,4\n", "", ["split query"]),
        ("in/q.jpg,ben,1,query,4", "in/q.jpg", ["line 4", "person is empty"]),
    ],
)
def test_csv_errors_name_the_line(people_csv, old, new, expected):
    people_csv.write_text(GOOD_CSV.replace(old, new, 1))
    found = message(load, "csv", people_csv)
    assert str(people_csv) in found
    for words in expected:
        assert words in found


def test_csv_file_itself_at_fault(people_csv, tmp_path):
    assert "no file or folder" in message(load, "csv", tmp_path / "nowhere.csv")
    assert "found none" in message(load, "csv", tmp_path / "in")
    (tmp_path / "more.csv").write_text(GOOD_CSV)
    assert "more.csv, people.csv" in message(load, "csv", tmp_path)
    people_csv.write_text("")
    assert "found nothing" in message(load, "csv", people_csv)
    people_csv.write_bytes(b"\xff\xfe\x00p")
    assert "UTF-8" in message(load, "csv", people_csv)


def test_csv_names_an_empty_image(people_csv):
    (people_csv.parent / "in" / "b.jpg").write_bytes(b"")
    assert "b.jpg is empty" in message(load, "csv", people_csv)

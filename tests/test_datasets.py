import collections
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from keras_xreid.data import datasets, manifest
from keras_xreid.data.batches import check_people
from keras_xreid.data.datasets import DataSet, Record, hide_labels, hold_out_people, load
from keras_xreid.data.manifest import manifest_rows, write_manifest
from keras_xreid.data.people import people_in
from keras_xreid.data.protocols import apply_protocol, build
from keras_xreid.data.readers.market import MARKET_FOLDERS
from keras_xreid.errors import InputError
from keras_xreid.evaluation.ranking import evaluate_ranking

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


def test_people_of_a_tree_who_are_trained_on_and_sought(market, caplog):
    load("market1501", market)
    assert not [said for said in caplog.messages if "trained on" in said]
    caplog.clear()
    again, first = market / "query" / "0007_c1s1_001051_00.jpg", "0007_c1s1_000007_01.jpg"
    write_image(again)
    load("market1501", market)
    assert [said for said in caplog.messages if "trained on" in said] == [
        f"market1501, {again}: 7 is to be found, and trained on in "
        f"{market / 'bounding_box_train' / first}; of such people there are 1, and their scores "
        "say nothing of people never seen"
    ]
    caplog.clear()
    load("market1501", market, need=("query", "gallery"))
    assert not [said for said in caplog.messages if "trained on" in said]
    mlr = market.parent / "mlr"
    for role, camera in (("train", 1), ("query", 0), ("gallery", 1)):
        write_image(mlr / role / f"0005_c{camera}_0.jpg")
    caplog.clear()
    load("mlr", mlr)
    assert "0005 is to be found, and trained on in" in caplog.text


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


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_read_turns_a_picture_upright(tmp_path, orientation, turned):
    """What is stored is turned to the left, by so many quarters."""
    upright = np.zeros((32, 16, 3), "uint8")
    upright[:16], upright[16:, :8] = 255, 128  # a light sky, a grey thing below on the left
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = np.ascontiguousarray(np.rot90(upright, turned))
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif)
    image = Record(str(tmp_path / "a.jpg"), 1, 1).read()
    assert image.shape == upright.shape
    np.testing.assert_allclose(image, upright, atol=4)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_read_scales_16_bits_of_grey(tmp_path, suffix):
    grey = np.array([[0, 257, 128 * 257, 128 * 257 + 100, 65535]], "uint16")
    Image.fromarray(grey).save(tmp_path / f"a.{suffix}")
    image = Record(str(tmp_path / f"a.{suffix}"), 1, 1).read()
    assert image.shape == (1, 5, 3) and image.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(image[0, :, channel], [0, 1, 128, 128, 255])


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
    # The folders inside, with their own images; where to look; what is expected.
    assert "; found no images, market/ with no images; expected" in above
    assert f"{market} holds them: give that folder" in above
    assert "12,936 images of 751 people" in above
    below = message(load, "market1501", market / "query")
    assert "2 images of 2 people by 2 cameras and 1 other file such as Thumbs.db" in below
    assert f"{market} holds them" in below
    nowhere = message(load, "market1501", tmp_path / "nowhere")
    assert "does not exist" in nowhere and "12,936 images of 751 people" in nowhere
    assert "is a file" in message(load, "market1501", market / "query" / "Thumbs.db")


def test_market_folder_of_another_layout(tmp_path):
    for folder in MARKET_FOLDERS.values():
        write_image(tmp_path / folder / "0001_c2_f0046182.jpg")  # DukeMTMC-reID's names
    found = message(load, "market1501", tmp_path)
    assert "1 other file such as 0001_c2_f0046182.jpg" in found
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
    found = set(persons(dev.query))
    for fold in (1, 2):
        other = load("market1501", SHARED, split="dev", fold=fold)
        assert len(set(persons(other.query))) == 50 and not found & set(persons(other.query))
        found |= set(persons(other.query))


def test_market_renamed_and_doubly_nested(market, tmp_path):
    (market / "bounding_box_test").rename(market / "gallery")
    renamed = message(load, "market1501", market)
    assert f"no bounding_box_test/ in {market}" in renamed
    assert "gallery/ with 4 images of 4 people by 4 cameras and 1 other file such as Thu" in renamed
    (market / "gallery").rename(market / "bounding_box_test")
    outer = tmp_path / "outer" / "Market-1501"
    outer.mkdir(parents=True)
    market.rename(outer / "market")
    nested = message(load, "market1501", tmp_path / "outer")
    assert f"{outer / 'market'} holds them: give that folder" in nested


def test_market_half_empty(market, caplog):
    kept = load("market1501", market)
    # A part of the data set is no error: the numbers are said beside the expected ones.
    assert len(caplog.messages) == 2
    assert (
        "person 0 is a distractor in this layout, searched and never looked for (1 images, 1 "
        "others to train on or to look for are left out)" in caplog.messages[1]
    )
    assert "train 6 images of 3 people (expected 12,936 of 751)" in caplog.messages[0]
    assert "query 2 images of 2 people (expected 3,368 of 750)" in caplog.messages[0]
    # Half of the query people without any gallery image is the limit, more is an error.
    (market / "bounding_box_test" / "0003_c3s3_000151_01.jpg").unlink()
    assert len(load("market1501", market).gallery) == len(kept.gallery) - 1
    (market / "bounding_box_test" / "0001_c2s1_000151_01.jpg").unlink()
    found = message(load, "market1501", market)
    assert (
        "2 of the 2 people" in found
        and "in 0001_c1s1_001051_00.jpg" in found
        and "copied in part" in found
    )


# --- DukeMTMC-reID ---------------------------------------------------------------------------


@pytest.fixture
def duke(tmp_path):
    root = tmp_path / "DukeMTMC-reID"
    for folder, names in {
        "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c5_f0046302.jpg"],
        "query": ["0005_c2_f0046985.jpg"],
        "bounding_box_test": ["0005_c5_f0051341.jpg", "7139_c8_f0047873.jpg"],
    }.items():
        for name in names:
            write_image(root / folder / name)
    return root


def test_duke_reads_person_and_camera(duke):
    data = load("dukemtmc", duke)
    assert [(r.person, r.camera) for r in data.train] == [(1, 2), (1, 5)]
    assert [(r.person, r.camera) for r in data.query] == [(5, 2)]
    assert [(r.person, r.camera) for r in data.gallery] == [(5, 5), (7139, 8)]
    assert data.name == "dukemtmc" and data.gallery[0].read().shape == (16, 8, 3)


def test_duke_folder_of_another_layout(duke, tmp_path):
    nested = message(load, "dukemtmc", tmp_path)
    assert f"{duke} holds them" in nested and "16,522 images of 702 people" in nested
    (duke / "query").rename(duke / "queries")
    assert "queries/ with 1 image of 1 person by 1 camera" in message(load, "dukemtmc", duke)
    write_image(duke / "query" / "0001_c1s1_001051_00.jpg")  # Market-1501's names
    assert "1 other file such as 0001_c1s1_001051_00.jpg" in message(load, "dukemtmc", duke)


# --- CUHK03 ----------------------------------------------------------------------------------

CUHK03_PEOPLE = (4, 3, 2, 1, 1)


def cuhk03_image(kind, pair, number, i):
    seed = [("labeled", "detected").index(kind), pair, number, i]
    return np.random.default_rng(seed).integers(0, 256, (20 + pair, 8 + i, 3), dtype=np.uint8)


def write_cuhk03(path):
    """The file as MATLAB writes it: cell arrays of references, everything transposed."""
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        cells = file.create_group("#refs#")

        def store(array, **attributes):
            dataset = cells.create_dataset(f"r{len(cells)}", data=array)
            dataset.attrs.update(attributes)
            return dataset.ref

        def cell_array(references):
            array = np.empty(np.shape(references), h5py.ref_dtype)
            for place in np.ndindex(array.shape):
                array[place] = references[place[0]][place[1]]
            return array

        for kind in ("labeled", "detected"):
            pairs = []
            for pair, people in enumerate(CUHK03_PEOPLE, 1):
                rows = []
                for number in range(1, people + 1):
                    row = []
                    for i in range(1, 11):
                        # Of the five cells for a view some stay empty.
                        if (i - 1) % 5 < (3 if kind == "labeled" else 2):
                            image = cuhk03_image(kind, pair, number, i)
                            row.append(store(image.T, MATLAB_class=np.bytes_("uint8")))
                        else:
                            row.append(store(np.zeros(2, "uint64"), MATLAB_empty=1))
                    rows.append(row)
                pairs.append(store(cell_array(rows).T))
            file.create_dataset(kind, data=cell_array([pairs]))
        # Two people of each of two pairs in turn.
        tests = [[(1, 1 + i % 4), (2, 1 + i % 3), (3, 1 + i % 2)] for i in range(20)]
        references = [store(np.array(test, "float64").T) for test in tests]
        file.create_dataset("testsets", data=cell_array([references]))


@pytest.fixture(scope="module")
def cuhk03(tmp_path_factory):
    root = tmp_path_factory.mktemp("cuhk03")
    write_cuhk03(root / "cuhk03_release" / "cuhk-03.mat")
    return root


def test_cuhk03_reads_the_official_splits(cuhk03):
    first, last = load("cuhk03", cuhk03), load("cuhk03", cuhk03, split_id=19)
    assert set(persons(first.query)) == set(persons(first.gallery)) == {1001, 2001, 3001}
    assert set(persons(last.query)) == {1004, 2002, 3002}
    assert first.split_id == 0 and last.split_id == 19
    # 11 people, 2 views, 2 detected images in each.
    for data in (first, last):
        assert len(data.train + data.query + data.gallery) == 11 * 2 * 2
        assert not set(persons(data.train)) & set(persons(data.query))
    # Each pair has two cameras of its own, and the first view is the query.
    assert {(r.person // 1000, r.camera) for r in first.query} == {(1, 1), (2, 3), (3, 5)}
    assert {(r.person // 1000, r.camera) for r in first.gallery} == {(1, 2), (2, 4), (3, 6)}
    assert "20 official ones, 0 to 19" in message(load, "cuhk03", cuhk03, split_id=20)
    assert "0 to 19" in message(load, "cuhk03", cuhk03, split_id=-1)


def test_cuhk03_images_are_turned_the_right_way(cuhk03):
    data = load("cuhk03", cuhk03)
    record = next(r for r in data.gallery if r.key == "detected/2_001_2_07")
    np.testing.assert_array_equal(record.read(), cuhk03_image("detected", 2, 1, 7))
    assert record.read().flags.c_contiguous and (record.person, record.camera) == (2001, 4)
    labeled = load("cuhk03", cuhk03, boxes="labeled")
    record = next(r for r in labeled.train if r.key == "labeled/5_001_1_03")
    np.testing.assert_array_equal(record.read(), cuhk03_image("labeled", 5, 1, 3))


def test_cuhk03_boxes(cuhk03):
    def count(**options):
        data = load("cuhk03", cuhk03, **options)
        return len(data.train + data.query + data.gallery)

    assert count() == count(boxes="detected") == 44
    assert count(boxes="labeled") == 66 and count(boxes="both") == 110
    assert "detected, labeled, both" in message(load, "cuhk03", cuhk03, boxes="drawn")


def test_cuhk03_is_found_in_its_folder_above_it_or_by_name(cuhk03):
    file = cuhk03 / "cuhk03_release" / "cuhk-03.mat"
    found = [load("cuhk03", place) for place in (cuhk03, file.parent, file)]
    assert found[0] == found[1] == found[2] and found[0].root == str(file.parent)


def test_cuhk03_wrong_folder_or_file(cuhk03, tmp_path):
    assert f"{cuhk03} holds them" in message(load, "cuhk03", cuhk03.parent)
    renamed = tmp_path / "renamed" / "cuhk03.mat"
    renamed.parent.mkdir()
    renamed.write_bytes((cuhk03 / "cuhk03_release" / "cuhk-03.mat").read_bytes())
    found = message(load, "cuhk03", renamed.parent)
    assert "no cuhk-03.mat" in found and "1 other file such as cuhk03.mat" in found
    assert "14,097" in found and load("cuhk03", renamed).train  # by its own name it is read
    half = tmp_path / "cuhk-03.mat"
    half.write_bytes(renamed.read_bytes()[: renamed.stat().st_size // 2])
    assert "is no whole HDF5 file" in message(load, "cuhk03", half)
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["filelist"] = [1]
    other = message(load, "cuhk03", tmp_path / "other.mat")
    assert "no detected and no labeled and no testsets" in other and "found filelist" in other
    record = load("cuhk03", renamed).train[0]
    bad = dataclasses.replace(record, key="detected/5_002_1_01")
    assert "detected/5_002_1_01" in message(bad.read)


def test_cuhk03_test_set_without_images(tmp_path):
    file = tmp_path / "mat" / "cuhk-03.mat"
    write_cuhk03(file)
    with h5py.File(file, "a") as content:
        content[content["testsets"][0, 4]][...] = np.array([[1, 1], [1, 90], [2, 1]]).T
    assert "names 3 people, but 2 of them" in message(load, "cuhk03", file, split_id=4)


def test_cuhk03_manifest_hashes_the_container_once(cuhk03, monkeypatch):
    paths = []
    hashed = manifest.file_sha256

    def counted(path):
        paths.append(path)
        return hashed(path)

    monkeypatch.setattr(manifest, "file_sha256", counted)
    data = load("cuhk03", cuhk03)
    rows = manifest_rows(data, rates=(1, 4))
    assert len(paths) == 1 and {row["path"] for row in rows} == {"cuhk-03.mat"}
    listed = [(row["key"], row["rate"]) for row in rows if row["role"] == "query"]
    assert sorted(listed) == sorted((r.key, rate) for r in data.query for rate in (1, 4))


# --- VIPeR -----------------------------------------------------------------------------------


@pytest.fixture
def viper(tmp_path):
    root = tmp_path / "VIPeR"
    for person in (0, 1, 3, 12, 872, 873):
        write_image(root / "cam_a" / f"{person:03d}_45.bmp", (128, 48))
        write_image(root / "cam_b" / f"{person:03d}_{90 * (person % 3)}.bmp", (128, 48))
    (root / "Readme.txt").write_text("VIPeR")
    return root


def test_viper_is_halved_by_the_hash_of_split_and_person(viper):
    people = ["000", "001", "003", "012", "872", "873"]
    for split_id in (0, 1, 7):
        data = load("viper", viper, split_id=split_id)
        by_hash = sorted(people, key=lambda p: hashlib.sha256(f"{split_id} {p}".encode()).digest())
        assert set(persons(data.train)) == set(by_hash[:3]) and len(data.train) == 6
        assert set(persons(data.query)) == set(persons(data.gallery)) == set(by_hash[3:])
        assert {r.camera for r in data.query} == {1} and {r.camera for r in data.gallery} == {2}
        assert all("cam_a" in r.path for r in data.query)
        assert data == load("viper", viper, split_id=split_id)
    assert len({frozenset(persons(load("viper", viper, split_id=i).train)) for i in range(8)}) > 1
    # Another seed draws other rates, but the people stay.
    assert load("viper", viper, seed=5).train == load("viper", viper).train
    assert data.query[0].read().shape == (128, 48, 3)
    assert "give a number of 0 or more" in message(load, "viper", viper, split_id=-1)


def test_viper_wrong_folder(viper, tmp_path):
    above, below = message(load, "viper", tmp_path), message(load, "viper", viper / "cam_a")
    assert "no cam_a/ and no cam_b/" in above and f"{viper} holds them" in above
    assert f"{viper} holds them" in below and "6 images of 6 people" in below
    (viper / "cam_b" / "012_0.bmp").unlink()
    half = message(load, "viper", viper)
    assert "1 of 6 people" in half and "such as 012" in half and "cam_b/ (5)" in half
    (viper / "cam_b").rename(viper / "camB")
    renamed = message(load, "viper", viper)
    assert "no cam_b/ in" in renamed and "camB/ with 5 images of 5 people" in renamed
    write_image(viper / "cam_b" / "a.bmp")
    assert "no image of a person" in message(load, "viper", viper)


# --- CAVIAR4REID -----------------------------------------------------------------------------


@pytest.fixture
def caviar(tmp_path):
    """People 2 and 5 were seen by the closer camera only."""
    root = tmp_path / "CAVIARa"
    for person in range(1, 8):
        for image in range(1, 11 if person in (2, 5) else 21):
            size = (20, 8) if image <= 10 else (8, 4)
            write_image(root / f"{person:04d}{image:03d}.jpg", size)
    return root


def test_caviar_queries_are_the_distant_cameras(caviar):
    data = load("caviar", caviar)
    people = sorted((1, 3, 4, 6, 7), key=lambda p: hashlib.sha256(f"0 {p}".encode()).digest())
    assert set(persons(data.train)) == set(people[:2]) and len(data.train) == 40
    assert set(persons(data.query)) == set(persons(data.gallery)) == set(people[2:])
    assert {(r.camera, r.rate, r.read().shape) for r in data.query} == {(2, 2, (8, 4, 3))}
    assert {(r.camera, r.rate, r.read().shape) for r in data.gallery} == {(1, 1, (20, 8, 3))}
    assert len(data.query) == len(data.gallery) == 30
    assert sorted(int(r.path[-7:-4]) for r in data.query) == sorted([*range(11, 21)] * 3)
    other = next(i for i in range(1, 20) if load("caviar", caviar, split_id=i).train != data.train)
    assert load("caviar", caviar, split_id=other).split_id == other


def test_caviar_rates_from_native_heights(caviar):
    data = load("caviar-native", caviar)
    assert {(r.rate, r.read().shape) for r in data.query} == {(16, (8, 4, 3))}  # 128 / 8
    assert [r.path for r in data.query] == [r.path for r in load("caviar", caviar).query]


def test_caviar_dev_queries_have_native_rates_too(caviar):
    dev = load("caviar-native", caviar, split="dev", protocol="paper")
    assert {(r.rate, r.read().shape) for r in dev.query} == {(16, (8, 4, 3))}


def test_caviar_dev_queries_are_the_distant_cameras_too(caviar):
    dev = load("caviar", caviar, split="dev", protocol="paper")
    assert {r.camera for r in dev.query} == {2} and {r.camera for r in dev.gallery} == {1}
    assert len(dev.query) == len(dev.gallery) == 10 and len(dev.train) == 20


def test_caviar_is_not_shrunk_by_each_rate(caviar):
    found = message(load, "caviar", caviar, protocol="each-rate")
    assert "30 queries such as" in found and "low resolution already" in found
    assert "choose paper" in found


def test_caviar_rain_code_keeps_people_of_one_camera_and_shrinks(caviar):
    data = load("caviar", caviar, protocol="rain-code")
    assert {2, 5} < set(persons(data.train)) and len(data.train) == 40 + 20
    assert len(data.query) == 3 * 60 and len(data.gallery) == 60


def test_caviar_wrong_folder(caviar, tmp_path):
    above = message(load, "caviar", tmp_path)
    assert f"{caviar} holds them" in above and "1,220 images of 72 people" in above
    for path in caviar.glob("*.jpg"):
        if int(path.name[:4]) > 3 and int(path.name[4:7]) <= 10:
            path.unlink()
    half = message(load, "caviar", caviar)
    assert "2 people" in half and "3 by the distant one only" in half
    for path in caviar.glob("*.jpg"):
        path.rename(path.with_name(f"p{path.name}"))
    renamed = message(load, "caviar", caviar)
    assert (
        "no image with a name like 0001001.jpg" in renamed
        and "80 other files such as p0" in renamed
    )


def test_caviar_names_of_four_digits(caviar):
    for path in caviar.glob("*.jpg"):
        path.rename(path.with_name(f"{path.name[:4]}0{path.name[4:]}"))
    assert len(load("caviar", caviar).query) == 30


# --- folders of multiple low resolution ------------------------------------------------------


@pytest.fixture
def levels(tmp_path):
    """VersReID's layout: person, pair and camera in the name."""
    root = tmp_path / "mlr_cuhk03"
    for person in (1, 2):
        write_image(root / "train" / "lr" / f"{person:04d}_01_1_02.png", (8, 4))
        write_image(root / "train" / "hr" / f"{person:04d}_01_2_07.png")
    for person in (3, 4):
        write_image(root / "query" / "lr" / f"{person:04d}_01_1_01.png", (8, 4))
        write_image(root / "query" / "hr" / f"{person:04d}_01_1_01.png")
        write_image(root / "gallery" / "hr" / f"{person:04d}_01_2_09.png")
        write_image(root / "gallery" / "lr" / f"{person:04d}_01_2_09.png", (8, 4))
    return root


@pytest.fixture
def camera_0(tmp_path):
    """Camera 0 is of low resolution; a folder for each person."""
    root = tmp_path / "MLR-Market"
    for role, person, camera in (
        ("train", 1, 0), ("train", 1, 3), ("query", 20, 0), ("gallery", 20, 1), ("gallery", 0, 4),
        ("gallery", -1, 2),
    ):  # fmt: skip
        start = "-1" if person < 0 else f"{person:05d}"
        write_image(root / role / f"{person:04d}" / f"{start}_c{camera}_00000.jpg")
    return root


def test_mlr_folders_of_two_levels(levels):
    data = load("mlr", levels)
    assert data.protocol == "multi-shot" and data.gallery_shots is None
    assert [(r.person, r.camera, r.rate) for r in data.train] == [("0001", 2, 1), ("0002", 2, 1)]
    assert [(r.person, r.camera, r.rate) for r in data.query] == [
        ("0003", 1, None),
        ("0004", 1, None),
    ]
    assert [(r.person, r.camera, r.rate) for r in data.gallery] == [("0003", 2, 1), ("0004", 2, 1)]
    assert data.query[0].read().shape == (8, 4, 3)  # nothing is shrunk a second time
    assert load("mlr", levels, protocol="paper").gallery_shots == 1
    assert "low resolution already" in message(load, "mlr", levels, protocol="each-rate")
    assert "low resolution already" in message(load, "mlr", levels, protocol="rain-code")
    assert "its queries are given" in message(load, "mlr", levels, split="dev")


def test_mlr_folders_with_camera_0(camera_0):
    data = load("mlr", camera_0)
    assert [(r.person, r.camera, r.rate) for r in data.train] == [("00001", 3, 1)]
    assert [(r.person, r.camera, r.rate) for r in data.query] == [("00020", 0, None)]
    # Person 0 is a distractor where nobody looks for one, and junk is left out.
    assert [(r.person, r.camera, r.rate) for r in data.gallery] == [(0, 4, 1), ("00020", 1, 1)]
    assert [r.person for r in load("mlr", camera_0, protocol="paper").gallery] == ["00020"]
    write_image(camera_0 / "query" / "00000_c0_00000.jpg")  # without a folder for the person
    data = load("mlr", camera_0)
    assert persons(data.query) == ["00000", "00020"]
    assert persons(data.gallery) == ["00000", "00020"]


def test_mlr_training_images_of_low_resolution_are_left_out_with_a_word(levels, camera_0, caplog):
    for root, count in ((levels, 2), (camera_0, 1)):
        caplog.clear()
        load("mlr", root)
        assert f"{count} training images are of low resolution and left out" in caplog.text
    for path in (levels / "train" / "hr").iterdir():
        path.unlink()
    assert "no image of a person at high resolution in" in message(load, "mlr", levels)


def test_mlr_folders_of_two_levels_with_a_folder_for_each_person(levels):
    for role in ("train", "query", "gallery"):
        for path in list((levels / role).rglob("*.png")):
            path.parent.joinpath(path.name[:4]).mkdir(exist_ok=True)
            path.rename(path.parent / path.name[:4] / path.name)
    data = load("mlr", levels)
    rates = [[r.rate for r in part] for part in (data.train, data.query, data.gallery)]
    assert rates == [[1, 1], [None, None], [1, 1]]


def test_mlr_folders_behind_a_link_have_the_same_manifest(camera_0, tmp_path):
    """Sources are told from the folder that was named, not from where a link leads."""
    (tmp_path / "link").symlink_to(camera_0)
    own, linked = (manifest_rows(load("mlr", root), (1,)) for root in (camera_0, tmp_path / "link"))
    assert own == linked


def test_mlr_rate_in_the_name(tmp_path):
    for role, name in (
        ("train", "0_c1_1_2x.jpg"),
        ("query", "1_c0_001_3x.jpg"),
        ("gallery", "1_c2_7.jpg"),
    ):
        write_image(tmp_path / role / name)
    data = load("mlr", tmp_path)
    assert [r.rate for r in data.train + data.query + data.gallery] == [1, 3, 1]


@pytest.mark.parametrize("name", ["1_001_1_01.png", "5_012_2_10_3x.jpg"])
def test_mlr_names_of_cuhk03_are_refused(levels, name):
    write_image(levels / "query" / "lr" / name)
    said = message(load, "mlr", levels)
    assert f"{name} has a name of CUHK03" in said and "1001_01_1_01.png" in said


def test_mlr_wrong_folder(levels, tmp_path):
    assert f"{levels} holds them" in message(load, "mlr", tmp_path)
    (levels / "gallery" / "hr").rename(levels / "gallery" / "HD")
    renamed = message(load, "mlr", levels)
    assert "no gallery/hr/ in" in renamed and "found HD/, lr/ in gallery/" in renamed
    (levels / "gallery" / "HD").rename(levels / "gallery" / "hr")
    for person in (3, 4):
        assert load("mlr", levels).gallery
        (levels / "gallery" / "hr" / f"{person:04d}_01_2_09.png").unlink()
        write_image(levels / "gallery" / "hr" / "0009_01_2_01.png")
    half = message(load, "mlr", levels)
    assert "2 of the 2 people" in half and "1 image of 1 person by 1 camera" in half
    for path in (levels / "query" / "lr").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    found = message(load, "mlr", levels)
    assert "no image of a person in" in found and "2 other files such as x0003_01_1_01.png" in found
    (levels / "query").rename(levels / "probe")
    assert "no query/ in" in message(load, "mlr", levels)


# --- load ------------------------------------------------------------------------------------


def test_load_refuses_what_it_does_not_know(market):
    known = "market1501, dukemtmc, cuhk03, viper, caviar, caviar-native, mlr, csv, synthetic"
    assert known in message(load, "market", market)
    assert "each-rate, paper" in message(load, "market1501", market, protocol="papers")
    assert "split 1 of market1501" in message(load, "market1501", market, split_id=1)
    assert "'val'" in message(load, "market1501", market, split="val")
    assert "limit is 0" in message(load, "market1501", market, limit=0)
    assert "--data-dir" in message(load, "market1501")


def test_limit_takes_the_first_people(market):
    data = load("market1501", market, limit=1)
    assert persons(data.train) == [2, 2]
    assert persons(data.query) == [1]
    assert persons(data.gallery) == [1]  # neither the second person nor the distractor
    assert persons(load("market1501", market, limit=1, need=("gallery",)).gallery) == [1]


def test_a_folder_is_refused_for_drawn_people(tmp_path):
    for name in ("synthetic", "synthetic-b"):
        said = message(load, name, tmp_path)
        assert f"{tmp_path} is given: give --data too" in said


def test_synthetic_is_drawn_at_the_size_asked_for(monkeypatch, tmp_path):
    calls = []

    def load_synthetic(image_size):
        calls.append(image_size)
        record = Record(str(tmp_path / "a.png"), "a", 1)
        return DataSet("synthetic", [record], [record], [record])

    monkeypatch.setattr(datasets, "load_synthetic", load_synthetic)
    data = load("synthetic", image_size=[256, 128], need=("query", "gallery"))
    assert calls == [(256, 128)]
    assert (len(data.train), len(data.query)) == (0, 1)
    assert data.root == str(tmp_path)
    for size in (5, (128,), (0, 64), "128x64"):
        assert "image size" in message(load, "synthetic", image_size=size)
    assert len(calls) == 1


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


def test_folds_hold_out_other_people():
    data = many_people(150)
    by_hash = sorted(range(1, 151), key=lambda person: hashlib.sha256(b"%04d" % person).hexdigest())
    for fold in range(3):
        dev = hold_out_people(data, fold)
        own = by_hash[50 * fold : 50 * fold + 50]
        assert set(persons(dev.query)) == set(persons(dev.gallery)) == set(own)
        assert set(persons(dev.train)) == set(by_hash) - set(own)
        assert (dev.split, dev.fold) == ("dev", fold)
    assert hold_out_people(data, 0) == hold_out_people(data)


def test_folds_that_there_are_not():
    few = many_people(149)
    assert hold_out_people(few).fold == 0
    for fold in (1, 2):
        found = message(hold_out_people, few, fold)
        assert f"fold {fold} of 149 training people: 3 folds of 50 people need 150 or more" in found
    for fold in (-1, 3):
        assert "give 0, 1 or 2" in message(hold_out_people, many_people(200), fold)
    assert "fold 1 of split 'test'" in message(load, "synthetic", fold=1)


def test_a_manifest_says_its_fold_and_fold_0_is_as_ever(tmp_path):
    write_image(tmp_path / "a.png")
    record = Record(str(tmp_path / "a.png"), 7, 1)
    for protocol in ("each-rate", "multi-shot"):
        data = DataSet("csv", [], [record], [record], "dev", root=str(tmp_path), protocol=protocol)
        for fold in (0, 1):
            data.fold = fold
            rows = manifest_rows(data, (1, 2))
            assert {row.get("fold") for row in rows} == {fold or None}


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


def test_csv_of_low_resolution_is_not_shrunk_again(people_csv):
    data = load("csv", people_csv)
    assert data.protocol == "multi-shot" and data.query[0].kernel is None
    assert data.query[0].read().shape == data.gallery[0].read().shape == (16, 8, 3)
    assert load("csv", people_csv, protocol="paper").gallery_shots == 1
    found = message(load, "csv", people_csv, protocol="each-rate")
    assert "1 queries such as" in found and "q.jpg" in found and "multi-shot" in found
    for protocol in (None, "multi-shot"):
        found = message(load, "csv", people_csv, protocol=protocol, split_id=3)
        assert found.startswith("split 3 of csv: ")
    assert "of cuhk03 only" in message(load, "csv", people_csv, boxes="labeled")
    # A column of one's own says nothing; what `xreid build mot` writes has two.
    assert "none is shrunk" in data.about
    head, *rows = GOOD_CSV.splitlines()
    people_csv.write_text("\n".join([f"{head},frame", *(f"{row},7" for row in rows)]))
    assert "over time" not in load("csv", people_csv).about
    people_csv.write_text(GOOD_CSV)
    assert load("csv", people_csv, need=("train",)).protocol == "each-rate"
    people_csv.write_text(GOOD_CSV.replace("query,4", "query,1"))
    assert load("csv", people_csv).protocol == "each-rate"
    rows = [f"in/{'abqg'[i]}.jpg,{'anna' if i < 2 else 'ben'},{i % 2 + 1}" for i in range(4)]
    lines = [f"{row},train,{1 + 3 * (i % 2)}" for i, row in enumerate(rows)]
    people_csv.write_text("\n".join(["path,person,camera,split,rate", *lines]))
    dev = load("csv", people_csv, split="dev")
    assert dev.protocol == "multi-shot"
    assert ([r.rate for r in dev.query], [r.rate for r in dev.gallery]) == ([4], [1])


def test_csv_rate_is_optional_and_paths_may_be_absolute(people_csv):
    lines = ["path,person,camera,split"] + [
        f"{people_csv.parent / 'in' / image}.jpg,anna,1,{split}"
        for image, split in zip("abq", datasets.ROLES, strict=True)
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
        ("query,4", f"query,{'9' * 400}", ["line 4", "rate is '999"]),
        ("ben,1,query", f"ben,{2**31},query", ["line 4", "camera is '2147483648'"]),
        ("ben,1,query", f"ben,{'9' * 5000},query", ["line 4", "camera is '999"]),
        ("ben,1,query,4", "ben,1,query,4,left,", ["line 4", "'left' is in no column"]),
        ("camera,split,rate", "camera,split,camera", ["line 1", "column camera is there twice"]),
        ("in/g.jpg,ben,2,gallery,1", "in/q.jpg,ben,1,query,4", ["line 5", "in query", "line 4"]),
        (
            "in/g.jpg,ben,2,gallery,1",
            "./in/q.jpg,ben,1,gallery,4",
            ["line 5", "in query in line 4"],
        ),
        ("in/g.jpg,ben,2,", "in/q.jpg,bob,1,", ["line 5", "person is bob here and ben in line 4"]),
        ("in/g.jpg,ben,2,", "in/q.jpg,ben,2,", ["line 5", "camera is 2 here and 1 in line 4"]),
        ("in/g.jpg,ben,2,gallery,1", "in/b.jpg,anna,2,gallery,8", ["line 5", "rate is 8 here"]),
    ],
)
def test_csv_errors_name_the_line(people_csv, old, new, expected):
    people_csv.write_text(GOOD_CSV.replace(old, new, 1))
    found = message(load, "csv", people_csv)
    assert str(people_csv) in found
    for words in expected:
        assert words in found


def test_csv_says_what_is_hardly_meant(people_csv, caplog):
    people_csv.write_text(GOOD_CSV.replace("in/b.jpg,anna", "in/b.jpg,ben"))
    load("csv", people_csv)
    assert caplog.messages == [
        f"{people_csv}, line 4: ben is to be found, and trained on in line 3; of such people there "
        "are 1, and their scores say nothing of people never seen"
    ]
    caplog.clear()
    people_csv.write_text(GOOD_CSV)
    load("csv", people_csv)
    assert caplog.messages == [f"{people_csv}, line 2: anna is the only person to train on"]
    caplog.clear()
    load("csv", people_csv, need=("query", "gallery"))
    assert not caplog.messages


def test_csv_as_spreadsheets_write_numbers(people_csv):
    text = GOOD_CSV.replace("ben,1,query,4", "ben,1.0,query,4.0,,")
    people_csv.write_text(text)
    (query,) = load("csv", people_csv).query
    assert (query.camera, query.rate) == (1, 4)


# --- who is who ------------------------------------------------------------------------------


def test_the_same_files_count_alike_as_a_tree_and_as_a_list(tmp_path, caplog):
    """People 0 and -1 in the gallery are as near as the right image; text or numbers, no matter."""
    tree, lines = tmp_path / "tree", ["path,person,camera,split"]
    for role, name in (
        ("query", "0001_c1s1_000001_00.jpg"),
        ("query", "0002_c1s1_000001_00.jpg"),
        ("gallery", "-1_c2s1_000001_00.jpg"),
        ("gallery", "0000_c2s1_000001_00.jpg"),
        ("gallery", "0001_c2s1_000001_00.jpg"),
        ("gallery", "0002_c2s1_000001_00.jpg"),
    ):
        path = tree / MARKET_FOLDERS[role] / name
        write_image(path)
        person, camera = name.split("_")[0], name[name.index("_c") + 2]
        lines.append(f"{path},{person},{camera},{role}")
    (tmp_path / "people.csv").write_text("\n".join(lines))
    test = ("query", "gallery")
    scores = []
    for name, place in (("market1501", tree), ("csv", tmp_path / "people.csv")):
        caplog.clear()
        data = load(name, place, need=test)
        assert not any("-1_c2" in record.path for record in data.gallery)
        assert sum("person 0 " in text for text in caplog.messages) == 1
        distances = np.arange(2 * len(data.gallery)).reshape(2, -1)
        scores.append(evaluate_ranking(distances, data.query, data.gallery))
    assert scores[0] == scores[1]
    assert "counts as a person like any other (1 images)" in caplog.text
    assert "1 rows of person -1 are junk" in caplog.text


@pytest.mark.parametrize("junk", [-1, "-1", "-1.0", "-0001", np.int64(-1), np.float32(-1)])
def test_junk_is_nobody_in_any_spelling(junk):
    query = [Record("q", "a", 1), Record("r", junk, 1)]
    gallery = [Record("x", junk, 2), Record("g", "a", 2)]
    for shots in (None, 1):
        scores = evaluate_ranking([[0.0, 1.0], [0.0, 1.0]], query, gallery, shots)
        assert scores["rank1"] == 100
    with pytest.raises(InputError, match="marks junk"):
        check_people([Record("q", junk, 1)] * 2)


def test_who_numbers_people_from_0_has_a_person_0():
    query = [Record(f"q{p}", p, 1) for p in range(3)]
    gallery = [Record(f"g{p}", p, 2) for p in range(3)]
    distances = 1 - np.eye(3)
    assert evaluate_ranking(distances, query, gallery, gallery_shots=1)["rank1"] == 100
    data = DataSet("own", [], query, gallery)
    assert {r.person for r in apply_protocol(data, "paper").gallery} == {0, 1, 2}
    # Where no query shows it, it is a distractor, as in Market-1501.
    alone = DataSet("own", [], query[1:], gallery)
    assert {r.person for r in apply_protocol(alone, "paper").gallery} == {1, 2}


def test_people_of_two_kinds_have_no_order():
    records = [Record(f"{i}.png", person, 1) for i, person in enumerate(("a", "a", 1, 1))]
    for call in (check_people, lambda records: hide_labels(records, 0.5)):
        assert "person 'a' is text and person 1 is a number" in message(call, records)


def test_one_person_to_train_on():
    records = [Record(f"{i}.png", "a", i) for i in range(4)]
    assert "the only one to train on" in message(check_people, records)
    assert check_people([*records, Record("x.png", None, 1)])  # RAIN: others without a label


def test_duke_junk(duke):
    write_image(duke / "bounding_box_test" / "-1_c2_f0046182.jpg")
    assert not any(r.person == -1 for r in load("dukemtmc", duke).gallery)


@pytest.mark.parametrize(
    "name",
    ["0001_c1s1_000151_00 (1).jpg", "0001_c1s1_000151_00.jpg.jpg", "0001_c1s1_000151_00.bmp",
     f"{'9' * 30}_c1s1_000151_00.jpg", "bob.webp"],
)  # fmt: skip
def test_names_of_another_form_are_told(market, name, caplog):
    write_image(market / "query" / name)
    (market / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"macOS")
    load("market1501", market)
    assert f"market1501: 1 image such as '{name}' left out" in caplog.text


def test_names_of_another_form_are_told_by_every_reader(viper, caviar, camera_0, caplog):
    for name, root, folder in (
        ("viper", viper, "cam_a"), ("caviar", caviar, "."), ("mlr", camera_0, "gallery"),
    ):  # fmt: skip
        for i in range(2):
            write_image(root / folder / f"x ({i}).jpg")
        caplog.clear()
        load(name, root)
        assert f"{name}: 2 images such as 'x (0).jpg' left out" in caplog.text


def test_numbers_of_any_type(tmp_path):
    """NumPy's and tensors, where a record is made; a manifest is the same, byte by byte."""
    import keras

    write_image(tmp_path / "a.png")
    digests = set()
    for kind in (int, np.int64, np.uint8, float, np.float32, np.array, keras.ops.convert_to_tensor):
        record = Record(str(tmp_path / "a.png"), kind(3), kind(2), rate=kind(1))
        assert [type(x) for x in (record.person, record.camera, record.rate)] == [int] * 3
        one = np.int64 if kind is not int else int
        data = DataSet(
            "own", [record], [record], [record], root=str(tmp_path), split_id=one(0), seed=one(5)
        )
        for protocol in ("each-rate", "multi-shot"):
            data.protocol = protocol
            rows = manifest_rows(data, rates=[kind(2)], train_rates=[kind(2)])
            digests.add(write_manifest(tmp_path / "m", rows))
    assert len(digests) == 2
    assert type(Record("a", np.str_("anna"), 1).person) is str
    for wrong in ([1, 2], np.zeros(2), float("nan"), object(), {}):
        assert "person of a is" in message(Record, "a", wrong, 1)


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


def test_csv_knows_an_image_by_a_relative_and_an_absolute_path(people_csv, monkeypatch):
    image = people_csv.parent / "in" / "q.jpg"
    people_csv.write_text(GOOD_CSV.replace("in/g.jpg,ben,2,gallery,1", f"{image},ben,1,gallery,4"))
    monkeypatch.chdir(people_csv.parent)
    assert "it is in gallery here and in query in line 4" in message(load, "csv", people_csv.name)


def test_csv_knows_a_person_in_both_forms_of_unicode(people_csv):
    text = GOOD_CSV.replace("ben,1", "Zo\u00eb,1").replace("ben,2", "Zoe\u0308,2")
    people_csv.write_text(text, encoding="utf-8")
    data = load("csv", people_csv)
    assert persons(data.query) == persons(data.gallery) == ["Zo\u00eb"]


def test_csv_needs_only_the_images_asked_for(people_csv):
    for image in "ab":
        (people_csv.parent / "in" / f"{image}.jpg").unlink()
    assert len(load("csv", people_csv, need=("query", "gallery")).query) == 1
    assert "line 2: no file" in message(load, "csv", people_csv)
    # What a row says is compared all the same.
    people_csv.write_text(GOOD_CSV.replace("in/b.jpg,anna,2", "in/q.jpg,anna,1"))
    assert "person is ben" in message(load, "csv", people_csv, need=("query", "gallery"))


def test_a_manifest_lists_names_that_are_no_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"\xe9 \xc3\xa9.png")  # Latin-1's é, and UTF-8's
    try:
        write_image(path)
    except OSError:
        pytest.skip("this file system has no such names")
    record = Record(str(path), 1, 1)
    data = DataSet("own", [], [record], [record], root=str(tmp_path))
    found = write_manifest(tmp_path / "m", manifest_rows(data, rates=(2,)))
    content = (tmp_path / "m").read_bytes()
    assert found == hashlib.sha256(content).hexdigest() and "é" in content.decode("utf-8")
    assert {json.loads(row)["path"] for row in content.splitlines()} == {path.name}
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["m", path.name])


def test_cameras_are_left_out(tmp_path):
    """Training images of some cameras, test images of others; nobody is kept with one image."""
    rows = ["path,person,camera,split"]
    for person, split, cameras in (
        ("a", "train", "1123"), ("b", "train", "1233"), ("d", "train", "133"),
        ("c", "query", "13"), ("c", "gallery", "23"),
    ):  # fmt: skip
        for i, camera in enumerate(cameras):
            name = f"{person}_{split}_{i}.png"
            Image.new("RGB", (8, 16)).save(tmp_path / name)
            rows.append(f"{name},{person},{camera},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    data = load("csv", tmp_path / "list.csv", train_cameras=(1, 2), test_cameras=("3",))
    kept = [("a", 1), ("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert [(r.person, r.camera) for r in data.train] == kept
    assert {r.camera for r in data.query + data.gallery} == {3} and len(data.query) == 1
    data = load("csv", tmp_path / "list.csv", train_cameras=(1,))
    assert [(r.person, r.camera) for r in data.train] == [("a", 1), ("a", 1)]
    assert len(data.query) == len(data.gallery) == 2
    assert "no camera 7 among those to train on" in message(
        load, "csv", tmp_path / "list.csv", train_cameras=(7,)
    )


def test_a_protocol_draws_among_the_cameras_that_are_kept(tmp_path):
    for person in (1, 2):
        for camera in range(1, 7):
            for folder, i in (("query", 0), ("bounding_box_test", 1)):
                name = f"{person:04d}_c{camera}s1_00000{i}_00.jpg"
                write_image(tmp_path / "market" / folder / name)
    need = ("query", "gallery")
    drawn = set()
    for seed in range(8):
        data = load(
            "market1501", tmp_path / "market", need=need, protocol="paper", seed=seed,
            test_cameras=("4", "5", "6"),
        )  # fmt: skip
        (camera,) = {r.camera for r in data.query}
        assert {r.camera for r in data.gallery} == {4, 5, 6} - {camera}
        assert len(data.query) == 4 and len(data.gallery) == 8
        drawn.add(camera)
    assert drawn == {4, 5, 6}
    build(data, tmp_path / "built", verbose=False)
    other = min({4, 5, 6} - {camera})
    said = message(load, "mlr", tmp_path / "built", need=need, test_cameras=(other,))
    assert f"no query is by test_cameras {other}" in said
    kept = load("mlr", tmp_path / "built", need=need, test_cameras=(camera, other))
    assert len(kept.query) == len(kept.gallery) == 4


def test_fewer_people_are_trained_on_and_the_same_are_found(tmp_path):
    rows = ["path,person,camera,split"]
    for person in range(1, 13):
        for i, split in enumerate(("train", "train") if person < 11 else ("query", "gallery")):
            Image.new("RGB", (8, 16)).save(tmp_path / f"{person}_{i}.png")
            rows.append(f"{person}_{i}.png,{person},{i + 1},{split}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    path = tmp_path / "list.csv"
    whole = load("csv", path)
    few, more, all_of_them = (load("csv", path, train_people=n) for n in (3, 5, 10))
    by_hash = sorted(people_in(whole.train), key=lambda p: hashlib.sha256(p.encode()).hexdigest())
    assert set(people_in(few.train)) == set(by_hash[-3:]) and len(few.train) == 6
    assert (
        set(people_in(few.train)) < set(people_in(more.train)) and len(people_in(more.train)) == 5
    )
    assert all_of_them == whole and few.query == whole.query and few.gallery == whole.gallery
    # Settings are chosen among the same people.
    dev = load("csv", path, split="dev", train_people=3)
    assert people_in(dev.train) == people_in(few.train)
    assert dev.query == load("csv", path, split="dev").query
    for number, said in ((11, "csv has 10 to train on"), (1, "give 2 or more"), (2.5, "whole")):
        assert said in message(load, "csv", path, train_people=number)

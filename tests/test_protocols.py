"""Protocols of multiple low resolution: their images, the built folder and its manifest."""

import collections
import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_xreid.data.datasets import DataSet, Record, load
from keras_xreid.data.decoded import decode
from keras_xreid.data.manifest import manifest_rows, planned_rows, read_rows, write_manifest
from keras_xreid.data.protocols import PROTOCOLS, apply_protocol, build, verify
from keras_xreid.data.resolution import degrade, write_views
from keras_xreid.errors import InputError
from keras_xreid.evaluation.evaluate import plan

LOW = [name for name, rule in PROTOCOLS.items() if rule.low]


def message(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_set(people=range(1, 31), cameras=range(1, 7), images=4):
    """Market-1501 in small: the first image by each camera is a query; never read."""
    query, gallery = [], []
    for person in people:
        for camera in cameras:
            names = [f"{person:04d}_c{camera}s1_{i:06d}_00.jpg" for i in range(images)]
            query.append(Record(f"query/{names[0]}", person, camera))
            gallery += [Record(f"bounding_box_test/{name}", person, camera) for name in names[1:]]
    for camera in cameras:
        gallery.append(Record(f"bounding_box_test/0000_c{camera}s1_000000_00.jpg", 0, camera))
    return DataSet("market1501", [], query, gallery)


test_set.__test__ = False  # a helper, whatever its name says


def paths(records):
    return sorted(record.path for record in records)


# --- which images are queries ----------------------------------------------------------------


def test_each_rate_changes_nothing():
    data = test_set()
    same = apply_protocol(data, "each-rate", seed=3)
    assert (same.query, same.gallery) == (data.query, data.gallery)
    assert same.gallery_shots is None and same.seed == 3


def test_paper_shrinks_one_camera():
    data = test_set()
    alone = Record("bounding_box_test/0099_c1s1_000000_00.jpg", 99, 1)  # no other camera saw 99
    data.gallery.append(alone)
    made = apply_protocol(data, "paper")
    (camera,) = {record.camera for record in made.query}
    everyone = [r for r in data.query + data.gallery if r.person not in (0, 99)]
    assert paths(made.query) == paths(r for r in everyone if r.camera == camera)
    assert paths(made.gallery) == paths(r for r in everyone if r.camera != camera)
    assert {r.rate for r in made.query} == {2, 3, 4} and {r.rate for r in made.gallery} == {1}
    assert {r.kernel for r in made.query} == {"area"} and {r.kernel for r in made.gallery} == {None}
    assert made.gallery_shots == 1 and made.gallery_draws is None and made.protocol == "paper"


def test_multi_shot_keeps_distractors_and_one_camera_people():
    data = test_set()
    paper, multi = (apply_protocol(data, name) for name in ("paper", "multi-shot"))
    camera = multi.query[0].camera
    assert multi.query == paper.query and multi.gallery_shots is None
    distractors = [r for r in data.gallery if r.person == 0 and r.camera != camera]
    assert paths(multi.gallery) == paths(paper.gallery + distractors)
    third = apply_protocol(data, "multi-shot-camera-3")
    assert {r.camera for r in third.query} == {3}
    assert {r.camera for r in third.gallery} == {1, 2, 4, 5, 6}


def test_a_camera_for_each_person():
    data = test_set()
    made = apply_protocol(data, "paper-camera-per-person")
    cameras = collections.defaultdict(set)
    for record in made.query:
        cameras[record.person].add(record.camera)
    assert set(cameras) == set(range(1, 31)) and all(len(c) == 1 for c in cameras.values())
    assert len(set.union(*cameras.values())) > 1
    assert all(r.camera not in cameras[r.person] for r in made.gallery)
    assert len(made.query) == 30 * 4 and len(made.gallery) == 30 * 4 * 5


def test_all_queries_meet_their_own_original_by_the_same_camera_only():
    data = test_set()
    made = apply_protocol(data, "paper-all-queries")
    assert paths(made.query) == paths(made.gallery) and len(made.query) == 30 * 6 * 4
    assert {(r.rate, r.kernel) for r in made.gallery} == {(1, None)}
    of = {r.path: r for r in made.gallery}
    # Same person and same camera is junk to the ranking, so the original never counts.
    assert all((of[r.path].person, of[r.path].camera) == (r.person, r.camera) for r in made.query)


def test_rain_code_lists_every_image_at_every_rate():
    made = apply_protocol(test_set(), "rain-code")
    counts = collections.Counter((r.rate, r.kernel) for r in made.query)
    assert counts == {(rate, "max-pool"): 720 for rate in (2, 3, 4)}
    assert len({(r.path, r.rate) for r in made.query}) == 3 * 720 and len(made.gallery) == 720
    assert (made.gallery_shots, made.gallery_draws) == (1, 100)


@pytest.mark.parametrize("rates", [(2, 3, 4), (1, 2, 2.5)])
def test_queries_of_rain_code_are_known_by_their_image(rates):
    made = apply_protocol(test_set(), "rain-code", rates=rates, kernel="area")
    (trial,) = plan(None, made)
    assert len(set(trial.images)) == 720
    built = [Record(row["path"], row["person"], row["camera"], row["rate"])
             for row, _ in planned_rows(made) if row["role"] == "query"]  # fmt: skip
    (again,) = plan(None, dataclasses.replace(made, name="mlr", query=built))
    assert len({*trial.images}) == len({*again.images})
    assert len({*zip(trial.images, again.images, strict=True)}) == 720  # the same images
    assert plan(None, apply_protocol(test_set(), "paper"))[0].images is None


def test_each_pair_of_cameras_has_its_own():
    """CUHK03: five pairs, and no person is seen by two of them."""
    query = [Record(f"q{p}", p, 2 * (p % 5) + 1) for p in range(1, 51)]
    gallery = [Record(f"g{p}", p, 2 * (p % 5) + 2) for p in range(1, 51)]
    drawn = set()
    for split_id in range(8):
        made = apply_protocol(DataSet("cuhk03", [], query, gallery), "paper", split_id=split_id)
        low, high = ({r.camera for r in part} for part in (made.query, made.gallery))
        assert len(low) == 5 and {(c - 1) // 2 for c in low} == set(range(5))
        assert not low & high and len(made.query) == len(made.gallery) == 50
        drawn.add(frozenset(low))
    assert len(drawn) > 4


def test_a_query_without_an_answer_is_left_out():
    data = test_set(people=[1, 2], cameras=[1, 2], images=1)
    data.query.append(Record("query/0003_c1.jpg", 3, 1))
    for name in LOW[:4]:
        assert {r.person for r in apply_protocol(data, name).query} <= {1, 2}
    assert "finds no query among 0 test images of 2 people by 1 cameras" in message(
        apply_protocol, test_set(people=[1, 2], cameras=[1], images=2), "paper"
    )
    assert "finds no query" in message(
        apply_protocol, test_set(cameras=[1, 2]), "multi-shot-camera-3"
    )


@pytest.mark.parametrize("name", LOW)
def test_what_is_of_low_resolution_already_is_not_shrunk(name):
    query = [Record(f"q{p}.jpg", p, 2, rate=2) for p in range(1, 9)]
    gallery = [Record(f"g{p}.jpg", p, 1, rate=1) for p in range(1, 9)]
    made = apply_protocol(DataSet("caviar", [], query, gallery), name)
    if name == "rain-code":
        assert len(made.query) == 3 * 16 and {r.kernel for r in made.query} == {"max-pool"}
    else:
        assert (made.query, made.gallery) == (query, gallery)
        assert "none is shrunk" in made.about
        for options, start in (({"rates": (8,)}, "rates 8"), ({"kernel": "area"}, "kernel area")):
            low = DataSet("caviar", [], query, gallery)
            assert message(apply_protocol, low, name, **options).startswith(f"{start} of caviar: ")


def test_bad_input():
    data = test_set()
    assert "known are each-rate, paper" in message(apply_protocol, data, "rain")
    assert "seed -1" in message(apply_protocol, data, "paper", seed=-1)
    assert "split -2" in message(apply_protocol, data, "paper", split_id=-2)
    assert "below 1" in message(apply_protocol, data, "paper", rates=(0, 2))
    assert "no rates" in message(apply_protocol, data, "paper", rates=())
    assert "lanczos, max-pool" in message(apply_protocol, data, "paper", kernel="nearest")


# --- draws -----------------------------------------------------------------------------------


def hashed(values, words):
    return values[int(hashlib.sha256(words.encode()).hexdigest(), 16) % len(values)]


def test_draws_are_a_hash_that_anyone_can_repeat():
    made = apply_protocol(test_set(), "paper", split_id=2, seed=7)
    camera = hashed([1, 2, 3, 4, 5, 6], "7 2 camera 1")
    assert {record.camera for record in made.query} == {camera}
    for record in made.query:
        name = f"7 2 rate {record.person} {camera} {Path(record.path).stem}"
        assert record.rate == hashed([2, 3, 4], name)


def test_rates_are_drawn_evenly_and_for_each_image_alone():
    made = apply_protocol(test_set(people=range(1, 101)), "paper-all-queries")
    counts = collections.Counter(record.rate for record in made.query)
    # 2,400 draws with chance 1/3: four standard deviations are 92.
    assert all(abs(counts[rate] - 800) < 92 for rate in (2, 3, 4))
    rates = {record.path: record.rate for record in made.query}
    fewer = apply_protocol(test_set(people=range(50, 101)), "paper-all-queries", rates=[4, 3, 2])
    assert all(rates[record.path] == record.rate for record in fewer.query)


def test_a_rate_given_twice_counts_once():
    for name in ("rain-code", "paper"):
        once, twice = (apply_protocol(test_set(), name, rates=r) for r in ((2, 3), (2, 2, 3)))
        assert once.query == twice.query


@pytest.mark.parametrize("name", [name for name in LOW if name != "rain-code"])
def test_splits_and_seeds_draw_anew(name):
    data = test_set()
    draws = [{"seed": seed, "split_id": i} for seed in (0, 1) for i in (0, 1)]
    made = [apply_protocol(data, name, **draw) for draw in draws]
    assert len({tuple(m.query) for m in made}) == 4
    assert [(m.seed, m.split_id) for m in made] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert apply_protocol(data, name, seed=1) == made[2]


# --- max-pool --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "rate"), [(12, 6, 2), (13, 8, 3), (10, 7, 4), (2, 9, 3)]
)
def test_max_pool_is_the_largest_value_of_each_block(height, width, rate):
    image = np.random.default_rng(rate).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pooled = degrade(image, rate, "max-pool")
    assert pooled.shape == (max(1, height // rate), width // rate, 3)
    for i, j, channel in np.ndindex(pooled.shape):
        block = image[i * rate : (i + 1) * rate, j * rate : (j + 1) * rate, channel]
        assert pooled[i, j, channel] == block.max()
    views = np.empty((1, *pooled.shape), np.uint8)
    write_views(views, image, [rate], "max-pool")
    np.testing.assert_array_equal(views[0], pooled)


def test_max_pool_takes_whole_rates():
    image = np.zeros((8, 8, 3), np.uint8)
    assert "whole rate" in message(degrade, image, 2.5, "max-pool")
    assert degrade(image, 2.0, "max-pool").shape == (4, 4, 3)
    assert degrade(image, 1, "max-pool") is image


# --- a folder that is drawn, built, read back and checked ------------------------------------


def pattern(person, camera):
    """The same pixels on every machine, in whole numbers, with fine detail."""
    y, x, c = np.indices((128, 48, 3))
    return ((x * y * (person + 2) + 37 * camera * x + 91 * c + y * y) % 256).astype(np.uint8)


@pytest.fixture(scope="module")
def viper(tmp_path_factory):
    """VIPeR stores BMP: no decoder, and no version of zlib, comes between."""
    root = tmp_path_factory.mktemp("drawn") / "VIPeR"
    for folder, camera in (("cam_a", 1), ("cam_b", 2)):
        (root / folder).mkdir(parents=True)
        for person in range(12):
            name = f"{3 * person:03d}_{45 * camera}.bmp"
            Image.fromarray(pattern(person, camera)).save(root / folder / name)
    return root


@pytest.fixture(scope="module")
def built(viper, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "mlr-viper"
    data = load("viper", viper, protocol="paper", split_id=1, seed=5)
    return data, out, build(data, out, verbose=False)


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


# These change only with the draws, a kernel or the manifest's layout: then say so to the users, for
# every score is quoted with such a number.
MANIFESTS = {
    "paper": "678db2a32d37acc7bc126a55e90e8b4e1588a7c8bde7115639c074233f98efab",
    "paper-camera-per-person": "18e24d3a6b361ed41e29325feb73ca27f99326bc9c57c2bfe5fbe516a1f04670",
    "paper-all-queries": "80e5dde4fb47513d0da84ea9a012c952f42e97871ad8d4e68dc07c2baeece7b6",
    "rain-code": "3abcb5a901b98a4cbebae684c203fc8580c41c8d59c284fc04d6a9489289bae1",
    "multi-shot": "5a444ac145a1ef26c080983df3c0a637ab55ef69da313af685c422c058abeced",
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_one_seed_gives_one_manifest_everywhere(viper, tmp_path, name):
    data = load("viper", viper, protocol=name, split_id=1, seed=5)
    assert write_manifest(tmp_path / "m", manifest_rows(data, ())) == MANIFESTS[name]


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos", "max-pool"])
def test_kernels(viper, kernel):
    data = load("viper", viper, protocol="paper", kernel=kernel)
    for record in data.query:
        assert record.kernel == kernel
        original = record.original()
        assert original.read().shape == (128, 48, 3) and original.rate == 1
        np.testing.assert_array_equal(record.read(), degrade(original.read(), record.rate, kernel))
    gallery = data.gallery[0]
    assert gallery.original() is gallery


def test_a_set_is_built_into_the_empty_folder_of_a_link(built, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert build(built[0], tmp_path / "link", verbose=False) == built[2]
    assert (tmp_path / "link").is_symlink() and files(tmp_path / "disk") == files(built[1])


def test_a_manifest_is_read_by_lines_alone(built, tmp_path):
    """Names may hold what Python takes for the end of a line."""
    lines = (built[1] / "manifest.jsonl").read_text("utf-8").splitlines()
    row = {**json.loads(lines[0]), "person": "a\u2028b"}
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n" + lines[1] + "\n", "utf-8")
    assert next(found["person"] for found in read_rows(path)) == "a\u2028b"


def test_a_range_of_rates_is_no_protocols(viper):
    with pytest.raises(InputError, match=r"give numbers, no range"):
        load("viper", viper, protocol="paper", rates="2..4")


def test_a_built_folder_holds_what_its_manifest_says(built, viper):
    _, out, sha256 = built
    content = files(out)
    manifest = content.pop("manifest.jsonl")
    assert hashlib.sha256(manifest).hexdigest() == sha256 == MANIFESTS["paper"]
    rows = [json.loads(line) for line in manifest.decode().splitlines()]
    assert {row["path"] for row in rows} == set(content) and len(rows) == 12 + 6 + 6
    for row in rows:
        assert hashlib.sha256(content[row["path"]]).hexdigest() == row["sha256"]
        assert row["dataset"] == "viper" and row["protocol"] == "paper"
        assert (row["split"], row["split_id"], row["seed"]) == ("test", 1, 5)
        source = (viper / row["source"]).read_bytes()
        if row["role"] != "query":
            assert content[row["path"]] == source and row["kernel"] is None
            continue
        person, camera = int(row["person"]) // 3, row["camera"]
        small = degrade(pattern(person, camera), row["rate"], "area")
        with Image.open(out / row["path"]) as image:
            np.testing.assert_array_equal(image, small)
        assert row["path"].startswith("query/lr/") and f"_{row['rate']}x.bmp" in row["path"]


def test_building_twice_gives_equal_bytes(built, tmp_path):
    data, out, sha256 = built
    assert build(data, tmp_path / "again", verbose=False) == sha256
    assert files(tmp_path / "again") == files(out)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]  # nothing half-written is left


def test_a_built_folder_reads_back_as_the_same_images(built, tmp_path):
    data, out, _ = built
    again = load("mlr", out)
    for name in ("protocol", "split", "split_id", "seed", "gallery_shots"):
        assert getattr(again, name) == getattr(data, name)
    for role in ("train", "query", "gallery"):
        made, read = (
            {(r.person, r.camera, r.rate): r for r in getattr(d, role)} for d in (data, again)
        )
        assert made.keys() == read.keys() and len(made) == len(getattr(data, role))
        for key, record in made.items():
            assert read[key].kernel is None  # nothing is shrunk a second time
            np.testing.assert_array_equal(read[key].read(), record.read())
    # The manifest of a run is the same, with training images and without.
    for options in ({}, {"train_rates": (2, 3, 4)}):
        for need in (("train", "query", "gallery"), ("query", "gallery")):
            fly = load("viper", data.root, protocol="paper", split_id=1, seed=5, need=need)
            rows = manifest_rows(fly, (1, 2), **options)
            assert write_manifest(tmp_path / "a", rows) == write_manifest(
                tmp_path / "b", manifest_rows(load("mlr", out, need=need), (1, 2), **options)
            )
    assert {tuple(r["rate"]) for r in rows if r["role"] == "train"} <= {(2, 3, 4)}
    assert "was built by protocol paper, not multi-shot" in message(
        load, "mlr", out, protocol="multi-shot"
    )
    assert len({r.person for r in load("mlr", out, limit=2).query}) == 2


@pytest.mark.parametrize("harm", ["pixel", "missing", "added", "none"])
def test_verify_names_every_image_that_differs(built, tmp_path, harm):
    data, _, _ = built
    out = tmp_path / "mlr"
    build(data, out, verbose=False)
    rows = read_rows(out / "manifest.jsonl")
    path = next(row["path"] for row in rows if row["role"] == "query")
    if harm == "pixel":
        with Image.open(out / path) as image:
            pixels = np.array(image)
        pixels[3, 4, 1] ^= 1
        Image.fromarray(pixels).save(out / path)
    elif harm == "missing":
        (out / path).unlink()
        assert f"{out / path} is missing" in message(load, "mlr", out)
    elif harm == "added":
        (out / "gallery" / "hr" / "new.jpg").write_bytes(b"new")
    expected = {
        "pixel": {path: "differs"},
        "missing": {path: "missing"},
        "added": {"gallery/hr/new.jpg": "not in the manifest"},
        "none": {},
    }
    assert verify(out, verbose=False) == expected[harm]
    if harm == "pixel":  # and no run takes the image for the one that is listed
        changed = next(r for r in load("mlr", out).query if r.path.endswith(path))
        assert "is not the one that its manifest lists" in message(changed.read)
        assert "is not the one that its manifest lists" in message(decode, [changed] * 200)


def test_rows_of_a_built_set_are_of_the_right_type(built, tmp_path):
    good = json.loads((built[1] / "manifest.jsonl").read_text().splitlines()[0])
    table = tmp_path / "manifest.jsonl"
    for name, value in (
        ("person", ["a"]), ("person", True), ("person", 1.5), ("camera", "1"), ("camera", 2**40),
        ("rate", "2"), ("rate", 0), ("rate", float("nan")), ("sha256", "0" * 63), ("sha256", 5),
        ("role", {}), ("role", "probe"), ("protocol", []), ("split", "all"), ("split_id", -1),
        ("seed", None), ("path", 7), ("path", "../x.jpg"), ("path", "/etc/x.jpg"), ("path", ""),
    ):  # fmt: skip
        table.write_text(json.dumps({**good, name: value}))
        found = message(load, "mlr", tmp_path)
        assert f"{table}, line 1: {name} is" in found
    table.write_text(json.dumps(good) + "\n" + json.dumps(good))
    assert "line 2: path is" in message(load, "mlr", tmp_path)
    table.write_text("[" * 100_000)
    assert "line 1 lists no image" in message(load, "mlr", tmp_path)


def test_build_refuses_what_it_cannot_do(built, viper, tmp_path):
    data, out, _ = built
    assert "nothing is overwritten" in message(build, data, out)
    before = files(out)
    assert "there is nothing to build" in message(build, load("viper", viper), tmp_path / "new")
    assert "an MLR set already" in message(build, load("mlr", out), tmp_path / "new")
    broken = DataSet("csv", [Record(str(tmp_path / "a.jpg"), 1, 1)], [], [], protocol="paper")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no image")
    assert "a.jpg" in message(build, broken, tmp_path / "new", verbose=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"] and files(out) == before
    (tmp_path / "file").write_text("")
    assert "cannot write" in message(build, data, tmp_path / "file" / "new", verbose=False)
    assert "cannot read" in message(verify, tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"path": "a.jpg"}\n')
    assert "manifest.jsonl, line 1" in message(verify, tmp_path)
    (tmp_path / "manifest.jsonl").write_text("")
    assert "is empty" in message(load, "mlr", tmp_path)


@pytest.mark.parametrize(
    "options, start",
    [
        ({"rates": (8,)}, "rates (8,) of mlr"), ({"rates": "1..4"}, "rates 1..4 of mlr"),
        ({"rates": (0.5,), "kernel": "bicubic"}, "kernel bicubic of mlr"),
    ],
)  # fmt: skip
def test_a_built_folder_takes_no_rates_or_kernel(built, options, start):
    out = built[1]
    assert load("mlr", out, rates=(2.0, 3.0, 4.0)).query
    assert message(load, "mlr", out, **options).startswith(start)


def test_names_are_kept_apart_and_safe(tmp_path):
    records = []
    for folder in ("a", "b"):
        for person in ("x/y", "..", "Ann", "ann"):
            place = tmp_path / folder / f"{len(records)}"
            place.mkdir(parents=True)
            Image.fromarray(pattern(len(records), 0)[:8]).save(place / "1.png")
            records.append(Record(str(place / "1.png"), person, 1))
    # The third has the name that the second is given.
    for name in ("c/img.png", "d/img.png", "e/img-2.png"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(pattern(len(records), 0)[:8]).save(tmp_path / name)
        records.append(Record(str(tmp_path / name), "Ann", 1))
    data = DataSet("csv", records, [], [], root=str(tmp_path), protocol="paper")
    build(data, tmp_path / "out", verbose=False)
    written = [path.name.lower() for path in (tmp_path / "out" / "train" / "hr").iterdir()]
    assert len(set(written)) == 11
    assert verify(tmp_path / "out", verbose=False) == {}
    found = {
        (r.person, r.read().tobytes()) for r in load("mlr", tmp_path / "out", need=("train",)).train
    }
    assert found == {(r.person, r.read().tobytes()) for r in records}


def test_dev_split_and_limit_of_a_protocol(viper):
    full = load("viper", viper, protocol="paper")
    dev = load("viper", viper, protocol="paper", split="dev")
    assert {r.person for r in dev.query} <= {r.person for r in full.train}
    assert dev.split == "dev" and {r.rate for r in dev.query} <= {2, 3, 4}
    few = load("viper", viper, protocol="paper", limit=2)
    assert len(few.query) == 2 and set(few.query) < set(full.query)  # the same draws
    only = load("viper", viper, protocol="paper", need=("query",))
    assert only.query == full.query and only.gallery == only.train == []


# --- command line ----------------------------------------------------------------------------


def test_recipe_builds_and_verifies(viper, tmp_path, capsys, monkeypatch):
    pytest.importorskip("tyro", reason='recipes need pip install -e ".[recipes]"')
    from keras_xreid import app
    from keras_xreid.app import build

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["xreid build", *map(str, arguments)])
        status = 0
        try:
            app.command(build.main, build.Options, build.__doc__)
        except SystemExit as leaving:
            status = leaving.code
        return status, *capsys.readouterr()

    out = tmp_path / "mlr"
    arguments = ("viper", viper, out, "--protocol", "paper", "--split-id", 1, "--seed", 5)
    status, printed, _ = run(*arguments)
    assert status == 0 and MANIFESTS["paper"] in printed
    assert "query: 6 images of 6 people by 1 cameras" in printed
    status, printed, _ = run("--verify", out)
    assert status == 0 and MANIFESTS["paper"] in printed
    for role in ("query", "gallery"):
        next((out / role).rglob("*.bmp")).unlink()
    status, printed, errors = run(out, "--verify")
    assert status == 2 and printed.count(": missing") == 2
    assert errors.startswith("xreid build: 2 images of") and errors.count("\n") == 1
    new = tmp_path / "new"
    for wrong, said in (
        (arguments, "mlr"),
        (("viper", viper), "give the data set's name"),
        (("synthetic-b", new, "--boxes", "labeled"), "boxes 'labeled' of synthetic-b"),
        (("viper", viper.parent, new), "viper"),
        (
            ("viper", viper, new, "--gap", 10, "--crops", 9),
            "leave out --gap and --crops: of use with mot only",
        ),
        (
            ("mot", viper, new, "--split", "dev"),
            "leave out --split: of use with other data sets only",
        ),
        (("--verify", "nothing", out), "the folder that was built, and nothing else"),
        (("--verify", out, "--protocol", "rain-code"), "and nothing else"),
        (("--verify",), "the folder that was built"),
    ):
        status, _, errors = run(*wrong)
        assert status == 2 and errors.count("\n") == 1 and not new.exists()
        assert said in errors
    # What says what is so anyway is no matter.
    assert run("viper", viper, new, "--gap", 50)[0] == 0

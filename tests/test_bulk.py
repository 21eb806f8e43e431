"""Embedding into Parquet parts, and galleries by command."""

import contextlib
import csv
import json
import os
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import small
from PIL import Image

import keras_xreid as xr
from keras_xreid.app import bulk, embed, index, pan, search
from keras_xreid.app import gallery as verb
from keras_xreid.gallery import store

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture
def images(tmp_path):
    """Eleven images, one of them broken, and a CSV with camera and time."""
    folder, rows = tmp_path / "images", [("path", "person", "camera", "time")]
    folder.mkdir()
    for i in range(11):
        pixels = np.random.default_rng(i).integers(0, 255, (*small.SIZE, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        rows.append((f"images/{i:02d}.png", f"p{i // 2}", i % 3, i / 2 if i != 4 else ""))
    (folder / "07.png").write_bytes(b"no image")
    with open(tmp_path / "people.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "people.csv"


@pytest.fixture
def model(monkeypatch):
    found = small.shared(small.baseline)
    monkeypatch.setattr(xr, "load", lambda *_, **__: found)
    return found


def asked(images, out, **options):
    return embed.Options(str(images), str(out), **options)


def test_parts_hold_every_image(images, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bulk, "PART", 4)
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 4))
    monkeypatch.setattr(bulk, "AT_A_TIME", 3)
    out = tmp_path / "parts"
    embed.main(asked(images, out, rates=2.0))
    assert sorted(p.name for p in out.iterdir()) == [
        *(f"part-00000{i}.parquet" for i in range(3)), "plan.json", "rejected.csv",
    ]  # fmt: skip
    found = list(xr.gallery.parquet.read_parts(out))
    paths = [path for columns, _, _ in found for path in columns["path"]]
    assert [p[-6:-4] for p in paths] == [f"{i:02d}" for i in range(11) if i != 7]
    embeddings = np.concatenate([part for _, part, _ in found])
    wanted = model.embed(
        xr.prepare_images([xr.Record(p, None, 0) for p in paths], model.image_size), 2
    )
    np.testing.assert_allclose(embeddings, wanted, rtol=1e-5, atol=1e-6)
    columns = found[1][0]
    assert columns["time"] == [None, 2.5, 3.0] and columns["camera"] == ["1", "2", "0"]
    assert columns["person"] == ["p2", "p2", "p3"] and columns["rate"] == [2.0] * 3
    with open(out / "rejected.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"].endswith("07.png") and "07.png" in row["reason"]
    assert "10 images" not in capsys.readouterr().out


def test_stopped_and_gone_on(images, model, tmp_path, monkeypatch):
    """A part that is there is not made again; shards make each part once."""
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 4))
    out, calls = tmp_path / "parts", []
    made = bulk._part
    monkeypatch.setattr(bulk, "_part", lambda *a: calls.append(len(a[2])) or made(*a))
    embed.main(asked(images, out, shard="1/2"))
    assert calls == [4] and [p.name for p in out.glob("*.parquet")] == ["part-000001.parquet"]
    kept = (out / "part-000001.parquet").read_bytes()
    embed.main(asked(images, out, shard="0/2"))
    assert calls == [4, 4, 3]
    (out / "part-000002.parquet").unlink()
    embed.main(asked(images, out))
    assert calls == [4, 4, 3, 3] and (out / "part-000001.parquet").read_bytes() == kept
    with pytest.raises(xr.InputError, match=r"part-000001\.parquet is damaged"):
        (out / "part-000001.parquet").write_bytes(kept[:-9])
        embed.main(asked(images, out))
    text = images.read_text()
    images.write_text(text.replace(",2,2.5", ",2,7.5"))  # a time
    with pytest.raises(xr.InputError, match="begun with other names, people, cameras or times"):
        embed.main(asked(images, out))
    images.write_text(text.rstrip("\n").rpartition("\n")[0])
    with pytest.raises(xr.InputError, match=r"another number of images \(11 then, 10 now\): give"):
        embed.main(asked(images, out))
    images.write_text(text)
    with pytest.raises(xr.InputError, match=r"another rate \(1\.0 then, 4\.0 now\)"):
        embed.main(asked(images, out, rates=4.0))
    with pytest.raises(xr.InputError, match="--shard is 2/2"):
        embed.main(asked(images, out, shard="2/2"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(xr.InputError, match="holds other files"):
        embed.main(asked(images, tmp_path / "full"))


def test_parts_of_changed_images_are_made_anew(images, model, tmp_path, monkeypatch, capsys):
    """By size and time, and then by content; a broken image that was mended, too."""
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 4))
    folder, out, hashed = images.parent / "images", tmp_path / "parts", []
    sha256 = bulk.file_sha256
    monkeypatch.setattr(bulk, "file_sha256", lambda path: hashed.append(path) or sha256(path))

    def age(name, seconds):
        os.utime(folder / name, (time.time() - seconds,) * 2)

    def made():
        """The parts that are made anew, and how many files are hashed."""
        before = {path: path.read_bytes() for path in out.glob("*.parquet")}
        hashed.clear()
        embed.main(asked(images, out))
        return [p.name[5:11] for p in sorted(before) if p.read_bytes() != before[p]], len(hashed)

    for i in range(11):
        age(f"{i:02d}.png", 100)
    made()
    assert made() == ([], 0)
    age("05.png", 50)  # the same content
    assert made() == ([], 1)
    shutil.copy(folder / "06.png", folder / "05.png")
    age("05.png", 100)  # of another size, at the same time
    assert (
        made()[0] == ["000001"] and "part-000001.parquet is made anew: 1" in capsys.readouterr().out
    )
    paths, embeddings, _ = zip(*xr.gallery.parquet.read_parts(out), strict=True)
    assert [path[-6:] for path in paths[1]["path"]] == ["04.png", "05.png", "06.png"]
    np.testing.assert_array_equal(embeddings[1][1], embeddings[1][2])
    shutil.copy(folder / "06.png", folder / "07.png")  # it was broken
    age("07.png", 50)
    assert made()[0] == ["000001"] and (out / "rejected.csv").read_text() == "path,reason\n"
    Image.fromarray(np.zeros((*small.SIZE, 3), "uint8")).save(folder / "00.png")
    size = (folder / "00.png").stat().st_size
    (folder / "09.png").write_bytes(b"\0" * size)  # just written: its time says nothing yet
    assert made()[0] == ["000000", "000002"]
    (folder / "09.png").write_bytes(b"\1" * size)
    assert made()[0] == ["000002"]
    embed.main(asked(images, out, shard="1/2"))
    assert made()[0] == []


def sequence(folder, frames=5):
    """A sequence in MOT's format: two people in each frame, one of whom reaches out of the last."""
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    lines = []
    for frame in range(1, frames + 1):
        pixels = np.random.default_rng(frame).integers(0, 255, (90, 120, 3), "uint8")
        Image.fromarray(pixels).save(folder / "img1" / f"{frame:06d}.png")
        lines.append(f"{frame},7,{10 * frame},3,20,40,1,1,1")
        lines.append(f"{frame},3,{(100 if frame == frames else 50) + 1},21,24,48,1,1,0.9")
    lines.append("1,9,1,1,20,40,0,1,1")  # does not count
    (folder / "gt" / "gt.txt").write_text("\n".join(reversed(lines)))
    (folder / "seqinfo.ini").write_text("[Sequence]\nname=yard\nframeRate=2\n")
    return folder


def test_people_of_a_sequence(model, tmp_path, monkeypatch, capsys):
    """Each box of each frame is a row, and embedded as an image that was cut out."""
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 4))
    monkeypatch.setattr(bulk, "AT_A_TIME", 3)
    folder, out, decoded = sequence(tmp_path / "yard"), tmp_path / "v1.2", []
    with open(folder / "gt" / "gt.txt", "a") as boxes:
        boxes.write("\n2,8,20,3,20,40,1,1,1")  # that of person 7
    read = bulk.mot.read_image
    monkeypatch.setattr(bulk.mot, "read_image", lambda path: decoded.append(path) or read(path))
    embed.main(asked(folder, out))
    assert "Left out: 1 boxes that another person of their frame has" in capsys.readouterr().out
    assert len(decoded) == 1 + 5  # the first one for the size, and then each once
    parts = list(xr.gallery.parquet.read_parts(out))
    boxes = pq.read_table(sorted(out.glob("*.parquet")))["box"].to_pylist()
    places = [(box["frame"], box["left"], box["top"], box["width"], box["height"]) for box in boxes]
    wanted = [(f, *box) for f in range(1, 6) for box in ((50, 20, 24, 48), (10 * f - 1, 2, 20, 40))]
    wanted.remove((5, 50, 20, 24, 48))
    assert places == wanted
    paths = [path for columns, _, _ in parts for path in columns["path"]]
    assert paths[:2] == [f"{folder}/img1/000001.png#xywh={x}" for x in ("50,20,24,48", "9,2,20,40")]
    columns = parts[1][0]
    assert columns["person"] == ["3", "7", "3", "7"] and columns["camera"] == ["yard"] * 4
    assert columns["time"] == [1.0, 1.0, 1.5, 1.5]
    assert columns["sha256"][0] == bulk.file_sha256(folder / "img1" / "000003.png")
    assert ",101,21," in (folder / "gt" / "gt.txt").read_text()
    rejected = (out / "rejected.csv").read_text()
    assert rejected.count("\n") == 2 and "#xywh=100,20,24,48" in rejected
    cuts = []
    for frame, left, top, width, height in wanted:
        pixels = np.asarray(Image.open(folder / "img1" / f"{frame:06d}.png"))
        cuts.append(pixels[top : top + height, left : left + width])
    features = model.embed(xr.prepare_images(cuts, model.image_size), 1)
    found = np.concatenate([embeddings for _, embeddings, _ in parts])
    np.testing.assert_allclose(found, features, rtol=1e-5, atol=1e-6)
    gallery = xr.Gallery.from_parquet(tmp_path / "gallery", out, model)
    assert gallery.search(features[2:3], k=1, between=(0.5, 0.5)).keys == [[paths[2]]]
    for sha256 in (None, "0" * 64, gallery.columns(paths[2:3])["sha256"][0]):
        np.testing.assert_array_equal(index.image_of(paths[2], sha256), cuts[2])  # its picture
    with pytest.raises(xr.InputError, match="another file than the one that was embedded"):
        index.image_of(paths[2], "1" * 64)
    for name in (
        f"{folder}/img1/000001.png#xywh=110,20,24,48",
        f"{folder}/img1/9.png#xywh=1,1,2,2",
    ):
        with pytest.raises(xr.InputError):
            index.image_of(name)
    shutil.copy(folder / "img1" / "000001.png", folder / "img1" / "000004.png")
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    embed.main(asked(folder, out))
    assert [p.name[-9] for p in sorted(before) if p.read_bytes() != before[p]] == ["1"]  # 5 to 8
    (folder / "img1" / "000002.png").unlink()
    embed.main(asked(folder, tmp_path / "fewer"))
    assert (tmp_path / "fewer" / "rejected.csv").read_text().count("frame 2 has boxes") == 2
    with pytest.raises(xr.InputError, match="a sequence with boxes"):
        embed.main(asked(folder, tmp_path / "x.npz"))
    with pytest.raises(xr.InputError, match="with boxes: xreid embed cuts people out of it"):
        verb.main(verb.Options("add", str(tmp_path / "whole"), (str(folder),)))


def test_people_of_a_video(model, tmp_path, monkeypatch):
    """As of its frames; parts that are there are left out."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 4))
    folder = sequence(tmp_path / "yard")
    (folder / "seqinfo.ini").unlink()
    with av.open(str(folder / "walk.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=4)
        stream.width, stream.height, stream.pix_fmt = 120, 90, "bgr0"
        for path in sorted((folder / "img1").iterdir()):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.open(path))))
        container.mux(stream.encode())
    embed.main(asked(folder, tmp_path / "frames"))
    shutil.rmtree(folder / "img1")
    out = tmp_path / "video"
    embed.main(asked(folder, out, shard="1/3"))
    embed.main(asked(folder, out))
    frames, video = (list(xr.gallery.parquet.read_parts(one)) for one in (tmp_path / "frames", out))
    for (_, a, _), (columns, b, _) in zip(frames, video, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert set(columns["sha256"]) == {bulk.file_sha256(folder / "walk.mkv")}
    columns = video[0][0]
    assert columns["path"][2] == f"{folder}/walk.mkv#frame=2&xywh=50,20,24,48"
    assert columns["time"] == [0.0, 0.0, 0.25, 0.25]


def test_a_file_of_features_knows_its_model(images, model, tmp_path, monkeypatch):
    """A gallery of it, and `xreid pan`, refuse what another model made."""
    monkeypatch.setattr(embed, "weights_sha256", lambda *_: "0" * 64)
    file, cache = tmp_path / "a.npz", str(tmp_path / "cache")
    embed.main(asked(images, file, cache=cache))
    with np.load(file) as found:
        assert json.loads(str(found["model"])) == xr.gallery.about_model(model)
        held = dict(found)
    with xr.Gallery.from_parquet(tmp_path / "gallery", file, model) as gallery:
        assert len(gallery) == 10 and len(set(gallery.columns()["sha256"])) == 10
        assert gallery.search(held["features"][:1], k=1).keys == [[str(held["paths"][0])]]
        columns = gallery.columns()  # as the CSV says
        assert columns["camera"] == [str(i % 3) for i in range(11) if i != 7]
        assert columns["time"] == [None if i == 4 else i / 2 for i in range(11) if i != 7]
    old = {name: held[name] for name in held if name not in ("cameras", "times")}
    np.savez(tmp_path / "old.npz", **old)
    with xr.Gallery.from_parquet(tmp_path / "old", tmp_path / "old.npz", model) as gallery:
        assert set(gallery.about["cameras"]) == {""} and gallery.about["time"] is None
    with pytest.raises(xr.InputError, match="another model"):
        xr.Gallery.from_parquet(tmp_path / "other", file, small.shared(small.intact))
    with pytest.raises(xr.InputError, match="another model"):
        xr.Gallery.open(tmp_path / "gallery", small.shared(small.intact))
    changed = {**held, "model": str(held["model"]).replace('"flip"', '"flop"')}
    np.savez(tmp_path / "b.npz", **changed)
    with pytest.raises(xr.InputError, match=r"b\.npz and .*a\.npz are of two models"):
        pan.main(pan.Options(str(tmp_path / "x.weights.h5"), str(file), (str(tmp_path / "b.npz"),)))
    np.savez(tmp_path / "c.npz", **{**held, "adapted": "{}"})
    with pytest.raises(xr.InputError, match="statistics of its cameras"):
        xr.Gallery.from_parquet(tmp_path / "other", tmp_path / "c.npz", model)
    del held["model"]  # an old file
    np.savez(tmp_path / "d.npz", **held)
    with pytest.raises(xr.InputError, match="does not say its model"):
        xr.Gallery.from_parquet(tmp_path / "other", tmp_path / "d.npz")
    assert len(xr.Gallery.from_parquet(tmp_path / "other", tmp_path / "d.npz", model)) == 10
    (tmp_path / "e.npz").write_bytes(file.read_bytes()[:500])
    with pytest.raises(xr.InputError, match=r"e\.npz is damaged"):
        xr.Gallery.from_parquet(tmp_path / "third", tmp_path / "e.npz", model)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"out": "parts", "adapted": "cameras.npz"}, "parts hold no statistics of cameras"),
        ({"rates": 0.5}, r"0\.5"),
        ({"rates": float("nan")}, "nan"),
        ({"out": "parts", "rates": 0.5}, r"0\.5"),
        ({"shard": "1/4"}, "--shard shares Parquet parts"),
        ({"workers": 8}, "--engine and --workers make Parquet parts"),
        ({"out": "parts", "workers": 8}, "--workers is of use with --engine only"),
        ({"out": "parts", "cache": "cache"}, "leave out --cache"),
        ({"out": "parts", "overwrite": True}, "remove the folder or give another --out"),
        ({"camera": "yard"}, "--camera is of no use without --adapted"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(images, tmp_path, monkeypatch, options, words):
    monkeypatch.setattr(xr, "load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(xr.InputError, match=words):
        embed.main(asked(images, tmp_path / options.pop("out", "x.npz"), **options))


def test_a_folder_may_have_a_dot_in_its_name(images, model, tmp_path):
    embed.main(asked(images, tmp_path / "runs" / "v1.2"))
    assert (tmp_path / "runs" / "v1.2" / "part-000000.parquet").is_file()
    for name in ("x.csv", "x.txt", "x.npy"):
        with pytest.raises(xr.InputError, match=r"ending in \.npz"):
            embed.main(asked(images, tmp_path / name))


def test_a_gallery_of_parts(images, model, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 4))
    embed.main(asked(images, tmp_path / "parts"))
    gallery = xr.Gallery.from_parquet(tmp_path / "gallery", tmp_path / "parts", model)
    assert len(gallery) == 10
    path = gallery.keys()[0]
    query = model.embed(xr.prepare_images([xr.Record(path, None, 0)], model.image_size), 1)
    assert gallery.search(query, k=1).keys == [[path]]
    assert len(gallery.search(query, k=20, between=(4, None)).keys[0]) == 3  # 08, 09 and 10
    (tmp_path / "parts" / "part-000001.parquet").rename(tmp_path / "one")
    with pytest.raises(xr.InputError, match=r"1 of 3 parts.*part-000001\.parquet"):
        xr.Gallery.from_parquet(tmp_path / "other", tmp_path / "parts")
    (tmp_path / "one").rename(tmp_path / "parts" / "part-000001.parquet")
    shutil.copy(tmp_path / "parts" / "plan.json", tmp_path / "parts" / "part-000009.parquet")
    with pytest.raises(xr.InputError, match=r"part-000009\.parquet is damaged"):
        xr.Gallery.from_parquet(tmp_path / "other", tmp_path / "parts")
    assert not list(tmp_path.glob("*other*")) and not list(tmp_path.glob(".*"))  # whole or not
    with pytest.raises(xr.InputError, match="holds no part"):
        xr.Gallery.from_parquet(tmp_path / "third", images.parent / "images")


def test_images_of_parts_are_in_the_gallery_already(images, model, tmp_path, monkeypatch, capsys):
    """Under the relative names that they have there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "07.png").unlink()
    embed.main(asked("images", "parts"))
    xr.Gallery.from_parquet("gallery", "parts", model).close()
    verb.main(verb.Options("add", "gallery", ("images",)))
    assert " 0 to embed" in capsys.readouterr().out
    verb.main(verb.Options("remove", "gallery", ("images/05.png",)))
    assert "1 images removed, 9 in" in capsys.readouterr().out
    (tmp_path / "images" / "04.png").unlink()
    verb.main(verb.Options("remove", "gallery", ("images/04.png",)))  # it lies there no more
    assert "1 images removed, 8 in" in capsys.readouterr().out


def test_another_folder_has_the_same_names(images, model, tmp_path, monkeypatch):
    """A relative path of parts is an image of this folder only if its content is the same."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images" / "07.png").unlink()
    embed.main(asked("images", "parts"))
    xr.Gallery.from_parquet("gallery", "parts", model).close()
    before = verb.rows_of(xr.Gallery.open("gallery"))
    (tmp_path / "there" / "images").mkdir(parents=True)
    for here, there in (("06", "05"), ("05", "06"), ("08", "08")):
        shutil.copy(f"images/{here}.png", f"there/images/{there}.png")
    monkeypatch.chdir(tmp_path / "there")
    for _ in range(2):
        verb.main(verb.Options("add", "../gallery", ("images",)))
        after = verb.rows_of(xr.Gallery.open("../gallery"))
        new = {verb.key_of(f"images/{name}.png") for name in ("05", "06")}
        assert set(after) == {*before, *new} and before.items() <= after.items()
    for _ in range(2):  # its own, and then nothing
        with contextlib.suppress(xr.InputError):
            verb.main(verb.Options("remove", "../gallery", ("images/05.png",)))
    assert before.items() <= verb.rows_of(xr.Gallery.open("../gallery")).items()


def test_a_part_of_which_no_image_can_be_read(model, tmp_path, monkeypatch):
    """Nor one whose name is not UTF-8; the others are embedded."""
    monkeypatch.setattr(bulk.embed_in_parts, "__defaults__", ((0, 1), 2))
    (tmp_path / "images").mkdir()
    for i in range(2):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"no image")
    Image.fromarray(small.couples(0)["hr"][0]).save(tmp_path / "images" / "2.png")
    named = tmp_path / "images" / "3\udcff.png"
    try:
        shutil.copy(tmp_path / "images" / "2.png", named)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / ".plan.json.7.tmp").write_text("{")  # of a shard that begins, too
    embed.main(asked(tmp_path / "images", tmp_path / "parts"))
    with open(tmp_path / "parts" / "rejected.csv", newline="") as file:
        assert [row["path"][-5:-4] for row in csv.DictReader(file)][:2] == ["0", "1"]
    gallery = xr.Gallery.from_parquet(tmp_path / "gallery", tmp_path / "parts")
    assert gallery.keys() == [str(tmp_path / "images" / "2.png")]


def test_parts_of_others_are_refused(tmp_path):
    import pyarrow as pa

    for number, metadata in enumerate((None, {"model": "[]"}, {"model": '{"dimension": "a"}'})):
        folder = tmp_path / str(number)
        folder.mkdir()
        table = pa.table({"path": ["a"]}, metadata=metadata)
        pa.parquet.write_table(table, folder / "part-000000.parquet")
        with pytest.raises(xr.InputError, match=r"part-000000\.parquet is damaged"):
            xr.Gallery.from_parquet(tmp_path / "gallery", folder)


def test_one_name_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert verb.key_of("../1.png") == verb.key_of(tmp_path / "a" / "1.png")


def test_gallery_by_command(images, model, tmp_path, capsys):
    place = str(tmp_path / "gallery")

    def told(what, *paths, **options):
        verb.main(verb.Options(what, place, tuple(map(str, paths)), **options))
        return capsys.readouterr().out

    assert "10 images added, 10 in" in told("add", images)
    assert "0 to embed" not in told("add", images)  # the broken one is tried again
    out = told("remove", images.parent / "images" / "00.png")
    assert "1 images removed, 9 in" in out
    about = json.loads(told("info"))
    assert about["images"] == 9 and set(about["cameras"]) == {"0", "1", "2"}
    assert "9 images, all as they were written" in told("verify")
    assert "1 removed images gave back 0.0 MB, 9 in" in told("compact")
    assert "1 images added, 10 in" in told("add", images)
    Image.fromarray(np.full((64, 32, 3), 9, np.uint8)).save(images.parent / "images" / "00.png")
    assert "0 images added, 1 embedded anew, 10 in" in told("add", images)
    keys = tmp_path / "gallery" / f"1-{store.KEYS}"
    keys.write_bytes(keys.read_bytes().replace(b"05.png", b"5X.png"))
    with pytest.raises(xr.InputError, match=r"1 of 10 images .*out with xreid gallery compact"):
        told("verify")
    out = told("compact")
    assert "Left out: 1 damaged images, add them again" in out and "1 removed images" in out
    assert "1 images added, 10 in" in told("add", images)
    coded = str(tmp_path / "coded")
    for _ in range(2):  # the same command goes on
        verb.main(verb.Options("add", coded, (str(images),), int8=True))
    assert len(xr.Gallery.open(coded)) == 10
    for options, words in (
        (("add", place, (str(images),), None, 1.0, None, None, True), "--int8 is for a new"),
        (("add", place), "add takes one folder"),
        (("remove", place), "remove takes images"),
        (("info", place, ("a.jpg",)), "info takes a gallery alone"),
        (("compact", place, ("a.jpg",)), "compact takes a gallery alone"),
        (("compact", str(tmp_path / "none")), "no gallery"),
        (("remove", place, ("nobody.jpg",)), "nothing was removed"),
        (("info", str(tmp_path / "none")), "no gallery"),
        (("remove", place, ("01.png",), None, 1.0, "yard"), "remove takes no --camera: add does"),
        (("compact", place, (), "x", 1.0, None, None, True), "no --weights and no --int8"),
    ):
        with pytest.raises(xr.InputError, match=words):
            verb.main(verb.Options(*options))


def test_changed_images_are_embedded_anew(images, model, tmp_path, capsys):
    """Under the same name another image, rate or time is another row; what is not told stays."""
    place, folder = str(tmp_path / "gallery"), images.parent / "images"
    (folder / "07.png").unlink()
    images.write_text("".join(x for x in images.open() if "07.png" not in x))

    def rows(source, words, **options):
        verb.main(verb.Options("add", place, (str(source),), **options))
        assert words in capsys.readouterr().out
        found = verb.rows_of(xr.Gallery.open(place))
        assert len(found) == 10
        return {key[-6:]: row for key, row in found.items()}

    first = rows(images, "10 to embed")
    assert first["05.png"][:3] == ("2", 2.5, 1.0)
    assert rows(images, "0 to embed") == first
    assert rows(folder, "0 to embed") == first  # it tells no camera and no time
    shutil.copy(folder / "06.png", folder / "05.png")
    second = rows(folder, "1 to embed")
    assert second["05.png"] == ("2", 2.5, 1.0, first["06.png"][3])
    query = model.embed(xr.prepare_images([xr.Record(str(folder / "06.png"), None, 0)],
                                          model.image_size), 1)  # fmt: skip
    found = xr.Gallery.open(place).search(query, k=2).keys[0]
    assert {key[-6:] for key in found} == {"05.png", "06.png"}
    images.write_text(images.read_text().replace(",2,2.5", ",1,7.5"))
    assert rows(images, "1 to embed")["05.png"][:2] == ("1", 7.5)
    assert {row[2] for row in rows(folder, "10 to embed", rates=2.3).values()} == {
        float(np.float32(2.3))
    }
    rows(folder, "0 to embed", rates=2.3)
    with pytest.raises(xr.InputError, match="below 1"):
        verb.main(verb.Options("add", str(tmp_path / "new"), (str(folder),), rates=0.5))
    assert not (tmp_path / "new").exists()


def test_a_change_that_is_stopped_forgets_nothing(images, model, tmp_path, monkeypatch):
    """The image that changed keeps its camera and time, whenever the command ends."""
    place, folder = str(tmp_path / "gallery"), images.parent / "images"
    verb.main(verb.Options("add", place, (str(images),)))
    before = verb.rows_of(xr.Gallery.open(place))
    shutil.copy(folder / "06.png", folder / "05.png")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(xr.Gallery, "add", stopped)
        verb.main(verb.Options("add", place, (str(folder),)))
    assert verb.rows_of(xr.Gallery.open(place)) == before
    verb.main(verb.Options("add", place, (str(folder),)))
    assert verb.rows_of(xr.Gallery.open(place))[str(folder / "05.png")][:2] == ("2", 2.5)


def test_one_image_under_two_names_is_refused(images, model, tmp_path):
    """Before anything is done."""
    place, text = str(tmp_path / "gallery"), images.read_text()
    verb.main(verb.Options("add", place, (str(images),)))
    before = verb.rows_of(xr.Gallery.open(place))
    images.write_text(f"{text.rstrip()}\nimages/../images/05.png,,9,9\n")
    for one in (place, str(tmp_path / "new")):
        with pytest.raises(xr.InputError, match=r"images/\.\./images/05\.png, which is .*keep one"):
            verb.main(verb.Options("add", one, (str(images),)))
    assert verb.rows_of(xr.Gallery.open(place)) == before and not (tmp_path / "new").exists()


def test_no_gallery_of_nothing(model, tmp_path):
    """Where no image can be read, none is made."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    asked = verb.Options("add", str(tmp_path / "gallery"), (str(tmp_path / "images"),))
    with pytest.raises(xr.InputError, match=r"no image can be read.*a\.png"):
        verb.main(asked)
    assert not (tmp_path / "gallery").exists()


def test_a_refused_change_removes_nothing(images, model, tmp_path):
    """Rows of a camera with other statistics are refused; the one that has changed stays."""
    place, path = str(tmp_path / "gallery"), images.parent / "images" / "05.png"
    with xr.Gallery.create(place, model) as gallery:
        feature = model.embed(np.zeros((1, *model.image_size, 3), "uint8"), 1)
        gallery.add(feature, [verb.key_of(path)], camera=2, statistics={2: "of an adaptation"})
    with pytest.raises(xr.InputError, match="embed that camera's images anew"):
        verb.main(verb.Options("add", place, (str(images),)))
    assert xr.Gallery.open(place).keys() == [verb.key_of(path)]


def test_statistics_for_images_that_are_there_are_refused(images, model, tmp_path, monkeypatch):
    """Nothing is embedded anew, so they would be passed over without a word."""
    place = str(tmp_path / "gallery")
    verb.main(verb.Options("add", place, (str(images),)))
    statistics = SimpleNamespace(check=lambda model: None, hash_of=lambda camera: "of a camera")
    monkeypatch.setattr(xr.CameraStatistics, "load", lambda path: statistics)
    with pytest.raises(xr.InputError, match="embed that camera's images anew"):
        verb.main(verb.Options("add", place, (str(images),), adapted="cameras.npz"))


def test_search_of_a_gallery(images, model, tmp_path, monkeypatch, capsys):
    """As a search of the folder, and by camera and time."""
    place, query = str(tmp_path / "gallery"), images.parent / "images" / "05.png"
    hashes = {str(path): bulk.file_sha256(path) for path in query.parent.iterdir()}
    monkeypatch.setattr(search, "weights_sha256", lambda *_: "0" * 64)
    verb.main(verb.Options("add", place, (str(images),)))

    def ranked(gallery, **options):
        out = tmp_path / "found"
        if gallery is not place:
            options["cache"] = str(tmp_path / "cache")
        search.main(search.Options(str(gallery), (str(query),), out=str(out), overwrite=True, top=3,
                                   **options))  # fmt: skip
        found = json.loads((out / "ranked.json").read_text())
        assert (out / "ranked.png").stat().st_size > 1000 and found["gallery_images"] == 10
        for one in found["queries"][0]["ranked"]:
            assert one["sha256"] == hashes[one["path"]]
        return [(one["path"][-6:], one["distance"]) for one in found["queries"][0]["ranked"]]

    ours, theirs = ranked(place), ranked(images)
    assert [name for name, _ in ours] == [name for name, _ in theirs] and ours[0][0] == "05.png"
    np.testing.assert_allclose([d for _, d in ours], [d for _, d in theirs], atol=1e-5)
    assert {name for name, _ in ranked(place, cameras=("1",))} <= {"01.png", "04.png", "10.png"}
    assert [n for n, _ in ranked(place, between=(2.5, 2.5))] == ["05.png"]
    assert ranked(place, between=(100.0, 200.0)) == []
    with pytest.raises(xr.InputError, match="make one with xreid gallery add"):
        ranked(images, cameras=("1",))
    with pytest.raises(xr.InputError, match="holds its embeddings itself: leave out --cache"):
        ranked(place, cache="elsewhere")
    (images.parent / "images" / "05.png").rename(tmp_path / "query.png")
    query = tmp_path / "query.png"
    seen, drawn = search.seen, []
    monkeypatch.setattr(search, "seen", lambda *a: drawn.append(seen(*a)) or drawn[-1])
    assert ranked(place)[0][0] == "05.png"  # its picture is grey: it lies there no more
    shutil.copy(query.parent / "images" / "06.png", query.parent / "images" / "05.png")
    assert ranked(place)[0][0] == "05.png"  # or is another one
    assert [(image == 128).all() for image in drawn] == [True, False, False] * 2

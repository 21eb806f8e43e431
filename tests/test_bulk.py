"""Embedding into Parquet parts, and galleries by command."""

import csv
import json
import shutil

import numpy as np
import pytest
import small
from PIL import Image

import keras_xreid as xr
from keras_xreid.app import bulk, embed, search
from keras_xreid.app import gallery as verb

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


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
    monkeypatch.setattr(bulk, "_part", lambda *a: calls.append(len(a[1])) or made(*a))
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
    with pytest.raises(xr.InputError, match="another list"):
        embed.main(asked(images, out))
    images.write_text(text)
    with pytest.raises(xr.InputError, match="another rate"):
        embed.main(asked(images, out, rates=4.0))
    with pytest.raises(xr.InputError, match="--shard is 2/2"):
        embed.main(asked(images, out, shard="2/2"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(xr.InputError, match="holds other files"):
        embed.main(asked(images, tmp_path / "full"))


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
    assert "1 images added, 10 in" in told("add", images)
    for options, words in (
        (("add", place), "add takes one folder"),
        (("remove", place), "remove takes images"),
        (("info", place, ("a.jpg",)), "info takes a gallery alone"),
        (("remove", place, ("nobody.jpg",)), "nothing was removed"),
        (("info", str(tmp_path / "none")), "no gallery"),
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


def test_a_refused_change_removes_nothing(images, model, tmp_path):
    """Rows of a camera with other statistics are refused; the one that has changed stays."""
    place, path = str(tmp_path / "gallery"), images.parent / "images" / "05.png"
    with xr.Gallery.create(place, model) as gallery:
        feature = model.embed(np.zeros((1, *model.image_size, 3), "uint8"), 1)
        gallery.add(feature, [verb.key_of(path)], camera=2, statistics={2: "of an adaptation"})
    with pytest.raises(xr.InputError, match="embed that camera's images anew"):
        verb.main(verb.Options("add", place, (str(images),)))
    assert xr.Gallery.open(place).keys() == [verb.key_of(path)]


def test_search_of_a_gallery(images, model, tmp_path, monkeypatch, capsys):
    """As a search of the folder, and by camera and time."""
    place, query = str(tmp_path / "gallery"), images.parent / "images" / "05.png"
    monkeypatch.setattr(search, "weights_sha256", lambda *_: "0" * 64)
    verb.main(verb.Options("add", place, (str(images),)))

    def ranked(gallery, **options):
        out = tmp_path / "found"
        search.main(search.Options(str(gallery), (str(query),), out=str(out), overwrite=True,
                                   cache=str(tmp_path / "cache"), top=3, **options))  # fmt: skip
        found = json.loads((out / "ranked.json").read_text())
        assert (out / "ranked.png").stat().st_size > 1000 and found["gallery_images"] == 10
        return [(one["path"][-6:], one["distance"]) for one in found["queries"][0]["ranked"]]

    ours, theirs = ranked(place), ranked(images)
    assert [name for name, _ in ours] == [name for name, _ in theirs] and ours[0][0] == "05.png"
    np.testing.assert_allclose([d for _, d in ours], [d for _, d in theirs], atol=1e-5)
    assert {name for name, _ in ranked(place, cameras=("1",))} <= {"01.png", "04.png", "10.png"}
    assert [n for n, _ in ranked(place, between=(2.5, 2.5))] == ["05.png"]
    assert ranked(place, between=(100.0, 200.0)) == []
    with pytest.raises(xr.InputError, match="make one with xreid gallery add"):
        ranked(images, cameras=("1",))
    (images.parent / "images" / "05.png").rename(tmp_path / "query.png")
    query = tmp_path / "query.png"
    assert ranked(place)[0][0] == "05.png"  # its picture is grey: it lies there no more

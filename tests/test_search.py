"""A folder of images and a query in, a ranked list out; every gallery image is embedded once."""

import dataclasses
import importlib.util
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import small
from PIL import Image

import keras_xreid as xr
from keras_xreid.data.manifest import file_sha256
from keras_xreid.data.synthetic.people import draw_person

missing = [m for m in ("tyro", "matplotlib") if importlib.util.find_spec(m) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
if not missing:
    from keras_xreid import app
    from keras_xreid.app import index, search


@pytest.fixture(scope="module")
def model():
    return small.fill(xr.Baseline(small.PEOPLE, "tiny", image_size=small.SIZE))


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    """A baseline's weights file."""
    path = tmp_path_factory.mktemp("weights") / "baseline.weights.h5"
    xr.save(model, path)
    return path


@pytest.fixture(scope="module")
def people():
    """Drawn people, by number; what is drawn once lasts."""
    return {person: draw_person(person, 2, 0) for person in (1, 2, 3, 4, 5, 9)}


@pytest.fixture
def gallery(tmp_path, people):
    """Five people in two folders, and files that are none of them."""
    folder = tmp_path / "gallery"
    for person in range(1, 6):
        place = folder / f"camera{person % 2}"
        place.mkdir(parents=True, exist_ok=True)
        people[person].save(place / f"{person}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "camera1" / "._1.png").write_text("of another system")
    return folder


@pytest.fixture
def query(tmp_path, people):
    path = tmp_path / "query.png"
    people[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((16, 32)).save(path)
    return path


class Coarse:
    """A model without a network: nine mean colours. It notes what it is asked."""

    image_size = small.SIZE

    def __init__(self):
        self.embedded, self.told = [], []

    def embed(self, images, rates=None):
        assert images.shape[1:] == (*self.image_size, 3) and images.dtype == np.uint8
        self.embedded.append((len(images), rates))
        rows = np.array_split(images.astype("float32"), 3, axis=1)
        return np.stack([row.mean((1, 2)) for row in rows], 1).reshape(len(images), -1)

    def distances(self, query, gallery, query_rates=None):
        self.told.append(query_rates)
        return np.linalg.norm(query[:, None] - gallery[None], axis=2)


class Recovering(Coarse):
    def recover(self, images):
        return np.zeros(images.shape, "float32")


@pytest.fixture
def coarse(monkeypatch):
    """`xr.load` gives a `Coarse`, whatever the file holds; nothing is drawn."""
    model = Coarse()
    monkeypatch.setattr(search, "draw", lambda *arguments: [])
    monkeypatch.setattr(search.xr, "load", lambda weights: model)
    return model


def options(tmp_path, weights, gallery, *queries, **more):
    given = {"out": str(tmp_path / "out"), "cache": str(tmp_path / "cache"), **more}
    return search.Options(str(gallery), tuple(map(str, queries)), weights=str(weights), **given)


def ranked(tmp_path):
    return json.loads((tmp_path / "out" / "ranked.json").read_text())


def by_hand(model, gallery, path):
    """The gallery by 1 - cosine, with Pillow and NumPy, one image at a time."""

    def embedding(image):
        image = Image.open(image).convert("RGB")
        pixels = np.asarray(image.resize((32, 64), Image.Resampling.BILINEAR))
        feature = model.embed(pixels[None])[0].astype("float64")
        return feature / np.linalg.norm(feature)

    paths = [gallery / f"camera{person % 2}" / f"{person}.png" for person in range(1, 6)]
    distances = {str(p): 1 - embedding(path) @ embedding(p) for p in paths}
    return sorted(distances.items(), key=lambda pair: pair[1])


def test_the_command_ranks_as_by_hand(
    model, weights, gallery, query, tmp_path, monkeypatch, capsys
):
    same = gallery / "camera0" / "4.png"
    arguments = ["search.py", "--weights", weights, "--gallery", gallery, query, same, "--top", 3,
                 "--out", tmp_path / "out", "--cache", tmp_path / "cache"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    app.command(search.main, search.Options, search.__doc__)
    printed = capsys.readouterr().out
    found = ranked(tmp_path)
    assert found["system"] == "Baseline" and found["gallery_images"] == 5
    assert found["weights_sha256"] == file_sha256(weights)
    assert found["rates_from"] is None
    for entry, path in zip(found["queries"], (query, same), strict=True):
        assert (entry["query"], entry["rate"]) == (str(path), None)
        expected = by_hand(model, gallery, path)[:3]
        assert [one["path"] for one in entry["ranked"]] == [name for name, _ in expected]
        assert [one["rank"] for one in entry["ranked"]] == [1, 2, 3]
        np.testing.assert_allclose(
            [one["distance"] for one in entry["ranked"]], [d for _, d in expected], atol=1e-5
        )
        for one in entry["ranked"]:
            assert one["sha256"] == file_sha256(one["path"]) and one["path"] in printed
    assert found["queries"][1]["ranked"][0]["path"] == str(same)
    assert "5 images, 5 to embed" in printed and "Embedding 5 images: " in printed
    with Image.open(tmp_path / "out" / "ranked.png") as picture:
        assert picture.width > 4 * 96 and picture.height > 2 * 192
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"ranked.json", "ranked.png"}


def test_an_image_is_embedded_once(coarse, weights, gallery, query, people, tmp_path, capsys):
    def again(**more):
        coarse.embedded.clear()
        given = options(tmp_path, more.pop("weights", weights), gallery, query, overwrite=True)
        search.main(given)
        *of_gallery, of_query = coarse.embedded
        assert of_query == (1, None) and all(rates == 1 for _, rates in of_gallery)
        return sum(n for n, _ in of_gallery)

    assert again() == 5
    first = ranked(tmp_path)
    assert again() == 0 and ranked(tmp_path) == first
    assert "5 images, 0 to embed" in capsys.readouterr().out

    # Renamed or copied: the same content. Another file under an old name is another image.
    one, two = gallery / "camera1" / "1.png", gallery / "camera0" / "2.png"
    one.rename(gallery / "one.png")
    shutil.copy(two, gallery / "two.png")
    assert again() == 0
    people[9].save(two)
    assert again() == 1
    found = {entry["path"]: entry for entry in ranked(tmp_path)["queries"][0]["ranked"]}
    expected = coarse.distances(
        coarse.embed(xr.prepare_images([np.asarray(Image.open(query))], small.SIZE)),
        coarse.embed(xr.prepare_images([np.asarray(Image.open(two))], small.SIZE)),
    )
    assert found[str(two)]["distance"] == pytest.approx(expected[0, 0], rel=1e-6)
    assert found[str(two)]["sha256"] == file_sha256(two)

    # Other weights, or another size: nothing of it holds.
    other = tmp_path / "other.weights.h5"
    other.write_bytes(weights.read_bytes() + b" ")
    assert again(weights=other) == 6
    coarse.image_size = (32, 16)
    assert again() == 6
    coarse.image_size = small.SIZE
    assert again() == 0


def test_a_broken_cache_is_not_believed(coarse, weights, gallery, query, tmp_path):
    given = options(tmp_path, weights, gallery, query, overwrite=True)
    search.main(given)
    first = ranked(tmp_path)
    (kept,) = (tmp_path / "cache").rglob("*.npz")
    whole = kept.read_bytes()
    image = np.asarray(Image.open(gallery / "camera1" / "1.png"))
    feature = coarse.embed(xr.prepare_images([image], small.SIZE))
    changed = bytearray(whole)
    changed[whole.index(feature.tobytes())] ^= 1
    for content in (whole[:100], b"", b"no archive", bytes(changed)):
        kept.write_bytes(content)
        coarse.embedded.clear()
        search.main(given)
        assert coarse.embedded[0] == (5, 1)
        assert ranked(tmp_path) == first


def test_images_that_cannot_be_read_are_left_out(
    coarse, weights, gallery, query, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(index, "AT_A_TIME", 2)
    broken, copy, empty = (gallery / "camera1" / name for name in ("1.png", "copy.png", "5.png"))
    content = broken.read_bytes()
    for path in (broken, copy):
        path.write_bytes(content[: len(content) // 2])
    empty.write_bytes(b"")
    (gallery / "folder.jpg").mkdir()
    given = options(tmp_path, weights, gallery, query, overwrite=True)
    search.main(given)
    found = ranked(tmp_path)
    assert found["gallery_images"] == len(found["queries"][0]["ranked"]) == 3
    reasons = {one["path"]: one["reason"] for one in found["unreadable"]}
    assert reasons.keys() == {str(broken), str(copy), str(empty)}
    assert "0 bytes" in reasons[str(empty)] and "is broken" in reasons[str(copy)]
    printed = capsys.readouterr().out
    assert all(
        path in reasons[path] and f"Left out: {reasons[path]}" in printed for path in reasons
    )

    # One that is mended is embedded, the others are known.
    broken.write_bytes(content)
    coarse.embedded.clear()
    search.main(given)
    assert [n for n, _ in coarse.embedded] == [1, 1]  # the image, the query
    assert len(ranked(tmp_path)["unreadable"]) == 2
    for path in gallery.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(xr.InputError, match=r"no image can be read.*empty"):
        search.main(given)


def test_a_camera_of_which_no_image_can_be_read_is_left_out(gallery, tmp_path):
    model = SimpleNamespace(image_size=small.SIZE, embed=lambda x, rates, **_: np.ones((len(x), 2)))
    records = index.own_images(gallery)
    adapted = SimpleNamespace(hash_of=str)
    given = (records, index.cameras_of(records), adapted, tmp_path / "cache", "0" * 64)
    for path in (gallery / "camera0").iterdir():
        path.write_bytes(b"no image")
    found, _, features, unreadable = index.embed_by_camera(model, *given)
    assert found == [record for record in records if record.person == "camera1"]
    assert len(features) == len(found) and len(unreadable) == len(records) - len(found)
    for path in (gallery / "camera1").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(xr.InputError, match="no image of any camera can be read"):
        index.embed_by_camera(model, *given)


def test_what_was_embedded_before_it_was_stopped_is_kept(
    coarse, weights, gallery, query, tmp_path, monkeypatch
):
    monkeypatch.setattr(index, "AT_A_TIME", 2)
    embed = coarse.embed

    def stopped(images, rates=None):
        if len(images) == 1:
            raise KeyboardInterrupt
        return embed(images, rates)

    given = options(tmp_path, weights, gallery, query)
    with monkeypatch.context() as while_it_runs, pytest.raises(KeyboardInterrupt):
        while_it_runs.setattr(coarse, "embed", stopped)
        search.main(given)
    coarse.embedded.clear()
    search.main(given)
    assert [n for n, _ in coarse.embedded] == [1, 1]  # the last image, the query


def test_a_search_stays_until_the_next_is_written(
    coarse, weights, gallery, query, tmp_path, monkeypatch
):
    given = options(tmp_path, weights, gallery, query, overwrite=True)
    search.main(given)
    picture, first = tmp_path / "out" / "ranked-2.png", ranked(tmp_path)
    picture.write_bytes(b"of the first search")
    with monkeypatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(coarse, "distances", lambda *a, **k: (_ for _ in ()).throw(MemoryError()))
        search.main(given)
    assert ranked(tmp_path) == first and picture.exists()
    search.main(dataclasses.replace(given, top=2))
    assert len(ranked(tmp_path)["queries"][0]["ranked"]) == 2 and not picture.exists()


def test_embeddings_of_another_backend_are_not_taken(coarse, monkeypatch):
    before = index.cache_folder("cache", "0" * 64, coarse)
    monkeypatch.setattr(index.keras.backend, "backend", lambda: "other")
    assert index.cache_folder("cache", "0" * 64, coarse) != before


def test_an_image_that_changes_meanwhile_is_not_kept(
    coarse, weights, gallery, query, tmp_path, monkeypatch
):
    path = gallery / "camera0" / "2.png"
    embed = coarse.embed

    def meanwhile(images, rates=None):
        path.write_bytes(query.read_bytes())
        return embed(images, rates)

    monkeypatch.setattr(coarse, "embed", meanwhile)
    with pytest.raises(xr.InputError, match=r"2\.png changed while"):
        search.main(options(tmp_path, weights, gallery, query))
    assert not list(tmp_path.rglob("*.npz")) and not (tmp_path / "out" / "ranked.json").exists()


def test_a_cache_that_cannot_be_written_stops_nothing(
    coarse, weights, gallery, query, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(index, "AT_A_TIME", 2)
    (tmp_path / "cache").write_text("a file where a folder should be")
    search.main(options(tmp_path, weights, gallery, query))
    assert capsys.readouterr().out.count("cannot be kept") == 1
    assert len(ranked(tmp_path)["queries"][0]["ranked"]) == 5


def test_rates_are_given_estimated_or_unknown(coarse, weights, gallery, query, tmp_path):
    tall = gallery / "camera1" / "3.png"

    def told(**more):
        search.main(options(tmp_path, weights, gallery, query, tall, overwrite=True, **more))
        rates = coarse.embedded[-1][1]
        np.testing.assert_array_equal(coarse.told[-1], rates)
        found = ranked(tmp_path)
        assert [q["rate"] for q in found["queries"]] == (
            [None, None] if rates is None else list(map(float, rates))
        )
        return found["rates_from"], rates if rates is None else list(rates)

    assert told() == (None, None)
    assert told(rates=(4,)) == ("--rates", [4, 4])
    assert told(rates=(4, 1)) == ("--rates", [4, 1])
    assert told(full_height=128) == ("--full-height", [4, 1])
    assert told(full_height=129)[1] == [np.float32(129 / 32), 1]  # one pixel is no resolution
    assert told(full_height=160)[1] == [5, 1.25]
    name, found = told(estimate_rates=True)
    images = [xr.Record(str(path), None, 0) for path in (query, tall)]
    assert name == "--estimate-rates" and found == list(xr.estimate_rate(images))


def grey(picture, x, y, width, height):
    """Mean of a picture's part, 0 to 255."""
    return np.asarray(picture.convert("L"))[y : y + height, x : x + width].mean()


def test_the_picture_shows_what_was_searched_with(weights, gallery, query, tmp_path, monkeypatch):
    model = Recovering()
    monkeypatch.setattr(search.xr, "load", lambda weights: model)
    white = tmp_path / "white.png"
    Image.new("RGB", (32, 64), "white").save(white)
    search.main(options(tmp_path, weights, gallery, white, white, rates=(2, 1)))
    with Image.open(tmp_path / "out" / "ranked.png") as picture:
        row = (picture.height - 14) // 2
        for y, recovered in ((14 + 24, 0), (14 + 24 + row, 255)):  # black where there is one
            assert grey(picture, 14 + 20, y + 20, 50, 100) == pytest.approx(255, abs=1)
            assert grey(picture, 124 + 20, y + 20, 50, 100) == pytest.approx(recovered, abs=1)
            assert grey(picture, 260 + 20, y + 20, 50, 100) < 250  # the first found


def test_many_queries_are_drawn_on_several_pictures(weights, gallery, query, tmp_path, monkeypatch):
    monkeypatch.setattr(search.xr, "load", lambda weights: Coarse())
    monkeypatch.setattr(search, "QUERIES_A_PICTURE", 2)
    dollars = tmp_path / "a$b$c_with_a_very_long_name_indeed.png"
    shutil.copy(query, dollars)
    search.main(options(tmp_path, weights, gallery, query, dollars, query, top=2))
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"ranked.json", "ranked-1.png", "ranked-2.png"}
    # A new search in the same folder leaves nothing of the old one.
    search.main(options(tmp_path, weights, gallery, query, top=1, overwrite=True))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"ranked.json", "ranked.png"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"gallery": "empty"}, ["no images", "empty", ".png"]),
        ({"gallery": "nowhere"}, ["no images at nowhere"]),
        ({"query": ("nowhere.png",)}, ["cannot read image", "nowhere.png"]),
        ({"query": ("gallery/notes.txt",)}, ["notes.txt", "no image"]),
        ({"query": ()}, ["no query"]),
        ({"weights": "mystery"}, ["no weights at mystery"]),
        ({"weights": "gallery/notes.txt"}, ["notes.txt", "no weights file"]),
        ({"top": 0}, ["--top", "0"]),
        ({"rates": (2, 3)}, ["--rates", "2 numbers", "1 queries"]),
        ({"rates": (0.5,)}, ["0.5", "below 1"]),
        ({"rates": (2,), "full_height": 96}, ["--rates", "--full-height"]),
        ({"rates": (2,), "estimate_rates": True}, ["--estimate-rates", "one of them"]),
        ({"full_height": 0}, ["full_height", "0"]),
        ({"out": "gallery/found"}, ["lies in the gallery"]),
        ({"out": "others"}, ["holds other files"]),
        ({"out": "others", "overwrite": True}, ["holds other files"]),
        ({"out": "searched"}, ["--overwrite"]),
    ],
)
def test_bad_input(weights, gallery, query, tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    if "weights" not in change:
        monkeypatch.setattr(search.xr, "load", lambda weights: Coarse())
    (tmp_path / "empty").mkdir()
    for name, file in (("others", "thesis.tex"), ("searched", "ranked.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    given = {
        "weights": str(weights), "gallery": "gallery", "query": ("query.png",), "out": "out",
        "cache": "cache", **change,
    }  # fmt: skip
    with pytest.raises(xr.InputError) as refused:
        search.main(search.Options(**given))
    message = str(refused.value)
    assert all(word in message for word in words) and "\n" not in message, message
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()
    assert (tmp_path / "others" / "thesis.tex").exists()
    assert (tmp_path / "searched" / "ranked.json").read_text() == "{}"


def test_one_network_for_each_rate_is_refused(coarse, weights, gallery, query, tmp_path):
    coarse.gallery_at_query_rate = True
    with pytest.raises(xr.InputError, match="anew at each query's rate"):
        search.main(options(tmp_path, weights, gallery, query))
    assert not (tmp_path / "out").exists()

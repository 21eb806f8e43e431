import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from keras_xreid.data.synthetic import canvas, cloth
from keras_xreid.data.synthetic import people as synthetic
from keras_xreid.data.synthetic.body import Body
from keras_xreid.data.synthetic.people import describe_person, draw_person, load_synthetic
from keras_xreid.errors import InputError

# The version and the means of two by four parts of one image.
RECORDED = (
    "7",
    [[143, 161, 119], [138, 156, 118],
     [122, 120, 70], [123, 118, 67],
     [136, 136, 79], [136, 131, 78],
     [162, 165, 115], [144, 148, 103]],
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(cache):
    return load_synthetic((64, 32), people=3, seed=5, cache_dir=cache, verbose=False)


def test_parts(data):
    assert data.name == "synthetic"
    assert [len(part) for part in (data.train, data.query, data.gallery)] == [48, 12, 36]
    assert {r.person for r in data.train} == {1, 2, 3}
    assert {r.person for r in data.query} == {r.person for r in data.gallery} == {4, 5, 6}
    # One query and three gallery images of each person in each camera.
    pairs = {(person, camera) for person in (4, 5, 6) for camera in (1, 2, 3, 4)}
    assert Counter((r.person, r.camera) for r in data.query) == dict.fromkeys(pairs, 1)
    assert Counter((r.person, r.camera) for r in data.gallery) == dict.fromkeys(pairs, 3)
    every = data.train + data.query + data.gallery
    assert len({r.path for r in every}) == 96
    assert {r.size for r in every} == {(64, 32)}
    assert all(r.read().shape == (64, 32, 3) and r.read().dtype == np.uint8 for r in every)


def test_files_are_what_draw_person_draws(data):
    """Drawn by another process, in another order, the pixels are the same."""
    for record, shot in ((data.train[17], 1), (data.query[6], 0), (data.gallery[-1], 3)):
        drawn = draw_person(record.person, record.camera, shot, (64, 32), seed=5)
        np.testing.assert_array_equal(record.read(), np.asarray(drawn))


def test_every_choice_matters():
    first = np.asarray(draw_person(1, 1, 0))
    assert first.shape == (128, 64, 3)
    np.testing.assert_array_equal(first, draw_person(1, 1, 0))
    for other in ((2, 1, 0, 0), (1, 2, 0, 0), (1, 1, 1, 0), (1, 1, 0, 1)):
        person, camera, shot, seed = other
        image = np.asarray(draw_person(person, camera, shot, seed=seed), float)
        assert np.abs(image - first).mean() > 5, other


def test_number_of_people_changes_nobody(cache, data):
    fewer = load_synthetic((64, 32), people=2, seed=5, cache_dir=cache, verbose=False)
    np.testing.assert_array_equal(fewer.train[3].read(), data.train[3].read())


def test_version_is_raised_with_the_drawing():
    """Coarse means of an image, so that another Pillow may differ by a little."""
    means = np.asarray(draw_person(10, 3, 2).resize((2, 4), Image.Resampling.BOX), int)
    assert RECORDED[0] == synthetic.VERSION, "record the new version and its means here"
    assert np.abs(means.reshape(8, 3) - np.array(RECORDED[1])).max() <= 2, (
        f"the drawing has changed: raise VERSION and record {means.reshape(8, 3).tolist()}"
    )


def test_drawn_once(cache, data, monkeypatch):
    monkeypatch.setattr(synthetic, "_draw_all", None)  # would fail if called
    again = load_synthetic((64, 32), people=3, seed=5, cache_dir=cache, verbose=False)
    assert again == data
    names = sorted(path.name for path in cache.iterdir())
    assert all(name.startswith(f"synthetic-{synthetic.VERSION}-64x32-") for name in names)


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    # A worker that fails at once, in the place of the Python interpreter.
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(synthetic.sys, "executable", str(failing))
    home = tmp_path / "cache"
    with pytest.raises(InputError, match="drawing process failed"):
        load_synthetic((64, 32), people=2, cache_dir=home, verbose=False)
    assert list(home.iterdir()) == []


def test_second_of_two_processes_keeps_the_first_ones_images(tmp_path, monkeypatch):
    folder = tmp_path / "synthetic"
    taken = folder / "train" / "0001_c1_000.png"
    real = synthetic.subprocess.Popen

    def meanwhile(*args, **kwargs):
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_text("first")
        return real(*args, **kwargs)

    monkeypatch.setattr(synthetic.subprocess, "Popen", meanwhile)
    synthetic._draw_all(folder, (32, 16), 2, 0, False)
    assert taken.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": (16, 64)}, "16x64 is too small"),
        ({"people": 1}, "1 people cannot be told apart"),
        ({"seed": -1}, "seed -1 is negative"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message) as error:
        load_synthetic(cache_dir=tmp_path, verbose=False, **arguments)
    assert "\n" not in str(error.value)


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot draw the images into") as error:
        load_synthetic(people=2, cache_dir=tmp_path / "file", verbose=False)
    assert "\n" not in str(error.value)


def test_worker_starts_without_keras():
    code = f"import sys, {synthetic.__name__}; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_group_differs_in_fine_detail_only():
    for group in range(25):
        looks = [describe_person(4 * group + member) for member in (1, 2, 3, 4)]
        for look in looks[1:]:
            assert {k for k in look if look[k] != looks[0][k]} == {"fine"}
        for detail in looks[0]["fine"]:
            assert len({look["fine"][detail] for look in looks}) == 4, (group, detail)
    coarse = [{**describe_person(4 * group + 1), "fine": None} for group in range(50)]
    assert all(a != b for i, a in enumerate(coarse) for b in coarse[:i])


def _still(person, turn=0):
    """A person in a fixed pose and view, without scene, blur or noise: the cut-out in RGB."""
    view = {**synthetic.VIEWS[0], "turn": turn, "spread": 0}
    rng = np.random.default_rng(0)
    cut_out = canvas.Canvas(rng, view, 128, 64)
    Body(cut_out, describe_person(person), rng).paint()
    return cut_out.rgb.reduce(canvas.OVERSAMPLING)


@pytest.mark.parametrize("turn", [0, 180])
def test_details_fade_with_the_resolution(turn):
    def difference(a, b, rate):
        small = [image.resize((64 // rate, 128 // rate), Image.Resampling.BOX) for image in (a, b)]
        return np.abs(np.subtract(*(np.asarray(image, float) for image in small))).mean()

    within, between = [], []
    for first in range(1, 81, 4):
        one, other = _still(first, turn), _still(first + 1, turn)
        stranger = _still(first + 4, turn)
        within.append([difference(one, other, rate) for rate in (1, 2, 4, 8)])
        between.append([difference(one, stranger, rate) for rate in (1, 2, 4, 8)])
    within, between = np.mean(within, 0), np.mean(between, 0)
    # Seen from the front and from the back, members differ, and less with every rate;
    assert within[0] > 4 and (np.diff(within) < 0).all()
    # little of it is left at r=8 beside what tells strangers apart.
    assert within[3] < 0.7 * within[0] and within[3] < 0.4 * between[3]


@pytest.mark.parametrize(("kind", "period"), cloth.PATTERNS)
def test_patterns_keep_the_mean_colour(kind, period):
    """Counted on a raster: as much ink as COVERED says, so that shrinking gives the mean back."""
    scale, size = 20, 8 * period
    polygons = cloth.pattern_on(kind, period, 0, size, 0, size)
    raster = Image.new("L", (round(size * scale),) * 2)
    canvas.fill(raster, polygons * scale, 1)
    # Whole periods away from the edges.
    low, high = round(2 * period * scale), round(6 * period * scale)
    share = np.asarray(raster)[low:high, low:high].mean()
    assert share == pytest.approx(cloth.COVERED[kind], abs=0.02)


def test_two_tones():
    ink, ground = cloth.two_tones((100, 120, 140), 0.25, contrast=80)
    np.testing.assert_allclose(ink, (160, 180, 200))
    np.testing.assert_allclose(ground, (80, 100, 120))
    # Near black there is room for a quarter of the contrast only: 8 is the darkest ground.
    ink, ground = cloth.two_tones((18, 60, 60), 0.5, contrast=80)
    np.testing.assert_allclose(ink, (28, 70, 70))
    np.testing.assert_allclose(ground, (8, 50, 50))


def test_style_b_is_the_same_people_in_other_cameras(cache):
    """Another folder, another name; a person keeps the description and changes in every camera."""
    data = load_synthetic((64, 32), 3, seed=5, cache_dir=cache, verbose=False, style="b")
    assert data.name == "synthetic-b" and len(data.gallery) == 36
    record = data.query[6]
    drawn = draw_person(record.person, record.camera, 0, (64, 32), seed=5, style="b")
    np.testing.assert_array_equal(record.read(), np.asarray(drawn))
    for camera in (1, 2, 3, 4):
        a, b = (np.asarray(draw_person(1, camera, 0, (64, 32), style=s), float) for s in "ab")
        assert np.abs(a.mean((0, 1)) - b.mean((0, 1))).max() > 10
    with pytest.raises(InputError, match="style 'c' is unknown"):
        load_synthetic(style="c")

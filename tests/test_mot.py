"""Far and near images of people, cut out of a sequence."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_xreid as xr
from keras_xreid.data.readers.mot import Box, choose, cut_people, read_boxes

COLOURS = {1: (200, 30, 30), 2: (30, 200, 30), 3: (30, 30, 200)}
FRAMES, SIZE = range(1, 61), (320, 240)


def height_at(frame, person):
    """People walk away from the camera; the third one stays near it."""
    return 160 if person == 3 else round(160 / (1 + 0.06 * (frame - 1)))


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    """Sixty frames of three people, in perspective, and their boxes as MOT has them."""
    folder = tmp_path_factory.mktemp("mot")
    (folder / "img1").mkdir()
    (folder / "gt").mkdir()
    lines = []
    for frame in FRAMES:
        pixels = np.full((SIZE[0], SIZE[1], 3), 120, "uint8")
        for person, colour in COLOURS.items():
            height = height_at(frame, person)
            width, left, top = height // 2, 80 * (person - 1), 200 - height
            pixels[top : top + height, left : left + width] = colour
            pixels[top, left : left + width] = 255  # the first row of the box
            lines.append(f"{frame},{person},{left + 1},{top + 1},{width},{height},1,1,1.0")
        Image.fromarray(pixels).save(folder / "img1" / f"{frame:06d}.png")
    lines.append("1,9,1,1,40,160,0,1,1")  # does not count
    lines.append("1,10,1,1,40,160,1,3,1")  # a car
    lines.append("1,11,1,1,40,160,1,1,0.2")  # hardly visible
    lines.append("1,12,-20,1,40,160,1,1,1")  # reaches out of the picture
    (folder / "gt" / "gt.txt").write_text("\n".join(lines))
    return folder


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_far_queries_and_a_near_gallery(sequence, tmp_path):
    table = cut_people(sequence, tmp_path / "cut", gap=10, near=128, far=64, verbose=False)
    rows = rows_of(table)
    queries = [row for row in rows if row["split"] == "query"]
    gallery = [row for row in rows if row["split"] == "gallery"]
    assert {row["person"] for row in queries} == {"1", "2"}
    assert {row["person"] for row in gallery} == {"1", "2", "3"}  # the third to be mistaken for
    assert {row["camera"] for row in queries} == {"2"} and {r["camera"] for r in gallery} == {"1"}
    for row in rows:
        frame, person = int(row["frame"]), int(row["person"])
        height = height_at(frame, person)
        assert int(row["height"]) == height and int(row["rate"]) == max(1, round(128 / height))
        assert height <= 64 if row["split"] == "query" else height >= 128
        pixels = np.asarray(Image.open(table.parent / row["path"]))  # without loss, to the pixel
        assert pixels.shape == (height, height // 2, 3)
        assert (pixels[0] == 255).all() and (pixels[1:] == COLOURS[person]).all()
    for query in queries:
        twins = [row for row in gallery if row["person"] == query["person"]]
        assert twins and len(twins) <= 5
        assert min(abs(int(t["frame"]) - int(query["frame"])) for t in twins) >= 10
    data = xr.datasets.load("csv", table, need=("query", "gallery"))
    assert (len(data.query), len(data.gallery)) == (len(queries), len(gallery))
    assert data.protocol == "multi-shot" and "one camera over time" in data.about
    with pytest.raises(xr.InputError, match="nothing is overwritten"):
        cut_people(sequence, tmp_path / "cut", verbose=False)


def test_chosen_by_hand():
    """Person 1 is far in frames 10 and 20, near in 1, 15 and 40; person 2 is never near."""
    boxes = [Box(f, 1, 0, 0, 9, h) for f, h in ((1, 130), (10, 60), (15, 140), (20, 64), (40, 200))]
    boxes.append(Box(5, 2, 0, 0, 9, 30))
    queries, gallery = choose(boxes, gap=9, near=128, far=64, crops=5)
    assert [box.frame for box in queries] == [10, 20]
    assert [box.frame for box in gallery] == [1, 40]  # 15 is 5 frames from both
    queries, gallery = choose(boxes, gap=9, near=128, far=64, crops=1)
    assert [box.frame for box in queries] == [10] and [box.frame for box in gallery] == [1]


def test_boxes_that_count(sequence):
    people = {box.person for box in read_boxes(sequence)}
    assert people == {1, 2, 3, 12}
    first = read_boxes(sequence)[0]
    assert (first.left, first.top) == (0, 40)  # MOT counts pixels from 1


def test_a_person_twice_in_a_frame_is_refused(tmp_path):
    (tmp_path / "gt.txt").write_text("1,1,1,1,40,90,1\n1,2,1,1,40,90,1\n1,1,5,5,40,90,1")
    with pytest.raises(xr.InputError, match="lines 1 and 3: both are of person 1 in frame 1"):
        read_boxes(tmp_path)


def test_ten_columns_have_no_class(tmp_path):
    """MOT15 has positions there, or -1."""
    (tmp_path / "gt.txt").write_text("1,1,1,1,40,90,1,-1,-1,-1\n1,2,1,1,40,90,0,-1,-1,-1")
    assert [box.person for box in read_boxes(tmp_path)] == [1]


def test_frames_of_another_size(sequence, tmp_path):
    shutil.copytree(sequence, tmp_path / "mot")
    last = tmp_path / "mot" / "img1" / f"{FRAMES[-1]:06d}.png"
    Image.open(last).crop((0, 0, 30, 30)).save(last)
    with pytest.raises(xr.InputError, match=f"frame {FRAMES[-1]} .*not as large"):
        cut_people(tmp_path / "mot", tmp_path / "cut", gap=10, verbose=False)
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        ("1,1,1,1,40", "no box"),
        ("1,1,1,1,40,nan", "no box"),
        ("1,1,1,1,40,1e300", "no box"),
        ("0,1,1,1,40,90", "too small"),
        ("1,1,1,1,40,90,0,1,1", "no box of a person"),
        ("1,1,1,1,40,90", "nobody is seen"),
    ],
)
def test_refused(sequence, tmp_path, text, words):
    (tmp_path / "gt.txt").write_text(text)
    (tmp_path / "img1").symlink_to(sequence / "img1")
    with pytest.raises(xr.InputError, match=words):
        cut_people(tmp_path, tmp_path / "out", verbose=False)
    assert not (tmp_path / "out").exists()


def test_nothing_to_cut(tmp_path):
    with pytest.raises(xr.InputError, match=r"gt/gt\.txt"):
        cut_people(tmp_path, tmp_path / "out")
    (tmp_path / "gt.txt").write_text("1,1,1,1,40,90")
    with pytest.raises(xr.InputError, match="0 videos"):
        cut_people(tmp_path, tmp_path / "out")


def test_a_video_gives_the_same_people(sequence, tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "gt.txt").write_text((sequence / "gt" / "gt.txt").read_text())
    with av.open(str(tmp_path / "people.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "bgr0"
        for frame in FRAMES:
            pixels = np.asarray(Image.open(sequence / "img1" / f"{frame:06d}.png"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    options = {"gap": 10, "verbose": False}
    video, images = (
        cut_people(folder, tmp_path / name, **options)
        for folder, name in ((tmp_path, "video"), (sequence, "images"))
    )
    assert rows_of(video) == rows_of(images)
    for row in rows_of(video):
        ours, theirs = (np.asarray(Image.open(t.parent / row["path"])) for t in (video, images))
        np.testing.assert_array_equal(ours, theirs)
    (tmp_path / "people.mkv").write_bytes(b"no video")
    with pytest.raises(xr.InputError, match="cannot be read as a video"):
        cut_people(tmp_path, tmp_path / "broken", **options)


def test_drawn_people_who_walk_away(tmp_path):
    """tests/benchmarks/perspective.py: as many far and near images, as high as it says."""
    perspective = pytest.importorskip("perspective")
    perspective.main(perspective.Options(str(tmp_path / "sequence"), people=1))
    rows = rows_of(cut_people(tmp_path / "sequence", tmp_path / "cut", crops=10, verbose=False))
    for split, heights in (("query", perspective.FAR), ("gallery", perspective.NEAR)):
        found = [row for row in rows if row["split"] == split and row["person"] == "101"]
        assert sorted(int(row["height"]) for row in found) == sorted(heights)
        apart = [np.asarray(Image.open(tmp_path / "cut" / row["path"])).std() for row in found]
        assert min(apart) > 20  # a person, and no empty place

"""Figures, tables, the report page, and the papers' numbers."""

import csv
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageColor

from keras_xreid import files
from keras_xreid.data.records import DataSet
from keras_xreid.data.resolution import prepare_images
from keras_xreid.errors import InputError
from keras_xreid.evaluation.evaluate import evaluate
from keras_xreid.evaluation.ranking import SCORES
from keras_xreid.evaluation.samples import queries_to_map, queries_to_show
from keras_xreid.report import (
    figures,
    image_figures,
    loss_curves,
    papers,
    report,
    run_figures,
    runs,
    tables,
)
from keras_xreid.report.pixels import BLUE, GREEN, ORANGE, RED


def scores(rank1):
    values = (rank1, rank1 + 10, rank1 + 15, rank1 + 20, rank1 - 20, rank1 - 40)
    return dict(zip(SCORES, values, strict=True))


def version(rank1, psnr, ssim):
    rates = {"1": rank1, "2": rank1 - 3, "4": rank1 - 15}
    return {
        "per_rate": {rate: scores(value) for rate, value in rates.items()},
        "mean_lr": scores(rank1 - 9),
        "standard_error": dict.fromkeys(rates, 2.345),
        "image_quality": {rate: {"ssim": ssim, "psnr": psnr, "lpips": None} for rate in ("2", "4")},
    }


def results(enlarged=True):
    system = {**version(65.0, 23.456, 0.7654), "queries": 424}
    control = version(60.0, 25.0, 0.8)
    if not enlarged:
        system["image_quality"] = control = None
    return {**system, "enlarged": control}


def beside(system):
    """Results of a system that recovers images beside its embedding."""
    found = results()
    control = {**dict.fromkeys(("per_rate", "mean_lr", "standard_error")), **found["enlarged"]}
    control.update(per_rate=None, mean_lr=None, standard_error=None)
    return {**found, "enlarged": control, "system": system}


def metrics(**changes):
    return {
        "system": "intact",
        "dataset": "market1501",
        "protocol": "each-rate",
        "manifest_sha256": "0123abcd" * 8,
        "backend": "torch",
        "seed": 7,
        "preset": "tiny",
        "parameters": 251_234,
        "seconds": 754.2,
        "images_per_second": {"baseline": 80.25},
        "data": {"query": {"images": 424, "people": 100, "cameras": 6}},
        **results(),
        **changes,
    }


# Tables


def test_score_table():
    lines = tables.score_table(results()).splitlines()
    cells = {line.split("  ")[0]: line.split() for line in lines}
    assert " ".join(lines[0].split()) == "query rank-1 rank-5 rank-10 rank-20 mAP mINP PSNR SSIM"
    recovered, enlarged = cells["r = 2, recovered"], cells["r = 2, upscaled"]
    assert " ".join(recovered[4:]) == "62.0 ± 2.3 72.0 77.0 82.0 42.0 22.0 23.5 0.765"
    assert " ".join(enlarged[4:]) == "57.0 ± 2.3 67.0 72.0 77.0 37.0 17.0 25.0 0.800"
    assert cells["mean LR, recovered"][3] == "56.0"
    assert lines[2].startswith("r = 1, as it is") and "65.0 ± 2.3" in lines[2]
    assert len({len(line) for line in lines if line}) == 1  # columns stand under each other


def test_score_table_of_a_model_that_does_not_recover():
    table = tables.score_table(results(enlarged=False))
    assert "PSNR" not in table and "upscaled" not in table
    assert "r = 4  " in table and "mean LR" in table


def test_score_table_of_a_model_that_recovers_beside_its_embedding():
    lines = tables.score_table(beside("rain")).splitlines()
    assert " ".join(lines[0].split()).endswith("mAP mINP PSNR SSIM LR's PSNR LR's SSIM")
    assert [line.split("  ")[0] for line in lines[2:]] == ["r = 1", "r = 2", "r = 4", "mean LR"]
    cells = "62.0 ± 2.3 72.0 77.0 82.0 42.0 22.0 23.5 0.765 25.0 0.800"
    assert " ".join(lines[3].split()[3:]) == cells


def test_scores_not_measured_are_not_made_up():
    measured = results()
    measured["per_rate"]["2"]["mAP"] = None
    del measured["per_rate"]["2"]["mINP"]  # as of a run before it was measured
    measured["image_quality"] = {}
    measured["mean_lr"] = None
    table = tables.score_table(measured)
    line = next(line for line in table.splitlines() if line.startswith("r = 2, recovered"))
    assert line.split()[-4:] == ["-", "-", "-", "-"]
    assert "mean LR, recovered" not in table


def test_markdown_table_says_the_same():
    table = tables.markdown_table(results()).splitlines()
    assert table[1].startswith("| :-- | --: |")
    cells = "50.0 ± 2.3 | 60.0 | 65.0 | 70.0 | 30.0 | 10.0 | 23.5 | 0.765"
    assert f"| r = 4, recovered | {cells} |" in table
    assert {line.count("|") for line in table} == {10}


# Files


def test_json_is_plain_and_whole(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    files.write_json_atomic(
        path, {"a": np.float32(1.5), "b": [np.int64(2), np.inf], 4: np.arange(2), "c": np.nan}
    )
    assert json.loads(path.read_text()) == {"a": 1.5, "b": [2, None], "4": [0, 1], "c": None}
    with pytest.raises(TypeError):
        files.write_json_atomic(path, {"a": object()})
    assert json.loads(path.read_text())["a"] == 1.5  # what was there is still there
    assert [p.name for p in path.parent.iterdir()] == ["metrics.json"]


def test_an_interrupted_figure_leaves_nothing(tmp_path, monkeypatch):
    matplotlib_figure = pytest.importorskip("matplotlib.figure")

    def broken(self, content, **kwargs):
        content.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(matplotlib_figure.Figure, "savefig", broken)
    with pytest.raises(KeyboardInterrupt):
        figures.rank_against_rate(tmp_path / "rank1.png", results())
    assert list(tmp_path.iterdir()) == []


def test_report_page(tmp_path):
    files.write_json_atomic(tmp_path / "metrics.json", metrics())
    (tmp_path / "figures").mkdir()
    for name in ("rank1.png", "recovered.png", "one more.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "figures" / name)
    page = report.write_report(tmp_path).read_text()
    assert page.startswith("# intact on market1501\n")
    said = "Over the rates 2, 4, the right person comes first for 56.0 % of the recovered queries"
    assert said in page and "+5.0 points" in page
    assert tables.markdown_table(metrics()) in page
    places = [
        page.index(f"(figures/{name})") for name in ("recovered.png", "rank1.png", "one%20more.png")
    ]
    assert places == sorted(places)
    assert "losses.png" not in page
    assert (tmp_path / "report.html").read_text().count('<img src="data:image/png') == 3
    for expected in ("0123abcd" * 8, "torch", "| seed | 7 |", "251,234", "12 min 34 s", "80.25"):
        assert expected in page
    assert "| query | 424 | 100 | 6 |" in page
    assert "| INTACT (paper) | 88.1 | 95.0 | 96.9 |" in page
    assert "| Sole SR (paper) | 0.82 | 26.6 | 23.0 |" in page
    # Rates 2 and 4 were measured: rank-1 62 and 50.
    assert "| recovered (this run, mean of r = 2, 4) | 0.77 | 23.5 | 56.0 |" in page
    assert "short run" not in page
    names = ["figures", "metrics.json", "report.html", "report.md"]
    assert [p.name for p in sorted(tmp_path.iterdir())] == names


def test_report_of_a_short_run_of_a_baseline_on_drawn_people(tmp_path):
    files.write_json_atomic(
        tmp_path / "metrics.json",
        metrics(**results(enlarged=False), dataset="synthetic", short_run=True),
    )
    page = report.write_report(tmp_path).read_text()
    assert "A short run" in page and "Mean rank-1 over the rates 2, 4: 56.0 %." in page
    assert "another data set than synthetic" in page
    assert "Sole SR" not in page and "upscaled" not in page and "Figures" not in page


@pytest.mark.parametrize(
    ("system", "dataset", "first", "paper", "row"),
    [
        ("rain", "synthetic", "MLR-CUHK03", "AAAI 2019", "Ours (single-level) (paper) | 77.6 |"),
        ("rain", "viper", "MLR-VIPeR", "AAAI 2019", "SDF (paper) | 9.2 | 38.1 | 52.4 | 68.0 |"),
        ("cadnet", "market1501", "MLR-Market-1501", "ICCV 2019", "Ours (g only) (paper) | 82.2 |"),
        ("baseline", "market1501", "MLR-Market-1501", "CVPR 2020", "INTACT (paper) | 88.1 |"),
    ],
)
def test_report_has_the_systems_own_paper(tmp_path, system, dataset, first, paper, row):
    files.write_json_atomic(
        tmp_path / "metrics.json", metrics(**{**beside(system), "dataset": dataset})
    )
    page = report.write_report(tmp_path).read_text()
    assert paper in page and f"Table 1, {first}." in page and f"| {row}" in page
    assert ("another data set" in page) == (dataset == "synthetic")
    assert "points" not in page.split("## Scores")[0]  # nothing to compare it with


def test_report_of_recovered_images_beside_cadnets(tmp_path):
    found = metrics(**beside("cadnet"))
    for scores in (found, found["enlarged"]):
        scores["image_quality"]["8"] = {"ssim": 0.5, "psnr": 20.0, "lpips": None}
    found["per_rate"]["8"] = scores_8 = dict(found["per_rate"]["4"], rank1=33.3)
    files.write_json_atomic(tmp_path / "metrics.json", found)
    page = report.write_report(tmp_path).read_text()
    lines = page[page.index("| SSIM | PSNR | LPIPS | rank-1 |") :].splitlines()
    assert "| recovered (this run, mean of r = 2, 4) | 0.77 | 23.5 | - | 56.0 |" in lines
    assert "| upscaled (this run, mean of r = 2, 4) | 0.80 | 25.0 | - | - |" in lines
    assert f"| recovered (this run, r = 8) | 0.50 | 20.0 | - | {scores_8['rank1']} |" in lines
    assert "| Ours (paper) | 0.73 | 20.2 | 0.07 | 82.1 |" in lines
    assert "| Ours (paper, r = 8) | 0.71 | 19.8 | 0.11 | 78.6 |" in lines


def test_the_mean_is_over_the_rates_that_the_run_asked_for(tmp_path):
    found = metrics(**results(enlarged=False), options={"train_rates": [1, 4, 8]})
    files.write_json_atomic(tmp_path / "metrics.json", found)
    # 1 is not of low resolution, and 8 was not scored.
    assert "over the rates 4: 56.0 %" in report.write_report(tmp_path).read_text()


def test_what_is_not_shrunk_is_not_said_to_be(tmp_path):
    changes = {"protocol": "paper", "about": "as it was stored"}
    files.write_json_atomic(tmp_path / "metrics.json", metrics(**changes))
    page = report.write_report(tmp_path).read_text()
    assert "Protocol paper: as it was stored." in page and "shrunk by a drawn rate" not in page


def test_a_setting_is_text_whatever_it_looks_like(tmp_path):
    pytest.importorskip("markdown_it")
    place = "/a_b/__raw__/x*y*z/[a](http://b)\n`c`"
    files.write_json_atomic(tmp_path / "metrics.json", metrics(data_dir=place))
    assert "/a_b/" in report.write_report(tmp_path).read_text()
    page = (tmp_path / "report.html").read_text()
    assert place.replace("\n", " ") in page


def test_rain_has_no_numbers_of_images_beside_it(tmp_path):
    files.write_json_atomic(tmp_path / "metrics.json", metrics(**beside("rain")))
    assert "Table 2" not in report.write_report(tmp_path).read_text()


def test_images_seen():
    rows = [
        {"stage": "reid", "seconds": "2.5", "images_per_second": "12.8"},
        {"stage": "reid", "seconds": "3.0", "images_per_second": f"{32 / 3}"},
        {"stage": "rain", "seconds": 0.7, "images_per_second": 64 / 0.7},
    ]
    assert runs.images_seen(rows) == {"reid": 64, "rain": 128}


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no metrics.json"), ("{", "cannot be read"), ("{}", "holds no scores")],
)
def test_report_without_scores(tmp_path, text, message):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=message):
        report.write_report(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"per_rate": None, "mean_lr": None, "mixed": scores(50.0)},
        {"per_rate": None, "mixed": scores(50.0)},
        {"mixed": scores(50.0), "protocol": None},
        {"flip": {"mean_lr": scores(50.0)}},
        {"enlarged": {"mean_lr": {"rank1": 50.0}}},
        {"adapted": {"on": "here"}},
        {"options": {"train_rates": None}},
        {"image_quality": {"2": None}},
        {"queries": None, "queries_per_rate": {"2": 5}},
        {"data": {"query": {"images": None}}},
    ],
)
def test_report_of_what_says_less(tmp_path, changes):
    files.write_json_atomic(tmp_path / "metrics.json", metrics(**changes))
    assert "## Scores" in report.write_report(tmp_path).read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_rate": {"2": None}}, "scores without rank1"),
        ({"flip": {"per_rate": {"2": None}}}, "scores without rank1"),
        ({"enlarged": {"per_rate": {"2": {}}}}, "scores without rank1"),
        ({"seconds": 10**400}, "seconds does not hold numbers"),
        ({"seed": 10**400}, "seed does not hold a whole number"),
        ({"train_rates": 5}, "train_rates does not hold a list"),
        ({"adapted": {"images": 5}}, "adapted.images is not an object"),
    ],
)
def test_report_of_what_no_run_writes(tmp_path, changes, message):
    (tmp_path / "metrics.json").write_text(json.dumps(metrics(**changes)))
    with pytest.raises(InputError, match=message):
        report.write_report(tmp_path)


def test_count_data():
    def shots(*pairs):
        return [SimpleNamespace(person=person, camera=camera) for person, camera in pairs]

    data = SimpleNamespace(
        train=shots((1, 1), (None, 2), (2, 1)), query=[], gallery=shots((3, 1), (0, 4), (0, 4))
    )
    assert runs.count_data(data) == {
        "train": {"images": 3, "people": 2, "cameras": 2},
        "query": {"images": 0, "people": 0, "cameras": 0},
        "gallery": {"images": 3, "people": 1, "cameras": 2},
    }


# Figures


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(image, colour, near=12):
    return np.count_nonzero(np.abs(image - colour).max(axis=2) < near)


def flat(*colours):
    return np.array(colours, "uint8")[:, None, None, :] * np.ones((1, 32, 16, 1), "uint8")


def test_image_strips(tmp_path):
    pytest.importorskip("matplotlib")
    red, green, blue = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    pair = {"LR": flat(red, red), "recovered": flat(green, green) / 255}
    groups = [("r = 2", pair), ("r = 4", pair), ("", {"HR": flat(blue, blue)})]
    path = image_figures.image_strips(tmp_path / "figures" / "strips.png", groups)
    image = pixels(path)
    cell = 128 * 256
    for colour, cells in ((red, 4), (green, 4), (blue, 2)):
        assert count(image, colour) == pytest.approx(cells * cell, rel=0.02)
    # From left to right: LR, recovered, LR, recovered, HR.
    row = image[image.shape[0] // 4]
    order = [int(np.argmax(pixel)) for pixel in row if pixel.max() > 200 and pixel.min() < 20]
    changes = [a for i, a in enumerate(order) if i == 0 or a != order[i - 1]]
    assert changes == [0, 1, 0, 1, 2]


def test_ranked_lists_frame_right_and_wrong(tmp_path):
    pytest.importorskip("matplotlib")
    grey = (128, 128, 128)

    def draw(right):
        row = {
            "label": "upscaled",
            "query": flat(grey)[0],
            "gallery": flat(*[grey] * 3),
            "right": right,
        }
        return pixels(
            image_figures.ranked_lists(tmp_path / "r.png", [{"title": "r", "rows": [row]}])
        )

    green, red = map(ImageColor.getrgb, (GREEN, RED))
    none, one, all_right = (draw(r) for r in ([0, 0, 0], [0, 1, 0], [1, 1, 1]))
    assert count(none, green) == count(all_right, red) == 0
    assert 0 < count(one, green) < count(all_right, green)
    # A dashed frame has gaps.
    assert count(none, red) < 0.9 * count(all_right, green)


def test_loss_curves_by_stage(tmp_path):
    pytest.importorskip("matplotlib")
    history = tmp_path / "history.csv"
    with open(history, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "epoch", "seconds", "cross_entropy", "mse", "val_mse"])
        writer.writerows([["reid", 1, 9, 3.0, "", ""], ["reid", 2, 9, 2.0, "", ""]])
        writer.writerows([["intact", 1, 9, "", 0.5, 0.6], ["intact", 2, 9, "", 0.25, "nan"]])
    panels = loss_curves._read_history(history)
    assert list(panels) == [("reid", "cross_entropy"), ("intact", "mse")]
    assert panels["reid", "cross_entropy"] == {"cross_entropy": ([1, 2], [3.0, 2.0])}
    assert panels["intact", "mse"]["mse"] == ([1, 2], [0.5, 0.25])
    assert panels["intact", "mse"]["val_mse"][1][0] == 0.6
    assert pixels(loss_curves.loss_curves(tmp_path / "losses.png", history)).min() < 100
    history.write_text("epoch\n1\n")
    with pytest.raises(InputError, match="holds no losses"):
        loss_curves.loss_curves(tmp_path / "losses.png", history)


@pytest.mark.parametrize("enlarged", [True, False])
def test_rank_against_rate(tmp_path, enlarged):
    pytest.importorskip("matplotlib")
    image = pixels(figures.rank_against_rate(tmp_path / "rank1.png", results(enlarged)))
    blue, orange = map(ImageColor.getrgb, (BLUE, ORANGE))
    assert count(image, blue) > 200
    assert (count(image, orange) > 200) == enlarged


def test_no_control_is_drawn_where_none_was_scored(tmp_path):
    pytest.importorskip("matplotlib")
    orange = ImageColor.getrgb(ORANGE)
    assert count(pixels(figures.rank_against_rate(tmp_path / "r.png", beside("rain"))), orange) < 50


def test_a_line_for_each_system_named_at_its_end(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [
        {
            "label": f"x$a_${i}",  # no formula
            "x": [1, 2, 8],
            "rank1": [80 - i, 70 - i, 40 - i / 9],
            "error": [2] * 3,
        }
        for i in range(7)
    ]
    image = pixels(figures.rank_lines(tmp_path / "lines.png", lines))
    names = image[:, 84 + 476 :]
    for colour in figures.COLOURS:
        rgb = ImageColor.getrgb(colour)
        assert count(image, rgb) > 200 and count(names, rgb) > 10


def test_names_are_moved_apart_and_no_further():
    # By hand: 10 and 11 share a middle of 10.5; 30 is far enough from them.
    assert figures.apart([11, 30, 10], 4).tolist() == [12.5, 30, 8.5]
    assert figures.apart([0, 5, 10], 4).tolist() == [0, 5, 10]
    assert figures.apart([1, 1, 1], 2).tolist() == [-1, 1, 3]


def test_map_of_embeddings_by_person_and_by_rate(tmp_path):
    pytest.importorskip("matplotlib")
    places = np.random.default_rng(0).random((60, 2))
    people, rates = np.repeat(np.arange(15), 4), np.tile([1, 2, 4, 8], 15)
    image = pixels(figures.embedding_map(tmp_path / "map.png", places, people, rates))
    by_person, by_rate = image[:, :536], image[:, 536:1050]
    colours = [ImageColor.getrgb(c) for c in figures.COLOURS]
    assert all(count(by_person, colour) > 30 for colour in colours)
    assert not any(count(by_rate, colour, near=5) > 30 for colour in colours[:-1])
    # A rate that nobody knows has no colour.
    more = np.append(places, [[0.5, 0.5]] * 2, axis=0), [*people, 0, 1], [*rates, np.nan, np.nan]
    again = pixels(figures.embedding_map(tmp_path / "map.png", *more))
    assert (again[:, 536:] == image[:, 536:]).all()


def test_queries_of_the_map_are_few_people_with_all_rates():
    query = [SimpleNamespace(person=row // 10) for row in range(1000)]
    counted = np.arange(20, 1000)
    rows = queries_to_map(query, counted, times=5)
    people = {query[row].person for row in rows}
    assert len(people) == 15 and len(rows) == 15 * 4 and set(rows) <= set(counted.tolist())
    assert rows == queries_to_map(query, counted, times=5)
    assert rows != queries_to_map(query, counted, times=5, seed=1)
    assert len(rows) * 5 <= 300


def test_tsne_goes_by_the_distances():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    people = np.array([0] * 10 + [1] * 10 + [0] * 10 + [1] * 10)
    line = 100 * people + rng.random(40)
    places = run_figures.places_of(np.abs(line[:, None] - line))
    middles = np.array([places[people == person].mean(axis=0) for person in (0, 1)])
    nearest = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    assert (nearest == people).all()


class Drawn(SimpleNamespace):
    kernel = None

    def read(self):
        return self.pixels

    def original(self):
        return self


class Pixels:
    """Pixels are the features."""

    image_size = (32, 16)

    def embed(self, images, rates=None, batch_size=64):
        return images.reshape(len(images), -1).astype("float32")

    def distances(self, query, gallery, query_rates=None):
        return np.linalg.norm(query[:, None] - gallery[None], axis=2)


class Beside(Pixels):
    def recover(self, images, batch_size=64):
        return 1 - images / np.float32(255)


class Control(Beside):
    """Negatives are embedded, so that nobody is found; without recovery everybody is."""

    recovery_can_be_left_out = True

    def embed(self, images, rates=None, batch_size=64):
        images = images if np.all(rates == 1) else 255 * self.recover(images)
        return super().embed(images)


def drawn_people():
    """Three people, whom two cameras see alike."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), "uint8")

    def shots(cameras):
        return [
            Drawn(path="", person=person, camera=camera, pixels=image)
            for camera in cameras
            for person, image in enumerate(images, start=1)
        ]

    return DataSet("drawn", [], shots([1]), shots([1, 2]))


@pytest.mark.parametrize("model", [Control(), Beside(), Pixels()])
def test_every_figure_of_a_run(tmp_path, model):
    for needed in ("matplotlib", "sklearn", "skimage"):
        pytest.importorskip(needed)
    result = evaluate(model, drawn_people(), rates=(1, 2), verbose=False)
    folder = tmp_path / "figures"
    written = run_figures.draw_figures(folder, result)
    names = {"rank1.png", "cmc.png", "ranked.png", "ranked_by_rate.png", "tsne.png"}
    names |= {"recovered.png"} if isinstance(model, Beside) else set()
    assert {path.name for path in written} == {path.name for path in folder.iterdir()} == names
    for path in written:
        assert pixels(path).std() > 10


def test_a_rate_of_many_digits_is_scored_and_drawn(tmp_path):
    for needed in ("matplotlib", "skimage"):
        pytest.importorskip(needed)
    rates = (1, 2.8284271)
    result = evaluate(Beside(), drawn_people(), rates, rates, verbose=False)
    assert result.scores["image_quality"]["2.82843"]["psnr"] > 0
    assert figures.line_of_rates("", result.scores, rates)["hollow"] == set()
    written = run_figures.draw_figures(tmp_path / "figures", result, rates)
    assert "ranked.png" in {path.name for path in written}


def test_strips_show_what_was_recovered():
    pytest.importorskip("skimage")
    result = evaluate(Beside(), drawn_people(), rates=(1, 2), verbose=False)
    (title, low), (_, high) = run_figures.recovered_strips(result)
    assert title == "r = 2" and len(high["HR"]) == 3
    for row, shown, recovered in zip(result.samples, low["LR"], low["recovered"], strict=True):
        np.testing.assert_allclose(recovered, 1 - shown / 255, atol=1e-6)
        np.testing.assert_array_equal(
            shown, prepare_images([result.data.query[row]], (32, 16), 2)[0]
        )


@pytest.mark.parametrize("model", [Control(), Beside()])
def test_ranked_lists_before_and_after_or_of_three_people(model):
    pytest.importorskip("skimage")
    result = evaluate(model, drawn_people(), rates=(1, 2), verbose=False)
    groups = run_figures.ranked_lists(result, 2)
    labels = [[row["label"] for row in group["rows"]] for group in groups]
    first = groups[0]["rows"]
    if isinstance(model, Control):
        assert labels[-1] == ["upscaled", "recovered"] and "hurts most" in groups[-1]["title"]
        assert [row["query"].dtype for row in first] == [np.uint8, np.float32]
        assert [row["right"][0] for row in groups[-1]["rows"]] == [True, False]
        return
    # Nothing is said to be recovered that the embedding has not seen recovered.
    assert labels == [[""]] * 3 and first[0]["query"].dtype == np.uint8
    assert all(group["rows"][0]["right"][0] for group in groups)
    # The query's own image is junk: three people, of whom the third has one other image left.
    assert all(len(group["rows"][0]["gallery"]) == 5 for group in groups)


def test_the_queries_that_recovery_helps_and_hurts_most():
    query = [SimpleNamespace(person=row) for row in range(5)]
    first = {"upscaled": np.array([1, 9, 3, 2, 0]), "plain": np.array([4, 1, 3, 5, 0])}
    chosen = queries_to_show(query, np.arange(4), first)
    assert [why.split()[-2] for why, _ in chosen] == ["helps", "at", "hurts"]
    # 1/1 - 1/9 is the largest gain, 1/4 - 1/1 the largest loss.
    assert [chosen[0][1], chosen[2][1]] == [1, 0]
    alike = {"upscaled": first["plain"], "plain": first["plain"]}
    assert len(queries_to_show(query, np.arange(4), alike)) == 1


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[recipes\]\""):
        figures.rank_against_rate(tmp_path / "rank1.png", results())


# Papers


def test_papers_rows_have_a_source_and_agree_with_each_other():
    assert len(set(map(repr, papers.ROWS))) == len(papers.ROWS)
    found = {name: sum(row.paper == name for row in papers.ROWS) for name in papers.REFERENCES}
    assert found == {"RAIN": 45, "CAD-Net": 56, "INTACT": 56, "Adaptive": 85}
    values = [value for row in papers.ROWS for value in row.scores.values()]
    assert len(values) == 771 and sum(values) == pytest.approx(54574.53, abs=1e-6)
    for row in papers.ROWS:
        assert row.paper in papers.REFERENCES
        assert row.dataset in papers.DATASETS.values()
        names = ("rank1", "rank5", "rank10", "rank20")
        ranks = [row.scores[name] for name in names if name in row.scores]
        assert ranks == sorted(ranks) and ranks[0] > 0 and ranks[-1] < 100

    def last(table, dataset=None):
        return papers.rows("INTACT", table, dataset)[-1].scores

    market = last(1, "MLR-Market-1501")
    assert market == last(3) == last(4) == last(5) == {"rank1": 88.1, "rank5": 95.0, "rank10": 96.9}
    assert last(1, "MLR-CUHK03")["rank1"] == last(2)["rank1"] == 86.4
    # The paper's claim about its best competitor: by up to 6 points at rank-1.
    gaps = [
        rows[-1].scores["rank1"] - rows[-2].scores["rank1"]
        for rows in (papers.rows("INTACT", 1, name) for name in papers.DATASETS.values())
    ]
    assert gaps == pytest.approx([4.4, 4.3, 3.1, 5.6, 1.2])


def test_papers_highest_rank1_of_each_model():
    """As other surveys of the field quote Table 1: CAD and INTACT on all five data sets."""

    def rank1(model):
        return [
            row.scores["rank1"]
            for name in papers.DATASETS.values()
            for row in papers.rows("INTACT", 1, name)
            if row.model == model
        ]

    assert rank1("INTACT") == [88.1, 86.4, 46.2, 81.2, 44.0]
    assert rank1("CAD") == [83.7, 82.1, 43.1, 75.6, 42.8]
    assert rank1("CSR-GAN") == [76.4, 71.3, 37.2, 67.6, 34.7]
    assert rank1("SING") == [74.4, 67.7, 33.5, 65.2, 33.5]
    assert rank1("RAIN") == [78.9, 42.5, 42.0]


def test_papers_quote_each_other():
    """CAD-Net's and INTACT's tables repeat RAIN's and CAD-Net's numbers of the same systems."""

    def scores(paper, table, model, dataset):
        rows = [r.scores for r in papers.rows(paper, table, dataset) if r.model == model]
        return {k: v for k, v in rows[0].items() if k in ("rank1", "rank5", "rank10")}

    for dataset in ("MLR-CUHK03", "MLR-VIPeR", "CAVIAR"):
        single = scores("RAIN", 1, "Ours (single-level)", dataset)
        assert single == scores("CAD-Net", 1, "Ours (f only)", dataset)
        multi = scores("RAIN", 1, "Ours (multi-level)", dataset)
        assert multi == scores("INTACT", 1, "RAIN", dataset)
    for dataset in papers.DATASETS.values():
        for model in ("SING", "CSR-GAN", "CamStyle", "FD-GAN"):
            quoted = scores("INTACT", 1, model, dataset)
            assert quoted == scores("CAD-Net", 1, model, dataset)
        assert scores("INTACT", 1, "CAD", dataset) == scores("CAD-Net", 1, "Ours", dataset)
    # Within RAIN: the baseline on HR and LR is RAIN without its adversarial loss.
    without = scores("RAIN", 3, "Ours w/o Ladv", "MLR-CUHK03")
    assert without == scores("RAIN", 1, "Baseline (train on HR & LR)", "MLR-CUHK03")
    full = scores("RAIN", 3, "Ours", "MLR-CUHK03")
    assert full == scores("RAIN", 1, "Ours (multi-level)", "MLR-CUHK03")
    # Drops that the texts speak of: 11.6 and 13.0; 2.3 points.
    assert round(full["rank1"] - scores("RAIN", 3, "Ours w/o Lrec", None)["rank1"], 1) == 11.6
    assert round(full["rank1"] - without["rank1"], 1) == 13.0
    drop = scores("CAD-Net", 3, "Ours w/o Ladv^DI", None)["rank1"] - 82.1
    assert round(drop, 1) == -2.3


TEXTS = Path(__file__).parents[2] / "shared" / "papers"


@pytest.mark.skipif(not TEXTS.exists(), reason="needs the papers' texts")
@pytest.mark.parametrize("paper", ["RAIN", "CAD-Net"])
def test_every_number_stands_in_the_papers_text(paper):
    """Every line of a paper's tables, read again: its cells from left to right."""
    text = (TEXTS / f"{paper.lower().replace('-', '')}.txt").read_text()
    lines = [
        [cell for cell in line.split() if re.fullmatch(r"-|\d+\.\d+", cell)]
        for line in re.sub(r"</?\w+>", "", text).splitlines()
    ]
    lines = [[None if cell == "-" else float(cell) for cell in line] for line in lines if line]
    datasets = ("MLR-CUHK03", "MLR-VIPeR", "CAVIAR", "MLR-Market-1501", "MLR-DukeMTMC-reID")
    checked = 0
    for table in (1, 2, 3, 4):
        rows = papers.rows(paper, table)
        if table == 2:
            # RAIN prints a model a column; CAD-Net's other three models share their cells.
            if paper == "RAIN":
                expected = [[row.scores["rank1"] for row in rows[:3]], [37.5]]
            else:
                values = [[*r.scores.values()] for r in rows]
                shared = [
                    v
                    for block in (values[:3], values[4:7])
                    for c in zip(*block, strict=True)
                    for v in c
                ]
                expected = [shared, values[3] + values[7]]
        elif rows:
            names = list(rows[0].scores)
            known = [d for d in datasets if any(row.dataset == d for row in rows)]
            expected = []
            for model in dict.fromkeys(row.model for row in rows):
                found = {row.dataset: row.scores for row in rows if row.model == model}
                expected.append([found.get(d, {}).get(name) for d in known for name in names])
        else:
            continue
        for line in expected:
            assert line in lines, (table, line)
        checked += len(expected)
    assert checked == {"RAIN": 9 + 2 + 5 + 4, "CAD-Net": 10 + 2 + 5}[paper]

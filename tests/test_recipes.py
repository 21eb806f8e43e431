"""Every recipe from the command line to its files, and what it says to bad input."""

import contextlib
import csv
import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import keras
import kills
import numpy as np
import pytest
import small
from PIL import Image
from small import not_on_jax

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.report import run_figures

if importlib.util.find_spec("tyro"):
    from keras_xreid import app
    from keras_xreid.app import cli, evaluate, export, provenance, recipes, settings
    from keras_xreid.app import run as run_module

RECIPES = Path(__file__).parents[1] / "recipes"
MARKET = Path(__file__).parents[2] / "shared" / "data" / "market1501-501ids"

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(m) is None for m in ("tyro", "matplotlib", "skimage")),
        reason='recipes need pip install -e ".[recipes]"',
    ),
    # TensorFlow's word on `eagerly`, below.
    pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run:UserWarning"),
]


def command(recipe, *arguments):
    """A training recipe by its file, any other verb by the package."""
    file = RECIPES / f"{recipe}.py"
    start = [str(file)] if file.is_file() else ["-m", "keras_xreid", recipe]
    return [sys.executable, *start, *map(str, arguments)]


def run_alone(recipe, *arguments):
    """A recipe in a process of its own, as a user starts it; what it printed."""
    done = subprocess.run(
        command(recipe, *arguments), capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout


@contextlib.contextmanager
def eagerly():
    """On TensorFlow, without the graphs that take far longer to trace than a few steps to run."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    from tensorflow import config

    config.run_functions_eagerly(True)
    try:
        yield
    finally:
        config.run_functions_eagerly(False)


def run(recipe, *arguments, how=eagerly, figures=False):
    """A recipe in this process, where everything is imported already; what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed), how():
        if not figures:  # seconds a run
            patch.setattr(run_figures, "draw_figures", lambda *given: [])
        words = command(recipe, *arguments)[1:]
        try:
            if words[0] == "-m":
                patch.setattr(sys, "argv", ["xreid", *words[2:]])
                cli.main()
            else:
                patch.setattr(sys, "argv", words)
                runpy.run_path(words[0], run_name="__main__")
        finally:
            keras.config.set_dtype_policy("float32")
    return printed.getvalue()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A small csv data set: 6 people to train on and 4 to find, 2 cameras, 2 images each."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    lines = ["path,person,camera,split"]
    for person in range(10):
        colours = rng.integers(0, 255, (8, 4, 3))
        for camera in (1, 2):
            for shot in range(2):
                noisy = np.clip(colours + rng.normal(0, 15, colours.shape), 0, 255).astype("uint8")
                name = f"{person}_{camera}_{shot}.png"
                Image.fromarray(noisy).resize((64, 128), Image.Resampling.BICUBIC).save(
                    folder / name
                )
                split = "train" if person < 6 else ("query" if shot == 0 else "gallery")
                lines.append(f"{name},p{person},{camera},{split}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n")
    return folder


def short(people, out, *more):
    return ("--data", "csv", "--data-dir", people, "--steps", 2, "--batch-size", 4,
            "--rates", 1, 4, "--train-rates", 2, 4, "--out", out, *more)  # fmt: skip


@pytest.fixture(scope="module")
def finished(people, tmp_path_factory):
    """A finished short run of INTACT."""
    out = tmp_path_factory.mktemp("runs") / "intact"
    printed = run_alone("intact", *short(people, out))
    return out, printed


@not_on_jax
@pytest.mark.backend
def test_a_run_folder_holds_what_it_promises(finished):
    out, printed = finished
    assert {p.name for p in out.iterdir()} == {
        "metrics.json", "history.csv", "model.weights.h5", "reid.weights.h5", "manifest.jsonl",
        "figures", "report.md", "report.html", "options.json", "queries.csv",
    }  # fmt: skip
    figures = {p.name for p in (out / "figures").iterdir()}
    assert figures == {"recovered.png", "ranked.png", "rank1.png", "losses.png", "tsne.png",
                       "ranked_by_rate.png", "cmc.png"}  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    for key in ("system", "dataset", "protocol", "manifest_sha256", "backend", "keras", "preset",
                "backbone", "seed", "parameters", "seconds", "images_per_second", "per_rate",
                "mean_lr", "enlarged", "image_quality", "standard_error"):  # fmt: skip
        assert metrics[key] is not None, key
    assert set(metrics["per_rate"]) == {"1", "4"}
    scores = {"rank1", "rank5", "rank10", "rank20", "mAP", "mINP"}
    assert set(metrics["per_rate"]["4"]) == scores
    assert metrics["enlarged"]["per_rate"]["1"] == metrics["per_rate"]["1"]
    assert metrics["enlarged"]["image_quality"]["4"]["psnr"] > 10
    assert set(metrics["images_per_second"]) == {"reid", "intact"}
    assert metrics["short_run"] is True
    for name in ("rank-1", "recovered", "upscaled", "association", "discriminator"):
        assert name in printed
    history = (out / "history.csv").read_text().splitlines()
    assert len(history) == 3 and history[1].startswith("reid,1,")
    for row in csv.DictReader(history):  # a pair is two images
        assert float(row["images_per_second"]) == float(row["images"]) / float(row["seconds"])


@not_on_jax
@pytest.mark.backend
def test_the_saved_weights_score_as_the_run_did(finished, people):
    out, _ = finished
    metrics = json.loads((out / "metrics.json").read_text())
    data = xr.datasets.load("csv", people)
    model = xr.load(out)
    again = xr.evaluate(model, data, rates=(1, 4), train_rates=(2, 4), verbose=False).scores
    assert again["per_rate"] == metrics["per_rate"]
    assert again["enlarged"]["per_rate"] == metrics["enlarged"]["per_rate"]
    # The second stage, traced where a backend traces, leaves the first one's network alone.
    reid = xr.load(out / "reid.weights.h5").network
    assert all(map(np.array_equal, model.reid.get_weights(), reid.get_weights()))


def means_of_queries(folder, variant="plain"):
    """Mean scores of the rows of queries.csv, by rate."""
    with open(folder / "queries.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["variant"] == variant]
    return {
        rate: {
            score: np.mean([float(row[column]) for row in rows if row["rate"] == rate])
            for score, column in (("rank1", "rank1"), ("mAP", "AP"), ("mINP", "INP"))
        }
        for rate in dict.fromkeys(row["rate"] for row in rows)
    }


def test_the_queries_scores_are_kept(finished, people):
    out, _ = finished
    metrics = json.loads((out / "metrics.json").read_text())
    for variant, scores in (("plain", metrics), ("upscaled", metrics["enlarged"])):
        means = means_of_queries(out, variant)
        assert list(means) == ["1", "4"]
        for rate, found in means.items():
            told = {name: scores["per_rate"][rate][name] for name in found}
            assert found == pytest.approx(told, abs=1e-9)
    with open(out / "queries.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * metrics["queries"]
    listed = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    listed = {(x["path"], x["person"], str(x["camera"])) for x in listed if x["role"] == "query"}
    assert {(row["query"], row["person"], row["camera"]) for row in rows} == listed


@pytest.mark.slow
def test_a_bfloat16_run_is_scored_in_float32(people, tmp_path):
    run("rain", *short(people, tmp_path / "run"), "--precision", "mixed_bfloat16")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    data = xr.datasets.load("csv", people)
    found = {}
    for precision in ("float32", "mixed_bfloat16"):
        model = xr.load(tmp_path / "run", precision)
        scores = xr.evaluate(model, data, rates=(1, 4), train_rates=(4,), verbose=False).scores
        found[precision] = scores["image_quality"]["4"]["psnr"]
    assert metrics["image_quality"]["4"]["psnr"] == pytest.approx(found["float32"], abs=1e-6)
    assert found["float32"] != pytest.approx(found["mixed_bfloat16"], abs=1e-4)


def test_evaluate_recipe(finished, people, tmp_path):
    out, _ = finished
    run("evaluate", "--weights", out / "model.weights.h5", "--data", "csv", "--data-dir", people,
        "--rates", 1, 1.0000001, 4, "--out", tmp_path / "scores")  # fmt: skip
    ours = json.loads((out / "metrics.json").read_text())
    again = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert again["per_rate"] == ours["per_rate"]
    kept = (out / "queries.csv").read_text()
    assert (tmp_path / "scores" / "queries.csv").read_text() == kept
    run("evaluate", "--weights", out, "--data", "csv", "--data-dir", people, "--rates", 1, 4,
        "--degradation", "camera", "--strength", 0.5, "--out", tmp_path / "seen")  # fmt: skip
    seen = json.loads((tmp_path / "seen" / "metrics.json").read_text())
    assert (seen["degradation"], seen["strength"]) == ("camera", 0.5)
    assert (again["degradation"], again["strength"]) == ("plain", 0.0)
    assert seen["per_rate"]["1"] == ours["per_rate"]["1"]
    assert seen["image_quality"]["4"]["psnr"] < ours["image_quality"]["4"]["psnr"]
    rows = [json.loads(x) for x in (tmp_path / "seen" / "manifest.jsonl").read_text().splitlines()]
    told = {(r["role"], r["kernel"], r.get("degradation"), r.get("strength")) for r in rows}
    assert told == {("query", "drawn", "camera", 0.5), ("gallery", "area", None, None)}


def test_first_stage_is_reused(finished, people, tmp_path):
    """The second stage does not tell whether the first one ran just before it."""
    out, _ = finished
    run("intact", *short(people, tmp_path / "again", "--reid", out / "reid.weights.h5"))
    metrics = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert set(metrics["images_per_second"]) == {"intact"}
    ours = json.loads((out / "metrics.json").read_text())
    for name in ("per_rate", "enlarged", "image_quality", "manifest_sha256"):
        assert metrics[name] == ours[name]
    ours, again = (xr.load(folder).get_weights() for folder in (out, tmp_path / "again"))
    assert all(map(np.array_equal, ours, again))


@pytest.mark.parametrize(
    "recipe, options, terms",
    [
        pytest.param(
            "rain",
            ("--settings", "authors-code", "--labeled-fraction", 0.5, "--without", "tri"),
            {"discriminator", "id", "reconstruction", "adversarial"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "rain",
            ("--labeled-fraction", 0),  # Figure 5: its losses without a label
            {"discriminator", "reconstruction", "adversarial"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "cadnet",
            ("--features", "g", "--without", "adv_f"),
            {"image_discriminator", "id", "triplet", "reconstruction", "adversarial_images"},
            marks=pytest.mark.slow,
        ),
        (
            "adaptive",
            (
                "--without",
                "val",
                "--weights",
                "baseline_hrlr_tiny_synthetic",
                "--learning-rate",
                3e-4,
            ),
            {"id", "verification"},
        ),
    ],
)
def test_short_runs_of_the_other_systems(people, tmp_path, recipe, options, terms):
    out = tmp_path / recipe
    run(recipe, *short(people, out, "--batch-size", 8, *options), figures=True)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["system"] == recipe
    assert metrics["images_seen"] == {recipe: 2 * 2 * 8}  # steps, of a pair each
    if recipe == "adaptive":
        assert metrics["image_quality"] is None and metrics["enlarged"] is None
    else:
        assert metrics["image_quality"]["4"]["psnr"] > 0
        assert metrics["enlarged"]["per_rate"] is None
    assert {p.stem for p in (out / "figures").iterdir()} == {
        "masks" if recipe == "adaptive" else "recovered",
        "ranked", "ranked_by_rate", "rank1", "cmc", "losses", "tsne",
    }  # fmt: skip
    history = (out / "history.csv").read_text().splitlines()[0].split(",")
    shown = [name for name in history if not name.startswith(("norm_", "mask_"))]
    shown = [name for name in shown if "accuracy" not in name]
    told = {"stage", "epoch", "loss", "images", "seconds", "images_per_second"}
    assert set(shown) - told == terms
    manifest = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    train = [row["person"] for row in manifest if row["role"] == "train"]
    hidden = 24 if 0 in options else 12 if recipe == "rain" else 0
    assert train.count(None) == hidden and len(train) == 24
    data = xr.datasets.load("csv", people)
    again = xr.evaluate(xr.load(out), data, rates=(1, 4), train_rates=(2, 4), verbose=False).scores
    assert again["per_rate"] == metrics["per_rate"]


@pytest.mark.slow
def test_a_network_for_each_rate(people, tmp_path):
    out = tmp_path / "rival"
    run("one_per_rate", *short(people, out, "--batch-size", 8))
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["images_seen"] == {"rate4": 16, "rate2": 16}  # as many as 8 pairs
    manifest = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    assert {row["rate"] for row in manifest if row["role"] == "gallery"} == {1, 4}
    told = tmp_path / "told"
    run("evaluate", "--weights", out, "--data", "csv", "--data-dir", people, "--rates", 3,
        "--score-as", "3=2", "--out", told)  # fmt: skip
    assert json.loads((told / "metrics.json").read_text())["score_as"] == {"3": 2.0}


def test_vector_panning_learns_from_embeddings(finished, people, tmp_path):
    """Of rate 1 its scores are those of the network that it began from."""
    out, reid = tmp_path / "panned", finished[0] / "reid.weights.h5"
    run("panned", *short(people, out, "--reid", reid, "--views", 2))
    metrics = json.loads((out / "metrics.json").read_text())
    ours = json.loads((finished[0] / "metrics.json").read_text())
    assert metrics["per_rate"]["1"] == ours["per_rate"]["1"]
    assert metrics["images_per_second"] == metrics["images_seen"] == {"panned": 0}
    model = xr.load(out)
    images = xr.prepare_images(xr.datasets.load("csv", people).query, model.image_size, 4)
    assert np.abs(model.embed(images, 4) - model.embed(images, 1)).max() > 0


@pytest.mark.slow
def test_tables(people, tmp_path, monkeypatch):
    def in_process(command, check):
        run(*command[4:])  # python -m keras_xreid train RECIPE
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", in_process)
    arguments = ("intact-5", "--data", "csv", "--data-dir", people, "--steps", 1, "--epochs", 1,
                 "--preset", "tiny", "--out", tmp_path / "rows")  # fmt: skip
    printed = run("tables", *arguments)
    assert "W/O (Fig. 5 (d))" in printed and "88.1" in printed
    assert (tmp_path / "rows" / "intact-5.md").exists()
    again = run("ablations", *arguments)  # the other name; nothing is run again
    assert "== " not in again and "88.1" in again


def test_a_baseline_trained_on_high_resolution_says_so(people, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(run_figures, "draw_figures", lambda *given: drawn.append(given[2]))
    out = tmp_path / "hr"
    options = {"rates": (1, 4), "train_rates": (2, 4), "steps": 1, "batch_size": 4, "limit": 2}
    baseline(data_dir=str(people), out=str(out), **options)
    assert drawn == [(1,)]
    assert "Mean rank-1 over the rates 4: " in (out / "report.md").read_text()
    rows = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    # --train-rates, which hashes of published runs depend on.
    assert all(row["rate"] == [2, 4] for row in rows if row["role"] == "train")


def asked(recipe, **options):
    """A recipe's options, on a csv set."""
    default = settings.defaults(recipes.options(recipe))
    return dataclasses.replace(default, **{"data": "csv", **options})


def baseline(**options):
    """Runs the baseline."""
    recipes.load("baseline").main(asked("baseline", **options))


def prepared(people, recipe="baseline", **options):
    """A run that has read its data, and trains nothing."""
    options = {"data_dir": str(people), **options}
    return app.Run(recipe, asked(recipe, **options), xr.Baseline)


def test_rates_trained_on_do_not_choose_the_rates_of_a_protocols_queries(people):
    protocol = {"protocol": "paper-all-queries", "train_rates": (2,)}
    assert {r.rate for r in prepared(people, **protocol).data.query} == {2, 3, 4}
    asked = prepared(people, **protocol, query_rates=(2.0, 8.0))
    assert {r.rate for r in asked.data.query} == {2, 8} and asked.options.query_rates == (2, 8)


def test_image_size_reaches_images_network_and_scores(people, tmp_path):
    out, size = tmp_path / "run", (64, 32)
    assert prepared(people, image_size=size).pairs(False)[0]["lr"].shape[1:] == (*size, 3)
    baseline(data_dir=str(people), out=str(out), image_size=size, steps=1, rates=(1, 4))
    assert xr.load(out).image_size == size
    assert json.loads((out / "options.json").read_text())["changed"]["image_size"] == [64, 32]


def test_everyone_is_trained_on_but_nobody_who_is_not_searched_for(people):
    apart, together = (prepared(people, everyone=told) for told in (False, True))
    data, known = apart.data, {record.person for record in apart.records}
    searched = {record.person for record in data.query}
    assert {record.person for record in together.records} == known | searched
    assert len(together.records) == len(data.train + data.query + data.gallery)
    assert together.images().people == len(known) + len(searched)
    unknown = xr.Record("somebody.jpg", None, 1), xr.Record("distractor.jpg", 0, 1)
    more = dataclasses.replace(data, gallery=[*data.gallery, *unknown]).everyone()
    assert len(more.train) == len(together.data.train)
    # What a protocol shrinks is trained on as it is stored, once.
    shrunk = xr.datasets.load("csv", people, protocol="paper-all-queries", rates=(2, 3)).everyone()
    assert len(shrunk.train) == len({r.path for r in shrunk.train}) == len(more.train)
    assert {record.rate or 1 for record in shrunk.train} == {1}
    with pytest.raises(xr.InputError, match="--everyone leaves nobody"):
        prepared(people, everyone=True, split="dev")
    with pytest.raises(xr.InputError, match="--everyone and --train-people exclude"):
        prepared(people, everyone=True, train_people=3)
    with pytest.raises(xr.InputError, match="--everyone and --train-cameras exclude"):
        prepared(people, everyone=True, train_cameras=("1",))


def test_rates_are_listed_once_and_of_use(people):
    assert prepared(people, rates=(4, 1, 4.0)).options.rates == (4, 1)
    with pytest.raises(xr.InputError, match=r"is each-rate: .*: leave out --query-rates"):
        prepared(people, query_rates=(8,))
    with pytest.raises(xr.InputError, match=r"is paper-all-queries: .*: leave out --rates"):
        prepared(people, protocol="paper-all-queries", rates=(1,))
    with pytest.raises(xr.InputError, match=r"--rates 2000: every rate is 1 .* to 1000"):
        prepared(people, rates=(2000,))


def test_images_of_which_a_rate_takes_nothing(people, capsys):
    """Stored at 128 pixels: by 2 they are shrunk to what a network of 64 takes."""
    prepared(people, image_size=(96, 48))
    assert "lose nothing" not in capsys.readouterr().out
    prepared(people, image_size=(64, 32), train_rates=(4, 2))
    told = capsys.readouterr().out
    assert "Images are 128 pixels high (median), and the network takes 64: shrunk by 2 they" in told


def test_sizes_that_a_generator_cannot_halve_are_refused_before_stage_1(refused, people, tmp_path):
    line = refused("intact", *short(people, tmp_path / "run", "--image-size", "200", "100"))
    assert "--image-size is 200 100: give multiples of 16" in line
    assert not (tmp_path / "run").exists()
    with pytest.raises(xr.InputError, match=r"image size 200x100: .*give multiples of 16"):
        xr.INTACT(3, preset="tiny", image_size=(200, 100))


def test_jitter_reaches_the_training_images(people):
    kept, other = (prepared(people, jitter=j).images()[0] for j in (False, True))
    assert (kept["image"] != other["image"]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(kept["person"], other["person"])


def test_a_cameras_degradation_reaches_the_training_images(people):
    runs = [prepared(people), prepared(people, degradation="camera", strength=1.0)]
    kept, seen = (run.pairs(False, rates=(4,), batch_size=8)[0] for run in runs)
    assert (kept["lr"] != seen["lr"]).any((1, 2, 3)).all()
    np.testing.assert_array_equal(kept["hr"], seen["hr"])
    none = prepared(people, degradation="camera", strength=0.0)
    assert none.pairs().strength == 0


def test_erase_reaches_the_training_images(people):
    kept, erased = (prepared(people, erase=e).images()[0] for e in (False, True))
    changed = (kept["image"] != erased["image"]).any((1, 2, 3))
    assert 0 < changed.sum() < len(changed)  # half of them


def test_a_run_goes_on_that_was_begun_before_an_option_came(people, tmp_path):
    out = str(tmp_path / "run")
    prepared(people, out=out).callbacks("reid", None)
    note = tmp_path / "run" / "options.json"
    told = json.loads(note.read_text())
    with pytest.raises(xr.InputError, match=r"was begun with rates = \[1, 2, .*, not \[2, 8\]"):
        prepared(people, out=out, resume=True, rates=(2, 8))
    note.write_text(json.dumps({k: v for k, v in told.items() if k != "rates"}))
    prepared(people, out=out, resume=True)
    prepared(people, out=out, resume=True, workers=2)  # they change no batch
    note.write_text(json.dumps({k: v for k, v in told.items() if k != "jitter"}))
    with pytest.raises(xr.InputError, match="was begun with jitter = False, not True"):
        prepared(people, out=out, resume=True, jitter=True)


def test_a_run_begins_from_the_weights_of_others_only(people, monkeypatch, capsys):
    begun = prepared(people)
    first = dataclasses.replace(begun.options, weights="theirs")
    theirs = types.SimpleNamespace(image_size=(256, 128))
    monkeypatch.setattr(run_module.xr, "load", lambda path, precision: theirs)
    # Whoever is to be found has not been seen; what is trained for dev may go on to the test.
    told = {"dataset": "csv", "split": "test", "split_id": 0, "data_dir": str(people)}
    for other, changed, refused in (
        ({}, {"split": "dev"}, True),
        ({"data_dir": "elsewhere"}, {"split": "dev"}, False),
        ({"data_dir": f"{people}/../{people.name}/"}, {"split": "dev"}, True),
        ({"dataset": "viper"}, {"split": "dev"}, False),
        # Another copy of the same people.
        ({"dataset": "viper", "data_dir": "elsewhere"}, {"data": "viper", "split": "dev"}, True),
        ({"split": "dev"}, {"split": "dev"}, False),
        ({"split": "dev"}, {}, False),
        # Each fold's people were trained on for the others; what says nothing is of fold 0.
        ({"split": "dev"}, {"split": "dev", "fold": 1}, True),
        ({"split": "dev", "fold": None}, {"split": "dev", "fold": 2}, True),
        ({"split": "dev", "fold": 2}, {"split": "dev"}, True),
        ({"split": "dev", "fold": 2}, {"split": "dev", "fold": 2}, False),
        ({"split": "dev", "fold": 2}, {}, False),
        ({"dataset": "viper", "split": "dev"}, {"split": "dev", "fold": 1}, False),
        ({"split_id": 3}, {}, False),  # people are the same in every split
    ):
        monkeypatch.setattr(provenance, "trained_on", lambda path, other=other: {**told, **other})
        begun.options = dataclasses.replace(first, **changed)
        if not refused:
            assert begun.starting_weights() is theirs
            said = capsys.readouterr().out
            assert "theirs was trained at 256x128, this run is at 128x64 (--image-size)" in said
            continue
        with pytest.raises(xr.InputError, match="people whom this run is to find"):
            begun.starting_weights()
    monkeypatch.setattr(provenance, "trained_on", lambda path: {**told, "everyone": True})
    begun.options = dataclasses.replace(first, everyone=False)
    with pytest.raises(xr.InputError, match="trained on everyone of csv"):
        begun.starting_weights()
    begun.options = dataclasses.replace(first, everyone=True)
    assert begun.starting_weights() is theirs
    begun.options = first
    monkeypatch.setattr(provenance, "HALVED", ("csv",))
    monkeypatch.setattr(provenance, "trained_on", lambda path: {**told, "split_id": 3})
    with pytest.raises(xr.InputError, match="the --split-id that it had, 3"):
        begun.starting_weights()


# On each backend `test_freezing.py` has a training that goes on where it was stopped.
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kill -9 is a POSIX matter")
def test_killed_and_resumed_equals_never_stopped(capsys):
    """Once, while a checkpoint is written; `python tests/kills.py` kills 20 times."""
    assert kills.main(times=1, writing=1), capsys.readouterr().out


# --- bad input -------------------------------------------------------------------------------


@pytest.fixture
def refused(capsys):
    """Runs a recipe in this process and returns the one line that it leaves with."""

    def leave_of(recipe, *arguments):
        with pytest.raises(SystemExit) as left:
            run(recipe, *arguments)
        assert left.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith((f"{recipe}.py: ", f"xreid {recipe}: "))
        return lines[0]

    return leave_of


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--data", "imagenet"), ["imagenet", "market1501", "csv", "synthetic"]),
        (("--preset", "huge"), ["huge", "tiny", "paper"]),
        (("--backbone", "vgg"), ["vgg", "osnet_x1_0", "resnet50"]),
        (("--image-size", "96"), ["--image-size", "two whole numbers"]),
        (("--image-size", "96", "0"), ["--image-size is 96 0", "32 or more"]),
        (("--rates", "0.5"), ["--rates", "0.5", "1"]),
        (("--rates", "2", "query.jpg"), ["'query.jpg': give numbers", "goes before --rates"]),
        (("--train-rates", "2", "0"), ["--train-rates", "0", "1"]),
        (("--data", "market1501"), ["market1501", "--data-dir"]),
        (("--precision", "float16"), ["float16", "mixed_bfloat16"]),
        (("--protocol", "mystery"), ["mystery", "each-rate"]),
        (("--epochs", "0"), ["--epochs", "0"]),
        (("--split-id", "3"), ["split 3"]),
        (("--resume", "--overwrite"), ["--resume", "--overwrite"]),
        (("--query-rates", "0.5"), ["--query-rates", "0.5", "1"]),
        (("--supervision", "mse", "--no-bridge"), ["has phi", "leave out --no-bridge"]),
        (
            ("--supervision", "mse+id", "--association", "common"),
            ["has phi", "--association"],
        ),
        (("--association", "common", "--no-bridge"), ["common", "leave out --no-bridge"]),
        (("--reid", "reid.weights.h5", "--reid-epochs", "2"), ["--reid skips", "--reid-epochs"]),
    ],
)
def test_bad_options(refused, people, tmp_path, arguments, words):
    given = ("--data", "csv", "--data-dir", people, "--out", tmp_path / "run", *arguments)
    if "--data" in arguments:
        given = ("--out", tmp_path / "run", *arguments)
    line = refused("intact", *given)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "recipe, arguments, words",
    [
        ("rain", ("--without", "adv", "id"), ["'id'", "--without", "cls"]),
        ("rain", ("--without", "cls", "tri", "rec", "adv"), ["loss"]),
        ("rain", ("--levels", "3", "9"), ["(3, 9)", "1 to 5"]),
        ("rain", ("--settings", "mine"), ["mine", "--settings", "authors-code"]),
        ("rain", ("--labeled-fraction", "2"), ["--labeled-fraction is 2", "0", "1"]),
        ("rain", ("--weights", "coco"), ["coco", "neither imagenet nor random"]),
        ("rain", ("--learning-rate", "0"), ["--learning-rate is 0"]),
        ("cadnet", ("--preset", "paper", "--learning-rate", "1"), ["leave out --learning-rate"]),
        ("rain", ("--l2", "-1"), ["--l2 is -1", "0 or more"]),
        ("rain", ("--critic-rate", "0"), ["--critic-rate is 0", "more than 0"]),
        ("rain", ("--kernel", "nearest"), ["nearest", "lanczos", "random"]),
        ("rain", ("--train-rates", "4..1"), ["4..1", "1..4"]),
        ("intact", ("--critic-statistics", "mine"), ["mine", "batch", "moving"]),
        ("intact", ("--phi-scale", "-2"), ["--phi-scale is -2"]),
        ("adaptive", ("--mask-speed", "0"), ["--mask-speed is 0"]),
        ("cadnet", ("--features", "h"), ["'h'", "--features", "fg"]),
        ("cadnet", ("--batch-size", "6"), ["6", "multiple of 4"]),
        ("cadnet", ("--weights", "imagenet"), ["imagenet", "resnet50"]),
        ("cadnet", ("--batch-size", "32"), ["8 people a batch", "6"]),
        ("adaptive", ("--without", "masks"), ["'masks'", "--without", "verif"]),
        ("adaptive", ("--without", "cls", "verif"), ["loss"]),
        ("adaptive", ("--end-to-end", "--restart"), ["no mask comes", "--restart"]),
        ("adaptive", ("--epochs", "8", "--mask-epochs", *"2222"[:3]), ["[2, 2, 2]", "4 masks"]),
        ("adaptive", ("--epochs", "9", "--mask-epochs", *"2222"), ["8 in all", "9"]),
        ("adaptive", ("--epochs", "9", "--restart"), ["restart", "[3, 2, 2, 2]"]),
        ("one_per_rate", ("--protocol", "multi-shot"), ["multi-shot", "each-rate"]),
        ("adaptive", ("--without", "mask", "--end-to-end"), ["no masks", "--end-to-end"]),
        ("rain", ("--without", "adv", "--levels", "5"), ["--without adv", "leave out --levels"]),
        ("rain", ("--without", "adv", "--critic-rate", "1"), ["leave out --critic-rate"]),
        ("cadnet", ("--without", "adv_i", "adv_f", "--critic-rate", "1"), ["--critic-rate"]),
        ("rain", ("--margin", "-1"), ["--margin is -1", "0 or more"]),
        ("adaptive", ("--unit-triplet",), ["no triplet loss", "leave out --unit-triplet"]),
        ("one_per_rate", ("--unit-triplet",), ["no triplet loss", "--unit-triplet"]),
        ("one_per_rate", ("--train-rates", "1"), ["--train-rates", "above 1", "network"]),
        ("adaptive", ("--train-rates", "1.2..1.8"), ["--train-rates", "above 1", "level"]),
        ("adaptive", ("--without", "mask", "--mask-speed", "5"), ["no masks", "--mask-speed"]),
        ("baseline", ("--degradation", "camera"), ["--train-on hr", "leave out --degradation"]),
        ("baseline", ("--unit-triplet",), ["no triplet loss", "--unit-triplet"]),
        ("panned", ("--unit-triplet",), ["no triplet loss", "--unit-triplet"]),
        ("panned", ("--reid", "x", "--label-smoothing", "0.2"), ["--reid skips", "--label"]),
        ("rain", ("--without", "tri", "--unit-triplet"), ["--without tri", "--unit-triplet"]),
        ("rain", ("--without", "cls", "--label-smoothing", "0.1"), ["--without cls", "--label"]),
        ("intact", ("--reid", "x", "--unit-triplet"), ["--reid skips", "--unit-triplet"]),
        (
            "baseline",
            ("--train-on", "hr+lr", "--octuplet", "1", "--batch-size", "14"),
            ["--batch-size is 14", "multiple of 4, 8 or more"],
        ),
        ("panned", ("--images-per-person", "2"), ["--reid-triplet", "--images-per-person"]),
        ("panned", ("--views", "0"), ["--views is 0", "1 or more"]),
        ("panned", ("--hidden", "0"), ["--hidden is 0", "1 or more"]),
        ("distilled", ("--tap-weight", "-1"), ["--tap-weight is -1", "0 or more"]),
        ("rain", ("--without", "tri", "--margin", "1"), ["--without tri", "leave out --margin"]),
        ("baseline", ("--images-per-person", "2"), ["nobody is grouped", "--images-per-person"]),
        ("rain", ("--images-per-person", "1"), ["--images-per-person is 1", "2 or more"]),
        ("adaptive", ("--batch-size", "7"), ["2 images of each person", "multiple of 2"]),
        ("cadnet", ("--reconstruction", "0"), ["--reconstruction is 0", "more than 0"]),
        ("cadnet", ("--without", "rec", "--reconstruction", "5"), ["leave out --reconstruction"]),
        ("cadnet", ("--without", "cls", "--margin", "1"), ["--without cls", "leave out --margin"]),
    ],
)
def test_bad_options_of_the_other_systems(refused, people, tmp_path, recipe, arguments, words):
    out = tmp_path / "run"
    line = refused(recipe, *short(people, out, "--batch-size", 8, *arguments))
    assert all(word in line for word in words), line
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--repeats", "3"), ["each-rate", "draws nothing"]),
        (("--repeats", "0"), ["--repeats is 0"]),
        (("--train-rates", "2", "0.5"), ["--train-rates: rate 0.5 is below 1"]),
        (("--train-rates", "nan"), ["--train-rates: rate nan"]),
        (("--protocol", "multi-shot", "--score-as", "3=2"), ["--score-as", "multi-shot"]),
        (("--protocol", "multi-shot", "--degradation", "camera"), ["camera", "multi-shot"]),
        (("--strength", "0.3"), ["--degradation plain", "--strength"]),
        (("--degradation", "camera", "--strength", "1.5"), ["1.5", "0 (plain shrinking) to 1"]),
        (("--score-as", "5=2"), ["5=2", "--rates"]),
        (("--score-as", "3:2"), ["3:2", "RATE=RATE"]),
        (("--score-as", "3=2", "3=4"), ["--score-as", "rate 3 twice"]),
        (("--split-id", "2"), ["split 2 of csv"]),
        (("--split", "dev"), ["trained on people", "--split test"]),
        (("--fold", "1"), ["fold 1 of split 'test'", "--split dev"]),
        (("--split", "dev", "--fold", "1"), ["3 folds of 50 people need 150"]),
        (("--weights", "nobody"), ["nobody", "finished run folder"]),
    ],
)
def test_bad_options_of_evaluate(refused, finished, people, tmp_path, arguments, words):
    given = () if "--weights" in arguments else ("--weights", finished[0])
    out = tmp_path / "scores"
    given += ("--data", "csv", "--data-dir", people, "--out", out, *arguments)
    line = refused("evaluate", *given)
    assert all(word in line for word in words), line
    assert not out.exists()


def test_a_rate_that_no_model_can_be_told_is_refused_at_once():
    with pytest.raises(xr.InputError, match="rate inf"):
        evaluate.told_rates(evaluate.Options("weights", score_as=("3=inf",)))


def test_evaluate_draws_a_protocol_again(finished, people, tmp_path):
    out = tmp_path / "scores"
    printed = run(
        "evaluate", "--weights", finished[0], "--data", "csv", "--data-dir", people,
        "--protocol", "paper-all-queries", "--repeats", 2, "--rerank", "--out", out,
        "--query-rates", 3, 8, "--train-rates", 3, 3,
    )  # fmt: skip
    assert "95 % from" in printed and "all queries" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    low = metrics["summary"]["mixed"]["rank1"]
    assert low["runs"] == 2 and metrics["mixed"]["rank1"] == pytest.approx(low["mean"])
    assert metrics["standard_error"] is None and metrics["enlarged"]["mixed"] is not None
    rows = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    assert {row["seed"] for row in rows} == {0, 1}
    assert {row["rate"] for row in rows if row["role"] == "query"} == {3, 8}
    assert metrics["train_rates"] == [3]
    assert not (out / "queries.csv").exists()  # whose draw would it be?


def test_scores_of_a_built_set_say_its_split_and_seed(finished, people, tmp_path):
    built, out = tmp_path / "built", tmp_path / "scores"
    run("build", "csv", people, built, "--protocol", "multi-shot", "--split-id", 2, "--seed", 7)
    given = "evaluate", "--weights", finished[0], "--data", "mlr", "--data-dir", built
    run(*given, "--out", out)
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["split_id"], metrics["protocol_seed"]) == (2, 7)


def test_draws_are_averaged_over_the_rates_that_all_of_them_have():
    """Of few queries one draw may shrink none by some rate."""
    draws = [
        {"per_rate": {rate: {"rank1": score} for rate in rates}, "mixed": {"rank1": score}}
        for rates, score in (("23", 10.0), ("24", 30.0))
    ]
    found = evaluate.averaged(draws)
    assert found["per_rate"] == {"2": {"rank1": 20.0}} and found["mixed"] == {"rank1": 20.0}


def test_mirror_images_and_upscaled_queries_are_averaged_too_without_one_draws_error():
    draws = [
        {"mixed": scores, **{key: {**one, "mixed": scores} for key in ("flip", "enlarged")}}
        for one, scores in (
            ({"standard_error": {"mixed": error}}, {"rank1": 10.0 * error}) for error in (1, 3)
        )
    ]
    found = evaluate.averaged(draws)
    for name in ("flip", "enlarged"):
        assert found[name]["mixed"] == {"rank1": 20.0} and found[name]["standard_error"] is None


def test_wrong_folder(refused, tmp_path):
    (tmp_path / "query").mkdir()
    line = refused(
        "intact", "--data", "market1501", "--data-dir", tmp_path, "--out", tmp_path / "r"
    )
    assert "bounding_box_train" in line and "expected" in line
    assert not (tmp_path / "r").exists()


def with_csv(people, tmp_path, change):
    """The csv set with its lines changed."""
    lines = (people / "people.csv").read_text().splitlines()
    moved = [lines[0]] + [f"{people}/{line}" for line in lines[1:]]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(change(moved)) + "\n")
    return path


def test_person_with_a_single_image(refused, people, tmp_path):
    path = with_csv(
        people,
        tmp_path,
        lambda lines: [lines[0], *[x for x in lines[1:] if ",p3," not in x or "3_1_0" in x]],
    )
    line = refused("intact", "--data", "csv", "--data-dir", path, "--out", tmp_path / "run")
    assert "p3" in line and "single" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"this is no picture"])
@pytest.mark.parametrize("split", ["train", "query"])
def test_broken_image(refused, people, tmp_path, content, split):
    broken = tmp_path / "broken.png"
    broken.write_bytes(content)
    person = "p1" if split == "train" else "p9"
    path = with_csv(people, tmp_path, lambda lines: [*lines, f"{broken},{person},2,{split}"])
    line = refused("intact", "--data", "csv", "--data-dir", path, "--out", tmp_path / "run")
    assert "broken.png" in line
    assert not (tmp_path / "run").exists()


def test_out_that_holds_something_is_left_alone(refused, finished, people, tmp_path):
    out, _ = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    line = refused("intact", *short(people, out))
    assert "--overwrite" in line and "--resume" in line
    assert "finished" in refused("intact", *short(people, out, "--resume"))
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    other = tmp_path / "letters"
    other.mkdir()
    (other / "dear.txt").write_text("keep me")
    assert "other files" in refused("intact", *short(people, other, "--overwrite"))
    assert (other / "dear.txt").read_text() == "keep me"
    assert "no run to resume" in refused("intact", *short(people, tmp_path / "new", "--resume"))


def test_unwritable_out(refused, people, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("intact", *short(people, tmp_path / "file" / "run"))
    assert "cannot write" in line


def test_weights_of_another_model(refused, finished, people, tmp_path):
    out, _ = finished
    line = refused("intact", *short(people, tmp_path / "a", "--reid", out / "model.weights.h5"))
    assert "INTACT" in line and "Baseline" in line
    reid = out / "reid.weights.h5"
    line = refused("intact", *short(people, tmp_path / "b", "--reid", reid, "--limit", "3"))
    assert "number of people 6" in line and "3" in line
    line = refused(
        "intact", *short(people, tmp_path / "c", "--reid", reid, "--backbone", "osnet_x0_25")
    )
    assert "resnet_tiny" in line and "osnet_x0_25" in line
    line = refused("intact", *short(people, tmp_path / "d", "--reid", tmp_path / "no.weights.h5"))
    assert "no.weights.h5" in line
    assert not any((tmp_path / name).exists() for name in "abcd")


def stage_1(reid, people=6, **options):
    """Reads a finished stage 1, as INTACT's recipe does."""
    run = app.Run.__new__(app.Run)
    run.options, run.backbone = asked("intact", **options), "resnet_tiny"
    run.image_size, run.inputs = (128, 64), {"people": [f"p{i}" for i in range(6)]}
    return run.trained_network(reid, people)


def test_first_stage_of_other_people(finished, tmp_path, monkeypatch, capsys):
    """As many people, and others: the scores would be wrong without a word."""
    reid = shutil.copy(finished[0] / "reid.weights.h5", tmp_path)
    assert stage_1(reid).people == 6
    assert "not checked" in capsys.readouterr().out
    for other, halved, words in (
        ({}, ("csv",), None),
        ({"data": "viper"}, (), "--data viper"),
        ({"split": "dev"}, (), "--split dev"),
        ({"split_id": 3}, ("csv",), "--split-id 3"),
        ({"split_id": 3}, (), None),  # people are the same in every split
        ({"split": "dev", "fold": 1}, (), "--split dev"),
        ({"fold": 1}, (), "--fold 1"),
    ):
        told = {"data": "csv", "split": "test", "split_id": 0, **other}
        (tmp_path / "options.json").write_text(json.dumps(told))
        monkeypatch.setattr(provenance, "HALVED", halved)
        if words is None:
            assert stage_1(reid).people == 6
            assert not capsys.readouterr().out
            continue
        with pytest.raises(xr.InputError, match=f"trained with {words}; this run needs"):
            stage_1(reid)
    # As many, of the same data set: classes are people in this order.
    for names, right in (("p0 p1 p2 p3 p4 p5", True), ("p0 p1 p2 p3 p4 p9", False)):
        told = {"data": "csv", "split": "test", "inputs": {"people": names.split()}}
        (tmp_path / "options.json").write_text(json.dumps(told))
        if right:
            assert stage_1(reid).people == 6
            continue
        with pytest.raises(xr.InputError, match="trained on other people than this run has"):
            stage_1(reid)


def test_first_stage_of_another_fold(finished, tmp_path):
    reid = shutil.copy(finished[0] / "reid.weights.h5", tmp_path)
    for told, fold, words in (
        ({}, 1, "--fold 0; this run needs 1"),  # begun before there were folds
        ({"fold": 2}, 0, "--fold 2; this run needs 0"),
        ({"fold": 2}, 2, None),
        ({}, 0, None),
    ):
        (tmp_path / "options.json").write_text(json.dumps({"data": "csv", "split": "dev", **told}))
        if words is None:
            assert stage_1(reid, split="dev", fold=fold).people == 6
            continue
        with pytest.raises(xr.InputError, match=words):
            stage_1(reid, split="dev", fold=fold)


def test_weights_of_another_fold_are_not_scored(tmp_path, monkeypatch):
    data = SimpleNamespace(protocol="each-rate", query=[])
    for told, fold, refused in (
        ({}, 1, "--fold 0"),
        ({"fold": None}, 2, "--fold 0"),  # as a published entry
        ({"fold": 1}, 0, "--fold 1"),
        ({"fold": 1}, 1, None),
        ({}, 0, None),
        ({"dataset": "market1501"}, 1, None),
    ):
        told = {"dataset": "csv", "split": "dev", **told}
        monkeypatch.setattr(provenance, "trained_on", lambda weights, told=told: told)
        options = evaluate.Options("mine", data="csv", split="dev", fold=fold)
        if refused is None:
            evaluate.check(options, data)
            continue
        with pytest.raises(
            xr.InputError, match=f"trained on people .*the {refused[:6]} that it had, {refused[7:]}"
        ):
            evaluate.check(options, data)


def test_evaluate_refuses_what_would_change_no_score(monkeypatch):
    monkeypatch.setattr(provenance, "trained_on", lambda weights: {})
    rates, query_rates = {"rates": (2.0,)}, {"query_rates": (8,)}
    for protocol, told, said in (
        ("multi-shot", rates, "--rates is of no use with protocol multi-shot"),
        ("multi-shot", query_rates, None),
        ("each-rate", query_rates, "--query-rates is of no use with protocol each-rate"),
        ("each-rate", rates, None),
        ("paper", {"rates": (1.0, 2.0, 3.0, 4.0, 8.0)}, None),  # as it is anyway
    ):
        options = evaluate.Options("mine", **told)
        data = SimpleNamespace(protocol=protocol, query=[])
        if said is None:
            evaluate.check(options, data)
            continue
        with pytest.raises(xr.InputError, match=f"{said}, .*: leave it out"):
            evaluate.check(options, data)
    monkeypatch.setattr(xr, "load", lambda *_, **__: small.shared(small.baseline))
    with pytest.raises(xr.InputError, match="a Baseline that recovers no images: leave it out"):
        evaluate.main(evaluate.Options("mine", lpips=True))


def test_weights_of_a_data_set_scored_on_the_built_in_people_say_so(monkeypatch, capsys):
    data = SimpleNamespace(protocol="each-rate", query=[])
    monkeypatch.setattr(xr.datasets, "load", lambda *_, **__: data)
    monkeypatch.setattr(xr, "load", lambda *_, **__: small.shared(small.baseline))
    monkeypatch.setattr(evaluate, "score", lambda *_: print("scored"))
    monkeypatch.setattr(provenance, "refuse_overlap", lambda *_: None)
    known = {"a": {"dataset": "market1501"}, "b": {"dataset": "synthetic"}}
    monkeypatch.setattr(hub, "named", known.get)
    for weights, name, told in (
        ("a", "synthetic", True),
        ("a", "market1501", False),
        ("b", "synthetic", False),
        ("own.weights.h5", "synthetic", False),
    ):
        evaluate.main(evaluate.Options(weights, data=name))
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "scored" and len(lines) == 1 + told
        assert not told or "give --data market1501 --data-dir DIR" in lines[0]


def overlap(weights, data, data_dir=None, people=(), **told):
    """Why weights are not to be scored on a data set, or ""."""
    wanted = evaluate.Options(str(weights), data=data, data_dir=data_dir, **told)
    query = [xr.Record(f"{person}.jpg", person, 1) for person in people]
    try:
        provenance.refuse_overlap(wanted.weights, wanted, data_dir, query)
    except xr.InputError as error:
        return str(error)
    return ""


def noted(folder, **told):
    """A run folder with the options given, and weights that are none."""
    folder.mkdir(parents=True)
    (folder / "model.weights.h5").write_bytes(folder.name.encode())
    (folder / "options.json").write_text(json.dumps({"split": "test", "split_id": 0, **told}))
    return folder


@pytest.fixture
def everyone(tmp_path, monkeypatch):
    """Published weights of everyone of Market-1501, and their file."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "all.weights.h5").write_bytes(b"published")
    entry = {"file": "all.weights.h5", "sha256": hub.sha256_of(folder / "all.weights.h5")}
    entry |= {"dataset": "market1501", "split": "test", "split_id": 0, "everyone": True}
    entry["run_sha256"] = hashlib.sha256(b"its run").hexdigest()
    (folder / "index.json").write_text(json.dumps({"all": entry}))
    monkeypatch.setattr(hub, "PUBLISHED", (folder,))
    hub.published.cache_clear()
    yield folder / entry["file"]
    hub.published.cache_clear()


def test_two_folders_of_one_name_are_told_apart_by_their_people(everyone, tmp_path):
    """Of Market-1501 there is the whole, and parts of its training people."""
    run = noted(
        tmp_path / "run", data="market1501", data_dir="whole", inputs={"people": ["2", "7"]}
    )
    assert overlap(run, "market1501", "part", [1, 5]) == ""
    assert "trained on 1 of the people whom this" in overlap(run, "market1501", "part", [5, 7])
    assert "give --split test" in overlap(run, "market1501", "part", [5, 7], split="dev")
    assert overlap(run, "dukemtmc", "part", [5, 7]) == ""
    (tmp_path / "zoo" / "index.json").write_text(
        json.dumps({"all": {**hub.published()["all"], "people": "2 7"}})
    )
    hub.published.cache_clear()
    assert overlap("all", "market1501", "whole", [1, 5]) == ""
    assert "everyone of market1501" in overlap("all", "market1501", "part", [2])
    assert "everyone of market1501" in overlap("all", "market1501", "whole")  # nobody says who


def test_published_weights_are_known_by_their_file(everyone, tmp_path):
    copy = shutil.copy(everyone, tmp_path / "copy.weights.h5")
    run = noted(tmp_path / "its run", data="market1501")
    for weights in ("all", everyone, copy, run, run / "model.weights.h5"):
        assert "trained on everyone of market1501" in overlap(weights, "market1501")
        assert not overlap(weights, "dukemtmc")


def test_a_folder_named_like_published_weights_is_not_them(everyone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = hub.published()["all"]
    entry["licence"] = "theirs"
    assert hub.find("all") == everyone and hub.named("all") == hub.entry_of("all") == entry
    mine = noted(tmp_path / "all", data="csv", data_dir="people") / "model.weights.h5"
    assert hub.find("all").samefile(mine)
    assert hub.named("all") is hub.entry_of("all") is None
    assert provenance.trained_on("all")["dataset"] == "csv" and not overlap("all", "market1501")
    assert provenance.trained_file("all").samefile(mine)
    told = {"weights": "all", "began_from_sha256": hub.sha256_of(mine)}
    assert provenance.started_as(told) == "./all"
    assert provenance.started_as({**told, "began_from_sha256": entry["sha256"]}) == "all"
    model = SimpleNamespace(image_size=(128, 64), backbone="x", metric="cosine")
    monkeypatch.setattr(export.graphs, "takes_level", lambda model: False)
    assert export.describe(model, "all")["licence"] == "not stated"
    assert export.describe(model, str(everyone))["licence"] == "theirs"


def test_a_card_of_other_images_is_not_compared(everyone, people, capsys):
    data = xr.datasets.load("csv", people, need=("query", "gallery"))
    entry, scores = hub.published()["all"], {"per_rate": {"1": {"rank1": 50.0}}, "queries": 4}
    entry |= {"dataset": "csv", "protocol": "each-rate"}
    entry["per_rate"] = {rate: {"rank1": 75.0} for rate in ("1", "2")}
    options = evaluate.Options("all", data="csv", data_dir=str(people), rates=(1,))
    for there, said in (("0" * 64, "is of other images"), (None, "differs by 1.0 queries")):
        rows = xr.manifest_rows(data, (1, 2))
        entry["scored_manifest_sha256"] = (
            there or hashlib.sha256(evaluate.manifest_content(rows)).hexdigest()
        )
        evaluate.beside_card(options, data, scores, shrunk=False)
        assert capsys.readouterr().out.startswith(f"The card of all {said}")


def test_people_of_a_built_set_are_those_of_what_it_was_built_from(tmp_path, capsys):
    def built(name, **row):
        folder = tmp_path / name
        folder.mkdir()
        row = {
            "path": "a", "role": "query", "person": 1, "camera": 1, "rate": 2, "seed": 0,
            "sha256": "0" * 64, "protocol": "paper", "split_id": 0, "split": "dev", **row,
        }  # fmt: skip
        (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
        return str(folder)

    run = noted(tmp_path / "run", data="market1501")
    fold = built("fold", dataset="market1501", fold=1)
    assert "give a set built with --split test" in overlap(run, "mlr", fold)
    dev = noted(tmp_path / "dev", data="market1501", split="dev")
    assert "built with the --fold that it had, 0" in overlap(dev, "mlr", fold)
    assert not overlap(dev, "mlr", built("first", dataset="market1501"))
    assert not overlap(run, "mlr", built("test", dataset="market1501", split="test"))
    viper = built("viper", dataset="viper", split="test", split_id=1)
    assert "--split-id that it had, 0" in overlap(noted(tmp_path / "v", data="viper"), "mlr", viper)
    # Trained on what was built.
    low = noted(tmp_path / "low", data="mlr", data_dir=fold)
    assert "--fold that it had, 1" in overlap(low, "market1501", split="dev")
    assert not overlap(low, "market1501") and "not checked" not in capsys.readouterr().out
    own = noted(tmp_path / "own", data="csv", data_dir="people")
    assert (
        not overlap(own, "mlr", built("csv", dataset="csv")) and "not ch" in capsys.readouterr().out
    )


def test_people_are_the_same_under_another_name(tmp_path, people):
    first = noted(tmp_path / "first", data="synthetic")
    assert "--split test" in overlap(first, "synthetic-b", split="dev")
    assert not overlap(first, "synthetic-b")
    second = noted(tmp_path / "second", data="caviar-native", split_id=3)
    assert "--split-id that it had, 3" in overlap(second, "caviar", "elsewhere")
    for here, there in ((people, people / "people.csv"), (people / "people.csv", people)):
        third = noted(tmp_path / f"third {here.name}", data="csv", data_dir=str(here))
        assert "--split test" in overlap(third, "csv", str(there), split="dev")
    other = shutil.copy(people / "people.csv", tmp_path)
    assert not overlap(third, "csv", str(other), split="dev")


def test_weights_begun_from_others_have_seen_their_people_too(everyone, tmp_path, capsys):
    words = "which began from all, was trained on everyone of market1501"
    told = {"data": "synthetic", "weights": "all"}
    assert words in overlap(noted(tmp_path / "a", **told), "market1501")
    # By a file, and by one that is gone; of --reid; and once more.
    told |= {"weights": "gone", "began_from_sha256": hub.sha256_of(everyone)}
    assert words in overlap(noted(tmp_path / "b", **told), "market1501")
    c = noted(tmp_path / "c", data="synthetic", reid=str(tmp_path / "a"))
    assert words in overlap(c, "market1501") and not overlap(c, "dukemtmc")
    assert "not checked" not in capsys.readouterr().out
    # What cannot be followed is said.
    for before in (str(tmp_path / "nobody"), str(tmp_path / "a")):
        told |= {"weights": before, "began_from_sha256": "0" * 64}
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        assert not overlap(noted(tmp_path / "d", **told), "market1501")
        assert f"Nothing beside {before} says" in capsys.readouterr().out
    alone = shutil.copy(tmp_path / "a" / "model.weights.h5", tmp_path / "alone.weights.h5")
    assert not overlap(alone, "market1501")
    assert f"Nothing beside {alone} says" in capsys.readouterr().out


def test_a_run_of_a_fold_says_so(tmp_path, monkeypatch):
    """From the command line to the files; it needs 150 people, whom nobody looks at here."""
    rng, lines = np.random.default_rng(0), ["path,person,camera,split"]
    for person in range(150):
        for camera in (1, 2):
            for shot in "ab":
                name = f"{person}_{camera}{shot}.png"
                noise = rng.integers(0, 255, (8, 4, 3), "uint8")
                Image.fromarray(noise).save(tmp_path / name)
                lines.append(f"{name},p{person},{camera},train")
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(run_figures, "draw_figures", lambda *given: None)
    out = tmp_path / "run"
    options = {"rates": (1, 2), "train_rates": (2,), "steps": 1, "batch_size": 4}
    baseline(data_dir=str(tmp_path), out=str(out), split="dev", fold=2, **options)
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["split"], metrics["fold"], metrics["options"]["fold"]) == ("dev", 2, 2)
    assert json.loads((out / "options.json").read_text())["fold"] == 2
    rows = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    assert {row["fold"] for row in rows} == {2}
    with open(out / "queries.csv", newline="") as file:
        found = {row["person"] for row in csv.DictReader(file)}
    assert found == {row["person"] for row in rows if row["role"] == "query"} and len(found) == 50
    given = ("--weights", out, "--data", "csv", "--data-dir", tmp_path, "--split", "dev")
    run("evaluate", *given, "--fold", 2, "--rates", 1, 2, "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert (again["fold"], again["per_rate"]) == (2, metrics["per_rate"])


def test_what_to_do_after_ctrl_c(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["recipe.py", "--weights", "mine"])
    for start, options, words in (
        (app.command, evaluate.Options, "run the same command again"),
        (app.main, settings.Nothing, "--resume"),
    ):
        with pytest.raises(SystemExit) as left:
            start(interrupted, options, "")
        assert left.value.code == 130 and words in capsys.readouterr().err


def test_no_backend(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for value in (None, "jax"):
        monkeypatch.delenv("KERAS_BACKEND")
        if value:
            monkeypatch.setenv("KERAS_BACKEND", value)
        with pytest.raises(SystemExit) as left:
            app.run_command(print, settings.Nothing)
        assert left.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and "installed" in lines[0]
        monkeypatch.setenv("KERAS_BACKEND", "torch")


@pytest.mark.skipif(not MARKET.exists(), reason="needs the folder market1501-501ids")
def test_market_1501_from_its_folder(tmp_path):
    out = tmp_path / "market"
    run("baseline", "--data", "market1501", "--data-dir", MARKET, "--limit", 6, "--steps", 1,
        "--rates", 1, 4, "--out", out)  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["enlarged"] is None and metrics["image_quality"] is None
    assert set(metrics["per_rate"]) == {"1", "4"}

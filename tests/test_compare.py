"""xreid compare on run folders written by hand, and once on a recipe that it runs itself."""

import csv
import json
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import small
from PIL import Image, ImageColor

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.evaluation.flops import embedding_cost, forward_flops

for needed in ("tyro", "matplotlib"):
    pytest.importorskip(needed, reason='recipes need pip install -e ".[recipes]"')

from made_runs import made_queries, made_run  # noqa: E402

from keras_xreid import app  # noqa: E402
from keras_xreid.app import compare, compare_rows, jobs  # noqa: E402

on_torch = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="is the same on every backend, and JAX needs minutes"
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs"


def compared(tmp_path, *folders, **options):
    out = tmp_path / "out"
    given = compare.Options(folders=tuple(map(str, folders)), out=str(out), **options)
    compare.main(given)
    with open(out / "compare.csv", newline="") as file:
        return list(csv.DictReader(file)), (out / "compare.md").read_text()


def test_table(folder, tmp_path, capsys):
    made_run(folder / "hr", rank1=80.0)
    made_run(folder / "lr", rank1=75.5, options={"train_on": "hr+lr"})
    made_run(folder / "intact", "intact", 71.25, parameters=2_000_000, seconds=600.0,
             options={"bridge": False})  # fmt: skip
    rows, page = compared(tmp_path, folder / "hr", folder / "lr", folder / "intact")
    found = [(row["system"], row["variant"]) for row in rows]
    # Something else than the default, or else a word in which its system's runs differ.
    assert found == [
        ("baseline", "train-on hr"), ("baseline", "train-on hr+lr"), ("intact", "no-bridge"),
    ]  # fmt: skip
    assert [float(row["rank1_r4"]) for row in rows] == [50.0, 45.5, 41.25]
    assert {row["error_r4"] for row in rows} == {"2.25"}
    assert [float(row["mean_lr"]) for row in rows] == [60.0, 55.5, 51.25]
    assert [float(row["mAP"]) for row in rows] == [52.0, 47.5, 43.25]
    assert {row["images"] for row in rows} == {"3200"} and {row["flops"] for row in rows} == {""}
    assert rows[2]["parameters"] == "2000000" and rows[2]["seconds"] == "600.0"
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("|")]
    assert lines[4][:3] == ["| intact", "no-bridge", "71.2 ± 2.2"]
    assert lines[4][-7:] == ["51.2", "43.2", "21.2", "2.00 M", "-", "3,200", "10.0 |"]
    printed = capsys.readouterr().out
    assert "r = 8" in printed and "train-on hr+lr" in printed
    for note in ("protocol each-rate", "manifest 0123456789abcdef", "seeds 0", "synthetic"):
        assert note in page and note in printed
    assert "Not like for like" not in page


def test_seeds_of_one_variant_share_a_row(folder, tmp_path):
    for seed, rank1 in enumerate((70.0, 74.0, 81.0)):
        made_run(folder / f"seed{seed}", rank1=rank1, seed=seed, seconds=60.0 * (seed + 1))
    made_run(folder / "other", "intact", 90.0, seed=0)
    rows, page = compared(tmp_path, *sorted(folder.iterdir()))
    assert len(rows) == 2
    row = rows[1]
    assert row["seeds"] == "0 1 2" and row["variant"] == ""
    # By hand: deviations from 75 are -5, -1, 6; (25 + 1 + 36) / 2 = 31.
    assert float(row["rank1_r1"]) == pytest.approx(75.0)
    assert float(row["error_r1"]) == float(row["mean_lr_error"]) == pytest.approx(31**0.5)
    assert float(row["mAP"]) == pytest.approx(47.0) and float(row["seconds"]) == 120.0
    assert "55.0 ± 5.6" in page and "Not like for like, seeds: 0 (intact); 0, 1, 2 (base" in page


def test_seeds_that_label_other_images_share_a_row(folder, tmp_path):
    for seed in (0, 1):
        told = {"manifest_sha256": f"{seed}" * 64, "options": {"labeled_fraction": 0.2}}
        made_run(folder / f"seed{seed}", seed=seed, **told)
        images = [{"role": "train", "path": seed}, {"role": "gallery", "path": 0}]
        text = "".join(json.dumps(image) + "\n" for image in images)
        (folder / f"seed{seed}" / "manifest.jsonl").write_text(text)
    rows, page = compared(tmp_path, *sorted(folder.iterdir()))
    assert [row["seeds"] for row in rows] == ["0 1"]
    assert f"manifest {'0' * 16}, {'1' * 16}" in page


def test_options_in_which_runs_differ_are_named(folder):
    runs = [
        made_run(folder / "a", options={"epochs": 5, "data_dir": "here"}),
        made_run(folder / "b", options={"epochs": 8, "label_smoothing": 0.1, "workers": 2}),
        made_run(folder / "c", "intact", options={"epochs": 5, "supervision": "mse"}),
        made_run(folder / "d", "new-system", backbone="osnet_x0_25"),
    ]
    runs[3]["options"]["backend"] = "another"  # what metrics.json says of itself counts
    texts = compare_rows.variants(runs)
    assert texts == [
        "epochs 5, backbone resnet_tiny",
        "label-smoothing 0.1, epochs 8, backbone resnet_tiny",
        "supervision mse, epochs 5, backbone resnet_tiny",
        "backbone osnet_x0_25",
    ]
    # A flag, a list, and nothing.
    assert compare_rows.spelled("bridge", False) == "no-bridge"
    assert compare_rows.spelled("without", ["adv", "rec"]) == "without adv rec"
    assert compare_rows.spelled("without", []) == compare_rows.spelled("epochs", None) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reranked": True}, "rerank"),
        ({"score_as": {"8": 4.0}}, "score-as 8=4"),
        ({"score_as": "estimated"}, "score-as estimated"),
        ({"degradation": "camera", "strength": 0.5}, "degradation camera, strength 0.5"),
        ({"test_cameras": ["4", "5"]}, "test-cameras 4 5"),
    ],
)
def test_how_weights_were_scored_is_named(folder, changes, words):
    runs = [made_run(folder / "a", weights="A"), made_run(folder / "b", weights="A", **changes)]
    assert compare_rows.variants(runs) == ["weights A", f"weights A, {words}"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"manifest_sha256": "f" * 64}, "manifest: 0123456789abcdef (baseline); ffffffff"),
        ({"dataset": "csv"}, "data set: synthetic (baseline); csv (intact)"),
        ({"split": "dev"}, "people (--split): test (baseline); dev (intact)"),
        (
            {"options": {"split": "dev", "fold": 2}},
            "(--split): test (baseline); dev, fold 2 (intact)",
        ),
        ({"protocol": "paper"}, "protocol: each-rate (baseline); paper (intact)"),
        ({"images": 6400}, "images seen in training: 3,200 (baseline); 6,400 (intact)"),
        ({"seed": 3}, "seeds: 0 (baseline); 3 (intact)"),
        ({"options": {"train_rates": (1, 2, 4)}}, "mean (--train-rates): 2 3 4 (baseline); 2 4 ("),
        ({"backend": "abacus"}, "; abacus (intact)"),
    ],
)
def test_what_is_not_like_for_like_is_said(folder, tmp_path, changes, what):
    made_run(folder / "a")
    made_run(folder / "b", "intact", **changes)
    _, page = compared(tmp_path, folder / "a", folder / "b")
    assert page.count("Not like for like") == 1 and what in page


def test_rows_of_a_note_are_called_by_their_system_where_it_has_no_others(folder, tmp_path):
    made_run(folder / "a", images=64)
    made_run(folder / "b", "intact")
    made_run(folder / "c", "intact", options={"bridge": False})
    made_run(folder / "d", "intact", options={"association": "common"}, split="dev")
    _, page = compared(tmp_path, *sorted(folder.iterdir()))
    assert "in training: 64 (baseline); 3,200 (intact)." in page
    row = "intact, association r-to-d / intact, no-bridge"
    assert f"test (baseline / {row}); dev (intact, association common)." in page


def test_short_runs_and_shared_first_stages_are_said(folder, tmp_path):
    made_run(folder / "a", short_run=True)
    began = {"reid": "somewhere/reid.weights.h5", "began_from_sha256": "1a2b3c4d5e6f"}
    made_run(folder / "b", "intact", options=began)
    _, page = compared(tmp_path, folder / "a", folder / "b")
    assert "scores mean nothing: baseline." in page
    assert "began from are not counted: intact (--reid RUN-1a2b3c4d)." in page


def test_scores_of_saved_weights_are_a_row_too(folder, tmp_path):
    """What xreid evaluate writes has no options, no history and no seed."""
    found = made_run(folder / "run")
    scores = {k: v for k, v in found.items() if k not in ("options", "short_run")}
    (folder / "scores").mkdir()
    (folder / "scores" / "metrics.json").write_text(
        json.dumps({**scores, "weights": "published", "seed": None})
    )
    rows, page = compared(tmp_path, folder / "scores", folder / "run")
    assert [row["variant"] for row in rows] == ["weights published", ""]
    assert rows[0]["images"] == ""
    assert "in training: unknown (baseline, weights published); 3,200" in page
    assert "--train-rates): unknown (baseline, weights published); 2 3 4 (" in page


def test_a_run_from_before_minp_has_no_number_there(folder, tmp_path):
    found = made_run(folder / "old", "intact")
    del found["mean_lr"]["mINP"]
    (folder / "old" / "metrics.json").write_text(json.dumps(found))
    made_run(folder / "new")
    rows, page = compared(tmp_path, folder / "old", folder / "new")
    assert [row["mINP"] for row in rows] == ["", "30.0"] and "| 52.0 | - |" in page


def test_figure(folder, tmp_path):
    for i, system in enumerate(("baseline", "intact", "other")):
        made_run(folder / system, system, 80.0 - 9 * i)
    compared(tmp_path, *sorted(folder.iterdir()))
    with Image.open(tmp_path / "out" / "compare.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    for colour in compare.figures.COLOURS[:3]:
        rgb = ImageColor.getrgb(colour)
        assert np.count_nonzero(np.abs(pixels - rgb).max(axis=2) < 12) > 200


def test_no_figure_of_an_earlier_comparison_stays(folder, tmp_path):
    made_run(folder / "a", query_ms=20.0)
    made_run(folder / "b", "intact", query_ms=30.0)
    compared(tmp_path, folder / "a", folder / "b")
    assert {path.name for path in tmp_path.rglob("*.png")} == {"compare.png", "costs.png"}
    made_run(folder / "c", per_rate={}, mixed={"rank1": 50.0}, mean_lr=None)
    _, page = compared(tmp_path, folder / "c")
    assert ".png" not in page and not list(tmp_path.rglob("*.png"))


@pytest.fixture
def drawn(monkeypatch):
    """The lines of the figures of rates."""
    lines, draw = [], compare.figures.rank_lines

    def keep(path, some, **told):
        lines.extend(some)
        return draw(path, some, **told)

    monkeypatch.setattr(compare.figures, "rank_lines", keep)
    return lines


def test_rates_not_trained_on_are_hollow(folder, tmp_path, drawn):
    made_run(folder / "a")
    made_run(folder / "b", options={"train_on": "hr+lr"})
    made_run(folder / "c", "intact", options={"train_rates": (2, 8)})
    compared(tmp_path, *sorted(folder.iterdir()))
    assert [line["hollow"] for line in drawn] == [{2, 3, 4, 8}, {8}, {3, 4}]


def test_cards_say_which_rates_were_trained_on(folder, tmp_path, monkeypatch, drawn):
    card = {**made_run(folder / "a"), "options": None, "train_rates": [2, 8], "to_embed": None}
    card |= {"url": "http://127.0.0.1:9", "sha256": "0" * 64}  # where nothing is
    command = "KERAS_BACKEND=torch python recipes/baseline.py"
    cards = {
        "hr": {**card, "command": command},
        "both": {**card, "command": f"{command} --train-on hr+lr"},
        "rain": {**card, "command": command.replace("baseline", "rain"), "system": "rain"},
    }
    monkeypatch.setattr(hub, "published", lambda: cards)
    scored = {**card, "weights": "both", "train_rates": [3]}  # of xreid evaluate, its mean's
    (folder / "a" / "metrics.json").write_text(json.dumps(scored))
    compared(tmp_path, *cards)
    compared(tmp_path, folder / "a")
    assert [line["hollow"] for line in drawn] == [{2, 3, 4, 8}, {3, 4}, {3, 4}, {3, 4}]


# --- the figure of costs ---


@pytest.fixture
def points(monkeypatch):
    """What the figure of costs was drawn of: [(points, what the cost is)]."""
    drawn, draw = [], compare.figures.rank_against_cost

    def keep(path, *told):
        drawn.append(told)
        return draw(path, *told)

    monkeypatch.setattr(compare.figures, "rank_against_cost", keep)
    return drawn


def test_points_of_the_figure_of_costs(folder, tmp_path, points):
    """Each score stands at its own time, its error is by hand, and who has none is named."""
    found = hits()
    made_run(folder / "a", query_ms=20.0)
    made_queries(folder / "a", found)
    flip = {"mean_lr": {"rank1": 71.0}, "standard_error": {"2": 1.0, "3": 1.5, "4": 2.0}}
    made_run(folder / "b", "intact", query_ms=40.5, flip=flip)
    made_queries(folder / "b", found)  # nothing of mirror images
    for seed, ms in enumerate((10.0, 14.0)):
        made_run(folder / f"c{seed}", "rain", 70.0 + 4 * seed, seed=seed, query_ms=ms)
    made_run(folder / "d", "cadnet")
    for seed in (0, 1):  # plain scores differ by seed, those of mirror images do not
        made_run(folder / f"e{seed}", "adaptive", 70.0 + 4 * seed, seed=seed, query_ms=9.0,
                 flip={"mean_lr": {"rank1": 71.0}})  # fmt: skip
    rows, page = compared(tmp_path, *sorted(folder.iterdir()))
    of_each = 100 * found[:, 1:4].mean(axis=1)  # a query's hits at 2, 3 and 4
    error = pytest.approx(of_each.std(ddof=1) / 40**0.5)
    assert points[0][0] == [
        {"label": "baseline", "x": 20.0, "rank1": 60.0, "error": error},
        {"label": "intact", "x": 40.5, "rank1": 71.0, "error": 1.5},
        {"label": "rain", "x": 12.0, "rank1": 52.0, "error": pytest.approx(8**0.5)},
        {"label": "adaptive", "x": 9.0, "rank1": 71.0, "error": 0.0},
    ]
    assert [row["query_ms"] for row in rows] == ["20.0", "40.5", "12.0", "", "9.0"]
    assert "(costs.png)" in page and "| query ms |" in page and "| 40.5 |" in page
    assert "Not in the figure of milliseconds of a query, which they do not say: cadnet." in page
    assert "mirror images are averaged, for that is what was timed: intact / adaptive." in page


def test_cards_of_published_weights_are_rows(folder, tmp_path, monkeypatch, points):
    """Their embeddings were timed, and not a query; a folder of the same name goes first."""
    keys = ("system", "dataset", "split", "per_rate", "mean_lr", "standard_error", "queries")
    card = {k: v for k, v in made_run(folder / "a").items() if k in keys}
    card |= {"train_rates": [2, 3, 4], "images_seen": {"reid": 64}, "to_embed": None}
    card |= {"url": "http://127.0.0.1:9", "sha256": "0" * 64}  # where nothing is
    cards = {
        "one": {**card, "embedded_per_second": 40.0, "parameters": 7, "flip": None},
        "two": {**card, "embedded_per_second": 50.0, "to_embed": {"parameters": 5, "flops": 9}},
    }
    monkeypatch.setattr(hub, "published", lambda: cards)
    rows, page = compared(tmp_path, "one", "two", folder / "a")
    a = "backbone resnet_tiny, backend torch"
    assert [row["variant"] for row in rows] == ["weights one", "weights two", a]
    assert [row["parameters"] for row in rows] == ["7", "5", "1500000"]
    ((drawn, xlabel),) = points
    assert [(p["label"], p["x"], p["error"]) for p in drawn] == [
        ("one", 25.0, 2.25), ("two", 20.0, 2.25),
    ]  # fmt: skip
    assert xlabel == "milliseconds of an image, embedded with others"
    assert f"Not in the figure of {xlabel}, which they do not say: baseline, {a}." in page
    monkeypatch.chdir(folder.parent)
    made_run(folder.parent / "one", "rain")
    assert compare_rows.read_run("one")["system"] == "rain"


def test_the_front_is_what_a_cost_buys(tmp_path):
    places = [(20, 60), (10, 50), (10, 40), (30, 60), (30, 70), (25, 55), (40, 69)]
    points = [{"label": f"{x}", "x": x, "rank1": y, "error": None} for x, y in places]
    front = compare.figures.front_of(points)
    assert [(p["x"], p["rank1"]) for p in front] == [(10, 50), (20, 60), (30, 70)]
    compare.figures.rank_against_cost(tmp_path / "costs.png", points)
    with Image.open(tmp_path / "costs.png") as image:
        assert image.size[1] == 440 and len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_adapted_scores_are_told_from_plain_ones(folder, tmp_path):
    said = "adapted on unlabelled gallery images, queries not looked at"
    for name, adapted in (("plain", None), ("to", {"on": said, "images": {"1": 256}})):
        made_run(folder / name, weights="NAME", adapted=adapted)
        made_queries(folder / name, hits())
    rows, page = compared(tmp_path, *sorted(folder.iterdir()))
    assert [row["variant"] for row in rows] == ["weights NAME", "weights NAME, adapted"]
    assert (
        "Not like for like, batch normalization: as trained (baseline, weights NAME); "
        f"{said} (baseline, weights NAME, adapted)."
    ) in page
    assert len(paired(tmp_path)) == 7  # and yet judged, for the queries are the same


def test_adaptations_are_told_from_each_other(folder, tmp_path):
    for name, on in (("a", "adapted on unlabelled gallery images"), ("b", "adapted by yard.npz")):
        made_run(folder / name, weights="NAME", adapted={"on": on})
    rows, _ = compared(tmp_path, folder / "a", folder / "b")
    variants = [row["variant"] for row in rows]
    assert variants == ["weights NAME, adapted", "weights NAME, adapted by yard.npz"]


# --- paired differences ---


def hits(share=0.5, queries=40, seed=0):
    return np.random.default_rng(seed).random((queries, 5)) < share


def paired(tmp_path):
    with open(tmp_path / "out" / "paired.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_are_judged(folder, tmp_path, capsys):
    control = hits()
    better = control | (np.arange(40)[:, None] % 4 == 0)
    for name, system, found in (
        ("a", "baseline", control), ("b", "intact", better), ("c", "rain", control),
    ):  # fmt: skip
        made_run(folder / name, system)
        made_queries(folder / name, found)
    _, page = compared(tmp_path, *sorted(folder.iterdir()))
    rows = paired(tmp_path)
    verdicts = {(r["row"], r["beside"]): r["verdict"] for r in rows if r["score"] == "mean_lr"}
    assert verdicts == {
        ("intact", "baseline"): "better",
        ("rain", "baseline"): "no difference shown",
        ("rain", "intact"): "worse",
    }
    scores = ["mean_lr", "mAP", "rank1_r1", "rank1_r2", "rank1_r3", "rank1_r4", "rank1_r8"]
    assert [row["score"] for row in rows[:7]] == scores
    # By hand: what the low rates gain; each gain in rank-1 is 0.4 of that in AP.
    gained = (better & ~control)[:, 1:4]
    mean, precision = rows[0], rows[1]
    assert float(mean["difference"]) == pytest.approx(100 * gained.mean())
    assert float(precision["difference"]) == pytest.approx(40 * gained.mean())
    assert (mean["wins"], mean["losses"]) == (str(gained.sum()), "0") and precision["p"] == ""
    assert float(mean["p"]) == pytest.approx(2 * 0.5 ** gained.sum())
    assert 0 < float(mean["low"]) < float(mean["difference"]) < float(mean["high"])
    eight = (better & ~control)[:, 4]
    assert float(rows[6]["difference"]) == pytest.approx(100 * eight.mean())
    assert [float(row["difference"]) for row in rows[7:14]] == [0.0] * 7
    printed = capsys.readouterr().out
    cells = f"{100 * gained.mean():+.1f} [{float(mean['low']):+.1f}, {float(mean['high']):+.1f}]"
    assert f"| intact | baseline | better | {cells} | {gained.sum()} : 0 |" in page
    assert cells in printed and "no difference shown" in printed
    assert "## Paired differences" in page and "bootstrap over people" in page
    assert "Paired differences" in (tmp_path / "out" / "compare.html").read_text()
    assert "Not judged" not in page + printed


def test_seeds_of_a_row_are_judged_together(folder, tmp_path):
    one, other = hits(seed=1), hits(seed=2)
    for name, system, seed, found in (
        ("a", "baseline", 0, one), ("b", "intact", 0, one), ("c", "intact", 1, other),
    ):  # fmt: skip
        made_run(folder / name, system, seed=seed)
        made_queries(folder / name, found)
    compared(tmp_path, *sorted(folder.iterdir()))
    row = paired(tmp_path)[3]
    assert row["score"] == "rank1_r2"
    # Half of what the second seed has otherwise than the first.
    expected = 50 * (other[:, 1].mean() - one[:, 1].mean())
    assert float(row["difference"]) == pytest.approx(expected)
    assert int(row["wins"]) == np.sum(other[:, 1] & ~one[:, 1])


def test_what_is_not_judged_is_said(folder, tmp_path):
    for name, system, changes in (
        ("a", "baseline", {}), ("b", "intact", {"manifest_sha256": "f" * 64}), ("c", "rain", {}),
        ("d", "cadnet", {"protocol": "paper"}),
    ):  # fmt: skip
        made_run(folder / name, system, **changes)
        made_queries(folder / name, hits())
    (folder / "c" / "queries.csv").unlink()
    _, page = compared(tmp_path, *sorted(folder.iterdir()))
    line = next(line for line in page.splitlines() if "Not judged" in line)
    assert "no queries.csv (xreid evaluate --out writes one): all pairs with rain;" in line
    others = "intact beside baseline / cadnet beside baseline / cadnet beside intact"
    assert f"another manifest or protocol: {others}." in line
    assert paired(tmp_path) == [] and "better" not in page


def test_folds_are_not_joined_and_not_paired(folder, tmp_path):
    """Even if somebody gives them one manifest; and a run without a fold is of fold 0."""
    for seed, fold in enumerate((0, 1, 2, 0)):
        name = f"{seed}-{fold}"
        made_run(folder / name, seed=seed, options={"split": "dev", "fold": fold})
        made_queries(folder / name, hits(seed=seed))
    found = json.loads((folder / "3-0" / "metrics.json").read_text())
    del found["fold"], found["options"]["fold"]
    (folder / "3-0" / "metrics.json").write_text(json.dumps(found))
    rows, page = compared(tmp_path, *sorted(folder.iterdir()))
    assert [(row["seeds"], row["fold"]) for row in rows] == [("0 3", "0"), ("1", "1"), ("2", "2")]
    assert paired(tmp_path) == [] and "another manifest or protocol" in page
    assert "people (--split): dev (" in page and "dev, fold 1 (" in page


def test_other_training_images_are_no_reason_not_to_judge(folder, tmp_path):
    """As of weights scored by xreid evaluate; those to be found are the same."""
    for name, sha, train, gallery in (
        ("a", "a", 1, 1), ("b", "b", 2, 1), ("c", "c", 1, 2),
    ):  # fmt: skip
        made_run(folder / name, f"system-{name}", manifest_sha256=sha * 64)
        made_queries(folder / name, hits())
        rows = [{"role": "train", "path": train}, {"role": "gallery", "path": gallery}]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "manifest.jsonl").write_text(text)
    _, page = compared(tmp_path, *sorted(folder.iterdir()))
    judged = {(row["row"], row["beside"]) for row in paired(tmp_path)}
    assert judged == {("system-b", "system-a")}
    assert "protocol: system-c beside system-a / system-c beside system-b." in page


def test_pairs_share_the_rates_of_their_means(folder, tmp_path):
    for name, system, rates in (
        ("a", "baseline", (2, 3, 4)), ("b", "intact", (1, 2, 8)), ("c", "rain", (1,)),
    ):  # fmt: skip
        made_run(folder / name, system, options={"train_rates": rates})
        made_queries(folder / name, hits(seed=len(system)))
    _, page = compared(tmp_path, *sorted(folder.iterdir()))
    found = {row["score"]: row["difference"] for row in paired(tmp_path)}
    assert found["mean_lr"] == found["rank1_r2"] and len(paired(tmp_path)) == 7
    assert "no low rate in common: rain beside baseline / rain beside intact." in page


@on_torch
def test_parameters_and_operations_of_an_embedding():
    model = small.intact(backbone="resnet_tiny")
    parameters, flops = embedding_cost(model)
    # Recovered, then recognized; discriminator, association and classifier are for training.
    classifier = model.reid.get_layer("classifier")
    assert parameters == (
        model.generator.count_params() + model.reid.count_params() - classifier.count_params()
    )
    assert flops == (
        forward_flops(model.generator) + forward_flops(model.reid)
        - 2 * classifier.kernel.shape[0] * classifier.kernel.shape[1]
    )  # fmt: skip


@on_torch
def test_one_network_costs_the_same_in_every_system():
    """With a classifier inside the network, as the baseline has it, or behind it."""
    baseline = embedding_cost(xr.Baseline(5, "tiny"))
    assert baseline == embedding_cost(xr.RAIN(9, "tiny")) != embedding_cost(xr.CADNet(5, "tiny"))


@on_torch
def test_weights_scored_again_cost_what_their_run_says(tmp_path, monkeypatch):
    """Neither classifier nor verifier, which only training needs; and a query is timed."""
    from test_adaptation import made_data

    from keras_xreid.app import evaluate

    model, scores = small.adaptive(backbone="resnet_tiny"), tmp_path / "scores"
    scores.mkdir()
    options, data = evaluate.Options("x.weights.h5", rates=(1, 2)), made_data()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.weights.h5").write_bytes(b"")
    for record in data.query + data.gallery:
        Image.new("RGB", (32, 64)).save(record.path)
    evaluate.score(options, model, [data], {}, scores, 0.0)
    (row,), _ = compared(tmp_path, scores)
    parameters = model.network.count_params()
    assert int(row["parameters"]) == parameters == embedding_cost(model)[0]
    judges = model.classifier.count_params() + model.verifier.count_params()
    assert parameters + judges == model.count_params()
    assert float(row["query_ms"]) > 0 and float(row["flops"]) > 0


def test_what_cannot_be_counted_is_left_open(folder, tmp_path, capsys):
    made_run(folder / "a")
    rows, _ = compared(tmp_path, folder / "a")
    assert rows[0]["flops"] == "" and rows[0]["parameters"] == "1500000"
    assert "no weights" in capsys.readouterr().out


# --- recipes that are run first ---


def test_recipes_are_run_for_each_seed_with_the_shared_options(tmp_path, monkeypatch):
    asked = []

    def run(recipe, folder, *arguments):
        asked.append((recipe, folder.name, *arguments))
        made_run(folder, recipe, seed=int(arguments[arguments.index("--seed") + 1]))

    monkeypatch.setattr(jobs, "run", run)
    options = compare.Options(
        run=("baseline.py --train-on hr+lr", "intact"), seeds=(0, 1), out=str(tmp_path)
    )
    compare.main(options, shared=["--epochs", "5"])
    shared = ("--epochs", "5", "--seed")
    name = "baseline-train-on-hr-lr-seed"
    assert asked == [
        ("baseline", f"{name}0", *shared, "0", "--train-on", "hr+lr"),
        ("baseline", f"{name}1", *shared, "1", "--train-on", "hr+lr"),
        ("intact", "intact-seed0", *shared, "0"),
        ("intact", "intact-seed1", *shared, "1"),
    ]
    rows = list(csv.DictReader((tmp_path / "compare.csv").open(newline="")))
    assert [row["seeds"] for row in rows] == ["0 1", "0 1"]


@pytest.mark.slow
@on_torch
def test_from_the_command_line(tmp_path, capsys):
    """A real run of two steps beside a folder; the second time nothing is run."""
    rng = np.random.default_rng(0)
    lines = ["path,person,camera,split"]
    for person in range(4):
        for camera in (1, 2):
            name = f"{person}_{camera}.png"
            Image.fromarray(rng.integers(0, 255, (128, 64, 3), "uint8")).save(tmp_path / name)
            split = "train" if person < 2 else ("query" if camera == 1 else "gallery")
            lines.append(f"{name},{person + 1},{camera},{split}")
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
    made_run(tmp_path / "before", "intact")
    before, out = str(tmp_path / "before"), str(tmp_path / "out")
    shared = [
        "--data", "csv", "--data-dir", str(tmp_path), "--steps", "2", "--batch-size", "4",
        "--rates", "1", "4", "--train-rates", "4",
    ]  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "keras_xreid",
        "compare",
        before,
        "--run",
        "baseline",
        "--out",
        out,
        "--",
    ]
    done = subprocess.run([*command, *shared], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    assert "== baseline-seed0" in done.stdout
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "data set: synthetic (intact); csv (baseline)" in page
    assert "| baseline | train-rates 4, batch-size 4, steps 2 |" in page
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open(newline="")))
    assert float(rows[1]["images"]) == 4 and int(rows[1]["flops"]) > 1e6
    compare.main(compare.Options(folders=(before,), run=("baseline",), out=out), shared)
    assert "== " not in capsys.readouterr().out
    assert (tmp_path / "out" / "compare.md").read_text() == page


# --- bad input ---


def refused(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        app.command(compare.main, compare.Options, compare.__doc__)
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("compare.py: "), lines
    return lines[0]


def test_bad_folders(folder, tmp_path, monkeypatch, capsys):
    def line(*folders):
        return refused(monkeypatch, capsys, *folders, "--out", tmp_path / "out")

    made_run(folder / "a")
    made_run(folder / "unfinished")
    (folder / "unfinished" / "report.md").unlink()
    (folder / "empty").mkdir()
    assert "nothing to compare" in line()
    assert "no metrics.json" in line(folder / "a", folder / "empty")
    assert "no metrics.json" in line(folder / "nowhere")
    assert "not finished" in line(folder / "a", folder / "unfinished")
    assert "same system, variant and seed" in line(folder / "a", folder / "a")
    made_run(folder / "b", "intact")
    for name in "ab":
        (folder / name / "queries.csv").write_text("nothing")
    assert "holds no plain scores" in line(folder / "a", folder / "b")
    (folder / "a" / "metrics.json").write_text("{")
    assert "cannot be read" in line(folder / "a")
    assert not (tmp_path / "out").exists()


def test_bad_recipes(tmp_path, monkeypatch, capsys):
    for recipe in ("nothing", "evaluate", "common", "../intact", ""):
        line = refused(monkeypatch, capsys, "--run", recipe, "--out", tmp_path / "out")
        assert "baseline" in line and "intact" in line
    options = compare.Options(folders=("x",))
    with pytest.raises(xr.InputError, match="give --run"):
        compare.main(options, shared=["--epochs", "3"])
    monkeypatch.setattr(jobs, "run", None)  # nothing is trained before all is read
    for run, *shared in (
        ("baseline", "--seed", "3"), ("baseline", "--seed=3"), ("baseline", "--out=x"),
        ("rain --seed 5",), ("rain --out x",),
    ):  # fmt: skip
        options = compare.Options(run=("baseline", run), out=str(tmp_path / "out"))
        with pytest.raises(xr.InputError, match="give --seeds and --out of compare"):
            compare.main(options, shared)
    options.run = ("baseline", "rain --data-dir 'my people")
    with pytest.raises(xr.InputError, match="people: No closing quotation"):
        compare.main(options)


def test_paths_in_a_run_are_as_the_system_writes_them(monkeypatch):
    words = ["rain", "--data-dir", r"C:\my people", "--limit", "5"]
    assert compare.words_of(r"rain --data-dir 'C:\my people' --limit 5") == words
    assert compare.words_of(r"rain --data-dir my\ people")[2] == "my people"
    monkeypatch.setattr(compare, "os", SimpleNamespace(name="nt"))
    assert compare.words_of(r'rain --data-dir "C:\my people" --limit 5') == words
    assert compare.words_of(r"rain --data-dir D:\people")[2] == r"D:\people"

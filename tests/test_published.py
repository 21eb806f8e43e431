"""Publishing a run, and what is published: the scores come again, and the README says the same."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import small

import keras_xreid as xr
from keras_xreid import hub
from keras_xreid.data.synthetic.people import draw_person

missing = [m for m in ("tyro", "matplotlib", "skimage") if importlib.util.find_spec(m) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
if not missing:
    from made_runs import made_run

    from keras_xreid.app import evaluate, publish, recipes, settings, tables

ROOT = Path(__file__).parents[1]
EMBEDDED = "baseline_hrlr_tiny_synthetic"


# --- publishing --------------------------------------------------------------------------------


@pytest.fixture(autouse=True, scope="module")
def few_images():
    """The speed on a card is measured on few images here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish.embedding_speed, "__defaults__", (4, 1))
        yield


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Six drawn people, one image in each of two cameras, as a list of one's own."""
    folder = tmp_path_factory.mktemp("people")
    lines = ["path,person,camera,split"]
    for person in range(1, 7):
        for camera, roles in ((1, ("train", "query")), (2, ("train", "gallery"))):
            draw_person(person, camera, 0).save(folder / f"{person}_{camera}.png")
            lines += [f"{person}_{camera}.png,{person},{camera},{role}" for role in roles]
    (folder / "people.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def finished(people, tmp_path_factory):
    """A finished run on them, scored as it is."""
    out = tmp_path_factory.mktemp("runs") / "run"
    model = small.fill(xr.Baseline(small.PEOPLE, backbone="osnet_x0_25", image_size=small.SIZE))
    data = xr.datasets.load("csv", people)
    scores = xr.evaluate(model, data, (1, 2, 3, 4, 8), verbose=False).scores
    made_run(
        out, options={"data": "csv", "data_dir": str(people), "epochs": 3},
        data={"train": {"people": 6, "images": 12}}, images_seen={"reid": 36}, split_id=0, **scores,
    )  # fmt: skip
    xr.save(model, out / "model.weights.h5")
    (out / "report.md").write_text("finished")
    return out


@pytest.fixture
def run(finished, tmp_path):
    """The run, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    yield from published_in(tmp_path / "zoo", monkeypatch)


@pytest.fixture(scope="module")
def whole_zoo(finished, tmp_path_factory):
    """The run, published once."""
    folder = tmp_path_factory.mktemp("whole") / "zoo"
    with pytest.MonkeyPatch.context() as patch:
        for zoo in published_in(folder, patch):
            publish_run(finished, zoo)
    return folder


@pytest.fixture
def begun_zoo(whole_zoo, tmp_path, monkeypatch):
    """A folder where the run is published already, as small."""
    shutil.copytree(whole_zoo, tmp_path / "zoo")
    yield from published_in(tmp_path / "zoo", monkeypatch)


def published_in(folder, monkeypatch):
    monkeypatch.setattr(hub, "PUBLISHED", (folder,))
    xr.published.cache_clear()
    yield folder
    xr.published.cache_clear()


def publish_run(run, zoo, name="small"):
    publish.main(publish.Options(str(run), name, str(zoo)))


def test_a_run_is_published(run, zoo, people, capsys):
    publish_run(run, zoo)
    assert "differs from the run's by 0.0 queries" in capsys.readouterr().out
    entry = json.loads((zoo / "index.json").read_text())["small"]
    assert entry["system"] == "baseline" and entry["queries"] == 6
    assert entry["command"].endswith("recipes/baseline.py --data csv --epochs 3 --data-dir DIR")
    assert entry["embedded_per_second"] > 0 and entry["licence"].startswith("Apache-2.0 for the")
    card, page = (zoo / "small.md").read_text(), (zoo / "README.md").read_text()
    assert entry["sha256"] in card and "--weights small --data csv --data-dir DIR" in card
    for text in ((zoo / "index.json").read_text(), card, page):
        assert str(people) not in text and "people.csv" not in text  # where the images lay
    assert f"{entry['per_rate']['4']['rank1']:.1f}" in page and "[small](small.md)" in page
    assert xr.load("small").embed(small.couples()["hr"]).shape[1] == 512
    with pytest.raises(xr.InputError, match="small is published already"):
        publish_run(run, zoo)


@pytest.mark.slow
def test_the_card_of_a_fold_says_how_to_score_it(begun_zoo):
    entry = {**xr.published()["small"], "split": "dev"}
    assert entry["fold"] is None and "--fold" not in publish.card("small", entry)
    assert "--split dev --fold 2 " in publish.card("small", {**entry, "fold": 2})
    del entry["fold"]  # published before there were folds
    assert "--split dev --rates" in publish.card("small", entry)


@pytest.mark.slow
def test_a_run_from_before_minp_is_published(run, zoo):
    metrics = json.loads((run / "metrics.json").read_text())
    for scores in (metrics["mean_lr"], *metrics["per_rate"].values()):
        del scores["mINP"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    publish_run(run, zoo)  # which scores it anew
    assert xr.published()["small"]["mean_lr"]["mINP"] > 0
    assert "mINP" in (zoo / "small.md").read_text()
    old = {**xr.published()["small"], "mean_lr": metrics["mean_lr"]}
    mean = next(x for x in publish.card("small", old).splitlines() if x.startswith("| mean LR"))
    assert mean.endswith(f"| {metrics['mean_lr']['mAP']:.1f} | - |")


@pytest.mark.slow
def test_what_is_too_large_goes_elsewhere(run, zoo, tmp_path, monkeypatch, capsys):
    assert "refused" in publish.__doc__ and "without a file" not in publish.__doc__
    monkeypatch.setattr(publish, "FILE_BYTES", 1000)
    with pytest.raises(xr.InputError, match=r"too much for .*: give --to"):
        publish_run(run, zoo)
    assert not list(zoo.glob("small*"))
    elsewhere = tmp_path / "elsewhere"
    publish.main(publish.Options(str(run), "small", str(zoo), to=str(elsewhere)))
    assert {path.name for path in elsewhere.iterdir()} == {hub.WEIGHTS, hub.ENTRY, hub.CARD}
    assert not list(zoo.glob("small*"))
    entry = json.loads((elsewhere / hub.ENTRY).read_text())
    assert entry["sha256"] == hub.sha256_of(elsewhere / hub.WEIGHTS)
    assert xr.load(elsewhere).people == xr.load(run).people
    card = (elsewhere / hub.CARD).read_text()
    assert f"| file | {hub.WEIGHTS}, " in card and "xreid evaluate --weights FOLDER --data" in card
    assert "--weights hf://me/mine --data" in publish.card("small", entry, "hf://me/mine")


def test_speeds_are_measured_again(begun_zoo):
    """Card, page and index say them; nothing else changes, and the weights load as before."""
    before = json.loads((begun_zoo / "index.json").read_text())["small"]
    publish.write_speeds(begun_zoo, {"small": 1234.0})
    after = json.loads((begun_zoo / "index.json").read_text())["small"]
    assert after == {**before, "embedded_per_second": 1234.0}
    assert "| embeds | 1234 images/s on " in (begun_zoo / "small.md").read_text()
    assert "| 1234 |" in (begun_zoo / "README.md").read_text()
    assert xr.load("small") is not None


@pytest.mark.slow
def test_a_bfloat16_run_is_published_as_float32(run, zoo, capsys):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["options"]["precision"] = "mixed_bfloat16"
    (run / "metrics.json").write_text(json.dumps(metrics))
    half = xr.load(run, precision="mixed_bfloat16")
    xr.save(half, run / "model.weights.h5")
    assert xr.load(run).network.compute_dtype == "bfloat16"
    publish_run(run, zoo)
    assert "differs from the run's by 0.0 queries" in capsys.readouterr().out
    assert xr.load("small").network.compute_dtype == "float32"
    entry = json.loads((zoo / "index.json").read_text())["small"]
    assert "--precision mixed_bfloat16" in entry["command"]


@pytest.mark.slow
@pytest.mark.parametrize(("system", "option"), [("intact", "reid"), ("rain", "weights")])
def test_a_run_may_begin_from_published_weights(run, begun_zoo, system, option):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["system"], metrics["options"][option] = system, "small"
    (run / "metrics.json").write_text(json.dumps(metrics))
    publish_run(run, begun_zoo, "second")
    entry = json.loads((begun_zoo / "index.json").read_text())["second"]
    assert f"--{option} small" in entry["command"]
    assert "| began from | small;" in (begun_zoo / "second.md").read_text()


@pytest.mark.slow
def test_a_run_that_began_from_a_folder_is_known_by_its_weights(run, begun_zoo):
    """A path says nothing elsewhere, and the SHA-256 of the weights does."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["options"].update(
        weights="/somewhere/run", began_from_sha256=xr.published()["small"]["run_sha256"],
        command="KERAS_BACKEND=torch python recipes/rain.py --data csv --weights RUN --epochs 1",
    )  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(metrics))
    publish_run(run, begun_zoo, "second")
    entry = json.loads((begun_zoo / "index.json").read_text())["second"]
    assert entry["began_from"] == "small"
    assert entry["command"].endswith("recipes/rain.py --data csv --weights small --epochs 1")


@pytest.mark.slow
def test_a_range_of_rates_is_published_by_those_of_its_mean(run, zoo):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["options"]["train_rates"] = ["1..4"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    publish_run(run, zoo)
    assert xr.published()["small"]["train_rates"] == [2, 3, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"short_run": True}, "is a short run"),
        ({"protocol": "paper"}, "was scored by paper"),
        ({"options": {"test_cameras": ["1", "2"]}}, "on cameras 1, 2: cards are of all"),
        ({"options": {"reid": "other"}}, "began from other, so that no command makes it"),
        ({"options": {"weights": "other"}}, "began from other, so that no command makes it"),
        ({"per_rate": {"4": {"rank1": -50.0}}}, "queries differently"),
    ],
)
def test_what_is_not_published(run, zoo, change, words):
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, **change}))
    with pytest.raises(xr.InputError, match=words):
        publish_run(run, zoo)
    assert not zoo.exists() or not list(zoo.iterdir())


def test_weights_of_everyone_have_the_scores_of_the_same_run_without_it(run, begun_zoo, people):
    def tell(**options):
        told = {**metrics["options"], **options}
        scores = {rate: {**s, "rank1": 100.0} for rate, s in metrics["per_rate"].items()}
        (run / "metrics.json").write_text(
            json.dumps({**metrics, "options": told, "per_rate": scores})
        )

    def attempt(like):
        publish.main(publish.Options(str(run), "all", str(begun_zoo), like=like))

    metrics = json.loads((run / "metrics.json").read_text())
    for options, like, words in (
        ({"everyone": True}, None, "its scores mean nothing: give --like"),
        ({"everyone": True}, "other", "not other"),
        ({"everyone": True, "epochs": 4}, "small", "was made by another command"),
        ({}, "small", "has scores of its own, leave it out"),
    ):
        tell(**options)
        with pytest.raises(xr.InputError, match=words):
            attempt(like)
    tell(everyone=True)
    attempt("small")
    published = xr.published()
    assert published["all"]["per_rate"] == published["small"]["per_rate"]
    card = (begun_zoo / "all.md").read_text()
    assert "scores are those of `small`" in card and "evaluate --weights small " in card
    assert "scores of small" in (begun_zoo / "README.md").read_text()
    told = evaluate.Options("all", data="csv", data_dir=str(people))
    with pytest.raises(xr.InputError, match="all was trained on everyone of csv"):
        evaluate.main(told)


def test_commands_are_spelled_as_they_are_read():
    """What a published command says is what the run was told."""
    for recipe, told in (
        ("baseline", {"compiled": True, "train_on": "hr+lr"}),
        ("intact", {"bridge": False, "rates": (1, 4), "seed": 3}),
    ):
        own = recipes.options(recipe)
        asked = dataclasses.replace(settings.defaults(own), **told)
        options = settings.plain(asked)
        command = publish.command_of({"system": recipe, "backend": "torch", "options": options})
        words = command.split(f"recipes/{recipe}.py ")[1].split()
        assert settings.parsed(own, words) == asked


def test_names_and_unfinished_runs(run, zoo):
    with pytest.raises(xr.InputError, match="letters, digits and underscores"):
        publish_run(run, zoo, "../small")
    with pytest.raises(xr.InputError, match="letters, digits and underscores"):
        publish_run(run, zoo, "README")  # the table of all weights
    with pytest.raises(xr.InputError, match="--best with --to"):
        publish.main(publish.Options(str(run), "small", str(zoo), to=str(zoo / "x"), best=True))
    assert not zoo.exists()
    (run / "report.md").unlink()
    with pytest.raises(xr.InputError, match="holds no finished run"):
        publish_run(run, zoo)


# --- what is published -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_scores_what_is_published(tmp_path, monkeypatch, capsys):
    """The second time nothing is scored. `test_probes.py` has embeddings of every file, and
    `test_docs.py` scores INTACT's, behind its generator."""
    published = {
        n: e for n, e in xr.published().items() if n == EMBEDDED or e["dataset"] != "synthetic"
    }
    monkeypatch.setattr(xr, "published", lambda: published)
    asked = tables.Options(("published",), out=str(tmp_path / "out"))
    tables.main(asked)
    told = capsys.readouterr().out
    assert f"== {EMBEDDED}" in told and "(market1501)" in told
    page = (tmp_path / "out" / "published.md").read_text()
    score = published[EMBEDDED]["per_rate"]["4"]["rank1"]
    assert f"| {EMBEDDED} |" in page and f" {score:.1f} |" in page
    tables.main(asked)
    assert "== " not in capsys.readouterr().out
    assert (tmp_path / "out" / "published.md").read_text() == page


def test_a_score_that_is_not_the_cards_ends_the_command(tmp_path, monkeypatch, capsys):
    entry = xr.published()[EMBEDDED]
    manifest = entry["scored_manifest_sha256"]

    def written(options):
        assert set(map(str, options.rates)) == set(entry["per_rate"])
        scores = json.loads(json.dumps(entry["per_rate"]))
        scores["4"]["rank1"] -= 100 * 2 / entry["queries"]
        metrics = {**entry, "per_rate": scores, "manifest_sha256": manifest}
        Path(options.out).mkdir(parents=True)
        (Path(options.out) / "metrics.json").write_text(json.dumps(metrics))

    monkeypatch.setattr(xr, "published", lambda: {EMBEDDED: entry})
    monkeypatch.setattr(evaluate, "main", written)
    with pytest.raises(SystemExit) as left:
        tables.main(tables.Options(("published",), out=str(tmp_path)))
    assert left.value.code == 1
    said = capsys.readouterr()
    assert f"not as on the card: {EMBEDDED}" in said.err and " 2.0\n" in said.out
    manifest = "0123"  # other images: no reason to think the weights wrong
    tables.main(tables.Options(("published",), out=str(tmp_path / "others")))
    said = capsys.readouterr().out
    assert f"Cards of other images, so they are not compared: {EMBEDDED}." in said
    assert " 2.0\n" not in said
    for names, more in ((("published", "rain-3"), {}), (("published",), {"plan": True})):
        with pytest.raises(xr.InputError, match=r"published with (rain-3|--plan): it goes"):
            tables.main(tables.Options(names, out=str(tmp_path), **more))
    with pytest.raises(xr.InputError, match="no weights of cuhk03 are published"):
        tables.main(tables.Options(("published",), data="cuhk03", out=str(tmp_path)))


def test_a_scoring_of_few_people_or_cut_short_is_not_taken_for_whole(tmp_path, monkeypatch):
    entry, asked = xr.published()[EMBEDDED], []

    def score(options):
        out = Path(options.out)
        asked.append(options.limit)
        assert not out.exists()
        out.mkdir(parents=True)
        (out / "manifest.jsonl").write_text("{}")
        if len(asked) == 2:
            raise KeyboardInterrupt
        (out / "metrics.json").write_text(json.dumps({**entry, "manifest_sha256": "0123"}))

    def table(**more):
        tables.main(tables.Options(("published",), out=str(tmp_path), **more))

    monkeypatch.setattr(xr, "published", lambda: {EMBEDDED: entry})
    monkeypatch.setattr(evaluate, "main", score)
    table(limit=5)
    with pytest.raises(KeyboardInterrupt):
        table()
    table()
    table(limit=5)
    assert asked == [5, None, None]
    scores = tmp_path / f"{EMBEDDED}-{entry['sha256'][:8]}" / "metrics.json"
    elsewhere = {**entry, "manifest_sha256": "0123", "data_dir": str(tmp_path)}
    scores.write_text(json.dumps(elsewhere))
    with pytest.raises(xr.InputError, match=f"holds scores of {tmp_path}, not of None: give ano"):
        table()
    table(data_dir=str(tmp_path / "." / ""))
    scores.write_text("{")
    with pytest.raises(xr.InputError, match="not valid JSON"):
        table()


def test_the_page_shows_the_table():
    page = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")
    assert page == publish.zoo(xr.published()) + "\n"


# --- runs of the older format --------------------------------------------------------------------

OLD = Path(__file__).parent / "recorded" / "old_run"  # of a recipe that is two now


def test_an_older_run_is_read_as_what_it_is_now(tmp_path):
    from keras_xreid.app import compare
    from keras_xreid.report.runs import read_metrics

    assert "command" not in json.loads((OLD / "options.json").read_text())
    metrics = read_metrics(OLD / "metrics.json")
    assert metrics["system"] == "one_per_rate"
    command = publish.command_of(metrics)
    assert command.startswith("KERAS_BACKEND=torch python recipes/one_per_rate.py --data csv ")
    words = command.split("one_per_rate.py ")[1].split()
    told = settings.parsed(recipes.options("one_per_rate"), words)
    assert (told.backbone, told.epochs, told.train_rates) == ("osnet_x0_25", 1, (2, 4))
    compare.main(compare.Options(folders=(str(OLD),), out=str(tmp_path)))
    assert "one_per_rate" in (tmp_path / "compare.md").read_text()


def test_an_older_row_is_found_by_a_table(tmp_path, capsys):
    from keras_xreid.app import tables

    shutil.copytree(OLD, tmp_path / "row-adaptive-one-per-rate")
    tables.main(tables.Options(("adaptive-3",), from_=str(tmp_path), data="csv", preset="tiny"))
    printed = capsys.readouterr().out
    assert "100.0" in next(line for line in printed.splitlines() if line.startswith("Baseline"))

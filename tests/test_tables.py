"""The queue of recipes/ablations.py, without training: what it would run, and what it prints."""

import dataclasses
import importlib
import json
import subprocess
import sys

import pytest

import keras_xreid as xr
from keras_xreid.evaluation import papers

for needed in ("tyro", "matplotlib"):
    pytest.importorskip(needed, reason='recipes need pip install "keras-xreid[recipes]"')

import ablations  # noqa: E402
import tyro  # noqa: E402
from made_runs import made_run  # noqa: E402


def rates_3_and_6(rank1):
    """Scores of Table V's rates: rank-1 falls by 10."""
    ranks = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
    return {r: dict.fromkeys(ranks, rank1 - d) for r, d in (("3", 0.0), ("6", 10.0))}


@pytest.fixture
def queue(monkeypatch):
    """Runs of a queue as (recipe, folder's name, arguments); each has the rank-1 it is given."""
    asked, rank1 = [], {}

    def run(recipe, folder, *arguments):
        name = folder.name.rsplit("-seed", 1)[0]
        asked.append((recipe, folder.name, arguments))
        if folder.exists():
            return json.loads((folder / "metrics.json").read_text())
        quality = {r: {"psnr": 25.0, "ssim": 0.75, "lpips": None} for r in ("2", "3", "4")}
        more = {"per_rate": rates_3_and_6(rank1.get(name, 60.0))} if "rates-3-6" in name else {}
        return made_run(folder, recipe, rank1.get(name, 80.0), image_quality=quality, **more)

    def call(recipe, folder, *arguments):
        asked.append((recipe, folder.name, arguments))
        made_run(folder, rank1=50.0, per_rate=rates_3_and_6(rank1.get("told", 30.0)))

    monkeypatch.setattr(ablations, "run", run)
    monkeypatch.setattr(ablations, "call", call)
    run.asked, run.rank1 = asked, rank1
    return run


def options(tmp_path, table, **more):
    return ablations.AblationOptions(table=table, out=str(tmp_path / "rows"), **more)


def test_tables_have_the_papers_rows():
    for table, rows in ablations.TABLES.items():
        system, number = table.split("-")
        printed = [row.model for row in papers.rows(ablations.PAPERS[system], int(number))]
        assert set(rows) <= set(printed), table
    assert set(ablations.NOTES) <= set(ablations.TABLES)
    assert list(ablations.TABLES["rain-3"]) == [row.model for row in papers.rows("RAIN", 3)]
    assert list(ablations.TABLES["cadnet-3"]) == [row.model for row in papers.rows("CAD-Net", 3)]


def commands():
    rows = [command for table in ablations.TABLES.values() for command in table.values()]
    rows += [f"{command} --labeled-fraction 0.2" for command in ablations.LABELED.values()]
    rows += [command for command, _, _ in ablations.NEAREST.values()]
    return sorted(set(rows))


@pytest.mark.parametrize("command", commands())
def test_every_row_is_an_option_of_its_recipe(command):
    recipe, *settings = command.split()
    kind = ablations.recipe_options(recipe)
    asked, default = (dataclasses.asdict(o) for o in (tyro.cli(kind, args=settings), kind()))
    changed = {name for name in asked if asked[name] != default[name]}
    told = {word[2:].removeprefix("no-") for word in settings if word.startswith("--")}
    # "--train-on hr" is the default, and says so.
    told = {name.replace("-", "_") for name in told} - changed
    assert told <= {"train_on"} and bool(changed | told) == bool(settings)
    importlib.import_module(recipe).check(tyro.cli(kind, args=settings))


def test_rain_table_1(tmp_path, queue):
    queue.rank1.update({
        "baseline-train-on-hr": 60.0, "rain-without-adv": 70.0, "rain-levels-5": 90.0, "rain": 89.5,
    })  # fmt: skip
    ablations.main(options(tmp_path, "rain-1", data="csv", data_dir="here", seeds=(0, 1)))
    names = [name for _, name, _ in queue.asked]
    assert names == [
        f"{row}-seed{seed}"
        for row in ("baseline-train-on-hr", "rain-without-adv", "rain-levels-5", "rain")
        for seed in (0, 1)
    ]
    recipe, _, arguments = queue.asked[5]
    epochs = str(ablations.EPOCHS["rain"])
    assert (recipe, " ".join(arguments)) == (
        "rain",
        "--data csv --split test --preset tiny --seed 1 --precision float32 --data-dir here "
        f"--epochs {epochs} --levels 5",
    )
    page = (tmp_path / "rows" / "rain-1.md").read_text()
    assert "| Baseline (train on HR) | 40.0 ± 0.0 | 44.0 | 45.0 | 32.0 |" in page
    assert page.count("| 77.6 |") == 1 and "MLR-CUHK03" in page
    # Two equal seeds deviate by nothing, so no difference is too small.
    assert "Ours (multi-level) < Ours (single-level); the paper: Baseline (train on HR) <" in page
    assert "without its adversarial loss" in page


def test_order_within_an_error(tmp_path, queue):
    queue.rank1.update({"cadnet-features-f": 60.0, "cadnet-features-g": 61.0, "cadnet": 70.0})
    ablations.main(options(tmp_path, "cadnet-1"))
    page = (tmp_path / "rows" / "cadnet-1.md").read_text()
    # Mean LR 40 and 41 of 400 queries: one standard error is sqrt(41 * 59 / 400) = 2.46.
    text = (
        "Ours (f only) ≈ Ours (g only) < Ours; the paper's order, but for what is not told apart."
    )
    assert text in page
    assert "| Ours (g only) | 41.0 ± 2.5 |" in page and "| 79.7 |" in page


def test_cadnet_table_3_has_image_quality(tmp_path, queue):
    ablations.main(options(tmp_path, "cadnet-3", epochs=2))
    page = (tmp_path / "rows" / "cadnet-3.md").read_text()
    assert "| paper's rank-1 | paper's PSNR | paper's SSIM |" in page
    row = "| Ours w/o Lrec | 60.0 ± 2.4 | 64.0 | 65.0 | 52.0 | 25.0 | 0.750 | 1.5 | 66.7 | 12.9 |"
    assert row in page
    assert all("--epochs 2 " in " ".join([*arguments, ""]) for _, _, arguments in queue.asked)
    assert "merely enlarged" not in page


def test_intact_shares_its_first_stage(tmp_path, queue):
    ablations.main(options(tmp_path, "intact-3", reid_epochs=7))
    recipes = [recipe for recipe, _, _ in queue.asked]
    assert recipes == ["baseline", "intact"] * 3
    stage_1, stage_2 = (" ".join(queue.asked[i][2]) for i in (0, 1))
    assert {queue.asked[i][1] for i in (0, 2, 4)} == {"reid-seed0"} and "--epochs 7" in stage_1
    assert f"--epochs {ablations.EPOCHS['intact']} --supervision mse+id --reid " in stage_2
    assert stage_2.endswith("reid-seed0/model.weights.h5")


def test_several_tables(tmp_path, queue):
    ablations.main(options(tmp_path, "rain"))
    names = {name for _, name, _ in queue.asked}
    assert {"baseline-train-on-hr-seed0", "rain-seed0", "rain-without-rec-seed0"} < names
    assert not any(name.startswith(("cadnet", "intact")) for name in names)
    page = (tmp_path / "rows" / "rain.md").read_text()
    assert page.count("## RAIN Table") == 2
    ablations.main(options(tmp_path, "all"))
    page = (tmp_path / "rows" / "all.md").read_text()
    assert page.count("\n## ") + page.startswith("## ") == len(ablations.TABLES) + 1 == 12
    with pytest.raises(xr.InputError, match=r"unknown table 'rain-9'.*rain-figure-5"):
        ablations.main(options(tmp_path, "rain-9"))


def test_figure_5(tmp_path, queue):
    queue.rank1.update({"rain-labeled-fraction-0.2": 75.0, "rain": 85.0})
    ablations.main(options(tmp_path, "rain-figure-5"))
    assert len(queue.asked) == 9
    settings = [" ".join(arguments).split("--epochs")[1] for _, _, arguments in queue.asked]
    assert settings[0].endswith("--labeled-fraction 0.2")
    assert "labeled-fraction" not in settings[6]  # all labels: the same run as in the tables
    assert queue.asked[6][1] == "rain-seed0"
    page = (tmp_path / "rows" / "rain-figure-5.md").read_text()
    assert "| 20 % | 55.0 ± 2.5 | 60.0 ± 2.4 | 60.0 ± 2.4 | 66.3 |" in page
    assert "| 60 % | 60.0 ± 2.4 | 60.0 ± 2.4 | 60.0 ± 2.4 | - |" in page
    assert "| 100 % | 65.0 ± 2.4 | 60.0 ± 2.4 | 60.0 ± 2.4 | 78.9 |" in page
    assert (tmp_path / "rows" / "rain-figure-5.png").stat().st_size > 5000
    assert "(rain-figure-5.png)" in page
    assert "not Table 1's row of that name (rain --without adv)" in page


def test_a_baseline_sees_as_many_images(tmp_path, queue):
    ablations.main(options(tmp_path, "rain-1", epochs=3))
    epochs = [" ".join(arguments).split("--epochs ")[1][0] for _, _, arguments in queue.asked]
    assert epochs == ["6", "3", "3", "3"]


def test_adaptive_table_5(tmp_path, queue):
    unseen, seen = (ablations.name_of(c) for c in (ablations.UNSEEN, ablations.SEEN))
    queue.rank1.update({unseen: 70.0, seen: 80.0, "told": 40.0})
    ablations.main(options(tmp_path, "adaptive-5"))
    page = (tmp_path / "rows" / "adaptive-5.md").read_text()
    assert "| r = 3 as 2, progressive | 40.0 ± 2.4 | 40.0 | 40.0 | 40.0 | 83.4 |" in page
    assert "| r = 3 as 4, progressive | 70.0 ± 2.3 |" in page
    assert "| r = 6 as 4, progressive | 30.0 ± 2.3 |" in page
    assert "| r = 6 seen, progressive | 70.0 ± 2.3 |" in page
    assert "| r = 6 as 8, end-to-end | 50.0 ± 2.5 | 50.0 | 50.0 | 50.0 | 77.9 |" in page
    told = [arguments for recipe, _, arguments in queue.asked if recipe == "evaluate"]
    assert len(told) == 2 and told[0][-3:] == ("--score-as", "3=2", "6=4")
    ablations.main(options(tmp_path, "adaptive-5"))  # what is scored is not scored again
    assert len([recipe for recipe, _, _ in queue.asked if recipe == "evaluate"]) == 2


# --- the queue itself ---


@pytest.fixture
def processes(monkeypatch):
    """Recipes that would be started; each one leaves a finished run, or fails if it is told."""
    started = []

    def start(command, check):
        started.append(command)
        folder = ablations.Path(command[command.index("--out") + 1])
        if "9" in command:
            return subprocess.CompletedProcess(command, 1)
        if "--resume" in command:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        made_run(folder, options={"epochs": 3, "train_on": "hr+lr"})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(ablations.subprocess, "run", start)
    return started


ROW = ("--epochs", "3", "--train-on", "hr+lr")


def test_a_finished_row_is_not_run_again(tmp_path, processes):
    folder = tmp_path / "row"
    first = ablations.run("baseline", folder, *ROW)
    recipe = str(ablations.HERE / "baseline.py")
    assert processes == [[sys.executable, recipe, *ROW, "--out", str(folder)]]
    assert ablations.run("baseline", folder, *ROW) == first and len(processes) == 1


def test_an_interrupted_row_goes_on(tmp_path, processes):
    folder = tmp_path / "row"
    ablations.run("baseline", folder, *ROW)
    (folder / "report.md").unlink()
    ablations.run("baseline", folder, *ROW)
    assert "--resume" in processes[1]
    assert [word for word in processes[1] if word != "--resume"] == processes[0]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("--epochs", "4", *ROW[2:]), "epochs = 3, not 4"),
        (ROW[2:], "epochs = 3, not None"),
        ((*ROW, "--train-rates", "2", "4"), r"train_rates = \[2, 3, 4\], not \[2.*, 4.*\]"),
        ((*ROW, "--limit", "5"), "limit = None, not 5"),
    ],
)
def test_a_row_that_was_run_otherwise_is_refused(tmp_path, processes, row, words):
    ablations.run("baseline", tmp_path / "row", *ROW)
    with pytest.raises(xr.InputError, match=words):
        ablations.run("baseline", tmp_path / "row", *row)
    assert len(processes) == 1


def test_a_row_that_fails_is_named(tmp_path, processes):
    with pytest.raises(xr.InputError, match=r"row was not finished \(exit status 1\)"):
        ablations.run("baseline", tmp_path / "row", "--epochs", "9")


def test_a_wrong_option_is_found_before_anything_is_run(tmp_path, processes):
    with pytest.raises(SystemExit):
        ablations.run("baseline", tmp_path / "row", "--epoch", "3")
    assert processes == []

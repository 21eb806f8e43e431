"""The tables: their rows, the plan of their jobs, how these are run, and what is printed."""

import dataclasses
import hashlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_xreid as xr
from keras_xreid.report import papers

for needed in ("tyro", "matplotlib"):
    pytest.importorskip(needed, reason='recipes need pip install -e ".[recipes]"')

from made_runs import RATES, made_queries, made_run  # noqa: E402

from keras_xreid.app import (  # noqa: E402
    jobs,
    recipes,
    settings,
    table_figures,
    table_pages,
    table_rows,
    tables,
)
from keras_xreid.app.evaluate import Options as EvaluateOptions  # noqa: E402


def rates_3_and_6(rank1):
    """Scores of Table V's rates: rank-1 falls by 10."""
    ranks = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
    return {r: dict.fromkeys(ranks, rank1 - d) for r, d in (("3", 0.0), ("6", 10.0))}


@pytest.fixture
def queue(monkeypatch):
    """Runs of a queue as (recipe, folder's name, arguments); each has the rank-1 it is given."""
    asked, rank1 = [], {}

    def run(recipe, folder, *arguments):
        name = folder.name.removeprefix("row-").split("-seed")[0]
        asked.append((recipe, folder.name, arguments))
        if folder.exists():
            return
        quality = {r: {"psnr": 25.0, "ssim": 0.75, "lpips": None} for r in ("2", "3", "4")}
        more = {"per_rate": rates_3_and_6(rank1.get(name, 60.0))} if "seen" in name else {}
        made_run(folder, recipe, rank1.get(name, 80.0), image_quality=quality, **more)

    def call(recipe, folder, *arguments):
        asked.append((recipe, folder.name, arguments))
        made_run(folder, rank1=50.0, per_rate=rates_3_and_6(rank1.get("told", 30.0)))

    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.setattr(jobs, "call", call)
    run.asked, run.rank1 = asked, rank1
    return run


def options(tmp_path, *chosen, **more):
    return tables.Options(chosen, out=str(tmp_path / "rows"), **{"preset": "tiny", **more})


def planned(*chosen, **more):
    """The jobs of some tables, in the order of the plan."""
    asked = tables.Options(chosen, **{"plan": True, "data": "market1501", **more})
    found, _ = tables.jobs_of(tables.settle(asked), asked, "nowhere")
    return sorted(found.jobs.values(), key=lambda job: job.stage)


def plan_lines(capsys, folder, *chosen, **more):
    tables.main(options(folder, *chosen, plan=True, **more))
    return capsys.readouterr().out.splitlines()


def test_tables_have_the_papers_rows():
    for table, rows in table_rows.TABLES.items():
        system, number = table.split("-")
        printed = [row.model for row in papers.rows(papers.OF_SYSTEM[system], int(number))]
        assert set(rows) <= set(printed), table
    assert set(table_pages.NOTES) <= set(table_rows.TABLES)
    assert list(table_rows.TABLES["rain-3"]) == [row.model for row in papers.rows("RAIN", 3)]
    assert list(table_rows.TABLES["cadnet-3"]) == [row.model for row in papers.rows("CAD-Net", 3)]
    for label, (paper, number, model) in table_pages.PRINTED.items():
        assert label in table_rows.MAIN
        assert model in [row.model for row in papers.rows(paper, number)]


def commands():
    rows = [command for table in table_rows.TABLES.values() for command in table.values()]
    rows += [command for _, command in table_rows.MAIN.values()]
    rows += [f"{command} --labeled-fraction 0.2" for command in table_rows.LABELED.values()]
    rows += [command for command, _, _ in table_rows.NEAREST.values()]
    rows += [f"{command} --train-people 100" for command in table_rows.OF_PEOPLE.values()]
    return sorted(set(rows))


@pytest.mark.parametrize("command", commands())
def test_every_row_is_an_option_of_its_recipe(command):
    recipe, *words = command.split()
    kind = recipes.options(recipe)
    asked = dataclasses.asdict(settings.parsed(kind, words))
    default = dataclasses.asdict(settings.defaults(kind))
    changed = {name for name in asked if asked[name] != default[name]}
    told = {word[2:].removeprefix("no-") for word in words if word.startswith("--")}
    # "--train-on hr" is the default, and says so.
    told = {name.replace("-", "_") for name in told} - changed
    assert told <= {"train_on"} and bool(changed | told) == bool(words)


@pytest.mark.parametrize(
    "preset, weights",
    [("strong", None), ("tiny", None), ("paper", None), ("strong", "some/run")],
)
def test_every_command_is_accepted_by_its_recipe(preset, weights):
    found = planned("all", preset=preset, weights=weights, data_dir="here", lpips=True)
    for job in found:
        if job.recipe == "evaluate":
            settings.one_line(EvaluateOptions, args=list(job.words))
        else:
            asked = settings.parsed(recipes.options(job.recipe), job.words)
            assert (asked.preset, asked.data_dir) == (preset, "here")
    controls = [job.name for job in found if "control-hr" in job.needs]
    assert bool(controls) == (preset == "strong" and weights is None)


# --- the plan ---


def test_a_plan_is_a_queue(capsys, tmp_path):
    lines = plan_lines(capsys, tmp_path, "all", preset="strong")
    done, found, hours = set(), [], 0.0
    for line in lines:
        if line.startswith("#"):
            continue
        # As a queue reads it: the first field is the name, the last the command.
        name, needs, of_job, *_, command = line.split("\t")
        words = shlex.split(command)
        assert re.fullmatch(r"\w[\w.-]*", name) and words.count("{out}") == 1
        assert words[0] == "python" and (recipes.folder().parent / words[1]).is_file()
        before = set(re.findall(r"\{run:([\w.-]+)\}", command))
        assert before <= done and (",".join(sorted(before)) or "-") == needs
        done.add(name)
        found.append((name, command))
        hours += float(of_job)
    assert len(dict(found)) == len({command for _, command in found}) == len(found)
    total = re.fullmatch(rf"# {len(found)} jobs, (.+) core-hours", lines[-1])
    assert float(total[1]) == pytest.approx(hours, abs=0.4)  # of rounded ones
    names = [name for name, _ in found]
    assert names[:9] == [name for name, _ in table_rows.MAIN.values()]
    assert names.index("row-rain-without-tri") < names.index("control-hrlr-long")
    assert names[-8:] == [f"{name}-seed1" for name in names[1:9]]
    of_name = dict(found)
    assert "recipes/intact.py" in of_name["intact-match"]
    assert "--match 1 --reid {run:control-hr} --out {out}" in of_name["intact-match"]
    assert "--weights {run:control-hrlr} " in of_name["control-hrlr-long"]
    # The share of labels means nothing to weights that have seen all of them.
    assert "--weights" not in of_name["row-rain-share-20"]
    assert "row-rain-share-0" in of_name and "row-baseline-train-on-hr-share-0" not in of_name
    # 120,000 images and more, and 15,000 and more of the ablations.
    of_job = {job.name: job.images for job in planned("all", preset="strong")}
    assert {of_job[name] for name in names[:9]} == {16}
    rows = [j for j in planned("all") if j.name.startswith("row") and j.recipe != "evaluate"]
    assert {job.images for job in rows} == {2, 4, 8}


def test_core_hours():
    (job,) = (job for job in planned("main") if job.name == "cadnet")
    assert job.hours(7500) == pytest.approx(16 * 7500 / jobs.SPEEDS["cadnet"] / 3600 + 0.05)


def test_what_is_finished_or_begun_is_left_out_of_the_plan(capsys, tmp_path):
    rows = tmp_path / "rows"
    made_run(rows / "control-hr" / "run")
    (rows / "rain").mkdir()
    (rows / "rain" / "options.json").write_text("{}")
    lines = plan_lines(capsys, tmp_path, "main", preset="strong")
    assert "# finished: control-hr" in lines and "# begun: rain" in lines
    assert not [line for line in lines if line.startswith(("control-hr\t", "rain\t"))]


def test_options_are_passed_on():
    told = {"protocol": "paper", "split": "dev", "fold": 1, "backbone": "resnet50", "limit": 9}
    told |= {"precision": "mixed_bfloat16", "steps": 3, "split_id": (0, 2), "seeds": (1,)}
    found = {job.name: job for job in planned("rain-3", repeats=10, **told)}
    words = " ".join(found["row-rain-dev1-split2-seed1"].words)
    assert words == (
        "--preset strong --data market1501 --split dev --fold 1 --split-id 2 --seed 1 --precision "
        "mixed_bfloat16 --backbone resnet50 --limit 9 --steps 3 --epochs 1 --weights "
        "{run:control-hr-dev1-split2}"
    )
    # A protocol changes no training image: what is trained is scored by it.
    again = " ".join(found["row-rain-dev1-split2-seed1-paper-repeats10"].words)
    assert again == (
        "--weights {run:row-rain-dev1-split2-seed1} --data market1501 --split dev --fold 1 "
        "--split-id 2 --protocol paper --limit 9 --repeats 10"
    )


def test_what_each_rate_refuses_is_trained_by_its_protocol():
    found = {job.name: job for job in planned("adaptive-3", data="caviar", protocol="paper")}
    assert "--protocol paper" in " ".join(found["row-adaptive"].words)
    assert set(found) == {"control-hr", "row-adaptive", "row-adaptive-end-to-end"}
    # It is the data set's own, too.
    assert {job.name for job in planned("adaptive-3", data="caviar")} == set(found)
    assert not [job.name for job in planned("all", data="mlr") if "unseen" in job.name]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"preset": "large"}, "unknown preset 'large'"),
        ({"repeats": 3}, "--repeats is 3: give 1 or more, and a --protocol"),
        ({"splits": 2, "split_id": (1,)}, "no --split-id beside it"),
        ({"table": "adaptive-5", "protocol": "paper"}, "which paper fixes: give no --protocol"),
        ({"table": "adaptive-5", "data": "caviar"}, "which caviar fixes: give no --protocol, or o"),
    ],
)
def test_bad_options(more, words):
    with pytest.raises(xr.InputError, match=re.escape(words)):
        planned(more.pop("table", "rain-3"), **more)
    with pytest.raises(xr.InputError, match=r"unknown table 'rain-9'.*rain-figure-5"):
        planned("rain-9")


# --- finished runs of a folder ---


def main_table(folder, **more):
    tables.main(tables.Options(("main",), from_=str(folder), out=str(folder / "page"), **more))
    return (folder / "page" / "main.md").read_text()


def test_the_main_table_of_finished_runs(tmp_path, capsys):
    cost = {"to_embed": {"parameters": 3_400_000, "flops": 250_000_000}}
    flip = {"flip": {"mean_lr": {"rank1": 66.5}}}
    made_run(tmp_path / "control-hrlr" / "run", rank1=80.0, **cost)
    made_run(tmp_path / "control-hrlr-seed1" / "run", rank1=82.0, seed=1, **cost)
    made_run(tmp_path / "rain", "rain", rank1=85.0, **cost, **flip)
    wrong = np.zeros((40, 5), int)
    for name in ("control-hrlr/run", "control-hrlr-seed1/run"):
        made_queries(tmp_path / name, wrong)
    made_queries(tmp_path / "rain", 1 - wrong)
    page = main_table(tmp_path)
    assert (
        "| system | r = 1 | r = 2 | r = 3 | r = 4 | r = 8 | mean LR | mean LR, flip | mAP |" in page
    )
    control = "| control HR & LR | 81.0 ± 1.4 | 71.0 ± 1.4 | 61.0 ± 1.4 | 51.0 ± 1.4 | 41.0 ± 1.4 "
    assert control + "| 61.0 ± 1.4 | - | 53.0 |" in page
    assert "| RAIN | 85.0 ± 2.2 |" in page and "| 65.0 | 66.5 | 57.0 |" in page
    assert "| 3.40 M | 0.25 | 3,200 | 1.5 |" in page
    assert "| CAD-Net | not run | - |" in page and "| INTACT + match (ours) | not run |" in page
    assert "| RAIN | control HR & LR | better | +100.0 [+100.0, +100.0] |" in page
    assert "Beside control HR & LR in mean LR: better: RAIN." in page
    assert "Not run: control-hr, rain-seed1, rain-without-adv, rain-without-adv-seed1," in page
    assert "control-hrlr-seed1," not in page
    assert "RAIN" in capsys.readouterr().out
    assert (tmp_path / "page" / "main.png").stat().st_size > 5000
    assert (tmp_path / "page" / "main.html").exists()


def test_a_protocol_has_no_score_of_mirror_images_from_another_one(tmp_path):
    made_run(tmp_path / "rain", "rain", flip={"mean_lr": {"rank1": 66.5}})
    again = tmp_path / "rain-paper-repeats2"
    made_run(again, "rain", protocol="paper", summary={"mixed": {"rank1": {"deviation": 1.5}}})
    page = main_table(tmp_path, protocol="paper", repeats=2)
    assert "| RAIN | 80.0" in page and "66.5" not in page


def test_several_splits_are_not_judged(tmp_path):
    """Each has queries of its own; the page is written nevertheless."""
    for split in (0, 1):
        for name, system in (("control-hrlr", "baseline"), ("rain", "rain")):
            folder = tmp_path / (name + "-split1" * split)
            cost = {"parameters": 1, "flops": 2}
            made_run(folder, system, split_id=split, to_embed=cost)
            made_queries(folder, np.ones((40 + split, len(RATES))))
    page = main_table(tmp_path, splits=2)
    who = "all pairs with control HR & LR / all pairs with RAIN"
    assert f"Not judged: several splits: {who}." in page


def test_the_error_of_a_score_is_the_measured_one():
    run = {"mixed": {"rank1": 50.0}, "queries": 400, "standard_error": {"mixed": 1.1}}
    assert table_pages.rank1_of([run]) == (50.0, 1.1)
    assert table_pages.rank1_of([{**run, "standard_error": None}]) == (50.0, 2.5)


def test_a_row_that_began_from_other_weights_is_refused(tmp_path, processes):
    paths = [tmp_path / name for name in ("old.weights.h5", "moved.weights.h5", "new.weights.h5")]
    for path, held in zip(paths, (b"1", b"1", b"2"), strict=True):
        path.write_bytes(held)
    began = {"weights": str(paths[0]), "began_from_sha256": hashlib.sha256(b"1").hexdigest()}
    made_run(tmp_path / "row", options=began)
    (tmp_path / "row" / "report.md").touch()
    for path in paths[:2]:
        assert jobs.run("baseline", tmp_path / "row", "--weights", str(path))
    with pytest.raises(xr.InputError, match=r"weights = .*old.weights.h5, not .*new.weights.h5"):
        jobs.run("baseline", tmp_path / "row", "--weights", str(paths[2]))
    assert processes == []


def test_a_scoring_of_other_weights_is_refused(tmp_path):
    """As where a row was trained anew after it."""
    made_run(tmp_path / "rain", "rain", to_embed={"parameters": 1, "flops": 2})
    weights = tmp_path / "rain" / "model.weights.h5"
    weights.write_bytes(b"1")
    sha256 = hashlib.sha256(b"1").hexdigest()
    made_run(tmp_path / "rain-paper", "rain", protocol="paper", weights_sha256=sha256)
    assert "| RAIN | 80.0" in main_table(tmp_path, protocol="paper")
    weights.write_bytes(b"2")
    words = r"rain-paper holds scores of other weights than .*model.weights.h5: remove it"
    with pytest.raises(xr.InputError, match=words):
        main_table(tmp_path, protocol="paper")


def test_nothing_finished(tmp_path):
    assert "| RAIN | not run |" in main_table(tmp_path)
    with pytest.raises(xr.InputError, match="no such folder"):
        tables.main(tables.Options(("main",), from_=str(tmp_path / "none")))


def test_rows_of_a_papers_table_that_are_not_run(tmp_path):
    made_run(tmp_path / "row-intact" / "run", "intact")
    page = tmp_path / "page"
    tables.main(tables.Options(("intact-1",), from_=str(tmp_path), out=str(page)))
    text = (page / "intact-1.md").read_text()
    assert "| INTACT | 60.0 ± 2.4 | 64.0 | 65.0 | 52.0 | - | - | - | 1.5 | 86.4 |" in text
    assert "| CAD | not run | - | - | - | - | - | - | - | 82.1 |" in text
    assert "| SING | - | - | - | - | - | - | - | - | 67.7 |" in text
    assert "Not run: row-rain, row-cadnet." in text
    assert "paper's numbers on MLR-CUHK03" in text


def test_a_row_that_the_paper_has_on_other_data_only(tmp_path):
    """It is shown, and has no place in the paper's order."""
    for system, rank1 in (("rain", 80.0), ("cadnet", 70.0), ("intact", 90.0)):
        made_run(tmp_path / f"row-{system}", system, rank1, dataset="market1501")
    page = tmp_path / "page"
    tables.main(tables.Options(("intact-1",), from_=str(tmp_path), out=str(page)))
    text = (page / "intact-1.md").read_text()
    assert "| RAIN | 60.0 ± 2.4 | 64.0 | 65.0 | 52.0 | - | - | - | 1.5 | - |" in text
    assert "less than ± apart): CAD < INTACT; the paper's order." in text


def test_ten_splits_by_the_papers_protocol(tmp_path):
    counts = {role: {"people": n} for role, n in (("train", 316), ("query", 316))}
    for split, rank1 in enumerate((40.0, 42.0, 47.0)):
        folder = tmp_path / ("row-rain-without-adv" + f"-split{split}" * bool(split))
        mixed = dict.fromkeys(("rank1", "rank5", "rank10", "rank20", "mAP", "mINP"), rank1)
        told = {"protocol": "paper", "split_id": split}
        made_run(
            folder,
            "rain",
            split_id=split,
            dataset="viper",
            options={"split_id": split},
            data=counts,
        )
        made_run(folder.with_name(f"{folder.name}-paper"), "rain", mixed=mixed, **told)
    tables.main(
        tables.Options(
            ("rain-3", "rain-1"), from_=str(tmp_path), out=str(tmp_path / "page"), data="viper",
            protocol="paper", splits=3,
        )
    )  # fmt: skip
    text = (tmp_path / "page" / "rain-3-rain-1.md").read_text()
    # Mean 43, deviation sqrt(13), 4.30265 * sqrt(13 / 3) = 8.957 to each side.
    row = "43.0 ± 3.6 [34.0, 52.0] | 43.0 | 43.0 | 43.0 | - | - | - | 1.5"
    assert f"| Ours w/o Ladv | {row} | 65.9 | 62.3 |" in text
    assert f"| Baseline (train on HR & LR) | {row} | 36.6 |" in text
    assert "paper's numbers on MLR-VIPeR" in text and "split 0, 1, 2" in text
    assert "as the papers print it; trained on 316 people, 316 looked for, as in the papers" in text


def test_data_that_are_not_the_papers_are_said(tmp_path):
    counts = {role: {"people": n} for role, n in (("train", 401), ("query", 100))}
    mixed = dict.fromkeys(("rank1", "rank5", "rank10", "rank20", "mAP", "mINP"), 71.25)
    cost = {"parameters": 1, "flops": 2}
    made_run(tmp_path / "rain", "rain", to_embed=cost, data=counts, dataset="market1501")
    made_run(tmp_path / "rain-paper", "rain", protocol="paper", mixed=mixed)
    page = main_table(tmp_path, protocol="paper")
    assert "trained on 401 people, 100 looked for; the papers have 751 and 750" in page
    assert "| all queries |" in page and "| 71.2 |" in page and "| paper's rank-1 |" in page


# --- what is trained ---


def test_rain_table_1(tmp_path, queue):
    queue.rank1.update({
        "baseline-train-on-hr": 60.0, "rain-without-adv": 70.0, "rain-levels-5": 90.0, "rain": 89.5,
    })  # fmt: skip
    tables.main(options(tmp_path, "rain-1", data="csv", data_dir="here", seeds=(0, 1)))
    names = [name for _, name, _ in queue.asked]
    assert names == [
        f"row-{row}{seed}"
        for row in ("baseline-train-on-hr", "rain-without-adv", "rain-levels-5", "rain")
        for seed in ("", "-seed1")
    ]
    recipe, _, arguments = queue.asked[5]
    epochs = str(table_rows.EPOCHS["tiny"]["rain"])
    assert (recipe, " ".join(arguments)) == (
        "rain", f"--preset tiny --data csv --data-dir here --seed 1 --epochs {epochs} --levels 5",
    )  # fmt: skip
    page = (tmp_path / "rows" / "rain-1.md").read_text()
    assert "| Baseline (train on HR) | 40.0 ± 0.0 | 44.0 | 45.0 | 32.0 |" in page
    assert page.count("| 77.6 |") == 1 and "MLR-CUHK03" in page
    assert "| JUDEA | - | - | - | - | - | - | - | - | 26.2 |" in page
    # Two equal seeds deviate by nothing, so no difference is too small.
    assert "Ours (multi-level) < Ours (single-level); the paper: Baseline (train on HR) <" in page
    assert "without its adversarial loss" in page


def test_rain_table_2(tmp_path, queue):
    tables.main(options(tmp_path, "rain-2"))
    page = (tmp_path / "rows" / "rain-2.md").read_text()
    assert "| RAIN (ours) | 60.0 ± 2.4 | 40.0 |" in page
    assert "| SING (paper) | 33.5 | - |" in page and "| Ours (paper) | 42.5 | 37.5 |" in page
    assert [name for _, name, _ in queue.asked] == ["row-rain"]


def test_rain_table_4(tmp_path, queue):
    tables.main(options(tmp_path, "rain-4"))
    told = [" ".join(arguments).split("--epochs 2")[1] for _, _, arguments in queue.asked]
    assert told == [" --train-rates 2", " --train-rates 3", " --train-rates 4", ""]
    page = (tmp_path / "rows" / "rain-4.md").read_text()
    assert "| r = 1, 3 | 60.0 ± 2.4 |" in page and "| 72.3 | 68.8 |" in page


def test_order_within_an_error(tmp_path, queue):
    queue.rank1.update({"cadnet-features-f": 60.0, "cadnet-features-g": 61.0, "cadnet": 70.0})
    tables.main(options(tmp_path, "cadnet-1"))
    page = (tmp_path / "rows" / "cadnet-1.md").read_text()
    # Mean LR 40 and 41 of 400 queries: one standard error is sqrt(41 * 59 / 400) = 2.46.
    text = "Ours (f only) ≈ Ours (g only) < Ours; the paper's order, but for what lies within"
    assert text in page
    assert "| Ours (g only) | 41.0 ± 2.5 |" in page and "| 79.7 |" in page


def test_cadnet_table_2(tmp_path, queue):
    tables.main(options(tmp_path, "cadnet-2"))
    page = (tmp_path / "rows" / "cadnet-2.md").read_text()
    assert "| CAD-Net (ours) | 0.75 | 25.0 | - | 60.0 ± 2.4 | - | - | - | 40.0 |" in page
    assert "| CycleGAN (paper) | 0.55 | 14.1 | 0.31 | 62.1 | 0.42 | 12.7 | 0.37 | 40.5 |" in page


def test_cadnet_table_3_has_image_quality(tmp_path, queue):
    tables.main(options(tmp_path, "cadnet-3", epochs=2))
    page = (tmp_path / "rows" / "cadnet-3.md").read_text()
    assert "| paper's rank-1 | paper's PSNR | paper's SSIM | paper's LPIPS |" in page
    row = "| Ours w/o Lrec | 60.0 ± 2.4 | 64.0 | 65.0 | 52.0 | 25.0 | 0.750 | - | 1.5 | 66.7 |"
    assert f"{row} 12.9 | 0.45 | 0.4 |" in page
    assert all("--epochs 2 " in " ".join([*arguments, ""]) for _, _, arguments in queue.asked)
    assert "upscaled" not in page
    path = tmp_path / "rows" / "row-cadnet-without-cls" / "metrics.json"  # the last
    rank1 = {"2": 62.0, "3": 50.0, "4": 41.0}
    found = json.loads(path.read_text())
    found["enlarged"] = {"per_rate": {rate: {"rank1": value} for rate, value in rank1.items()}}
    found["image_quality"]["2"]["psnr"] = 25.03  # the others have 25.0, as it is printed
    path.write_text(json.dumps(found))
    tables.main(options(tmp_path, "cadnet-3", epochs=2))
    page = (tmp_path / "rows" / "cadnet-3.md").read_text()
    assert "| upscaled | 51.0 | - |" in page and "Best PSNR: Ours w/o Lcls." in page


def test_a_run_without_low_rates_has_no_row(tmp_path):
    scores = {"1": {"rank1": 60.0}, "8": {"rank1": 20.0}}
    made_run(tmp_path / "row-rain-without-rec", "rain", per_rate=scores, mean_lr=None)
    with pytest.raises(xr.InputError, match=r"run of rain has scores at r = 1, 8 and no mean: sco"):
        tables.main(options(tmp_path, "rain-3", from_=str(tmp_path)))


def test_lpips_is_measured_afterwards(tmp_path, queue, monkeypatch):
    def call(recipe, folder, *arguments):
        quality = {r: {"psnr": 25.0, "ssim": 0.75, "lpips": 0.125} for r in ("2", "3", "4")}
        asked.append((recipe, folder.name, arguments))
        made_run(folder, rank1=80.0, image_quality=quality)

    asked = []
    monkeypatch.setattr(jobs, "call", call)
    tables.main(options(tmp_path, "cadnet-2", lpips=True))
    tables.main(options(tmp_path, "cadnet-2", lpips=True))  # what is scored is not scored again
    (only,) = asked
    assert only[:2] == ("evaluate", "row-cadnet-quality") and "--lpips" in only[2]
    assert "--rates" not in only[2]  # which evaluate refuses beside a protocol
    assert only[2][:2] == ("--weights", str(tmp_path / "rows" / "row-cadnet"))
    assert "| 0.75 | 25.0 | 0.12 |" in (tmp_path / "rows" / "cadnet-2.md").read_text()


def test_intact_shares_its_first_stage(tmp_path, queue):
    tables.main(options(tmp_path, "intact-3", reid_epochs=7))
    assert [recipe for recipe, _, _ in queue.asked] == ["baseline", "intact"] * 3
    stage_1, stage_2 = (" ".join(queue.asked[i][2]) for i in (0, 1))
    assert {queue.asked[i][1] for i in (0, 2, 4)} == {"reid"} and "--epochs 7" in stage_1
    epochs = table_rows.EPOCHS["tiny"]["intact"]
    assert f"--epochs {epochs} --supervision mse+id --reid {tmp_path}" in stage_2
    assert stage_2.endswith("rows/reid")


def test_strong_rows_begin_from_the_control(tmp_path, queue):
    tables.main(options(tmp_path, "adaptive-2", preset="strong"))
    names = [name for _, name, _ in queue.asked]
    assert names[:2] == ["control-hr", "row-adaptive-without-mask-val"]
    assert queue.asked[1][2][-2:] == ("--weights", f"{tmp_path}/rows/control-hr")
    assert "Adaptive Table 2" in (tmp_path / "rows" / "adaptive-2.md").read_text()


def test_several_tables(tmp_path, queue):
    tables.main(options(tmp_path, "rain"))
    names = {name for _, name, _ in queue.asked}
    assert {"row-baseline-train-on-hr", "row-rain", "row-rain-without-rec"} < names
    assert not any("cadnet" in name or "intact" in name for name in names)
    page = (tmp_path / "rows" / "rain.md").read_text()
    assert page.count("## RAIN Table") == 4 and page.count("## RAIN Figure 5") == 1
    tables.main(options(tmp_path, "all"))
    page = (tmp_path / "rows" / "all.md").read_text()
    assert page.count("\n## ") + page.startswith("## ") == len(table_rows.KNOWN) == 20


def test_figure_5(tmp_path, queue):
    queue.rank1.update({"rain-share-20": 75.0, "rain": 85.0, "rain-share-0": 25.0})
    tables.main(options(tmp_path, "rain-figure-5"))
    assert len(queue.asked) == 1 + 3 * 5
    settings = [" ".join(arguments).split("--epochs")[1] for _, _, arguments in queue.asked]
    assert settings[1].endswith("--labeled-fraction 0.2")
    assert "labeled-fraction" not in settings[-1]  # all labels: the same run as in the tables
    assert queue.asked[-3][1] == "row-rain"
    page = (tmp_path / "rows" / "rain-figure-5.md").read_text()
    assert "| 0 % | 5.0 ± 1.1 | - | - | 3.3 |" in page
    assert "| 20 % | 55.0 ± 2.5 | 60.0 ± 2.4 | 60.0 ± 2.4 | 66.3 |" in page
    assert "| 60 % | 60.0 ± 2.4 | 60.0 ± 2.4 | 60.0 ± 2.4 | - |" in page
    assert "| 100 % | 65.0 ± 2.4 | 60.0 ± 2.4 | 60.0 ± 2.4 | 78.9 |" in page
    assert (tmp_path / "rows" / "rain-figure-5.png").stat().st_size > 5000
    assert "(rain-figure-5.png)" in page
    assert "not Table 1's row of that name (rain --without adv)" in page


def test_fewer_people(tmp_path, queue):
    """The fewer they are the more epochs; what begins from a network has one of the same people."""
    plan = planned("people")
    assert {job.images for job in plan} == {4}  # of each image of the training set
    found = {job.name: " ".join(job.words) for job in plan}
    for people, epochs in ((100, 16), (200, 8), (400, 4)):
        first = found[f"row-baseline-train-people-{people}"]
        assert f"--epochs {epochs} " in first and "--weights" not in first
        for name, times in (("baseline-train-on-hr-lr", epochs), ("rain", epochs // 2)):
            second = found[f"row-{name}-train-people-{people}"]
            assert f"--epochs {times} " in second and f"--train-people {people}" in second
            assert f"--weights {{run:row-baseline-train-people-{people}}}" in second
    asked = options(tmp_path, "people", data="market1501", data_dir="here")
    queue.rank1.update({"rain-train-people-200": 75.0})
    tables.main(asked)
    page = (tmp_path / "rows" / "people.md").read_text()
    assert "| 100 | 60.0 ± 2.4 | 60.0 ± 2.4 | 60.0 ± 2.4 |" in page
    assert "| 200 | 60.0 ± 2.4 | 60.0 ± 2.4 | 55.0 ± 2.5 |" in page
    assert "Not judged: no queries.csv" in page
    for name in ("baseline-train-on-hr-lr", "rain"):
        hits = np.ones((400, len(RATES))) * (name != "rain")
        made_queries(tmp_path / "rows" / f"row-{name}-train-people-200", hits)
    tables.main(asked)
    page = (tmp_path / "rows" / "people.md").read_text()
    assert "| RAIN, 200 | HR & LR, 200 | worse | -100.0 " in page
    assert (tmp_path / "rows" / "people.png").stat().st_size > 5000


def test_no_more_people_are_asked_for_than_there_are():
    def asked(*chosen, **more):
        names = "\n".join(job.name for job in planned(*chosen, **more))
        return sorted(set(re.findall(r"train-people-(\d+)", names)))

    assert asked("people", data="synthetic") == asked("all", data="synthetic") == ["100"]
    assert asked("people", data="viper", split="dev") == ["100", "200"]
    assert asked("all", data="caviar") == asked("all", data="synthetic", split="dev") == []
    assert len(asked("people", data="synthetic", from_="finished")) == 3
    with pytest.raises(xr.InputError, match=r"100 people or more, and synthetic has fewer.*dev"):
        asked("people", data="synthetic", split="dev")


def test_a_baseline_sees_as_many_images(tmp_path, queue):
    tables.main(options(tmp_path, "rain-1", epochs=3))
    epochs = [" ".join(arguments).split("--epochs ")[1][0] for _, _, arguments in queue.asked]
    assert epochs == ["6", "3", "3", "3"]


def test_adaptive_table_5(tmp_path, queue):
    queue.rank1.update({"adaptive-unseen": 70.0, "adaptive-seen": 80.0, "told": 40.0})
    tables.main(options(tmp_path, "adaptive-5"))
    page = (tmp_path / "rows" / "adaptive-5.md").read_text()
    assert "| r = 3 as 2, progressive | 40.0 ± 2.4 | 40.0 | 40.0 | 40.0 | 83.4 |" in page
    assert "| r = 3 as 4, progressive | 70.0 ± 2.3 |" in page
    assert "| r = 6 as 4, progressive | 30.0 ± 2.3 |" in page
    assert "| r = 6 seen, progressive | 70.0 ± 2.3 |" in page
    assert "| r = 6 as 8, end-to-end | 50.0 ± 2.5 | 50.0 | 50.0 | 50.0 | 77.9 |" in page
    told = [arguments for recipe, _, arguments in queue.asked if recipe == "evaluate"]
    assert len(told) == 2 and told[0][-3:] == ("--score-as", "3=2", "6=4")
    tables.main(options(tmp_path, "adaptive-5"))  # what is scored is not scored again
    assert len([recipe for recipe, _, _ in queue.asked if recipe == "evaluate"]) == 2
    rows = tmp_path / "rows"  # a run of other rates has no place here
    told = json.loads((rows / "row-adaptive-seen" / "metrics.json").read_text())
    del told["per_rate"]["3"]
    (rows / "row-adaptive-seen" / "metrics.json").write_text(json.dumps(told))
    tables.main(options(tmp_path, "adaptive-5", from_=str(rows)))
    page = (rows / "adaptive-5.md").read_text()
    assert "| r = 3 seen, progressive | not run |" in page
    assert "| r = 6 seen, progressive | 70.0 ± 2.3 |" in page


# --- figures of several runs ---


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Finished runs whose weights are published ones, of any people."""

    def load(folder, **more):
        system = json.loads((folder / "metrics.json").read_text())["system"]
        name = min(n for n, entry in xr.published().items() if entry["system"] == system)
        return found.setdefault(name, real(name, **more))

    found, real = {}, xr.load
    monkeypatch.setattr(table_figures.xr, "load", load)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "names"),
    [
        ("intact-figure-4", {"row-intact": "intact", "row-intact-supervision-mse": "intact"}),
        ("cadnet-figure-3", {"intact": "intact", "cadnet": "cadnet"}),
        ("cadnet-figure-4", {"row-cadnet": "cadnet", "row-cadnet-without-adv_f": "cadnet"}),
        ("rain-figure-3", {"rain": "rain"}),
        ("rain-figure-4", {"control-hr": "baseline", "rain": "rain"}),
        ("adaptive-figure-4", {"adaptive": "adaptive"}),
    ],
)
def test_figures_of_papers(published, figure, names, capsys):
    assert figure in table_figures.RUNS and len(table_figures.RUNS) == 6
    for name, system in names.items():
        made_run(published / name, system)
    page = published / "page"
    tables.main(
        tables.Options((figure,), from_=str(published), out=str(page), limit=5, preset="tiny")
    )
    drawn = sorted(path.name for path in page.glob("*.png"))
    expected = [f"{figure}.png"]
    if figure == "cadnet-figure-4":
        expected = [f"{figure}-with-D_F.png", f"{figure}-without-D_F.png"]
    assert drawn == expected
    text = (page / f"{figure}.md").read_text()
    assert all(f"({name})" in text for name in drawn)
    missing = len(table_figures.RUNS[figure]) - len(names)
    assert text.count("Not run: ") == bool(missing)


def test_a_figure_of_other_people_is_refused(published):
    made_run(published / "rain", "rain")
    with pytest.raises(xr.InputError, match="run on synthetic, and --data is viper"):
        tables.main(
            tables.Options(
                ("rain-figure-3",), from_=str(published), out=str(published / "page"), data="viper"
            )
        )


def test_the_other_name(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ablations.py", "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(recipes.folder() / "ablations.py"), run_name="__main__")
    assert not left.value.code and "tables" in capsys.readouterr().out


# --- the queue itself ---


@pytest.fixture
def processes(monkeypatch):
    """Recipes that would be started; each one leaves a finished run, or fails if it is told."""
    started = []

    def start(command, check):
        started.append(command)
        folder = Path(command[command.index("--out") + 1])
        if "9" in command:
            return subprocess.CompletedProcess(command, 1)
        if "--resume" in command:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        made_run(folder, options={"epochs": 3, "train_on": "hr+lr"})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(jobs.subprocess, "run", start)
    return started


ROW = ("--epochs", "3", "--train-on", "hr+lr")


def test_a_finished_row_is_not_run_again(tmp_path, processes):
    folder = tmp_path / "row"
    first = jobs.run("baseline", folder, *ROW)
    train = [sys.executable, "-m", "keras_xreid", "train", "baseline"]
    assert processes == [[*train, *ROW, "--out", str(folder)]]
    assert jobs.run("baseline", folder, *ROW) == first and len(processes) == 1


def test_an_interrupted_row_goes_on(tmp_path, processes):
    folder = tmp_path / "row"
    jobs.run("baseline", folder, *ROW)
    (folder / "report.md").unlink()
    jobs.run("baseline", folder, *ROW)
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
    jobs.run("baseline", tmp_path / "row", *ROW)
    with pytest.raises(xr.InputError, match=words):
        jobs.run("baseline", tmp_path / "row", *row)
    assert len(processes) == 1


def test_a_row_that_fails_is_named(tmp_path, processes):
    with pytest.raises(xr.InputError, match=r"row was not finished \(exit status 1\)"):
        jobs.run("baseline", tmp_path / "row", "--epochs", "9")


def test_a_wrong_option_is_found_before_anything_is_run(tmp_path, processes):
    with pytest.raises(xr.InputError, match="--epoch"):
        jobs.run("baseline", tmp_path / "row", "--epoch", "3")
    assert processes == []

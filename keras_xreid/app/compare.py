"""Puts runs side by side: one table, one figure, and a word on what is not like for like.

    xreid compare runs/baseline-synthetic runs/intact-synthetic
    xreid compare --run "baseline --train-on hr+lr" --run rain -- --epochs 5
    xreid compare --run rain --run cadnet --seeds 0 1 2 -- --preset paper

A run is a finished run folder, a folder that xreid evaluate --out wrote, the name of published
weights, whose card is read, or a recipe with its options, which is run into --out first; what
follows `--` are options of every recipe. A finished run is not run again, an interrupted one goes
on where it was. Runs that differ in nothing but their seed share a row.

Rows on the same queries and gallery are judged pair by pair, by their queries.csv: the difference,
its interval, and one of the words better, worse, no difference shown.

costs.png draws mean LR against the milliseconds of a query; of cards, which say none, against those
of an image that is embedded with others.
"""

import dataclasses
import functools
import itertools
import os
import shlex
import statistics
import sys
from pathlib import Path

import tyro

import keras_xreid as xr
from keras_xreid import app, files, hub
from keras_xreid.app import folder as folders
from keras_xreid.app import jobs
from keras_xreid.app.compare_pairs import PAIRED_NOTES, judged, paired_csv_rows, paired_table
from keras_xreid.app.compare_rows import called, error_of_mean, flip_of, footnotes, joined, read_run
from keras_xreid.data.resolution import lr_rates
from keras_xreid.report import figures
from keras_xreid.report.page import write_page
from keras_xreid.report.tables import NOT_MEASURED, markdown, number, text_table

COSTS = {
    "query_ms": "milliseconds of a query",
    "embed_ms": "milliseconds of an image, embedded with others",
}


@dataclasses.dataclass
class Options:
    folders: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders of finished runs or of xreid evaluate, or names of published weights."""
    run: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A recipe with its own options, "rain --levels 5"; give --run once for each."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each --run."""
    out: str = "runs/compare"
    """Folder for compare.md, compare.csv, paired.csv, figures and the runs of --run."""


def table(rows):
    """Header and cells of the table as text."""
    rates = sorted({rate for row in rows for rate in row["rank1"]}, key=float)
    mixed = ["all queries"] if any(row["mixed"] is not None for row in rows) else []
    header = ["system", "variant", *(f"r = {rate}" for rate in rates), *mixed, "mean LR"]
    timed = any(row["query_ms"] is not None for row in rows)
    header += ["mAP", "mINP", "parameters", "GFLOPs", *["query ms"][:timed], "images", "min"]

    def score(value, error):
        return number(value) + ("" if None in (value, error) else f" ± {error:.1f}")

    lines = []
    for row in rows:
        counts = [
            (row["parameters"], 1e6, ".2f", " M"),
            (row["flops"], 1e9, ".2f", ""),
            *[(row["query_ms"], 1, ".1f", "")][:timed],
            (row["images"], 1, ",.0f", ""),
            (row["seconds"], 60, ".1f", ""),
        ]
        scores = [(row["rank1"].get(rate), row["error"].get(rate)) for rate in rates]
        scores += [(row["mixed"], row["mixed_error"])] if mixed else []
        scores += [(row["mean_lr"], row["mean_lr_error"]), (row["mAP"], None), (row["mINP"], None)]
        shown = [
            NOT_MEASURED if value is None else f"{value / unit:{digits}}{sign}"
            for value, unit, digits, sign in counts
        ]
        lines.append([row["system"], row["variant"], *(score(*one) for one in scores), *shown])
    return header, lines


def csv_rows(rows):
    """The table in full precision, empty where something was not measured."""
    rates = sorted({rate for row in rows for rate in row["rank1"]}, key=float)
    on = ("dataset", "split", "fold", "protocol", "manifest_sha256", "backend")
    counts = ("mixed", "mixed_error", "mean_lr", "mean_lr_error", "mAP", "mINP", "parameters",
              "flops", "query_ms", "images", "seconds")  # fmt: skip
    columns = [f"{name}_r{rate}" for rate in rates for name in ("rank1", "error")]
    yield ["system", "variant", "seeds", *on, *columns, *counts]
    for row in rows:
        first = row["runs"][0]
        seeds = " ".join(str(run.get("seed")) for run in row["runs"])
        scores = [row[name].get(rate) for rate in rates for name in ("rank1", "error")]
        told = (first.get(name) for name in on)
        yield [row["system"], row["variant"], seeds, *told, *scores, *(row[n] for n in counts)]


def trained_on(run):
    """The rates of a run's training images; of published weights their card says them."""
    sha256 = run.get("weights_sha256")
    card = hub.of_sha256(sha256) if sha256 else hub.named(run.get("weights"))
    told = run.get("options") or card or run
    on_hr = told.get("train_on") == "hr"
    if told is card and run["system"] == "baseline":  # hr is what it takes if not told otherwise
        on_hr = "--train-on hr+lr" not in card.get("command", "")
    return (1,) if on_hr else lr_rates(told.get("train_rates") or (2, 3, 4))


def draw(path, rows):
    """Rank-1 against rate, one line a row."""
    lines = []
    for row in rows:
        scores = {
            "per_rate": {rate: {"rank1": value} for rate, value in row["rank1"].items()},
            "standard_error": row["error"],
        }
        lines.append(figures.line_of_rates(row["name"], scores, trained_on(row["runs"][0])))
    several = any(len(row["runs"]) > 1 for row in rows)
    note = "bars: ± one standard error" + (", or the deviation over seeds" if several else "")
    figures.rank_lines(path, lines, note=note)


def drawn_at(rows):
    """The cost that most rows say, and those rows that have a place in the figure of it."""

    def there(cost):
        return [row for row in rows if None not in (row[cost], row["mean_lr"])]

    cost = max(COSTS, key=lambda cost: len(there(cost)))
    return cost, there(cost)


def at_its_cost(row, cost):
    """A point of the figure of costs: what a query costs, and the mean LR that it buys.

    A model that averages mirror images is timed so, and so are its scores taken.
    """
    flip = flip_of(row)
    error = row["mean_lr_error"]
    if len(row["runs"]) == 1:
        error = error_of_mean(row["runs"][0], "plain" if flip is None else "flip")
    elif flip is not None:
        error = statistics.stdev(run["flip"]["mean_lr"]["rank1"] for run in row["runs"])
    label = row["variant"].removeprefix("weights ") if "weights" in row["runs"][0] else row["name"]
    rank1 = row["mean_lr"] if flip is None else flip
    return {"label": label, "x": row[cost], "rank1": rank1, "error": error}


def notes_on_costs(rows):
    """What the figure of costs shows, and which rows have no place in it."""
    cost, drawn = drawn_at(rows)
    left = [row for row in rows if row not in drawn]
    notes = []
    if any(row["query_ms"] is not None for row in rows):
        notes.append("Query ms: one query alone, on the machine that scored the row.")
    if len(drawn) > 1 and (flips := [row for row in drawn if flip_of(row) is not None]):
        notes.append(
            "In the figure of costs mirror images are averaged, for that is what was timed: "
            f"{called(flips, rows)}."
        )
    if len(drawn) > 1 and left:
        told = called(left, rows)
        notes.append(f"Not in the figure of {COSTS[cost]}, which they do not say: {told}.")
    return notes


def words_of(command):
    """The recipe and the options of a --run. On Windows a backslash is part of a path."""
    parts = shlex.shlex(command, posix=True)
    parts.whitespace_split, parts.commenters = True, ""
    parts.escape = "" if os.name == "nt" else parts.escape
    try:
        return list(parts) or [""]
    except ValueError as error:
        raise xr.InputError(f"--run {command}: {error}, mend it") from error


def main(options, shared=()):
    if shared and not options.run:
        raise xr.InputError("what follows -- are options of recipes: give --run RECIPE too")
    asked = [words_of(command) for command in options.run]
    for word in itertools.chain(shared, *asked):
        if word.partition("=")[0] in ("--seed", "--out"):
            raise xr.InputError(
                f"{word} among the options of a recipe: give --seeds and --out of compare itself"
            )
    if not options.folders and not options.run:
        raise xr.InputError("nothing to compare: give folders of finished runs, or --run RECIPE")
    out = Path(options.out)
    runs = [read_run(folder) for folder in options.folders]
    with folders.locked(out):
        compare(asked, options.seeds, shared, out, runs)


def compare(asked, seeds, shared, out, runs):
    """Runs what is to be run, and writes everything; nobody else writes there meanwhile."""
    for recipe, *words in asked:
        recipe = recipe.removesuffix(".py")
        for seed in seeds:
            folder = out / f"{jobs.name_of(' '.join([recipe, *words]))}-seed{seed}"
            jobs.run(recipe, folder, *shared, "--seed", str(seed), *words)
            runs.append(read_run(folder))
    rows = joined(runs)
    header, cells = table(rows)
    notes = footnotes(rows) + notes_on_costs(rows)
    print("\n".join(["", text_table(header, cells, left=2), "", *notes]))
    pairs, not_judged = judged(rows)
    below = [*(PAIRED_NOTES if pairs else ()), *not_judged]
    if pairs:
        shown = text_table(*paired_table(pairs), left=3)
        print(f"\nPaired differences\n\n{shown}")
    if below:
        print("\n".join(["", *below]))
    if (out / "compare.md").exists():  # of another comparison, whose figures are not this one's
        for name in ("compare.png", "costs.png"):
            (out / name).unlink(missing_ok=True)
    files.write_csv_atomic(out / "compare.csv", csv_rows(rows))
    page = ["# Systems side by side", markdown(header, cells, left=2)]
    # Queries whose rate nobody knows have no place in it.
    if of_rates := [row for row in rows if row["rank1"]]:
        draw(out / "compare.png", of_rates)
        page.append("![Rank-1 against rate](compare.png)")
    cost, drawn = drawn_at(rows)
    if len(drawn) > 1:
        points = [at_its_cost(row, cost) for row in drawn]
        figures.rank_against_cost(out / "costs.png", points, COSTS[cost])
        page.append(f"![Rank-1 against {COSTS[cost]}](costs.png)")
    page.append("\n".join(f"- {note}" for note in notes))
    if below:
        page.append("## Paired differences")
        page += [markdown(*paired_table(pairs), left=3)] if pairs else []
        page.append("\n".join(f"- {note}" for note in below))
    text = "\n\n".join(page) + "\n"
    write_page(out / "compare.html", text)
    files.write_text_atomic(out / "compare.md", text)
    files.write_csv_atomic(out / "paired.csv", paired_csv_rows(pairs))
    print(f"\nWritten to {out}: compare.md, compare.html, compare.csv, paired.csv, figures")


def cli():
    # What follows -- belongs to the recipes of --run.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.argv, given = sys.argv[:end], sys.argv[end + 1 :]
    app.command(functools.partial(main, shared=given), Options, __doc__)

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

import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import shlex
import statistics
import sys
from pathlib import Path

import tyro

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app import folder as folders
from keras_xreid.app import jobs, later, provenance, recipes, settings
from keras_xreid.data.resolution import lr_rates
from keras_xreid.evaluation.paired import DRAWS, paired_difference
from keras_xreid.evaluation.queries import read_queries
from keras_xreid.report import figures
from keras_xreid.report.page import write_page
from keras_xreid.report.runs import images_seen, read_metrics
from keras_xreid.report.tables import NOT_MEASURED, markdown, text_table

# Options that say on what a run was done, which the footnotes tell, or where and how fast.
flops = later("keras_xreid.evaluation.flops")

COSTS = {
    "query_ms": "milliseconds of a query",
    "embed_ms": "milliseconds of an image, embedded with others",
}
NOT_A_VARIANT = (
    "data", "data_dir", "split", "fold", "protocol", "split_id", "rates", "query_rates", "seed",
    "workers", "compiled", "reid", "out", "resume", "overwrite", "command", "changed",
    "began_from_sha256",
)  # fmt: skip
SHARED = tuple(
    field.name
    for kind in settings.GROUPS.values()
    for field in dataclasses.fields(kind)
    if field.name not in (*settings.STRONG_PAIRS, *settings.STRONG, "learning_rate")
    or field.name in ("batch_size", "train_rates", "kernel", "erase")
)


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


def read_run(folder):
    """The metrics of a finished run, with its folder; refuses what is not finished."""
    card = xr.published().get(str(folder))
    folder = Path(folder)
    if card and not folder.exists():
        return {**card, "weights": str(folder), "folder": folder}
    begun = (folder / "options.json").exists()
    if begun and not (folder / "report.md").exists():
        raise xr.InputError(f"the run in {folder} is not finished: go on with it with --resume")
    metrics = read_metrics(folder / "metrics.json", needed=("system", "per_rate"))
    return {**metrics, "folder": folder}


def options_of(run):
    """What a run was told, with the backbone and the backend that it took."""
    told = dict(run.get("options") or {})
    for name in ("weights", "reid"):
        if told.get(name) and told[name] == provenance.began_from(told):
            started, sha256 = provenance.started_as(told), told.get("began_from_sha256")
            # A folder says nothing elsewhere; the first digits of what lay in it do.
            own = f"RUN-{sha256[:8]}" if sha256 else Path(started).name
            told[name] = started if started in xr.published() else own
    return {**told, "backbone": run.get("backbone"), "backend": run.get("backend")}


def defaults_of(system, preset="tiny"):
    """Defaults of a system's recipe; those that all recipes share where it has none."""
    try:
        options = recipes.options(system)
    except xr.InputError:
        options = settings.Nothing
    return settings.plain(settings.defaults(options, preset))


def variants(runs):
    """What each run's options say that sets it apart, in the spelling of the command line.

    An option of its own recipe is named where it is not the default; one that all recipes share
    where the runs differ in it. A run with nothing of its own to name names its defaults that are
    words, `--train-on hr`, and that other runs of its system have otherwise.
    """
    texts = []
    for run in runs:
        default = defaults_of(run["system"], run.get("preset") or "tiny")
        own, words, shared = [], [], []
        for name, value in options_of(run).items():
            if name in NOT_A_VARIANT:
                continue
            common_to_all = name in SHARED or name == "backend"
            differ = any(
                options_of(other).get(name, default.get(name)) != value
                for other in runs
                if common_to_all or other["system"] == run["system"]
            )
            if common_to_all:
                shared += [spelled(name, value)] if differ else []
            elif value != default.get(name, value):
                own.append(spelled(name, value))
            elif differ and isinstance(value, str):
                words.append(spelled(name, value))
        if "weights" in run:  # scores of xreid evaluate
            own.append(f"weights {run['weights']}")
        if adapted_on(run):
            own.append("adapted")
        texts.append(", ".join(filter(None, [*(own or words), *shared])))
    return texts


def spelled(name, value):
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    if isinstance(value, list):
        value = " ".join(map(str, value))
    return f"{name} {value}" if value not in (None, "") else ""


def joined(runs):
    """The rows of the table: runs that differ in nothing but the seed are one."""
    groups = {}
    for run, variant in zip(runs, variants(runs), strict=True):
        on = [run.get(name) for name in ("dataset", "protocol", "manifest_sha256")]
        on.append(people_of(run))
        groups.setdefault((run["system"], variant, *on), []).append(run)
    rows = []
    for (system, variant, *_), members in groups.items():
        for a, b in itertools.combinations(members, 2):
            if a.get("seed") == b.get("seed"):
                raise xr.InputError(
                    f"{a['folder']} and {b['folder']} hold the same system, variant and seed: "
                    "give one of them"
                )
        rows.append(row_of(system, variant, members))
    return rows


def adapted_on(run):
    """What a run's statistics of batch normalization were measured on; None: as trained."""
    return (run.get("adapted") or {}).get("on")


def people_of(run):
    """Who was to be found: "test", "dev", which is its fold 0, or "dev, fold 1"."""
    return str(run.get("split")) + (f", fold {run['fold']}" if run.get("fold") else "")


def row_of(system, variant, runs):
    """One row: means over the runs, which differ in their seed."""

    def mean(values):
        values = list(values)
        return None if None in values or not values else statistics.mean(values)

    rates = sorted(set.intersection(*(set(run["per_rate"]) for run in runs)), key=float)
    scores = {rate: [run["per_rate"][rate]["rank1"] for run in runs] for rate in rates}
    if len(runs) > 1:
        errors = {rate: statistics.stdev(values) for rate, values in scores.items()}
    else:
        errors = runs[0].get("standard_error") or {}
    mixed = [(run.get("mixed") or {}).get("rank1") for run in runs]
    mixed_error = errors.get("mixed")
    if len(runs) > 1 and None not in mixed:
        mixed_error = statistics.stdev(mixed)
    lr = [run.get("mean_lr") or {} for run in runs]
    rank1 = [scores.get("rank1") for scores in lr]
    cost = runs[0].get("to_embed")
    if not cost:
        cost = dict(zip(("parameters", "flops"), cost_of_run(runs[0]["folder"]), strict=True))
    return {
        "name": ", ".join(filter(None, [system, variant])),
        "system": system,
        "variant": variant,
        "runs": runs,
        "rank1": {rate: mean(values) for rate, values in scores.items()},
        "error": errors,
        "mixed": mean(mixed),
        "mixed_error": mixed_error,
        "mean_lr": mean(rank1),
        "mean_lr_error": statistics.stdev(rank1) if len(runs) > 1 and None not in rank1 else None,
        "mAP": mean(scores.get("mAP") for scores in lr),
        "mINP": mean(scores.get("mINP") for scores in lr),
        "parameters": cost["parameters"] or runs[0].get("parameters"),
        "flops": cost["flops"],
        "query_ms": mean(run.get("query_ms") for run in runs),
        "embed_ms": mean(
            1000 / run["embedded_per_second"] if run.get("embedded_per_second") else None
            for run in runs
        ),
        "images": mean(images_of(run) for run in runs),
        "seconds": mean(run.get("seconds") for run in runs),
    }


def flip_of(row):
    """Mean LR of averages of image and mirror image; None where the model makes none."""
    values = [((run.get("flip") or {}).get("mean_lr") or {}).get("rank1") for run in row["runs"]]
    return None if None in values else statistics.mean(values)


def at_its_cost(row, cost):
    """A point of the figure of costs: what a query costs, and the mean LR that it buys.

    A model that averages mirror images is timed so, and so are its scores taken.
    """
    flip = flip_of(row)
    error = row["mean_lr_error"]
    if len(row["runs"]) == 1:
        error = error_of_mean(row["runs"][0], "plain" if flip is None else "flip")
    label = row["variant"].removeprefix("weights ") if "weights" in row["runs"][0] else row["name"]
    rank1 = row["mean_lr"] if flip is None else flip
    return {"label": label, "x": row[cost], "rank1": rank1, "error": error}


def error_of_mean(run, variant):
    """The standard error of a run's mean LR over its queries; None where it is not known.

    Without the queries' own scores it is what it is at most: the mean of the rates' errors.
    """
    path, hits = run["folder"] / "queries.csv", {}
    rates = [rate for rate in rates_of_mean(run).split() if rate in run["per_rate"]]
    try:
        found = read_queries(path, variant) if path.exists() else {}
    except xr.InputError:  # from before mirror images were written
        found = {}
    for (query, rate), (_, rank1, *_) in found.items():
        if rate in rates:
            hits.setdefault(query, []).append(rank1)
    if len(hits) > 1 and all(len(of_query) == len(rates) for of_query in hits.values()):
        return statistics.stdev(map(statistics.mean, hits.values())) / len(hits) ** 0.5
    scores = run if variant == "plain" else run["flip"]
    errors = [(scores.get("standard_error") or {}).get(rate) for rate in rates]
    return None if None in errors or not errors else statistics.mean(errors)


def start_of(row):
    """What a row's runs began from, as they were told: "--reid RUN-1a2b3c4d"; else ""."""
    told = [
        f"--{name} {options[name]}"
        for options in map(options_of, row["runs"])
        for name in ("reid", "weights")
        if provenance.began_from({name: options.get(name)})
    ]
    return ", ".join(dict.fromkeys(told))


def rates_of_mean(run):
    """The rates that a run's mean LR is over, if it says so."""
    rates = (run.get("options") or run).get("train_rates")
    return "unknown" if rates is None else " ".join(f"{rate:g}" for rate in lr_rates(rates))


def cost_of_run(folder):
    """The same of a run's model; None where it is not known."""
    try:
        return flops.embedding_cost(xr.load(folder))
    except (xr.InputError, NotImplementedError, TypeError, ValueError) as error:
        # Runs of hours are not kept from their table by what cannot be counted.
        print(f"Parameters and operations of {folder} are not counted: {error}")
        return None, None


def images_of(run):
    """Images that a run has seen in training, over all its stages."""
    seen, history = run.get("images_seen"), run["folder"] / "history.csv"
    if seen is None and history.exists():
        try:
            with open(history, newline="", encoding="utf-8") as file:
                seen = images_seen(csv.DictReader(file))
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise xr.InputError(f"{history} is no history of a run: {error!r}") from error
    return sum(seen.values()) if seen else None


def table(rows):
    """Header and cells of the table as text."""
    rates = sorted({rate for row in rows for rate in row["rank1"]}, key=float)
    mixed = ["all queries"] if any(row["mixed"] is not None for row in rows) else []
    header = ["system", "variant", *(f"r = {rate}" for rate in rates), *mixed, "mean LR"]
    timed = any(row["query_ms"] is not None for row in rows)
    header += ["mAP", "mINP", "parameters", "GFLOPs", *["query ms"][:timed], "images", "min"]

    def score(value, error=None):
        text = NOT_MEASURED if value is None else f"{value:.1f}"
        return text if value is None or error is None else f"{text} ± {error:.1f}"

    lines = []
    for row in rows:
        counts = [
            (row["parameters"], 1e6, ".2f", " M"),
            (row["flops"], 1e9, ".2f", ""),
            *[(row["query_ms"], 1, ".1f", "")][:timed],
            (row["images"], 1, ",.0f", ""),
            (row["seconds"], 60, ".1f", ""),
        ]
        lines.append(
            [
                row["system"],
                row["variant"],
                *(score(row["rank1"].get(rate), row["error"].get(rate)) for rate in rates),
                *([score(row["mixed"], row["mixed_error"])] if mixed else []),
                score(row["mean_lr"], row["mean_lr_error"]),
                score(row["mAP"]),
                score(row["mINP"]),
                *(
                    NOT_MEASURED if value is None else f"{value / unit:{digits}}{sign}"
                    for value, unit, digits, sign in counts
                ),
            ]
        )
    return header, lines


def called(some, rows):
    """Names of some of the rows; a system's own name for all of its rows."""
    names = []
    for row in some:
        of_system = [other for other in rows if other["system"] == row["system"]]
        whole = all(any(other is one for one in some) for other in of_system)
        names.append(row["system"] if whole else row["name"])
    return " / ".join(dict.fromkeys(names))


def footnotes(rows):
    """What the numbers belong to, where the rows differ in it, and what the columns are."""

    def of_runs(name):
        return lambda row: ", ".join(dict.fromkeys(str(run.get(name)) for run in row["runs"]))

    told = {
        "protocol": of_runs("protocol"),
        "data set": of_runs("dataset"),
        "people (--split)": lambda row: people_of(row["runs"][0]),
        "manifest": lambda row: str(row["runs"][0].get("manifest_sha256"))[:16],
        "queries counted": of_runs("queries"),
        "rates of the mean (--train-rates)": lambda row: rates_of_mean(row["runs"][0]),
        "seeds": of_runs("seed"),
        "images seen in training": lambda row: (
            "unknown" if row["images"] is None else f"{row['images']:,.0f}"
        ),
        "preset": of_runs("preset"),
        "backend": of_runs("backend"),
    }
    if any(adapted_on(run) for row in rows for run in row["runs"]):
        told["batch normalization"] = lambda row: adapted_on(row["runs"][0]) or "as trained"
    same, different = [], []
    for what, value_of in told.items():
        values = {}
        for row in rows:
            values.setdefault(value_of(row), []).append(row)
        if len(values) == 1:
            same.append(f"{what} {next(iter(values))}")
        else:
            found = "; ".join(f"{value} ({called(of, rows)})" for value, of in values.items())
            different.append(f"Not like for like, {what}: {found}.")
    short = [row for row in rows if any(run.get("short_run") for run in row["runs"])]
    if short:
        different.append(
            f"Short runs (--limit or --steps), scores mean nothing: {called(short, rows)}."
        )
    first = [(row, start) for row in rows if (start := start_of(row))]
    if first:
        told = "; ".join(f"{row['name']} ({start})" for row, start in first)
        different.append(f"Images and minutes of what a run began from are not counted: {told}.")
    several = any(len(row["runs"]) > 1 for row in rows)
    single = any(len(row["runs"]) == 1 for row in rows)
    errors = ["one standard error over the queries, sqrt(p (100 - p) / n)"] if single else []
    errors += ["the deviation over seeds, where a row has several"] if several else []
    return [
        f"The same in every row: {', '.join(same)}.",
        *different,
        f"Rank-1 in percent; ± is {'; or '.join(errors)}. Mean LR (rank-1), mAP and mINP are "
        "means over the low-resolution rates of --train-rates. Parameters and GFLOPs: between an "
        "image of the query and its embedding, a multiply-add counts as 2; parameters of the whole "
        "model where GFLOPs are not known. Images: seen in training, a pair of an HR and an LR "
        "image counts as two. Minutes include scoring.",
    ]


def as_csv(rows):
    """The table in full precision, empty where something was not measured."""
    rates = sorted({rate for row in rows for rate in row["rank1"]}, key=float)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    on = ("dataset", "split", "fold", "protocol", "manifest_sha256", "backend")
    counts = (
        "mixed",
        "mixed_error",
        "mean_lr",
        "mean_lr_error",
        "mAP",
        "mINP",
        "parameters",
        "flops",
        "query_ms",
        "images",
        "seconds",
    )
    columns = [f"{name}_r{rate}" for rate in rates for name in ("rank1", "error")]
    writer.writerow(["system", "variant", "seeds", *on, *columns, *counts])
    for row in rows:
        first = row["runs"][0]
        seeds = " ".join(str(run.get("seed")) for run in row["runs"])
        scores = [row[name].get(rate) for rate in rates for name in ("rank1", "error")]
        writer.writerow(
            [row["system"], row["variant"], seeds, *(first.get(name) for name in on), *scores]
            + [row[name] for name in counts]
        )
    return text.getvalue()


def judged(rows):
    """Every pair of rows, the later beside the earlier, and a sentence on those not judged."""
    kept, on, left_out = {}, {}, {}
    for i, row in enumerate(rows):
        paths = [run["folder"] / "queries.csv" for run in row["runs"]]
        if all(path.exists() for path in paths):
            kept[i], on[i] = [read_queries(path) for path in paths], scored_on(row["runs"][0])
        else:
            reason = "no queries.csv (xreid evaluate --out writes one)"
            left_out.setdefault(reason, []).append(f"all pairs with {called([row], rows)}")
    pairs = []
    for i, j in itertools.combinations(kept, 2):
        row, beside = rows[j], rows[i]
        pair = {"row": called([row], rows), "beside": called([beside], rows)}
        same, rates = not on[i].isdisjoint(on[j]), rates_of_both(row, beside)
        if same and rates:
            pairs.append({**pair, **paired_difference(kept[j], kept[i], rates)})
        else:
            reason = "no low rate in common" if same else "another manifest or protocol"
            left_out.setdefault(reason, []).append("{row} beside {beside}".format(**pair))
    reasons = "; ".join(f"{reason}: {' / '.join(names)}" for reason, names in left_out.items())
    return pairs, [f"Not judged: {reasons}."] if reasons and len(rows) > 1 else []


def scored_on(run):
    """The manifest whole and without training images, each with the protocol and the fold.

    Of two runs that share one of them the queries and the gallery are the same; which training
    images they had, the footnotes say.
    """
    manifest, shas = run["folder"] / "manifest.jsonl", {run.get("manifest_sha256")}
    if manifest.is_file():
        try:
            lines = manifest.read_text(encoding="utf-8").splitlines()
            scored = [line for line in lines if json.loads(line)["role"] != "train"]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise xr.InputError(f"{manifest} is no manifest of a run: {error!r}") from error
        shas.add(hashlib.sha256("\n".join(scored).encode()).hexdigest())
    return {(run.get("protocol"), people_of(run), sha) for sha in shas - {None}}


def rates_of_both(row, other):
    """The low rates that both rows' means are over; where nothing says, those of `evaluate`."""
    told = [rates_of_mean(some["runs"][0]) for some in (row, other)]
    first, second = ("2 3 4" if text == "unknown" else text for text in told)
    return [r for r in first.split() if r in second.split() and r in row["rank1"]]


def paired_table(pairs):
    """Header and cells of the table of paired differences as text."""
    rates = sorted({rate for pair in pairs for rate in pair["per_rate"]}, key=float)
    header = [
        "row",
        "beside",
        "row is",
        "mean LR",
        "wins",
        "p",
        "mAP",
        *(f"r = {r}" for r in rates),
    ]

    def cell(part):
        if part is None:
            return NOT_MEASURED
        return "{difference:+.1f} [{low:+.1f}, {high:+.1f}]".format(**part)

    lines = []
    for pair in pairs:
        mean = pair["mean_lr"]
        counts = [f"{mean['wins']} : {mean['losses']}", f"{mean['p']:.2g}"]
        of_rates = [cell(pair["per_rate"].get(rate)) for rate in rates]
        words = [pair["row"], pair["beside"], pair["verdict"]]
        lines.append([*words, cell(mean), *counts, cell(pair["mAP"]), *of_rates])
    return header, lines


PAIRED_NOTES = (
    "Points of rank-1 and mAP by which the row is above the one beside it, on the same queries and "
    f"gallery; in brackets the 95 % interval of a bootstrap over people ({DRAWS:,} draws). Better "
    "or worse: the interval of mean LR leaves out 0. Of 20 pairs without a difference, one is "
    "called better or worse by chance.",
    "Wins: queries that the row has right : that the other has right, where only one has, all low "
    "rates counted together; p: McNemar's of these counts, too small because a query counts once a "
    "rate.",
    "Where a row has several seeds, a query's hits are averaged over them first (a win is then "
    "more hits). How it would be with other seeds, neither the interval nor p says.",
)


def paired_csv(pairs):
    """The paired differences in full precision, a line for each pair and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("difference", "low", "high", "wins", "losses", "p")
    writer.writerow(["row", "beside", "score", *numbers, "verdict"])
    for pair in pairs:
        of_rates = {f"rank1_r{rate}": part for rate, part in pair["per_rate"].items()}
        for score, part in {"mean_lr": pair["mean_lr"], "mAP": pair["mAP"], **of_rates}.items():
            verdict = pair["verdict"] if score == "mean_lr" else ""
            values = [part.get(name) for name in numbers]
            writer.writerow([pair["row"], pair["beside"], score, *values, verdict])
    return text.getvalue()


def draw(path, rows):
    """Rank-1 against rate, one line a row."""
    lines = []
    for row in rows:
        scores = {
            "per_rate": {rate: {"rank1": value} for rate, value in row["rank1"].items()},
            "standard_error": row["error"],
        }
        told = row["runs"][0].get("options") or {}
        trained_on = lr_rates(told.get("train_rates", (2, 3, 4)))
        if told.get("train_on") == "hr":
            trained_on = (1,)
        lines.append(figures.line_of_rates(row["name"], scores, trained_on))
    several = any(len(row["runs"]) > 1 for row in rows)
    note = "bars: ± one standard error" + (", or the deviation over seeds" if several else "")
    hollow = any(line["hollow"] for line in lines)
    figures.rank_lines(path, lines, note=note + ("; hollow: rate not trained on" if hollow else ""))


def drawn_at(rows):
    """The cost that most rows say, and those rows that have a place in the figure of it."""

    def there(cost):
        return [row for row in rows if None not in (row[cost], row["mean_lr"])]

    cost = max(COSTS, key=lambda cost: len(there(cost)))
    return cost, there(cost)


def notes_on_costs(rows):
    """What the figure of costs shows, and which rows have no place in it."""
    cost, drawn = drawn_at(rows)
    left = [row for row in rows if not any(row is one for one in drawn)]
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


def main(options, shared=()):
    if shared and not options.run:
        raise xr.InputError("what follows -- are options of recipes: give --run RECIPE too")
    if "--seed" in shared or "--out" in shared:
        raise xr.InputError("--seed and --out after --: give --seeds and --out before it")
    if not options.folders and not options.run:
        raise xr.InputError("nothing to compare: give folders of finished runs, or --run RECIPE")
    out = Path(options.out)
    runs = [read_run(folder) for folder in options.folders]
    with folders.locked(out):
        compare(options, shared, out, runs)


def compare(options, shared, out, runs):
    """Runs what is to be run, and writes everything; nobody else writes there meanwhile."""
    for command in options.run:
        recipe, *words = shlex.split(command) or [""]
        recipe = recipe.removesuffix(".py")
        for seed in options.seeds:
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
    if any(row["rank1"] for row in rows):  # queries whose rate nobody knows have no place in it
        draw(out / "compare.png", [row for row in rows if row["rank1"]])
    files.write_text_atomic(out / "compare.csv", as_csv(rows))
    page = ["# Systems side by side", markdown(header, cells, left=2)]
    if (out / "compare.png").exists():
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
    files.write_text_atomic(out / "paired.csv", paired_csv(pairs))
    print(f"\nWritten to {out}: compare.md, compare.html, compare.csv, paired.csv, figures")


def cli():
    # What follows -- belongs to the recipes of --run.
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    sys.argv, given = sys.argv[:end], sys.argv[end + 1 :]
    app.command(functools.partial(main, shared=given), Options, __doc__)

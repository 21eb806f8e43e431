"""The tables of this project and of the papers: rows are trained one after another, and printed.

    xreid tables rain-3
    xreid tables cadnet --seeds 0 1 2
    xreid tables --plan all --data market1501 --data-dir DIR > jobs.tsv
    xreid tables main --from FOLDER

`main` has every system with one budget; `rain-3` is a table of a paper beside its numbers; `rain`
has a system's tables, `all` every one. A row that two tables print is run once. A finished row is
not run again, an interrupted one goes on where it was: the command can be repeated at any time. On
two cores a row of the embedded set takes about three minutes. --plan prints the jobs and runs
nothing; --from prints what is finished in a folder and says which rows are not run.
"""

import dataclasses
import functools
import itertools
import statistics
from pathlib import Path
from typing import Annotated

import tyro

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app import compare, recipes, table_figures
from keras_xreid.app.jobs import CONTROL, FIRST, LONG, SYSTEM, Jobs, Row, name_of
from keras_xreid.evaluation.ranking import standard_error
from keras_xreid.report import figures, papers
from keras_xreid.report.page import write_page
from keras_xreid.report.tables import NOT_MEASURED, markdown, text_table

# The project's own table: a row's folder, recipe and options. An HR stage that strong systems
# begin from, and a second stage of as many images each.
MAIN = {
    "control HR": ("control-hr", "baseline"),
    "control HR & LR": ("control-hrlr", "baseline --train-on hr+lr"),
    "RAIN": ("rain", "rain"),
    "RAIN without L_adv": ("rain-without-adv", "rain --without adv"),
    "CAD-Net": ("cadnet", "cadnet"),
    "INTACT": ("intact", "intact"),
    "INTACT + match (ours)": ("intact-match", "intact --match 1"),
    "adaptive": ("adaptive", "adaptive"),
    "IDE + verification": ("ide-verification", "adaptive --without mask val"),
}
BEST = {"control HR & LR, 600,000 images": ("control-hrlr-long", "baseline --train-on hr+lr")}

# Epochs of pairs that a row sees; a baseline has twice as many, for a pair is two images. Of the
# main table, 8 epochs of 7,488 pairs are 120,000 images; the longest run is counted in images.
# INTACT's are those of its second stage; the first is shared by its rows. Of the papers' tables:
# about three minutes of the embedded set on two cores, and 15,000 images where rows begin from
# trained weights; four masks take four epochs. The paper preset has each recipe's own.
MAIN_EPOCHS = {"tiny": 5, "strong": 8}
LONG_EPOCHS = 48
EPOCHS = {
    "tiny": {"intact": 3, "rain": 2, "cadnet": 1, "adaptive": 4, "one_per_rate": 4},
    "strong": {"intact": 1, "rain": 1, "cadnet": 1, "adaptive": 4, "one_per_rate": 4},
}

# A table's rows by the names that the paper prints, each with the recipe and its options.
TABLES = {
    "intact-1": {"RAIN": "rain", "CAD": "cadnet", "INTACT": "intact"},
    "intact-2": {
        "Sole SR": "intact --supervision mse",
        "SR + ID": "intact --supervision mse+id",
        "INTACT": "intact",
    },
    "intact-3": {
        "MSE+ID": "intact --supervision mse+id",
        "MSE+ID+GAN": "intact --supervision mse+id+gan",
        "MSE+ID+GAN+Association": "intact",
    },
    "intact-4": {
        "Common Space (a)": "intact --association common",
        "D-to-R (b)": "intact --association d-to-r",
        "R-to-D (c, ours)": "intact",
    },
    "intact-5": {
        "W/O (Fig. 5 (d))": "intact --no-bridge",
        "W (Fig. 5 (c))": "intact",
    },
    "rain-1": {
        "Baseline (train on HR)": "baseline --train-on hr",
        # RAIN without its adversarial loss: the paper prints the same numbers for it in Table 3.
        "Baseline (train on HR & LR)": "rain --without adv",
        "Ours (single-level)": "rain --levels 5",
        "Ours (multi-level)": "rain",
    },
    "rain-2": {"Ours": "rain"},
    "rain-3": {
        "Ours": "rain",
        "Ours w/o Lcls": "rain --without cls",
        "Ours w/o Ltri": "rain --without tri",
        "Ours w/o Lrec": "rain --without rec",
        "Ours w/o Ladv": "rain --without adv",
    },
    "rain-4": {
        "r = 1, 2": "rain --train-rates 2",
        "r = 1, 3": "rain --train-rates 3",
        "r = 1, 4": "rain --train-rates 4",
        "r = 1, 2, 3, 4": "rain",
    },
    "cadnet-1": {
        "Ours (f only)": "cadnet --features f",
        "Ours (g only)": "cadnet --features g",
        "Ours": "cadnet",
    },
    "cadnet-2": {"Ours": "cadnet"},
    "cadnet-3": {
        "Ours": "cadnet",
        "Ours w/o Ladv^DI": "cadnet --without adv_i",
        "Ours w/o Ladv^DF": "cadnet --without adv_f",
        "Ours w/o Lrec": "cadnet --without rec",
        "Ours w/o Lcls": "cadnet --without cls",
    },
    "adaptive-1": {"RAIN": "rain", "CAD-Net": "cadnet", "INTACT": "intact", "Ours": "adaptive"},
    "adaptive-2": {
        "IDE + Verif": "adaptive --without mask val",
        "Ours (w/o mask)": "adaptive --without mask",
        "Ours (w/o val)": "adaptive --without val",
        "Ours (w/o val)*": "adaptive --without val --end-to-end",
        "Ours (mask+val)": "adaptive",
    },
    "adaptive-3": {
        "Baseline": "one_per_rate",
        "Ours (end-to-end)": "adaptive --end-to-end",
        "Ours (progressive)": "adaptive",
    },
    "adaptive-4": {
        "Ours": "adaptive",
        "Ours w/o Lcls": "adaptive --without cls",
        "Ours w/o Lverif": "adaptive --without verif",
    },
}
# Folders of rows that were run when their command was another.
OLD_NAMES = {"one_per_rate": "row-adaptive-one-per-rate"}
NOTES = {
    "rain-1": "Baseline (train on HR & LR) is RAIN without its adversarial loss: the paper's Table "
    "3 prints the same numbers for the two. Baseline (train on HR) is a plain network trained with "
    "cross-entropy.",
    "rain-4": "Every row is scored at the rates 2, 3 and 4. The last row is the full model; the "
    "strong preset draws its rates from 1 to 4.",
    "adaptive-3": "Baseline is a network for each rate as recipes/baseline.py has it, with the "
    "verification loss: compared by cosine, and without the last dense layer v of the others.",
}

# RAIN's Figure 5: each system with a share of the images labelled. Without labels only RAIN's
# reconstruction and alignment train.
FIGURE_5 = "rain-figure-5"
SHARES = (0, 0.2, 0.4, 0.6, 0.8, 1)
LABELED = {
    "RAIN": "rain",
    "Baseline (train on HR)": "baseline --train-on hr",
    "Baseline (train on HR & LR)": "baseline --train-on hr+lr",
}

# The fourth paper's Table V: rates that were not trained on, scored as one that was. Each row has
# the options of its run, the rates told (none where the model takes them itself), the rate scored.
TABLE_5 = "adaptive-5"
UNSEEN = "adaptive --train-rates 2 4 8 --rates 3 6"
SEEN = "adaptive --train-rates 2 3 6 --rates 3 6"
NEAREST = {
    "r = 3 as 2": (UNSEEN, ("3=2", "6=4"), "3"),
    "r = 3 as 4": (UNSEEN, (), "3"),
    "r = 3 seen": (SEEN, (), "3"),
    "r = 6 as 4": (UNSEEN, ("3=2", "6=4"), "6"),
    "r = 6 as 8": (UNSEEN, (), "6"),
    "r = 6 seen": (SEEN, (), "6"),
}
KNOWN = ("main", *TABLES, FIGURE_5, TABLE_5)

# Where a paper prints a row of the main table.
PRINTED = {
    "RAIN": ("RAIN", 1, "Ours (multi-level)"),
    "RAIN without L_adv": ("RAIN", 1, "Baseline (train on HR & LR)"),
    "CAD-Net": ("CAD-Net", 1, "Ours"),
    "INTACT": ("INTACT", 1, "INTACT"),
    "adaptive": ("Adaptive", 1, "Ours"),
    "IDE + verification": ("Adaptive", 2, "IDE + Verif"),
}
# People that the papers train on and look for.
PEOPLE = {
    "market1501": (751, 750), "dukemtmc": (702, 702), "cuhk03": (1367, 100), "viper": (316, 316),
    "caviar": (25, 25),
}  # fmt: skip
LOW = ("2", "3", "4")
NOT_RUN = "not run"


@dataclasses.dataclass
class Options:
    tables: tyro.conf.Positional[tuple[str, ...]]
    """main; a paper's table, rain-3; a system's tables, rain; all tables; or a figure of a paper,
    rain-figure-5: intact-figure-4, cadnet-figure-3 and 4, rain-figure-3 and 4, adaptive-figure-4
    show people of the data set."""
    plan: bool = False
    """Print the jobs, a line each: name, needs, core-hours and command. Nothing is run."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Folder of finished runs, NAME or NAME/run by the names of --plan. Nothing is trained."""
    data: str = "synthetic"
    """Data set, as in the other recipes."""
    data_dir: str | None = None
    """Folder of the data set."""
    split: str = "test"
    """test or dev."""
    fold: int = 0
    """Which people dev holds out: 0, 1 or 2."""
    protocol: str | None = None
    """each-rate, if not given; or one that fixes each query's rate: paper, see baseline.py. Trained
    rows are scored by it once more, and not trained again."""
    split_id: tuple[int, ...] = (0,)
    """Splits of the data set; of several, the table prints mean, deviation and 95 % interval."""
    splits: int | None = None
    """The first so many splits: 10 for viper, caviar and cuhk03, as the papers have them."""
    preset: str | None = None
    """tiny, strong or paper; if not given, tiny for the embedded people and strong for others."""
    backbone: str | None = None
    """Backbone of every row; the preset's if not given."""
    weights: str | None = None
    """Where rows begin: imagenet, random, or trained weights, INTACT's --reid then; if not given,
    the strong preset's begin from the row control-hr, and others as their preset does."""
    epochs: int | None = None
    """Epochs of pairs, the same for every row (INTACT: of stage 2), twice as many for a baseline;
    the table's own number if not given."""
    reid_epochs: int | None = None
    """Epochs of INTACT's stage 1, which its rows share; the preset's schedule if not given."""
    seeds: tuple[int, ...] | None = None
    """Seeds; of several, the table prints mean and deviation. Of a main table's plan 0 and 1, else
    0, if not given."""
    repeats: int = 1
    """Draw cameras and rates of the protocol so often, and print means."""
    precision: str = "float32"
    """float32 or mixed_bfloat16."""
    limit: int | None = None
    """Take this many people only."""
    steps: int | None = None
    """Train steps an epoch: a short run."""
    lpips: bool = False
    """Measure LPIPS of CAD-Net's rows too; downloads AlexNet once (233 MB)."""
    out: str | None = None
    """Folder of rows and pages; runs/tables-DATA if not given."""


def epochs_of(options, command, whole=None):
    """Epochs of a row: of pairs, and twice as many of a baseline. `whole`: of the main table."""
    recipe = command.split()[0]
    epochs = options.epochs
    if epochs is None and options.preset == "paper":
        epochs = recipes.load(recipe).EPOCHS["paper"]
    if epochs is None:
        epochs = whole or EPOCHS[options.preset]["rain" if recipe == "baseline" else recipe]
    return 2 * epochs if recipe == "baseline" else epochs


def control(options):
    """The HR stage that strong rows begin from."""
    name, command = MAIN["control HR"]
    whole = MAIN_EPOCHS.get(options.preset)
    return Row(command, epochs_of(options, command, whole), name, FIRST, "preset")


def rows_of(table, options):
    """A table's rows by their names."""
    strong = options.preset == "strong"
    if table == "main":
        stages = {"control-hr": FIRST, "control-hrlr": CONTROL}
        rows = {
            label: Row(command, epochs_of(options, command, MAIN_EPOCHS.get(options.preset)), name,
                       stages.get(name, SYSTEM))
            for label, (name, command) in MAIN.items()
        }  # fmt: skip
        rows["control HR"] = control(options)
        if strong:
            rows |= {
                label: Row(command, options.epochs or LONG_EPOCHS, name, LONG, "control-hrlr")
                for label, (name, command) in BEST.items()
            }
        return rows
    if table in table_figures.RUNS:
        main_rows = rows_of("main", options)
        return {
            label: main_rows.get(row) or Row(row, epochs_of(options, row))
            for label, row in table_figures.RUNS[table].items()
        }
    if table == FIGURE_5:
        # Weights that have seen all labels are no beginning for a share of them.
        rows = {}
        for share, (label, command) in itertools.product(SHARES, LABELED.items()):
            if not share and command != "rain":
                continue  # nothing is left that trains
            name = f"row-{name_of(command)}-share-{100 * share:g}"
            told, epochs = f"{command} --labeled-fraction {share}", epochs_of(options, command)
            row = Row(told, epochs, name, start="preset")
            # Where nothing begins from the control, all labels are the row of the other tables.
            rows[f"{label}, {100 * share:g} %"] = (
                row if share < 1 or strong else Row(command, epochs)
            )
        return rows
    if table == TABLE_5:
        rows = {}
        for training, more in (("progressive", ""), ("end-to-end", " --end-to-end")):
            for label, (command, told, _) in NEAREST.items():
                name = "row-adaptive-seen" if command == SEEN else "row-adaptive-unseen"
                name += more.replace(" --", "-")
                scored = ("as-2-4", "--rates", "3", "6", "--score-as", *told) if told else ()
                epochs = epochs_of(options, command)
                rows[f"{label}, {training}"] = Row(command + more, epochs, name, scored=scored)
        return rows
    quality = ("quality", "--rates", "2", "3", "4", "8", "--lpips") if options.lpips else ()
    rows = {
        label: Row(
            command,
            epochs_of(options, command),
            OLD_NAMES.get(command),
            scored=quality if "cadnet" in command else (),
        )
        for label, command in TABLES[table].items()
    }
    if table == "rain-2" and options.protocol not in (None, "each-rate"):
        rows["Ours, r = 8"] = dataclasses.replace(rows["Ours"], scored=("r8", "--query-rates", "8"))
    if options.protocol not in (None, "each-rate"):  # which a network for each rate needs
        rows = {label: row for label, row in rows.items() if row.command != "one_per_rate"}
    return rows


def seeds_of(options, table):
    """Seeds of a table, where they are not given."""
    several = table == "main" and (options.plan or options.from_)
    return options.seeds or ((0, 1) if several else (0,))


def one_seed(row, seeds):
    """The seeds of a row: of the control that others begin from 0, of the longest run one."""
    return {FIRST: (0,), LONG: seeds[:1]}.get(row.stage, seeds)


def jobs_of(tables, options, root):
    """The jobs of some tables, and the names of each table's rows: {table: {row: names}}."""
    jobs, names = Jobs(options, root, control(options), train=not options.from_), {}
    for table in tables:
        names[table] = {
            label: jobs.of_row(row, one_seed(row, seeds_of(options, table)))
            for label, row in rows_of(table, options).items()
        }
    return jobs, names


def settle(options):
    """Fills in what follows from the rest; refuses bad values. Returns the tables asked for."""
    chosen = []
    known = (*KNOWN, *table_figures.RUNS, *papers.OF_SYSTEM, "all")
    for name in options.tables:
        if name not in known:
            raise xr.InputError(f"unknown table {name!r}: known are {', '.join(known)}")
        chosen += [t for t in KNOWN if name in ("all", t) or t.startswith(f"{name}-")]
        chosen += [name] if name in table_figures.RUNS else []
    if not chosen:
        raise xr.InputError(f"no table was asked for: known are {', '.join(known)}")
    if options.preset is None:
        here = options.data == "synthetic" and not options.from_
        options.preset = "tiny" if here else "strong"
    if options.preset not in ("tiny", "strong", "paper"):
        raise xr.InputError(f"unknown preset {options.preset!r}: known are tiny, strong, paper")
    if options.splits is not None:
        if options.splits < 1 or options.split_id != (0,):
            raise xr.InputError("--splits takes 1 or more, and no --split-id beside it")
        options.split_id = tuple(range(options.splits))
    if options.repeats < 1 or (options.repeats > 1 and options.protocol in (None, "each-rate")):
        raise xr.InputError(
            f"--repeats is {options.repeats}: give 1 or more, and a --protocol that draws rates"
        )
    if options.protocol not in (None, "each-rate"):
        if TABLE_5 in options.tables:
            raise xr.InputError(f"{TABLE_5} tells the model other rates: give no --protocol")
        chosen = [table for table in chosen if table != TABLE_5]
    return list(dict.fromkeys(chosen))


def print_plan(chosen, options, root):
    jobs, _ = jobs_of(chosen, options, root)
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, fold=options.fold,
        split_id=options.split_id[0], limit=options.limit, need=("train",),
    )  # fmt: skip
    print("\n".join(jobs.plan(len(data.train))))


@dataclasses.dataclass
class Section:
    """A table as it is printed and as it is written.

    Args:
        title: its heading.
        tables: header and rows of each part.
        notes: sentences below.
        figures: names of PNGs in the page's folder.
    """

    title: str
    tables: list
    notes: list
    figures: tuple = ()

    def text(self):
        tables = [text_table(header, rows) for header, rows in self.tables]
        return "\n\n".join([self.title, *tables, *filter(None, self.notes)])

    def markdown(self):
        parts = [f"## {self.title}"]
        parts += [markdown(header, rows) for header, rows in self.tables]
        parts += [f"![{self.title.split(',')[0]}]({name})" for name in self.figures]
        return "\n\n".join([*parts, *filter(None, self.notes)])


def scores_of(metrics):
    """What a row is judged by: all queries of a protocol, or the mean of r = 2, 3 and 4."""
    per_rate = metrics.get("per_rate") or {}
    if metrics.get("mixed") or not all(rate in per_rate for rate in LOW):
        return metrics.get("mixed") or metrics.get("mean_lr")
    shared = [name for name in per_rate["2"] if all(per_rate[r].get(name) is not None for r in LOW)]
    return {name: statistics.mean(per_rate[r][name] for r in LOW) for name in shared}


def rank1_of(runs):
    """Rank-1 of a row and its error: the deviation over seeds or draws, or a standard error."""
    values = [scores_of(metrics)["rank1"] for metrics in runs]
    if len(values) > 1:
        return statistics.mean(values), statistics.stdev(values)
    drawn = (runs[0].get("summary") or {}).get("mixed")
    if drawn:
        return values[0], drawn["rank1"]["deviation"]
    return values[0], standard_error(values[0], runs[0]["queries"])


def rank1_text(runs):
    """The same as text; of several splits mean, deviation and the mean's 95 % interval."""
    of_split = {}
    for metrics in runs:
        of_split.setdefault(metrics.get("split_id"), []).append(scores_of(metrics)["rank1"])
    if len(of_split) == 1:
        return "{:.1f} ± {:.1f}".format(*rank1_of(runs))
    found = xr.summarise([{"rank1": statistics.mean(values)} for values in of_split.values()])
    return "{mean:.1f} ± {deviation:.1f} [{low:.1f}, {high:.1f}]".format(**found["rank1"])


def quality_of(runs, name, digits, rates=LOW):
    """Mean PSNR, SSIM or LPIPS of the recovered images of some rates, as text."""
    values = [
        ((metrics.get("image_quality") or {}).get(rate) or {}).get(name)
        for metrics in runs
        for rate in rates
    ]
    values = [value for value in values if value is not None]
    return f"{statistics.mean(values):.{digits}f}" if values else NOT_MEASURED


def cells(runs):
    """Scores, image quality and minutes of a row as text."""
    text = [rank1_text(runs)]
    for score in ("rank5", "rank10", "mAP"):
        values = [scores_of(metrics).get(score) for metrics in runs]
        text.append(NOT_MEASURED if None in values else f"{statistics.mean(values):.1f}")
    text += [quality_of(runs, *kind) for kind in (("psnr", 1), ("ssim", 3), ("lpips", 3))]
    return [*text, f"{statistics.mean(m['seconds'] for m in runs) / 60:.1f}"]


def order_of(ours):
    """Names from worst to best, ≈ between neighbours less than an error apart."""
    names = sorted(ours, key=lambda name: ours[name][0])
    text = names[0]
    for before, name in itertools.pairwise(names):
        error = max(ours[before][1], ours[name][1])
        text += (" ≈ " if ours[name][0] - ours[before][0] < error else " < ") + name
    return names, text


def described(runs):
    """On what the rows were run, and how long each."""
    if not runs:
        return "nothing was run yet"
    first, words = runs[0], [f"{runs[0]['dataset']} ({compare.people_of(runs[0])} people)"]
    mixed = f"protocol {first['protocol']}, all queries"
    words.append(mixed if first.get("mixed") else "mean over the rates 2, 3, 4")
    for name, title in (("epochs", "epochs a row"), ("seed", "seed"), ("split_id", "split")):
        values = {(run.get("options") or {}).get(name) for run in runs} - {None}
        if values and (values != {0} or name == "seed"):
            words.append(f"{title} {', '.join(map(str, sorted(values)))}")
    precisions = {(run.get("options") or {}).get("precision") for run in runs}
    return ", ".join([*words, *(precisions - {"float32", None})])


def beside_papers(runs):
    """How the data of runs by the papers' protocols differ from theirs, in a sentence."""
    run = next((run for run in runs if run.get("mixed") and run.get("data")), None)
    if run is None:
        return ""
    people = [run["data"][role]["people"] for role in ("train", "query")]
    theirs = PEOPLE.get(run["dataset"])
    text = (
        f"Rank-1 of all queries, rates mixed, by protocol {run['protocol']}, as the papers print "
        f"it; trained on {people[0]:,} people, {people[1]:,} looked for"
    )
    if theirs is None:
        return text + "; the papers have other data."
    if tuple(people) == theirs:
        return text + ", as in the papers, who drew other images."
    return text + f"; the papers have {theirs[0]:,} and {theirs[1]:,}: a larger gallery is harder."


def all_runs(found):
    return [metrics for runs in found.values() for metrics in runs]


def show(table, found, folder):
    """A table of a paper, the rivals that it prints included."""
    system, number = table.split("-")
    source, first = papers.OF_SYSTEM[system], next(iter(all_runs(found)), {})
    dataset, printed = papers.rows_beside(source, int(number), first.get("dataset"))
    printed = {row.model: row.scores for row in printed}
    titles = {"rank1": "rank-1", "mAP": "mAP", "psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
    quoted = [name for name in titles if any(name in scores for scores in printed.values())]
    header = ["row", "rank-1", "rank-5", "rank-10", "mAP", "PSNR", "SSIM", "LPIPS", "min"]
    empty = [NOT_MEASURED] * (len(header) - 2)
    header += [f"paper's {titles[name]}" for name in quoted]
    rows, ours, psnr = [], {}, {}
    for name, scores in printed.items():
        runs, text = found.get(name), [NOT_MEASURED, *empty]
        if runs:
            ours[name], text = rank1_of(runs), cells(runs)
            if text[4] != NOT_MEASURED:
                psnr[name] = float(text[4])
        elif name in TABLES[table]:
            text = [NOT_RUN, *empty]
        paper = [scores.get(score) for score in quoted]
        rows.append([name, *text, *(NOT_MEASURED if v is None else str(v) for v in paper)])
    plain = [
        scores_of(m["enlarged"])
        for m in all_runs(found)
        if (m.get("enlarged") or {}).get("per_rate")
    ]
    if plain and all(plain):
        mean = statistics.mean(scores["rank1"] for scores in plain)
        missing = [NOT_MEASURED] * (len(header) - 2)
        rows.append(["upscaled", f"{mean:.1f}", *missing])
    sentence = ""
    if len(ours) > 1:
        names, text = order_of(ours)
        theirs = sorted(ours, key=lambda name: printed[name]["rank1"])
        told = "the paper's order" + (
            ", but for what lies within one standard error" if "≈" in text else ""
        )
        sentence = f"Rank-1 from worst to best (≈: less than ± apart): {text}; " + (
            f"{told}." if names == theirs else f"the paper: {' < '.join(theirs)}."
        )
    if psnr and len(psnr) == len(ours):
        sentence += f" Best PSNR: {max(psnr, key=psnr.get)}."
    runs = all_runs(found)
    title = f"{source} Table {number}, {described(runs)}; paper's numbers on {dataset}"
    notes = [sentence.strip(), NOTES.get(table), beside_papers(runs)]
    return Section(title, [(header, rows)], notes)


def show_rain_2(table, found, folder):
    """RAIN's Table 2: rates trained on, and rate 8, which was not."""
    runs, again = found["Ours"], found.get("Ours, r = 8")
    cell = NOT_RUN
    if again:  # queries of rate 8 alone
        cell = rank1_text(again)
    elif runs and "8" in runs[0]["per_rate"]:
        cell = f"{statistics.mean(m['per_rate']['8']['rank1'] for m in runs):.1f}"
    header = ["row", "rank-1, rates trained on", "rank-1, r = 8"]
    rows = [["RAIN (ours)", rank1_text(runs) if runs else NOT_RUN, cell]]
    printed = {}
    for row in papers.rows("RAIN", 2):
        printed.setdefault(row.model, {})[row.rate] = str(row.scores["rank1"])
    for model, scores in printed.items():
        rows.append([f"{model} (paper)", scores[None], scores.get(8, NOT_MEASURED)])
    title = f"RAIN Table 2, {described(runs)}; paper's numbers on MLR-VIPeR"
    return Section(title, [(header, rows)], [beside_papers(runs)])


def show_cadnet_2(table, found, folder):
    """CAD-Net's Table 2: recovered images and rank-1 at rates trained on, and at rate 8."""
    runs, kinds = found["Ours"], (("ssim", 2), ("psnr", 1), ("lpips", 2))
    header = ["row", "SSIM", "PSNR", "LPIPS", "rank-1"]
    header += [f"{name}, r = 8" for name in header[1:]]
    rows = [["CAD-Net (ours)", *[NOT_RUN] * 8]]
    if runs:
        at_8 = [m["per_rate"]["8"]["rank1"] for m in runs if "8" in m["per_rate"]]
        plain = [m["enlarged"] for m in runs if m.get("enlarged")]
        first = [quality_of(runs, *kind) for kind in kinds]
        unseen = [quality_of(runs, *kind, rates=("8",)) for kind in kinds]
        unseen.append(f"{statistics.mean(at_8):.1f}" if at_8 else NOT_MEASURED)
        rows = [["CAD-Net (ours)", *first, rank1_text(runs), *unseen]]
        quality = [
            [quality_of(plain, *kind, rates=rates) for kind in kinds] for rates in (LOW, "8")
        ]
        nothing = NOT_MEASURED
        rows.append(["upscaled (ours)", *quality[0], nothing, *quality[1], nothing])
    printed = {}
    for row in papers.rows("CAD-Net", 2):
        numbers = [str(row.scores[name]) for name in ("ssim", "psnr", "lpips", "rank1")]
        printed[row.model] = [*printed.get(row.model, []), *numbers]
    rows += [[f"{model} (paper)", *numbers] for model, numbers in printed.items()]
    title = f"CAD-Net Table 2, {described(runs)}; paper's numbers on MLR-CUHK03"
    return Section(title, [(header, rows)], [beside_papers(runs)])


def show_figure_5(table, found, folder):
    """RAIN's Figure 5, drawn, and its points as a table."""
    lines, rows = {}, []
    for share in SHARES:
        row = [f"{100 * share:g} %"]
        for label in LABELED:
            name = f"{label}, {100 * share:g} %"
            if name not in found:  # nothing trains without a label
                row.append(NOT_MEASURED)
            elif not found[name]:
                row.append(NOT_RUN)
            else:
                rank1, error = rank1_of(found[name])
                line = lines.setdefault(label, {"label": label, "x": [], "rank1": [], "error": []})
                for key, value in (("x", 100 * share), ("rank1", rank1), ("error", error)):
                    line[key].append(value)
                row.append(rank1_text(found[name]))
        paper = papers.RAIN_LABELED.get(round(100 * share))
        rows.append([*row, NOT_MEASURED if paper is None else str(paper)])
    runs = all_runs(found)
    if lines:
        several = any(len(of_row) > 1 for of_row in found.values())
        note = f"bars: {'deviation over seeds' if several else '± one standard error'}"
        figures.rank_lines(
            folder / f"{table}.png", list(lines.values()), "images with a label (%)", note
        )
    title = f"RAIN Figure 5, rank-1 against the share of labels, {described(runs)}"
    sentence = (
        "RAIN's reconstruction and adversarial losses see every image, labelled or not, and train "
        "alone where no image has a label. The "
        "baselines see those with a label only: networks trained with cross-entropy alone and "
        "compared by cosine, so that the one trained on HR & LR (baseline --train-on hr+lr) is not "
        "Table 1's row of that name (rain --without adv). "
        f"The figure is {table}.png; the paper's numbers are on MLR-CUHK03. With all labels the "
        "paper has 60.6 for the baseline trained on HR and 65.9 for the one trained on HR & LR."
    )
    header = ["labelled", *LABELED, "paper's RAIN"]
    return Section(title, [(header, rows)], [sentence], (f"{table}.png",) if lines else ())


def show_figure(options, table, found, folder):
    """A figure of a paper that compares several runs."""
    runs = {label: of_row[0] for label, of_row in found.items() if of_row}
    names = table_figures.draw(table, folder, runs, options) if runs else ()
    title = f"{table_figures.TITLES[table]}, {described(list(runs.values()))}"
    return Section(title, [], [table_figures.NOTE], tuple(names))


def show_table_5(table, found, folder):
    """The fourth paper's Table V."""
    scores = ("rank1", "rank5", "rank10", "rank20")
    printed, rows = {row.model: row.scores for row in papers.rows("Adaptive", 5)}, []
    for name, runs in found.items():
        rate = NEAREST[name.split(",")[0]][2]
        text = [NOT_RUN, *[NOT_MEASURED] * 3]
        if runs:
            of_rate = [m["per_rate"][rate] for m in runs]
            values = [statistics.mean(per_rate[s] for per_rate in of_rate) for s in scores]
            error = standard_error(values[0], runs[0]["queries"])
            if len(runs) > 1:
                error = statistics.stdev(per_rate["rank1"] for per_rate in of_rate)
            text = [f"{values[0]:.1f} ± {error:.1f}", *(f"{v:.1f}" for v in values[1:])]
        rows.append([name, *text, str(printed[name]["rank1"])])
    runs = all_runs(found)
    on = f"{described(runs).replace('mean over the rates 2, 3, 4', 'rates 3 and 6')}"
    title = f"Adaptive Table 5, rates not trained on, {on}; paper's numbers on MLR-CUHK03"
    sentence = (
        "Trained on rates 2, 4 and 8 beside 1, an image of rate 3 or 6 is treated as one of its "
        'neighbours; "seen" is trained on 2, 3 and 6 instead.'
    )
    header = ["row", "rank-1", "rank-5", "rank-10", "rank-20", "paper's rank-1"]
    return Section(title, [(header, rows)], [sentence])


def show_main(table, found, folder):
    """Every system beside the control: scores, costs, and paired differences."""
    rows = [compare.row_of(label, "", runs) for label, runs in found.items() if runs]
    title = f"Every system with one budget, {described(all_runs(found))}"
    if not rows:
        return Section(title, [(["row", "rank-1"], [[label, NOT_RUN] for label in found])], [])
    header, lines = compare.table(rows)
    at = header.index("mean LR") + 1
    for name, title_of in (("mean LR, flip", flip_of), ("query ms", query_ms_of)):
        values = [title_of(row) for row in rows]
        if any(value is not None for value in values):
            place = at if name == "mean LR, flip" else header.index("GFLOPs") + 1
            header.insert(place, name)
            for line, value in zip(lines, values, strict=True):
                line.insert(place, NOT_MEASURED if value is None else f"{value:.1f}")
    if any(row["mixed"] is not None for row in rows):
        header.append("paper's rank-1")
        for line, row in zip(lines, rows, strict=True):
            line.append(printed_rank1(row))
    header, lines = header[:1] + header[2:], {line[0]: line[:1] + line[2:] for line in lines}
    empty = [NOT_RUN, *[NOT_MEASURED] * (len(header) - 2)]
    shown = [(header, [lines.get(label, [label, *empty]) for label in found])]
    notes = [f"- {note}" for note in compare.footnotes(rows)]
    if "mean LR, flip" in header:
        notes.append("- Flip: embeddings of image and mirror image averaged, twice the query time.")
    pairs, not_judged = beside_controls(rows)
    if pairs:
        shown.append(compare.paired_table(pairs))
        notes += [f"- {note}" for note in compare.PAIRED_NOTES]
        notes.append(f"- {in_words(pairs)}")
    notes += [f"- {note}" for note in not_judged]
    compare.draw(folder / "main.png", [row for row in rows if row["rank1"]])
    below = ["\n".join(notes), beside_papers(all_runs(found))]
    return Section(title, shown, below, ("main.png",))


def flip_of(row):
    values = [((run.get("flip") or {}).get("mean_lr") or {}).get("rank1") for run in row["runs"]]
    return None if None in values else statistics.mean(values)


def query_ms_of(row):
    return row["runs"][0].get("query_ms")


def printed_rank1(row):
    """What the row's paper prints for it on this data set."""
    paper, number, model = PRINTED.get(row["name"], (None, None, None))
    dataset = papers.DATASETS.get(row["runs"][0]["dataset"])
    known = [r for r in papers.rows(paper, number, dataset) if r.model == model and dataset]
    return str(known[0].scores["rank1"]) if known else NOT_MEASURED


def beside_controls(rows):
    """Each row judged beside the control on HR & LR, and beside the one on HR."""
    pairs, not_judged, of_name = [], {}, {row["name"]: row for row in rows}
    for name in ("control HR & LR", "control HR"):
        beside = of_name.pop(name, None)
        for row in of_name.values() if beside else ():
            found, left_out = compare.judged([beside, row])
            pairs += found
            not_judged |= dict.fromkeys(left_out)
    return pairs, list(not_judged)


def in_words(pairs):
    """Which rows are above the control on HR & LR."""
    verdicts = {}
    for pair in pairs:
        if pair["beside"] == "control HR & LR":
            verdicts.setdefault(pair["verdict"], []).append(pair["row"])
    told = "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in verdicts.items())
    return f"Beside control HR & LR in mean LR: {told or 'not judged'}."


def main(options):
    chosen = settle(options)
    folder = Path(options.out or f"runs/tables-{options.data}")
    root = Path(options.from_ or folder)
    if options.plan:
        return print_plan(chosen, options, root)
    if options.from_ and not root.is_dir():
        raise xr.InputError(f"--from {root}: no such folder")
    jobs, names = jobs_of(chosen, options, root)
    page, parts = folder / f"{'-'.join(options.tables)}.md", []
    for table in chosen:
        found, missing = {}, []
        for label, of_row in names[table].items():
            of_each = {name: jobs.metrics(name) for name in of_row}
            found[label] = [metrics for metrics in of_each.values() if metrics]
            missing += [name for name, metrics in of_each.items() if not metrics]
        special = {"main": show_main, "rain-2": show_rain_2, "cadnet-2": show_cadnet_2}
        special |= {FIGURE_5: show_figure_5, TABLE_5: show_table_5}
        special |= dict.fromkeys(table_figures.RUNS, functools.partial(show_figure, options))
        section = special.get(table, show)(table, found, folder)
        if missing:
            section.notes.append(f"Not run: {', '.join(dict.fromkeys(missing))}.")
        print(f"\n{section.text()}", flush=True)
        parts.append(section.markdown())
        # What is finished is written, so that a table that fails costs none before it.
        text = "\n\n".join(parts) + "\n"
        write_page(page.with_suffix(".html"), text)
        files.write_text_atomic(page, text)
    print(f"\nWritten to {page}")


def cli():
    app.command(main, Options, __doc__)

"""The rows of a paper's table, one after the other, printed beside the paper's numbers.

    python recipes/ablations.py rain-3
    python recipes/ablations.py cadnet --seeds 0 1 2
    python recipes/ablations.py all
    python recipes/ablations.py rain-figure-5
    python recipes/ablations.py adaptive-5

Every row of a system sees about as many images; a row that two tables print is run once. A
finished row is not run again, an interrupted one goes on where it was: the command can be repeated
at any time. On two cores a row of the embedded set takes about three minutes.
"""

import dataclasses
import importlib
import itertools
import re
import statistics
import subprocess
import sys
from pathlib import Path

import common  # first: it chooses the backend
import tyro

import keras  # isort: skip

import keras_xreid as xr
from keras_xreid.data.resolution import lr_rates
from keras_xreid.evaluation import figures, files, papers, report
from keras_xreid.evaluation.page import write_page
from keras_xreid.evaluation.ranking import standard_error

HERE = Path(__file__).parent

# Epochs of each row of a system's tables: about three minutes of the embedded set on two cores.
# INTACT's are those of its second stage; the first is shared by its rows.
EPOCHS = {"intact": 3, "rain": 2, "cadnet": 1, "adaptive": 4}

# A table's rows by the names that the paper prints, each with the recipe and its options.
TABLES = {
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
    "rain-3": {
        "Ours": "rain",
        "Ours w/o Lcls": "rain --without cls",
        "Ours w/o Ltri": "rain --without tri",
        "Ours w/o Lrec": "rain --without rec",
        "Ours w/o Ladv": "rain --without adv",
    },
    "cadnet-1": {
        "Ours (f only)": "cadnet --features f",
        "Ours (g only)": "cadnet --features g",
        "Ours": "cadnet",
    },
    "cadnet-3": {
        "Ours": "cadnet",
        "Ours w/o Ladv^DI": "cadnet --without adv_i",
        "Ours w/o Ladv^DF": "cadnet --without adv_f",
        "Ours w/o Lrec": "cadnet --without rec",
        "Ours w/o Lcls": "cadnet --without cls",
    },
    "adaptive-2": {
        "IDE + Verif": "adaptive --without mask val",
        "Ours (w/o mask)": "adaptive --without mask",
        "Ours (w/o val)": "adaptive --without val",
        "Ours (w/o val)*": "adaptive --without val --end-to-end",
        "Ours (mask+val)": "adaptive",
    },
    "adaptive-3": {
        "Baseline": "adaptive --one-per-rate",
        "Ours (end-to-end)": "adaptive --end-to-end",
        "Ours (progressive)": "adaptive",
    },
    "adaptive-4": {
        "Ours": "adaptive",
        "Ours w/o Lcls": "adaptive --without cls",
        "Ours w/o Lverif": "adaptive --without verif",
    },
}
PAPERS = {"intact": "INTACT", "rain": "RAIN", "cadnet": "CAD-Net", "adaptive": "Adaptive"}
NOTES = {
    "rain-1": "Baseline (train on HR & LR) is RAIN without its adversarial loss: the paper's Table "
    "3 prints the same numbers for the two. Baseline (train on HR) is a plain network trained with "
    "cross-entropy.",
    "adaptive-3": "Baseline is a network for each rate as recipes/baseline.py has it, with the "
    "verification loss: compared by cosine, and without the last dense layer v of the others.",
}

# RAIN's Figure 5: each system with a share of the images labelled.
FIGURE_5 = "rain-figure-5"
SHARES = (0.2, 0.6, 1.0)
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


@dataclasses.dataclass
class AblationOptions:
    table: tyro.conf.Positional[str]
    """A paper's table, rain-3; a system's tables, rain; rain-figure-5; or all tables."""
    data: str = "synthetic"
    """Data set, as in the other recipes."""
    data_dir: str | None = None
    """Folder of the data set."""
    split: str = "test"
    """test or dev."""
    preset: str = "tiny"
    """tiny or paper."""
    epochs: int | None = None
    """Epochs, the same for every row (INTACT: of stage 2); the system's own number if not given."""
    reid_epochs: int | None = None
    """Epochs of INTACT's stage 1, which its rows share; the preset's schedule if not given."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; with several, the table prints mean and deviation."""
    precision: str = "float32"
    """float32 or mixed_bfloat16."""
    limit: int | None = None
    """Take this many people only."""
    steps: int | None = None
    """Train steps an epoch: a short run."""
    out: str | None = None
    """Folder of all rows; runs/ablations-DATA if not given."""


def recipe_options(recipe):
    """The class of a training recipe's options; refuses what is no training recipe."""
    declared = re.compile(r"^class \w+\((Backbone)?Options\):", re.MULTILINE)
    known = sorted(
        path.stem
        for path in HERE.glob("*.py")
        if path.stem != "common" and declared.search(path.read_text(encoding="utf-8"))
    )
    if recipe not in known:
        raise xr.InputError(f"no recipe {recipe!r} that trains: known are {', '.join(known)}")
    module = importlib.import_module(recipe)
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return next(c for c in classes if issubclass(c, common.Options) and c.__module__ == recipe)


def call(recipe, folder, *arguments):
    """Runs a recipe into a folder."""
    print(f"\n== {folder.name}: recipes/{recipe}.py {' '.join(arguments)}", flush=True)
    command = [sys.executable, str(HERE / f"{recipe}.py"), *arguments, "--out", str(folder)]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise xr.InputError(f"{folder} was not finished (exit status {status})")


def run(recipe, folder, *arguments):
    """Runs a recipe into a folder unless it is finished there; returns its metrics."""
    options = common.parsed(recipe_options(recipe), arguments, prog=f"{recipe}.py")
    if not (folder / "report.md").exists():
        resume = ["--resume"] if (folder / "options.json").exists() else []
        call(recipe, folder, *arguments, *resume)
    metrics = report.read_metrics(folder / "metrics.json")
    # A row that was run before may have been run otherwise.
    asked = common.plain(options)
    asked["backend"] = keras.backend.backend()
    for name, value in asked.items():
        found = metrics["options"].get(name, value)
        if found != value and name != "reid":  # stage 1 lies in this folder, however it is called
            raise xr.InputError(
                f"{folder} was run with {name} = {found}, not {value}: give another --out"
            )
    return metrics


def name_of(command):
    """A folder's name for a recipe and its options."""
    return "-".join(word.lstrip("-").replace("/", "-") for word in command.split())


def folder_of(options):
    return Path(options.out or f"runs/ablations-{options.data}")


def row_runs(options, command, epochs):
    """The metrics of a row, one a seed."""
    root, found = folder_of(options), []
    for seed in options.seeds:
        recipe, *settings = command.split()
        shared = ["--data", options.data, "--split", options.split, "--preset", options.preset]
        shared += ["--seed", str(seed), "--precision", options.precision]
        for name in ("data_dir", "limit", "steps"):
            value = getattr(options, name)
            shared += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        if recipe == "intact":
            reid = root / f"reid-seed{seed}"
            first = ["--epochs", str(options.reid_epochs)] if options.reid_epochs else []
            run("baseline", reid, *shared, *first)
            settings += ["--reid", str(reid / "model.weights.h5")]
        # A pair is two images: a baseline has twice the epochs, to see as many.
        own = 2 * epochs if recipe == "baseline" else epochs
        if recipe == "baseline" and options.preset == "paper":
            settings += ["--backbone", "resnet50"]  # as the systems of its tables have
        folder = root / f"{name_of(command)}-seed{seed}"
        found.append(run(recipe, folder, *shared, "--epochs", str(own), *settings))
    return found


def rank1_of(runs):
    """Mean LR rank-1 of a row and its error: the deviation over seeds, or a standard error."""
    values = [m["mean_lr"]["rank1"] for m in runs]
    if len(values) > 1:
        return statistics.mean(values), statistics.stdev(values)
    return values[0], standard_error(values[0], runs[0]["queries"])


def cells(runs):
    """Mean LR scores, image quality and minutes of a row as text."""
    text = ["{:.1f} ± {:.1f}".format(*rank1_of(runs))]
    for score in ("rank5", "rank10", "mAP"):
        text.append(f"{statistics.mean(m['mean_lr'][score] for m in runs):.1f}")
    for name, digits in (("psnr", 1), ("ssim", 3)):
        values = [
            m["image_quality"][f"{rate:g}"][name]
            for m in runs
            for rate in lr_rates(m["options"]["train_rates"])
            if (m["image_quality"] or {}).get(f"{rate:g}", {}).get(name) is not None
        ]
        text.append(f"{statistics.mean(values):.{digits}f}" if values else report.NOT_MEASURED)
    return [*text, f"{statistics.mean(m['seconds'] for m in runs) / 60:.1f}"]


def order_of(ours):
    """Names from worst to best, ≈ between neighbours less than an error apart."""
    names = sorted(ours, key=lambda name: ours[name][0])
    text = names[0]
    for before, name in itertools.pairwise(names):
        error = max(ours[before][1], ours[name][1])
        text += (" ≈ " if ours[name][0] - ours[before][0] < error else " < ") + name
    return names, text


def show(table, options):
    """Runs a table's rows; returns its title, header and rows, and sentences on their order."""
    system, number = table.split("-")
    epochs = options.epochs or EPOCHS[system]
    printed = papers.rows(PAPERS[system], int(number))
    # Where the paper has several data sets, the one that most ablations are on.
    known = {row.dataset for row in printed}
    dataset = "MLR-CUHK03" if "MLR-CUHK03" in known else printed[0].dataset
    printed = {row.model: row.scores for row in printed if row.dataset == dataset}
    titles = {"rank1": "rank-1", "mAP": "mAP", "psnr": "PSNR", "ssim": "SSIM"}
    quoted = [name for name in titles if any(name in scores for scores in printed.values())]
    header = ["row", "rank-1", "rank-5", "rank-10", "mAP", "PSNR", "SSIM", "min"]
    header += [f"paper's {titles[name]}" for name in quoted]
    rows, ours, psnr = [], {}, {}
    for name, command in TABLES[table].items():
        runs = row_runs(options, command, epochs)
        ours[name], text = rank1_of(runs), cells(runs)
        if text[4] != report.NOT_MEASURED:
            psnr[name] = float(text[4])
        paper = [printed[name].get(score) for score in quoted]
        rows.append([name, *text, *(report.NOT_MEASURED if v is None else str(v) for v in paper)])
    plain = [m["enlarged"]["mean_lr"] for m in runs if m["enlarged"]]
    if plain and all(plain):
        mean = statistics.mean(scores["rank1"] for scores in plain)
        empty = [report.NOT_MEASURED] * (len(header) - 2)
        rows.append(["merely enlarged", f"{mean:.1f}", *empty])
    names, text = order_of(ours)
    theirs = sorted(ours, key=lambda name: printed[name]["rank1"])
    told = "the paper's order" + (", but for what is not told apart" if "≈" in text else "")
    sentence = f"Rank-1 from worst to best (≈: less than ± apart): {text}; " + (
        f"{told}." if names == theirs else f"the paper: {' < '.join(theirs)}."
    )
    if len(psnr) == len(ours):
        sentence += f" Best PSNR: {max(psnr, key=psnr.get)}."
    title = (
        f"{PAPERS[system]} Table {number}, {described(options, epochs)}; paper's numbers on "
        f"{dataset}"
    )
    return title, header, rows, " ".join(filter(None, [sentence, NOTES.get(table)]))


def show_figure_5(options):
    """Runs RAIN's Figure 5, draws it, and returns its title, header and rows, and a sentence."""
    epochs = options.epochs or EPOCHS["rain"]
    lines = [
        {"label": name, "x": [100 * share for share in SHARES], "rank1": [], "error": []}
        for name in LABELED
    ]
    rows = []
    for share in SHARES:
        row = [f"{100 * share:g} %"]
        for line, command in zip(lines, LABELED.values(), strict=True):
            settings = "" if share == 1 else f" --labeled-fraction {share}"
            rank1, error = rank1_of(row_runs(options, command + settings, epochs))
            line["rank1"].append(rank1)
            line["error"].append(error)
            row.append(f"{rank1:.1f} ± {error:.1f}")
        paper = papers.RAIN_LABELED.get(round(100 * share))
        rows.append([*row, report.NOT_MEASURED if paper is None else str(paper)])
    note = "bars: ± one standard error" if len(options.seeds) == 1 else "bars: deviation over seeds"
    figures.rank_lines(
        folder_of(options) / f"{FIGURE_5}.png", lines, "images with a label (%)", note
    )
    title = (
        f"RAIN Figure 5: rank-1 against the share of labels, {described(options, epochs)}; "
        "paper's numbers on MLR-CUHK03"
    )
    sentence = (
        "RAIN's reconstruction and adversarial losses see every image, labelled or not. The "
        "baselines see those with a label only: networks trained with cross-entropy alone and "
        "compared by cosine, so that the one trained on HR & LR (baseline --train-on hr+lr) is not "
        "Table 1's row of that name (rain --without adv). "
        f"The figure is {FIGURE_5}.png. With all labels the paper has 60.6 for the baseline "
        "trained on HR and 65.9 for the one trained on HR & LR."
    )
    return title, ["labelled", *LABELED, "paper's RAIN"], rows, sentence


def scored_as(options, folder, told, rates):
    """Scores per rate of a finished run whose model is told other rates than the true ones."""
    where = folder / ("as-" + "-".join(told))
    if not (where / "metrics.json").exists():
        shared = ["--data", options.data, "--split", options.split]
        for name in ("data_dir", "limit"):
            value = getattr(options, name)
            shared += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        shared += ["--rates", *rates, "--score-as", *told]
        call("evaluate", where, "--weights", str(folder), *shared)
    return report.read_metrics(where / "metrics.json")["per_rate"]


def show_table_5(options):
    """Runs the fourth paper's Table V; returns its title, header and rows, and a sentence."""
    epochs = options.epochs or EPOCHS["adaptive"]
    scores = ("rank1", "rank5", "rank10", "rank20")
    printed = {row.model: row.scores for row in papers.rows("Adaptive", 5)}
    rows = []
    for training, more in (("progressive", ""), ("end-to-end", " --end-to-end")):
        for name, (command, told, rate) in NEAREST.items():
            runs = row_runs(options, command + more, epochs)
            found = [m["per_rate"] for m in runs]
            if told:
                places = [
                    folder_of(options) / f"{name_of(command + more)}-seed{seed}"
                    for seed in options.seeds
                ]
                found = [scored_as(options, place, told, ("3", "6")) for place in places]
            values = [statistics.mean(per_rate[rate][s] for per_rate in found) for s in scores]
            error = standard_error(values[0], runs[0]["queries"])
            if len(found) > 1:
                error = statistics.stdev(per_rate[rate]["rank1"] for per_rate in found)
            row = f"{name}, {training}"
            rows.append([row, f"{values[0]:.1f} ± {error:.1f}", *(f"{v:.1f}" for v in values[1:])])
            rows[-1].append(str(printed[row]["rank1"]))
    title = (
        f"Adaptive Table 5: rates not trained on, {described(options, epochs, False)}; "
        "paper's numbers on MLR-CUHK03"
    )
    sentence = (
        "Trained on rates 2, 4 and 8 beside 1, an image of rate 3 or 6 is treated as one of its "
        'neighbours; "seen" is trained on 2, 3 and 6 instead.'
    )
    header = ["row", "rank-1", "rank-5", "rank-10", "rank-20", "paper's rank-1"]
    return title, header, rows, sentence


def described(options, epochs, mean=True):
    return (
        f"{options.data} ({options.split} people), "
        f"{'mean over the rates 2, 3, 4, ' if mean else ''}"
        f"{epochs} epochs a row, seeds {', '.join(map(str, options.seeds))}"
        f"{'' if options.precision == 'float32' else ', ' + options.precision}"
    )


def main(options):
    known = [*TABLES, FIGURE_5, TABLE_5]
    if options.table == "all":
        chosen = [*TABLES, TABLE_5]
    elif options.table in PAPERS:
        chosen = [t for t in (*TABLES, TABLE_5) if t.startswith(f"{options.table}-")]
    elif options.table in known:
        chosen = [options.table]
    else:
        names = ", ".join([*known, *PAPERS, "all"])
        raise xr.InputError(f"unknown table {options.table!r}: known are {names}")
    parts = []
    for table in chosen:
        special = {FIGURE_5: show_figure_5, TABLE_5: show_table_5}
        found = special[table](options) if table in special else show(table, options)
        title, header, rows, sentence = found
        print(f"\n{title}\n\n{report.text_table(header, rows)}\n\n{sentence}", flush=True)
        parts += [f"## {title}", report.markdown(header, rows), sentence]
        if table == FIGURE_5:
            parts.append(f"![{title.split(',')[0]}]({FIGURE_5}.png)")
        # What is finished is written, so that a table that fails costs none before it.
        page = folder_of(options) / f"{options.table}.md"
        text = "\n\n".join(parts) + "\n"
        write_page(page.with_suffix(".html"), text)
        files.write_text_atomic(page, text)
    print(f"\nWritten to {page}")


if __name__ == "__main__":
    common.start(main, AblationOptions, __doc__)

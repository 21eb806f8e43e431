"""The tables of this project and of the papers: rows are trained one after another, and printed.

    python recipes/tables.py rain-3
    python recipes/tables.py cadnet --seeds 0 1 2
    python recipes/tables.py --plan all --data market1501 --data-dir DIR > jobs.tsv
    python recipes/tables.py main --from FOLDER

`main` has every system with one budget; `rain-3` is a table of a paper beside its numbers; `rain`
has a system's tables, `all` every one. A row that two tables print is run once. A finished row is
not run again, an interrupted one goes on where it was: the command can be repeated at any time. On
two cores a row of the embedded set takes about three minutes. --plan prints the jobs and runs
nothing; --from prints what is finished in a folder and says which rows are not run.
"""

import dataclasses
import importlib
import itertools
from pathlib import Path
from typing import Annotated

import common  # first: it chooses the backend
import tyro
from jobs import CONTROL, FIRST, LONG, SYSTEM, Jobs, Row, name_of

import keras_xreid as xr

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
    "tiny": {"intact": 3, "rain": 2, "cadnet": 1, "adaptive": 4},
    "strong": {"intact": 1, "rain": 1, "cadnet": 1, "adaptive": 4},
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
SINGLE_SHOT = ("rank-1", "single-shot")


@dataclasses.dataclass
class TableOptions:
    tables: tyro.conf.Positional[tuple[str, ...]]
    """main; a paper's table, rain-3; a system's tables, rain; rain-figure-5; or all."""
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
    """each-rate, if not given; or one that fixes each query's rate: paper, see baseline.py."""
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
        epochs = importlib.import_module(recipe).EPOCHS["paper"]
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
            command, epochs_of(options, command), scored=quality if "cadnet" in command else ()
        )
        for label, command in TABLES[table].items()
    }
    if table == "rain-2" and options.protocol not in (None, "each-rate"):
        rows["Ours, r = 8"] = dataclasses.replace(rows["Ours"], scored=("r8", "--query-rates", "8"))
    if options.protocol not in (None, "each-rate"):  # which a network for each rate needs
        rows = {label: row for label, row in rows.items() if "--one-per-rate" not in row.command}
    return rows


def seeds_of(options, table):
    """Seeds of a table's rows; the control that others begin from has one."""
    several = table == "main" and (options.plan or options.from_)
    return options.seeds or ((0, 1) if several else (0,))


def jobs_of(tables, options, root):
    """The jobs of some tables, and the names of each table's rows: {table: {row: names}}."""
    jobs, names = Jobs(options, root, control(options), train=not options.from_), {}
    for table in tables:
        names[table] = {
            label: jobs.of_row(
                row, (0,) if row.stage in (FIRST, LONG) else seeds_of(options, table)
            )
            for label, row in rows_of(table, options).items()
        }
    return jobs, names


def settle(options):
    """Fills in what follows from the rest; refuses bad values. Returns the tables asked for."""
    chosen = []
    for name in options.tables:
        if name != "all" and name not in (*PAPERS, *KNOWN):
            known = ", ".join([*KNOWN, *PAPERS, "all"])
            raise xr.InputError(f"unknown table {name!r}: known are {known}")
        chosen += [t for t in KNOWN if name in ("all", t) or t.startswith(f"{name}-")]
    if not chosen:
        raise xr.InputError(f"no table was asked for: known are {', '.join([*KNOWN, 'all'])}")
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
    return list(dict.fromkeys(chosen))


def print_plan(chosen, options, root):
    jobs, _ = jobs_of(chosen, options, root)
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, fold=options.fold,
        split_id=options.split_id[0], limit=options.limit, need=("train",),
    )  # fmt: skip
    print("\n".join(jobs.plan(len(data.train))))


def main(options):
    chosen = settle(options)
    folder = Path(options.out or f"runs/tables-{options.data}")
    root = Path(options.from_ or folder)
    if options.plan:
        return print_plan(chosen, options, root)


if __name__ == "__main__":
    common.start(main, TableOptions, __doc__)

"""The tables by their rows: which recipe each row is, with which options and for how long."""

import dataclasses
import itertools

from keras_xreid.app import recipes, table_figures
from keras_xreid.app.jobs import CONTROL, FIRST, LONG, LR_QUERIES, SYSTEM, Row, name_of
from keras_xreid.data.datasets import DEV_PEOPLE

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
# about three minutes of the built-in set on two cores, and 15,000 images where rows begin from
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

# The project's own: how a system and its control fare with fewer people to train on. Each row sees
# as many images, in the more epochs the fewer people it has; the second and the third row begin
# from the first.
PEOPLE = "people"
NUMBERS = (100, 200, 400)
# Data sets that have fewer to train on.
FEW = {"synthetic": 100, "synthetic-b": 100, "viper": 316, "caviar": 25, "caviar-native": 25}
OF_PEOPLE = {"HR": "baseline", "HR & LR": "baseline --train-on hr+lr", "RAIN": "rain"}
KNOWN = ("main", *TABLES, FIGURE_5, TABLE_5, PEOPLE)


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


def fixes_rates(options):
    """Whether each query has a rate of its own, by --protocol or because the data set has it so."""
    return options.protocol not in (None, "each-rate") or options.data in LR_QUERIES


def numbers_of(options):
    """Those of NUMBERS that the data set has people for; of finished runs all."""
    most = FEW.get(options.data, NUMBERS[-1])
    if options.split == "dev" and options.data in FEW:
        most -= min(DEV_PEOPLE, most // 2)
    return [number for number in NUMBERS if number <= most or options.from_]


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
    if table == PEOPLE:
        rows, numbers = {}, numbers_of(options)
        for number, (label, command) in itertools.product(numbers, OF_PEOPLE.items()):
            epochs = round(2 * epochs_of(options, command) * numbers[-1] / number)
            told = f"{command} --train-people {number}"
            first = f"row-{name_of(f'baseline --train-people {number}')}"
            start = "preset" if label == "HR" else first
            rows[f"{label}, {number}"] = Row(told, epochs, start=start, share=number / numbers[-1])
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
    quality = ("quality", "--lpips") if options.lpips else ()
    rows = {
        label: Row(
            command,
            epochs_of(options, command),
            OLD_NAMES.get(command),
            scored=quality if "cadnet" in command else (),
        )
        for label, command in TABLES[table].items()
    }
    drawn = fixes_rates(options) and options.data not in LR_QUERIES
    if table == "rain-2" and drawn:
        rows["Ours, r = 8"] = dataclasses.replace(rows["Ours"], scored=("r8", "--query-rates", "8"))
    if fixes_rates(options):  # a network for each rate needs every query at every rate
        rows = {label: row for label, row in rows.items() if row.command != "one_per_rate"}
    return rows

"""The tables of this project and of the papers: rows are trained one after another, and printed.

    xreid tables rain-3
    xreid tables cadnet --seeds 0 1 2
    xreid tables --plan all --data market1501 --data-dir DIR > jobs.tsv
    xreid tables main --from FOLDER
    xreid tables published --data market1501 --data-dir DIR

`main` has the papers' systems and the baselines with one budget; `rain-3` is a table of a paper
beside its numbers; `rain` has a system's tables, `people` a system and its control with fewer
people to train on, `all` every one. A row that two tables print is run once. A finished row is not
run again, an interrupted one goes on where it was: the command can be repeated at any time. On two
cores a row of the built-in set takes about three minutes. --plan prints the jobs and runs nothing;
--from prints what is finished in a folder and says which rows are not run. `published` trains
nothing: it scores the published weights of --data again, from their files.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

import keras_xreid as xr
from keras_xreid import app, files
from keras_xreid.app import folder as folders
from keras_xreid.app import table_figures, table_published
from keras_xreid.app.jobs import FIRST, LONG, Jobs
from keras_xreid.app.table_pages import section_of
from keras_xreid.app.table_rows import (
    KNOWN,
    NUMBERS,
    PEOPLE,
    TABLE_5,
    control,
    fixes_rates,
    numbers_of,
    rows_of,
)
from keras_xreid.report import papers
from keras_xreid.report.page import write_page


@dataclasses.dataclass
class Options:
    tables: tyro.conf.Positional[tuple[str, ...]]
    """main; people; a paper's table, rain-3; a system's tables, rain; all tables; or a figure of a
    paper, rain-figure-5: intact-figure-4, cadnet-figure-3 and 4, rain-figure-3 and 4,
    adaptive-figure-4 show people of the data set. Or, alone, published."""
    plan: bool = False
    """Print the jobs, a line each: name, needs, core-hours and command. Nothing is run."""
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Folder of finished runs, NAME or NAME/run by the names of --plan. Nothing is trained."""
    data: str = "synthetic"
    """Data set, as `xreid train` takes it."""
    data_dir: str | None = None
    """Folder of the data set."""
    split: str = "test"
    """test or dev."""
    fold: int = 0
    """Which people dev holds out: 0, 1 or 2."""
    protocol: str | None = None
    """each-rate, if not given; or one that fixes each query's rate, see `xreid build --help`.
    Trained rows are scored by it once more, and not trained again."""
    split_id: tuple[int, ...] = (0,)
    """Splits of the data set; of several, the table prints mean, deviation and 95 % interval."""
    splits: int | None = None
    """The first so many splits: 10 for viper, caviar and cuhk03, as the papers have them."""
    preset: str | None = None
    """tiny, strong or paper; if not given, tiny for the built-in people and strong for others."""
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
    known = (*KNOWN, *table_figures.RUNS, *papers.OF_SYSTEM, "all", "published")
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
    if fixes_rates(options):
        if TABLE_5 in options.tables:
            raise xr.InputError(
                f"{TABLE_5} tells the model other rates, which {options.protocol or options.data} "
                "fixes: give no --protocol, or other --data"
            )
        chosen = [table for table in chosen if table != TABLE_5]
    if not numbers_of(options):
        if PEOPLE in options.tables:
            raise xr.InputError(
                f"{PEOPLE} trains on {NUMBERS[0]} people or more, and {options.data} has fewer "
                f"(--split {options.split}): give other --data"
            )
        chosen = [table for table in chosen if table != PEOPLE]
    return list(dict.fromkeys(chosen))


def print_plan(chosen, options, root):
    jobs, _ = jobs_of(chosen, options, root)
    data = xr.datasets.load(
        options.data, options.data_dir, split=options.split, fold=options.fold,
        split_id=options.split_id[0], limit=options.limit, need=("train",),
    )  # fmt: skip
    print("\n".join(jobs.plan(len(data.train))))


def main(options):
    folder = Path(options.out or f"runs/tables-{options.data}")
    if "published" in options.tables:
        table_published.refuse_others(options)
        with folders.locked(folder):
            return table_published.write(options, folder)
    chosen = settle(options)
    root = Path(options.from_ or folder)
    if options.plan:
        return print_plan(chosen, options, root)
    if options.from_ and not root.is_dir():
        raise xr.InputError(f"--from {root}: no such folder")
    with folders.locked(folder):
        write(chosen, options, folder, root)


def write(chosen, options, folder, root):
    """Runs what is not finished, and writes the tables; nobody else writes there meanwhile."""
    jobs, names = jobs_of(chosen, options, root)
    page, parts = folder / f"{'-'.join(options.tables)}.md", []
    for table in chosen:
        found, missing = {}, []
        for label, of_row in names[table].items():
            of_each = {name: jobs.metrics(name) for name in of_row}
            found[label] = [metrics for metrics in of_each.values() if metrics]
            missing += [name for name, metrics in of_each.items() if not metrics]
        section = section_of(table, found, folder, options)
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

"""The rows of a paper's table, one after the other, printed beside the paper's numbers.

    python recipes/ablations.py intact-3
    python recipes/ablations.py all --epochs 3

Every row has the same images, epochs and seed, and shares the first stage. A finished row is not
run again, an interrupted one goes on where it was: the command can be repeated at any time.
On two cores a row of the embedded set takes about three minutes.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import common  # first: it chooses the backend
import tyro

import keras_xreid as xr
from keras_xreid.evaluation import papers, report
from keras_xreid.evaluation.ranking import standard_error

HERE = Path(__file__).parent

# INTACT's rows by the names that its tables print, with the options of recipes/intact.py.
FULL = ()
TABLES = {
    "intact-2": {
        "Sole SR": ("--supervision", "mse"),
        "SR + ID": ("--supervision", "mse+id"),
        "INTACT": FULL,
    },
    "intact-3": {
        "MSE+ID": ("--supervision", "mse+id"),
        "MSE+ID+GAN": ("--supervision", "mse+id+gan"),
        "MSE+ID+GAN+Association": FULL,
    },
    "intact-4": {
        "Common Space (a)": ("--association", "common"),
        "D-to-R (b)": ("--association", "d-to-r"),
        "R-to-D (c, ours)": FULL,
    },
    "intact-5": {
        "W/O (Fig. 5 (d))": ("--no-bridge",),
        "W (Fig. 5 (c))": FULL,
    },
}


@dataclasses.dataclass
class AblationOptions:
    table: tyro.conf.Positional[str]
    """intact-2, intact-3, intact-4, intact-5 or all."""
    data: str = "synthetic"
    """Data set, as in the other recipes."""
    data_dir: str | None = None
    """Folder of the data set."""
    split: str = "test"
    """test or dev."""
    preset: str = "tiny"
    """tiny or paper."""
    epochs: int = 3
    """Epochs of stage 2, the same for every row."""
    reid_epochs: int | None = None
    """Epochs of stage 1, which the rows share; the preset's schedule if not given."""
    seeds: tuple[int, ...] = (0,)
    """Seeds; with several, the table prints mean and deviation."""
    limit: int | None = None
    """Take this many people only."""
    steps: int | None = None
    """Train steps an epoch: a short run."""
    out: str | None = None
    """Folder of all rows; runs/ablations-DATA if not given."""


def run(recipe, folder, *arguments):
    """Runs a recipe into a folder unless it is finished there; returns its metrics."""
    if not (folder / "report.md").exists():
        resume = ["--resume"] if (folder / "options.json").exists() else []
        print(f"\n== {folder.name}: recipes/{recipe} {' '.join(arguments)}", flush=True)
        command = [sys.executable, str(HERE / recipe), *arguments, "--out", str(folder), *resume]
        status = subprocess.run(command, check=False).returncode
        if status:
            raise xr.InputError(f"{folder} was not finished (exit status {status})")
    metrics = json.loads((folder / "metrics.json").read_text())
    # A row that was run before may have been run otherwise.
    for name, value in zip(arguments[::2], arguments[1::2], strict=False):
        found = metrics["options"].get(name.lstrip("-").replace("-", "_"))
        if found is not None and str(found) != value:
            raise xr.InputError(f"{folder} was run with {name} {found}, not {value}: give an --out")
    for name in ("limit", "steps"):
        if metrics["options"][name] is not None and f"--{name}" not in arguments:
            raise xr.InputError(f"{folder} holds a short run (--{name}): give another --out")
    return metrics


def row_runs(options, settings):
    """The metrics of a row, one a seed."""
    root = Path(options.out or f"runs/ablations-{options.data}")
    found = []
    for seed in options.seeds:
        shared = ["--data", options.data, "--split", options.split, "--preset", options.preset]
        shared += ["--seed", str(seed)]
        for name in ("data_dir", "limit", "steps"):
            value = getattr(options, name)
            shared += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
        first = ["--epochs", str(options.reid_epochs)] if options.reid_epochs else []
        reid = root / f"reid-seed{seed}"
        run("baseline.py", reid, *shared, *first)
        name = "-".join(s.lstrip("-") for s in settings) or "full"
        weights = ["--reid", str(reid / "model.weights.h5"), "--epochs", str(options.epochs)]
        found.append(run("intact.py", root / f"{name}-seed{seed}", *shared, *weights, *settings))
    return found


def cells(runs):
    """Mean LR scores and image quality of a row as text, with rank-1 as a number first."""

    def mean(values):
        return sum(values) / len(values)

    rank1 = [m["mean_lr"]["rank1"] for m in runs]
    if len(runs) > 1:
        error = (sum((r - mean(rank1)) ** 2 for r in rank1) / (len(runs) - 1)) ** 0.5
    else:
        error = standard_error(rank1[0], runs[0]["queries"])
    text = [f"{mean(rank1):.1f} ± {error:.1f}"]
    text += [f"{mean([m['mean_lr'][s] for m in runs]):.1f}" for s in ("rank5", "rank10", "mAP")]
    for name, digits in (("psnr", 1), ("ssim", 3)):
        values = [
            m["image_quality"][f"{rate:g}"][name]
            for m in runs
            for rate in m["options"]["train_rates"]
            if m["image_quality"].get(f"{rate:g}", {}).get(name) is not None
        ]
        text.append(f"{mean(values):.{digits}f}" if values else report.NOT_MEASURED)
    minutes = mean([m["seconds"] for m in runs]) / 60
    return mean(rank1), [*text, f"{minutes:.1f}"]


def show(table, options):
    """Runs a table's rows and returns its header, its rows and a sentence on their order."""
    printed = {row.model: row.scores for row in papers.rows("INTACT", int(table[-1]))}
    header = ["row", "rank-1", "rank-5", "rank-10", "mAP", "PSNR", "SSIM", "min"]
    header += ["paper rank-1", "PSNR", "SSIM"]
    rows, ours, theirs, best = [], {}, {}, {}
    for name, settings in TABLES[table].items():
        runs = row_runs(options, settings)
        ours[name], text = cells(runs)
        best[name] = float(text[4]) if text[4] != report.NOT_MEASURED else None
        paper = printed[name]
        theirs[name] = paper["rank1"]
        quality = [paper.get("psnr"), paper.get("ssim")]
        shown = [report.NOT_MEASURED if v is None else str(v) for v in quality]
        rows.append([name, *text, str(paper["rank1"]), *shown])
    plain = [m["enlarged"]["mean_lr"]["rank1"] for m in runs]
    rows.append(["merely enlarged", f"{sum(plain) / len(plain):.1f}", *["-"] * 9])
    order = sorted(ours, key=ours.get)
    same = order == sorted(theirs, key=theirs.get)
    sentence = f"Rank-1 from worst to best: {' < '.join(order)}; " + (
        "the paper's order."
        if same
        else f"the paper: {' < '.join(sorted(theirs, key=theirs.get))}."
    )
    if all(v is not None for v in best.values()):
        sentence += f" Best PSNR: {max(best, key=best.get)}."
    return header, rows, sentence


def main(options):
    chosen = list(TABLES) if options.table == "all" else [options.table]
    if chosen[0] not in TABLES:
        raise xr.InputError(f"unknown table {options.table!r}: known are {', '.join(TABLES)}, all")
    lines = []
    for table in chosen:
        header, rows, sentence = show(table, options)
        source = papers.rows("INTACT", int(table[-1]))[0]
        title = (
            f"INTACT Table {source.table}, {options.data} ({options.split} people), "
            f"mean over the trained low-resolution "
            f"rates, {options.epochs} epochs a row, seeds {', '.join(map(str, options.seeds))}; "
            f"paper's numbers on {source.dataset}"
        )
        print(f"\n{title}\n\n{report.text_table(header, rows)}\n\n{sentence}", flush=True)
        lines += [f"## {title}", report.markdown(header, rows), sentence]
    root = Path(options.out or f"runs/ablations-{options.data}")
    (root / "ablations.md").write_text("\n\n".join(lines) + "\n")
    print(f"\nWritten to {root / 'ablations.md'}")


if __name__ == "__main__":
    common.start(main, AblationOptions, __doc__)

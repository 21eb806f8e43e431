"""What training and embedding cost: each system's step, and each published file, in turn.

    OMP_NUM_THREADS=1 python tests/benchmarks/costs.py train
    python tests/benchmarks/costs.py embed --write

train: a step of 64 images, by the strong preset. Each recipe runs with 4 and with 24 steps, on the
built-in people. The difference of their CPU time, by 20, is what a step takes: nothing that is done
once is in it, and what other jobs take is not, either.

embed: images a second of all published weights. They take turns, and the median of the rounds
counts. --write puts it on their cards, and into weights/.
"""

import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import tyro

ROOT = Path(__file__).parents[2]
HR = "baseline_hr_strong_market1501_501"  # what a step costs does not depend on where it begins
ROWS = {
    "baseline, HR & LR": ("baseline", "--train-on", "hr+lr"),
    "INTACT, stage 2": ("intact", "--reid", HR),
    "distilled": ("distilled", "--reid", HR),
    "RAIN": ("rain",),
    "CAD-Net": ("cadnet",),
    "resolution-adaptive": ("adaptive",),
}
FEW, MANY = 4, 24


@dataclasses.dataclass
class Options:
    part: tyro.conf.Positional[Literal["train", "embed"]]
    """A step of each system, or an image of all published weights."""
    rounds: int = 3
    """How often each is measured, in turn; the median counts."""
    precision: str = "float32"
    """Of train: float32 or mixed_bfloat16."""
    write: bool = False
    """Of embed: put the speeds into weights/."""


def cpu_seconds(words, steps, folder):
    """CPU time of a recipe that trains for some steps and scores at rate 1."""
    recipe, *words = words
    command = [
        sys.executable, ROOT / "recipes" / f"{recipe}.py", "--preset", "strong", "--epochs", "1",
        "--steps", str(steps), "--rates", "1", "--out", folder / f"{steps}", "--overwrite", *words,
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def train(options):
    """Seconds of a step, by the name of a row: the median, the least and the most."""
    seconds = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        for words in ROWS.values():  # what a first run draws and keeps counts in none
            cpu_seconds(words, 1, Path(folder))
        for _ in range(options.rounds):
            for name, words in ROWS.items():
                words = (*words, "--precision", options.precision)
                few, many = (cpu_seconds(words, steps, Path(folder)) for steps in (FEW, MANY))
                seconds[name].append((many - few) / (MANY - FEW))
                print(f"{name}: {seconds[name][-1]:.2f} s", flush=True)
    return {name: (statistics.median(of), min(of), max(of)) for name, of in seconds.items()}


def embed(options):
    """Images a second of all published weights, the same way."""
    import keras_xreid as xr
    from keras_xreid.app import publish

    models = {name: xr.load(name) for name, card in xr.published().items() if card["file"]}
    speeds = {name: [] for name in models}
    for _ in range(options.rounds):
        for name, model in models.items():
            speeds[name].append(publish.embedding_speed(model))
            print(f"{name}: {speeds[name][-1]:.1f} images/s", flush=True)
    found = {name: (statistics.median(of), min(of), max(of)) for name, of in speeds.items()}
    if options.write:
        publish.write_speeds(ROOT / "weights", {name: of[0] for name, of in found.items()})
    return found


def main(options):
    from keras_xreid.app.machine import machine
    from keras_xreid.report.tables import markdown

    if options.part == "train":
        found = train(options)
        header = ["system", "CPU seconds of a step", "least", "most", "of the baseline's"]
        base = found["baseline, HR & LR"][0]
        rows = [
            [name, *(f"{value:.2f}" for value in of), f"{of[0] / base:.1f}"]
            for name, of in found.items()
        ]
    else:
        header = ["weights", "images a second", "least", "most"]
        rows = [[name, *(f"{v:.0f}" for v in of)] for name, of in embed(options).items()]
    print("\n" + markdown(header, rows) + "\n")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{machine()['cpu']}, {threads} threads, {os.environ['KERAS_BACKEND']}")


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    main(tyro.cli(Options, description=__doc__))

"""Kills training at random moments and resumes it: the end is that of a run that never stopped.

    KERAS_BACKEND=torch python tests/kills.py --times 20 --seed 0

INTACT, with its three optimizers, trains on the built-in people. A moment is drawn between the
first step and the end of scoring; a quarter of the kills come while a checkpoint is written. A
killed run is resumed, and may be killed again. 20 kills take about 15 minutes on one core.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
SHORT = ("--limit", "4", "--steps", "2", "--batch-size", "4", "--epochs", "3", "--reid-epochs", "2",
         "--rates", "1", "2")  # fmt: skip
BEGUN = b"results in"  # what a run prints before its first step


def start(out):
    """Starts INTACT in a folder, or resumes it; returns the process and the file of its words."""
    more = ["--resume"] if (out / "options.json").exists() else []
    words = [sys.executable, str(ROOT / "recipes/intact.py"), *SHORT, "--out", str(out), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    log = out.with_suffix(".log")
    with open(log, "wb") as file:
        return subprocess.Popen(words, stdout=file, stderr=file, env=environment), log


def waited(process, until, pause=0.002):
    """Waits until something is true; False where the process ended before."""
    while not until():
        if process.poll() is not None:
            return False
        time.sleep(pause)
    return True


def begun(process, log):
    """Waits for a run's first step; returns when it was."""
    waited(process, lambda: BEGUN in log.read_bytes(), 0.05)
    return time.monotonic()


def ended(process, log):
    """Waits for a run's end, which has to be a good one."""
    if process.wait():
        raise SystemExit(f"the run failed:\n{log.read_text(errors='replace')[-3000:]}")


def killed(process, out, log, rng, seconds, writing):
    """Kills a run at a random moment; None if it was finished before.

    Args:
        process, out, log: of the run.
        rng: draws the moment.
        seconds: what a whole run takes.
        writing: kill it while a checkpoint is written.

    Returns:
        The moment, in words.
    """

    def unfinished():
        return list(out.glob("unfinished-checkpoint-*"))

    began = begun(process, log)
    moment = began + rng.uniform(0, seconds)
    if writing:
        for _ in range(rng.integers(1, 3)):
            waited(process, lambda: not unfinished()) and waited(process, unfinished)
        moment = time.monotonic() + rng.uniform(0, 0.03)
    if not waited(process, lambda: time.monotonic() >= moment):
        return None
    process.kill()
    process.wait()
    if not (out / "options.json").exists():
        return "before its first word"
    half = [path.name.removeprefix("unfinished-") for path in unfinished()]
    return f"{time.monotonic() - began:.2f} s after its first word" + (
        f", while {half[0]} was written" if half else ""
    )


def whole(out):
    """The checkpoints that lie in a folder, each of which can be opened, with their epoch."""
    found = {}
    for path in sorted(out.glob("checkpoint-*.weights.h5")):
        with h5py.File(path) as file:
            found[path.name.split("-")[1].split(".")[0]] = int(file.attrs["epoch"])
    return ", ".join(f"{stage} {epoch}" for stage, epoch in found.items()) or "none"


def result(out):
    """All that has to be equal: arrays, history without times, scores, and the files there are."""
    found = {"files": sorted(str(p.relative_to(out)) for p in out.rglob("*"))}
    for name in ("reid", "model"):
        with h5py.File(out / f"{name}.weights.h5") as file:
            arrays = []
            file.visititems(lambda path, x: arrays.append((path, x)))  # noqa: B023
            found |= {f"{name}/{p}": x[()] for p, x in arrays if isinstance(x, h5py.Dataset)}
    with open(out / "history.csv", newline="") as file:
        rows = [
            {k: v for k, v in row.items() if not k.endswith(("seconds", "per_second"))}
            for row in csv.DictReader(file)
        ]
    metrics = json.loads((out / "metrics.json").read_text())
    return {**found, "history": rows, "scores": [metrics["per_rate"], metrics["mean_lr"]]}


def different(first, second):
    """The names of what is not equal, bit by bit."""
    names = sorted({*first, *second})
    return [n for n in names if n not in first or n not in second
            or not np.array_equal(first[n], second[n])]  # fmt: skip


def main(times=20, seed=0, writing=None):
    """Kills so many times and prints a line for each; returns whether every end is the right one.

    Args:
        times: number of kills.
        seed: of their moments.
        writing: how many of them come while a checkpoint is written; a quarter if None.
    """
    rng = np.random.default_rng(seed)
    left = times // 4 if writing is None else writing
    with tempfile.TemporaryDirectory() as place:
        never = Path(place) / "never-stopped"
        process, log = start(never)
        began = begun(process, log)
        ended(process, log)
        seconds, expected = time.monotonic() - began, result(never)
        print(f"never stopped: {seconds:.0f} s, {len(expected)} things to compare", flush=True)
        kills = runs = wrong = 0
        while kills < times or left:
            runs += 1
            out = Path(place) / f"run-{runs}"
            while kills < times or left:
                # Those that are left are spread over the kills that are left.
                write = rng.random() < left / max(1, times - kills)
                process, log = start(out)
                moment = killed(process, out, log, rng, seconds, write)
                if moment is None:
                    break
                kills += 1
                left -= write and "while" in moment  # or else it came too late
                print(f"kill {kills}, run {runs}: {moment}; whole: {whole(out)}", flush=True)
                if (out / "report.md").exists():  # it came when all was written
                    process = None
                    break
            else:
                process, log = start(out)
            if process is not None:
                ended(process, log)
            apart = different(expected, result(out))
            wrong += bool(apart)
            verdict = f"DIFFERENT in {', '.join(apart)}" if apart else "equal, bit by bit"
            print(f"run {runs}: {verdict}", flush=True)
    print(f"{kills} kills, {runs} runs, {wrong} of them different")
    return not wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--writing", type=int)
    sys.exit(not main(**vars(parser.parse_args())))

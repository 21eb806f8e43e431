"""Measures speed and memory beside hand-written PyTorch: every speed claim is made with this.

    python tests/benchmarks/speed.py
    python tests/benchmarks/speed.py --cases resnet50 --contenders handwritten torch
    python tests/benchmarks/speed.py --cases input input-train --data market1501 --data-dir DIR
    python tests/benchmarks/speed.py --batch-size 64 --precision mixed_bfloat16 --compiled  # GPU

Each contender waits in a process of its own with its model ready (cases.py). In every
round each is timed once, in turn and for about --seconds, so that a machine that slows down hits
all alike; ratios are taken within a round. Printed and written to --out are medians and the
smallest and largest round. The five network cases take about 15 minutes on two cores with torch
and tensorflow.

Contenders: `handwritten` (handwritten.py), `torch`, `tensorflow`, `jax`, and each of these with
`-plain`, without its fast path; those that are not installed are left out.

Cases and tasks: `resnet50`, `osnet_x1_0`, `tiny`, `efficientnet_lite0` (a Baseline each) and
`intact`: `train`, one step from a uint8 batch to updated weights through `fit`, and `embed`, from
uint8 images to NumPy features; `--tasks embed predict` adds Keras's `predict`. `passes` and
`optimizer` are the parts of INTACT's train step on torch, run in a plain loop: what is left over is
the engine. `input`: batches from image files, with two workers, beside a torch DataLoader; `first`
is the first epoch, decoding included, the others the epochs after it. `input-train`: ResNet-50
trained on real batches beside one cached batch. `adaptive`: what masks and vectors of varying
length cost a tiny network, in `embed` and in `match`, the distances of 1,000 queries of four rates
to 16,000 gallery images.

Operations are those of convolutions and matrix products, 2 for a multiply-add; the peak is that
of one big matrix product in the same run. Peak memory is what the train step adds to a process
that has only imported its libraries. TF32 is off everywhere.
"""

import dataclasses
import datetime
import importlib.util
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cases import CASES, CONTENDERS, INPUT_SIZE, Worker, WorkerFailed

from keras_xreid.app.machine import cores, machine

# What a ratio is taken to: whichever of these was measured for the same task.
REFERENCES = ("handwritten", "DataLoader", "cached batch", "plain network")
# PyTorch's threads wait for each other busily: another process on one of two cores can cost it not
# half but nearly all of its speed, and TensorFlow a little. So a disturbed turn is made known.
DISTURBED = 0.1


@dataclasses.dataclass
class Options:
    cases: tuple[str, ...] = CASES
    """resnet50, osnet_x1_0, tiny, efficientnet_lite0, intact, input, input-train, adaptive."""
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    """handwritten, torch, tensorflow, jax, each with -plain or not; ratios need handwritten."""
    tasks: tuple[str, ...] = ("train", "embed")
    """Of the network cases: train, embed, predict (as embed, by Keras's predict of each part)."""
    batch_size: int | None = None
    """Images a step; 16 at 256x128 and 32 at 128x64 if not given."""
    precision: str = "float32"
    """float32 or mixed_bfloat16 (hand-written: autocast)."""
    compiled: bool = False
    """compile(jit_compile=True), torch.compile for the hand-written networks; else the defaults."""
    rounds: int = 5
    """How often each contender is timed, after warming up."""
    seconds: float = 3.0
    """About how long it is timed in a round, one step at least."""
    threads: int | None = None
    """Cores that each process may use; all if not given."""
    data: str = "synthetic"
    """Data set of the input cases: synthetic, market1501 or csv."""
    data_dir: str | None = None
    """Folder of the data set; synthetic needs none."""
    out: str = "runs/benchmark"
    """Folder for benchmark.json and benchmark.md."""
    overwrite: bool = False
    """Replace the results in --out."""


# --- the run -----------------------------------------------------------------------------------


def main(options):
    import keras_xreid as xr
    from keras_xreid import files
    from keras_xreid.report.tables import markdown, text_table

    check(options)
    contenders, left_out = [], {}
    for name in options.contenders:
        if importlib.util.find_spec(CONTENDERS[name]):
            contenders.append(name)
        else:
            left_out[name] = f"{CONTENDERS[name]} is not installed"
            print(f"{name} is left out: {left_out[name]}")
    if not contenders:
        raise xr.InputError(f"none of {', '.join(options.contenders)} is installed")
    if {"input", "input-train"} & set(options.cases):
        xr.datasets.load(
            options.data, options.data_dir, image_size=INPUT_SIZE, need=("train",)
        )  # fmt: skip

    began = time.perf_counter()
    measurements, operations, peaks, workers = [], {}, [], {}
    for case in dict.fromkeys(options.cases):
        with Case(case, contenders, options, left_out) as running:
            measurements += running.measure()
            operations[case], workers[case] = running.operations, running.ready
            peaks += running.peaks
    if not measurements:
        raise xr.InputError("no contender could be measured: see the lines above")

    rows = summarise(measurements)
    peak = max(peaks) or None
    for row in rows:
        known = operations[row["case"]].get(row["task"])
        speed = row["images_per_second"]["median"]
        row["gflops_per_step"] = known["flops"] / 1e9 if known else None
        row["share_of_peak"] = (
            speed * known["flops"] / known["images"] / peak if known and peak else None
        )
    results = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(["python", *sys.argv]),
        "options": dataclasses.asdict(options),
        "machine": machine(),
        "tf32": False,
        "peak_flops": peak,
        "seconds": time.perf_counter() - began,
        "left_out": left_out,
        "rows": rows,
        "engine_overhead": engine_overhead(measurements),
        "operations": operations,
        "workers": workers,
        "measurements": measurements,
    }
    header, cells = table(rows)
    notes = in_words(results)
    print("\n" + text_table(header, cells) + "\n\n" + "\n".join(notes))
    folder = Path(options.out)
    page = ["# Benchmark", "\n".join(f"- {note}" for note in notes), markdown(header, cells)]
    write_whole(folder / "benchmark.md", "\n\n".join(page) + "\n")
    files.write_json_atomic(folder / "benchmark.json", results)
    print(f"\nWritten to {folder / 'benchmark.md'} and {folder / 'benchmark.json'}")


def run(options):
    try:
        main(options)
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        sys.exit(130)


def check(o):
    import keras_xreid as xr

    for name, values, known in (
        ("case", o.cases, CASES),
        ("contender", o.contenders, tuple(CONTENDERS)),
        ("task", o.tasks, ("train", "embed", "predict")),
        ("precision", (o.precision,), ("float32", "mixed_bfloat16")),
    ):
        unknown = [value for value in values if value not in known]
        if unknown or not values:
            what = f"unknown {name} {unknown[0]!r}" if unknown else f"no {name} was given"
            raise xr.InputError(f"{what}: known are {', '.join(known)}")
    for name in ("batch_size", "rounds", "threads"):
        value = getattr(o, name)
        if value is not None and value < 1:
            raise xr.InputError(f"--{name.replace('_', '-')} is {value}: give 1 or more")
    if o.batch_size == 1:
        raise xr.InputError("--batch-size is 1: batch normalization needs 2 or more")
    if not 0 < o.seconds < 3600:
        raise xr.InputError(f"--seconds is {o.seconds}: give more than 0 and less than 3600")
    if o.threads and o.threads > len(cores()):
        raise xr.InputError(f"--threads is {o.threads}, but this process has {len(cores())} cores")
    folder = Path(o.out)
    if not o.overwrite and any((folder / f"benchmark.{end}").exists() for end in ("json", "md")):
        raise xr.InputError(f"{folder} holds results: --overwrite replaces them, or another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise xr.InputError(f"cannot write to {folder}: {error.strerror}") from error


class Case:
    """The contenders of one case, each in its process, and the turns they take.

    Args:
        name: one of `CASES`.
        contenders: names of the installed contenders.
        options: the `Options`.
        left_out: dict that is given a line for each contender that fails.
    """

    def __init__(self, name, contenders, options, left_out):
        self.name, self.options, self.left_out = name, options, left_out
        ours = [c for c in contenders if c != "handwritten"]
        if name == "input":
            contenders = ["keras_xreid", *(["DataLoader"] if "handwritten" in contenders else [])]
        elif name in ("input-train", "adaptive"):
            contenders = ours[:1]
        # All start at once, and import their libraries side by side.
        self.workers = {name: Worker(self.name, name, ours[:1], options) for name in contenders}
        self.ready, self.operations, self.peaks = {}, {}, []
        for name, worker in list(self.workers.items()):
            try:
                self.ready[name] = worker.answer()
            except WorkerFailed as error:
                self.leave_out(name, error)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self.workers.values():
            worker.end()

    def turns(self):
        """Groups of (task, contender, worker's name, worker's task); a group shares its rounds."""
        if self.name == "input":
            tasks = ("pairs, first", "pairs", "images, first", "images")
            return [[(task, c, c, task) for c in self.workers] for task in tasks if self.workers]
        if self.name == "input-train":
            names = ("cached batch", "real batches")
            return [[("train", name, c, name) for name in names] for c in self.workers]
        if self.name == "adaptive":
            names, tasks = ("plain network", "adaptive"), ("embed", "match")
            return [[(t, n, c, f"{n}, {t}") for n in names] for t in tasks for c in self.workers]
        train, embed = ([(t, c, c, t) for c in self.workers] for t in ("train", "embed"))
        if self.name == "intact" and "torch" in self.workers:
            train += [(task, "torch", "torch", task) for task in ("passes", "optimizer")]
        if "predict" in self.options.tasks:
            ours = [c for c in self.workers if c != "handwritten"]
            embed += [("embed", f"{c} by predict", c, "predict") for c in ours]
        train = train if "train" in self.options.tasks else []
        embed = embed if {"embed", "predict"} & set(self.options.tasks) else []
        return [turns for turns in (train, embed) if turns]

    def measure(self):
        """Warms up, then runs the rounds; a list of measurements."""
        found = []
        for turns in self.turns():
            for task, contender, name, own_task in turns:
                print(f"{self.name}, {task}: {contender} warms up", flush=True)
                self.ask(name, "warm_up", own_task)
            for number in range(self.options.rounds):
                first = number % len(turns)  # nobody is always the first
                line = []
                for task, contender, name, own_task in turns[first:] + turns[:first]:
                    turn = self.ask(name, "turn", own_task)
                    if turn is None:
                        continue
                    turn["images_per_second"] = turn["images"] / turn["seconds"]
                    where = {"case": self.name, "task": task, "contender": contender}
                    found.append({**where, "round": number, **turn})
                    line.append(f"{contender} {task} {turn['images_per_second']:.1f}")
                print(
                    f"{self.name}, round {number + 1} of {self.options.rounds}, images/s: "
                    f"{', '.join(line)}", flush=True,
                )  # fmt: skip
            self.learn()
        return found

    def ask(self, name, *words):
        """The worker's answer; None from one that has failed (out of memory, say): others go on."""
        if name not in self.workers:
            return None
        try:
            return self.workers[name].ask(*words)
        except WorkerFailed as error:
            self.leave_out(name, error)

    def leave_out(self, name, error):
        self.left_out[f"{self.name}, {name}"] = str(error)
        print(f"{self.name}: {name} is left out: {error}")
        self.workers.pop(name).end()

    def learn(self):
        """Operations a step from everybody, and the device's peak from the first who can tell."""
        for name in list(self.workers):
            known = self.ask(name, "operations") or {}
            self.operations = {**known, **self.operations}  # hand-written is asked first
        peaks = (self.ask(name, "peak") for name in list(self.workers))
        self.peaks += [next((peak for peak in peaks if peak), 0)]


# --- what is made of the measurements ----------------------------------------------------------


def spread(values):
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarise(measurements, references=REFERENCES):
    """Medians and spreads of speeds, and of ratios taken within each round.

    Args:
        measurements: list of dicts with case, task, contender, round, images_per_second and
            peak_bytes (None where it was not measured).
        references: contenders that ratios are taken to, where they did the same task.

    Returns:
        List of rows, one for each (case, task, contender) in order of appearance: dicts with
        `images_per_second`, `ratio`, `peak_bytes` and `memory_ratio`; the last three are None
        where there is nothing to say.
    """
    groups = {}
    for m in measurements:
        contenders = groups.setdefault((m["case"], m["task"]), {})
        contenders.setdefault(m["contender"], {})[m["round"]] = m
    rows = []
    for (case, task), contenders in groups.items():
        reference = next((contenders[name] for name in references if name in contenders), {})

        def ratios(turns, what, reference=reference):
            paired = [(turns[r][what], reference[r][what]) for r in turns if r in reference]
            found = [own / theirs for own, theirs in paired if own and theirs]
            return spread(found) if found else None

        for contender, turns in contenders.items():
            peaks = [m["peak_bytes"] for m in turns.values() if m["peak_bytes"]]
            rows.append(
                {
                    "case": case,
                    "task": task,
                    "contender": contender,
                    "images_per_second": spread([m["images_per_second"] for m in turns.values()]),
                    "ratio": ratios(turns, "images_per_second"),
                    "peak_bytes": spread(peaks) if peaks else None,
                    "memory_ratio": ratios(turns, "peak_bytes"),
                }
            )
    return rows


def engine_overhead(measurements):
    """What INTACT's whole train step takes beyond its passes, as shares of the passes' time.

    Args:
        measurements: list of dicts with task, contender, round and images_per_second.

    Returns:
        None, or a dict of spreads: "step", all that the step takes beyond its passes, and
        "optimizer", the part of it that the optimizers take.
    """
    speeds = {}
    for m in measurements:
        if m["case"] == "intact" and m["contender"] == "torch":
            speeds.setdefault(m["round"], {})[m["task"]] = m["images_per_second"]
    whole = [s for s in speeds.values() if {"train", "passes", "optimizer"} <= set(s)]
    if not whole:
        return None
    return {
        "step": spread([s["passes"] / s["train"] - 1 for s in whole]),
        "optimizer": spread([s["passes"] / s["optimizer"] for s in whole]),
    }


def table(rows):
    """Header and cells of the table that a person reads."""
    header = [
        "case", "task", "contender", "images/s (min-max)", "ratio (min-max)", "peak memory",
        "memory ratio", "GFLOPs/step", "of peak",
    ]  # fmt: skip

    def cell(values, form):
        if not values:
            return "-"
        return f"{values['median']:{form}} ({values['min']:{form}}-{values['max']:{form}})"

    cells = []
    for row in rows:
        memory, ratio, share = row["peak_bytes"], row["memory_ratio"], row["share_of_peak"]
        cells.append(
            [
                row["case"], row["task"], row["contender"],
                cell(row["images_per_second"], ".1f"),
                cell(row["ratio"], ".2f"),
                f"{memory['median'] / 2**20:,.0f} MiB" if memory else "-",
                f"{ratio['median']:.2f}" if ratio else "-",
                f"{row['gflops_per_step']:,.1f}" if row["gflops_per_step"] else "-",
                f"{share:.0%}" if share else "-",
            ]
        )  # fmt: skip
    return header, cells


def in_words(results):
    """Lines that say what the table was measured on, and what does not fit into it."""
    o, on = results["options"], results["machine"]
    told = [worker for case in results["workers"].values() for worker in case.values()]
    versions = {name: version for t in told for name, version in t["versions"].items()}
    devices = ", ".join(dict.fromkeys(t["device"] for t in told if t["device"] != "cpu"))
    threads = ", ".join(dict.fromkeys(str(t["threads"]) for t in told))
    compiled = "compiled" if o["compiled"] else "not compiled"
    lines = [
        f"{results['date']}: {results['command']}",
        f"{devices or on['cpu']}, {threads} threads, {on['memory_gib']:.0f} GiB, {on['system']}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"{o['precision']}, {compiled}, TF32 off; {o['rounds']} rounds of about {o['seconds']:g} s",
    ]
    if results["peak_flops"]:
        lines.append(f"Peak, by one big matrix product: {results['peak_flops'] / 1e9:,.0f} GFLOP/s")
    if overhead := results["engine_overhead"]:
        step, optimizer = (overhead[part] for part in ("step", "optimizer"))
        lines.append(
            f"INTACT's train step on torch takes {step['median']:.1%} ({step['min']:.1%} to "
            f"{step['max']:.1%}) longer than its passes alone; of this the optimizers are "
            f"{optimizer['median']:.1%}"
        )
    others = [m["others"] for m in results["measurements"] if m["others"] is not None]
    disturbed = [share for share in others if share > DISTURBED]
    if disturbed:
        lines.append(
            f"NOT QUIET: other processes took up to {max(disturbed):.0%} of the cores, and more "
            f"than {DISTURBED:.0%} in {len(disturbed)} of {len(others)} turns; measure again"
        )
    lines += [f"Left out: {name}: {reason}" for name, reason in results["left_out"].items()]
    return lines


def write_whole(path, text):
    """The file is there complete or not at all."""
    unfinished = path.with_name("unfinished-" + path.name)
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


if __name__ == "__main__":
    from keras_xreid import app

    app.command(run, Options, __doc__)

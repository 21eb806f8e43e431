"""Measures speed and memory beside hand-written PyTorch: every speed claim is made with this.

    python recipes/benchmark.py
    python recipes/benchmark.py --cases resnet50 --contenders handwritten torch
    python recipes/benchmark.py --cases input input-train --data market1501 --data-dir DIR
    python recipes/benchmark.py --batch-size 64 --precision mixed_bfloat16 --compiled   # on a GPU

Each contender waits in a process of its own with its model ready. In every round each is timed
once, in turn and for about --seconds, so that a machine that slows down hits all alike; ratios are
taken within a round. Printed and written to --out are medians and the smallest and largest round.
The four network cases take about 12 minutes on two cores with torch and tensorflow.

Contenders: `handwritten` (recipes/handwritten.py), `torch`, `torch-plain` (torch without the fast
path), `tensorflow`, `jax`; those that are not installed are left out.

Cases and tasks: `resnet50`, `osnet_x1_0`, `tiny` (a Baseline each) and `intact`: `train`, one step
from a uint8 batch to updated weights through `fit`, and `embed`, from uint8 images to NumPy
features. `passes` and `optimizer` are the parts of INTACT's train step on torch, run in a plain
loop: what is left over is the engine. `input`: batches from image files, with two workers, beside
a torch DataLoader; `first` is the first epoch, decoding included, the others the epochs after it.
`input-train`: ResNet-50 trained on real batches beside one cached batch. `adaptive`: what masks and
vectors of varying length cost a tiny network, in `embed` and in `match`, the distances of 1,000
queries of four rates to 16,000 gallery images.

Operations are those of convolutions and matrix products, 2 for a multiply-add; the peak is that
of one big matrix product in the same run. Peak memory is what the train step adds to a process
that has only imported its libraries. TF32 is off everywhere.
"""

import contextlib
import dataclasses
import datetime
import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PEOPLE = 401
NETWORKS = {
    "resnet50": {"backbone": "resnet50", "image_size": (256, 128), "batch_size": 16},
    "osnet_x1_0": {"backbone": "osnet_x1_0", "image_size": (256, 128), "batch_size": 16},
    "tiny": {"backbone": "resnet_tiny", "image_size": (128, 64), "batch_size": 32},
    "intact": {"backbone": None, "image_size": (128, 64), "batch_size": 32},
}
CASES = (*NETWORKS, "input", "input-train", "adaptive")
CONTENDERS = {
    "handwritten": "torch",
    "torch": "torch",
    "torch-plain": "torch",
    "tensorflow": "tensorflow",
    "jax": "jax",
}
# What a ratio is taken to: whichever of these was measured for the same task.
REFERENCES = ("handwritten", "DataLoader", "cached batch", "plain network")
INPUT_SIZE, RATES, WORKERS = (256, 128), (2, 3, 4), 2
EMBEDDED_BATCHES = 4
# PyTorch's threads wait for each other busily: another process on one of two cores can cost it not
# half but nearly all of its speed, and TensorFlow a little. So a disturbed turn is made known.
DISTURBED = 0.1


@dataclasses.dataclass
class BenchmarkOptions:
    cases: tuple[str, ...] = CASES
    """resnet50, osnet_x1_0, tiny, intact, input, input-train, adaptive."""
    contenders: tuple[str, ...] = tuple(CONTENDERS)
    """handwritten, torch, torch-plain, tensorflow, jax; ratios need handwritten."""
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
    from keras_xreid.evaluation import files, report

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
    print("\n" + report.text_table(header, cells) + "\n\n" + "\n".join(notes))
    folder = Path(options.out)
    page = ["# Benchmark", "\n".join(f"- {note}" for note in notes), report.markdown(header, cells)]
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
        options: the `BenchmarkOptions`.
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
        return [train, embed] if train else []

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


class WorkerFailed(Exception):
    pass


class Worker:
    """A contender's process: it is told what to do in lines of JSON, and answers in such lines."""

    def __init__(self, case, contender, ours, options):
        backend = CONTENDERS.get(contender, "torch")
        if contender == "keras_xreid":
            backend = CONTENDERS[ours[0]] if ours else "torch"
        job = {"case": case, "contender": contender, **dataclasses.asdict(options)}
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "KERAS_XREID_FAST_TORCH": "0" if contender == "torch-plain" else "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Several processes share a GPU: nobody takes all of its memory in advance.
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        if options.threads:
            environment["OMP_NUM_THREADS"] = str(options.threads)
            environment["TF_NUM_INTRAOP_THREADS"] = str(options.threads)
        self.log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(job)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env=environment,
        )  # fmt: skip

    def ask(self, *words):
        try:
            self.process.stdin.write(json.dumps(words) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and `answer` says why
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.log.seek(0)
        said = self.log.read().strip().splitlines() or ["no message"]
        raise WorkerFailed(f"ended with status {status}: {said[-1].strip()}")

    def end(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


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


def cores():
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count()))


def machine():
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu,
        "cores": len(cores()),
        "memory_gib": pages * os.sysconf("SC_PAGE_SIZE") / 2**30 if pages else 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


# --- in a contender's process ------------------------------------------------------------------


def work(job):
    """Makes the contender ready, then does what lines on stdin ask for, until they end."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    if job["threads"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[: job["threads"]])

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    if job["case"] == "input":
        contender = OurInput(job) if job["contender"] == "keras_xreid" else LoaderInput(job)
    elif job["case"] == "adaptive":
        contender = AdaptiveCost(job)
    elif job["case"] == "input-train":
        contender = InputTrain(job)
    else:
        contender = Handwritten(job) if job["contender"] == "handwritten" else Ours(job)
    answer(contender.ready())
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer(getattr(contender, name)(*arguments))


class Device:
    """What a backend computes on: its name, and the memory that it has taken.

    Made when the libraries are imported and neither model nor data are there.
    """

    def __init__(self, backend):
        self.backend, self.name = backend, "cpu"
        self.threads = len(cores())
        if backend == "torch":
            import torch as library

            # Keras imports it where it finds it, and its memory would count as the model's.
            sys.modules.setdefault("tensorflow", None)
            library.backends.cuda.matmul.allow_tf32 = library.backends.cudnn.allow_tf32 = False
            self.threads = library.get_num_threads()
            if library.cuda.is_available():
                self.name = library.cuda.get_device_name()
        elif backend == "tensorflow":
            import tensorflow as library

            library.config.experimental.enable_tensor_float_32_execution(False)
            for gpu in library.config.list_physical_devices("GPU")[:1]:
                details = library.config.experimental.get_device_details(gpu)
                self.name = details.get("device_name", "GPU")
        else:
            import jax as library

            library.config.update("jax_default_matmul_precision", "highest")
            if library.devices()[0].platform != "cpu":
                self.name = library.devices()[0].device_kind
        self.library = library
        self.base = self._from_proc("VmRSS") if self.name == "cpu" else 0

    def synchronize(self):
        if self.name == "cpu":
            return
        if self.backend == "torch":
            self.library.cuda.synchronize()
        elif self.backend == "tensorflow":
            self.library.test.experimental.sync_devices()
        else:  # one device runs one thing after the other
            self.library.block_until_ready(self.library.numpy.zeros(()) + 1)

    def reset_peak(self):
        if self.name == "cpu":
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        elif self.backend == "torch":
            self.library.cuda.reset_peak_memory_stats()
        elif self.backend == "tensorflow":
            self.library.config.experimental.reset_memory_stats("GPU:0")

    def peak(self):
        """Bytes at most since the reset (on JAX on a GPU since the start); None if unknown."""
        if self.name == "cpu":
            peak = self._from_proc("VmHWM")
            return peak and peak - self.base
        if self.backend == "torch":
            return self.library.cuda.max_memory_allocated()
        if self.backend == "tensorflow":
            return self.library.config.experimental.get_memory_info("GPU:0")["peak"]
        return self.library.devices()[0].memory_stats()["peak_bytes_in_use"]

    @staticmethod
    def _from_proc(name):
        with contextlib.suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith(name):
                    return 1024 * int(line.split()[1])
        return None

    def peak_flops(self, precision):
        """Operations a second of one big matrix product, the best of several; on torch only."""
        if self.backend != "torch":
            return None
        torch = self.library
        side = 2048 if self.name == "cpu" else 8192
        kind = torch.float32 if precision == "float32" else torch.bfloat16
        where = "cpu" if self.name == "cpu" else "cuda"
        a, b = (torch.randn(side, side, device=where).to(kind) for _ in range(2))
        seconds = []
        for _ in range(10):
            began = time.perf_counter()
            a @ b
            self.synchronize()
            seconds.append(time.perf_counter() - began)
        return 2 * side**3 / min(seconds)


def others_seconds():
    """Time that the machine's cores have worked for other processes; None if unknown."""
    with contextlib.suppress(OSError, AttributeError):
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, _, _, *more = Path("/proc/stat").read_text().split(None, 9)[1:9]
        working = sum(map(int, (user, nice, system, *more))) / tick
        for child in multiprocessing.active_children():
            fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
            working -= (int(fields[11]) + int(fields[12])) / tick
        return working - sum(os.times()[:4])
    return None


class Contender:
    """Runs a task so many times as fill a turn.

    A subclass fills `tasks`: from a task's name to a function that runs it so many times and
    returns (images, seconds).
    """

    def __init__(self, job, device):
        self.job, self.device = job, device
        self.tasks, self.flops, self.runs_a_second = {}, {}, {}
        self.versions, self.parameters = {}, None

    def ready(self):
        names = (self.device.backend, "keras")
        return {
            "device": self.device.name,
            "threads": self.device.threads,
            "parameters": self.parameters,
            "versions": {n: sys.modules[n].__version__ for n in names if n in sys.modules},
        }

    def warm_up(self, task):
        _, seconds = self.first_run(task)
        traced = self.device.backend != "torch" or self.job["compiled"]
        if traced or seconds < self.job["seconds"] / 2:
            _, seconds = self.tasks[task](1)
        self.runs_a_second[task] = 1 / seconds

    def first_run(self, task):
        return self.tasks[task](1)

    def turn(self, task):
        runs = max(1, round(self.job["seconds"] * self.runs_a_second[task]))
        self.device.reset_peak()
        others, began = others_seconds(), time.perf_counter()
        images, seconds = self.tasks[task](runs)
        if others is not None:  # as a share of all cores
            passed = (time.perf_counter() - began) * os.cpu_count()
            others = max(0.0, (others_seconds() - others) / passed)
        self.runs_a_second[task] = runs / seconds
        peak = self.device.peak() if task == "train" else None
        return {"images": images, "seconds": seconds, "peak_bytes": peak, "others": others}

    def operations(self):
        return self.flops

    def peak(self):
        return self.device.peak_flops(self.job["precision"])


def cached_batch(job, people=PEOPLE):
    """One batch of noise, and noise to embed."""
    network = NETWORKS[job["case"]]
    count = job["batch_size"] or network["batch_size"]
    rng = np.random.default_rng(0)
    batch = {"person": rng.integers(0, people, count).astype("int32")}
    for name in ("hr", "lr") if job["case"] == "intact" else ("image",):
        batch[name] = rng.integers(0, 256, (count, *network["image_size"], 3), dtype="uint8")
    images = np.concatenate([batch[name]] * EMBEDDED_BATCHES)
    return batch, images, count


class Handwritten(Contender):
    def __init__(self, job):
        import handwritten
        import torch

        super().__init__(job, Device("torch"))
        self.torch, self.embed = torch, handwritten.embed
        self.batch, self.images, self.count = cached_batch(job)
        backbone = NETWORKS[job["case"]]["backbone"]
        self.system = handwritten.Baseline(backbone) if backbone else handwritten.INTACT()
        self.parameters = sum(
            p.numel() for n in self.system.networks for p in n.parameters() if p.requires_grad
        )
        self.tasks = {"train": self.run_train, "embed": self.run_embed}

    def precision(self):
        kind = "cpu" if self.device.name == "cpu" else "cuda"
        return self.torch.autocast(
            kind, self.torch.bfloat16, enabled=self.job["precision"] != "float32"
        )

    def first_run(self, task):
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            images, seconds = self.tasks[task](1)
        flops = counter.get_total_flops() * self.count // images
        self.flops[task] = {"flops": flops, "images": self.count}
        if self.job["compiled"]:
            for network in self.system.networks:
                network.compile()
            images, seconds = self.tasks[task](1)
        return images, seconds

    def run_train(self, runs):
        self.device.synchronize()
        began = time.perf_counter()
        with self.precision():
            for _ in range(runs):
                self.system.train_step(self.batch)
        self.device.synchronize()
        return runs * self.count, time.perf_counter() - began

    def run_embed(self, runs):
        began = time.perf_counter()
        with self.precision():
            for _ in range(runs):
                self.embed(self.system, self.images, self.count)
        return runs * len(self.images), time.perf_counter() - began


class Ours(Contender):
    def __init__(self, job, people=PEOPLE):
        import keras

        import keras_xreid as xr
        from keras_xreid.evaluation.flops import forward_flops

        super().__init__(job, Device(keras.backend.backend()))
        self.keras = keras
        self.batch, self.images, self.count = cached_batch(job, people)
        keras.config.set_dtype_policy(job["precision"])
        compiled = True if job["compiled"] else None
        network = NETWORKS[job["case"]]
        if network["backbone"]:
            self.model = xr.Baseline(
                people, backbone=network["backbone"], image_size=network["image_size"]
            )
            self.model.compile({"network": keras.optimizers.Adam(1e-4)}, jit_compile=compiled)
            embedding = [self.model.network]
        else:
            self.model = xr.INTACT(people, "tiny")
            self.model.compile(jit_compile=compiled)
            embedding = [self.model.generator, self.model.reid]
        for part in embedding if compiled else ():
            part.jit_compile = True
        self.parameters = int(sum(np.prod(v.shape) for v in self.model.trainable_variables))
        flops = self.count * sum(forward_flops(part) for part in embedding)
        self.flops["embed"] = {"flops": flops, "images": self.count}
        self.tasks = {"train": self.run_train, "embed": self.run_embed}
        if keras.backend.backend() == "torch":
            self.tasks |= {"passes": self.run_passes, "optimizer": self.run_optimizer}

    def run_train(self, runs):
        return self.fit(lambda _: self.batch, runs)

    def fit(self, get, runs):
        """Times `fit` from its first step to its last, without its start-up."""
        keras, device, times = self.keras, self.device, []

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return runs

            def __getitem__(self, index):
                return get(index)

        class Clock(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                if batch == 0:
                    device.synchronize()
                    times.append(time.perf_counter())

            def on_train_batch_end(self, batch, logs=None):
                if batch == runs - 1:
                    for value in logs.values():  # JAX returns before it has computed
                        float(value)
                    device.synchronize()
                    times.append(time.perf_counter())

        self.model.fit(Batches(), verbose=0, shuffle=False, callbacks=[Clock()])
        return runs * self.count, times[1] - times[0]

    def run_embed(self, runs):
        began = time.perf_counter()
        for _ in range(runs):
            self.model.embed(self.images, batch_size=self.count)
        return runs * len(self.images), time.perf_counter() - began

    def passes(self):
        """Every phase forwards and backwards, and nothing else; yields gradients part by part."""
        torch, model = self.device.library, self.model
        batch = {k: self.keras.ops.convert_to_tensor(v) for k, v in self.batch.items()}
        with torch.no_grad():
            batch = model.prepare(batch)
        for phase in model.phases():
            parts = [(part, getattr(model, part).trainable_variables) for part in phase.updates]
            values = [v.value for _, variables in parts for v in variables]
            total = sum(phase.losses(batch).values())
            gradients = iter(torch.autograd.grad(total, values, materialize_grads=True))
            for part, variables in parts:
                yield model.optimizers[part], variables, [next(gradients) for _ in variables]

    def run_passes(self, runs):
        self.model.train()
        self.device.synchronize()
        began = time.perf_counter()
        for _ in range(runs):
            for _ in self.passes():
                pass
        self.device.synchronize()
        return runs * self.count, time.perf_counter() - began

    def run_optimizer(self, runs):
        there = list(self.passes())
        back = [(o, variables, [-g for g in gradients]) for o, variables, gradients in there]
        self.device.synchronize()
        began = time.perf_counter()
        with self.device.library.no_grad():
            for run in range(runs):  # to and fro, so that the weights stay where they are
                for optimizer, variables, gradients in (there, back)[run % 2]:
                    optimizer.apply(gradients, variables)
        self.device.synchronize()
        return runs * self.count, time.perf_counter() - began


class InputTrain(Ours):
    """ResNet-50 on batches from image files, and on one cached batch."""

    def __init__(self, job):
        records = training_records(job)
        super().__init__({**job, "case": "resnet50"}, people=len({r.person for r in records}))
        self.real, self.position = our_batches("images", records, self.count), 0
        self.tasks = {"cached batch": self.run_train, "real batches": self.run_real}

    def run_real(self, runs):
        began = self.position
        self.position += runs
        return self.fit(lambda index: self.real[(began + index) % len(self.real)], runs)


class AdaptiveCost(Contender):
    """Resolution-adaptive representations, and the same network without masks and lengths."""

    def __init__(self, job):
        import keras

        import keras_xreid as xr

        super().__init__(job, Device(keras.backend.backend()))
        keras.config.set_dtype_policy(job["precision"])
        self.count = job["batch_size"] or 32
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (4 * self.count, 128, 64, 3), dtype="uint8")
        rates = (1, 2, 3, 4)
        self.rates = rng.choice(rates, 1000)
        self.query, self.gallery = (
            rng.normal(size=(n, 512)).astype("float32") for n in (1000, 16_000)
        )
        for name, more in (
            ("plain network", {"masks": False, "varying_length": False}),
            ("adaptive", {}),
        ):
            model = xr.Adaptive(PEOPLE, "tiny", rates=rates, **more)
            if job["compiled"]:
                model.network.jit_compile = True
            self.tasks[f"{name}, embed"] = functools.partial(self.run_embed, model)
            self.tasks[f"{name}, match"] = functools.partial(self.run_match, model)
        self.parameters = model.count_params()

    def run_embed(self, model, runs):
        rates = np.resize(self.rates, len(self.images))
        began = time.perf_counter()
        for _ in range(runs):
            model.embed(self.images, rates, batch_size=self.count)
        return runs * len(self.images), time.perf_counter() - began

    def run_match(self, model, runs):
        began = time.perf_counter()
        for _ in range(runs):
            model.distances(self.query, self.gallery, query_rates=self.rates)
        return runs * len(self.query), time.perf_counter() - began


def training_records(job):
    import keras_xreid as xr

    return xr.datasets.load(
        job["data"], job["data_dir"], image_size=INPUT_SIZE, need=("train",)
    ).train  # fmt: skip


def our_batches(kind, records, batch_size):
    import keras_xreid as xr

    make = xr.PairBatches if kind == "pairs" else xr.ImageBatches
    return make(
        records, image_size=INPUT_SIZE, rates=RATES, batch_size=batch_size, workers=WORKERS
    )  # fmt: skip


class Input(Contender):
    """Batches from image files: the whole first epoch, and parts of those after it."""

    def __init__(self, job):
        import keras

        super().__init__(job, Device(keras.backend.backend()))
        self.records, self.count = training_records(job), job["batch_size"] or 32
        self.batches = self.stream = None
        for kind in ("pairs", "images"):
            self.tasks[f"{kind}, first"] = lambda _, kind=kind: self.first(kind)
            self.tasks[kind] = self.later

    def warm_up(self, task):
        if task.endswith("first"):
            self.runs_a_second[task] = 0  # an epoch is one run
        else:
            self.tasks[task](4)
            _, seconds = self.tasks[task](4)
            self.runs_a_second[task] = 4 / seconds

    def first(self, kind):
        began = time.perf_counter()
        self.batches = self.make(kind)
        batches = sum(1 for _ in self.epoch())
        seconds = time.perf_counter() - began
        self.stream = itertools.chain.from_iterable(self.epoch() for _ in itertools.count())
        return batches * self.count, seconds

    def later(self, runs):
        began = time.perf_counter()
        for _ in itertools.islice(self.stream, runs):
            pass
        return runs * self.count, time.perf_counter() - began


class OurInput(Input):
    def make(self, kind):
        self.home = tempfile.TemporaryDirectory()  # without images decoded by an earlier run
        os.environ["KERAS_HOME"] = self.home.name
        return our_batches(kind, self.records, self.count)

    def epoch(self):
        self.batches.on_epoch_begin()
        for index in range(len(self.batches)):
            yield self.batches[index]
        self.batches.on_epoch_end()


class LoaderInput(Input):
    def make(self, kind):
        import handwritten

        return handwritten.loader(
            self.records, INPUT_SIZE, RATES, kind == "pairs", self.count, WORKERS
        )

    def epoch(self):
        return iter(self.batches)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
    else:
        import common

        common.start(run, BenchmarkOptions, __doc__)

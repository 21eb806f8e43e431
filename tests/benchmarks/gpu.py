"""What a few minutes on one GPU are for: scores of every system, and the speed of a train step.

    python tests/benchmarks/gpu.py --part train
    python tests/benchmarks/gpu.py --part train --data-dir market1501 --minutes 10
    python tests/benchmarks/gpu.py --part speed

Needs `pip install -e ".[torch,recipes,imagenet]"` and one NVIDIA GPU. Each part takes 3 minutes at
most (--minutes). What it has is written after every row, so that a cut-off loses one row at most,
and what did not fit is listed as not run.

train: the main table, with the strong preset at 128x64 in bfloat16, compiled: the plain network on
HR images, and from its weights the plain network on HR and LR images, RAIN, CAD-Net, INTACT and the
adaptive system. A first run of 40 steps measures how fast this machine starts, trains and scores;
then as many rows as fit share the time, all of them with as many images, 120,000 at most. Compiling
takes most of three minutes: --no-compiled or more --minutes fit more rows. Results: summary.md and
each row's ROW.metrics.json, ROW.queries.csv and ROW.weights.h5 in runs/gpu-train (--out), and the
whole runs in runs/gpu-train/runs.

speed: train steps of ResNet-50 and of INTACT (tiny) beside hand-written PyTorch, with batches of 64
and 256, at 128x64 and 256x128, in bfloat16 and float32 (TF32 off), eager and compiled: the median
of 5 rounds in which each is timed in turn, after a warm-up and with CUDA synchronised. MFU, the
share of the card's peak in bfloat16: 3 times the operations of ResNet-50's forward pass an image,
or those counted in INTACT's hand-written step a pair, times images a second, by the peak. Results:
summary.md and speed.json in runs/gpu-speed (--out).

Without a GPU both are rehearsed on the CPU, with 5 steps a row (--steps), not compiled, and speed
with small batches: that all of it works is seen before the GPU is there, and the numbers mean
nothing. A short rehearsal of both on one core, the first of about 10 minutes:

    OMP_NUM_THREADS=1 python tests/benchmarks/gpu.py --part train --steps 2 --limit 34 --rates 1 4
        --minutes 20
    OMP_NUM_THREADS=1 python tests/benchmarks/gpu.py --part speed --steps 2
"""

import contextlib
import dataclasses
import datetime
import gc
import itertools
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BEGAN = time.monotonic()  # what is imported below counts, too

import keras_xreid as xr  # noqa: E402
from keras_xreid import app, files  # noqa: E402
from keras_xreid.app.machine import cores, machine  # noqa: E402
from keras_xreid.backbones.efficientnet import imagenet_file  # noqa: E402
from keras_xreid.report.runs import read_metrics  # noqa: E402
from keras_xreid.report.tables import NOT_MEASURED, markdown  # noqa: E402

# isort: split
from cases import Handwritten, Ours  # noqa: E402
from speed import summarise  # noqa: E402

# A row's recipe, what it is told besides, and how much slower an image is than in the first row:
# a guess that only says which rows fit.
ROWS = {
    "control-hr": ("baseline", "", 1),
    "control-hr-lr": ("baseline", "--train-on hr+lr --weights HR", 1),
    "rain": ("rain", "--weights HR", 2),
    "cadnet": ("cadnet", "--weights HR", 3),
    "intact": ("intact", "--reid HR", 2),
    "adaptive": ("adaptive", "--weights HR", 1),
}
FIRST = "control-hr"
# Images of a step (32 pairs, in systems that take pairs), and epochs: one for each of the adaptive
# system's four masks.
STEP, EPOCHS = 64, 4
FIRST_STEPS = 20
# With fewer images than the first no row says anything; the second is one epoch 16 times.
FEWEST, MOST = 12_800, 120_000
RESERVE = 0.9  # share of the time that is planned with

# Dense bfloat16 operations a second, as NVIDIA gives them, by the name that CUDA has for the card.
PEAKS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}
CASES = {"resnet50": "ResNet-50", "intact": "INTACT"}
ROUNDS, SECONDS = 5, 0.2
BFLOAT16 = "mixed_bfloat16"
CPU_STEPS, CPU_BATCH = 5, 4


@dataclasses.dataclass
class Options:
    part: str = ""
    """train or speed."""
    minutes: float = 3.0
    """Longest time, start and scores included."""
    out: str | None = None
    """Folder of the results, which is to be empty; runs/gpu-PART if not given."""
    data_dir: str | None = None
    """Folder of Market-1501 for train; its people are drawn (synthetic) if not given."""
    steps: int | None = None
    """Train steps of each row, or timed steps of each contender; if not given, what fits on a GPU
    and 5 without one."""
    limit: int | None = None
    """train with this many people only: a first look."""
    rates: tuple[float, ...] = (1, 2, 3, 4, 8)
    """Rates scored by train."""
    compiled: bool = True
    """Compile the train steps, on a GPU."""
    device_peak_tflops: float | None = None
    """The device's dense bfloat16 TFLOP/s, for speed; known of an H100 and an H200 (SXM), 989."""


def main(o):
    check(o)
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if not gpu:
        o.steps, o.compiled = o.steps or CPU_STEPS, False
    folder = Path(o.out or f"runs/gpu-{o.part}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise xr.InputError(f"{folder} holds other files: give another --out")
    except OSError as error:
        raise xr.InputError(f"cannot write to {folder}: {error.strerror}") from error
    deadline = BEGAN + 60 * o.minutes
    (train if o.part == "train" else speed)(o, gpu, folder, lambda: deadline - time.monotonic())
    print(f"\n{(folder / 'summary.md').read_text()}\nWritten to {folder}")


def check(o):
    if o.part not in ("train", "speed"):
        raise xr.InputError(f"--part is {o.part!r}: give train or speed")
    if os.environ["KERAS_BACKEND"] != "torch":
        raise xr.InputError(f"KERAS_BACKEND is {os.environ['KERAS_BACKEND']}: this runs on torch")
    for name in ("minutes", "device_peak_tflops"):
        value = getattr(o, name)
        if value is not None and not 0 < value < math.inf:
            raise xr.InputError(f"--{name.replace('_', '-')} is {value:g}: give more than 0")
    for name in ("steps", "limit"):
        if getattr(o, name) is not None and getattr(o, name) < 1:
            raise xr.InputError(f"--{name} is {getattr(o, name)}: give 1 or more")
    if o.part == "speed":
        for name in ("data_dir", "limit"):
            if getattr(o, name) is not None:
                flag = name.replace("_", "-")
                raise xr.InputError(f"--{flag} is for --part train: speed takes noise")
    else:
        imagenet_file()


def first_lines(o, gpu):
    """What a summary begins with."""
    lines = [
        f"GPU: {gpu}",
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}, {machine()['cpu']}, cores: {len(cores())}, "
        f"`{shlex.join(['python', *sys.argv])}`",
    ]
    if not gpu:
        lines[0] = f"REHEARSAL on a CPU, {o.steps} steps a row: no number here says anything"
    return [lines[0], "", lines[1]]


# --- train -------------------------------------------------------------------------------------


def images_that_fit(seconds, start, speed, slowness):
    """Images of each row: as many rows as fit with `FEWEST` share the time, up to `MOST`.

    Args:
        seconds: time for all rows.
        start: seconds of a row in which it does not train.
        speed: images a second of the first row.
        slowness: of each row, how many times longer an image takes than in the first.
    """
    images = 0
    for rows in range(len(slowness), 0, -1):
        images = (seconds - rows * start) * speed / sum(slowness[:rows])
        if images >= FEWEST:
            break
    return min(max(images, FEWEST), MOST)


def call(command, seconds):
    """Runs a command, and stops it with all that it started; its exit status, None if stopped."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait(max(0, seconds))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def recipe(o, folder, name, steps, epochs):
    """A row's command."""
    system, more, _ = ROWS[name]
    words = [
        sys.executable, "-m", "keras_xreid", "train", system, "--preset", "strong",
        "--precision", BFLOAT16,
        "--workers", min(8, max(1, len(cores()) - 1)), "--steps", steps, "--epochs", epochs,
        "--rates", *(f"{rate:g}" for rate in o.rates), "--out", folder / "runs" / name,
        "--compiled", o.compiled,
    ]  # fmt: skip
    words += [folder / "runs" / FIRST if word == "HR" else word for word in more.split()]
    words += ["--data", "market1501", "--data-dir", o.data_dir] if o.data_dir else []
    words += ["--limit", o.limit] if o.limit else []
    return [str(word) for word in words]


def train(o, gpu, folder, left):
    steps, start, speed = o.steps, 0, math.inf
    if steps is None:
        began = left()
        trial = recipe(o, folder, FIRST, FIRST_STEPS, 2)
        trial[trial.index("--out") + 1] = str(folder / "runs" / "first-steps")
        status = call(trial, left())
        if status:
            sys.exit(status)  # it has said why
        if status == 0:
            metrics = read_metrics(folder / "runs" / "first-steps" / "metrics.json")
            speed = metrics["images_per_second"]["reid"]
            start = began - left() - FIRST_STEPS * STEP / speed
            slowness = [slow for _, _, slow in ROWS.values()]
            images = images_that_fit(RESERVE * left(), start, speed, slowness)
            steps = math.ceil(images / STEP / EPOCHS)
            print(f"Starts and scores in {start:.0f} s, trains {speed:.0f} images/s: {steps} steps")
    done = {}
    for name in ROWS:
        done[name] = row(o, gpu, folder, name, steps, start, speed, left)
        if name == FIRST and done[name] == "exit status 2":
            sys.exit(2)  # bad input, of which the recipe has said what it is
        write_rows(o, gpu, folder, done)


def row(o, gpu, folder, name, steps, start, speed, left):
    """Runs a row; its numbers, or why there are none."""
    if steps is None:
        return "no time was left after the first steps"
    run = folder / "runs" / name
    if name != FIRST and not (run.with_name(FIRST) / "report.md").exists():
        return f"{FIRST}, which it begins from, is not there"
    epochs = 1 if o.steps else EPOCHS
    needs = start + steps * epochs * STEP * ROWS[name][2] / speed
    if left() < needs or left() <= 0:
        return f"takes about {needs:.0f} s, and {max(0, left()):.0f} s are left"
    began = left()
    print(f"\n== {name}, {left():.0f} s left", flush=True)
    status = call(recipe(o, folder, name, steps, epochs), left())
    if not (run / "metrics.json").exists():  # scores come before the figures
        return "cut off" if status is None else f"exit status {status}"
    for file in ("metrics.json", "queries.csv", "model.weights.h5"):
        shutil.copy(run / file, folder / f"{name}.{file.removeprefix('model.')}")
    metrics = read_metrics(run / "metrics.json")
    (stage, images), *_ = metrics["images_seen"].items()
    return {
        "images": images,
        "seconds": began - left(),
        "speed": metrics["images_per_second"][stage],
        "scores": metrics,
    }


def write_rows(o, gpu, folder, done):
    rates = [f"{rate:g}" for rate in o.rates]
    header = ["row", "images", "seconds", "images/s", *(f"r = {rate}" for rate in rates)]
    header += ["mean LR", "mAP, mean LR"]
    cells = []
    for name, found in done.items():
        if isinstance(found, str):
            continue
        scores = found["scores"]
        mean = scores.get("mean_lr") or {}
        ranks = [scores["per_rate"][rate]["rank1"] for rate in rates]
        cells.append(
            [
                name + (" (rehearsal)" if not gpu else ""),
                f"{found['images']:,}", f"{found['seconds']:.0f}", f"{found['speed']:.1f}",
                *(NOT_MEASURED if x is None else f"{x:.1f}"
                  for x in (*ranks, mean.get("rank1"), mean.get("mAP"))),
            ]
        )  # fmt: skip
    missing = {name: done.get(name, "") for name in ROWS if not isinstance(done.get(name), dict)}
    how = f"strong, {BFLOAT16}, {'compiled' if o.compiled else 'not compiled'}, rank-1 in percent"
    write(o, gpu, folder, [how, "", markdown(header, cells)], missing)


def write(o, gpu, folder, lines, missing):
    missing = [f"- not run: {name}{f' ({why})' if why else ''}" for name, why in missing.items()]
    text = "\n".join([*first_lines(o, gpu), "", *lines, "", *missing]).rstrip() + "\n"
    files.write_text_atomic(folder / "summary.md", text)


# --- speed -------------------------------------------------------------------------------------


class OutOfTime(BaseException):
    """No Exception: what compiles steps would catch it."""


def out_of_time(*_):
    raise OutOfTime


def settings(o, gpu):
    """What is measured, the most wanted first."""
    sizes, batches = ((128, 64), (256, 128)), (64, 256)
    if not gpu:
        sizes, batches = sizes[:1], (CPU_BATCH,)
    kinds = [(BFLOAT16, True), ("float32", False), ("float32", True)] if o.compiled else []
    kinds = [(BFLOAT16, False), *(kinds or [("float32", False)])]
    return [
        {"case": case, "image_size": size, "batch_size": batch, "precision": precision,
         "compiled": compiled, "seconds": 0 if o.steps else SECONDS}
        for (precision, compiled), batch, size, case in itertools.product(
            kinds, batches, reversed(sizes), CASES
        )
    ]  # fmt: skip


def in_words(job):
    height, width = job["image_size"]
    return (
        f"{CASES[job['case']]}, {height}x{width}, batch {job['batch_size']}, "
        f"{job['precision'].removeprefix('mixed_')}, {'compiled' if job['compiled'] else 'eager'}"
    )


def measure(job, rounds):
    """Times both contenders' train steps in turn: rows of `summarise`, and operations an image."""
    import keras
    import torch

    if job["compiled"]:
        torch.compiler.reset()  # it allows a function so many programs only, of all settings
    both = {"handwritten": Handwritten(job), "torch": Ours(job)}
    for contender in both.values():
        contender.warm_up("train")
    measured = []
    for number in range(rounds):
        for name in list(both)[:: -1 if number % 2 else 1]:  # nobody is always the first
            turn = both[name].turn("train")
            measured.append(
                {"case": job["case"], "task": "train", "contender": name, "round": number,
                 "images_per_second": turn["images"] / turn["seconds"], "peak_bytes": None}
            )  # fmt: skip
    if job["case"] == "intact":
        flops = both["handwritten"].flops["train"]["flops"] / job["batch_size"]
    else:
        flops = 3 * both["torch"].flops["embed"]["flops"] / job["batch_size"]
    keras.config.set_dtype_policy("float32")
    return summarise(measured), flops


def utilisation(speed, flops, peak, precision):
    """Model FLOPs utilisation; None where the peak is not known, or is not of this precision."""
    return speed * flops / peak if peak and precision == BFLOAT16 else None


def speed(o, gpu, folder, left):
    import torch

    peak = o.device_peak_tflops * 1e12 if o.device_peak_tflops else PEAKS.get(gpu)
    jobs, rows, longest = settings(o, gpu), [], {}
    missing = {in_words(job): "" for job in jobs}
    signal.signal(signal.SIGALRM, out_of_time)
    try:
        for job in jobs:
            told, began = in_words(job), left()
            # What takes long is not begun again where it will not fit; the first is tried.
            if began < longest.get(job["compiled"], 1):
                missing[told] = f"{max(0, began):.0f} s are left"
                continue
            print(f"{told}, {began:.0f} s left", flush=True)
            signal.setitimer(signal.ITIMER_REAL, began)
            try:
                found, flops = measure(job, o.steps or ROUNDS)
            except Exception as error:  # out of memory, say: others go on
                missing[told] = f"{type(error).__name__}: {error}".splitlines()[0]
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                gc.collect()
                torch.cuda.empty_cache()
            took = began - left()
            longest[job["compiled"]] = max(took, longest.get(job["compiled"], 0))
            for row in found:
                median = row["images_per_second"]["median"]
                mfu = utilisation(median, flops, peak, job["precision"])
                rows.append({**row, **job, "setting": told, "flops_per_image": flops, "mfu": mfu})
            del missing[told]
            write_speeds(o, gpu, folder, rows, missing, peak)
    except OutOfTime:
        missing[told] = "cut off"
    write_speeds(o, gpu, folder, rows, missing, peak)


def write_speeds(o, gpu, folder, rows, missing, peak):
    cells = []
    for row in rows:
        speed, ratio, mfu = row["images_per_second"], row["ratio"], row["mfu"]
        known = f"{mfu:.1%}" if mfu else NOT_MEASURED if peak else "not known"
        cells.append(
            [
                row["setting"] + (" (rehearsal)" if not gpu else ""), row["contender"],
                f"{speed['median']:.1f} ({speed['min']:.1f}-{speed['max']:.1f})",
                f"{ratio['median']:.2f}", known,
            ]
        )  # fmt: skip
    header = ["train step", "contender", "images/s (min-max)", "of hand-written", "MFU"]
    told = f"{peak / 1e12:g} TFLOP/s, bfloat16" if peak else "not known"
    notes = f"Peak: {told}. INTACT's images are pairs. TF32 is off. `torch` is Keras on torch."
    write(o, gpu, folder, [notes, "", markdown(header, cells, left=2)], missing)
    results = {
        "rehearsal": not gpu, "gpu": gpu, "machine": machine(), "peak_flops": peak, "tf32": False,
        "command": shlex.join(["python", *sys.argv]), "rows": rows, "not_run": missing,
    }  # fmt: skip
    files.write_json_atomic(folder / "speed.json", results)


if __name__ == "__main__":
    app.command(main, Options, __doc__)

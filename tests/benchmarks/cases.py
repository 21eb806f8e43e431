"""What tests/benchmarks/speed.py measures: each contender, and the process that it waits in.

The file is its own worker: `Worker` starts it anew for each contender, with the job as JSON.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from keras_xreid.app.machine import cores

PEOPLE = 401
NETWORKS = {
    "resnet50": {"backbone": "resnet50", "image_size": (256, 128), "batch_size": 16},
    "osnet_x1_0": {"backbone": "osnet_x1_0", "image_size": (256, 128), "batch_size": 16},
    "tiny": {"backbone": "resnet_tiny", "image_size": (128, 64), "batch_size": 32},
    "efficientnet_lite0": {
        "backbone": "efficientnet_lite0",
        "image_size": (128, 64),
        "batch_size": 32,
    },
    "intact": {"backbone": None, "image_size": (128, 64), "batch_size": 32},
}
CASES = (*NETWORKS, "input", "input-train", "adaptive")
CONTENDERS = {
    "handwritten": "torch",
    "torch": "torch",
    "torch-plain": "torch",
    "tensorflow": "tensorflow",
    "tensorflow-plain": "tensorflow",
    "jax": "jax",
    "jax-plain": "jax",
}
INPUT_SIZE, RATES, WORKERS = (256, 128), (2, 3, 4), 2
EMBEDDED_BATCHES = 4


# --- a contender's process, from outside -------------------------------------------------------


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
            f"KERAS_XREID_FAST_{backend.upper()}": "0" if contender.endswith("-plain") else "1",
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
            [sys.executable, __file__, json.dumps(job)],
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


# --- and from inside ---------------------------------------------------------------------------


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


def size_of(job):
    """The job's own image size, which tests/benchmarks/speed.py leaves to the network."""
    return job.get("image_size") or NETWORKS[job["case"]]["image_size"]


def cached_batch(job, people=PEOPLE):
    """One batch of noise, and noise to embed."""
    count = job["batch_size"] or NETWORKS[job["case"]]["batch_size"]
    rng = np.random.default_rng(0)
    batch = {"person": rng.integers(0, people, count).astype("int32")}
    for name in ("hr", "lr") if job["case"] == "intact" else ("image",):
        batch[name] = rng.integers(0, 256, (count, *size_of(job), 3), dtype="uint8")
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
            self.model = xr.Baseline(people, backbone=network["backbone"], image_size=size_of(job))
            self.model.compile({"network": keras.optimizers.Adam(1e-4)}, jit_compile=compiled)
            embedding = [self.model.network]
        else:
            self.model = xr.INTACT(people, "tiny", image_size=size_of(job))
            self.model.compile(jit_compile=compiled)
            embedding = [self.model.generator, self.model.reid]
        for part in embedding if compiled else ():
            part.jit_compile = True
        if compiled and not network["backbone"]:
            self.model.recovering().jit_compile = True
        self.embedding = embedding
        self.parameters = int(sum(np.prod(v.shape) for v in self.model.trainable_variables))
        flops = self.count * sum(forward_flops(part) for part in embedding)
        self.flops["embed"] = {"flops": flops, "images": self.count}
        self.tasks = {
            "train": self.run_train, "embed": self.run_embed, "predict": self.run_predict,
        }  # fmt: skip
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

    def run_predict(self, runs):
        """What `embed` computes, by Keras's `predict` of each part."""
        from keras_xreid.models.arrays import as_float
        from keras_xreid.training import autodiff

        for part in self.embedding:
            if part._jit_compile is None:
                part.jit_compile = autodiff.default_jit_compile()
        began = time.perf_counter()
        for _ in range(runs):
            found = as_float(self.images)
            for part in self.embedding:
                found = part.predict(np.clip(found, 0, 1), batch_size=self.count, verbose=0)
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
            found = phase.losses(batch)
            terms, handed = found if isinstance(found, tuple) else (found, {})
            batch |= self.keras.tree.map_structure(lambda x: x.detach(), handed)
            total = sum(terms.values())
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
    work(json.loads(sys.argv[1]))
